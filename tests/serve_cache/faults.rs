//! The second level under faults: no wrong answer ever, and no request lost.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use halfbyte::serve::cache::{Begin, BreakerState, Fetched, Options, SecondStats};

use super::redis::{Server, connected, eventually, second};
use super::{Cache, Random, answer, key};

fn name(n: u32) -> String {
    format!("halfbyte:{}", key(n).hex())
}

fn figures(cache: &Cache) -> SecondStats {
    cache.stats().second.unwrap()
}

/// Asks for an answer that must be right. Whether it was computed.
fn ask(cache: &Cache, n: u32, len: usize) -> bool {
    let mut computed = false;
    let reply = cache.answer(key(n), None, || {
        computed = true;
        Ok(answer(n, len))
    });
    assert_eq!(reply, Ok(answer(n, len)));
    computed
}

#[test]
fn processes_share_answers() {
    let Some(server) = Server::start() else { return };
    let (one, two) = (server.cache(), server.cache());
    for n in 0..50 {
        assert!(ask(&one, n, 500));
    }
    assert!(one.flush(Duration::from_secs(20)));
    assert_eq!(figures(&one).stored, 50);
    let late = (0..50).filter(|&n| ask(&two, n, 500)).count() as u64;
    let (stats, at_second) = (two.stats(), figures(&two));
    assert_eq!((stats.second_hits + at_second.late, stats.misses), (50, late));
    assert!(stats.second_hits > 0 && at_second.damaged == 0, "{at_second:?}");
    assert!((0..50).all(|n| !ask(&two, n, 500)), "they are now in its memory too");
    assert_eq!(two.stats().first_hits, 50);
}

#[test]
fn requests_look_up_without_a_thread_each() {
    let Some(server) = Server::start() else { return };
    let (one, two) = (server.cache(), server.cache());
    (0..200).for_each(|n| assert!(ask(&one, n, 10)));
    assert!(one.flush(Duration::from_secs(20)));
    let (sender, receiver) = mpsc::channel();
    for n in 0..400 {
        let Begin::Lead(lead) = two.begin(key(n)) else { panic!() };
        let Begin::Follow(waiter) = two.begin(key(n)) else { panic!() };
        let (sender, follower) = (sender.clone(), sender.clone());
        lead.fetch(move |fetched| {
            let reply = match fetched {
                Fetched::Hit(reply) => reply,
                Fetched::Lead(lead) => lead.publish(answer(n, 10)),
            };
            sender.send((n, reply)).unwrap();
        });
        waiter.then(move |outcome| follower.send((n, outcome.unwrap())).unwrap());
    }
    drop(sender);
    assert_eq!(receiver.iter().map(|(n, reply)| assert_eq!(reply, answer(n, 10))).count(), 800);
    assert_eq!((two.stats().second_hits + two.stats().misses, two.stats().joins), (400, 400));
    assert!(two.stats().second_hits > 0);
}

#[test]
fn an_answer_lives_no_longer_for_having_been_in_redis() {
    let Some(server) = Server::start() else { return };
    let ttl = Duration::from_millis(1500);
    let [one, two] = [(); 2].map(|_| connected(Options { ttl: Some(ttl), ..server.options() }));
    ask(&one, 1, 10);
    let until = Instant::now() + ttl;
    assert!(one.flush(Duration::from_secs(20)));
    let left = server.ask(&[b"PTTL", name(1).as_bytes()]);
    let left_ms: i64 = String::from_utf8(left).unwrap().trim_matches([':', '\r', '\n']).parse().unwrap();
    assert!(left_ms <= 1500, "{left_ms}");
    // Read in the middle of its life; had that begun it anew, it would last beyond its end.
    std::thread::sleep(Duration::from_millis(700));
    // Until it is computed anew, which begins a life of its own: at its end, or sooner where Redis answered late.
    let mut given = 0;
    loop {
        let asked = Instant::now();
        if ask(&two, 1, 10) {
            break;
        }
        // Two clocks do not run quite alike.
        assert!(asked < until + Duration::from_millis(5), "given {:?} after its end", asked - until);
        given += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    println!("given {given} times, {} of them from Redis", two.stats().second_hits);
}

#[test]
fn damaged_and_foreign_values_are_misses() {
    let Some(server) = Server::start() else { return };
    let one = server.cache();
    (0..8).for_each(|n| assert!(ask(&one, n, 300)));
    assert!(one.flush(Duration::from_secs(20)));
    let good = server.value(&name(0));
    let mut random = Random(5);
    let flipped = |random: &mut Random| {
        let (mut bytes, at) = (good.clone(), random.below(good.len() as u32) as usize);
        bytes[at] ^= 1 << random.below(8);
        bytes
    };
    let mut values: Vec<Vec<u8>> = (0..60).map(|_| flipped(&mut random)).collect();
    values.extend((0..20).map(|_| good[..random.below(good.len() as u32) as usize].to_vec()));
    values.extend((1..8).map(|n| server.value(&name(n))));
    values.extend([vec![], b"hello".to_vec(), vec![0; 1 << 20], [&good[..], &good[..]].concat()]);
    for value in &values {
        server.put(&name(0), value);
        let fresh = server.cache();
        assert!(ask(&fresh, 0, 300), "computed, not believed: {} bytes", value.len());
        let seen = figures(&fresh);
        assert_eq!((fresh.stats().second_hits, seen.damaged + seen.late), (0, 1), "{seen:?}");
        assert!(fresh.flush(Duration::from_secs(20)));
    }
    assert_eq!(server.value(&name(0)).len(), good.len(), "the right one has taken its place");
    // A value of another type is no answer either.
    server.ask(&[b"DEL", name(0).as_bytes()]);
    server.ask(&[b"LPUSH", name(0).as_bytes(), b"x"]);
    assert!(ask(&server.cache(), 0, 300));
    println!("{} damaged values, none believed", values.len());
}

#[test]
fn without_a_server_everything_is_computed_at_once() {
    // A port where nobody listens, and one where somebody listens and never speaks.
    let (free, silent) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = free.local_addr().unwrap().port();
    drop(free);
    for port in [port, silent.local_addr().unwrap().port()] {
        let cache = Cache::new(Options { second: Some(second(port)), ..Options::default() }).unwrap();
        (0..500).for_each(|n| assert!(ask(&cache, n, 10)));
        let seen = figures(&cache);
        assert_eq!((seen.refused, seen.lookups, seen.dropped, seen.reachable), (500, 500, 500, false), "{seen:?}");
        eventually("the breaker opens", || figures(&cache).breaker == BreakerState::Open);
        assert!(cache.flush(Duration::ZERO));
    }
    let bad = Cache::new(Options {
        second: Some(halfbyte::serve::cache::Second { url: "http://x".into(), ..second(1) }),
        ..Options::default()
    });
    assert!(bad.err().unwrap().to_string().contains("address of Redis"));
}

/// Four threads' requests of some different ones while `disturb` runs; all must be answered rightly. Latencies beyond a computation's, in us, sorted.
fn under_load(cache: &Cache, requests: u32, disturb: impl FnOnce()) -> Vec<u64> {
    let (stop, all) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for seed in 1..=4 {
            let (stop, all) = (&stop, &all);
            scope.spawn(move || {
                let (mut random, mut own) = (Random(seed * 31), Vec::new());
                while !stop.load(SeqCst) {
                    let (n, begun) = (random.below(requests), Instant::now());
                    ask(cache, n, 50);
                    own.push(begun.elapsed().as_micros() as u64);
                    if random.below(50) == 0 {
                        // The first level forgets, so that the second is asked.
                        cache.clear();
                    }
                }
                all.lock().unwrap().extend(own);
            });
        }
        disturb();
        stop.store(true, SeqCst);
    });
    let mut all = all.into_inner().unwrap();
    all.sort_unstable();
    all
}

fn report(what: &str, cache: &Cache, latencies_us: &[u64]) {
    let at = |share: f64| latencies_us[((latencies_us.len() - 1) as f64 * share) as usize];
    let (n, p50, p99, p999, max) = (latencies_us.len(), at(0.5), at(0.99), at(0.999), at(1.0));
    println!("{what}: {n} requests, 0 wrong, p50 {p50} us, p99 {p99} us, p99.9 {p999} us, max {max} us\n{:?}", figures(cache));
}

#[test]
fn a_server_killed_and_restarted_under_load_costs_no_answer() {
    let Some(mut server) = Server::start() else { return };
    let cache = server.cache();
    let latencies = under_load(&cache, 20_000, || {
        for _ in 0..3 {
            let before = figures(&cache).hits;
            eventually("answers come from Redis", || figures(&cache).hits > before + 100);
            server.kill();
            let openings = figures(&cache).openings;
            eventually("the breaker opens", || {
                figures(&cache).breaker == BreakerState::Open && figures(&cache).openings >= openings
            });
            let before = cache.stats().misses;
            eventually("requests go on", || cache.stats().misses > before + 1000);
            server.run();
        }
        let before = figures(&cache).hits;
        eventually("answers come from Redis again", || figures(&cache).hits > before + 100);
    });
    let seen = figures(&cache);
    assert!(seen.openings >= 3 && seen.connections >= 4, "{seen:?}");
    report("killed and restarted three times", &cache, &latencies);
}

#[test]
fn a_server_that_stops_answering_costs_no_answer() {
    let Some(server) = Server::start() else { return };
    let cache = server.cache();
    let latencies = under_load(&cache, 20_000, || {
        eventually("answers come from Redis", || figures(&cache).hits > 100);
        server.signal("STOP");
        eventually("the breaker opens", || figures(&cache).breaker == BreakerState::Open);
        let before = cache.stats().misses;
        eventually("requests go on", || cache.stats().misses > before + 2000);
        server.signal("CONT");
        let before = figures(&cache).hits;
        eventually("answers come from Redis again", || figures(&cache).hits > before + 100);
    });
    report("stopped and continued", &cache, &latencies);
}

/// Stands between a cache and a server and, once `broken`, changes, cuts, delays and repeats what the server says.
fn meddle(listener: TcpListener, port: u16, broken: &'static AtomicBool, faults: &'static AtomicUsize) {
    for (seed, client) in listener.incoming().flatten().enumerate() {
        let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
        let (mut up, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut up, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
        std::thread::spawn(move || {
            let (mut client, mut server, mut random) = (client, server, Random(seed as u32 * 7919 + 3));
            let mut buffer = vec![0; 1 << 16];
            while let Ok(n @ 1..) = server.read(&mut buffer) {
                let mut bytes = buffer[..n].to_vec();
                if broken.load(SeqCst) && random.below(3) == 0 {
                    faults.fetch_add(1, SeqCst);
                    match random.below(8) {
                        0 => bytes.truncate(random.below(n as u32) as usize),
                        1 => bytes.extend_from_within(random.below(n as u32) as usize..),
                        2 => std::thread::sleep(Duration::from_millis(random.below(80).into())),
                        3 => break,
                        _ => bytes[random.below(n as u32) as usize] ^= 1 << random.below(8),
                    }
                }
                if client.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        });
    }
}

#[test]
fn a_connection_that_lies_brings_no_wrong_answer() {
    let Some(server) = Server::start() else { return };
    static BROKEN: AtomicBool = AtomicBool::new(false);
    static FAULTS: AtomicUsize = AtomicUsize::new(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, between) = (server.port, listener.local_addr().unwrap().port());
    std::thread::spawn(move || meddle(listener, port, &BROKEN, &FAULTS));
    let options = halfbyte::serve::cache::Second { failures: u32::MAX, ..second(between) };
    let cache = connected(Options { second: Some(options), ..Options::default() });
    let latencies = under_load(&cache, 300, || {
        eventually("answers come from Redis", || figures(&cache).hits > 100);
        BROKEN.store(true, SeqCst);
        eventually("it lies often", || FAULTS.load(SeqCst) > 300);
        BROKEN.store(false, SeqCst);
        let before = figures(&cache).hits;
        eventually("answers come from Redis again", || figures(&cache).hits > before + 100);
    });
    report(&format!("{} faults in what the server says", FAULTS.load(SeqCst)), &cache, &latencies);
    assert!(figures(&cache).damaged > 0 && figures(&cache).failures > 0, "{:?}", figures(&cache));
}
