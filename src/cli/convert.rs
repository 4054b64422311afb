//! `halfbyte convert`: a float model with its weights stored with 16 bits, as a standard file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::args::Inputs;
use super::inputs::inputs;
use super::output::{print, print_json, table};
use super::progress;
use crate::base::{DType, size_text};
use crate::error::{Error, Result};
use crate::export::onnx;
use crate::hardware::DeviceKind;
use crate::optimize::{Within, halve_within};
use crate::pass::half::{Halved, halve};
use crate::session::{Model, Options};

/// Arguments of `convert`.
#[derive(Args)]
pub struct ConvertArgs {
    /// The ONNX file.
    pub model: PathBuf,
    /// How weights are stored.
    #[arg(long, value_enum, default_value = "f16")]
    to: Stored,
    /// The file to write.
    #[arg(long, short)]
    output: PathBuf,
    /// The largest difference of an output over its largest magnitude: weights that move the answers further stay f32.
    #[arg(long, default_value_t = 1e-3)]
    tolerance: f64,
    /// Store all weights that fit, whatever the answers become; runs nothing.
    #[arg(long)]
    no_check: bool,
    #[command(flatten)]
    inputs: Inputs,
    /// Write the weights in a file of their own, OUTPUT.data.
    #[arg(long)]
    external: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// 16-bit types by name.
#[derive(Clone, Copy, ValueEnum)]
enum Stored {
    #[value(alias = "fp16")]
    F16,
    Bf16,
}

#[derive(serde::Serialize)]
struct Conversion {
    model: String,
    output: String,
    stored: DType,
    file_bytes_before: u64,
    file_bytes_after: u64,
    weights: Halved,
    /// The largest difference of an output over its largest magnitude, on the inputs given or made; `None` when nothing was run.
    max_relative_error: Option<f64>,
    /// The same if all weights that fit were stored so.
    max_relative_error_of_all: Option<f64>,
}

/// Runs the subcommand.
pub fn convert(args: &ConvertArgs) -> Result<ExitCode> {
    let model = progress::loading(&args.model, || Model::open(&args.model))?;
    let stored = match args.to {
        Stored::F16 => DType::F16,
        Stored::Bf16 => DType::BF16,
    };
    let (graph, weights, error) = if args.no_check {
        let mut graph = model.graph().clone();
        let weights = halve(&mut graph, stored, &|_| true);
        (graph, weights, None)
    } else {
        let within = checked(&model, stored, args)?;
        (within.graph, within.weights, Some((within.error, within.error_of_all)))
    };
    if weights.converted.is_empty() {
        let kept = weights.kept.first().map_or("there is none".into(), |k| format!("{}: {}", k.name, k.why));
        return Err(Error::BadInput(format!("{}: no f32 constant can be stored with 16 bits ({kept})", args.model.display())));
    }
    let write = if args.external { onnx::write_external } else { onnx::write };
    progress::loading(&args.model, || write(&graph, model.metadata(), &args.output))?;
    let [model, output] = [&args.model, &args.output].map(|p| p.display().to_string());
    let (file_bytes_before, file_bytes_after) = (file_bytes(&args.model), file_bytes(&args.output));
    let done = Conversion {
        model,
        output,
        stored,
        file_bytes_before,
        file_bytes_after,
        weights,
        max_relative_error: error.map(|e| e.0),
        max_relative_error_of_all: error.map(|e| e.1),
    };
    if args.json {
        print_json(&done)?
    } else {
        show(&done)
    }
    Ok(ExitCode::SUCCESS)
}

/// As many weights as the tolerance allows, on the inputs given or made.
fn checked(model: &Model, stored: DType, args: &ConvertArgs) -> Result<Within> {
    let options = Options { device: Some(DeviceKind::Cpu), ..Options::default() };
    let bar = progress::bar(1, "trying");
    let mut step = |done: usize, total: usize| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    };
    let found = inputs(model, &args.inputs)
        .and_then(|sample| halve_within(model, stored, &[sample], args.tolerance, &options, &mut step));
    bar.finish_and_clear();
    found.map_err(|e| match e {
        Error::BadInput(why) => Error::BadInput(format!("{why} (answers are checked: give --inputs, or --no-check)")),
        other => other,
    })
}

/// Bytes of a model's file, with those of the weights' file that this program writes beside it.
pub fn file_bytes(path: &Path) -> u64 {
    let bytes = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
    let beside = path.with_file_name(format!("{}.data", path.file_name().unwrap_or_default().to_string_lossy()));
    bytes(path) + bytes(&beside)
}

fn show(c: &Conversion) {
    let w = &c.weights;
    let mut sizes = table(&["", "before", "after", "smaller"]);
    for (what, before, after) in
        [("file", c.file_bytes_before, c.file_bytes_after), ("weights", w.bytes_before as u64, w.bytes_after as u64)]
    {
        let ratio = format!("{:.2} x", before as f64 / after.max(1) as f64);
        sizes.add_row([what.to_string(), size_text(before), size_text(after), ratio]);
    }
    print(&sizes.to_string());
    print(&format!("{} constants are stored as {} and widened to f32 where they are used", w.converted.len(), c.stored));
    print(&format!("{} values are below the normal range now, {} became 0", w.subnormal, w.zeroed));
    if let (Some(error), Some(all)) = (c.max_relative_error, c.max_relative_error_of_all) {
        print(&format!(
            "outputs differ by at most {error:.1e} of their range; {all:.1e} with all weights (--tolerance says how much may be)"
        ));
    }
    for kept in &w.kept {
        print(&format!("stays f32: {} ({})", kept.name, kept.why));
    }
}
