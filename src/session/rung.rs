//! One way of running a model: a device and a precision.

use std::sync::{Arc, Mutex};

use crate::base::{DType, TensorView, lock};
use crate::device::Device;
use crate::device::api::Timing;
use crate::error::Result;
use crate::graph::{Graph, Node};
use crate::hardware::{self, DeviceKind};
use crate::memory::pressure::Level;
use crate::pass::narrow::Narrow;
use crate::pass::{self, PassOptions, WeightPrecision, siblings, top_product};
use crate::plan::{Plan, PlanOptions, Program, Run, fold};
use crate::session::source::Source;
use crate::session::{Options, Precision, Way};

/// A device and a precision to run in, made ready when it is first needed, and again when the device is another one.
pub(crate) struct Choice {
    source: Arc<Source>,
    precision: Precision,
    made: Mutex<Option<Arc<Rung>>>,
}

impl Choice {
    /// Nothing is made yet.
    pub fn new(source: Arc<Source>, precision: Precision) -> Self {
        Choice { source, precision, made: Mutex::default() }
    }

    /// For people.
    pub fn name(&self) -> String {
        format!("{} {:?}", self.source.device().info().name, self.precision).to_lowercase()
    }

    /// As reports tell it.
    pub fn way(&self, is_used: bool, failed: Option<String>) -> Way {
        let device = self.source.device();
        let info = device.info();
        Way { device: info.kind, device_name: info.name.clone(), precision: self.precision, is_used, failed }
    }

    /// The rung for the session's graph.
    pub fn rung(&self, graph: &Graph, options: &Options) -> Arc<Rung> {
        let device = self.source.device();
        let mut made = lock(&self.made);
        match &*made {
            Some(rung) if Arc::ptr_eq(rung.program.device(), &device) => rung.clone(),
            _ => made.insert(Arc::new(Rung::new(graph, device, self.precision, options))).clone(),
        }
    }

    /// Whether another runs on the same device.
    pub fn shares_device(&self, other: &Choice) -> bool {
        Arc::ptr_eq(&self.source, &other.source)
    }

    /// How short the device's memory is; `None` when nothing watches it.
    pub fn pressure(&self) -> Option<Level> {
        self.source.pressure()
    }

    /// Whether a rung whose run failed may be replaced by one on a device opened again: see [`Source::replaced`].
    pub fn replaced(&self, failed: &Rung) -> Result<bool> {
        self.source.replaced(failed.program.device())
    }
}

/// A device and a precision, with the program made for them.
pub(crate) struct Rung {
    /// Arithmetic of the heavy operators.
    pub precision: Precision,
    /// The optimised graph and its plans.
    pub program: Program,
    /// Passes that changed the graph, and how often.
    pub passes: Vec<(String, usize)>,
}

impl Rung {
    /// Optimises `graph` for `device` and `precision`.
    pub fn new(graph: &Graph, device: Arc<dyn Device>, precision: Precision, options: &Options) -> Self {
        Rung::make(graph, device, precision, options, false)
    }

    /// The same, with plans that keep what measuring each command needs.
    pub fn measured(graph: &Graph, device: Arc<dyn Device>, precision: Precision, options: &Options) -> Self {
        Rung::make(graph, device, precision, options, true)
    }

    fn make(graph: &Graph, device: Arc<dyn Device>, precision: Precision, options: &Options, measured: bool) -> Self {
        let mut graph = graph.clone();
        let mut passes = Vec::new();
        if !options.no_optimize {
            let host = hardware::cpu::info(1);
            let integers = pass::integers(&mut graph);
            let on_cpu = device.info().kind == DeviceKind::Cpu;
            let mut narrow = if on_cpu && precision == Precision::F32 { Narrow::find(&graph) } else { Narrow::default() };
            let folded = fold::fold(&mut graph, &host);
            narrow.locate(&graph);
            let weights = match precision {
                Precision::F32 => None,
                Precision::F16 => Some(WeightPrecision::F16),
                Precision::Int8 => Some(WeightPrecision::Int8),
            };
            let (optimized, counts) = pass::optimize(graph, &PassOptions { weights });
            graph = optimized;
            let folded = folded + fold::fold(&mut graph, &host);
            let kept = narrow.restore(&mut graph);
            let top = top_product::fuse(&mut graph, device.info().kind);
            let joined = if on_cpu { siblings::join(&mut graph) } else { 0 };
            let folded = folded + if joined > 0 { fold::fold(&mut graph, &host) } else { 0 };
            passes.extend((joined > 0).then(|| ("products of the same rows".to_string(), joined)));
            passes.extend((kept > 0).then(|| ("weights as they are stored".to_string(), kept)));
            passes.extend((top > 0).then(|| ("largest results of products".to_string(), top)));
            passes.extend((integers > 0).then(|| ("integers between quantised tensors".to_string(), integers)));
            passes.push(("fold constants".to_string(), folded));
            passes.extend(counts);
        }
        let wanted = options.kernel.clone().or_else(|| std::env::var("HALFBYTE_CPU").ok()).filter(|w| !w.is_empty());
        let halves = matches!(device.info().kind, DeviceKind::Cuda | DeviceKind::Wgpu)
            && precision != Precision::F32
            && !options.no_optimize;
        let storage = halves.then_some(DType::F16);
        let plans = PlanOptions { wanted, no_fuse: options.no_optimize, strict: options.strict, storage, measured };
        // What passes read in the file and made other constants of; a plan reads the rest again.
        graph.files.iter().for_each(|file| file.let_go(file.as_ref()));
        let program = Program::new(graph, device, plans);
        Rung { precision, program, passes }
    }

    /// What this precision does not cover: heavy operators that stay as the model says.
    pub fn notes(&self) -> Option<String> {
        let heavy = |op: &str| matches!(op, "Conv" | "ConvTranspose" | "MatMul" | "Gemm" | "LSTM" | "GRU" | "RNN");
        let as_is = |n: &Node| n.domain.is_empty() && heavy(&n.op) && !n.attrs.contains_key("weight_precision");
        let stay = self.program.graph().nodes.iter().filter(|n| as_is(n)).count();
        let note = || {
            format!(
                "{:?} changes products and convolutions with constant weights only: {stay} heavy nodes stay as the model says",
                self.precision
            )
        };
        (self.precision != Precision::F32 && stay > 0).then(note)
    }

    /// Runs on inputs in the graph's order.
    pub fn run(&self, inputs: &[Option<TensorView>], profile: bool) -> Result<Run> {
        self.program.run(inputs, profile)
    }
}

/// The plans of a run with their timings.
pub(crate) type Profile = Vec<(Arc<Plan>, Vec<Timing>)>;
