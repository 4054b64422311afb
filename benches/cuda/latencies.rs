//! What the driver's memory calls take, by size, on an idle stream and behind copies that run: virtual memory management beside
//! cuMemAlloc and cuMemFree.

use std::time::Instant;

use halfbyte::device::cuda::{Choice, Nvidia};
use halfbyte::device::gpu::Driver;
use halfbyte::memory::provider::Mapping;

/// Rounds of each size.
const ROUNDS: usize = 32;
/// Bytes of the copies that run meanwhile: about 100 us each.
const COPY_BYTES: usize = 256 << 20;
/// In the order of a round.
const CALLS: [&str; 9] = ["reserve", "create", "map", "access", "unmap", "release", "unreserve", "cuMemAlloc", "cuMemFree"];

/// The first device's driver, with virtual memory management.
pub fn open() -> Result<Nvidia, String> {
    let driver = Nvidia::open_with(0, Choice::Vmm).map_err(|e| e.to_string())?;
    driver.virtual_memory().map_err(|why| format!("no virtual memory management: {why}"))?;
    Ok(driver)
}

/// Prints medians and 90th percentiles in microseconds.
pub fn measure(driver: &Nvidia) -> Result<(), String> {
    let say = |e: halfbyte::Error| e.to_string();
    let mapping = driver.virtual_memory()?;
    let granularity = mapping.granularity_bytes();
    let [from, to] = [driver.allocate(COPY_BYTES).map_err(say)?, driver.allocate(COPY_BYTES).map_err(say)?];
    for busy in [false, true] {
        println!(
            "{}, granularity {granularity} bytes: median (90th percentile) in us",
            if busy { "behind copies" } else { "idle" }
        );
        println!("{:>6} {}", "MiB", CALLS.map(|c| format!("{c:>16}")).join(" "));
        for mib in [2u64, 4, 8, 16, 32, 64] {
            let mut times = [const { Vec::new() }; CALLS.len()];
            for _ in 0..ROUNDS {
                let before = || if busy { driver.copy(from, to, COPY_BYTES as u64) } else { Ok(()) };
                round(driver, mapping, (mib << 20).next_multiple_of(granularity), &mut times, before).map_err(say)?;
                driver.synchronize().map_err(say)?;
            }
            println!("{mib:>6} {}", times.map(|t| format!("{:>16}", percentiles(t))).join(" "));
        }
    }
    [from, to].into_iter().for_each(|address| driver.free(address));
    Ok(())
}

/// Each call once, with `before` in front of it.
fn round(
    driver: &Nvidia,
    mapping: &dyn Mapping,
    bytes: u64,
    times: &mut [Vec<f64>],
    before: impl Fn() -> halfbyte::Result<()>,
) -> halfbyte::Result<()> {
    let mut times = times.iter_mut();
    let mut timed = |call: &mut dyn FnMut() -> halfbyte::Result<u64>| {
        before()?;
        let start = Instant::now();
        let answer = call();
        times.next().into_iter().for_each(|t| t.push(start.elapsed().as_secs_f64() * 1e6));
        answer
    };
    let address = timed(&mut || mapping.reserve(bytes))?;
    let handle = timed(&mut || mapping.create(bytes))?;
    timed(&mut || mapping.map(address, bytes, handle).map(|()| 0))?;
    timed(&mut || mapping.set_access(address, bytes).map(|()| 0))?;
    timed(&mut || mapping.unmap(address, bytes).map(|()| 0))?;
    timed(&mut || {
        mapping.release(handle, bytes);
        Ok(0)
    })?;
    timed(&mut || {
        mapping.unreserve(address, bytes);
        Ok(0)
    })?;
    let slab = timed(&mut || driver.allocate(bytes as usize))?;
    timed(&mut || {
        driver.free(slab);
        Ok(0)
    })?;
    Ok(())
}

fn percentiles(mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    format!("{:.1} ({:.1})", times[times.len() / 2], times[times.len() * 9 / 10])
}
