//! What the cache of results and the limits cost: `cargo bench --no-default-features --features serve --bench cache`. Starts a
//! redis-server of its own, where there is one.

use std::hint::black_box;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use halfbyte::serve::cache::{Answer, Begin, Cache, Digest, Eviction, Identity, Options, Scope, Second};
use halfbyte::serve::limit::{Concurrency, Limit, Limits, Rate, RateLimits};
use halfbyte::{Error, Tensor};

/// Median of runs of `n` calls each, in us a call.
fn median_us(n: usize, mut call: impl FnMut(usize)) -> f64 {
    let mut runs: Vec<f64> = (0..15)
        .map(|run| {
            let begun = Instant::now();
            (0..n).for_each(|i| call(run * n + i));
            begun.elapsed().as_secs_f64() * 1e6 / n as f64
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[7]
}

/// Numbers of a fixed generator in [0, 1).
fn uniform(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn floats(bytes: usize) -> Tensor {
    let mut next = uniform(bytes as u64 + 7);
    Tensor::vector(&(0..bytes / 4).map(|_| (next() + next() + next() - 1.5) as f32).collect::<Vec<_>>())
}

fn key(n: usize) -> Digest {
    Scope::new(&Identity::default()).key(&[], [("x", &Tensor::scalar(n as i64))])
}

fn reply(bytes: usize) -> Answer {
    Answer::from(vec![("y".to_string(), floats(bytes))])
}

const SIZES: [usize; 6] = [64, 1 << 10, 4 << 10, 64 << 10, 256 << 10, 1 << 20];

fn first_level() {
    let scope = Scope::new(&Identity { model: "minilm", version: "1", precision: "f32", ..Identity::default() });
    println!("bytes | key of an input, us | hit, us");
    for bytes in SIZES {
        let (input, cache) = (floats(bytes), Cache::<Error>::new(Options::default()).unwrap());
        let n = (1 << 22) / (bytes + 4096);
        let hashed = median_us(n, |_| {
            black_box(scope.key(&[], [("x", black_box(&input))]));
        });
        let (hit_key, value) = (key(0), reply(bytes));
        cache.answer(hit_key, None, || Ok(value)).unwrap();
        let hit = median_us(20_000, |_| assert!(matches!(cache.begin(black_box(hit_key)), Begin::Hit(_))));
        println!("{bytes} | {hashed:.2} | {hit:.3}");
    }
    let cache = Cache::<Error>::new(Options::default()).unwrap();
    let value = reply(1024);
    println!(
        "miss, computation free: {:.2} us",
        median_us(2000, |i| drop(cache.answer(key(i), None, || Ok(value.clone())).unwrap()))
    );
}

/// A server that goes with its value.
struct Server(Child, u16);

impl Server {
    fn start() -> Option<Server> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let args = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port"];
        let child = Command::new("redis-server").args(args).arg(port.to_string()).stdout(Stdio::null()).spawn().ok()?;
        Some(Server(child, port))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn second_level() {
    let Some(server) = Server::start() else { return println!("SKIP the second level: no redis-server") };
    let second = Second {
        url: format!("redis://127.0.0.1:{}/", server.1),
        largest_bytes: 4 << 20,
        waiting_bytes: 1 << 30,
        budget: Duration::from_millis(50),
        ..Second::default()
    };
    let open = || {
        let cache = Cache::<Error>::new(Options { second: Some(second.clone()), ..Options::default() }).unwrap();
        while !cache.stats().second.unwrap().reachable {
            std::thread::sleep(Duration::from_millis(1));
        }
        cache
    };
    println!("bytes | hit in Redis, us | stored bytes");
    for bytes in SIZES {
        let (cache, count) = (open(), 300);
        let before = cache.stats().second.unwrap().stored_bytes;
        let value = reply(bytes);
        (0..count).for_each(|n| drop(cache.answer(key(n + bytes), None, || Ok(value.clone()))));
        assert!(cache.flush(Duration::from_secs(60)));
        let stored = (cache.stats().second.unwrap().stored_bytes - before) / count as u64;
        let other = open();
        let us = median_us(count / 15, |n| drop(other.answer(key(n + bytes), None, || Ok(value.clone())).unwrap()));
        let missed = other.stats().misses;
        println!("{bytes} | {us:.0} | {stored} ({missed} of {count} not in time)");
    }
    let cache = open();
    drop(server);
    let value = reply(1024);
    let slowest = (0..1000).map(|n| {
        let begun = Instant::now();
        drop(cache.answer(key(n + 1), None, || Ok(value.clone())));
        begun.elapsed().as_secs_f64() * 1e6
    });
    println!("slowest of 1000 misses once the server is killed: {:.0} us", slowest.fold(0.0, f64::max));
    println!(
        "miss with a dead server: {:.2} us",
        median_us(2000, |n| drop(cache.answer(key(n + 5000), None, || Ok(value.clone()))))
    );
}

/// Share of hits on requests by Zipf's law, alone and with a scan (requests that come once) between them.
fn eviction() {
    let names = 20_000;
    let weights: Vec<f64> = (1..=names)
        .map(|rank| 1.0 / (rank as f64).powf(0.9))
        .scan(0.0, |sum, w| {
            Some({
                *sum += w;
                *sum
            })
        })
        .collect();
    for (what, scan) in [("Zipf 0.9", 0.0), ("Zipf 0.9, every third request of a scan", 1.0 / 3.0)] {
        for eviction in [Eviction::Lru, Eviction::TinyLfu] {
            let value = reply(1024);
            let options = Options { capacity_bytes: value.size_bytes() as u64 * 1000, eviction, ..Options::default() };
            let (cache, mut next, mut hits) = (Cache::<Error>::new(options).unwrap(), uniform(42), 0);
            for i in 0..200_000 {
                let one = if next() < scan { names + i } else { weights.partition_point(|w| *w < next() * weights[names - 1]) };
                let mut computed = false;
                cache
                    .answer(key(one), None, || {
                        computed = true;
                        Ok(value.clone())
                    })
                    .unwrap();
                hits += usize::from(!computed);
            }
            println!("{what}, room for 1000 of {names}, {eviction:?}: {:.1} % hits", hits as f64 / 2000.0);
        }
    }
}

fn limits() {
    let rate = Some(Rate { per_second: 1e9, burst: 1_000_000 });
    let rates = RateLimits::new(Limits { tenant: rate, model: rate, ..Limits::default() }).unwrap();
    println!("rates of tenant and model: {:.3} us", median_us(50_000, |_| rates.admit("tenant", "model", 1).unwrap()));
    let concurrency = Concurrency::new(Limit::new(Duration::from_millis(20), 100, 1, 1000));
    println!("permit and latency: {:.3} us", median_us(50_000, |_| concurrency.admit().unwrap().done(false)));
}

fn main() {
    first_level();
    second_level();
    eviction();
    limits();
}
