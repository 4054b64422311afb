//! `halfbyte lora`: a model with adapters of low rank merged into its weights, or beside them to be chosen at run time, as a file.

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
use crate::pass::adapted::attach;
use crate::pass::lora::{Adapter, adapters, merge, targets};
use crate::session::Model;

/// The input that chooses among adapters at run time.
const INPUT: &str = "adapter";

/// Arguments of `lora`.
#[derive(Args)]
pub struct LoraArgs {
    /// The ONNX file.
    pub model: PathBuf,
    /// An adapter: pairs lora_A and lora_B, or lora_down and lora_up, by the names of what they adapt. May be given often.
    #[arg(long, value_name = "SAFETENSORS", required = true)]
    adapter: Vec<PathBuf>,
    /// Keep the adapters beside the weights: a new input `adapter`, an i32 for each item of the batch, says which one it takes, in the order
    /// given here from 0 on, -1 for none.
    #[arg(long)]
    runtime: bool,
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
struct Pair {
    /// The adapter, from 0 on.
    adapter: usize,
    target: String,
    layer: String,
    rank: usize,
    scale: f32,
    bytes_f32: usize,
    bytes: usize,
    /// Of the product of the rounded factors; absent when they are not rounded.
    sqnr_db: Option<f64>,
}

/// Merges or attaches, writes the file, says what was done.
pub fn run(args: &LoraArgs) -> Result<ExitCode> {
    let model = progress::loading(&args.model, || Model::open(&args.model))?;
    let mut graph = model.graph().clone();
    let (mut sets, mut pairs) = (Vec::new(), Vec::new());
    for (at, file) in args.adapter.iter().enumerate() {
        let mut set = adapters(&safetensors::open(file)?, args.alpha)?;
        let layers = targets(&graph, &set)?;
        for (adapter, layer) in set.iter_mut().zip(layers) {
            let pair = Pair { adapter: at, layer: layer.name.clone(), ..rounded(adapter, args) };
            if !args.runtime {
                merge(&mut graph, &layer, &product(&adapter.a, &adapter.b, adapter.rank), adapter.scale)?;
            }
            pairs.push(pair);
        }
        sets.push(set);
    }
    if args.runtime {
        attach(&mut graph, &sets, INPUT)?;
    }
    onnx::write(&graph, model.metadata(), &args.output)?;
    if args.json {
        print_json(&pairs)?
    } else {
        show(&pairs);
        let way = if args.runtime { "beside the weights: input `adapter` chooses" } else { "merged into the weights" };
        print(&format!("{} adapters {way}", sets.len()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Rounds the factors if they are to be, and says what that costs.
fn rounded(adapter: &mut Adapter, args: &LoraArgs) -> Pair {
    let bytes_f32 = 4 * (adapter.a.len() + adapter.b.len());
    let code = args.quantize.map(|b| Code { bits: if matches!(b, Bits::Int8) { 8 } else { 16 }, asymmetric: args.asymmetric });
    let (mut bytes, mut sqnr) = (bytes_f32, None);
    if let Some(code) = code {
        let exact = product(&adapter.a, &adapter.b, adapter.rank);
        let low = LowRank::new(&adapter.a, &adapter.b, adapter.rank, code);
        (adapter.a, adapter.b) = low.factors();
        (bytes, sqnr) = (low.bytes(), Some(sqnr_db(&exact, &low.product())));
    }
    let (target, layer) = (adapter.target.clone(), String::new());
    Pair { adapter: 0, target, layer, rank: adapter.rank, scale: adapter.scale, bytes_f32, bytes, sqnr_db: sqnr }
}

/// Of a product [rows x k] of rounded factors, in dB.
fn sqnr_db(want: &[f32], got: &[f32]) -> f64 {
    let mut difference = Difference::default();
    difference.add(want, got, 0);
    difference.sqnr_db()
}

fn show(pairs: &[Pair]) {
    let mut t = table(&["", "adapter of", "layer", "rank", "scale", "bytes as f32", "bytes", "SQNR dB"]);
    for m in pairs {
        let sqnr = m.sqnr_db.map_or(String::new(), |db| format!("{db:.1}"));
        let sizes = [m.bytes_f32.to_string(), m.bytes.to_string()];
        let [before, after] = sizes;
        t.add_row([
            m.adapter.to_string(),
            m.target.clone(),
            m.layer.clone(),
            m.rank.to_string(),
            m.scale.to_string(),
            before,
            after,
            sqnr,
        ]);
    }
    print(&t.to_string());
}
