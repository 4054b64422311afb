//! `cargo bench --bench memory`: a free and an allocation among 4096 live blocks of 256 bytes to 8 MiB, beside the offset-allocator
//! crate and a best fit over a BTreeSet (the structure of PyTorch's allocator) in the same run: the heap alone, and the pool, which counts, guards
//! and charges. Ratios are printed and decide nothing.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use halfbyte::base::xorshift::Xorshift;
use halfbyte::memory::heap::{BlockId, Domain, Heap, State};
use halfbyte::memory::provider::software::SoftwareStreams;
use halfbyte::memory::provider::virtual_device::VirtualDevice;
use halfbyte::memory::replay::ranges::Ranges;
use halfbyte::memory::{self, Arena, Options, Pool, StreamId};

/// Blocks that live at once.
const LIVE: usize = 4096;
/// Memory that all allocators have: never full.
const CAPACITY: u64 = 32 << 30;
/// Sizes are multiples of this.
const UNIT: u64 = 256;
/// Steps before the sequence comes again.
const STEPS: usize = 1 << 16;

/// What is measured.
trait Allocator {
    /// What it gives out.
    type Block;
    fn alloc(&mut self, bytes: u64) -> Self::Block;
    fn free(&mut self, block: Self::Block);
}

impl Allocator for Ranges {
    type Block = u64;

    fn alloc(&mut self, bytes: u64) -> u64 {
        let (address, _) = self.best_fit(bytes).expect("invariant: memory is never full");
        self.take(address, bytes);
        address
    }

    fn free(&mut self, block: u64) {
        self.give(block);
    }
}

impl Allocator for offset_allocator::Allocator<u32> {
    type Block = offset_allocator::Allocation<u32>;

    fn alloc(&mut self, bytes: u64) -> Self::Block {
        self.allocate((bytes / UNIT) as u32).expect("invariant: memory is never full")
    }

    fn free(&mut self, block: Self::Block) {
        offset_allocator::Allocator::free(self, block);
    }
}

impl Allocator for Heap {
    type Block = BlockId;

    fn alloc(&mut self, bytes: u64) -> BlockId {
        let (_, id) = self.best_fit(Domain::READY, bytes).expect("invariant: memory is never full");
        self.carve(id, 0, bytes)
    }

    fn free(&mut self, block: BlockId) {
        self.release(block, State::Free(Domain::READY), 0);
    }
}

impl Allocator for Arena {
    type Block = memory::Block;

    fn alloc(&mut self, bytes: u64) -> memory::Block {
        self.block(bytes).expect("invariant: memory is never full")
    }

    fn free(&mut self, block: memory::Block) {
        drop(block);
    }
}

/// This crate's pool, with memory to spare as the others have.
fn arena(caching: bool) -> Arena {
    let device = VirtualDevice::new(CAPACITY, Some(2 << 20), SoftwareStreams::immediate());
    let pool = Pool::new(Arc::new(device), Options { caching, slack: 4.0, ..Options::default() });
    pool.arena(pool.account(), StreamId(0))
}

/// Sizes of the first blocks; then which block is freed and what is allocated for it: any size, or the same, of up to 1 MiB (what a cache hits).
fn steps(same: bool) -> (Vec<u64>, Vec<(usize, u64)>) {
    let mut random = Xorshift::new(1);
    let mut size = || {
        let octave = UNIT << random.below(if same { 11 } else { 15 });
        octave + UNIT * (random.below((octave / UNIT) as usize) as u64)
    };
    let first: Vec<u64> = (0..LIVE).map(|_| size()).collect();
    let sizes: Vec<u64> = (0..STEPS).map(|_| size()).collect();
    let at: Vec<usize> = (0..STEPS).map(|_| random.below(LIVE)).collect();
    let steps = at.into_iter().zip(sizes).map(|(at, bytes)| (at, if same { first[at] } else { bytes })).collect();
    (first, steps)
}

/// Nanoseconds of a free and an allocation: the best sample; infinite where a filter left the bench out.
fn pairs<A: Allocator>(c: &mut Criterion, name: &str, mut allocator: A, same: bool) -> f64 {
    let (first, steps) = steps(same);
    let mut live: Vec<Option<A::Block>> = first.into_iter().map(|bytes| Some(allocator.alloc(bytes))).collect();
    let (mut next, mut best_ns) = (0, f64::INFINITY);
    c.bench_function(name, |b| {
        b.iter_custom(|rounds| {
            let start = Instant::now();
            for _ in 0..rounds {
                let (at, bytes) = steps[next % STEPS];
                next += 1;
                live[at].take().into_iter().for_each(|block| allocator.free(block));
                live[at] = Some(black_box(allocator.alloc(bytes)));
            }
            let took = start.elapsed();
            best_ns = best_ns.min(took.as_nanos() as f64 / rounds as f64);
            took
        })
    });
    best_ns
}

fn memory(c: &mut Criterion) {
    let tree = || {
        let mut tree = Ranges::default();
        tree.add(0, CAPACITY);
        tree
    };
    let offset = || offset_allocator::Allocator::<u32>::with_max_allocs((CAPACITY / UNIT) as u32, 1 << 17);
    let heap = || {
        let mut heap = Heap::default();
        heap.add(CAPACITY, CAPACITY, State::Free(Domain::READY));
        heap
    };
    for (what, same, caching) in [("any size", false, false), ("the size that was freed", true, true)] {
        let tree_ns = pairs(c, &format!("{what}: BTreeSet"), tree(), same);
        let offset_ns = pairs(c, &format!("{what}: offset-allocator"), offset(), same);
        let heap_ns = pairs(c, &format!("{what}: halfbyte's heap"), heap(), same);
        let own_ns = pairs(c, &format!("{what}: halfbyte"), arena(caching), same);
        println!(
            "{what}: halfbyte's heap {heap_ns:.1} ns, its pool {own_ns:.1} ns; offset-allocator {offset_ns:.1} ns, {:.2} x the heap; \
             BTreeSet {tree_ns:.1} ns, {:.2} x",
            offset_ns / heap_ns,
            tree_ns / heap_ns
        );
    }
}

fn brief() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20)
}

criterion_group! { name = benches; config = brief(); targets = memory }
criterion_main!(benches);
