//! What a plan has on its device: a recording with its constants and tables, and the arenas of its runs. All of it may be let go between
//! runs and is made again when it is wanted.

use std::sync::{Arc, Mutex};

use crate::base::{Tensor, TensorView, lock};
use crate::device::Device;
use crate::device::api::{Bindings, CommandList, Recorded, Region, Timing};
use crate::error::Result;

/// A recording, and the arenas that are kept for its next runs where the device does better so: a GPU's graph of launches holds their
/// addresses.
pub(super) struct Loaded {
    device: Arc<dyn Device>,
    recorded: Recorded,
    arenas: Mutex<Vec<Region>>,
}

impl Loaded {
    /// Records the list. Errors as the device does.
    pub fn new(device: &Arc<dyn Device>, list: &Arc<CommandList>) -> Result<Self> {
        Ok(Loaded { device: device.clone(), recorded: device.record(list.clone())?, arenas: Mutex::default() })
    }

    /// Bytes of an arena.
    pub fn arena_bytes(&self) -> usize {
        self.recorded.arena_bytes
    }

    /// Runs, writes the outputs and waits.
    pub fn run(&self, inputs: &[TensorView], outputs: &mut [Tensor], profile: bool) -> Result<Vec<Timing>> {
        let kept = lock(&self.arenas).pop();
        let mut arena = kept.map_or_else(|| self.device.reserve(self.arena_bytes()), Ok)?;
        let done = {
            let mut views: Vec<_> = outputs.iter_mut().map(Tensor::view_mut).collect();
            let bindings = Bindings { arena: &mut arena, inputs, outputs: &mut views, profile };
            self.device.submit(&self.recorded, bindings).and_then(|ticket| self.device.wait(ticket))
        };
        match self.device.keeps_arenas() {
            true => lock(&self.arenas).push(arena),
            false => self.device.release(arena),
        }
        done
    }

    fn give_up_arenas(&self) -> bool {
        let idle = std::mem::take(&mut *lock(&self.arenas));
        let any = !idle.is_empty();
        idle.into_iter().for_each(|arena| self.device.release(arena));
        any
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.give_up_arenas();
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

    /// Gives arenas that no run uses back to the device; whether there were any.
    pub fn give_up_arenas(&self) -> bool {
        let loaded = lock(&self.loaded).clone();
        loaded.is_some_and(|loaded| loaded.give_up_arenas())
    }

    /// Lets go of all that is on the device unless a run uses it; whether there was something.
    pub fn unload(&self) -> bool {
        let idle = lock(&self.loaded).take_if(|loaded| Arc::strong_count(loaded) == 1);
        idle.is_some()
    }
}
