//! Shaders that the driver has compiled, kept in a file between processes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use wgpu::{Device, Features, PipelineCache, PipelineCacheDescriptor};

use crate::hardware::cache::{hash, write};

/// Bytes of the hash in front.
const HEAD: usize = 8;

/// A cache of pipelines and its file.
pub struct Compiled {
    cache: PipelineCache,
    file: PathBuf,
    /// Whether something was compiled since the file was written.
    is_newer: AtomicBool,
}

impl Compiled {
    /// With what the file holds; `None` where the device keeps nothing. A file that is not there, or is damaged, holds nothing.
    pub fn open(device: &Device, file: PathBuf) -> Option<Compiled> {
        if !device.features().contains(Features::PIPELINE_CACHE) {
            return None;
        }
        let bytes = std::fs::read(&file).unwrap_or_default();
        let whole = bytes.split_at_checked(HEAD).filter(|(head, data)| *head == hash(data).to_le_bytes());
        let data = whole.map(|(_, data)| data);
        // SAFETY: the hash says that the data is as `save` had it from `get_data`; of another adapter or driver it is dropped by wgpu.
        let cache = unsafe { device.create_pipeline_cache(&PipelineCacheDescriptor { label: None, data, fallback: true }) };
        Some(Compiled { cache, file, is_newer: AtomicBool::new(false) })
    }

    /// The cache, for a pipeline that is compiled now.
    pub fn used(&self) -> &PipelineCache {
        self.is_newer.store(true, Ordering::Relaxed);
        &self.cache
    }

    /// Writes the file if something was compiled since. That it cannot be written costs the next process time, nothing else.
    pub fn save(&self) {
        if !self.is_newer.swap(false, Ordering::Relaxed) {
            return;
        }
        let Some(data) = self.cache.get_data() else { return };
        let mut bytes = hash(&data).to_le_bytes().to_vec();
        bytes.extend(data);
        let _ = write(&self.file, &bytes);
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        self.save();
    }
}
