//! What can be typed.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::base::DType;
use crate::device::Device;
use crate::device::null::NullDevice;
use crate::error::{Error, Result};
use crate::hardware::{DeviceInfo, DeviceKind, nvidia};
use crate::session::{self, Model, Options, Precision, Session};

/// Runs, inspects and measures ONNX models.
#[derive(Parser)]
#[command(
    name = "halfbyte",
    version,
    about,
    after_help = "Exit codes: 0 done, 1 error, 77 the model needs something unsupported, 130 interrupted."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Run a model once and say what was done.
    #[command(
        after_help = "Example:\n  halfbyte run models/digits-cnn.onnx --inputs models/digits-cnn.in.npz --check-outputs models/digits-cnn.out.npz --compare-precisions"
    )]
    Run(super::run::RunArgs),
    /// Run a list of models in one process: a TSV of name, model, in.npz, out.npz.
    #[command(
        after_help = "Example:\n  printf 'mlp\\tmodels/digits-mlp.onnx\\tmodels/digits-mlp.in.npz\\t/tmp/out.npz\\n' > list.tsv\n  halfbyte suite list.tsv --json"
    )]
    Suite(super::suite::SuiteArgs),
    /// Show what a model holds, what it would cost, and everything unsupported at once.
    #[command(
        after_help = "Example:\n  halfbyte inspect models/ppocr-cls.onnx --dim 0=1 --dim 2=48 --dim 3=192\n  halfbyte inspect models/digits-cnn.onnx --device cuda:h200 --precision f16"
    )]
    Inspect(super::inspect::InspectArgs),
    /// Measure latency, throughput and memory of a model, matrix products (`bench gemm`), allocators on traces (`bench memory`), or the batch scheduler (`bench batching`).
    #[command(
        after_help = "Examples:\n  halfbyte bench models/digits-cnn.onnx --batch 8 --json > before.json\n  halfbyte bench models/digits-cnn.onnx --batch 8 --compare before.json --trace trace.json\n  halfbyte bench gemm --shapes 128x768x768 --dtype f32,u8s8 --tsv\n  halfbyte bench memory --policy torch,rmm --only bert-bucket\n  halfbyte bench memory --graphs models --traces my-traces --json\n  halfbyte bench batching --noise 0.2 --arrivals my-log.csv\n  halfbyte bench serve --ask digits-mlp --rate 500 --seconds 30"
    )]
    Bench(Box<super::bench::BenchArgs>),
    /// Store a float model's weights as f16 or bf16 in a standard ONNX file of half the size; its arithmetic stays f32.
    #[command(
        after_help = "Examples:\n  halfbyte convert models/digits-cnn.onnx -o digits-f16.onnx\n  halfbyte convert models/digits-cnn.onnx --to bf16 -o digits-bf16.onnx --json"
    )]
    Convert(super::convert::ConvertArgs),
    /// Run two models on the same inputs and show how far the second is from the first, their sizes and times.
    #[command(
        after_help = "Examples:\n  halfbyte compare models/digits-cnn.onnx models/digits-cnn-qdq.onnx --inputs models/digits-cnn.in.npz --min-sqnr 20\n  halfbyte compare a.onnx b.onnx --data data.npz --array x=test --samples 256 --json"
    )]
    Compare(super::compare::CompareArgs),
    /// List kernels, or all candidates for a problem with the pick marked and why the others are not.
    #[command(
        after_help = "Examples:\n  halfbyte kernels\n  halfbyte kernels --gemm 128x768x768 --dtype u8s8\n  halfbyte kernels --device h200 --gemm 128x768x768 --dtype f16\n  halfbyte kernels --conv 1x64x56x56x64x3\n  halfbyte kernels --model models/digits-cnn.onnx --node Conv"
    )]
    Kernels(super::kernels::KernelArgs),
    /// Measure which kernel is fastest for each problem of a model on a GPU; later runs use what was found.
    #[command(after_help = "Example:\n  halfbyte tune models/digits-cnn.onnx --device wgpu --budget 30")]
    Tune(super::tune::TuneArgs),
    /// Probe the hardware: what it has, what it reaches, and which kernels it would run.
    #[command(after_help = "Examples:\n  halfbyte probe\n  halfbyte probe --json")]
    Probe(super::probe::ProbeArgs),
    /// Make weights zero, or remove channels or blocks, the rest making up for it by what the samples show; writes an ONNX file.
    #[command(
        after_help = "Examples:\n  halfbyte prune model.onnx --calibrate data.npz --pattern 2:4 -o sparse.onnx\n  halfbyte prune model.onnx --calibrate data.npz --array input=calib --channels 0.25 -o narrow.onnx\n  halfbyte prune model.onnx --calibrate data.npz --blocks 1 -o short.onnx --json"
    )]
    Prune(super::prune::PruneArgs),
    /// Merge an adapter of low rank (LoRA) into a model's weights; writes an ONNX file.
    #[command(
        after_help = "Example:\n  halfbyte lora model.onnx --adapter adapter_model.safetensors --alpha 16 --quantize int8 -o adapted.onnx"
    )]
    Lora(super::lora::LoraArgs),
    /// Make the products and convolutions of a model work on 8-bit integers, and write it in standard operators.
    #[command(
        after_help = "Examples:\n  halfbyte quantize models/digits-mlp.onnx -o small.onnx\n  halfbyte quantize models/digits-cnn.onnx --calibrate data.npz --array x=images -o small.onnx --json"
    )]
    Quantize(super::quantize::QuantizeArgs),
    /// Quantise as much of a model as a budget of worse answers allows, and show by samples and measurements what became of it: a model, a report
    /// as JSON and as a page with charts.
    #[command(
        after_help = "Examples:\n  halfbyte optimize model.onnx --budget 1% --calibrate calib.npz --select data.npz --labels y --report report.json -o small.onnx\n  halfbyte optimize model.onnx --budget 0.5% --metric cosine --calibrate data.npz --array ids=calib --select data.npz --select-array ids=test -o small.onnx"
    )]
    Optimize(super::optimize::command::OptimizeArgs),
    /// Serve the models of a folder over HTTP and gRPC (Open Inference Protocol, version 2).
    #[cfg(feature = "serve")]
    #[command(
        after_help = "Examples:\n  halfbyte serve --models models\n  halfbyte serve --models models --http 0.0.0.0:8000 --api-key-file keys --tls-cert cert.pem --tls-key key.pem --target-p99 20ms"
    )]
    Serve(super::serve::ServeArgs),
    /// Show the memory of this machine's devices; or run models and show theirs: pools, accounts, leaks, whether it is steady.
    #[command(
        after_help = "Examples:\n  halfbyte memory --watch 2\n  halfbyte memory --prometheus\n  halfbyte memory models/digits-cnn.onnx models/ppocr-cls.onnx --vary --for 10m --svg memory.svg\n  halfbyte memory models/digits-cnn.onnx --limit 64MiB --snapshot s.json --torch s.pickle\n  halfbyte memory --open s.json --svg s.svg"
    )]
    Memory(super::memory::command::MemoryArgs),
}

/// How to run.
#[derive(Args, Clone)]
pub struct Running {
    /// Run on this device only: cpu, cuda, cuda:1 (the second one) or wgpu. inspect also takes a GPU that is not here, e.g.
    /// cuda:h200, and shows its plan.
    #[arg(long, value_parser = device)]
    pub device: Option<DeviceName>,
    /// Arithmetic of matrix products.
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: PrecisionName,
    /// Threads of CPU kernels; all cores when left out.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Prefer kernels whose name contains this (also HALFBYTE_CPU).
    #[arg(long)]
    pub kernel: Option<String>,
    /// Turn every step down into an error.
    #[arg(long)]
    pub strict: bool,
    /// Run the graph as it stands in the file.
    #[arg(long)]
    pub no_optimize: bool,
}

impl Running {
    /// A session on the device asked for; one that runs nothing on a GPU that is not here.
    pub fn session(&self, model: &Model, options: Options) -> Result<Session> {
        match &self.device {
            Some(DeviceName::Planned(info)) => Session::with_device(model, options, Arc::new(NullDevice::new((**info).clone())?)),
            _ => Session::new(model, options),
        }
    }

    /// The devices asked for, best first, to be shared by sessions; one that runs nothing of a GPU that is not here.
    pub fn devices(&self) -> Result<Vec<Arc<dyn Device>>> {
        match &self.device {
            Some(DeviceName::Planned(info)) => Ok(vec![Arc::new(NullDevice::new((**info).clone())?)]),
            _ => session::devices(&self.options(false)),
        }
    }

    /// Refuses a GPU that is not here.
    pub fn runs(&self) -> Result<()> {
        self.device.as_ref().map_or(Ok(()), |d| d.kind().map(drop))
    }

    /// As session options.
    pub fn options(&self, profile: bool) -> Options {
        let kind = self.device.as_ref().and_then(|d| d.kind().ok());
        let ordinal = self.device.as_ref().map_or(0, DeviceName::ordinal);
        Options {
            device: kind,
            ordinal,
            precision: self.precision.precision(),
            strict: self.strict,
            threads: self.threads,
            kernel: self.kernel.clone(),
            profile,
            no_optimize: self.no_optimize,
            ..Options::default()
        }
    }
}

/// A device by name.
#[derive(Clone)]
pub enum DeviceName {
    /// One of this machine, and which of its kind.
    Here(DeviceKind, usize),
    /// A GPU that need not be here.
    Planned(Box<DeviceInfo>),
}

impl DeviceName {
    /// The kind of a device that is here. Errors for one that is a description only.
    pub fn kind(&self) -> Result<DeviceKind> {
        match self {
            DeviceName::Here(kind, _) => Ok(*kind),
            DeviceName::Planned(info) => Err(description_only(info)),
        }
    }

    /// Which of its kind.
    pub fn ordinal(&self) -> usize {
        if let DeviceName::Here(_, ordinal) = self { *ordinal } else { 0 }
    }
}

fn description_only(info: &DeviceInfo) -> Error {
    Error::BadInput(format!("--device cuda:{} is a description only: `inspect` plans for it", info.name))
}

/// `cpu`, `cuda`, `cuda:1`, `cuda:h200`, `h200` or `wgpu`.
pub fn device(text: &str) -> Result<DeviceName, String> {
    let name = text.strip_prefix("cuda:").unwrap_or(text);
    if let Some(info) = nvidia::model(name) {
        return Ok(DeviceName::Planned(Box::new(info)));
    }
    let kind = match text.split(':').next() {
        Some("cpu") => DeviceKind::Cpu,
        Some("cuda") => DeviceKind::Cuda,
        Some("wgpu") => DeviceKind::Wgpu,
        _ => return Err(format!("devices are cpu, cuda, cuda:1, wgpu, or cuda: with {}", known())),
    };
    let ordinal = text.split_once(':').map_or(Ok(0), |(_, n)| n.parse());
    let ordinal = ordinal.map_err(|_| format!("{name:?} is neither a number nor one of {}", known()))?;
    Ok(DeviceName::Here(kind, ordinal))
}

fn known() -> String {
    nvidia::models().collect::<Vec<_>>().join(", ")
}

/// Precisions by name.
#[derive(Clone, Copy, ValueEnum)]
#[allow(missing_docs)]
pub enum PrecisionName {
    #[value(alias = "fp32")]
    F32,
    #[value(alias = "fp16")]
    F16,
    Int8,
}

impl PrecisionName {
    /// The session's name for it.
    pub fn precision(self) -> Precision {
        match self {
            PrecisionName::F32 => Precision::F32,
            PrecisionName::F16 => Precision::F16,
            PrecisionName::Int8 => Precision::Int8,
        }
    }
}

/// Where inputs come from.
#[derive(Args, Clone)]
pub struct Inputs {
    /// Inputs by name; random ones of the declared shapes when left out.
    #[arg(long)]
    pub inputs: Option<PathBuf>,
    /// Size of a named or numbered variable axis of random inputs, e.g. `--dim batch=8` or `--dim 0=8`; 1 when left out.
    #[arg(long = "dim", value_name = "NAME=SIZE", value_parser = dim)]
    pub dims: Vec<(String, usize)>,
    /// Size of the first axis of random inputs, where the model leaves it open.
    #[arg(long, value_name = "N", conflicts_with = "inputs")]
    pub batch: Option<usize>,
    /// Seed of random inputs.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

fn dim(text: &str) -> Result<(String, usize), String> {
    let (name, size) = text.split_once('=').ok_or("expected NAME=SIZE")?;
    Ok((name.to_string(), size.parse().map_err(|_| format!("{size:?} is no size"))?))
}

/// Sizes between `x`, e.g. `MxNxK`.
pub fn sizes<const N: usize>(text: &str, form: &str) -> Result<[usize; N], String> {
    let bad = || format!("{text:?} is not {form}");
    let sizes = text.split('x').map(|s| s.parse().map_err(|_| bad())).collect::<Result<Vec<usize>, _>>()?;
    sizes.try_into().map_err(|_| bad())
}

/// `MxNxK`.
pub fn shape(text: &str) -> Result<[usize; 3], String> {
    sizes(text, "MxNxK")
}

/// Types of a matrix product's operands by the name that `bench gemm` uses.
pub fn gemm_types(name: &str) -> Result<((DType, DType), bool)> {
    let (types, two_of_four) = name.strip_suffix("-2:4").map_or((name, false), |types| (types, true));
    Ok((gemm_dtypes(types)?, two_of_four))
}

/// Types of a product's operands by their name.
pub fn gemm_dtypes(name: &str) -> Result<(DType, DType)> {
    Ok(match name {
        "f32" => (DType::F32, DType::F32),
        "f16" => (DType::F16, DType::F16),
        "bf16" => (DType::BF16, DType::BF16),
        "u8s8" => (DType::U8, DType::I8),
        "s8s8" => (DType::I8, DType::I8),
        _ => return Err(Error::BadInput(format!("{name:?} is not f32, f16, bf16, u8s8 or s8s8"))),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn no_two_arguments_of_a_command_have_one_name() {
        super::Cli::command().debug_assert();
    }
}
