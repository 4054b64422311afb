//! The cache of results, rate limits, the concurrency limit and alerts, from outside; Redis is a real server.

mod faults;
mod flights;
mod kept;
mod limits;
mod redis;
mod simulation;

use std::sync::Once;

use halfbyte::Tensor;
use halfbyte::serve::cache::{Answer, Digest, Identity, Options, Scope};

type Cache = halfbyte::serve::cache::Cache<String>;

/// The key of request `n`.
fn key(n: u32) -> Digest {
    let scope = Scope::new(&Identity { model: "m", version: "1", ..Identity::default() });
    scope.key(&[], [("x", &Tensor::scalar(n as i32))])
}

/// The one right answer to request `n`, of `len` numbers that no other answer has.
fn answer(n: u32, len: usize) -> Answer {
    let values: Vec<u32> = (0..len as u32).map(|i| n.wrapping_mul(2_654_435_761).wrapping_add(i.wrapping_mul(i))).collect();
    Answer::from(vec![("y".to_string(), Tensor::vector(&values)), ("n".to_string(), Tensor::scalar(n as i32))])
}

fn failed() -> String {
    "as planned".into()
}

/// A cache without a second level.
fn local() -> Cache {
    Cache::new(Options::default()).unwrap()
}

/// Panics that are planned say nothing; they have "as planned" in their text.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().downcast_ref::<&str>().is_some_and(|text| text.contains("as planned")) {
                usual(info);
            }
        }));
    });
}

/// xorshift32: fixed by its seed.
struct Random(u32);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % n
    }
}
