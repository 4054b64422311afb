//! The lock-free parts of the pool under loom: every order of their steps, and every value that the memory model lets a load see.

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;

use lockfree::{Chained, Slots, Stack, put};

#[path = "../src/memory/lockfree.rs"]
mod lockfree;

mod sync {
    pub use loom::sync::atomic::{AtomicPtr, Ordering};
}

/// What only its owner may touch: loom finds two that do, and one that nobody owns any more.
struct Item {
    used: UnsafeCell<u32>,
    lost: Arc<()>,
    link: *mut Item,
}

// SAFETY: whoever holds the box owns it.
unsafe impl Send for Item {}

impl Item {
    fn new() -> Box<Self> {
        Box::new(Item { used: UnsafeCell::new(0), lost: Arc::new(()), link: std::ptr::null_mut() })
    }

    /// Uses it, as its only owner; how often it was used before.
    fn touch(&self) -> u32 {
        // SAFETY: loom fails where another's use is not ordered before or after this one.
        let used = self.used.with_mut(|used| unsafe { std::mem::replace(&mut *used, *used + 1) });
        assert!(Arc::strong_count(&self.lost) == 1);
        used
    }
}

impl Chained for Item {
    fn link(&mut self) -> &mut *mut Self {
        &mut self.link
    }
}

fn keep(slots: &Slots<Item>, item: Box<Item>) -> Option<Box<Item>> {
    // SAFETY: the slots outlive the call.
    unsafe { put(slots, item) }.err()
}

/// Goes through all orders of steps in which threads are interrupted at most so often.
fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut orders = loom::model::Builder::new();
    orders.preemption_bound = Some(3);
    orders.check(run);
}

/// Runs the same here and on another thread; what both gave.
fn threads<R: Send + 'static>(run: impl Fn() -> R + Send + Clone + 'static) -> [R; 2] {
    let other = thread::spawn(run.clone());
    [run(), other.join().unwrap()]
}

#[test]
fn a_cached_block_goes_to_one_of_those_who_want_it() {
    model(|| {
        let slots = Arc::new(Slots::new());
        assert!(keep(&slots, Item::new()).is_none());
        let shared = slots.clone();
        let got = threads(move || shared.drain().next().inspect(|item| assert_eq!(item.touch(), 0)).is_some());
        assert_eq!(got.into_iter().filter(|g| *g).count(), 1);
    });
}

#[test]
fn a_block_comes_back_while_another_takes_it_again() {
    model(|| {
        let slots = Arc::new(Slots::new());
        assert!(keep(&slots, Item::new()).is_none());
        let shared = slots.clone();
        let uses = threads(move || {
            let Some(item) = shared.drain().next() else { return 0 };
            item.touch();
            assert!(keep(&shared, item).is_none());
            1
        });
        let left: Vec<_> = slots.drain().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].touch(), uses.into_iter().sum::<u32>());
    });
}

#[test]
fn a_closed_cache_holds_nothing() {
    model(|| {
        let slots = Arc::new(Slots::new());
        let shared = slots.clone();
        let returning = thread::spawn(move || keep(&shared, Item::new()).inspect(|item| assert_eq!(item.touch(), 0)).is_some());
        let taken = slots.close().inspect(|item| assert_eq!(item.touch(), 0)).count();
        let refused = returning.join().unwrap();
        assert_eq!(taken + usize::from(refused), 1);
        assert_eq!(slots.drain().count(), 0);
    });
}

/// What the pool does with returned blocks: whoever cannot get the lock leaves them to its holder.
fn reap(stack: &Stack<Item>, heap: &Mutex<u32>) {
    while !stack.is_empty() {
        let Ok(mut heap) = heap.try_lock() else { return };
        let taken: Vec<_> = stack.take().collect();
        taken.iter().for_each(|item| assert_eq!(item.touch(), 0));
        *heap += taken.len() as u32;
        drop(heap);
    }
}

#[test]
fn returned_blocks_reach_the_heap_once() {
    model(|| {
        let (stack, heap) = (Arc::new(Stack::new()), Arc::new(Mutex::new(0)));
        let shared = (stack.clone(), heap.clone());
        threads(move || {
            shared.0.push(Item::new());
            reap(&shared.0, &shared.1);
        });
        reap(&stack, &heap);
        assert_eq!(*heap.lock().unwrap(), 2);
    });
}
