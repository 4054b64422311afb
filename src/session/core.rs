//! A model on a device.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::base::{TensorView, lock};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::{Problem, check};
use crate::memory::{self, replay::Recorder};
use crate::plan::requests;
use crate::session::devices::{Found, Sharing, found};
use crate::session::guard::check_finite;
use crate::session::inputs::arrange;
use crate::session::ladder::Ladder;
use crate::session::opened::Opened;
use crate::session::report::summarize;
use crate::session::rung::{Choice, Profile, Rung};
use crate::session::source::{Open, OpenDevice, Source};
use crate::session::{Model, Options, Outputs, Precision, Report, split};

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
        let (found, notes) = found(&options, Sharing::Shared)?;
        Self::make(model, options, found, notes)
    }

    /// As [`Session::new`], on a device of the caller's.
    pub fn with_device(model: &Model, options: Options, device: Arc<dyn Device>) -> Result<Self> {
        Self::with_devices(model, options, vec![device])
    }

    /// As [`Session::new`], on devices of the caller's: on the first as long as it does not fail. Errors without any.
    pub fn with_devices(model: &Model, options: Options, devices: Vec<Arc<dyn Device>>) -> Result<Self> {
        Self::make(model, options, devices.into_iter().map(|device| (own(device), None)).collect(), Vec::new())
    }

    /// As [`Session::with_devices`]; a device that is lost is opened again, and the run that it failed is repeated.
    pub fn with_openers(model: &Model, options: Options, devices: Vec<OpenDevice>) -> Result<Self> {
        let found = |open: OpenDevice| Ok((own(open()?), Some(Box::new(move || open().map(own)) as Open)));
        Self::make(model, options, devices.into_iter().map(found).collect::<Result<_>>()?, Vec::new())
    }

    fn make(model: &Model, options: Options, found: Vec<Found>, notes: Vec<String>) -> Result<Self> {
        let missing = check::unsupported(model.graph());
        if !missing.is_empty() {
            let all: Vec<String> = missing.iter().map(|m| m.to_string()).collect();
            return Err(Error::Unsupported { at: format!("{} nodes", all.len()), why: all.join("; ") });
        }
        let precisions: &[Precision] = match options.precision {
            Precision::F32 => &[Precision::F32],
            Precision::F16 => &[Precision::F16, Precision::F32],
            Precision::Int8 => &[Precision::Int8, Precision::F16, Precision::F32],
        };
        let tenant = options.tenant(model);
        let each = |source: Arc<Source>| precisions.iter().map(move |&p| Choice::new(source.clone(), p));
        let sources = found.into_iter().map(|(opened, open)| Arc::new(Source::new(opened, open, &tenant)));
        let mut rungs: Vec<Choice> = sources.flat_map(each).collect();
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

    fn rung(&self, at: usize) -> Arc<Rung> {
        self.rungs[at].rung(self.model.graph(), &self.options)
    }

    /// Runs the model on named inputs. Plans for new input shapes are made on first use and kept.
    pub fn run(&self, inputs: &[(&str, TensorView)]) -> Result<Outputs> {
        let mut copies = Vec::new();
        let arranged = arrange(self.model.graph(), inputs, &mut copies)?;
        memory::with_other_ways(|| self.run_arranged(&arranged))
    }

    fn run_arranged(&self, arranged: &[Option<TensorView>]) -> Result<Outputs> {
        let mut left = self.ladder.order(self.rungs.len());
        let mut stepped = None;
        while !left.is_empty() {
            let (at, began) = (left.remove(0), Instant::now());
            let done = self.attempt_in_parts(at, arranged);
            if let Some(rung) = stepped {
                self.ladder.count(rung, done.is_ok(), began.elapsed());
            }
            let error = match done {
                Ok(outputs) => return Ok(outputs),
                Err(error) => error,
            };
            if error.is_memory() {
                // What comes after on the same device needs more of it.
                left.retain(|&next| !self.rungs[next].shares_device(&self.rungs[at]));
            }
            if left.is_empty() || self.options.strict || !Ladder::may_help(&error) {
                return Err(error);
            }
            self.ladder.failed(at, &self.rungs[at].name(), &error);
            stepped = error.is_memory().then_some(memory::Rung::Cpu);
        }
        Err(Error::Device { device: "session".into(), why: "no way of running the model is left".into() })
    }

    /// Runs a rung; where memory is short and items may be run apart, half of them at a time.
    fn attempt_in_parts(&self, at: usize, inputs: &[Option<TensorView>]) -> Result<Outputs> {
        let full = match self.attempt(at, inputs) {
            Err(error) if error.is_memory() && self.options.split_batch => error,
            other => return other,
        };
        let Some(items) = split::items(self.model.graph(), inputs) else { return Err(full) };
        let began = Instant::now();
        let run = |items: Range<usize>| {
            let part: Vec<_> = inputs.iter().map(|view| view.as_ref().map(|view| split::part(view, &items))).collect();
            Ok((self.attempt_in_parts(at, &part)?, items.len()))
        };
        let done = run(0..items / 2).and_then(|first| split::join([first, run(items / 2..items)?]));
        self.ladder.count(memory::Rung::SplitBatch, done.is_ok(), began.elapsed());
        done
    }

    /// Runs a rung, and once more when its device was lost and could be opened again.
    fn attempt(&self, at: usize, inputs: &[Option<TensorView>]) -> Result<Outputs> {
        let (rung, choice) = (self.rung(at), &self.rungs[at]);
        self.run_rung(at, &rung, inputs).or_else(|error| match choice.replaced(&rung) {
            Ok(true) => {
                self.ladder.note(format!("opened {} again: {error}", choice.name()));
                self.run_rung(at, &self.rung(at), inputs)
            }
            Ok(false) => Err(error),
            Err(why) => {
                self.ladder.note(format!("could not open {} again: {why}", choice.name()));
                Err(error)
            }
        })
    }

    fn run_rung(&self, at: usize, rung: &Rung, inputs: &[Option<TensorView>]) -> Result<Outputs> {
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
        let report = summarize(&rung, profile, notes, self.runs.load(Ordering::Relaxed));
        let mut reasons = self.ladder.reasons().into_iter();
        let ways = self.rungs.iter().enumerate().map(|(i, rung)| rung.way(i == at, reasons.next().flatten())).collect();
        Report { pressure: self.rungs[at].pressure(), steps: self.ladder.steps(), ways, ..report }
    }

    /// The problems that the last run solved, in order.
    pub fn problems(&self) -> Vec<Problem> {
        let last = lock(&self.last);
        let plans = last.iter().flat_map(|(_, profile)| profile);
        plans.flat_map(|(plan, _)| plan.list.commands.iter().map(|c| (*c.problem).clone())).collect()
    }

    /// Appends to a trace what the last run would ask of an allocator if each of its buffers were allocated by itself.
    pub fn record_requests(&self, to: &mut Recorder) -> Result<()> {
        let last = lock(&self.last);
        last.iter().flat_map(|(_, profile)| profile).try_for_each(|(plan, _)| requests::record(&plan.list, to))
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

/// A device that nothing reads and nobody else is given.
fn own(device: Arc<dyn Device>) -> Arc<Opened> {
    Arc::new(Opened::new(device, None))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::device::null::NullDevice;
    use crate::hardware;
    use crate::hardware::nvml::{Absent, Memory, Reading};
    use crate::memory::pressure::Level;
    use crate::session::opened::Readings;

    /// A device whose readings are told: how full it is.
    fn read_by(told: mpsc::Receiver<f64>) -> Arc<Opened> {
        let told = Mutex::new(Some(told));
        let reading = |share: f64| {
            let free_bytes = 1000 - (share * 1000.0) as u64;
            let memory = Memory { total_bytes: 1000, free_bytes, used_bytes: 1000 - free_bytes, reserved_bytes: None };
            Reading { memory: Ok(memory), ..Reading::absent(Absent::NotAsked) }
        };
        let read = move || Some(Box::new(lock(&told).take()?.into_iter().map(reading)) as Readings);
        let device = Arc::new(NullDevice::new(hardware::cpu::info(1)).unwrap());
        Arc::new(Opened::new(device, Some(Box::new(read))))
    }

    #[test]
    fn a_session_gives_back_what_is_idle_when_the_device_is_nearly_full() {
        let (tell, told) = mpsc::channel();
        let model = Model::open("models/digits-mlp.onnx").unwrap();
        let session = Session::make(&model, Options::default(), vec![(read_by(told), None)], Vec::new()).unwrap();
        // Dropped before the session, which waits for the reading that is being taken.
        let tell = tell;
        let x = [0f32; 64];
        let run = || session.run(&[("x", TensorView::of([1, 64], &x))]).map(drop).unwrap();
        run();
        assert!(session.report().accounts[0].used_bytes > 0 && session.report().pressure == Some(Level::Low));
        tell.send(0.97).unwrap();
        let is_over = || session.report().pressure == Some(Level::Critical) && session.report().accounts[0].used_bytes == 0;
        let waited = (0..1000).any(|_| {
            is_over() || {
                std::thread::sleep(Duration::from_millis(10));
                false
            }
        });
        assert!(waited, "{:?}", session.report().accounts);
        run();
    }

    #[test]
    fn nothing_is_watched_where_that_is_not_wanted() {
        let (_tell, told) = mpsc::channel();
        let model = Model::open("models/digits-mlp.onnx").unwrap();
        let options = Options { no_pressure_watch: true, ..Options::default() };
        let session = Session::make(&model, options, vec![(read_by(told), None)], Vec::new()).unwrap();
        assert_eq!(session.report().pressure, None);
    }
}
