//! Shares the tasks of a launch between the threads of the pool.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::disjoint::Disjoint;

/// Looks at memory before the processor is offered to other threads.
const LOOKS: usize = 64;

/// Calls `task` with each of `0..tasks`, from all threads of the pool, `grain` at a time: each takes the next when it is done with one. Returns
/// when all are done.
pub(super) fn each(tasks: usize, grain: usize, task: impl Fn(usize) + Sync) {
    let grain = grain.max(1);
    let threads = rayon::current_num_threads().min(tasks.div_ceil(grain));
    if threads < 2 {
        return (0..tasks).for_each(task);
    }
    let (next, busy) = (AtomicUsize::new(0), AtomicUsize::new(threads - 1));
    let work = || {
        loop {
            let first = next.fetch_add(grain, Ordering::Relaxed);
            if first >= tasks {
                return;
            }
            (first..(first + grain).min(tasks)).for_each(&task);
        }
    };
    rayon::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| {
                let _done = Done(&busy);
                work();
            });
        }
        work();
        // The end of the last task is near: to be woken would take longer, up to 100 us on a virtual machine.
        look(|| busy.load(Ordering::Acquire) == 0);
    });
}

/// Calls `task(i, part)` with the parts of `len` elements (the last may be shorter), as [`each`] does.
pub(super) fn parts<T: Send>(slice: &mut [T], len: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    let (all, len) = (slice.len(), len.max(1));
    let slice = Disjoint::new(slice);
    each(all.div_ceil(len), 1, |i| {
        // SAFETY: each part is handed out once.
        task(i, unsafe { slice.part(i * len, len.min(all - i * len)) });
    });
}

/// Counts a task as done when dropped, a panic included.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Works on what the pool has to do until `is_over`.
fn look(is_over: impl Fn() -> bool) {
    for looks in 1usize.. {
        if is_over() {
            return;
        }
        if rayon::yield_now() != Some(rayon::Yield::Executed) {
            match looks % LOOKS {
                0 => std::thread::yield_now(),
                _ => std::hint::spin_loop(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_runs_once_whoever_waits() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        // Runs beside each other, on a pool of fewer threads than they want, end.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for (tasks, grain) in [(0, 1), (1, 1), (2, 5), (7, 2), (400, 1), (401, 16)] {
                        let seen: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                        pool.install(|| {
                            each(tasks, grain, |i| {
                                seen[i].fetch_add(1, Ordering::Relaxed);
                            })
                        });
                        assert!(seen.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{tasks} by {grain}");
                    }
                });
            }
        });
    }

    #[test]
    fn parts_are_those_of_chunks() {
        for (len, part) in [(0, 3), (10, 3), (9, 3), (2, 5)] {
            let (mut got, mut want) = (vec![0; len], vec![0; len]);
            parts(&mut got, part, |i, of| of.fill(i + 10 * of.len()));
            want.chunks_mut(part).enumerate().for_each(|(i, of)| of.fill(i + 10 * of.len()));
            assert_eq!(got, want);
        }
    }

    #[test]
    fn a_panic_of_a_task_reaches_the_caller() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let run = || pool.install(|| each(64, 1, |i| assert!(i != 40, "task 40")));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
    }
}
