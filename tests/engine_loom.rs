//! The engine's reply slot and its door under loom: every order of their steps, and every value that the memory model lets a load see.

use std::sync::Arc as StdArc;
use std::task::{Wake, Waker};

use door::Door;
use loom::sync::{Arc, Notify};
use loom::thread;
use slot::{Receiver, Sender, slot};

// Loom knows no time: a nap is a moment without the lock here.
#[allow(dead_code)]
#[path = "../src/serve/engine/door.rs"]
mod door;
#[path = "../src/serve/engine/slot.rs"]
mod slot;

mod sync {
    pub use loom::cell::UnsafeCell;
    pub use loom::sync::atomic::{AtomicU8, Ordering};
    pub use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
}

/// Who waits: loom finds the order of steps in which nobody wakes it.
struct Waiter(Notify);

impl Wake for Waiter {
    fn wake(self: StdArc<Self>) {
        self.0.notify();
    }
}

fn waiter() -> (StdArc<Waiter>, Waker) {
    let waiter = StdArc::new(Waiter(Notify::new()));
    (waiter.clone(), Waker::from(waiter))
}

fn send<T>(sender: Sender<T>, value: T) {
    if let Some(waker) = sender.send(value) {
        waker.wake();
    }
}

fn wait<T>(receiver: &mut Receiver<T>) -> T {
    let (waiter, waker) = waiter();
    loop {
        if let Some(value) = receiver.poll(&waker) {
            return value;
        }
        waiter.0.wait();
    }
}

#[test]
fn a_reply_arrives_once_and_wakes_who_waits() {
    loom::model(|| {
        let (sender, mut receiver) = slot();
        let other = thread::spawn(move || send(sender, Box::new(7)));
        assert_eq!(*wait(&mut receiver), 7);
        assert!(receiver.is_done() && receiver.take().is_none());
        other.join().unwrap();
    });
}

#[test]
fn a_reply_is_taken_by_who_looks_without_waiting() {
    loom::model(|| {
        let (sender, mut receiver) = slot();
        let other = thread::spawn(move || send(sender, Box::new(7)));
        let value = loop {
            match receiver.take() {
                Some(value) => break value,
                None => thread::yield_now(),
            }
        };
        assert_eq!(*value, 7);
        other.join().unwrap();
    });
}

#[test]
fn the_last_waker_is_woken() {
    loom::model(|| {
        let (sender, mut receiver) = slot();
        let other = thread::spawn(move || send(sender, 7));
        // As after a timeout, or when a future has moved to another task.
        let (_, first) = waiter();
        let value = receiver.poll(&first).unwrap_or_else(|| wait(&mut receiver));
        assert_eq!(value, 7);
        other.join().unwrap();
    });
}

#[test]
fn a_reply_that_nobody_wants_goes_and_so_does_its_waker() {
    loom::model(|| {
        let (sender, mut receiver) = slot();
        let value = Arc::new(());
        let sent = value.clone();
        let other = thread::spawn(move || {
            if !sender.is_unwanted() {
                send(sender, sent);
            }
        });
        let (waiter, waker) = waiter();
        drop(receiver.poll(&waker));
        drop((receiver, waker));
        other.join().unwrap();
        assert!(Arc::strong_count(&value) == 1 && StdArc::strong_count(&waiter) == 1);
    });
}

#[test]
fn the_thread_does_not_sleep_over_work_and_who_waits_for_it_wakes() {
    let mut orders = loom::model::Builder::new();
    orders.preemption_bound = Some(3);
    orders.check(|| {
        // What is offered, what is done, and whether there will be more.
        let door = Arc::new(Door::new((0, 0, true)));
        let works = door.clone();
        let worker = thread::spawn(move || {
            let mut state = works.lock();
            while state.2 || state.0 > 0 {
                if state.0 == 0 {
                    works.is_idle(&mut state);
                    state = works.sleep(state, None);
                } else {
                    state.0 -= 1;
                    drop(state);
                    state = works.lock();
                    state.1 += 1;
                }
            }
            works.is_idle(&mut state);
        });
        let offers = door.clone();
        let offer = move || {
            let mut state = offers.lock();
            state.0 += 1;
            offers.offered(state);
        };
        let other = thread::spawn(offer.clone());
        offer();
        other.join().unwrap();
        let mut state = door.lock();
        while state.1 < 2 {
            state = door.wait_idle(state);
        }
        state.2 = false;
        door.wake(state);
        worker.join().unwrap();
    });
}

#[test]
fn who_would_sleep_works_instead_and_nothing_is_left_lying() {
    #[derive(Default)]
    struct Work {
        offered: usize,
        done: usize,
        is_taken: bool,
        served: usize,
        is_over: bool,
    }
    /// Until there is nothing, or only once.
    fn work(door: &Door<Work>, is_once: bool) {
        loop {
            let mut state = door.lock();
            let taken = std::mem::take(&mut state.offered);
            drop(state);
            let mut state = door.lock();
            state.done += taken;
            if taken == 0 || is_once {
                state.is_taken = false;
                door.is_idle(&mut state);
                if state.offered > 0 {
                    door.offered(state);
                }
                return;
            }
        }
    }
    let mut orders = loom::model::Builder::new();
    orders.preemption_bound = Some(3);
    orders.check(|| {
        let door = Arc::new(Door::new(Work::default()));
        let works = door.clone();
        let worker = thread::spawn(move || {
            let (mut seen, mut state) = (0, works.lock());
            while !state.is_over {
                if std::mem::replace(&mut seen, state.served) != state.served {
                    // A nap: nobody wakes it for an offer, and it looks again by itself.
                    drop(state);
                    state = works.lock();
                } else if state.is_taken || state.offered == 0 {
                    state = works.sleep(state, None);
                } else {
                    state.is_taken = true;
                    drop(state);
                    work(&works, false);
                    state = works.lock();
                }
            }
        });
        let calls = door.clone();
        let call = move || {
            let mut state = calls.lock();
            state.offered += 1;
            calls.offered(state);
            let mut state = calls.lock();
            if !std::mem::replace(&mut state.is_taken, true) {
                state.served += 1;
                drop(state);
                work(&calls, true);
            }
        };
        let other = thread::spawn(call.clone());
        call();
        other.join().unwrap();
        let mut state = door.lock();
        while state.done < 2 {
            state = door.wait_idle(state);
        }
        state.is_over = true;
        door.wake(state);
        worker.join().unwrap();
    });
}
