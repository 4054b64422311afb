//! A model on a device.

use crate::base::TensorView;
use crate::error::{Error, Result};
use crate::session::{Model, Options, Outputs, Report};

/// A model planned for a device. Shared freely: `run` takes `&self`.
pub struct Session {}

impl Session {
    /// Chooses the device, optimises the graph and packs the weights.
    pub fn new(_model: &Model, _options: Options) -> Result<Self> {
        Err(Error::BadInput("sessions are not wired yet".into()))
    }

    /// Runs the model on named inputs.
    pub fn run(&self, _inputs: &[(&str, TensorView)]) -> Result<Outputs> {
        Err(Error::BadInput("sessions are not wired yet".into()))
    }

    /// What was done so far.
    pub fn report(&self) -> Report {
        unreachable!("no session exists yet")
    }
}
