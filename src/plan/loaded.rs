//! What a plan has on its device: a recording with its constants and tables. It may be let go between runs and is made again when it is
//! wanted.

use std::sync::{Arc, Mutex};

use crate::base::lock;
use crate::device::Device;
use crate::device::api::{Bindings, CommandList, Recorded, Timing};
use crate::error::Result;

/// A recording.
pub(super) struct Loaded {
    device: Arc<dyn Device>,
    recorded: Recorded,
}

impl Loaded {
    /// Records the list. Errors as the device does.
    pub fn new(device: &Arc<dyn Device>, list: &Arc<CommandList>) -> Result<Self> {
        Ok(Loaded { device: device.clone(), recorded: device.record(list.clone())? })
    }

    /// Bytes of an arena.
    pub fn arena_bytes(&self) -> usize {
        self.recorded.arena_bytes
    }

    /// Runs, writes the outputs and waits.
    pub fn run(&self, bindings: Bindings) -> Result<Vec<Timing>> {
        self.device.submit(&self.recorded, bindings).and_then(|ticket| self.device.wait(ticket))
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.device.forget(&self.recorded);
    }
}

/// A list that is loaded when it is wanted.
pub(super) struct Loading {
    device: Arc<dyn Device>,
    loaded: Mutex<Option<Arc<Loaded>>>,
}

impl Loading {
    /// With a first recording.
    pub fn new(device: Arc<dyn Device>, loaded: Loaded) -> Self {
        Loading { device, loaded: Mutex::new(Some(Arc::new(loaded))) }
    }

    /// The list on the device. No lock is held while it is recorded: a relief may want this very one. Errors as the device does.
    pub fn loaded(&self, list: &Arc<CommandList>) -> Result<Arc<Loaded>> {
        if let Some(loaded) = &*lock(&self.loaded) {
            return Ok(loaded.clone());
        }
        let made = Arc::new(Loaded::new(&self.device, list)?);
        Ok(lock(&self.loaded).get_or_insert(made).clone())
    }

    /// Lets go of all that is on the device unless a run uses it; whether there was something.
    pub fn unload(&self) -> bool {
        let idle = lock(&self.loaded).take_if(|loaded| Arc::strong_count(loaded) == 1);
        idle.is_some()
    }
}
