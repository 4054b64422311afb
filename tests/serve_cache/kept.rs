//! The first level: bytes, time, and what a kept answer keeps.

use std::time::{Duration, Instant};

use halfbyte::serve::alert::{Alerts, Rule, metric};
use halfbyte::serve::cache::{Answer, Eviction, Options};
use halfbyte::{DType, Tensor};

use super::redis::eventually;
use super::{Cache, answer, key, local};

#[test]
fn bytes_stay_within_the_limit_and_what_goes_is_counted() {
    for eviction in [Eviction::Lru, Eviction::TinyLfu] {
        let capacity_bytes = 1 << 20;
        let cache = Cache::new(Options { capacity_bytes, eviction, largest_bytes: 100_000, ..Options::default() }).unwrap();
        for n in 0..1000 {
            cache.answer(key(n), None, || Ok(answer(n, 1 + 37 * n as usize % 5000))).unwrap();
        }
        let stats = cache.stats();
        assert!(stats.bytes <= capacity_bytes && stats.bytes > capacity_bytes * 9 / 10, "{stats:?}");
        assert_eq!((stats.kept, stats.too_large, stats.misses), (1000, 0, 1000));
        assert_eq!(stats.entries + stats.evicted, 1000, "each is there or counted as gone: {stats:?}");
        let all: usize = (0..1000).map(|n| answer(n, 1 + 37 * n as usize % 5000).size_bytes()).sum();
        assert_eq!(stats.bytes + stats.evicted_bytes, all as u64);
        let mut alerts = Alerts::new(Rule::defaults());
        let minute = Duration::from_secs(60);
        assert_eq!(alerts.evaluate(&stats.samples("results"), Instant::now()), []);
        let firing = alerts.evaluate(&stats.samples("results"), Instant::now() + minute + minute);
        assert_eq!(firing.iter().map(|a| a.rule.metric.as_str()).collect::<Vec<_>>(), [metric::HIT_RATE, metric::EVICTIONS]);
        assert_eq!((firing[0].value, firing[1].value), (0.0, stats.evicted as f64 / 1000.0));
        assert!(cache.stats().since(&stats).samples("results").is_empty(), "nothing has happened since");
        assert_eq!(cache.answer(key(2000), None, || Ok(answer(2000, 30_000))), Ok(answer(2000, 30_000)));
        assert_eq!((cache.stats().too_large, cache.stats().evicted), (1, stats.evicted), "an answer too large throws none out");
        cache.clear();
        assert_eq!((cache.stats().entries, cache.stats().bytes), (0, 0));
    }
}

#[test]
fn the_least_recently_used_go_first() {
    let size = answer(0, 1000).size_bytes() as u64;
    let cache = Cache::new(Options { capacity_bytes: size * 10, eviction: Eviction::Lru, ..Options::default() }).unwrap();
    for n in 0..10 {
        cache.answer(key(n), None, || Ok(answer(n, 1000))).unwrap();
    }
    assert_eq!(cache.stats().entries, 10);
    cache.answer(key(0), None, || unreachable!()).unwrap();
    for n in 10..15 {
        cache.answer(key(n), None, || Ok(answer(n, 1000))).unwrap();
        cache.stats();
    }
    cache.answer(key(0), None, || unreachable!("used lately")).unwrap();
    let before = cache.stats().misses;
    cache.answer(key(1), None, || Ok(answer(1, 1000))).unwrap();
    assert_eq!(cache.stats().misses, before + 1, "the longest unused is gone");
}

#[test]
fn answers_expire() {
    let cache = Cache::new(Options { ttl: Some(Duration::from_millis(30)), ..Options::default() }).unwrap();
    let mut computed = 0;
    for _ in 0..2 {
        cache
            .answer(key(1), None, || {
                computed += 1;
                Ok(answer(1, 1))
            })
            .unwrap();
        std::thread::sleep(Duration::from_millis(60));
    }
    assert_eq!(computed, 2);
    // Their memory is free within about a second.
    eventually("it is removed", || cache.stats().entries == 0 && cache.stats().expired > 0);
}

#[test]
fn a_part_of_a_batch_does_not_keep_the_batch() {
    let batch = Tensor::zeros(DType::F32, [1000, 1000]).unwrap().to_shared();
    let row = Tensor::from_shared(DType::F32, [1000].into(), batch.slice(4000..8000)).unwrap();
    assert_eq!(row.address(), batch.as_ptr() as usize + 4000);
    let cache = local();
    let reply = cache.answer(key(1), None, || Ok(Answer::from(vec![("y".into(), row)]))).unwrap();
    assert!(!batch.as_ptr_range().contains(&(reply[0].1.address() as *const u8)));
    assert!((4000..5000).contains(&cache.stats().bytes), "{:?}", cache.stats());
    // Nobody can change what others hold.
    let mut own = reply[0].1.clone();
    own.view_mut();
    assert_ne!(own.address(), reply[0].1.address());
}
