//! Blocks of memory that lies apart, behind second addresses.

use std::sync::Arc;

use halfbyte::memory::provider::Provider;
use halfbyte::memory::provider::host::HostMemory;
use halfbyte::memory::provider::software::SoftwareStreams;
use halfbyte::memory::provider::virtual_device::VirtualDevice;
use halfbyte::memory::{Arena, Block, Options, Pool, Rung, StreamId, Use};

use crate::GRANULE;
use crate::faulty::{Fault, Faulty};

/// Full of blocks of a granule and a half, every second of them freed: half of all is free, no more than a granule and a half in one piece.
fn fragmented(device: Arc<dyn Provider>) -> (Pool, Arena, Vec<Block>) {
    let options = Options { handle_part: 1 << 20, wait: std::time::Duration::ZERO, ..Options::default() };
    let pool = Pool::new(device, options);
    let arena = pool.arena(pool.account(), StreamId(0));
    let mut all: Vec<Option<Block>> = (0..40).map(|_| Some(arena.block(GRANULE * 3 / 2).unwrap())).collect();
    let kept = (0..40).filter_map(|i| all[i].take().filter(|_| i % 2 == 0)).collect();
    (pool, arena, kept)
}

fn helped(pool: &Pool, rung: Rung) -> u64 {
    pool.stats().rungs.iter().find(|r| r.rung == rung).unwrap().helped
}

#[test]
fn a_window_is_mapped_once_for_all_requests_that_its_memory_has_room_for() {
    let device = Arc::new(VirtualDevice::new(60 * GRANULE, Some(GRANULE), SoftwareStreams::immediate()));
    let (pool, arena, kept) = fragmented(device.clone());
    let before = pool.stats();
    let wide = arena.block(8 * GRANULE + 300).unwrap();
    let first = pool.stats();
    assert_eq!((first.calls.unmap, first.calls.create), (before.calls.unmap, before.calls.create), "nothing is moved or taken");
    assert_eq!(first.calls.map - before.calls.map, 9, "a handle each");
    assert_eq!((first.reserved_bytes, helped(&pool, Rung::Remap)), (before.reserved_bytes, 1));
    assert_eq!(first.live_bytes, 20 * GRANULE * 3 / 2 + 8 * GRANULE + 512);
    drop(wide);
    for bytes in [8 * GRANULE, 3 * GRANULE, 8 * GRANULE + 300] {
        drop(arena.block(bytes).unwrap());
    }
    assert_eq!(pool.stats().calls.memory(), first.calls.memory());
    assert_eq!(helped(&pool, Rung::Window), 3);
    // A larger one adds to it what is missing.
    let wider = arena.block(10 * GRANULE).unwrap();
    assert_eq!((pool.stats().calls.map - first.calls.map, pool.stats().calls.unmap), (1, first.calls.unmap));
    pool.check().unwrap();
    drop((wider, kept));
    pool.trim(0).unwrap();
    assert_eq!((pool.stats().reserved_bytes, device.used_bytes().0), (0, 0), "windows keep no memory");
}

#[test]
fn a_block_behind_a_window_has_its_bytes_and_an_owner() {
    if cfg!(not(target_os = "linux")) {
        return;
    }
    let host = Arc::new(HostMemory::new(60 * GRANULE, Some(GRANULE), SoftwareStreams::immediate()).unwrap());
    let (pool, arena, kept) = fragmented(host.clone());
    let fill = |block: &Block, byte: u8| HostMemory::write(block.address(), &vec![byte; block.bytes() as usize]).unwrap();
    kept.iter().enumerate().for_each(|(i, block)| fill(block, i as u8));
    let wides: Vec<Block> = (0..3).map(|_| arena.block(4 * GRANULE + 700).unwrap()).collect();
    wides.iter().enumerate().for_each(|(i, block)| fill(block, 100 + i as u8));
    assert!(helped(&pool, Rung::Remap) > 0);
    let snapshot = pool.snapshot();
    let live = |b: &&halfbyte::memory::SnapshotBlock| b.usage == Use::Live && b.owner.is_some();
    let told: u64 = snapshot.segments.iter().flat_map(|s| &s.blocks).filter(live).map(|b| b.bytes).sum();
    assert_eq!((told, snapshot.owners[0].live_bytes), (snapshot.stats.live_bytes, snapshot.stats.live_bytes));
    assert_eq!(snapshot.owners[0].blocks, 23);
    let expected = kept.iter().zip(0..).chain(wides.iter().zip(100..));
    for (block, byte) in expected {
        let mut read = vec![0; block.bytes() as usize];
        HostMemory::read(block.address(), &mut read).unwrap();
        assert!(read.iter().all(|&b| b == byte), "{block:?}");
    }
}

#[test]
fn a_window_stays_as_long_as_work_uses_it() {
    let device = Arc::new(VirtualDevice::new(60 * GRANULE, Some(GRANULE), SoftwareStreams::delayed(1)));
    let (pool, arena, kept) = fragmented(device.clone());
    let wide = arena.block(8 * GRANULE).unwrap();
    let (address, bytes) = (wide.address(), wide.bytes());
    let mut launch = pool.launch(StreamId(0));
    launch.bind(&wide).unwrap();
    device.software().submit(StreamId(0), || {});
    launch.submit().unwrap();
    drop((wide, kept));
    pool.trim(0).unwrap();
    assert!(device.translate(address, bytes).is_some(), "the work is not done");
    while device.software().step() {}
    pool.trim(0).unwrap();
    assert!(device.translate(address, bytes).is_none());
    assert_eq!((pool.stats().reserved_bytes, device.used_bytes().0), (0, 0));
}

#[test]
fn a_window_that_the_device_refuses_leaves_nothing_behind() {
    let device = Arc::new(VirtualDevice::new(60 * GRANULE, Some(GRANULE), SoftwareStreams::immediate()));
    let (pool, arena, kept) = fragmented(Arc::new(Faulty::new(device.clone(), Fault::Refuses)));
    let mut served = 0;
    for granules in (2..12).cycle().take(60) {
        served += u32::from(arena.block(granules * GRANULE).is_ok());
        pool.check().unwrap();
    }
    assert!(served > 30, "{served}");
    drop(kept);
    (0..64).map_while(|_| pool.trim(0).err()).for_each(drop);
    pool.trim(0).unwrap();
    assert_eq!((pool.stats().reserved_bytes, device.used_bytes().0), (0, 0));
}
