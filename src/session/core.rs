//! A model on a device.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::base::{TensorView, lock};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::{Problem, check};
use crate::session::devices::{Devices, devices};
use crate::session::guard::check_finite;
use crate::session::inputs::arrange;
use crate::session::ladder::Ladder;
use crate::session::report::summarize;
use crate::session::rung::{Choice, Profile, Rung};
use crate::session::{Model, Options, Outputs, Precision, Report};

/// A model made ready for a device. Shared freely between threads: [`Session::run`] takes `&self`.
pub struct Session {
    model: Model,
    options: Options,
    rungs: Vec<Choice>,
    ladder: Ladder,
    notes: Vec<String>,
    last: Mutex<Option<(usize, Profile)>>,
    runs: AtomicU64,
}

impl Session {
    /// Chooses the device, optimises the graph and makes it ready. Errors with everything that is unsupported at once.
    pub fn new(model: &Model, options: Options) -> Result<Self> {
        let (devices, notes) = devices(&options)?;
        Self::make(model, options, devices, notes)
    }

    /// As [`Session::new`], on a device of the caller's.
    pub fn with_device(model: &Model, options: Options, device: Arc<dyn Device>) -> Result<Self> {
        Self::make(model, options, vec![device], Vec::new())
    }

    /// As [`Session::new`], on devices of the caller's: on the first as long as it does not fail. Errors without any.
    pub fn with_devices(model: &Model, options: Options, devices: Vec<Arc<dyn Device>>) -> Result<Self> {
        Self::make(model, options, devices, Vec::new())
    }

    fn make(model: &Model, options: Options, devices: Devices, notes: Vec<String>) -> Result<Self> {
        let missing = check::unsupported(model.graph());
        if !missing.is_empty() {
            let all: Vec<String> = missing.iter().map(|m| m.to_string()).collect();
            return Err(Error::Unsupported { at: format!("{} nodes", all.len()), why: all.join("; ") });
        }
        let mut precisions = vec![options.precision];
        if options.precision != Precision::F32 {
            precisions.push(Precision::F32);
        }
        let each = |device: Arc<dyn Device>| precisions.iter().map(move |&p| Choice::new(device.clone(), p));
        let mut rungs: Vec<Choice> = devices.into_iter().flat_map(each).collect();
        if options.strict {
            rungs.truncate(1);
        }
        if rungs.is_empty() {
            return Err(Error::BadInput("no device to run on".into()));
        }
        let (last, runs) = (Mutex::default(), AtomicU64::new(0));
        let session = Session { model: model.clone(), options, rungs, ladder: Ladder::default(), notes, last, runs };
        session.rung(0);
        Ok(session)
    }

    fn rung(&self, at: usize) -> &Rung {
        self.rungs[at].rung(self.model.graph(), &self.options)
    }

    /// Runs the model on named inputs. Plans for new input shapes are made on first use and kept.
    pub fn run(&self, inputs: &[(&str, TensorView)]) -> Result<Outputs> {
        let mut copies = Vec::new();
        let arranged = arrange(self.model.graph(), inputs, &mut copies)?;
        let order = self.ladder.order(self.rungs.len());
        for (i, &at) in order.iter().enumerate() {
            match self.run_rung(at, &arranged) {
                Ok(outputs) => return Ok(outputs),
                Err(e) if i + 1 < order.len() && !self.options.strict && Ladder::may_help(&e) => {
                    self.ladder.failed(at, &self.rungs[at].name(), &e);
                }
                Err(e) => return Err(e),
            }
        }
        Err(Error::Device { device: "session".into(), why: "no way of running the model is left".into() })
    }

    fn run_rung(&self, at: usize, inputs: &[Option<TensorView>]) -> Result<Outputs> {
        let rung = self.rung(at);
        let run = rung.run(inputs, self.options.profile)?;
        let names = self.model.outputs().map(|(n, _)| n.to_string());
        let outputs = Outputs { named: names.zip(run.outputs).collect() };
        let reduced = rung.precision != Precision::F32;
        if self.options.check_finite || (reduced && at + 1 < self.rungs.len()) {
            check_finite(outputs.iter())?;
        }
        self.runs.fetch_add(1, Ordering::Relaxed);
        *lock(&self.last) = Some((at, run.plans));
        Ok(outputs)
    }

    /// What was done so far: device, precision, kernel and time for each node, and every step down with its reason.
    pub fn report(&self) -> Report {
        let last = lock(&self.last);
        let at = last.as_ref().map_or(0, |(at, _)| *at);
        let rung = self.rung(at);
        let notes = self.notes.iter().cloned().chain(rung.notes()).chain(self.ladder.notes()).collect();
        let profile = last.as_ref().map_or(&[][..], |(_, profile)| profile);
        summarize(rung, profile, notes, self.runs.load(Ordering::Relaxed))
    }

    /// The problems that the last run solved, in order.
    pub fn problems(&self) -> Vec<Problem> {
        let last = lock(&self.last);
        let plans = last.iter().flat_map(|(_, profile)| profile);
        plans.flat_map(|(plan, _)| plan.recorded().list.commands.iter().map(|c| (*c.problem).clone())).collect()
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }
}
