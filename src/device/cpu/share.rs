//! Shares the tasks of a launch between the threads of the pool.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::disjoint::Disjoint;

/// Looks at memory before the processor is offered to other threads.
const LOOKS: usize = 64;

/// Calls `task` with each of `0..tasks`, from all threads of the pool, `grain` at a time. Each thread begins with its own part of them, the
/// same in every launch, since what it wrote before is in its caches, and goes on with what is left of the others'. Returns when all are done.
pub(super) fn each(tasks: usize, grain: usize, task: impl Fn(usize) + Sync) {
    let grain = grain.max(1);
    let threads = rayon::current_num_threads().min(tasks.div_ceil(grain));
    if threads < 2 {
        return (0..tasks).for_each(task);
    }
    RUN.with_borrow(|run| run.iter().for_each(|awake| awake.call(threads - 1)));
    let begin = |part: usize| (part * tasks / threads).next_multiple_of(grain).min(tasks);
    let parts: SmallVec<[AtomicUsize; 16]> = (0..threads).map(|part| AtomicUsize::new(begin(part))).collect();
    let busy = AtomicUsize::new(threads - 1);
    let work = || {
        let own = rayon::current_thread_index().unwrap_or(0);
        for part in (own..own + threads).map(|part| part % threads) {
            let end = begin(part + 1);
            loop {
                let first = parts[part].fetch_add(grain, Ordering::Relaxed);
                if first >= end {
                    break;
                }
                (first..(first + grain).min(end)).for_each(&task);
            }
        }
    };
    rayon::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| {
                let _done = Done(&busy, WORKS.replace(true));
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

/// Counts a thread's tasks as done when dropped, a panic included. With whether it was at others' before.
struct Done<'a>(&'a AtomicUsize, bool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        WORKS.set(self.1);
        self.0.fetch_sub(1, Ordering::Release);
    }
}

thread_local! {
    /// The run that this thread is at.
    static RUN: RefCell<Option<Arc<Awake>>> = const { RefCell::new(None) };
    /// Whether this thread is at a launch's tasks.
    static WORKS: Cell<bool> = const { Cell::new(false) };
}

/// How long a thread looks without seeing to what it may have left for it.
const TURN: Duration = Duration::from_millis(1);

/// Keeps the threads of a pool looking for tasks while runs last that have shared some: between two launches a thread that is asleep
/// would be woken too late to be of use.
#[derive(Default)]
pub(super) struct Awake {
    runs: AtomicUsize,
    lookers: AtomicUsize,
}

impl Awake {
    /// Calls `run`, on a thread of the pool.
    pub fn during<R>(self: &Arc<Self>, run: impl FnOnce() -> R) -> R {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let _over = Over { awake: self, before: RUN.replace(Some(self.clone())) };
        run()
    }

    /// Lets so many threads look, where none does.
    fn call(self: &Arc<Self>, threads: usize) {
        let looking = self.lookers.compare_exchange(0, threads, Ordering::Relaxed, Ordering::Relaxed);
        for _ in 0..if looking.is_ok() { threads } else { 0 } {
            let awake = self.clone();
            rayon::spawn(move || awake.turn());
        }
    }

    /// Looks for tasks until all runs are over, or [`TURN`] is: a thread that waits within a run or a task comes here too, and must not
    /// wait for what waits for it. Where that is seen it goes back at once.
    fn turn(self: Arc<Self>) {
        let is_free = RUN.with_borrow(Option::is_none) && !WORKS.get();
        if is_free {
            let began = Instant::now();
            look(|| self.runs.load(Ordering::Relaxed) == 0 || began.elapsed() > TURN);
            if self.runs.load(Ordering::Relaxed) > 0 {
                return rayon::spawn(move || self.turn());
            }
        }
        self.lookers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends a run when dropped.
struct Over<'a> {
    awake: &'a Awake,
    /// The run that this thread was at before.
    before: Option<Arc<Awake>>,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        RUN.set(self.before.take());
        self.awake.runs.fetch_sub(1, Ordering::Relaxed);
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
    use rayon::prelude::*;

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

    /// Runs within runs and beside each other end, and nobody looks on after the last.
    #[test]
    fn threads_look_while_runs_last() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let awake = Arc::new(Awake::default());
        let sum = AtomicUsize::new(0);
        let add = |i: usize| drop(sum.fetch_add(i, Ordering::Relaxed).to_string());
        // Tasks that wait for others', of both kinds.
        let shared = || {
            each(30, 1, |i| {
                rayon::join(|| each(4, 1, |_| add(i)), || (0..8usize).into_par_iter().for_each(|_| add(1)));
            });
            (0..30usize).into_par_iter().for_each(|_| each(2, 1, |_| add(1)));
        };
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.install(|| awake.during(|| awake.during(shared)));
                        pool.install(|| awake.during(shared));
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 3 * 200 * 2 * (4 * 435 + 8 * 30 + 60));
        let run = || pool.install(|| awake.during(|| each(64, 1, |i| assert!(i != 40, "task 40"))));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        while awake.lookers.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        assert_eq!(awake.runs.load(Ordering::Relaxed), 0);
        assert!(pool.broadcast(|_| RUN.with_borrow(Option::is_none)).into_iter().all(|free| free));
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
