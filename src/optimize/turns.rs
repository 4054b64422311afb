//! Times of two sessions, by turns.

use std::ops::ControlFlow;
use std::time::Instant;

use super::Sample;
use super::taps::run;
use crate::error::Result;
use crate::session::Session;

/// Runs of each before the first turn: caches, and threads that sleep.
const WARM_UP: usize = 5;

/// Microseconds of up to `turns` runs of both on the same inputs, run by run, a few of each before that left out; who begins changes. `see` is
/// told each turn's times and may end them.
pub fn by_turns(
    both: [&Session; 2],
    sample: &Sample,
    turns: usize,
    mut see: impl FnMut([f64; 2]) -> ControlFlow<()>,
) -> Result<Vec<[f64; 2]>> {
    let mut times = Vec::with_capacity(turns);
    for turn in 0..turns + WARM_UP {
        let mut us = [0.0; 2];
        for i in 0..2 {
            let at = (turn + i) % 2;
            let began = Instant::now();
            run(both[at], sample)?;
            us[at] = began.elapsed().as_secs_f64() * 1e6;
        }
        if turn >= WARM_UP {
            times.push(us);
            if see(us).is_break() {
                break;
            }
        }
    }
    Ok(times)
}
