//! `halfbyte lora`: a model with an adapter of low rank merged into its weights, as a file.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::output::{print, print_json, table};
use super::progress;
use crate::calibrate::compare::Difference;
use crate::calibrate::low_rank::{Code, LowRank, product};
use crate::error::Result;
use crate::export::onnx;
use crate::load::safetensors;
use crate::pass::lora::{adapters, merge, targets};
use crate::session::Model;

/// Arguments of `lora`.
#[derive(Args)]
pub struct LoraArgs {
    /// The ONNX file.
    pub model: PathBuf,
    /// The adapter: pairs lora_A and lora_B, or lora_down and lora_up, by the names of what they adapt.
    #[arg(long, value_name = "SAFETENSORS")]
    adapter: PathBuf,
    /// The file to write.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// lora_alpha of the adapter's configuration: factors are multiplied by alpha / rank. 1 without, unless the file has it.
    #[arg(long)]
    alpha: Option<f32>,
    /// Round the factors to integers first, with one scale for each rank.
    #[arg(long, value_enum)]
    quantize: Option<Bits>,
    /// With zero points.
    #[arg(long, requires = "quantize")]
    asymmetric: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Bits {
    Int8,
    Int16,
}

/// What became of an adapter's pair.
#[derive(serde::Serialize)]
struct Merged {
    target: String,
    layer: String,
    rank: usize,
    scale: f32,
    bytes_f32: usize,
    bytes: usize,
    /// Of the product of the rounded factors; absent when they are not rounded.
    sqnr_db: Option<f64>,
}

/// Merges, writes the file, says what was done.
pub fn run(args: &LoraArgs) -> Result<ExitCode> {
    let model = progress::loading(&args.model, || Model::open(&args.model))?;
    let adapters = adapters(&safetensors::open(&args.adapter)?, args.alpha)?;
    let mut graph = model.graph().clone();
    let mut merged = Vec::new();
    for (adapter, layer) in adapters.iter().zip(targets(&graph, &adapters)?) {
        let change = product(&adapter.a, &adapter.b, adapter.rank);
        let bytes_f32 = 4 * (adapter.a.len() + adapter.b.len());
        let bits = args.quantize.map(|b| if matches!(b, Bits::Int8) { 8 } else { 16 });
        let rounded = bits.map(|bits| {
            let code = Code { bits, asymmetric: args.asymmetric };
            LowRank::new(&adapter.a, &adapter.b, adapter.rank, code)
        });
        let (used, bytes) = rounded.as_ref().map_or((None, bytes_f32), |r| (Some(r.product()), r.bytes()));
        merge(&mut graph, &layer, used.as_ref().unwrap_or(&change), adapter.scale)?;
        merged.push(Merged {
            target: adapter.target.clone(),
            layer: layer.name.clone(),
            rank: adapter.rank,
            scale: adapter.scale,
            bytes_f32,
            bytes,
            sqnr_db: used.map(|used| sqnr_db(&change, &used)),
        });
    }
    onnx::write(&graph, model.metadata(), &args.output)?;
    if args.json {
        print_json(&merged)?
    } else {
        show(&merged)
    }
    Ok(ExitCode::SUCCESS)
}

/// Of a product [rows x k] of rounded factors, in dB.
fn sqnr_db(want: &[f32], got: &[f32]) -> f64 {
    let mut difference = Difference::default();
    difference.add(want, got, 0);
    difference.sqnr_db()
}

fn show(merged: &[Merged]) {
    let mut t = table(&["adapter of", "layer", "rank", "scale", "bytes as f32", "bytes", "SQNR dB"]);
    for m in merged {
        let sqnr = m.sqnr_db.map_or(String::new(), |db| format!("{db:.1}"));
        let sizes = [m.bytes_f32.to_string(), m.bytes.to_string()];
        let [before, after] = sizes;
        t.add_row([m.target.clone(), m.layer.clone(), m.rank.to_string(), m.scale.to_string(), before, after, sqnr]);
    }
    print(&t.to_string());
}
