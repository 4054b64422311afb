//! Where a session's device comes from, so that a lost one can be opened again.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::base::lock;
use crate::device::Device;
use crate::error::Result;
use crate::memory::pressure::Level;
use crate::session::opened::Opened;

/// Opens a device, and another one of the kind when that is lost.
pub type OpenDevice = Box<dyn Fn() -> Result<Arc<dyn Device>> + Send + Sync>;

/// The same for what sessions may share.
pub(crate) type Open = Box<dyn Fn() -> Result<Arc<Opened>> + Send + Sync>;

/// A device that is lost again so soon is not opened a third time: what runs on it is what takes it down.
const PATIENCE: Duration = Duration::from_secs(30);

/// A device, and how to open it again.
pub(crate) struct Source {
    open: Option<Open>,
    tenant: Tenant,
    state: Mutex<State>,
}

/// Who pays for memory on the device, and whether the device is watched.
#[derive(Clone)]
pub(crate) struct Tenant {
    /// Name of the account.
    pub name: String,
    /// The most that it may hold.
    pub limit_bytes: u64,
    /// Whether pressure on the device's memory is watched.
    pub watch: bool,
}

struct State {
    opened: Arc<Opened>,
    /// The tenant's handle of it.
    device: Arc<dyn Device>,
    reopened: Option<Instant>,
}

impl State {
    fn new(opened: Arc<Opened>, tenant: &Tenant, reopened: Option<Instant>) -> State {
        if tenant.watch {
            opened.watch();
        }
        State { device: opened.device.tenant(&tenant.name, tenant.limit_bytes), opened, reopened }
    }
}

impl Source {
    /// Of an open device, and what opens another in its place, where something can.
    pub fn new(opened: Arc<Opened>, open: Option<Open>, tenant: &Tenant) -> Source {
        Source { open, tenant: tenant.clone(), state: Mutex::new(State::new(opened, tenant, None)) }
    }

    /// The device as it is now, with an account of its own: see [`Device::tenant`].
    pub fn device(&self) -> Arc<dyn Device> {
        lock(&self.state).device.clone()
    }

    /// How short the device's memory is; `None` when nothing watches it.
    pub fn pressure(&self) -> Option<Level> {
        lock(&self.state).opened.level()
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
        *state = State::new(open()?, &self.tenant, state.reopened);
        Ok(true)
    }
}
