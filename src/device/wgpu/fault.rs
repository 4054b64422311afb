//! What wgpu reports aside: errors that no call returns, and the loss of the device.

use std::sync::{Arc, Mutex};

use crate::base::lock;
use crate::error::{Error, Result};

/// The first error that nobody has asked for yet, and whether the device is lost.
#[derive(Clone)]
pub struct Faults(Arc<Inner>);

struct Inner {
    device: String,
    first: Mutex<Option<Error>>,
    lost: Mutex<Option<String>>,
}

impl Faults {
    /// Hears of the errors of `device` from now on.
    pub fn of(device: &wgpu::Device, name: &str) -> Faults {
        let faults = Faults(Arc::new(Inner { device: name.into(), first: Mutex::default(), lost: Mutex::default() }));
        let heard = faults.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| heard.hear(&error)));
        let heard = faults.clone();
        device.set_device_lost_callback(move |reason, why| {
            lock(&heard.0.lost).get_or_insert(format!("{reason:?}: {why}"));
        });
        faults
    }

    /// An error of this device.
    pub fn error(&self, why: impl Into<String>) -> Error {
        Error::Device { device: self.0.device.clone(), why: why.into() }
    }

    fn hear(&self, error: &wgpu::Error) {
        let error = match error {
            wgpu::Error::OutOfMemory { .. } => self.out_of_memory(0),
            other => self.error(other.to_string()),
        };
        lock(&self.0.first).get_or_insert(error);
    }

    /// The device is full; how much is left is not known.
    pub fn out_of_memory(&self, needed_bytes: u64) -> Error {
        Error::OutOfMemory { device: self.0.device.clone(), needed_bytes, available_bytes: 0 }
    }

    /// Whether the device is lost.
    pub fn is_lost(&self) -> bool {
        lock(&self.0.lost).is_some()
    }

    /// Errors with what was reported since the last call, or when the device is lost.
    pub fn check(&self) -> Result<()> {
        let first = lock(&self.0.first).take();
        match (&*lock(&self.0.lost), first) {
            (Some(why), _) => Err(self.error(format!("lost: {why}"))),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(()),
        }
    }
}
