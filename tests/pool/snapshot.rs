//! What a pool tells about itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use halfbyte::memory::provider::software::SoftwareStreams;
use halfbyte::memory::provider::virtual_device::VirtualDevice;
use halfbyte::memory::{EventKind, Options, Pool, Snapshot, StreamId, TorchSnapshot, Use};

/// Live blocks by address, as the timeline tells them.
fn replayed(snapshot: &Snapshot) -> BTreeMap<u64, u64> {
    let mut live = BTreeMap::new();
    for event in &snapshot.timeline {
        match event.kind {
            EventKind::Alloc => assert_eq!(live.insert(event.address, event.bytes), None),
            EventKind::Free => assert_eq!(live.remove(&event.address), Some(event.bytes)),
            _ => {}
        }
    }
    live
}

#[test]
fn a_snapshot_names_every_byte_and_its_owner() {
    for granularity in [Some(2 << 20), None] {
        let device = VirtualDevice::new(1 << 30, granularity, SoftwareStreams::delayed(1));
        let pool = Pool::new(Arc::new(device), Options { timeline: 10_000, wait: Default::default(), ..Options::default() });
        let model = pool.account().child("bert", u64::MAX);
        let arenas = [pool.arena(pool.account(), StreamId(0)), pool.arena(&model, StreamId(1))];
        let mut blocks: Vec<_> = (0..200).map(|i| arenas[i % 2].block(1000 + i as u64 * 9000).unwrap()).collect();
        let mut launch = pool.launch(StreamId(0));
        launch.bind(&blocks[100]).unwrap();
        launch.submit().unwrap();
        for i in (0..100).rev() {
            drop(blocks.swap_remove(2 * i));
        }
        let snapshot = pool.snapshot();
        let all = || snapshot.segments.iter().flat_map(|s| &s.blocks);
        let sum = |usage| all().filter(|b| b.usage == usage).map(|b| b.bytes).sum::<u64>();
        assert_eq!(snapshot.segments.iter().map(|s| s.bytes).sum::<u64>(), snapshot.stats.reserved_bytes);
        assert_eq!(sum(Use::Live), snapshot.stats.live_bytes);
        assert!(sum(Use::Pending) > 900_000, "the launch on stream 0 is not done");
        assert_eq!(sum(Use::Pending) + sum(Use::Free), snapshot.stats.free_bytes);
        for segment in &snapshot.segments {
            let ends = segment.blocks.iter().map(|b| b.address + b.bytes);
            let starts = segment.blocks.iter().skip(1).map(|b| b.address).chain([segment.address + segment.bytes]);
            assert!(ends.eq(starts), "blocks lie end to end");
        }
        assert!(snapshot.owners.iter().all(|o| o.account == "virtual/bert") && snapshot.owners[0].blocks == 100);
        let live: BTreeMap<u64, u64> = all().filter(|b| b.usage == Use::Live).map(|b| (b.address, b.bytes)).collect();
        assert_eq!(replayed(&snapshot), live);
        let torch = TorchSnapshot::of(std::slice::from_ref(&snapshot));
        assert_eq!(torch.segments.iter().map(|s| s.allocated_size).sum::<u64>(), snapshot.stats.live_bytes);
        assert_eq!(torch.device_traces[0].iter().filter(|e| e.action == "alloc").count(), 200);
        let error = arenas[0].block(1 << 31).unwrap_err();
        assert_eq!(error.snapshot.segments, pool.snapshot().segments);
        assert_eq!(error.snapshot.timeline.last().map(|e| (e.kind, e.bytes)), Some((EventKind::OutOfMemory, 1 << 31)));
        drop(blocks);
        assert_eq!(pool.snapshot().owners, [], "nobody leaks");
    }
}
