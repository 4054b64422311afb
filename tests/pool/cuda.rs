//! The pool over NVIDIA's driver: the real wrapper, with a library in libcuda's place that refuses all that the driver API does not
//! promise, and whose memory faults where nothing is mapped.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use halfbyte::device::Device as _;
use halfbyte::device::cuda::{Choice, Nvidia};
use halfbyte::device::gpu::{Driver, GpuDevice};
use halfbyte::hardware::{cuda, libcuda};
use halfbyte::memory::provider::host::HostMemory;
use halfbyte::memory::provider::software::SoftwareStreams;
use halfbyte::memory::provider::{Mapping, Provider, StreamId, Streams};
use halfbyte::memory::{Block, Options, Pool};
use halfbyte::{Error, Result};

use crate::faulty::Fault;
use crate::world::Device;
use crate::worlds;

#[path = "../runtime/compiled.rs"]
mod compiled;

const GRANULE: u64 = 16 << 10;
const CAPACITY: u64 = 160 * GRANULE;

/// What the library offers beside the driver's calls.
#[derive(Clone, Copy)]
struct Fake {
    device: extern "C" fn(u64, u64),
    used: extern "C" fn() -> u64,
    rows: extern "C" fn() -> u64,
    translate: extern "C" fn(u64, u64, *mut u64, u64) -> u64,
    fail: extern "C" fn(*const c_char),
    late: extern "C" fn(c_int),
}

impl Fake {
    /// Whether nothing is left of what a test took.
    fn is_empty(self) -> bool {
        ((self.used)(), (self.rows)()) == (0, 0)
    }

    /// As FAKE_CUDA_FAIL; nothing fails for an empty rule.
    fn fail(self, rule: &str) {
        (self.fail)(CString::new(rule).unwrap().as_ptr());
    }

    fn translate(self, address: u64, bytes: u64) -> Option<Vec<(u64, u64, u64)>> {
        let mut pieces = [0; 3 * 512];
        let count = (self.translate)(address, bytes, pieces.as_mut_ptr(), 512) as usize;
        (count > 0).then(|| pieces.chunks(3).take(count).map(|p| (p[0], p[1], p[2])).collect())
    }
}

/// Loaded once, before anything else asks for libcuda: the loader then takes this one for it. `None` without a C compiler.
fn loaded() -> Option<Fake> {
    static LOADED: OnceLock<Option<Fake>> = OnceLock::new();
    *LOADED.get_or_init(|| {
        let folder = compiled::library(include_str!("../runtime/fake_libcuda.c"), &[])?;
        // SAFETY: the library runs nothing when it is loaded; types are the library's, which is never unloaded.
        unsafe {
            let library = Box::leak(Box::new(libloading::Library::new(folder.path().join("libcuda.so")).unwrap()));
            Some(Fake {
                device: *library.get(b"fake_device").unwrap(),
                used: *library.get(b"fake_used").unwrap(),
                rows: *library.get(b"fake_rows").unwrap(),
                translate: *library.get(b"fake_translate").unwrap(),
                fail: *library.get(b"fake_fail").unwrap(),
                late: *library.get(b"fake_late").unwrap(),
            })
        }
    })
}

/// The library for one test at a time, as new.
fn fake() -> Option<(Fake, MutexGuard<'static, ()>)> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let fake = loaded()?;
    fake.fail("");
    (fake.late)(0);
    (fake.device)(CAPACITY, GRANULE);
    Some((fake, turn))
}

/// The driver with streams in software: its own one has no work here.
struct Cuda {
    fake: Fake,
    driver: Nvidia,
    streams: SoftwareStreams,
}

impl Cuda {
    fn new(fake: Fake, streams: SoftwareStreams) -> Self {
        let driver = Nvidia::open_with(0, Choice::Vmm).unwrap();
        assert!(driver.virtual_memory().is_ok());
        Cuda { fake, driver, streams }
    }
}

impl Provider for Cuda {
    fn name(&self) -> &str {
        "cuda"
    }
    fn capacity_bytes(&self) -> u64 {
        CAPACITY
    }
    fn allocate(&self, bytes: u64) -> Result<u64> {
        self.driver.allocate(bytes as usize)
    }
    fn free(&self, address: u64, _: u64) {
        self.driver.free(address);
    }
    fn mapping(&self) -> Option<&dyn Mapping> {
        self.driver.mapping()
    }
    fn streams(&self) -> &dyn Streams {
        &self.streams
    }
    fn copy(&self, stream: StreamId, from: u64, to: u64, bytes: u64) -> Result<()> {
        let copy = move || {
            let mut held = vec![0; bytes as usize];
            HostMemory::read(from, &mut held).and_then(|()| HostMemory::write(to, &held)).unwrap();
        };
        self.streams.submit(stream, copy);
        Ok(())
    }
}

impl Device for Cuda {
    const BYTES: bool = true;
    fn software(&self) -> &SoftwareStreams {
        &self.streams
    }
    fn translate(&self, address: u64, bytes: u64) -> Option<Vec<(u64, u64, u64)>> {
        self.fake.translate(address, bytes)
    }
    fn used_bytes(&self) -> u64 {
        (self.fake.used)()
    }
}

#[test]
fn random_use_of_the_drivers_memory() {
    let Some((fake, _turn)) = fake() else { return };
    let device = |seed| Cuda::new(fake, SoftwareStreams::delayed(seed));
    worlds(device, 4, 50_000, Fault::None).unwrap();
    worlds(device, 2, 25_000, Fault::Refuses).unwrap();
    assert!(fake.is_empty(), "physical bytes, reservations and mappings are given back");
    for fault in [Fault::DoneEarly, Fault::NoWait, Fault::NoAccess] {
        (fake.device)(CAPACITY, GRANULE);
        let found = worlds(device, 4, 20_000, fault);
        println!("{fault:?}: {found:?}");
        assert!(found.is_err(), "{fault:?} was not seen");
    }
}

fn pool(fake: Fake) -> Pool {
    let options = Options { slab_bytes: GRANULE, handle_part: 8, keep_bytes: 0, wait: Duration::ZERO, ..Options::default() };
    Pool::new(Arc::new(Cuda::new(fake, SoftwareStreams::immediate())), options)
}

/// Fills the device, makes holes, asks for more than any has, and gives all of it back; what was refused.
fn exercise(pool: &Pool) -> Vec<Error> {
    let arena = pool.arena(pool.account(), StreamId::default());
    let mut refused = Vec::new();
    let mut take = |units: u64| arena.block(units * GRANULE).map_err(|full| refused.push(full.into())).ok();
    let mut held: Vec<Option<Block>> = (0..50).map(|_| take(3)).collect();
    held.iter_mut().step_by(2).for_each(|b| *b = None);
    held.extend((0..6).map(|_| take(11)));
    drop(held);
    refused.extend(pool.trim(0).err());
    refused
}

/// Codes after which the context is lost, and others.
const STICKY: [u32; 3] = [4, 700, 719];
const CODES: [u32; 13] = [1, 2, 3, 4, 34, 100, 304, 400, 700, 719, 801, 900, 999];

#[test]
fn every_call_may_fail_with_every_code_and_nothing_is_lost() {
    let Some((fake, _turn)) = fake() else { return };
    let mut seen = BTreeMap::<&str, usize>::new();
    // The first one is asked when the device is opened.
    for call in &libcuda::VIRTUAL_MEMORY[1..] {
        let ways = CODES.into_iter().flat_map(|c| [1, 2, 5, 12].into_iter().flat_map(move |n| [(c, n, 1), (c, n, 1i64 << 40)]));
        for (code, from, times) in ways {
            let case = format!("{call}:{from}:{code}:{times}");
            (fake.device)(CAPACITY, GRANULE);
            let pool = pool(fake);
            fake.fail(&case);
            let refused = exercise(&pool);
            fake.fail("");
            *seen.entry(call).or_default() += refused.len();
            refused.iter().for_each(|error| assert!(is_told(error, code), "{case}: {error}"));
            pool.check().unwrap_or_else(|e| panic!("{case}: {e}"));
            assert_eq!(pool.stats().live_bytes, 0, "{case}");
            // What a lost context holds, or the driver does not take back, is nobody's to give.
            let given = !STICKY.contains(&code) && !["cuMemRelease", "cuMemAddressFree"].contains(call);
            if given {
                pool.trim(0).unwrap_or_else(|e| panic!("{case}: {e}"));
                assert_eq!((pool.stats().reserved_bytes, (fake.used)()), (0, 0), "{case}");
            }
            drop(pool);
            assert!(!given || fake.is_empty(), "{case}");
        }
    }
    println!("requests refused: {seen:?}");
    assert!(["cuMemCreate", "cuMemMap", "cuMemSetAccess", "cuMemAddressReserve", "cuMemUnmap"].iter().all(|c| seen[c] > 0));
}

/// Full devices by their type, all else in the driver's words; unmapping takes no memory.
fn is_told(error: &Error, code: u32) -> bool {
    match error {
        Error::OutOfMemory { .. } => true,
        Error::Device { why, .. } => (code != 2 || why.starts_with("cuMemUnmap")) && why.contains(&libcuda::describe(code)),
        _ => false,
    }
}

#[test]
fn what_lives_stays_where_it_is_while_all_around_it_is_remapped() {
    let Some((fake, _turn)) = fake() else { return };
    let pool = pool(fake);
    let arena = pool.arena(pool.account(), StreamId::default());
    let mut held: Vec<Option<Block>> = (0..50).map(|_| Some(arena.block(3 * GRANULE).unwrap())).collect();
    held.iter_mut().step_by(2).for_each(|b| *b = None);
    let places = |held: &[Option<Block>]| -> Vec<_> {
        held.iter().flatten().map(|b| (b.address(), fake.translate(b.address(), b.bytes()).unwrap())).collect()
    };
    let before = places(&held);
    // Half of the device is free, in holes of three granules.
    let large = arena.block(60 * GRANULE).unwrap();
    let calls = pool.stats().calls;
    assert!(calls.map > calls.create, "holes were mapped together, at second addresses: {calls:?}");
    assert_eq!(places(&held), before, "a graph that was captured before has the addresses that it needs");
    drop(large);
    pool.defragment().unwrap();
    assert_eq!(places(&held), before);
}

#[test]
fn work_that_left_no_mark_is_waited_for_before_its_memory_is_unmapped() {
    let Some((fake, _turn)) = fake() else { return };
    let info = cuda::devices().unwrap().remove(0).info();
    for choice in [Choice::Slabs, Choice::Vmm] {
        let device = GpuDevice::new(info.clone(), Nvidia::open_with(0, choice).unwrap()).unwrap();
        (fake.late)(1);
        let bytes = 8 * GRANULE as usize;
        let mut region = device.reserve(bytes).unwrap();
        device.upload(&mut region, 0, &vec![7; bytes]).unwrap();
        device.release(region);
        let pool = device.pools()[0].clone();
        pool.trim(0).unwrap();
        assert_eq!(pool.stats().reserved_bytes, 0);
        assert_eq!(pool.stats().calls.unmap > 0, choice == Choice::Vmm);
        // The device is not lost, and what it is given next comes back.
        let mut region = device.reserve(bytes).unwrap();
        device.upload(&mut region, 0, &vec![9; bytes]).unwrap();
        let mut read = vec![0; bytes];
        device.download(&region, 0, &mut read).unwrap();
        assert!(read == vec![9; bytes] && !device.is_lost());
        device.release(region);
    }
    assert!(fake.is_empty());
}

#[test]
fn the_drivers_copies_are_in_the_streams_order() {
    let Some((fake, _turn)) = fake() else { return };
    (fake.late)(1);
    let driver = Nvidia::open_with(0, Choice::Slabs).unwrap();
    assert!(driver.mapping().is_none() && driver.virtual_memory().is_err());
    let (from, to) = (driver.allocate(4096).unwrap(), driver.allocate(4096).unwrap());
    driver.write(from, &[5; 4096]).unwrap();
    driver.copy(from, to, 4096).unwrap();
    driver.write(from, &[6; 4096]).unwrap();
    let mut read = vec![0; 4096];
    driver.read(to, &mut read).unwrap();
    assert_eq!(read, [5; 4096]);
    [from, to].into_iter().for_each(|address| driver.free(address));
}
