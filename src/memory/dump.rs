//! Snapshots of allocations that failed, written where the environment says.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::error::OutOfMemory;
use super::snapshot::Snapshot;
use super::svg::svg;
use super::torch::TorchSnapshot;
use crate::error::Result;

/// The variable that names the folder.
const FOLDER: &str = "HALFBYTE_MEMORY_SNAPSHOT";
/// Who fails again and again does not fill the disk.
const MOST: u32 = 8;

thread_local! {
    /// Failures that this thread may survive, while it may.
    static HELD: RefCell<Option<Vec<OutOfMemory>>> = const { RefCell::new(None) };
}

/// Holds failures back as long as it lives.
struct Holding;

impl Drop for Holding {
    fn drop(&mut self) {
        HELD.take();
    }
}

/// Does work that has other ways when an allocation fails on this thread: what failed is written only where all of it fails for want of
/// memory.
pub fn with_other_ways<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    if HELD.with_borrow(Option::is_some) {
        return work();
    }
    HELD.set(Some(Vec::new()));
    let holding = Holding;
    let done = work();
    let held = HELD.take().unwrap_or_default();
    drop(holding);
    if done.as_ref().is_err_and(|error| error.is_memory()) {
        held.iter().for_each(dump);
    }
    done
}

/// Writes the pool's snapshot to the folder that `HALFBYTE_MEMORY_SNAPSHOT` names, and says so on standard error; nothing where it is not
/// set. Where there are other ways it is only noted, and at most as many as are written.
pub(super) fn fail(full: &OutOfMemory) {
    let is_held = HELD.with_borrow_mut(|held| {
        let Some(held) = held else { return false };
        if held.len() < MOST as usize {
            held.push(full.clone());
        }
        true
    });
    if !is_held {
        dump(full);
    }
}

fn dump(full: &OutOfMemory) {
    static WRITTEN: AtomicU32 = AtomicU32::new(0);
    let Some(folder) = std::env::var_os(FOLDER).filter(|f| !f.is_empty()) else { return };
    let number = WRITTEN.fetch_add(1, Relaxed);
    if number >= MOST {
        return;
    }
    let stem = Path::new(&folder).join(format!("halfbyte-{}-{number}", std::process::id()));
    match write(&stem, &full.snapshot) {
        Ok(files) => eprintln!("halfbyte: {full}: snapshot in {}", files.join(", ")),
        Err(why) => eprintln!("halfbyte: {full}: no snapshot: {}: {why}", stem.display()),
    }
}

fn write(stem: &Path, snapshot: &Snapshot) -> std::io::Result<Vec<String>> {
    let pools = std::slice::from_ref(snapshot);
    let files: [(&str, Vec<u8>); 2] = [("pickle", TorchSnapshot::of(pools).pickle()), ("svg", svg(pools).into_bytes())];
    let files = files.into_iter().chain(json(pools)?);
    if let Some(folder) = stem.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let one = |(ending, bytes): (&str, Vec<u8>)| {
        let path: PathBuf = stem.with_extension(ending);
        std::fs::write(&path, bytes).map(|()| path.display().to_string())
    };
    files.map(one).collect()
}

/// What `halfbyte memory --open` reads.
#[cfg(feature = "cli")]
fn json(pools: &[Snapshot]) -> std::io::Result<Option<(&'static str, Vec<u8>)>> {
    Ok(Some(("json", serde_json::to_vec(pools)?)))
}

#[cfg(not(feature = "cli"))]
fn json(_: &[Snapshot]) -> std::io::Result<Option<(&'static str, Vec<u8>)>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::Error;
    use crate::memory::provider::software::SoftwareStreams;
    use crate::memory::provider::virtual_device::VirtualDevice;
    use crate::memory::{Options, Pool, StreamId};

    fn held() -> Option<usize> {
        HELD.with_borrow(|held| held.as_ref().map(Vec::len))
    }

    #[test]
    fn failures_are_held_back_only_as_long_as_there_are_other_ways() {
        let device = Arc::new(VirtualDevice::new(1 << 20, None, SoftwareStreams::immediate()));
        let pool = Pool::new(device, Options::default());
        let arena = pool.arena(pool.account(), StreamId(0));
        let fails = || arena.block(1 << 30).map(drop).map_err(Error::from);
        let survived = with_other_ways(|| {
            assert!(with_other_ways(fails).is_err());
            assert_eq!(held(), Some(1), "the outer one may still survive");
            (0..20).for_each(|_| assert!(fails().is_err()));
            Ok(held())
        });
        assert_eq!(survived.unwrap(), Some(MOST as usize));
        assert_eq!(held(), None);
        assert!(with_other_ways(fails).is_err_and(|e| e.is_memory()));
        assert!(std::panic::catch_unwind(|| with_other_ways::<()>(|| panic!("in between"))).is_err());
        assert_eq!((fails().is_err(), held()), (true, None));
    }
}
