//! One computation for equal requests, whatever becomes of it.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use halfbyte::serve::cache::{Answer, Begin, Failure, Fetched, Options, Outcome};

use super::{Cache, Random, answer, failed, hush, key, local};

/// 100 equal requests at once; the leading one computes while all others already wait.
fn hundred(cache: &Cache, compute: impl Fn() -> Result<Answer, String> + Sync) -> (usize, Vec<Outcome<String>>) {
    let (computed, barrier) = (AtomicUsize::new(0), Barrier::new(100));
    let outcomes = std::thread::scope(|scope| {
        let one = || {
            barrier.wait();
            cache.answer(key(7), None, || {
                computed.fetch_add(1, SeqCst);
                let begun = Instant::now();
                while cache.stats().joins < 99 && begun.elapsed() < Duration::from_secs(20) {
                    std::thread::yield_now();
                }
                compute()
            })
        };
        let threads: Vec<_> = (0..100).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    (computed.into_inner(), outcomes)
}

#[test]
fn a_hundred_equal_requests_compute_once() {
    let cache = local();
    let (computed, outcomes) = hundred(&cache, || Ok(answer(7, 1000)));
    assert_eq!(computed, 1);
    let first = outcomes[0].as_ref().unwrap();
    for outcome in &outcomes {
        let reply = outcome.as_ref().unwrap();
        assert_eq!(*reply, answer(7, 1000));
        assert_eq!(reply[0].1.address(), first[0].1.address(), "they share the elements");
    }
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.joins, stats.first_hits, stats.under_way, stats.entries), (1, 99, 0, 0, 1));
    assert_eq!(cache.answer(key(7), None, || unreachable!()), Ok(answer(7, 1000)));
    assert_eq!(cache.stats().first_hits, 1);
}

#[test]
fn an_error_reaches_all_who_wait_once_and_is_not_kept() {
    let cache = local();
    let (computed, outcomes) = hundred(&cache, || Err(failed()));
    assert_eq!(computed, 1);
    assert!(outcomes.iter().all(|o| matches!(o, Err(Failure::Failed(e)) if *e == failed())));
    assert_eq!((cache.stats().entries, cache.stats().under_way), (0, 0));
    assert_eq!(cache.answer(key(7), None, || Ok(answer(7, 1))), Ok(answer(7, 1)));
}

#[test]
fn a_panic_reaches_all_who_wait_as_an_error() {
    hush();
    let cache = local();
    let (computed, outcomes) = hundred(&cache, || panic!("as planned"));
    assert_eq!(computed, 1);
    assert!(outcomes.iter().all(|o| *o == Err(Failure::Panicked("as planned".into()))));
    assert_eq!(cache.answer(key(7), None, || Ok(answer(7, 1))), Ok(answer(7, 1)));
    assert_eq!((cache.stats().panicked, cache.stats().under_way), (1, 0));
}

#[test]
fn nobody_waits_beyond_its_own_deadline() {
    let cache = local();
    let Begin::Lead(lead) = cache.begin(key(1)) else { panic!("nobody else leads") };
    let now = Instant::now();
    assert_eq!(cache.answer(key(1), Some(now), || unreachable!()), Err(Failure::Late));
    assert_eq!(cache.answer(key(1), Some(now + Duration::from_millis(20)), || unreachable!()), Err(Failure::Late));
    // The computation goes on for those with more time.
    let Begin::Follow(waiter) = cache.begin(key(1)) else { panic!("it is under way") };
    assert!(waiter.outcome().is_none());
    lead.publish(answer(1, 3));
    assert_eq!(waiter.wait(Some(now)), Ok(answer(1, 3)), "an answer that is there is given, however late");
}

#[test]
fn a_request_given_up_costs_those_that_follow_nothing() {
    let cache = local();
    let Begin::Lead(lead) = cache.begin(key(2)) else { panic!() };
    let (computed, waiting) = (AtomicUsize::new(0), 50);
    std::thread::scope(|scope| {
        let one = || {
            cache.answer(key(2), None, || {
                computed.fetch_add(1, SeqCst);
                Ok(answer(2, 10))
            })
        };
        let threads: Vec<_> = (0..waiting).map(|_| scope.spawn(one)).collect();
        while cache.stats().joins < waiting {
            std::thread::yield_now();
        }
        drop(lead);
        assert!(threads.into_iter().all(|t| t.join().unwrap() == Ok(answer(2, 10))));
    });
    assert_eq!(computed.into_inner(), 1, "one of them leads");
    assert_eq!((cache.stats().abandoned, cache.stats().under_way), (1, 0));
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn requests_wait_without_a_thread_each() {
    hush();
    let cache = local();
    let Begin::Lead(lead) = cache.begin(key(3)) else { panic!() };
    let (sender, receiver) = mpsc::channel();
    let mut futures = Vec::new();
    for i in 0..1000 {
        let Begin::Follow(waiter) = cache.begin(key(3)) else { panic!() };
        match i % 3 {
            0 => futures.push(waiter),
            1 => {
                let sender = sender.clone();
                waiter.then(move |outcome| sender.send(outcome).unwrap());
            }
            _ => waiter.then(|_| panic!("as planned")),
        }
    }
    let Begin::Follow(polled) = cache.begin(key(3)) else { panic!() };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| block_on(polled));
        let (sender, known) = mpsc::channel();
        // Without a second level the leading request computes at once.
        lead.fetch(move |fetched| {
            let Fetched::Lead(lead) = fetched else { panic!() };
            sender.send(lead.publish(answer(3, 5))).unwrap();
        });
        assert_eq!(known.try_recv(), Ok(answer(3, 5)));
        assert_eq!(waiting.join().unwrap(), Ok(answer(3, 5)));
    });
    drop(sender);
    assert_eq!(receiver.iter().filter(|o| *o == Ok(answer(3, 5))).count(), 333);
    assert!(futures.into_iter().all(|f| block_on(f) == Ok(answer(3, 5))));
    assert!(matches!(cache.begin(key(3)), Begin::Hit(reply) if reply == answer(3, 5)));
}

#[test]
fn answers_are_right_and_none_is_lost_when_everything_happens_at_once() {
    hush();
    // Room for few of them, so that they come and go.
    let cache =
        Cache::new(Options { capacity_bytes: 20_000, ttl: Some(Duration::from_millis(2)), ..Options::default() }).unwrap();
    let (right, errors, late) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let (threads, requests) = (8, 4000);
    std::thread::scope(|scope| {
        for seed in 0..threads {
            let (cache, right, errors, late) = (&cache, &right, &errors, &late);
            scope.spawn(move || {
                let mut random = Random(seed * 977 + 1);
                for _ in 0..requests {
                    let n = random.below(random.0 % 40 + 1);
                    let (what, deadline) = (random.below(20), Instant::now() + Duration::from_micros(random.below(300).into()));
                    if what == 0 {
                        drop(cache.begin(key(n)));
                        right.fetch_add(1, SeqCst);
                        continue;
                    }
                    let outcome = cache.answer(key(n), (what > 10).then_some(deadline), || match what {
                        1 => Err(failed()),
                        2 => panic!("as planned"),
                        _ => {
                            std::thread::sleep(Duration::from_micros(u64::from(n) * 2));
                            Ok(answer(n, 100))
                        }
                    });
                    let counter = match outcome {
                        Ok(reply) => {
                            assert_eq!(reply, answer(n, 100));
                            right
                        }
                        Err(Failure::Late) => late,
                        Err(Failure::Abandoned) => panic!("begun again, never given out"),
                        Err(_) => errors,
                    };
                    counter.fetch_add(1, SeqCst);
                }
            });
        }
    });
    let stats = cache.stats();
    println!("{stats:?}");
    assert_eq!(right.into_inner() + errors.into_inner() + late.into_inner(), (threads * requests) as usize);
    assert_eq!(stats.under_way, 0);
    assert!(stats.joins > 0 && stats.first_hits > 0 && stats.evicted > 0 && stats.panicked > 0);
}
