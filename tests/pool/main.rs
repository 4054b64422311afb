//! The pool against naive models, on a counting device and on real memory, with streams that lag behind.

mod cleanup;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod cuda;
mod faulty;
mod shadow;
mod snapshot;
mod window;
mod world;

use faulty::Fault;
use halfbyte::memory::provider::host::HostMemory;
use halfbyte::memory::provider::software::SoftwareStreams;
use halfbyte::memory::provider::virtual_device::VirtualDevice;
use world::{Device, World};

const GRANULE: u64 = 16 << 10;

fn counting(granularity: Option<u64>) -> impl Fn(u64) -> VirtualDevice {
    move |seed| VirtualDevice::new(160 * GRANULE, granularity, SoftwareStreams::delayed(seed))
}

fn host(granularity: Option<u64>) -> impl Fn(u64) -> HostMemory {
    move |seed| HostMemory::new(160 * GRANULE, granularity, SoftwareStreams::delayed(seed)).unwrap()
}

/// How many worlds a test of random use plays: `HALFBYTE_WORLDS`, or so many.
fn rounds(usual: u64) -> u64 {
    std::env::var("HALFBYTE_WORLDS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// `rounds` worlds of `operations` each; the first error.
fn worlds<D: Device>(device: impl Fn(u64) -> D, rounds: u64, operations: usize, fault: Fault) -> Result<(), String> {
    for seed in 0..rounds {
        let mut world = World::new(device(seed), GRANULE, seed, fault);
        world.run(operations).map_err(|e| format!("seed {seed}: {e}"))?;
        println!("seed {seed}: {} requests refused, {} served behind windows", world.refused, world.windows());
        world.end().map_err(|e| format!("seed {seed}, at the end: {e}"))?;
    }
    Ok(())
}

#[test]
fn random_use_of_a_mapping_device() {
    worlds(counting(Some(GRANULE)), rounds(10), 100_000, Fault::None).unwrap();
}

#[test]
fn random_use_of_a_device_of_slabs() {
    worlds(counting(None), rounds(10), 100_000, Fault::None).unwrap();
}

#[test]
fn random_use_of_real_memory_mapped() {
    worlds(host(Some(GRANULE)), rounds(4), 50_000, Fault::None).unwrap();
}

#[test]
fn random_use_of_real_memory_in_slabs() {
    worlds(host(None), rounds(4), 50_000, Fault::None).unwrap();
}

#[test]
fn what_a_driver_refuses_is_not_lost() {
    worlds(counting(Some(GRANULE)), 4, 50_000, Fault::Refuses).unwrap();
    worlds(counting(None), 4, 50_000, Fault::Refuses).unwrap();
}

#[test]
fn every_lie_of_a_driver_is_seen() {
    for fault in [Fault::DoneEarly, Fault::NoWait, Fault::MapTwice] {
        let found = worlds(counting(Some(GRANULE)), 4, 50_000, fault);
        println!("{fault:?}: {found:?}");
        assert!(found.is_err(), "{fault:?} was not seen on the counting device");
    }
    for fault in [Fault::DoneEarly, Fault::NoWait] {
        assert!(worlds(counting(None), 4, 50_000, fault).is_err(), "{fault:?} was not seen on slabs");
    }
    if cfg!(target_os = "linux") {
        for fault in [Fault::DoneEarly, Fault::NoWait, Fault::MapTwice, Fault::NoAccess] {
            let found = worlds(host(Some(GRANULE)), 8, 50_000, fault);
            println!("{fault:?} on real memory: {found:?}");
            assert!(found.is_err(), "{fault:?} was not seen on real memory");
        }
    }
}
