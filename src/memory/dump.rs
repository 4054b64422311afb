//! Snapshots of allocations that failed, written where the environment says.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::error::OutOfMemory;
use super::snapshot::Snapshot;
use super::svg::svg;
use super::torch::TorchSnapshot;

/// The variable that names the folder.
const FOLDER: &str = "HALFBYTE_MEMORY_SNAPSHOT";
/// Who fails again and again does not fill the disk.
const MOST: u32 = 8;

/// Writes the pool's snapshot to the folder that `HALFBYTE_MEMORY_SNAPSHOT` names, and says so on standard error; nothing where it is not set.
pub(super) fn dump(full: &OutOfMemory) {
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
