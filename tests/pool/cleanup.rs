//! What is given back, moved and asked for when memory is short.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use halfbyte::memory::provider::host::HostMemory;
use halfbyte::memory::provider::software::SoftwareStreams;
use halfbyte::memory::provider::virtual_device::VirtualDevice;
use halfbyte::memory::{Block, Cause, Movable, Options, Pages, Part, Pool, Provider, Rung, StreamId, Use, Weights};

const MIB: u64 = 1 << 20;
const UNIT: u64 = 2 * MIB;

fn device(capacity: u64, granularity: Option<u64>) -> Arc<VirtualDevice> {
    Arc::new(VirtualDevice::new(capacity, granularity, SoftwareStreams::immediate()))
}

fn pool(device: Arc<dyn Provider>) -> Pool {
    Pool::new(device, Options { wait: Duration::from_millis(20), ..Options::default() })
}

/// Every second of `n` blocks of a size that is no multiple of the granule.
fn every_second(pool: &Pool, n: usize, bytes: u64) -> Vec<Block> {
    let arena = pool.arena(pool.account(), StreamId(0));
    let mut all: Vec<Option<Block>> = (0..n).map(|_| Some(arena.block(bytes).unwrap())).collect();
    (0..n).filter_map(|i| all[i].take().filter(|_| i % 2 == 0)).collect()
}

#[test]
fn after_a_spike_and_idle_time_one_watermark_stays() {
    for granularity in [Some(UNIT), None] {
        let pool = pool(device(1 << 34, granularity));
        let arena = pool.arena(pool.account(), StreamId(0));
        let base = arena.block(10 * UNIT).unwrap();
        drop((0..100).map(|i| arena.block(UNIT + i * 7000).unwrap()).collect::<Vec<_>>());
        let (spike, start) = (pool.stats(), Instant::now());
        assert!(spike.reserved_bytes > 100 * UNIT);
        for seconds in [11, 22, 33] {
            pool.maintain(start + Duration::from_secs(seconds)).unwrap();
        }
        let stats = pool.stats();
        println!("{granularity:?}: {} MiB reserved, {} live", stats.reserved_bytes / MIB, stats.live_bytes / MIB);
        let watermark = Options::default().keep_bytes;
        // A slab or granule that is partly in use stays whole.
        let whole = if granularity.is_some() { UNIT } else { 2 * UNIT };
        assert!(stats.reserved_bytes <= stats.live_bytes + watermark + whole, "{stats:?}");
        drop(base);
        // What comes back within the time stays: no calls of the driver.
        let before = pool.stats().calls.memory();
        for i in 0..50 {
            drop(arena.block(UNIT / 2).unwrap());
            pool.maintain(start + Duration::from_secs(34 + i / 10)).unwrap();
        }
        assert_eq!(pool.stats().calls.memory(), before);
    }
}

#[test]
fn defragmenting_leaves_all_whole_granules_in_one_piece() {
    let pool = pool(device(1 << 34, Some(UNIT)));
    let kept = every_second(&pool, 64, 5 * UNIT + 4096);
    let before = pool.stats();
    pool.defragment().unwrap();
    let after = pool.stats();
    println!("{} of {} MiB free in one piece", after.largest_free_bytes / MIB, after.free_bytes / MIB);
    assert_eq!(after.reserved_bytes, before.reserved_bytes);
    // A granule that a live block touches cannot move: at most one on each side of each.
    assert!(after.free_bytes - after.largest_free_bytes <= kept.len() as u64 * 2 * UNIT);
    let calls = after.calls.memory();
    let arena = pool.arena(pool.account(), StreamId(0));
    let whole = arena.block(after.largest_free_bytes).unwrap();
    assert_eq!(pool.stats().calls.memory(), calls, "it is mapped already");
    drop((whole, kept));
    // Blocks of whole granules leave nothing behind: all that is free is one piece.
    let aligned = every_second(&pool, 64, 5 * UNIT);
    pool.defragment().unwrap();
    let stats = pool.stats();
    assert!(stats.free_bytes > 0 && stats.fragmentation() == 0.0, "{stats:?}");
    drop(aligned);
    pool.check().unwrap();
}

#[test]
fn movable_blocks_move_with_their_bytes_where_nothing_can_be_remapped() {
    let host = Arc::new(HostMemory::new(1 << 30, None, SoftwareStreams::delayed(5)).unwrap());
    let pool = pool(host.clone());
    let blocks = every_second(&pool, 256, 80_000);
    let pattern = |i: usize| [i as u8, 1, 2, 3].repeat(20_000);
    for (i, block) in blocks.iter().enumerate() {
        HostMemory::write(block.address(), &pattern(i)).unwrap();
    }
    let movable: Vec<Movable> = blocks.into_iter().map(Movable::new).collect();
    let before = pool.stats();
    {
        let mut launch = pool.launch(StreamId(0));
        let told: Vec<u64> = movable.iter().map(|m| launch.bind_movable(m).unwrap()).collect();
        pool.defragment().unwrap();
        let now: Vec<u64> = movable.iter().map(|m| launch.bind_movable(m).unwrap()).collect();
        assert_eq!(now, told, "a launch under way was told these addresses");
    }
    pool.defragment().unwrap();
    pool.trim(0).unwrap();
    let after = pool.stats();
    println!("{} -> {} KiB reserved, {} copies", before.reserved_bytes >> 10, after.reserved_bytes >> 10, after.calls.copy);
    assert!(after.calls.copy > 20 && after.reserved_bytes < before.reserved_bytes * 3 / 4, "{after:?}");
    while host.counts().software().step() {}
    let mut read = vec![0; 80_000];
    for (i, block) in movable.iter().enumerate() {
        let mut launch = pool.launch(StreamId(0));
        HostMemory::read(launch.bind_movable(block).unwrap(), &mut read).unwrap();
        assert_eq!(read, pattern(i), "block {i}");
    }
    pool.check().unwrap();
}

#[test]
fn the_place_that_a_block_left_is_free_behind_the_copy() {
    let device = Arc::new(VirtualDevice::new(1 << 30, None, SoftwareStreams::delayed(2)));
    let pool = Pool::new(device.clone(), Options { wait: Duration::ZERO, ..Options::default() });
    let movable: Vec<Movable> = every_second(&pool, 256, 80_000).into_iter().map(Movable::new).collect();
    let pending = || {
        let blocks = pool.snapshot().segments.into_iter().flat_map(|s| s.blocks);
        blocks.filter(|b| b.usage == Use::Pending).map(|b| b.bytes).sum::<u64>()
    };
    assert_eq!(pending(), 0);
    pool.defragment().unwrap();
    let copied = pool.stats().calls.copy * 80_000;
    assert!(copied > 0 && pending() >= copied, "{} bytes pending, {copied} copied", pending());
    while device.software().step() {}
    assert_eq!(pending(), 0);
    drop(movable);
}

#[test]
fn the_owner_is_asked_in_order_and_the_error_tells_what_was_tried() {
    let pool = pool(device(64 * MIB, Some(UNIT)));
    let arena = pool.arena(pool.account(), StreamId(0));
    let (cache, asked) = (Arc::new(Mutex::new(vec![arena.block(40 * MIB).unwrap()])), Arc::new(AtomicUsize::new(0)));
    for rung in [Rung::UnloadIdle, Rung::EvictCaches] {
        let (cache, asked) = (cache.clone(), asked.clone());
        let relief = move |s: &halfbyte::memory::Shortage| {
            asked.fetch_add(1, Ordering::Relaxed);
            assert!(s.rung == rung && s.needed_bytes >= 30 * MIB && s.account == "virtual");
            rung == Rung::UnloadIdle && cache.lock().unwrap().pop().is_some()
        };
        pool.on_shortage(rung, Box::new(relief));
    }
    let block = arena.block(30 * MIB).unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 2, "results before models");
    let error = arena.block(60 * MIB).unwrap_err();
    assert_eq!((error.cause.clone(), error.needed_bytes, error.available_bytes), (Cause::Device, 60 * MIB, 34 * MIB));
    let tried = |rung| error.rungs.iter().find(|r| r.rung == rung).unwrap().tried;
    assert!([Rung::Settle, Rung::Grow, Rung::Remap, Rung::Wait, Rung::Trim, Rung::Compact].into_iter().all(|r| tried(r) > 0));
    println!("{error}");
    assert!(matches!(halfbyte::Error::from(error), halfbyte::Error::OutOfMemory { .. }));
    drop(block);
}

#[test]
fn requests_beyond_all_addresses_are_refused() {
    for granularity in [Some(2 << 20), None] {
        let pool = pool(device(1 << 30, granularity));
        let arena = pool.arena(pool.account(), StreamId(0));
        for bytes in [u64::MAX, u64::MAX - 255, 1 << 63, (1 << 52) + 1, 1 << 52, 1 << 40] {
            assert!(arena.block(bytes).is_err(), "{granularity:?}: {bytes}");
            assert!(arena.aligned(bytes, 1 << 21).is_err(), "{granularity:?}: {bytes} aligned");
        }
        assert_eq!((pool.account().used_bytes(), pool.check()), (0, Ok(())));
        assert!(arena.block(1000).is_ok());
    }
}

#[test]
fn every_number_of_a_stream_is_one() {
    let device = Arc::new(VirtualDevice::new(64 * MIB, Some(UNIT), SoftwareStreams::delayed(1)));
    let pool = pool(device.clone());
    for stream in [0, 32764, 32767, u16::MAX].map(StreamId) {
        let arena = pool.arena(pool.account(), stream);
        for bytes in [3 * MIB, 1000] {
            let block = arena.block(bytes).unwrap();
            let mut launch = pool.launch(stream);
            launch.bind(&block).unwrap();
            device.software().submit(stream, || {});
            launch.submit().unwrap();
        }
        let pending = pool.snapshot().segments.into_iter().flat_map(|s| s.blocks).filter(|b| b.usage == Use::Pending);
        assert!(pending.filter(|b| b.bytes >= 3 * MIB).all(|b| b.stream == Some(stream)));
        while device.software().step() {}
        pool.check().unwrap();
    }
}

#[test]
fn accounts_hold_models_and_requests_to_their_limits() {
    let pool = pool(device(1 << 30, Some(UNIT)));
    let model = pool.account().child("bert", 10 * MIB);
    let request = model.child("42", 6 * MIB);
    let (weights, work) = (pool.arena(&model, StreamId(0)), pool.arena(&request, StreamId(0)));
    let block = work.block(5 * MIB).unwrap();
    let error = work.block(2 * MIB).unwrap_err();
    assert_eq!(error.cause, Cause::Account { name: "virtual/bert/42".into(), limit_bytes: 6 * MIB });
    let error = weights.block(6 * MIB).unwrap_err();
    assert_eq!(error.cause, Cause::Account { name: "virtual/bert".into(), limit_bytes: 10 * MIB });
    assert_eq!((request.used_bytes(), model.used_bytes(), pool.account().used_bytes()), (5 * MIB, 5 * MIB, 5 * MIB));
    drop(block);
    drop(weights.block(10 * MIB).unwrap());
    pool.trim(0).unwrap();
    assert_eq!((model.used_bytes(), model.peak_bytes(), request.peak_bytes()), (0, 10 * MIB, 5 * MIB));
}

#[test]
fn pages_and_weights_share_blocks() {
    let pool = pool(device(1 << 30, Some(UNIT)));
    let arena = || pool.arena(pool.account(), StreamId(0));
    assert!(Pages::new(arena(), 100, 4).is_err() && Pages::new(arena(), 256, 65).is_err());
    let pages = Pages::new(arena(), 64 << 10, 64).unwrap();
    let mut held: Vec<_> = (0..200).map(|_| pages.page().unwrap()).collect();
    assert_eq!(pages.count(), (200, 256));
    let mut launch = pool.launch(StreamId(0));
    let mut addresses: Vec<u64> = held.iter().map(|p| p.bind(&mut launch).unwrap()).collect();
    addresses.sort_unstable();
    assert!(addresses.windows(2).all(|w| w[1] - w[0] >= 64 << 10));
    assert!(held[0].bind(&mut pool.launch(StreamId(1))).is_err());
    drop(launch);
    held.truncate(3);
    pages.trim(0);
    assert_eq!(pages.count(), (3, 64));
    let mut weights = Weights::new(arena(), 1 << 20);
    let parts: Vec<Part> = (0..10).map(|i| weights.push(1000 + i * 50_000).unwrap()).collect();
    let live = pool.stats().live_bytes;
    let mut launch = pool.launch(StreamId(0));
    let mut ranges: Vec<(u64, u64)> = parts.iter().map(|p| (launch.bind_part(p).unwrap(), p.bytes())).collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0) && ranges.iter().all(|r| r.0 % 256 == 0));
    assert!(Part::of(&Arc::new(arena().block(10).unwrap()), 8, 3).is_err());
    println!("{live} bytes live");
    drop(launch);
    drop((parts, weights, held, pages));
    assert_eq!(pool.stats().live_bytes, 0);
}

#[test]
fn blocks_outlive_their_pool_and_come_back_from_any_thread() {
    let device = device(1 << 30, Some(UNIT));
    let pool = pool(device.clone());
    let arena = pool.arena(pool.account(), StreamId(0));
    let blocks: Vec<Block> = (0..64).map(|i| arena.block(300 << (i % 14)).unwrap()).collect();
    drop((pool, arena));
    assert!(device.used_bytes().0 > 0);
    std::thread::spawn(move || drop(blocks)).join().unwrap();
    assert_eq!(device.used_bytes().0, 0, "the last block takes the pool along");
}

#[test]
fn a_pool_that_ends_leaves_memory_to_the_work_that_uses_it() {
    for wait in [Duration::ZERO, Duration::from_secs(1)] {
        let device = Arc::new(VirtualDevice::new(1 << 30, Some(UNIT), SoftwareStreams::delayed(3)));
        let pool = Pool::new(device.clone(), Options { wait, ..Options::default() });
        let block = pool.arena(pool.account(), StreamId(0)).block(UNIT).unwrap();
        let (mapped, works, address) = (Arc::new(AtomicUsize::new(0)), device.clone(), block.address());
        let seen = mapped.clone();
        let mut launch = pool.launch(StreamId(0));
        launch.bind(&block).unwrap();
        let work = move || _ = seen.fetch_add(usize::from(works.translate(address, UNIT).is_some()), Ordering::Relaxed);
        device.software().submit(StreamId(0), work);
        launch.submit().unwrap();
        drop((block, pool));
        let kept = device.used_bytes().0;
        while device.software().step() {}
        assert_eq!(mapped.load(Ordering::Relaxed), 1, "the work found its memory");
        assert_eq!(kept > 0, wait.is_zero(), "it is kept only where the work did not end in time");
    }
}

#[test]
fn threads_share_an_arena() {
    let device = device(1 << 32, Some(UNIT));
    let pool = pool(device.clone());
    let arena = pool.arena(pool.account(), StreamId(0));
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let arena = &arena;
            scope.spawn(move || {
                let mut random = halfbyte::base::xorshift::Xorshift::new(seed);
                let mut held: Vec<Block> = Vec::new();
                for _ in 0..20_000 {
                    match random.below(2) {
                        0 => held.push(arena.block(1 + random.below(100) as u64 * 2000).unwrap()),
                        _ if !held.is_empty() => drop(held.swap_remove(random.below(held.len()))),
                        _ => {}
                    }
                }
            });
        }
    });
    pool.check().unwrap();
    assert_eq!((pool.stats().live_bytes, pool.stats().padding_bytes), (0, 0));
    drop((arena, pool));
    assert_eq!(device.used_bytes().0, 0);
}

#[test]
fn what_is_paid_for_besides_blocks_climbs_the_same_ladder() {
    let pool = pool(device(1 << 30, Some(UNIT)));
    let model = pool.account().child("bert", 10 * MIB);
    let cache = Arc::new(Mutex::new(Some(pool.arena(&model, StreamId(0)).block(4 * MIB).unwrap())));
    let idle = cache.clone();
    let relief = move |s: &halfbyte::memory::Shortage| {
        assert!([8 * MIB, 3 * MIB].contains(&s.needed_bytes) && s.account == "virtual/bert");
        idle.lock().unwrap().take().is_some()
    };
    pool.on_shortage_of(&model, Rung::UnloadIdle, Box::new(relief));
    let paid = pool.pay(&model, 8 * MIB).unwrap();
    assert!(cache.lock().unwrap().is_none());
    assert_eq!((model.used_bytes(), pool.account().used_bytes()), (8 * MIB, 8 * MIB));
    pool.record(8);
    let error = pool.pay(&model, 3 * MIB).unwrap_err();
    assert_eq!(error.cause, Cause::Account { name: "virtual/bert".into(), limit_bytes: 10 * MIB });
    assert!(error.snapshot.timeline.iter().any(|e| e.kind == halfbyte::memory::EventKind::OutOfMemory));
    drop(paid);
    assert_eq!((model.used_bytes(), pool.account().used_bytes()), (0, 0));
}
