//! Snapshots in files.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::{Error, Result};
use crate::memory::{Segment, Snapshot, TorchSnapshot, svg};

/// Files to write.
#[derive(Args)]
pub struct Files {
    /// Write the pools as they are after the last run, all blocks, owners and events, for --open.
    #[arg(long, value_name = "FILE.json")]
    snapshot: Option<PathBuf>,
    /// Write the same for PyTorch's memory viewer (pytorch.org/memory_viz).
    #[arg(long, value_name = "FILE.pickle")]
    torch: Option<PathBuf>,
    /// Write a picture of it: live bytes by account over time, and where blocks lie.
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
}

impl Files {
    /// Whether one is asked for.
    pub fn any(&self) -> bool {
        [&self.snapshot, &self.torch, &self.svg].iter().any(|path| path.is_some())
    }

    /// Writes those asked for.
    pub fn write(&self, pools: &[Snapshot]) -> Result<()> {
        let write = |path: &Path, bytes: Vec<u8>| std::fs::write(path, bytes).map_err(|e| Error::file(path, e));
        if let Some(path) = &self.snapshot {
            write(path, serde_json::to_vec(pools).map_err(|e| Error::file(path, e))?)?;
        }
        if let Some(path) = &self.torch {
            write(path, TorchSnapshot::of(pools).pickle())?;
        }
        self.svg.as_ref().map_or(Ok(()), |path| write(path, svg(pools).into_bytes()))
    }
}

/// More than any address space in bytes, and any time in microseconds.
const MOST: u64 = 1 << 60;

/// Reads what `--snapshot` wrote. Errors when it is no such file, or contradicts itself.
pub fn open(path: &Path) -> Result<Vec<Snapshot>> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    let pools: Vec<Snapshot> =
        serde_json::from_slice(&bytes).map_err(|e| Error::file(path, format!("no snapshot of halfbyte memory: {e}")))?;
    match pools.iter().all(is_whole) {
        true => Ok(pools),
        false => Err(Error::file(path, "no snapshot: it contradicts itself")),
    }
}

/// Whether blocks fill their segments, and all numbers are ones that can be.
fn is_whole(pool: &Snapshot) -> bool {
    fn sum(mut bytes: impl Iterator<Item = u64>) -> Option<u64> {
        bytes.try_fold(0u64, u64::checked_add).filter(|sum| *sum < MOST)
    }
    let filled = |s: &Segment| sum(s.blocks.iter().map(|b| b.bytes)) == Some(s.bytes);
    let times = pool.timeline.iter().map(|e| e.time_us).chain([pool.time_us]);
    pool.segments.iter().all(filled) && sum(pool.segments.iter().map(|s| s.bytes)).is_some() && times.max() < Some(MOST)
}
