//! The server as its callers meet it: NVIDIA's clients (`tests/serve_clients.py`), plain sockets, keys, TLS, shutdown under load.
#![cfg(all(feature = "cli", feature = "serve", unix))]

#[path = "serve/deploy.rs"]
mod deploy;
#[path = "serve/load.rs"]
mod load;
#[path = "serve/page.rs"]
mod page;
#[path = "serve/shared.rs"]
mod shared;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use halfbyte::cli::npz;
use serde_json::Value;

/// A server on free ports, ended when it is dropped.
struct Running {
    process: Child,
    out: BufReader<ChildStdout>,
    ready: Value,
}

impl Running {
    fn start(models: &Path, more: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_halfbyte"));
        command.args(["serve", "--json", "--device", "cpu", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--models"]);
        let mut process = command.arg(models).args(more).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        Running { process, out, ready }
    }

    fn address(&self, what: &str) -> String {
        self.ready[what].as_str().unwrap().to_string()
    }

    /// Ends it: the last line.
    fn end(self) -> Value {
        self.terminate();
        self.last_line()
    }

    fn last_line(mut self) -> Value {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        assert!(self.process.wait().unwrap().success());
        serde_json::from_str(&line).unwrap()
    }

    fn terminate(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One request on a connection of its own: the reply, whole.
fn ask(address: &str, head: &str, body: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let head = format!("{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    // A server that refuses early may close before all is sent: its reply is what counts.
    let _ = socket.write_all(head.replacen("\r\n", " HTTP/1.1\r\n", 1).as_bytes()).and_then(|()| socket.write_all(body));
    let mut reply = Vec::new();
    socket.read_to_end(&mut reply).unwrap();
    String::from_utf8_lossy(&reply).into_owned()
}

fn status(reply: &str) -> u16 {
    reply.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

const DIGIT: &str = "POST /v2/models/digits-mlp/infer";

fn digit() -> Vec<u8> {
    let data = ["0.5"; 64].join(",");
    format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[1,64],"data":[{data}]}}]}}"#).into_bytes()
}

/// The Python that the suites use, with NVIDIA's clients. Where it is absent the test is skipped, but not in continuous integration.
fn python() -> Option<PathBuf> {
    let named = std::env::var("HALFBYTE_TRITONCLIENT").map(PathBuf::from);
    let python = named.or_else(|_| std::env::var("HALFBYTE_SUITES").map(|dir| Path::new(&dir).join("venv/bin/python")));
    let has = |p: &PathBuf| {
        let import = Command::new(p).args(["-c", "import tritonclient.grpc, tritonclient.http"]).stderr(Stdio::null()).status();
        import.is_ok_and(|s| s.success())
    };
    let found = python.ok().filter(has);
    if found.is_none() {
        assert!(std::env::var("CI").is_err(), "continuous integration must have tritonclient[all]");
        println!("SKIP NVIDIA's clients: scripts/test installs tritonclient[all]");
    }
    found
}

/// A folder of models with examples: ours, and the zoo's where it is there. Gives models and cases.
fn folders(scratch: &Path) -> [PathBuf; 2] {
    let [models, cases] = ["models", "cases"].map(|name| scratch.join(name));
    for folder in [&models, &cases] {
        std::fs::create_dir(folder).unwrap();
    }
    for name in ["digits-cnn", "digits-cnn-qdq", "digits-cnn-qop", "digits-mlp", "ppocr-cls", "basic-pitch"] {
        std::fs::copy(format!("models/{name}.onnx"), models.join(format!("{name}.onnx"))).unwrap();
        for what in ["in", "out"] {
            std::fs::copy(format!("models/{name}.{what}.npz"), cases.join(format!("{name}.{what}.npz"))).unwrap();
        }
    }
    let zoo = std::env::var("HALFBYTE_SUITES").map(|dir| Path::new(&dir).join("zoo"));
    let zoo = zoo.ok().and_then(|dir| std::fs::read_dir(dir).ok());
    if zoo.is_none() {
        println!("SKIP the zoo: HALFBYTE_SUITES does not have it");
    }
    for folder in zoo.into_iter().flatten().flatten().map(|e| e.path()) {
        let name = folder.file_name().unwrap().to_str().unwrap().to_string();
        let (model, files) = (folder.join("model.onnx"), ["in", "out"].map(|what| folder.join(format!("case0.{what}.npz"))));
        if models.join(format!("{name}.onnx")).exists() || !model.exists() || files.iter().any(|f| !f.exists()) {
            continue;
        }
        std::os::unix::fs::symlink(model.canonicalize().unwrap(), models.join(format!("{name}.onnx"))).unwrap();
        for (file, what) in files.iter().zip(["in", "out"]) {
            std::os::unix::fs::symlink(file.canonicalize().unwrap(), cases.join(format!("{name}.{what}.npz"))).unwrap();
        }
    }
    [models, cases]
}

#[test]
fn nvidias_clients_get_the_references_from_every_model() {
    let Some(python) = python() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let [models, cases] = folders(scratch.path());
    let server = Running::start(&models, &["--timeout", "5m"]);
    for model in server.ready["models"].as_array().unwrap() {
        assert!(model["device"] == "cpu" && model["precision"] == "f32", "{model}");
    }
    let mut clients = Command::new(python);
    clients.arg("tests/serve_clients.py").args([server.address("http"), server.address("grpc")]).arg(&cases).arg(&models);
    let done = clients.output().unwrap();
    let said = [done.stdout, done.stderr].map(|s| String::from_utf8_lossy(&s).into_owned()).concat();
    println!("{said}");
    assert!(done.status.success() && said.contains("DONE"), "{said}");
    assert_eq!(server.end()["unfinished"], 0);
}

#[test]
fn kserves_clients_get_the_references() {
    let python = std::env::var("HALFBYTE_KSERVE").map(PathBuf::from).ok().filter(|p| p.exists());
    let Some(python) = python else {
        assert!(std::env::var("CI").is_err(), "continuous integration must have kserve");
        println!("SKIP KServe's clients: scripts/test installs kserve");
        return;
    };
    let server = Running::start(Path::new("models"), &[]);
    let mut clients = Command::new(python);
    clients.arg("tests/serve_kserve.py").args([server.address("http"), server.address("grpc")]);
    let done = clients.args(["models", "digits-mlp", "digits-cnn", "ppocr-cls"]).output().unwrap();
    let said = [done.stdout, done.stderr].map(|s| String::from_utf8_lossy(&s).into_owned()).concat();
    assert!(done.status.success() && said.contains("DONE"), "{said}");
}

#[test]
fn a_plain_request_is_answered_with_the_stored_reference() {
    let server = Running::start(Path::new("models"), &[]);
    let [input, output] =
        ["in", "out"].map(|what| npz::read(Path::new(&format!("models/digits-mlp.{what}.npz"))).unwrap().remove(0).1);
    let (shape, data) = (input.shape().to_vec(), input.to_f64());
    let body = format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":{shape:?},"data":{data:?}}}],"id":"a"}}"#);
    let reply = ask(&server.address("http"), DIGIT, body.as_bytes());
    assert_eq!(status(&reply), 200, "{reply}");
    let json: Value = serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap();
    let given = json["outputs"].as_array().unwrap().iter().find(|o| o["name"] == "prob").unwrap();
    let given: Vec<f64> = given["data"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let error = given.iter().zip(output.to_f64()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(given.len() == output.numel() && error < 1e-5, "{error}: {reply}");
    assert_eq!(json["id"], "a");
}

#[test]
fn wrong_requests_are_refused_with_field_cause_and_cure() {
    let server = Running::start(Path::new("models"), &["--max-body", "1"]);
    let http = server.address("http");
    let infer = |body: &str| ask(&http, DIGIT, body.as_bytes());
    let one = |member: &str| infer(&format!(r#"{{"inputs":[{{"name":"x",{member}}}]}}"#));
    let cases = [
        (infer("{"), 400, "body"),
        (one(r#""datatype":"FP32","shape":[1,64],"data":[1]"#), 400, "inputs[0].data"),
        (one(r#""datatype":"FP32","shape":[4294967296,4294967296],"data":[1]"#), 413, "inputs[0].shape"),
        (one(r#""datatype":"INT64","shape":[1],"data":[1]"#), 400, "the model takes"),
        (one(r#""datatype":"BYTES","shape":[1],"data":["a"]"#), 400, "strings"),
        (ask(&http, "POST /v2/models/absent/infer", b"{\"inputs\":[]}"), 404, "absent"),
        (ask(&http, "GET /v2/models/digits-mlp/versions/9", b""), 404, "there are 1"),
        (ask(&http, "GET /v2/models/..%2f..%2fetc%2fpasswd", b""), 404, "no model"),
        (ask(&http, DIGIT, &vec![b' '; 3 << 20]), 413, "limit"),
        (ask(&http, "GET /v3", b""), 404, "/v3"),
        (ask(&http, DIGIT, b"{\"inputs\":[],\"parameters\":{\"sequence_id\":1}}"), 400, "sequence_id"),
    ];
    for (reply, code, says) in cases {
        assert!(status(&reply) == code && reply.contains(says) && reply.contains("\"kind\""), "{code} {says}: {reply}");
    }
    assert_eq!(status(&ask(&http, DIGIT, &digit())), 200, "the server goes on");
}

#[test]
fn what_cannot_be_on_time_is_refused_at_once() {
    let server = Running::start(Path::new("models"), &[]);
    let body = String::from_utf8(digit()).unwrap().replace(r#"{"inputs""#, r#"{"parameters":{"timeout":1},"inputs""#);
    let reply = ask(&server.address("http"), DIGIT, body.as_bytes());
    assert!(status(&reply) == 504 && reply.contains("retry-after"), "{reply}");
}

#[test]
fn only_those_with_a_key_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "# callers\nsecret\n").unwrap();
    let server = Running::start(Path::new("models"), &["--api-key-file", keys.to_str().unwrap()]);
    let http = server.address("http");
    let with = |key: &str| status(&ask(&http, &format!("GET /v2\r\nauthorization: Bearer {key}"), b""));
    assert_eq!([with("secret"), with("secre"), with("")], [200, 401, 401]);
    assert_eq!(status(&ask(&http, "GET /v2/health/ready", b"")), 200);
    let reply = ask(&http, DIGIT, &digit());
    assert!(status(&reply) == 401 && reply.contains("www-authenticate: Bearer"), "{reply}");
    let Some(python) = python() else { return };
    let code = "import sys, tritonclient.grpc as g\n\
        c = g.InferenceServerClient(sys.argv[1])\n\
        assert c.is_server_ready() and c.get_server_metadata(headers={'authorization': 'Bearer secret'}).name == 'halfbyte'\n\
        try: c.get_server_metadata()\n\
        except Exception as e: assert 'UNAUTHENTICATED' in str(e), e\n\
        else: raise SystemExit('answered without a key')\n";
    assert!(Command::new(python).args(["-c", code, &server.address("grpc")]).status().unwrap().success());
}

#[test]
fn tls_is_spoken_on_both_ports() {
    let folder = tempfile::tempdir().unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ])
        .args([
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-out",
            cert.to_str().unwrap(),
            "-keyout",
            key.to_str().unwrap(),
        ])
        .stderr(Stdio::null())
        .status();
    let (true, Some(python)) = (made.is_ok_and(|s| s.success()), python()) else {
        println!("SKIP TLS: it needs openssl and NVIDIA's clients");
        return;
    };
    let server = Running::start(Path::new("models"), &["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()]);
    assert_eq!(server.ready["tls"], true);
    let code = "import sys, ssl, urllib.request, tritonclient.grpc as g\n\
        http, grpc, cert = sys.argv[1:]\n\
        context = ssl.create_default_context(cafile=cert)\n\
        assert urllib.request.urlopen(f'https://{http}/v2/health/ready', context=context).status == 200\n\
        c = g.InferenceServerClient(grpc, ssl=True, root_certificates=cert)\n\
        assert c.is_model_ready('digits-mlp')\n\
        try: urllib.request.urlopen(f'http://{http}/v2', timeout=5)\n\
        except Exception: pass\n\
        else: raise SystemExit('answered without TLS')\n";
    let mut clients = Command::new(python);
    clients.args(["-c", code, &server.address("http"), &server.address("grpc")]).arg(&cert);
    assert!(clients.status().unwrap().success());
}

/// One request on a connection that stays: the status, and whether the server closes it now. `None` when there was no whole reply.
fn ask_again(socket: &mut TcpStream, body: &[u8]) -> Option<(u16, bool)> {
    let head = format!("{DIGIT} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    socket.write_all(&[head.as_bytes(), body].concat()).ok()?;
    let mut reader = BufReader::new(socket.try_clone().ok()?);
    let (mut head, mut line) = (String::new(), String::new());
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        head += &line.to_lowercase();
    }
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).and_then(|l| l.trim().parse().ok())?;
    let mut reply = vec![0; length];
    reader.read_exact(&mut reply).ok()?;
    serde_json::from_slice::<Value>(&reply).ok()?;
    Some((status(&head), head.contains("connection: close")))
}

#[test]
fn shutting_down_under_load_loses_no_reply() {
    let server = Running::start(Path::new("models"), &[]);
    let (http, body) = (server.address("http"), digit());
    let [answered, told, lost] = [const { AtomicUsize::new(0) }; 3];
    let stopping = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut socket = TcpStream::connect(&http).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                loop {
                    match ask_again(&mut socket, &body) {
                        Some((200, false)) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Some((200, true)) => {
                            answered.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        Some((503, true)) if stopping.load(Ordering::SeqCst) => {
                            told.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        other => {
                            println!("{other:?}");
                            lost.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                    }
                }
            });
        }
        let began = Instant::now();
        while answered.load(Ordering::Relaxed) < 200 && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        stopping.store(true, Ordering::SeqCst);
        server.terminate();
    });
    let [answered, told, lost] = [answered, told, lost].map(AtomicUsize::into_inner);
    println!("{answered} answered, {told} told that the server is shutting down, {lost} lost");
    assert!(answered >= 200 && lost == 0 && told + lost <= 8);
    assert_eq!(server.last_line()["unfinished"], 0);
}
