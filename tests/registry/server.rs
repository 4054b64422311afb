//! The registry behind the server, over real HTTP: a trial that is rolled back, reloading under load, budgets, restarts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use halfbyte::{Model, export::onnx};
use serde_json::{Value, json};

/// A server on a free port, ended when it is dropped.
struct Running {
    process: Child,
    ready: Value,
}

impl Running {
    fn start(models: &Path) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_halfbyte"));
        command.args(["serve", "--json", "--device", "cpu", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--models"]);
        let mut process = command.arg(models).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Running { process, ready: serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}")) }
    }

    /// Status and body of a reply.
    fn ask(&self, line: &str, body: &str) -> (u16, Value) {
        let mut socket = TcpStream::connect(self.ready["http"].as_str().unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let length = body.len();
        write!(socket, "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
        let mut reply = String::new();
        socket.read_to_string(&mut reply).unwrap();
        let status = reply.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let body = reply.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn digit(&self, model: &str) -> (u16, Value) {
        let data = ["0.5"; 64].join(",");
        let body = format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[1,64],"data":[{data}]}}]}}"#);
        self.ask(&format!("POST /v2/models/{model}/infer"), &body)
    }

    fn change(&self, patch: Value) -> (u16, Value) {
        self.ask("POST /v2/repository/settings", &patch.to_string())
    }

    /// What is told of a version.
    fn status(&self, version: u64) -> Value {
        let (code, all) = self.ask("GET /v2/repository/status", "");
        assert_eq!(code, 200);
        all.as_array().unwrap().iter().find(|v| v["name"] == "m" && v["version"] == version).cloned().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A folder with a model of two versions, of which the second calls its input by another name.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for version in ["m/1", "m/2"] {
        std::fs::create_dir_all(folder.path().join(version)).unwrap();
    }
    std::fs::copy("models/digits-mlp.onnx", folder.path().join("m/1/model.onnx")).unwrap();
    let mut graph = Model::open("models/digits-mlp.onnx").unwrap().graph().clone();
    let input = graph.inputs[0].value.0;
    graph.values[input].name = "pixels".into();
    onnx::write(&graph, &[], folder.path().join("m/2/model.onnx")).unwrap();
    folder
}

#[test]
fn a_bad_version_on_trial_is_rolled_back_and_stays_so_after_a_restart() {
    let folder = folder();
    let file = folder.path().join("registry.json");
    let told = json!({"models": {"m": {"weights": {"1": 1}, "aliases": {"stable": 1}, "warm_up": [{"batch": 1}, {"batch": 4}]}}});
    std::fs::write(&file, told.to_string()).unwrap();
    let server = Running::start(folder.path());
    let version = |reply: (u16, Value)| (reply.0, reply.1["model_version"].as_str().unwrap_or_default().to_string());
    let one = (200, "1".to_string());
    assert_eq!(version(server.digit("m")), one, "the highest has no weight");
    assert_eq!(server.change(json!({"aliases": {"prod": {"model": "m"}}})).0, 200);
    assert_eq!([version(server.digit("prod")), version(server.digit("m/versions/stable"))], [one.clone(), one.clone()]);
    assert_eq!(server.digit("m/versions/2").0, 400, "it takes other inputs");
    let (_, about) = server.ask("GET /v2/models/prod", "");
    assert_eq!((&about["name"], &about["versions"]), (&json!("prod"), &json!(["1", "2"])));
    let (_, figures) = server.ask("GET /v2/models/prod/versions/stable/stats", "");
    assert_eq!(figures["model_stats"][0]["inference_count"], 3, "{figures}");
    let (code, error) = server.change(json!({"models": {"m": {"canary": {"version": 9}}}}));
    assert!(code == 404 && error["error"].as_str().unwrap().contains("there are 1, 2"), "{error}");
    assert_eq!(server.change(json!({"models": {"m": {"canary": null}}})).0, 200);
    let first = server.status(1);
    assert_eq!((&first["warm_up"][1]["sizes"]["batch"], &first["ways"][0]["is_used"]), (&json!(4), &json!(true)), "{first}");
    assert!(first["memory"]["device_bytes"].as_u64() > Some(0) && first["device"] == "cpu" && first["share"] == 1.0, "{first}");

    let (code, error) = server.change(json!({"models": {"m": {"canary": {"version": 2, "rules": {"steps": [2]}}}}}));
    assert!(code == 400 && error["error"].as_str().unwrap().contains("models.m.canary.rules: steps"), "{error}");
    let (code, told) =
        server.change(json!({"models": {"m": {"canary": {"version": 2, "rules": {"steps": [0.25], "min_requests": 10}}}}}));
    assert_eq!((code, &told["models"]["m"]["canary"]["rules"]["window"]), (200, &json!(1000)));
    assert_eq!(server.status(2)["share"], 0.25);
    let replies: Vec<u16> = (0..100).map(|_| server.digit("prod").0).collect();
    let failed = replies.iter().filter(|code| **code != 200).count();
    assert_eq!(failed, 10, "no more than it takes to be sure: {replies:?}");
    let second = server.status(2);
    let reason = second["last_canary"]["reason"].as_str().unwrap();
    assert_eq!(reason, "error rate 100.0 % (10 of 10 requests), at most 1.0 % are allowed");
    assert!(second["share"] == 0.0 && second["errors"] == 11 && second["state"] == "ready", "{second}");

    drop(server);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "the file lies there as a whole");
    let server = Running::start(folder.path());
    assert_eq!(version(server.digit("prod")), one);
    assert_eq!(server.status(2)["last_canary"]["promoted"], false);
    // A wrong file is told by its field, before anything is loaded.
    drop(server);
    std::fs::write(&file, r#"{"models": {"m": {"wieghts": {}}}}"#).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_halfbyte"));
    let ended = command
        .args(["serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--models"])
        .arg(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && said.contains("models.m.wieghts: unknown field"), "{said}");
}

#[test]
fn reloading_under_load_loses_no_request() {
    let folder = folder();
    std::fs::remove_dir_all(folder.path().join("m/2")).unwrap();
    let server = Running::start(folder.path());
    let ([answered, lost], reloaded) = ([const { AtomicUsize::new(0) }; 2], AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !reloaded.load(Ordering::SeqCst) {
                    let (code, reply) = server.digit("m");
                    if code != 200 {
                        println!("{reply}");
                    }
                    [&lost, &answered][usize::from(code == 200)].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let (began, mut reloads) = (Instant::now(), 0);
        while reloads < 20 || (answered.load(Ordering::Relaxed) < 200 && began.elapsed() < Duration::from_secs(30)) {
            assert_eq!(server.ask("POST /v2/repository/models/m/load", "").0, 200);
            reloads += 1;
        }
        println!("{reloads} reloads");
        reloaded.store(true, Ordering::SeqCst);
    });
    let [answered, lost] = [answered, lost].map(AtomicUsize::into_inner);
    println!("{answered} answered, {lost} lost");
    assert!(answered >= 200 && lost == 0, "{answered} {lost}");
}

#[test]
fn a_version_over_its_budget_is_refused_with_figures_and_the_old_one_goes_on() {
    let folder = folder();
    let server = Running::start(folder.path());
    assert_eq!(server.change(json!({"models": {"m": {"memory_limit_bytes": 1000, "weights": {"1": 1}}}})).0, 200);
    let (code, error) = server.ask("POST /v2/repository/models/m/load", "");
    let why = error["error"].as_str().unwrap();
    assert!(code == 503 && why.contains("1000") && why.contains("memory"), "{code} {why}");
    assert_eq!(server.digit("m").0, 200, "what was loaded goes on");
    assert_eq!(server.change(json!({"models": {"m": {"memory_limit_bytes": null}}, "memory_limit_bytes": 1000})).0, 200);
    let (code, error) = server.ask("POST /v2/repository/models/m/load", "");
    let why = error["error"].as_str().unwrap();
    assert!(code == 503 && why.contains("memory_limit_bytes is 1000 B") && why.contains("unload_idle"), "{code} {why}");
}
