//! The server under load that does not wait for it: arrivals are fixed beforehand, and latency counts from when a request should have been
//! sent. Meanwhile Redis is killed and started again, a model is loaded again with other weights and callers go away: no reply may be
//! lost, doubled or wrong. Ten seconds, or `HALFBYTE_LOAD_SECONDS`, at 200 requests a second, or `HALFBYTE_LOAD_RATE`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use halfbyte::base::xorshift::Xorshift;
use halfbyte::{Model, Options, Session, Tensor};
use serde_json::Value;

use super::shared::{Redis, eventually, figures};
use super::{Running, ask, status};

const CALLERS: usize = 8;
/// Inputs that come again and again, and those that seldom do.
const OFTEN: usize = 20;
const SELDOM: usize = 300;

fn number(name: &str, otherwise: f64) -> f64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn input(seed: usize) -> Vec<f32> {
    let mut random = Xorshift::new(seed as u64 + 1);
    (0..64).map(|_| (random.below(17)) as f32).collect()
}

/// The answers of a model to all inputs.
fn answers(model: &Path, shape: &[usize]) -> Vec<Vec<f64>> {
    let session = Session::new(&Model::open(model).unwrap(), Options::default()).unwrap();
    let answer = |seed| {
        let x = Tensor::new(shape, &input(seed)).unwrap();
        session.run(&[("x", x.view())]).unwrap().iter().next().unwrap().1.to_f64()
    };
    (0..OFTEN + SELDOM).map(answer).collect()
}

/// A model, its input's shape, and the answers that are right: of either of two files while they change places.
struct Asked {
    name: &'static str,
    shape: &'static str,
    right: Vec<Vec<Vec<f64>>>,
}

#[derive(Default)]
struct Counts {
    right: AtomicUsize,
    given_up: AtomicUsize,
    refused: AtomicUsize,
    lost: AtomicUsize,
    wrong: AtomicUsize,
}

/// Sends a request; the reply's status and body.
fn exchange(socket: &mut BufReader<TcpStream>, head: &str, body: &str, gives_up: bool) -> std::io::Result<Option<(u16, Value)>> {
    let head = format!("{head} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    socket.get_mut().write_all((head + body).as_bytes())?;
    if gives_up {
        return Ok(None);
    }
    let (mut head, mut line) = (String::new(), String::new());
    while line != "\r\n" {
        line.clear();
        if socket.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        head += &line.to_lowercase();
    }
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).and_then(|l| l.trim().parse().ok());
    let mut reply = vec![0; length.ok_or(std::io::ErrorKind::InvalidData)?];
    socket.read_exact(&mut reply)?;
    Ok(Some((status(&head), serde_json::from_slice(&reply)?)))
}

fn connect(http: &str) -> BufReader<TcpStream> {
    let socket = TcpStream::connect(http).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    BufReader::new(socket)
}

/// One of those who ask: takes the next request, waits for its time, sends it.
fn caller(http: &str, models: &[Asked], arrivals: &[f64], next: &AtomicUsize, began: Instant, counts: &Counts) -> Vec<f64> {
    let (mut socket, mut latencies_ms) = (connect(http), Vec::new());
    while let Some((i, at_s)) = Some(next.fetch_add(1, Relaxed)).and_then(|i| Some((i, *arrivals.get(i)?))) {
        let mut random = Xorshift::new(i as u64 * 7919 + 3);
        let seed = if random.below(2) == 0 { random.below(OFTEN) } else { OFTEN + random.below(SELDOM) };
        let (asked, gives_up) = (&models[random.below(models.len())], random.below(50) == 0);
        let intended = began + Duration::from_secs_f64(at_s);
        std::thread::sleep(intended.saturating_duration_since(Instant::now()));
        let data = input(seed);
        let id = i.to_string();
        let body =
            format!(r#"{{"id":"{id}","inputs":[{{"name":"x","datatype":"FP32","shape":{},"data":{data:?}}}]}}"#, asked.shape);
        let done = exchange(&mut socket, &format!("POST /v2/models/{}/infer", asked.name), &body, gives_up);
        let counter = match &done {
            Ok(None) => &counts.given_up,
            Ok(Some((200, reply))) => {
                latencies_ms.push(intended.elapsed().as_secs_f64() * 1e3);
                let given: Vec<f64> = reply["outputs"][0]["data"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
                let is =
                    |right: &[f64]| right.len() == given.len() && right.iter().zip(&given).all(|(a, b)| (a - b).abs() < 1e-5);
                let is_right = reply["id"] == id.as_str() && asked.right.iter().any(|file| is(&file[seed]));
                if is_right { &counts.right } else { &counts.wrong }
            }
            Ok(Some((429 | 503 | 504, _))) => &counts.refused,
            Ok(Some(_)) | Err(_) => &counts.lost,
        };
        counter.fetch_add(1, Relaxed);
        if gives_up || done.is_err() {
            socket = connect(http);
        }
    }
    latencies_ms
}

#[test]
fn no_reply_is_lost_doubled_or_wrong_while_redis_dies_and_a_model_changes() {
    let Some(mut redis) = Redis::start() else { return };
    let (seconds, rate) = (number("HALFBYTE_LOAD_SECONDS", 10.0), number("HALFBYTE_LOAD_RATE", 200.0));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| PathBuf::from(format!("models/{name}.onnx"));
    let put = |from: &str, to: &str| {
        std::fs::copy(file(from), folder.path().join("new")).unwrap();
        std::fs::rename(folder.path().join("new"), folder.path().join(to)).unwrap();
    };
    put("digits-mlp", "steady.onnx");
    put("digits-cnn", "changing.onnx");
    let both = ["digits-cnn", "digits-cnn-qdq"];
    let models = [
        Asked { name: "steady", shape: "[1,64]", right: vec![answers(&file("digits-mlp"), &[1, 64])] },
        Asked { name: "changing", shape: "[1,1,8,8]", right: both.map(|name| answers(&file(name), &[1, 1, 8, 8])).to_vec() },
    ];
    let server = Running::start(folder.path(), &["--cache", "64KiB", "--cache-redis", &redis.url()]);
    let http = server.address("http");
    eventually("Redis is reached", || figures(&server)["cache"]["second"]["reachable"] == true);
    let mut random = Xorshift::new(5);
    let mut at_s = 0.0;
    let arrivals = std::iter::repeat_with(|| {
        at_s -= (1.0 - random.unit()).ln() / rate;
        at_s
    });
    let arrivals: Vec<f64> = arrivals.take_while(|at| *at < seconds).collect();
    let (next, counts, latencies) = (AtomicUsize::new(0), Counts::default(), Mutex::new(Vec::new()));
    let (began, mut reloads) = (Instant::now(), 0);
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let own = caller(&http, &models, &arrivals, &next, began, &counts);
                latencies.lock().unwrap().extend(own);
            });
        }
        let mut kills = [0.25, 0.6].map(|share| share * seconds).into_iter().peekable();
        while began.elapsed().as_secs_f64() < seconds {
            if kills.next_if(|at| began.elapsed().as_secs_f64() >= *at).is_some() {
                redis.restart(Duration::from_millis(500));
            }
            put(both[(reloads + 1) % 2], "changing.onnx");
            assert_eq!(status(&ask(&http, "POST /v2/repository/models/changing/load", b"")), 200);
            reloads += 1;
            std::thread::sleep(Duration::from_millis(700));
        }
        assert!(kills.next().is_none(), "Redis was killed twice");
    });
    eventually("all have left", || figures(&server)["inside"] == 0);
    let Counts { right, given_up, refused, lost, wrong } = counts;
    let [right, given_up, refused, lost, wrong] = [right, given_up, refused, lost, wrong].map(AtomicUsize::into_inner);
    let mut latencies = latencies.into_inner().unwrap();
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies[((latencies.len() as f64 * share) as usize).min(latencies.len() - 1)];
    let figures = figures(&server);
    println!(
        "{} sent in {seconds} s: {right} right, {given_up} given up, {refused} refused, {lost} lost, {wrong} wrong; {reloads} reloads",
        arrivals.len()
    );
    println!(
        "latency from the intended time, ms: p50 {:.2}, p99 {:.2}, p99.9 {:.2}, most {:.2}",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    println!("requests {}; cache {}", figures["requests"], figures["cache"]);
    assert_eq!((lost, wrong, refused, right + given_up), (0, 0, 0, arrivals.len()));
    let counted: u64 = figures["requests"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    // A caller that closes at once may be gone before its request is looked at; nobody else's goes uncounted, none is counted twice.
    let (counted, answered) = (counted as usize, figures["requests"]["answered"].as_u64().unwrap() as usize);
    assert!((right..=arrivals.len()).contains(&counted) && answered >= right, "{}", figures["requests"]);
    let cache = &figures["cache"];
    for figure in ["first_hits", "second_hits", "misses"] {
        assert!(cache[figure].as_u64().unwrap() > 0, "{figure}: {cache}");
    }
    assert!(cache["second"]["connections"].as_u64().unwrap() >= 3 && cache["second"]["damaged"] == 0, "{cache}");
}

#[test]
fn bench_serve_tells_what_became_of_requests_at_a_given_rate() {
    let server = Running::start(Path::new("models"), &[]);
    let bench = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_halfbyte"));
        command.args(["bench", "serve", "--json", "--rate", "100", "--seconds", "1", "--connections", "4"]);
        command.args(["--server", &server.address("http")]).args(more).output().unwrap()
    };
    let told: Value = serde_json::from_slice(&bench(&["--ask", "digits-mlp", "--batch", "3"]).stdout).unwrap();
    assert_eq!((&told["sent"], &told["replies"]["200"]), (&100.into(), &100.into()), "{told}");
    assert!(told["p50_ms"].as_f64().unwrap() > 0.0 && told["p99_ms"].as_f64() >= told["p50_ms"].as_f64(), "{told}");
    let model = figures(&server)["models"].as_array().unwrap().iter().find(|m| m["name"] == "digits-mlp").cloned().unwrap();
    assert_eq!((&model["engine"]["answered"], &model["engine"]["rows"]), (&100.into(), &300.into()));
    assert!(!bench(&["--ask", "absent"]).status.success());
}
