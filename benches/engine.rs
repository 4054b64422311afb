//! The engine, measured: `cargo bench --bench engine -- null`, `-- rows MODEL`, `-- backlog MODEL` and `-- load MODEL [SECONDS]`, where MODEL is
//! a text encoder of `input_ids`, `attention_mask` and `token_type_ids` (MiniLM).
//!
//! `null` runs a model that only copies: what the engine itself costs. `rows` is the session alone, by rows and length: what batching
//! can give. `backlog` is throughput with everything queued at the start. `load` is open: arrivals are fixed beforehand, and latency
//! counts from when a request should have arrived, so that an overloaded engine is not spared.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use halfbyte::base::xorshift::Xorshift;
use halfbyte::graph::{Dim, Graph, Port};
use halfbyte::serve::engine::{Axis, Engine, Joining, Padding, Runner, Serving, Ticket};
use halfbyte::serve::schedule::{Batching, Policy};
use halfbyte::{DType, Model, Options, Outputs, Result, Session, Tensor, TensorView};

const LENGTHS: [usize; 4] = [8, 16, 32, 128];
const ROWS: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// `y = x`, of `[n, 4]`.
struct Copies(Graph);

impl Copies {
    fn new() -> Self {
        let mut graph = Graph::default();
        let mut port = |name: &str| Port {
            value: graph.add_value(name, None),
            dtype: Some(DType::F32),
            dims: Some(vec![Dim::Named("n".into()), Dim::Known(4)]),
        };
        let (x, y) = (port("x"), port("y"));
        (graph.inputs, graph.outputs) = (vec![x], vec![y]);
        Copies(graph)
    }
}

impl Runner for Copies {
    fn graph(&self) -> &Graph {
        &self.0
    }

    fn run(&self, inputs: &[(&str, TensorView)]) -> Result<Outputs> {
        Ok([("y".to_string(), inputs[0].1.to_tensor()?)].into_iter().collect())
    }
}

/// Processor time of this process so far, in seconds; 0 where the system does not say.
fn cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn patient(policy: Policy, max_batch: usize) -> Batching {
    Batching { policy, max_batch, target_p99: Duration::from_secs(3600), queue_limit: 1 << 20, ..Batching::default() }
}

fn null() -> Result<()> {
    println!(
        "{:>9} {:>7} {:>9} {:>12} {:>10} {:>10} {:>9} {:>9}",
        "producers", "open", "policy", "requests/s", "CPU us", "batch", "p50 us", "p99 us"
    );
    for (producers, open, count) in
        [(1, 1, 200_000), (1, 64, 1_000_000), (1, 4096, 2_000_000), (2, 1024, 2_000_000), (8, 256, 2_000_000)]
    {
        for policy in [Policy::Greedy, Policy::Adaptive] {
            let engine = Engine::new(Copies::new(), patient(policy, 256))?;
            let (began, cpu) = (Instant::now(), cpu_s());
            std::thread::scope(|scope| {
                let each = || -> Result<()> {
                    let mut tickets: VecDeque<Ticket> = VecDeque::with_capacity(open);
                    for i in 0..count / producers {
                        tickets.push_back(engine.submit(&[("x", Tensor::new([1, 4], &[i as f32, 1.0, 2.0, 3.0])?)])?);
                        if tickets.len() == open {
                            tickets.pop_front().map_or(Ok(()), |ticket| ticket.wait().map(drop))?;
                        }
                    }
                    tickets.into_iter().try_for_each(|ticket| ticket.wait().map(drop))
                };
                let all: Vec<_> = (0..producers).map(|_| scope.spawn(each)).collect();
                all.into_iter().try_for_each(|t| t.join().expect("a producer panicked"))
            })?;
            let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_s() - cpu);
            let model = &engine.statistics().models[0];
            let batches: u64 = model.batch_sizes.values().sum();
            let n = model.answered as f64;
            println!(
                "{producers:>9} {open:>7} {:>9} {:>12.0} {:>10.2} {:>10.1} {:>9.1} {:>9.1}",
                format!("{policy:?}"),
                n / seconds,
                cpu * 1e6 / n,
                n / batches as f64,
                model.stages.total.p50_us,
                model.stages.total.p99_us
            );
        }
    }
    Ok(())
}

/// A text of so many tokens, and its mask.
fn text(random: &mut Xorshift, rows: usize, length: usize) -> Result<[(&'static str, Tensor); 3]> {
    let ids: Vec<i64> = (0..rows * length).map(|_| 1000 + random.below(20_000) as i64).collect();
    let of = |values: &[i64]| Tensor::new([rows, length], values);
    Ok([("input_ids", of(&ids)?), ("attention_mask", of(&vec![1; ids.len()])?), ("token_type_ids", of(&vec![0; ids.len()])?)])
}

fn session(path: &str) -> Result<Arc<Session>> {
    Ok(Arc::new(Session::new(&Model::open(path)?, Options::default())?))
}

/// Median time of a run, the first, and the processor time of all threads, in milliseconds.
fn time_ms(session: &Session, inputs: &[(&str, Tensor)]) -> Result<[f64; 3]> {
    let views: Vec<(&str, TensorView)> = inputs.iter().map(|(name, tensor)| (*name, tensor.view())).collect();
    let mut times = Vec::new();
    let (began, mut cpu) = (Instant::now(), cpu_s());
    while times.len() < 6 || began.elapsed() < Duration::from_secs(1) {
        cpu = if times.len() == 1 { cpu_s() } else { cpu };
        let start = Instant::now();
        session.run(&views)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let (first, cpu) = (times.remove(0), cpu_s() - cpu);
    times.sort_by(f64::total_cmp);
    Ok([times[times.len() / 2], first, cpu * 1e3 / times.len() as f64])
}

fn rows(path: &str) -> Result<()> {
    let (session, mut random) = (session(path)?, Xorshift::new(1));
    println!("{:>6} {:>5} {:>9} {:>9} {:>6} {:>11} {:>6}", "tokens", "rows", "first ms", "ms", "gain", "CPU ms/row", "gain");
    for length in LENGTHS {
        let mut alone = [0.0; 2];
        for n in ROWS {
            let [ms, first, cpu] = time_ms(&session, &text(&mut random, n, length)?)?;
            let each = [ms, cpu].map(|time| time / n as f64);
            alone = if n == 1 { each } else { alone };
            let gain = [alone[0] / each[0], alone[1] / each[1]];
            println!("{length:>6} {n:>5} {first:>9.2} {ms:>9.2} {:>6.2} {:>11.2} {:>6.2}", gain[0], each[1], gain[1]);
        }
    }
    Ok(())
}

/// Texts of these lengths, padded to a multiple of 8 where they differ.
fn serving(session: &Arc<Session>, lengths: &[usize]) -> Serving {
    let values = ["input_ids", "attention_mask", "token_type_ids"].map(|name| (name.to_string(), 0.0)).to_vec();
    let padding = Padding { axis: Axis::Named("sequence".into()), values, multiple: 8 };
    let joining = Joining { padding: (lengths.len() > 1).then_some(padding), ..Joining::default() };
    Serving { joining, ..Serving::new("text", session.clone()) }
}

fn engine(session: &Arc<Session>, lengths: &[usize], batching: Batching) -> Result<Engine> {
    Engine::with_models(vec![serving(session, lengths)], batching)
}

fn mixes() -> Vec<(&'static str, Vec<usize>)> {
    vec![("8", vec![8]), ("16", vec![16]), ("32", vec![32]), ("8 to 32", (8..=32).collect()), ("128", vec![128])]
}

/// Requests per second when `count` wait at the start, and processor time of each in milliseconds.
fn backlog_of(engine: &Engine, lengths: &[usize], count: usize) -> Result<[f64; 2]> {
    let mut random = Xorshift::new(7);
    let texts = (0..count).map(|_| {
        let length = lengths[random.below(lengths.len())];
        text(&mut random, 1, length)
    });
    let texts = texts.collect::<Result<Vec<_>>>()?;
    let (began, cpu) = (Instant::now(), cpu_s());
    let tickets = texts.iter().map(|text| engine.submit(text)).collect::<Result<Vec<_>>>()?;
    tickets.into_iter().try_for_each(|ticket| ticket.wait().map(drop))?;
    Ok([count as f64 / began.elapsed().as_secs_f64(), (cpu_s() - cpu) * 1e3 / count as f64])
}

fn backlog(path: &str) -> Result<()> {
    let session = session(path)?;
    println!(
        "{:>8} {:>9} {:>9} {:>6} {:>9} {:>9} {:>6} {:>8}",
        "tokens", "alone/s", "batched/s", "gain", "CPU ms", "CPU ms", "gain", "padding"
    );
    for (name, lengths) in mixes() {
        let count = if lengths[0] >= 128 { 64 } else { 256 };
        let alone = engine(&session, &lengths, patient(Policy::None, 32))?;
        let batched = engine(&session, &lengths, patient(Policy::Adaptive, 32))?;
        // The first pass makes the plans.
        backlog_of(&batched, &lengths, count / 2)?;
        backlog_of(&alone, &lengths, count / 4)?;
        // Both in turn, so that a disturbance hits both; the best of each.
        let [mut a, mut b] = [[0.0, f64::INFINITY]; 2];
        for _ in 0..3 {
            for (best, engine) in [(&mut a, &alone), (&mut b, &batched)] {
                let [rate, cpu] = backlog_of(engine, &lengths, count)?;
                *best = [f64::max(best[0], rate), f64::min(best[1], cpu)];
            }
        }
        let padding = 100.0 * batched.statistics().models[0].padding_share;
        let (rate, cpu) = (b[0] / a[0], a[1] / b[1]);
        println!("{name:>8} {:>9.1} {:>9.1} {rate:>6.2} {:>9.2} {:>9.2} {cpu:>6.2} {padding:>7.1}%", a[0], b[0], a[1], b[1]);
    }
    Ok(())
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted.get(((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// Poisson arrivals at `rate` for so many seconds; prints latencies from the intended arrivals.
fn open_loop(name: &str, policy: Policy, engine: &Engine, lengths: &[usize], rate: f64, seconds: f64) -> Result<()> {
    let mut random = Xorshift::new(11);
    let (mut at, mut plan) = (0.0, Vec::new());
    while at < seconds {
        at -= (1.0 - random.unit()).ln() / rate;
        let length = lengths[random.below(lengths.len())];
        plan.push((Duration::from_secs_f64(at), text(&mut random, 1, length)?));
    }
    let (began, mut tickets, mut rejected) = (Instant::now(), Vec::new(), 0);
    for (at, text) in &plan {
        std::thread::sleep(at.saturating_sub(began.elapsed()));
        match engine.submit(text) {
            Ok(ticket) => tickets.push((began + *at, ticket)),
            Err(_) => rejected += 1,
        }
    }
    let mut times: Vec<f64> = Vec::with_capacity(tickets.len());
    let mut batch = 0;
    for (intended, ticket) in tickets {
        match ticket.wait() {
            Ok(reply) => {
                times.push(reply.trace.replied.saturating_duration_since(intended).as_secs_f64() * 1e3);
                batch += reply.trace.requests;
            }
            Err(_) => rejected += 1,
        }
    }
    times.sort_by(f64::total_cmp);
    let batch = batch as f64 / times.len().max(1) as f64;
    let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| quantile(&times, share));
    let share = 100.0 * f64::from(rejected) / plan.len() as f64;
    println!(
        "{name:>8} {:>9} {rate:>8.0} {:>8} {share:>9.1}% {batch:>7.1} {p50:>9.1} {p90:>9.1} {p99:>9.1}",
        format!("{policy:?}"),
        plan.len()
    );
    Ok(())
}

fn load(path: &str, seconds: f64) -> Result<()> {
    let session = session(path)?;
    println!(
        "{:>8} {:>9} {:>8} {:>8} {:>10} {:>7} {:>9} {:>9} {:>9}",
        "tokens", "policy", "rate/s", "requests", "rejected", "batch", "p50 ms", "p90 ms", "p99 ms"
    );
    for (name, lengths) in mixes() {
        let capacity = {
            let alone = engine(&session, &lengths, patient(Policy::None, 32))?;
            backlog_of(&alone, &lengths, 64)?;
            backlog_of(&alone, &lengths, 128)?[0]
        };
        let warm = engine(&session, &lengths, patient(Policy::Adaptive, 32))?;
        backlog_of(&warm, &lengths, 256)?;
        for share in [0.1, 0.5, 0.9, 1.5, 2.5] {
            for policy in [Policy::None, Policy::Adaptive] {
                let batching = Batching { target_p99: Duration::from_millis(200), ..patient(policy, 32) };
                open_loop(name, policy, &engine(&session, &lengths, batching)?, &lengths, share * capacity, seconds)?;
            }
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["null"] => null(),
        ["rows", path] => rows(path),
        ["backlog", path] => backlog(path),
        ["load", path] => load(path, 5.0),
        ["load", path, seconds] => load(path, seconds.parse().unwrap_or(5.0)),
        _ => {
            println!("null | rows MODEL | backlog MODEL | load MODEL [SECONDS]");
            Ok(())
        }
    }
}
