//! A driver that fails at the n-th call of a verb: the session steps down, answers rightly, and says why. And one that captures.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use halfbyte::cli::npz;
use halfbyte::device::Device;
use halfbyte::device::cpu::CpuDevice;
use halfbyte::device::gpu::{Driver, GpuDevice, Graph, Module, Resolved, Value};
use halfbyte::graph::Attr;
use halfbyte::hardware::{DeviceKind, nvidia};
use halfbyte::{DType, Error, Model, Options, Precision, Result, Session, Tensor, TensorView};

use super::cuda::Interpreted;
use super::draft::Draft;

const VERBS: [&str; 7] = ["allocate", "write", "read", "load", "launch", "event", "elapsed_us"];

/// Fails from the `from`-th call of `verb` on.
struct Failing {
    inner: Interpreted,
    verb: &'static str,
    from: usize,
    error: Error,
    calls: Arc<AtomicUsize>,
}

impl Failing {
    fn call(&self, verb: &str) -> Result<()> {
        let due = verb == self.verb && self.calls.fetch_add(1, Ordering::Relaxed) + 1 >= self.from;
        if due { Err(self.error.clone()) } else { Ok(()) }
    }
}

impl Driver for Failing {
    type Function = <Interpreted as Driver>::Function;
    type Event = ();

    fn is_pooled(&self) -> bool {
        self.inner.is_pooled()
    }
    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.call("allocate").and_then(|()| self.inner.allocate(bytes))
    }
    fn free(&self, address: u64) {
        self.inner.free(address);
    }
    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.call("write").and_then(|()| self.inner.write(address, bytes))
    }
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.call("read").and_then(|()| self.inner.read(address, bytes))
    }
    fn load(&self, module: &Module) -> Result<Self::Function> {
        self.call("load").and_then(|()| self.inner.load(module))
    }
    fn launch(&self, function: &Self::Function, launch: &Resolved) -> Result<()> {
        self.call("launch").and_then(|()| self.inner.launch(function, launch))
    }
    fn event(&self) -> Result<()> {
        self.call("event")
    }
    fn elapsed_us(&self, _: &(), _: &()) -> Result<f64> {
        self.call("elapsed_us").map(|()| 0.0)
    }
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}

fn errors() -> [Error; 2] {
    [
        Error::Device { device: "cuda:0".into(), why: "planted".into() },
        Error::OutOfMemory { device: "cuda:0".into(), needed_bytes: 2, available_bytes: 1 },
    ]
}

fn cpu() -> Arc<dyn Device> {
    Arc::new(CpuDevice::new(Some(1)).unwrap())
}

fn gpu<D: Driver + 'static>(driver: D) -> Arc<dyn Device> {
    Arc::new(GpuDevice::new(nvidia::model("h200").unwrap(), driver).unwrap())
}

#[test]
fn whatever_verb_fails_and_when_the_cpu_answers() {
    let model = Model::open("models/digits-cnn-qdq.onnx").unwrap();
    let inputs = npz::read("models/digits-cnn-qdq.in.npz".as_ref()).unwrap();
    let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    let want = npz::read("models/digits-cnn-qdq.out.npz".as_ref()).unwrap();
    for (v, verb) in VERBS.into_iter().enumerate() {
        for from in 1.. {
            let calls = Arc::new(AtomicUsize::new(0));
            let error = errors()[(v + from) % 2].clone();
            let driver = Failing { inner: Interpreted::new(1), verb, from, error: error.clone(), calls: calls.clone() };
            let options = Options { profile: true, threads: Some(1), ..Options::default() };
            let session = Session::with_devices(&model, options, vec![gpu(driver), cpu()]).unwrap();
            for _ in 0..2 {
                let outputs = session.run(&named).unwrap();
                for (name, want) in &want {
                    let (got, want) = (outputs.tensor(name).unwrap().to_f64(), want.to_f64());
                    assert!(halfbyte::cli::run::compare(&got, &want).1 > 0.999, "{verb} {from}: {got:?}");
                }
            }
            let report = session.report();
            if calls.load(Ordering::Relaxed) < from {
                assert!(report.device == DeviceKind::Cuda && from > 1, "{verb} is called at all: {:?}", report.notes);
                break;
            }
            let note = format!("stepped down from h200 f32: {error}");
            assert!(report.device == DeviceKind::Cpu && report.notes.contains(&note), "{verb} {from}: {:?}", report.notes);
        }
    }
}

#[test]
fn rungs_are_tried_by_device_and_then_by_precision() {
    let model = elementwise(false);
    let x = [0.5f32; 64];
    let failing = || {
        let calls = Arc::default();
        gpu(Failing { inner: Interpreted::new(1), verb: "allocate", from: 1, error: errors()[0].clone(), calls })
    };
    let options = |strict| Options { precision: Precision::F16, strict, ..Options::default() };
    let session = Session::with_devices(&model, options(false), vec![failing(), cpu()]).unwrap();
    session.run(&[("x", TensorView::of([1, 64], &x))]).unwrap();
    let report = session.report();
    let steps: Vec<_> = report.notes.iter().filter(|n| n.starts_with("stepped")).map(|n| n.split(": ").next().unwrap()).collect();
    assert_eq!(steps, ["stepped down from h200 f16", "stepped down from h200 f32"]);
    assert!(report.device == DeviceKind::Cpu && report.precision == Precision::F16);
    let strict = Session::with_devices(&model, options(true), vec![failing(), cpu()]).unwrap();
    assert!(matches!(strict.run(&[("x", TensorView::of([1, 64], &x))]), Err(Error::Device { .. })));
    assert!(Session::with_devices(&model, options(false), Vec::new()).is_err(), "no device");
}

/// Captures into plain lists; launches and replays are counted.
#[derive(Clone, Default)]
struct Capturing(Arc<Counts>);

struct Counts {
    inner: Interpreted,
    launches: AtomicUsize,
    replays: AtomicUsize,
}

impl Default for Counts {
    fn default() -> Self {
        Counts { inner: Interpreted::new(1), launches: AtomicUsize::new(0), replays: AtomicUsize::new(0) }
    }
}

type Owned = (<Interpreted as Driver>::Function, Module, [u32; 3], Vec<Value>);

struct List(Capturing, Mutex<Vec<Owned>>);

impl Graph for List {
    fn replay(&self) -> Result<()> {
        self.0.0.replays.fetch_add(1, Ordering::Relaxed);
        let all = self.1.lock().unwrap();
        all.iter().try_for_each(|(f, module, grid, values)| self.0.0.inner.launch(f, &Resolved { module, grid: *grid, values }))
    }
}

impl Driver for Capturing {
    type Function = <Interpreted as Driver>::Function;
    type Event = ();

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.0.inner.allocate(bytes)
    }
    fn free(&self, address: u64) {
        self.0.inner.free(address);
    }
    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.0.inner.write(address, bytes)
    }
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.0.inner.read(address, bytes)
    }
    fn load(&self, module: &Module) -> Result<Self::Function> {
        self.0.inner.load(module)
    }
    fn launch(&self, function: &Self::Function, launch: &Resolved) -> Result<()> {
        self.0.launches.fetch_add(1, Ordering::Relaxed);
        self.0.inner.launch(function, launch)
    }
    fn event(&self) -> Result<()> {
        Ok(())
    }
    fn elapsed_us(&self, _: &(), _: &()) -> Result<f64> {
        Ok(0.0)
    }
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
    fn capture(&self, launches: &[(&Self::Function, Resolved)]) -> Result<Option<Box<dyn Graph>>> {
        let own = launches.iter().map(|(f, l)| ((*f).clone(), l.module.clone(), l.grid, l.values.to_vec())).collect();
        Ok(Some(Box::new(List(self.clone(), Mutex::new(own)))))
    }
}

/// max(x + 1, 0) * x, with or without a mean of integers along the axis of one element before, which runs on the CPU.
fn elementwise(mean: bool) -> Model {
    let mut d = Draft::default();
    let x = d.input("x", DType::F32);
    let c = d.constant(Tensor::new([1, 1], &[1f32]).unwrap());
    let mut first = x;
    if mean {
        let axes = d.constant(Tensor::new([1], &[1i64]).unwrap());
        let whole = d.node("Cast", &[x], &[("to", Attr::Int(7))]);
        let same = d.node("ReduceMean", &[whole, axes], &[]);
        first = d.node("Cast", &[same], &[("to", Attr::Int(1))]);
    }
    let sum = d.node("Add", &[first, c], &[]);
    let soft = d.node("Relu", &[sum], &[]);
    let out = d.node("Mul", &[soft, x], &[]);
    d.model(&[out])
}

#[test]
fn later_runs_on_an_arena_are_one_graph_launch() {
    let driver = Capturing::default();
    let options = Options { no_optimize: true, ..Options::default() };
    let session = Session::with_device(&elementwise(false), options, gpu(driver.clone())).unwrap();
    let run = |v: f32| {
        let outputs = session.run(&[("x", TensorView::of([2, 1], &[v, -2.0]))]).unwrap();
        outputs.iter().next().unwrap().1.to_f64()
    };
    for (i, v) in [3f32, 4.0, 5.0, 6.0].into_iter().enumerate() {
        assert_eq!(run(v), [f64::from((v + 1.0) * v), 0.0]);
        let counted = [&driver.0.launches, &driver.0.replays].map(|n| n.load(Ordering::Relaxed));
        assert_eq!(counted, [3, i], "run {i}");
    }
}

#[test]
fn a_recording_with_a_step_on_the_host_is_not_captured() {
    let driver = Capturing::default();
    let session = Session::with_device(&elementwise(true), Options::default(), gpu(driver.clone())).unwrap();
    for v in [3f32, 4.0, 5.0] {
        let outputs = session.run(&[("x", TensorView::of([2, 1], &[v, -2.0]))]).unwrap();
        assert_eq!(outputs.iter().next().unwrap().1.to_f64(), [f64::from((v + 1.0) * v), 0.0]);
    }
    assert_eq!(driver.0.replays.load(Ordering::Relaxed), 0);
    assert_eq!(session.report().cpu_segments, 1, "{:?}", session.report().notes);
}
