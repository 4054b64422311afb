//! `halfbyte bench serve`: a server under load that does not wait for it. Arrivals are fixed beforehand and latency counts from when a
//! request should have been sent, so that a server that stalls is not spared (Gil Tene's "coordinated omission").

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::args::Inputs;
use super::measurement::quantile;
use super::npz;
use super::output::{print, print_json, table};
use crate::base::xorshift::Xorshift;
use crate::base::{DType, Shape, Tensor, lock};
use crate::error::{Error, Result};
use crate::serve::protocol;
use crate::serve::simulate::arrivals::Source;

/// Arguments of `bench serve`.
#[derive(Args)]
pub struct ServeLoadArgs {
    /// Where the server listens for HTTP, without TLS. Its key is taken from HALFBYTE_API_KEY.
    #[arg(long, default_value = "127.0.0.1:8000", value_name = "ADDRESS")]
    server: String,
    /// The model to ask; inputs are random ones or those of `--inputs`.
    #[arg(long, value_name = "MODEL")]
    ask: Option<String>,
    /// Requests in a second, Poisson.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Connections: the most requests at one time.
    #[arg(long, default_value_t = 64)]
    connections: usize,
}

/// What became of the requests.
#[derive(serde::Serialize)]
struct Outcome {
    sent: usize,
    /// A second.
    rate: f64,
    /// By HTTP's status; 0 where there was no whole reply.
    replies: BTreeMap<u16, usize>,
    /// Quantiles of the latencies of replies with 200, from when the request should have been sent.
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    most_ms: f64,
    /// The same from when it was: what a load that waits for the server would have told.
    waiting_p99_ms: f64,
}

/// A reply's status and body.
fn exchange(socket: &mut BufReader<TcpStream>, head: &str, body: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
    socket.get_mut().write_all(head.as_bytes())?;
    socket.get_mut().write_all(body)?;
    let (mut line, mut status, mut length) = (String::new(), 0, 0);
    while line != "\r\n" {
        line.clear();
        if socket.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let lower = line.to_ascii_lowercase();
        let number = |text: Option<&str>| text.and_then(|t| t.trim().parse().ok());
        status = if status == 0 { number(lower.split(' ').nth(1)).unwrap_or(1) } else { status };
        length = number(lower.strip_prefix("content-length:")).map_or(length, usize::from);
    }
    let mut reply = vec![0; length];
    socket.read_exact(&mut reply)?;
    Ok((status, reply))
}

impl ServeLoadArgs {
    fn connect(&self) -> std::io::Result<BufReader<TcpStream>> {
        let socket = TcpStream::connect(&self.server)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(BufReader::new(socket))
    }

    fn head(&self, method: &str, path: &str, more: &str, length: usize) -> String {
        let key = std::env::var("HALFBYTE_API_KEY").map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
        format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n{key}{more}content-length: {length}\r\n\r\n", self.server)
    }

    /// A request, whole, with tensors as raw bytes.
    fn request(&self, model: &str, inputs: &[(String, Tensor)]) -> (String, Vec<u8>) {
        let described = |(name, tensor): &(String, Tensor)| {
            let (datatype, shape) = (protocol::datatype(tensor.dtype()), tensor.shape().to_vec());
            json!({"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": tensor.bytes().len()}})
        };
        let inputs_json: Vec<Value> = inputs.iter().map(described).collect();
        let json = json!({"inputs": inputs_json, "parameters": {"binary_data_output": true}}).to_string();
        let body = inputs.iter().fold(json.clone().into_bytes(), |body, (_, tensor)| [&body, tensor.bytes()].concat());
        let more = format!("inference-header-content-length: {}\r\n", json.len());
        (self.head("POST", &format!("/v2/models/{model}/infer"), &more, body.len()), body)
    }

    /// Random inputs as the server describes them: open sizes are 1, or `--batch` where they come first.
    fn made(&self, model: &str, inputs: &Inputs) -> Result<Vec<(String, Tensor)>> {
        let wrong = |why: String| Error::BadInput(format!("{} does not describe {model:?}: {why}", self.server));
        let head = self.head("GET", &format!("/v2/models/{model}"), "", 0);
        let asked = self.connect().and_then(|mut socket| exchange(&mut socket, &head, &[]));
        let (status, body) = asked.map_err(|e| wrong(e.to_string()))?;
        let described: Value = serde_json::from_slice(&body).map_err(|e| wrong(e.to_string()))?;
        let (mut random, batch) = (Xorshift::new(inputs.seed), inputs.batch.unwrap_or(1));
        let one = |input: &Value| {
            let name = input["name"].as_str()?.to_string();
            let size = |(i, n): (usize, &Value)| usize::try_from(n.as_i64()?).ok().or(Some(if i == 0 { batch } else { 1 }));
            let shape: Shape = input["shape"].as_array()?.iter().enumerate().map(size).collect::<Option<_>>()?;
            let dtype = protocol::dtype("datatype", input["datatype"].as_str()?).ok()?;
            let zeros = matches!(dtype, DType::I32 | DType::I64);
            let tensor = if zeros { Tensor::zeros(dtype, shape) } else { random.fill(dtype, shape) };
            Some((name, tensor.ok()?))
        };
        let all = described["inputs"].as_array().and_then(|all| all.iter().map(one).collect());
        all.ok_or_else(|| wrong(format!("status {status}")))
    }
}

/// Sends requests at their times, whichever connection is free; each one's status, and its latency from when it should have been sent and
/// from when it was.
fn send(args: &ServeLoadArgs, (head, body): &(String, Vec<u8>), arrivals_s: &[f64]) -> Vec<(u16, f64, f64)> {
    let (next, all, began) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Instant::now());
    let caller = || {
        let (mut socket, mut own) = (args.connect(), Vec::new());
        while let Some(at_s) = arrivals_s.get(next.fetch_add(1, Ordering::Relaxed)) {
            let due = began + Duration::from_secs_f64(*at_s);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let sent = Instant::now();
            let done =
                socket.as_mut().map_err(|e| std::io::Error::from(e.kind())).and_then(|socket| exchange(socket, head, body));
            own.push((done.as_ref().map_or(0, |(status, _)| *status), due.elapsed().as_secs_f64(), sent.elapsed().as_secs_f64()));
            if done.is_err() {
                socket = args.connect();
            }
        }
        lock(&all).extend(own);
    };
    std::thread::scope(|scope| (0..args.connections.max(1)).for_each(|_| drop(scope.spawn(caller))));
    all.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs the subcommand.
pub fn run(args: &ServeLoadArgs, inputs: &Inputs, seconds: f64, json: bool) -> Result<ExitCode> {
    let model = args.ask.as_deref().ok_or_else(|| Error::BadInput("bench serve needs a model: --ask MODEL".into()))?;
    if args.rate.is_nan() || args.rate <= 0.0 {
        return Err(Error::BadInput(format!("--rate {}: wanted more than 0", args.rate)));
    }
    let given = inputs.inputs.as_deref().map_or_else(|| args.made(model, inputs), npz::read)?;
    let request = args.request(model, &given);
    let arrivals_s = Source::Poisson.arrivals((args.rate * seconds).ceil() as usize, args.rate, inputs.seed);
    let began = Instant::now();
    let done = send(args, &request, &arrivals_s);
    let rate = done.len() as f64 / began.elapsed().as_secs_f64();
    let mut replies = BTreeMap::new();
    done.iter().for_each(|(status, ..)| *replies.entry(*status).or_default() += 1);
    let sorted_ms = |of: fn(&(u16, f64, f64)) -> f64| {
        let mut times: Vec<f64> = done.iter().filter(|d| d.0 == 200).map(|d| of(d) * 1e3).collect();
        times.sort_by(f64::total_cmp);
        if times.is_empty() { vec![f64::NAN] } else { times }
    };
    let (latencies, waiting) = (sorted_ms(|d| d.1), sorted_ms(|d| d.2));
    let [p50_ms, p90_ms, p99_ms, p999_ms, most_ms] = [0.5, 0.9, 0.99, 0.999, 1.0].map(|share| quantile(&latencies, share));
    let waiting_p99_ms = quantile(&waiting, 0.99);
    let outcome = Outcome { sent: done.len(), rate, replies, p50_ms, p90_ms, p99_ms, p999_ms, most_ms, waiting_p99_ms };
    match json {
        true => print_json(&outcome)?,
        false => show(&outcome),
    }
    let is_answered = outcome.replies.keys().all(|status| *status == 200);
    Ok(if is_answered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(outcome: &Outcome) {
    let mut t =
        table(&["sent", "a second", "replies", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "most ms", "p99 ms if it waited"]);
    let replies: Vec<String> = outcome.replies.iter().map(|(status, n)| format!("{n} x {status}")).collect();
    let Outcome { sent, rate, p50_ms, p90_ms, p99_ms, p999_ms, most_ms, waiting_p99_ms, .. } = outcome;
    let times = [p50_ms, p90_ms, p99_ms, p999_ms, most_ms, waiting_p99_ms].map(|ms| format!("{ms:.2}"));
    t.add_row([sent.to_string(), format!("{rate:.1}"), replies.join(", ")].into_iter().chain(times));
    print(&t.to_string());
}
