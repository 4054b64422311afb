//! Where a session's device comes from, so that a lost one can be opened again.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::base::lock;
use crate::device::Device;
use crate::error::Result;

/// Opens a device, and another one of the kind when that is lost.
pub type OpenDevice = Box<dyn Fn() -> Result<Arc<dyn Device>> + Send + Sync>;

/// A device that is lost again so soon is not opened a third time: what runs on it is what takes it down.
const PATIENCE: Duration = Duration::from_secs(30);

/// A device, and how to open it again.
pub(crate) struct Source {
    open: Option<OpenDevice>,
    /// Name and limit of the account that pays.
    tenant: (String, u64),
    state: Mutex<State>,
}

struct State {
    device: Arc<dyn Device>,
    reopened: Option<Instant>,
}

impl Source {
    /// Of a device that nothing can open again.
    pub fn fixed(device: Arc<dyn Device>) -> Source {
        Source { open: None, tenant: Default::default(), state: Mutex::new(State { device, reopened: None }) }
    }

    /// Of a device, and what opens another in its place.
    pub fn new(device: Arc<dyn Device>, open: OpenDevice) -> Source {
        Source { open: Some(open), ..Source::fixed(device) }
    }

    /// The same, where an account of its own pays for memory: see [`Device::tenant`].
    pub fn tenant(self, name: &str, limit_bytes: u64) -> Source {
        let device = self.device().tenant(name, limit_bytes);
        Source { tenant: (name.into(), limit_bytes), open: self.open, ..Source::fixed(device) }
    }

    /// The device as it is now.
    pub fn device(&self) -> Arc<dyn Device> {
        lock(&self.state).device.clone()
    }

    /// Whether another device stands in the place of `failed`, which is lost: opened here, or by another thread meanwhile. Errors with
    /// why it could not be opened.
    pub fn replaced(&self, failed: &Arc<dyn Device>) -> Result<bool> {
        let mut state = lock(&self.state);
        if !Arc::ptr_eq(&state.device, failed) {
            return Ok(true);
        }
        let Some(open) = self.open.as_ref().filter(|_| failed.is_lost()) else { return Ok(false) };
        if state.reopened.is_some_and(|at| at.elapsed() < PATIENCE) {
            return Ok(false);
        }
        state.reopened = Some(Instant::now());
        let (name, limit_bytes) = &self.tenant;
        state.device = open()?.tenant(name, *limit_bytes);
        Ok(true)
    }
}
