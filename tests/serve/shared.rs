//! What callers share: the cache of results, rates, alerts, figures; and callers that go away.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{DIGIT, Running, ask, digit, python, status};

/// A file of a test's own.
fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_string()
}

pub fn json(reply: &str) -> Value {
    serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap_or_else(|e| panic!("{e}: {reply}"))
}

/// The server's figures.
pub fn figures(server: &Running) -> Value {
    json(&ask(&server.address("http"), "GET /v2/status", b""))
}

/// Waits for what must come.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The value of a header.
fn header(reply: &str, name: &str) -> Option<u64> {
    let line = reply.lines().find_map(|l| l.to_lowercase().strip_prefix(&format!("{name}: ")).map(String::from));
    line.and_then(|value| value.trim().parse().ok())
}

/// A redis-server on a port of its own; none, with a line, where none is installed.
pub struct Redis {
    process: Child,
    pub port: u16,
}

impl Redis {
    pub fn start() -> Option<Redis> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let found = Self::run(port);
        if found.is_none() {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "redis-server must be installed where CI is set");
            println!("SKIP the second level of the cache: there is no redis-server (apt-get install redis-server)");
        }
        found.map(|process| Redis { process, port })
    }

    fn run(port: u16) -> Option<Child> {
        let options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"];
        let process = Command::new("redis-server").args(options).arg(port.to_string()).stdout(Stdio::null()).spawn().ok()?;
        eventually("Redis listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(process)
    }

    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Kills it, and starts an empty one in its place.
    pub fn restart(&mut self, pause: Duration) {
        self.kill();
        std::thread::sleep(pause);
        self.process = Self::run(self.port).unwrap();
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Rows that differ from request to request, so that nothing is found in a cache.
pub fn digits(rows: usize, seed: usize) -> Vec<u8> {
    let data: Vec<String> = (0..rows * 64).map(|i| format!("{}", ((i + seed) % 97) as f32 / 97.0 + seed as f32)).collect();
    let data = data.join(",");
    format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[{rows},64],"data":[{data}]}}]}}"#).into_bytes()
}

/// A connection with a request on it whose answer nobody has read yet.
fn send(address: &str, body: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    let head = format!("{DIGIT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    socket.write_all(&[head.as_bytes(), body].concat()).unwrap();
    socket
}

fn read(mut socket: TcpStream) -> String {
    socket.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
    let mut reply = Vec::new();
    socket.read_to_end(&mut reply).unwrap();
    String::from_utf8_lossy(&reply).into_owned()
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = &(payload.len() as u32).to_be_bytes()[1..];
    [length, &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection with a call of `ModelInfer` on it, in HTTP/2 as RFC 9113 has it, with headers as they are (RFC 7541, 6.2.2).
fn call(address: &str, values: &[f32]) -> TcpStream {
    use halfbyte::serve::protocol::messages::{InferInputTensor, ModelInferRequest};
    let input = InferInputTensor { name: "x".into(), datatype: "FP32".into(), shape: vec![1, 64], ..Default::default() };
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let model_name = "digits-mlp".into();
    let request =
        ModelInferRequest { model_name, inputs: vec![input], raw_input_contents: vec![raw.into()], ..Default::default() };
    let message = prost::Message::encode_to_vec(&request);
    let text = |t: &str| [&[t.len() as u8], t.as_bytes()].concat();
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/inference.GRPCInferenceService/ModelInfer"),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let headers: Vec<u8> = headers.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect();
    let body = [&[0], &(message.len() as u32).to_be_bytes()[..], &message].concat();
    let mut socket = TcpStream::connect(address).unwrap();
    let parts =
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[]), frame(1, 4, 1, &headers), frame(0, 1, 1, &body)];
    socket.write_all(&parts.concat()).unwrap();
    socket
}

/// Keeps the engine busy for seconds: one batch of a slow model.
struct Busy(TcpStream);

impl Busy {
    fn new(server: &Running) -> Busy {
        const ROWS: usize = 24;
        let bytes = ROWS * 43844 * 4;
        let json = format!(
            r#"{{"inputs":[{{"name":"serving_default_input_2:0","datatype":"FP32","shape":[{ROWS},43844,1],"parameters":{{"binary_data_size":{bytes}}}}}],"parameters":{{"binary_data_output":true}}}}"#
        );
        let head = format!(
            "POST /v2/models/basic-pitch/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\ninference-header-content-length: {}\r\ncontent-length: {}\r\n\r\n",
            json.len(),
            json.len() + bytes
        );
        let mut socket = TcpStream::connect(server.address("http")).unwrap();
        socket.write_all(&[head.as_bytes(), json.as_bytes(), &vec![0; bytes]].concat()).unwrap();
        eventually("the engine is busy", || figures(server)["engine"]["running"] == 1);
        Busy(socket)
    }

    fn end(self) {
        assert_eq!(status(&read(self.0)), 200);
    }
}

#[test]
fn callers_that_go_away_take_what_waits_with_them() {
    let server = Running::start(Path::new("models"), &["--threads", "1", "--timeout", "5m"]);
    let busy = Busy::new(&server);
    let gone: Vec<TcpStream> = (0..3).map(|i| send(&server.address("http"), &digits(1, 100 + i))).collect();
    let calls: Vec<TcpStream> = (0..3).map(|i| call(&server.address("grpc"), &[i as f32; 64])).collect();
    eventually("six wait", || figures(&server)["engine"]["queued"] == 6);
    drop(gone);
    for (i, mut socket) in calls.into_iter().enumerate() {
        // Two end with their connection, one is reset and keeps it.
        if i == 0 {
            socket.write_all(&frame(3, 0, 1, &8u32.to_be_bytes())).unwrap();
            std::mem::forget(socket);
        }
    }
    eventually("six are gone", || figures(&server)["requests"]["gone"] == 6);
    busy.end();
    let figures = figures(&server);
    assert_eq!(figures["engine"]["requests"]["cancelled"], 6, "{figures}");
    assert_eq!((&figures["requests"]["answered"], &figures["inside"]), (&1.into(), &0.into()));
    let model = figures["models"].as_array().unwrap().iter().find(|m| m["name"] == "digits-mlp").unwrap();
    assert_eq!(model["engine"]["answered"], 0, "what nobody waited for was not run");
}

#[test]
fn equal_requests_are_computed_once_and_one_that_goes_away_fails_no_other() {
    let server = Running::start(Path::new("models"), &["--threads", "1", "--timeout", "5m", "--cache", "16MiB"]);
    let busy = Busy::new(&server);
    let (http, body) = (server.address("http"), digit());
    let first = send(&http, &body);
    let cache = || figures(&server)["cache"].clone();
    eventually("it leads", || cache()["under_way"] == 2);
    let others: Vec<TcpStream> = (0..20).map(|_| send(&http, &body)).collect();
    eventually("20 follow", || cache()["joins"] == 20);
    drop(first);
    eventually("it is given up", || cache()["abandoned"] == 1);
    let replies: Vec<Value> = others.into_iter().map(read).map(|r| json(&r)).collect();
    assert!(replies.iter().all(|r| r == &replies[0] && r["outputs"].is_array()), "{replies:?}");
    busy.end();
    assert_eq!(json(&ask(&http, DIGIT, &body)), replies[0]);
    let (cache, figures) = (cache(), figures(&server));
    assert_eq!((&cache["misses"], &cache["first_hits"]), (&2.into(), &1.into()), "{cache}");
    assert_eq!((&figures["requests"]["answered"], &figures["requests"]["gone"]), (&22.into(), &1.into()));
    let model = figures["models"].as_array().unwrap().iter().find(|m| m["name"] == "digits-mlp").unwrap();
    assert_eq!(model["requests"], 1, "latencies of the cache are none of the model's");
    // Another output, or one bit of the input, is another request.
    let other = String::from_utf8(body).unwrap();
    let outputs = other.replace(r#"{"inputs""#, r#"{"outputs":[{"name":"prob"}],"inputs""#);
    assert_eq!(json(&ask(&http, DIGIT, outputs.as_bytes()))["outputs"].as_array().unwrap().len(), 1);
    assert_ne!(json(&ask(&http, DIGIT, other.replacen("0.5", "0.7", 1).as_bytes())), replies[0]);
}

#[test]
fn a_model_with_other_weights_does_not_answer_with_the_old_ones() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("m.onnx");
    let server = |more: &[&str]| Running::start(folder.path(), more);
    let input = halfbyte::cli::npz::read(Path::new("models/digits-cnn.in.npz")).unwrap().remove(0);
    let (name, shape, data) = (input.0, input.1.shape().to_vec(), input.1.to_f64());
    let body = format!(r#"{{"inputs":[{{"name":"{name}","datatype":"FP32","shape":{shape:?},"data":{data:?}}}]}}"#);
    let asked =
        |server: &Running| json(&ask(&server.address("http"), "POST /v2/models/m/infer", body.as_bytes()))["outputs"].clone();
    let put = |name: &str| {
        std::fs::copy(format!("models/{name}.onnx"), folder.path().join("new")).unwrap();
        std::fs::rename(folder.path().join("new"), &model).unwrap();
    };
    put("digits-cnn");
    let Some(mut redis) = Redis::start() else { return };
    let url = redis.url();
    let shared = ["--cache", "16MiB", "--cache-redis", &url];
    let reachable = |s: &Running| eventually("Redis is reached", || figures(s)["cache"]["second"]["reachable"] == true);
    let first = server(&shared);
    reachable(&first);
    let old = asked(&first);
    eventually("it is stored", || figures(&first)["cache"]["second"]["stored"] == 1);
    // Another server finds it in Redis.
    let second = server(&shared);
    reachable(&second);
    assert_eq!(asked(&second), old);
    let cache = figures(&second)["cache"].clone();
    assert_eq!((&cache["second_hits"], &cache["misses"]), (&1.into(), &0.into()), "{cache}");
    // The same name and version, other weights: the same answer as without any cache.
    put("digits-cnn-qdq");
    let plain = asked(&server(&[]));
    assert_ne!(plain, old);
    assert_eq!(status(&ask(&second.address("http"), "POST /v2/repository/models/m/load", b"")), 200);
    assert_eq!(asked(&second), plain);
    assert_eq!(asked(&first), old, "the first one still has the old model");
    // Without Redis it goes on.
    redis.kill();
    assert_eq!(asked(&second), plain);
    assert_eq!(asked(&server(&shared)), plain);
}

#[test]
fn tenants_and_models_that_ask_too_often_are_told_when_to_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let keys = file(&folder, "keys", "# tenants\none first\ntwo second\nthree third\n");
    let rates = file(&folder, "rates", r#"{"models":{"digits-cnn":{"per_second":0.001,"burst":1}}}"#);
    let options = ["--api-key-file", &keys, "--tenant-rate", "0.5:2", "--rate-file", &rates];
    let server = Running::start(Path::new("models"), &options);
    let (http, body) = (server.address("http"), digit());
    let as_who = |key: &str| ask(&http, &format!("{DIGIT}\r\nauthorization: Bearer {key}"), &body);
    let replies = ["first", "first", "first", "second", "fourth"].map(as_who);
    assert_eq!(replies.each_ref().map(|r| status(r)), [200, 200, 429, 200, 401]);
    let (ms, s) = (header(&replies[2], "retry-after-ms").unwrap(), header(&replies[2], "retry-after").unwrap());
    assert!((1..=2000).contains(&ms) && s == ms.div_ceil(1000) && replies[2].contains("one"), "{}", replies[2]);
    std::thread::sleep(Duration::from_millis(ms));
    assert_eq!(status(&as_who("first")), 200, "exactly then");
    let cnn = |_| status(&ask(&http, "POST /v2/models/digits-cnn/infer\r\nauthorization: Bearer third", b"{}"));
    assert_eq!([(); 2].map(cnn), [400, 429], "all tenants together");
    let status = json(&ask(&http, "GET /v2/status\r\nauthorization: Bearer first", b""));
    let limits = &status["limits"];
    assert_eq!((&limits["tenants"]["one"]["admitted"], &limits["tenants"]["one"]["throttled"]), (&3.into(), &1.into()));
    assert_eq!((&limits["models"]["digits-cnn"]["throttled"], &status["requests"]["throttled"]), (&1.into(), &2.into()));
    let Some(python) = python() else { return };
    let code = "import sys, numpy as np, tritonclient.grpc as g\n\
        c = g.InferenceServerClient(sys.argv[1])\n\
        x = g.InferInput('x', [1, 64], 'FP32'); x.set_data_from_numpy(np.zeros((1, 64), np.float32))\n\
        said = []\n\
        for _ in range(6):\n\
        \x20   try: c.infer('digits-mlp', [x], headers={'authorization': 'Bearer second'}); said.append('')\n\
        \x20   except Exception as e: said.append(str(e))\n\
        assert any(not s for s in said) and any('RESOURCE_EXHAUSTED' in s and 'tenant' in s for s in said), said\n";
    assert!(Command::new(python).args(["-c", code, &server.address("grpc")]).status().unwrap().success());
}

#[test]
fn alerts_fire_and_metrics_are_the_same_figures_as_the_status() {
    let folder = tempfile::tempdir().unwrap();
    let rule = r#"[{"metric":"throttled_share","comparison":"above","threshold":0.1,"hold":{"secs":0,"nanos":0}}]"#;
    let rules = file(&folder, "rules", rule);
    let options = ["--alert-file", &rules, "--model-rate", "0.01:3", "--cache", "1MiB", "--tenant-header", "x-tenant"];
    let server = Running::start(Path::new("models"), &options);
    let http = server.address("http");
    let alerts = || json(&ask(&http, "GET /v2/alerts", b""));
    assert_eq!(alerts(), Value::Array(Vec::new()));
    let codes = [1, 1, 2, 3, 4].map(|i| status(&ask(&http, &format!("{DIGIT}\r\nx-tenant: acme"), &digits(1, i))));
    assert_eq!(codes, [200, 200, 200, 429, 429]);
    eventually("the alarm", || alerts()[0]["subject"] == "model/digits-mlp");
    let remembered =
        || figures(&server)["history"].as_array().unwrap().iter().map(|m| m["answered"].as_u64().unwrap()).sum::<u64>();
    eventually("the second is over", || remembered() == 3);
    let (figures, text) = (figures(&server), ask(&http, "GET /metrics", b""));
    assert_eq!(figures["limits"]["tenants"]["acme"]["admitted"], 5, "{figures}");
    assert_eq!(figures["alerts"][0]["value"], 0.4);
    let own = r#"{model="digits-mlp",version="1""#;
    for line in [
        "halfbyte_alert{rule=\"throttled_share\",subject=\"model/digits-mlp\"} 1",
        "halfbyte_serve_outcomes_total{outcome=\"answered\"} 3",
        "halfbyte_serve_outcomes_total{outcome=\"throttled\"} 2",
        "halfbyte_cache_hits_total{cache=\"results\",level=\"first\"} 1",
        "halfbyte_throttled_total{by=\"model\",model=\"digits-mlp\"} 2",
        "halfbyte_serve_rejected_total{reason=\"too_late\"} 0",
        &format!("halfbyte_serve_answered_total{own}}} 2"),
        &format!("halfbyte_serve_batch_requests_bucket{own},le=\"+Inf\"}} 2"),
        &format!("halfbyte_serve_stage_seconds_count{own},stage=\"total\"}} 2"),
        &format!("halfbyte_serve_on_time_share{own}}} 1"),
        &format!("halfbyte_serve_requests_total{own},stage=\"cache_hit\"}} 1"),
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line}: {text}");
    }
    let engine = figures["models"].as_array().unwrap().iter().find(|m| m["name"] == "digits-mlp").unwrap()["engine"].clone();
    let p99 = engine["stages"]["total"]["p99_us"].as_f64().unwrap() / 1e6;
    let line = format!("halfbyte_serve_stage_seconds{own},stage=\"total\",quantile=\"0.99\"}} ");
    let told: f64 = text.split_once(&line).unwrap().1.lines().next().unwrap().parse().unwrap();
    assert!((told - p99).abs() < 1e-9 && p99 > 0.0);
    // Each metric is described once, before its samples.
    let names: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(names.len(), names.iter().collect::<std::collections::BTreeSet<_>>().len(), "{names:?}");
}
