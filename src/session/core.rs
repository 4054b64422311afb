//! A model on a device.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::base::{TensorView, lock};
use crate::device::Device;
use crate::device::cpu::CpuDevice;
use crate::error::{Error, Result};
use crate::graph::{Problem, check};
use crate::hardware::DeviceKind;
use crate::session::guard::check_finite;
use crate::session::inputs::arrange;
use crate::session::ladder::Ladder;
use crate::session::report::summarize;
use crate::session::rung::{Profile, Rung};
use crate::session::{Model, Options, Outputs, Precision, Report};

/// A model made ready for a device. Shared freely between threads: [`Session::run`] takes `&self`.
pub struct Session {
    model: Model,
    options: Options,
    rungs: Vec<Rung>,
    ladder: Ladder,
    notes: Vec<String>,
    last: Mutex<Option<(usize, Profile)>>,
    runs: AtomicU64,
}

impl Session {
    /// Chooses the device, optimises the graph and makes it ready. Errors with everything that is unsupported at once.
    pub fn new(model: &Model, options: Options) -> Result<Self> {
        let (device, notes) = choose_device(&options)?;
        Self::on_device(model, options, device, notes)
    }

    /// As [`Session::new`], on a device of the caller's.
    pub fn with_device(model: &Model, options: Options, device: Arc<dyn Device>) -> Result<Self> {
        Self::on_device(model, options, device, Vec::new())
    }

    fn on_device(model: &Model, options: Options, device: Arc<dyn Device>, notes: Vec<String>) -> Result<Self> {
        let missing = check::unsupported(model.graph());
        if !missing.is_empty() {
            let all: Vec<String> = missing.iter().map(|m| m.to_string()).collect();
            return Err(Error::Unsupported { at: format!("{} nodes", all.len()), why: all.join("; ") });
        }
        let mut precisions = vec![options.precision];
        if options.precision != Precision::F32 && !options.strict {
            precisions.push(Precision::F32);
        }
        let rung = |&p: &Precision| Rung::new(model.graph(), device.clone(), p, &options);
        let rungs = precisions.iter().map(rung).collect();
        Ok(Session {
            model: model.clone(),
            options,
            rungs,
            ladder: Ladder::default(),
            notes,
            last: Mutex::default(),
            runs: AtomicU64::new(0),
        })
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
                    self.ladder.failed(at, &self.rung_name(at), &e);
                }
                Err(e) => return Err(e),
            }
        }
        Err(Error::Device { device: "session".into(), why: "no way of running the model is left".into() })
    }

    fn run_rung(&self, at: usize, inputs: &[Option<TensorView>]) -> Result<Outputs> {
        let rung = &self.rungs[at];
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

    fn rung_name(&self, at: usize) -> String {
        let rung = &self.rungs[at];
        format!("{} {:?}", rung.program.device().info().name, rung.precision).to_lowercase()
    }

    /// What was done so far: device, precision, kernel and time for each node, and every step down with its reason.
    pub fn report(&self) -> Report {
        let last = lock(&self.last);
        let at = last.as_ref().map_or(0, |(at, _)| *at);
        let notes = self.notes.iter().cloned().chain(self.rungs[at].notes()).chain(self.ladder.notes()).collect();
        let profile = last.as_ref().map_or(&[][..], |(_, profile)| profile);
        summarize(&self.rungs[at], profile, notes, self.runs.load(Ordering::Relaxed))
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

/// The first device that exists and has kernels, and why those before it were passed over.
fn choose_device(options: &Options) -> Result<(Arc<dyn Device>, Vec<String>)> {
    match options.device {
        None | Some(DeviceKind::Cpu) => {
            let notes = match options.device {
                None => vec!["cuda and wgpu: this version has no GPU kernels yet; running on the CPU".to_string()],
                _ => Vec::new(),
            };
            Ok((Arc::new(CpuDevice::new(options.threads)?), notes))
        }
        Some(other) => Err(Error::Unsupported {
            at: format!("device {other:?}").to_lowercase(),
            why: "this version runs on the CPU only; leave the device out or choose cpu".into(),
        }),
    }
}
