//! Rates and permits.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use governor::clock::FakeRelativeClock;
use halfbyte::serve::limit::{Busy, Concurrency, Counts, Limit, Limited, Limits, Rate, RateLimits, Throttled};

fn rate(per_second: f64, burst: u32) -> Rate {
    Rate { per_second, burst }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn named<const N: usize>(rates: [(&str, Rate); N]) -> std::collections::BTreeMap<String, Rate> {
    rates.into_iter().map(|(name, rate)| (name.to_string(), rate)).collect()
}

#[test]
fn bursts_pass_and_the_rest_is_told_when_to_come_again() {
    let clock = FakeRelativeClock::default();
    let limits = Limits { tenant: Some(rate(10.0, 5)), ..Limits::default() };
    let limits = RateLimits::with_clock(limits, clock.clone()).unwrap();
    let throttled = |after: Option<u64>| Err(Throttled { by: Limited::Tenant, name: "a".into(), retry_after: after.map(ms) });
    (0..5).for_each(|_| limits.admit("a", "m", 1).unwrap());
    assert_eq!(limits.admit("a", "m", 1), throttled(Some(100)));
    assert_eq!(limits.admit("a", "m", 3), throttled(Some(300)));
    assert_eq!(limits.admit("a", "m", 6), throttled(None), "it costs more than ever comes at once");
    limits.admit("b", "m", 5).unwrap();
    clock.advance(ms(99));
    assert_eq!(limits.admit("a", "m", 1), throttled(Some(1)));
    clock.advance(ms(1));
    limits.admit("a", "m", 1).unwrap();
    // What was promised holds, at every time.
    for step in 1..200u64 {
        clock.advance(Duration::from_micros(step * 7919 % 150_000));
        if let Err(Throttled { retry_after, .. }) = limits.admit("a", "m", 2) {
            clock.advance(retry_after.unwrap() - Duration::from_nanos(1));
            assert!(limits.admit("a", "m", 2).is_err());
            clock.advance(Duration::from_nanos(1));
            limits.admit("a", "m", 2).unwrap();
        }
    }
    limits.admit("a", "m", 0).unwrap();
    assert!(limits.admit("a", "m", 6).unwrap_err().to_string().contains("ask for less"));
}

#[test]
fn a_tenant_that_asks_too_much_takes_nothing_from_others() {
    let clock = FakeRelativeClock::default();
    let limits = Limits { tenant: Some(rate(100.0, 10)), model: Some(rate(1000.0, 100)), ..Limits::default() };
    let limits = RateLimits::with_clock(limits, clock.clone()).unwrap();
    let (mut greedy, mut modest) = (0, 0);
    for _ in 0..1000 {
        clock.advance(ms(1));
        greedy += (0..20).filter(|_| limits.admit("greedy", "m", 1).is_ok()).count();
    }
    for _ in 0..100 {
        clock.advance(ms(10));
        modest += usize::from(limits.admit("modest", "m", 1).is_ok());
    }
    assert_eq!((greedy, modest), (109, 100), "10 and 100 a second; every one");
    let stats = limits.stats();
    assert_eq!(stats.tenants["greedy"], Counts { admitted: 109, throttled: 19_891 });
    assert_eq!(stats.models["m"], Counts { admitted: 209, throttled: 0 });
    let share = |subject: &str| stats.samples(&Default::default()).into_iter().find(|s| s.subject == subject).unwrap().value;
    assert_eq!((share("tenant/greedy"), share("tenant/modest"), share("model/m")), (0.994_55, 0.0, 0.0));
    assert!(stats.samples(&stats).is_empty(), "nothing has happened since");
    assert!(stats.prometheus().contains("halfbyte_throttled_total{by=\"tenant\"} 19891\n"));
    // All tenants together are held by the model's limit.
    clock.advance(ms(10));
    let passed = (0..1000).filter(|i| limits.admit(&format!("t{}", i / 10), "m", 1).is_ok()).count();
    assert_eq!(passed, 100);
    let refused = limits.admit("another", "m", 1).unwrap_err();
    assert_eq!((refused.by, refused.name.as_str(), refused.retry_after), (Limited::Model, "m", Some(ms(1))));
}

#[test]
fn limits_change_while_requests_come() {
    let clock = FakeRelativeClock::default();
    let before = Limits { tenant: Some(rate(1.0, 2)), tenants: named([("paid", rate(1.0, 4))]), ..Limits::default() };
    let limits = RateLimits::with_clock(before.clone(), clock.clone()).unwrap();
    let burst = |name: &str| (0..50).filter(|_| limits.admit(name, "m", 1).is_ok()).count();
    assert_eq!((burst("free"), burst("paid")), (2, 4));
    // One's limit is raised; the other's is the same and has nothing left.
    limits.set(Limits { tenants: named([("paid", rate(1.0, 10))]), ..before.clone() }).unwrap();
    assert_eq!((burst("free"), burst("paid")), (0, 10));
    limits.set(Limits { tenants: named([("paid", rate(1.0, 10)), ("free", rate(1.0, 7))]), ..before.clone() }).unwrap();
    assert_eq!((burst("free"), burst("paid")), (7, 0));
    limits.set(Limits { tenant: None, tenants: named([]), ..before.clone() }).unwrap();
    assert_eq!((burst("free"), burst("paid")), (50, 50));
    assert_eq!(limits.stats().tenants["paid"], Counts { admitted: 64, throttled: 136 }, "counting goes on");
    for bad in [rate(0.0, 1), rate(-1.0, 1), rate(f64::NAN, 1), rate(1.0, 0), rate(1e-30, 1)] {
        assert!(limits.set(Limits { model: Some(bad), ..before.clone() }).unwrap_err().to_string().contains("admits nothing"));
    }
    assert_eq!(limits.limits().tenant, None, "a bad change changes nothing");
    for odd in [rate(f64::INFINITY, 1), rate(1e-7, u32::MAX), rate(1e12, u32::MAX)] {
        // Either refused or of use: never a panic.
        if limits.set(Limits { model: Some(odd), ..before.clone() }).is_ok() {
            limits.admit("x", "other", 1).unwrap();
            let _ = limits.admit("y", "other", u32::MAX);
        }
    }
}

#[test]
fn names_are_bounded_however_many_come() {
    let clock = FakeRelativeClock::default();
    let told =
        Limits { tenant: Some(rate(1.0, 3)), most_names: 100, tenants: named([("paid", rate(5.0, 9))]), ..Limits::default() };
    let limits = RateLimits::with_clock(told, clock.clone()).unwrap();
    let passed = (0..10_000).filter(|i| limits.admit(&format!("t{i}"), "m", 1).is_ok()).count();
    assert_eq!(passed, 103, "100 told apart, and what one limit lets in for all the others");
    assert_eq!(limits.stats().tenants.len(), 101);
    assert_eq!((0..20).filter(|_| limits.admit("paid", "m", 1).is_ok()).count(), 9);
    // Those that still have something to remember are kept.
    (0..2).for_each(|_| limits.admit("t5", "m", 1).unwrap());
    clock.advance(ms(2500));
    limits.admit("t5", "m", 1).unwrap();
    clock.advance(ms(600));
    assert_eq!(limits.admit("new", "m", 1), Ok(()));
    let stats = limits.stats();
    assert_eq!(stats.tenants.keys().collect::<Vec<_>>(), ["new", "paid", "t5"]);
    let all = stats.tenants.values().fold(stats.other_tenants, |mut all, one| {
        all += *one;
        all
    });
    assert_eq!(all.admitted + all.throttled, 10_000 + 20 + 4, "none is lost to the count");
}

#[test]
fn threads_together_get_what_one_would() {
    let clock = FakeRelativeClock::default();
    let told = Limits { tenant: Some(rate(1e-3, 1000)), most_names: 3, ..Limits::default() };
    let limits = RateLimits::with_clock(told, clock).unwrap();
    let passed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for i in 0..2000 {
                    let admitted = limits.admit(["a", "b", "c"][i % 3], "m", 1).is_ok();
                    passed.fetch_add(admitted.into(), SeqCst);
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 3000);
}

#[test]
fn permits_are_no_more_than_the_limit_and_come_back() {
    let concurrency = Concurrency::new(Limit::new(Duration::from_secs(1), 10, 1, 10));
    let permits: Vec<_> = (0..10).map(|_| concurrency.admit().unwrap()).collect();
    assert_eq!(concurrency.admit().err(), Some(Busy { limit: 10 }));
    drop(permits);
    let most = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for i in 0..500 {
                    let Ok(permit) = concurrency.admit() else { continue };
                    most.fetch_max(concurrency.stats().under_way as u64, SeqCst);
                    if i % 7 > 0 {
                        permit.done(i % 5 == 0);
                    }
                }
            });
        }
    });
    let stats = concurrency.stats();
    assert!(most.into_inner() <= 10 && stats.under_way == 0 && (1..=10).contains(&stats.limit), "{stats:?}");
    assert_eq!(stats.admitted + stats.refused, 11 + 16 * 500);
}
