//! Times a session, and sets its best sample against the peaks that the machine reaches in the same run.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use halfbyte::cli::measurement::least_us;
use halfbyte::hardware::{Peaks, roofline};
use halfbyte::{Session, TensorView};

/// Short samples; `cargo bench -- --measurement-time SECONDS` gives longer ones.
pub fn brief() -> Criterion {
    let times = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    times.sample_size(20)
}

/// The peaks at so many threads, printed.
pub fn peaks(threads: usize) -> Peaks {
    let peaks = roofline::measure(threads);
    let Peaks { f32_gflops, int8_gops, .. } = peaks;
    println!("measured peak, threads {threads}: {f32_gflops:.1} GFLOP/s f32, {int8_gops:.1} GOP/s int8");
    peaks
}

/// Measures runs of the session, then prints the share of the peak that its arithmetic reached.
pub fn runs(group: &mut BenchmarkGroup<WallTime>, name: &str, session: &Session, inputs: &[(&str, TensorView)], peaks: &Peaks) {
    let run = || session.run(inputs).expect("invariant: what is measured here is supported");
    let mut best_us = f64::INFINITY;
    group.bench_function(name, |b| {
        b.iter_custom(|rounds| {
            let start = Instant::now();
            (0..rounds).for_each(|_| drop(black_box(run())));
            let took = start.elapsed();
            best_us = best_us.min(took.as_secs_f64() * 1e6 / rounds as f64);
            took
        })
    });
    // A filter leaves benches out; what has not run has no share.
    if let Some(least_us) = least_us(&session.problems(), peaks).filter(|_| best_us.is_finite()) {
        println!("{name}: {best_us:.1} us at best, {:.1} % of the measured peak", 100.0 * least_us / best_us);
        // What does not run in the precision asked for.
        session.report().notes.iter().for_each(|note| println!("{name}: {note}"));
        println!();
    }
}
