//! Allocation traces from ONNX files: what runs of their graphs with varying batch and length would ask of an allocator.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::Inputs;
use super::vary::Varied;
use crate::base::xorshift::Xorshift;
use crate::device::null::NullDevice;
use crate::error::{Error, Result};
use crate::hardware;
use crate::memory::replay::{Recorder, Trace};
use crate::session::{Model, Options, Session, model_name};

/// Runs of each model.
const RUNS: usize = 24;
/// The largest batch.
const BATCH: usize = 64;
/// A model whose own trace has fewer bytes live is only part of the trace of all.
const SMALL_BYTES: u64 = 32 << 20;

/// The .onnx files of a folder and of the folders in it, sorted. Errors when there are none.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let error = |why: String| Error::File { path: folder.display().to_string(), why };
    let list = |folder: &Path| Ok(std::fs::read_dir(folder)?.flatten().map(|e| e.path()).collect());
    let mut found: Vec<PathBuf> = list(folder).map_err(|e: std::io::Error| error(e.to_string()))?;
    let below = found.iter().filter(|p| p.is_dir()).filter_map(|p| list(p).ok()).flatten().collect::<Vec<_>>();
    found.extend(below);
    found.retain(|p| p.extension().is_some_and(|e| e == "onnx"));
    found.sort();
    if found.is_empty() {
        return Err(error("no .onnx file in it".into()));
    }
    Ok(found)
}

/// A model and a session that plans its runs without computing anything: the same on every machine.
struct Planned {
    name: String,
    model: Model,
    session: Session,
    varied: Varied,
}

impl Planned {
    fn new(path: &Path) -> Result<Self> {
        let model = Model::open(path)?;
        let device = NullDevice::new(hardware::cpu::info(1))?;
        let session = Session::with_device(&model, Options::default(), Arc::new(device))?;
        let given = Inputs { inputs: None, dims: Vec::new(), batch: None, seed: 1 };
        let varied = Varied::new(&model, given, BATCH);
        Ok(Planned { name: model_name(path), model, session, varied })
    }

    fn load(&self, to: &mut Recorder) -> Vec<u32> {
        let constants = self.model.graph().values.iter().filter_map(|v| v.constant.as_ref());
        constants.filter(|t| !t.bytes().is_empty()).map(|t| to.alloc(t.bytes().len() as u64)).collect()
    }

    /// A run with axes drawn at random.
    fn run(&self, random: &mut Xorshift, to: &mut Recorder) -> Result<()> {
        self.varied.run(&self.session, random)?;
        self.session.record_requests(to)
    }
}

/// A trace of each model that is not small, and two of all together; and of each model left out why.
pub fn traces(paths: &[PathBuf], mut done: impl FnMut()) -> (Vec<Trace>, Vec<String>) {
    let (mut models, mut traces, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    for path in paths {
        match alone(path) {
            Ok((planned, trace)) => {
                traces.extend(Some(trace).filter(|t| t.live_peak().0 >= SMALL_BYTES));
                models.push(planned);
            }
            Err(e) => left_out.push(format!("{}: {e}", path.display())),
        }
        done();
    }
    if !models.is_empty() {
        traces.extend(together(&models));
    }
    (traces, left_out)
}

/// All models loaded together and run in turn: once with each buffer by itself, once with an arena for each run as sessions have it, two runs
/// at a time.
fn together(models: &[Planned]) -> [Trace; 2] {
    let (mut buffers, mut arenas, mut random) = (Recorder::default(), Recorder::default(), Xorshift::new(6));
    let [of_buffers, of_arenas] =
        [&mut buffers, &mut arenas].map(|to| models.iter().flat_map(|m| m.load(to)).collect::<Vec<u32>>());
    let mut in_flight = VecDeque::new();
    for _ in 0..RUNS * models.len() {
        let model = &models[random.below(models.len())];
        // It ran before with shapes of the same kind; a run that it now refuses is left out.
        if model.run(&mut random, &mut buffers).is_ok() {
            in_flight.push_back(arenas.alloc(model.session.report().arena_bytes as u64));
        }
        if in_flight.len() > 2 {
            arenas.free_all(in_flight.pop_front());
        }
    }
    buffers.free_all(of_buffers);
    arenas.free_all(in_flight.into_iter().chain(of_arenas));
    [buffers.finish("graphs-together"), arenas.finish("graphs-arenas")]
}

fn alone(path: &Path) -> Result<(Planned, Trace)> {
    let planned = Planned::new(path)?;
    let (mut to, mut random) = (Recorder::default(), Xorshift::new(7));
    let weights = planned.load(&mut to);
    (0..RUNS).try_for_each(|_| planned.run(&mut random, &mut to))?;
    to.free_all(weights);
    let name = format!("graph-{}", planned.name);
    Ok((planned, to.finish(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::replay::Event;

    /// Buffers by themselves live no longer than in the arena: together they need what the plan's layout needs, at most.
    #[test]
    fn a_run_asks_for_what_its_plan_lays_out() {
        for path in files(Path::new("models")).unwrap() {
            let planned = Planned::new(&path).unwrap();
            let mut to = Recorder::default();
            planned.run(&mut Xorshift::new(1), &mut to).unwrap();
            let trace = to.finish("run");
            let frees = trace.events().iter().filter(|e| matches!(e, Event::Free { .. })).count();
            assert_eq!(frees, trace.buffers(), "{}: all is freed when a run ends", planned.name);
            let arena = planned.session.report().arena_bytes as u64;
            let (live, _) = trace.live_peak();
            println!("{}: arena {arena} bytes, buffers by themselves {live}", planned.name);
            let all: u64 = trace.events().iter().map(|e| if let Event::Alloc { bytes, .. } = e { *bytes } else { 0 }).sum();
            assert!(
                live >= arena / 2 && live <= all && (all > live || trace.buffers() < 4),
                "{}: {live} of {arena}",
                planned.name
            );
        }
    }

    #[test]
    fn traces_are_the_same_each_time() {
        let paths = [PathBuf::from("models/ppocr-cls.onnx"), PathBuf::from("no-such.onnx")];
        let (first, left_out) = traces(&paths, || ());
        let (again, _) = traces(&paths, || ());
        assert!(first == again && !first.is_empty());
        assert!(left_out.len() == 1 && left_out[0].contains("no-such.onnx"), "{left_out:?}");
        assert!(files(Path::new("src/cli")).unwrap_err().to_string().contains("no .onnx file"));
    }
}
