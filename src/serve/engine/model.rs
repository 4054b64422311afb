//! A model that an engine serves.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use super::axes::{Axes, Joining};
use super::runner::Runner;
use super::statistics::Recorder;
use crate::error::Result;

/// A model for an engine.
pub struct Serving {
    /// What runs it.
    pub runner: Arc<dyn Runner>,
    /// What statistics call it.
    pub name: String,
    /// Its share of the device beside other models: twice the weight, twice the time, where both have more to do than there is time.
    pub weight: f64,
    /// How its requests are put together.
    pub joining: Joining,
}

impl Serving {
    /// A model with the default joining and weight.
    pub fn new(name: impl Into<String>, runner: impl Runner + 'static) -> Self {
        Serving { runner: Arc::new(runner), name: name.into(), weight: 1.0, joining: Joining::default() }
    }
}

/// A model as its engine knows it.
pub(super) struct Served {
    pub id: u32,
    pub weight: f64,
    pub runner: Arc<dyn Runner>,
    pub axes: Axes,
    /// Its outputs turned out not to have the batch's rows: its requests run one by one.
    pub is_unjoinable: AtomicBool,
    pub recorder: Mutex<Recorder>,
}

impl Served {
    pub fn new(id: u32, serving: Serving) -> Result<Self> {
        let Serving { runner, name, weight, joining } = serving;
        let axes = Axes::new(&*runner, &joining)?;
        let mut recorder = Recorder::default();
        recorder.counts.name = name;
        Ok(Served { id, weight, runner, axes, is_unjoinable: AtomicBool::new(false), recorder: Mutex::new(recorder) })
    }
}
