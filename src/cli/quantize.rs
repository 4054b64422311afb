//! `halfbyte quantize`: a model with 8-bit layers, as a file.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::convert::file_bytes;
use super::output::{print, print_json, table};
use super::progress;
use super::samples::SampleArgs;
use crate::base::size_text;
use crate::calibrate::Calibrator;
use crate::error::{Error, Result};
use crate::export::onnx;
use crate::optimize::quantize::{Convolutions, LayerReport, Products, Quantized, prepared};
use crate::optimize::{Biases, QuantizeOptions, Rounding, Size, Smoothing, quantize};
use crate::pass::layer::Refused;
use crate::pass::quantize::Bits;
use crate::session::Model;

/// Arguments of `quantize`.
#[derive(Args)]
pub struct QuantizeArgs {
    /// The ONNX file.
    pub model: PathBuf,
    /// Where to write the quantised model.
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Where samples are.
    #[command(flatten)]
    pub samples: SampleArgs,
    /// What matrix products with constant weights become.
    #[arg(long, value_enum, default_value = "rows-asymmetric")]
    pub products: ProductsName,
    /// What convolutions become; ranges need --calibrate.
    #[arg(long, value_enum, default_value = "static")]
    pub convolutions: ConvolutionsName,
    /// What convolutions of each channel by itself become, where convolutions have ranges.
    #[arg(long, value_enum, default_value = "static")]
    pub depthwise: ConvolutionsName,
    /// Leave embedding tables as they are.
    #[arg(long)]
    pub no_tables: bool,
    /// How ranges are chosen: min-max, percentile:99.99, mse or entropy.
    #[arg(long, default_value = "mse", value_parser = calibrator)]
    pub calibrator: Calibrator,
    /// How weights are stored: int8, int16, or int4:GROUP with a scale for so many weights, int4:GROUP:asymmetric with a zero point too; other than int8 with --products weights and
    /// --convolutions weights or keep.
    #[arg(long, default_value = "int8", value_parser = bits)]
    pub weights: Bits,
    /// How weights become integers; gptq needs --calibrate.
    #[arg(long, value_enum, default_value = "nearest")]
    pub rounding: RoundingName,
    /// How biases make up for the mean error of rounding; needs --calibrate.
    #[arg(long, value_enum, default_value = "in-order")]
    pub biases: BiasesName,
    /// Move large channels of inputs into weights by this strength, e.g. 0.5; a channel's size is its largest value, or with :POWER a power
    /// mean (2 is the root mean square); needs --calibrate.
    #[arg(long, value_name = "STRENGTH[:POWER]", value_parser = smoothing)]
    pub smooth: Option<Smoothing>,
    /// A node that stays as it is; may be given often.
    #[arg(long, value_name = "NODE")]
    pub keep: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
#[allow(missing_docs)]
pub enum ProductsName {
    Rows,
    RowsAsymmetric,
    Static,
    Weights,
    Keep,
}

#[derive(Clone, Copy, ValueEnum)]
#[allow(missing_docs)]
pub enum ConvolutionsName {
    Static,
    Weights,
    Keep,
}

impl From<ConvolutionsName> for Convolutions {
    fn from(name: ConvolutionsName) -> Self {
        match name {
            ConvolutionsName::Static => Convolutions::Static,
            ConvolutionsName::Weights => Convolutions::Weights,
            ConvolutionsName::Keep => Convolutions::Keep,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
#[allow(missing_docs)]
pub enum RoundingName {
    Nearest,
    Gptq,
}

#[derive(Clone, Copy, ValueEnum)]
#[allow(missing_docs)]
pub enum BiasesName {
    Keep,
    Alone,
    InOrder,
}

fn calibrator(text: &str) -> std::result::Result<Calibrator, String> {
    match text.split_once(':') {
        None if text == "min-max" => Ok(Calibrator::MinMax),
        None if text == "mse" => Ok(Calibrator::Mse),
        None if text == "entropy" => Ok(Calibrator::Entropy),
        Some(("percentile", p)) => match p.parse() {
            Ok(p) if (50.0..=100.0).contains(&p) => Ok(Calibrator::Percentile(p)),
            _ => Err(format!("{p:?} is no percentage from 50 to 100")),
        },
        _ => Err("expected min-max, percentile:P, mse or entropy".into()),
    }
}

fn smoothing(text: &str) -> std::result::Result<Smoothing, String> {
    let (strength, size) = match text.split_once(':') {
        None => (text, Size::Largest),
        Some((strength, power)) => match power.parse() {
            Ok(power) if (1..=16).contains(&power) => (strength, Size::Mean(power)),
            _ => return Err(format!("{power:?} is no power from 1 to 16")),
        },
    };
    match strength.parse() {
        Ok(strength) if (0.0..=1.0).contains(&strength) => Ok(Smoothing { strength, size }),
        _ => Err(format!("{strength:?} is no strength from 0 to 1")),
    }
}

fn bits(text: &str) -> std::result::Result<Bits, String> {
    match text.split_once(':') {
        None if text == "int8" => Ok(Bits::Eight),
        None if text == "int16" => Ok(Bits::Sixteen),
        None if text == "int4" => Ok(Bits::Four(32)),
        Some(("int4", rest)) => {
            let (group, is_asymmetric) = rest.strip_suffix(":asymmetric").map_or((rest, false), |group| (group, true));
            match group.parse() {
                Ok(group) if group > 1 && is_asymmetric => Ok(Bits::FourAsymmetric(group)),
                Ok(group) if group > 1 => Ok(Bits::Four(group)),
                _ => Err(format!("{group:?} is no number of weights from 2 on")),
            }
        }
        _ => Err("expected int8, int16, int4, int4:GROUP or int4:GROUP:asymmetric".into()),
    }
}

/// What was done, as JSON.
#[derive(serde::Serialize)]
struct Done<'a> {
    model: String,
    output: String,
    options: &'a QuantizeOptions,
    samples: usize,
    layers: &'a [LayerReport],
    refused: &'a [Refused],
    weight_bytes: Sizes,
    file_bytes: Sizes,
}

#[derive(serde::Serialize)]
struct Sizes {
    before: u64,
    after: u64,
    ratio: f64,
}

impl Sizes {
    fn new(before: u64, after: u64) -> Self {
        Sizes { before, after, ratio: before as f64 / (after as f64).max(1.0) }
    }
}

/// Quantises, writes the file, says what was done.
pub fn run(args: &QuantizeArgs) -> Result<ExitCode> {
    let model = progress::loading(&args.model, || Model::open(&args.model))?;
    let metadata = model.metadata.clone();
    let prepared = prepared(&model)?;
    let samples = args.samples.read(&prepared)?;
    let options = args.options();
    let bar = progress::bar(0, "calibrating");
    let quantized = quantize(&prepared, &options, samples.as_ref(), &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    if quantized.layers.iter().all(|l| l.scheme.is_none()) {
        return Err(nothing(&quantized));
    }
    onnx::write(&quantized.graph, &metadata, &args.output)?;
    let done = Done {
        model: args.model.display().to_string(),
        output: args.output.display().to_string(),
        options: &options,
        samples: samples.map_or(0, |s| s.len()),
        layers: &quantized.layers,
        refused: &quantized.refused,
        weight_bytes: Sizes::new(model.graph().constant_bytes() as u64, quantized.graph.constant_bytes() as u64),
        file_bytes: Sizes::new(file_bytes(&args.model), file_bytes(&args.output)),
    };
    if args.json {
        print_json(&done)?
    } else {
        show(&done)
    }
    Ok(ExitCode::SUCCESS)
}

impl QuantizeArgs {
    fn options(&self) -> QuantizeOptions {
        QuantizeOptions {
            products: match self.products {
                ProductsName::Rows => Products::Rows,
                ProductsName::RowsAsymmetric => Products::RowsAsymmetric,
                ProductsName::Static => Products::Static,
                ProductsName::Weights => Products::Weights,
                ProductsName::Keep => Products::Keep,
            },
            convolutions: self.convolutions.into(),
            depthwise: self.depthwise.into(),
            tables: !self.no_tables,
            calibrator: self.calibrator,
            bits: self.weights,
            rounding: match self.rounding {
                RoundingName::Nearest => Rounding::Nearest,
                RoundingName::Gptq => Rounding::Gptq,
            },
            biases: match self.biases {
                BiasesName::Keep => Biases::Keep,
                BiasesName::Alone => Biases::Alone,
                BiasesName::InOrder => Biases::InOrder,
            },
            smooth: self.smooth,
            keep: self.keep.clone(),
        }
    }
}

/// Why no file is written.
fn nothing(quantized: &Quantized) -> Error {
    let stayed = quantized.layers.iter().map(|l| format!("{}: {}", l.name, l.reason.as_deref().unwrap_or_default()));
    let refused = quantized.refused.iter().map(|r| format!("{}: {}", r.node, r.why));
    let mut why: Vec<String> = stayed.chain(refused).collect();
    if why.is_empty() {
        why.push("no product, convolution or table has constant f32 weights".into());
    }
    Error::BadInput(format!("no layer to quantise: {}", why.join("; ")))
}

fn show(done: &Done) {
    let mut layers = table(&["layer", "kind", "weights", "became", "weights' SQNR dB"]);
    for l in done.layers {
        let became = match (&l.scheme, &l.reason) {
            (Some(scheme), _) => format!("{scheme:?}"),
            (None, why) => format!("f32: {}", why.as_deref().unwrap_or("")),
        };
        let sqnr = l.weight_sqnr_db.map_or(String::new(), |db| format!("{db:.1}"));
        layers.add_row([l.name.clone(), format!("{:?}", l.kind), l.weights.to_string(), became, sqnr]);
    }
    print(&layers.to_string());
    for r in done.refused {
        print(&format!("left alone: {}: {}", r.node, r.why));
    }
    for (what, s) in [("weights", &done.weight_bytes), ("file", &done.file_bytes)] {
        print(&format!("{what}: {} to {}, {:.2} times smaller", size_text(s.before), size_text(s.after), s.ratio));
    }
    let stayed = done.layers.iter().filter(|l| l.scheme.is_none()).count();
    if stayed > 0 && done.samples == 0 {
        print(&format!("{stayed} layers stayed: ranges need samples (--calibrate FILE.npz)"));
    }
}
