//! `halfbyte prune`: a model with fewer weights, channels or blocks, as a file.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Args};

use super::output::{print, print_json, table};
use super::progress;
use super::samples::SampleArgs;
use crate::calibrate::reconstruct::Sparsity;
use crate::error::{Error, Result};
use crate::export::onnx;
use crate::optimize::blocks::{Influence, remove_blocks};
use crate::optimize::channels::{Narrowed, prune_channels};
use crate::optimize::heads::prune_heads;
use crate::optimize::prune::{Pruned, Pruning, prune};
use crate::pass::layer::Refused;
use crate::session::Model;

/// Arguments of `prune`.
#[derive(Args)]
#[command(group(ArgGroup::new("what").required(true).args(["share", "pattern", "channels", "heads", "blocks"])))]
pub struct PruneArgs {
    /// The ONNX file.
    pub model: PathBuf,
    /// The file to write.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    samples: SampleArgs,
    /// Make this share of each layer's weights zero.
    #[arg(long, value_parser = share)]
    share: Option<f64>,
    /// Make two of every four weights in a row zero.
    #[arg(long, value_name = "2:4", value_parser = ["2:4"])]
    pattern: Option<String>,
    /// Remove this share of the output channels or neurons of each layer from which they can be followed.
    #[arg(long, value_parser = share)]
    channels: Option<f64>,
    /// Remove this share of the attention heads wherever they can be followed.
    #[arg(long, value_parser = share)]
    heads: Option<f64>,
    /// Put an affine map in the place of so many residual blocks, those that change least.
    #[arg(long, value_name = "N")]
    blocks: Option<usize>,
    /// Zero the smallest weights and leave the others as they are, for comparison.
    #[arg(long, conflicts_with_all = ["channels", "heads", "blocks"])]
    magnitude: bool,
    /// Times through the model, with shares that grow to the one asked for.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "share")]
    steps: usize,
    /// Also the first and the last layer.
    #[arg(long)]
    ends: bool,
    /// Leave layers alone whose name contains this; may be given often.
    #[arg(long, value_name = "NAME")]
    keep: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..1.0).contains(share));
    share.ok_or_else(|| format!("{text:?} is no share from 0 to less than 1"))
}

/// What was done.
#[derive(serde::Serialize, Default)]
struct Done {
    model: String,
    output: String,
    samples: usize,
    layers: Vec<Pruned>,
    channels: Vec<Narrowed>,
    blocks: Vec<Influence>,
    refused: Vec<Refused>,
    parameters_before: usize,
    parameters_after: usize,
    zeros_after: usize,
}

/// Prunes, writes the file, says what was done.
pub fn run(args: &PruneArgs) -> Result<ExitCode> {
    let model = progress::loading(&args.model, || Model::open(&args.model))?;
    let samples =
        args.samples.read(&model)?.ok_or_else(|| Error::BadInput("pruning needs samples: --calibrate FILE.npz".into()))?;
    let sparsity = args.share.map_or(Sparsity::TwoOfFour, Sparsity::Share);
    let (steps, keep) = (args.steps, args.keep.clone());
    let how = Pruning { sparsity, magnitude: args.magnitude, steps, ends: args.ends, keep, ..Pruning::default() };
    let bar = progress::bar(0, "pruning");
    let step = |done: usize, all: usize| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    };
    let mut done = Done { samples: samples.len(), parameters_before: parameters(&model).0, ..Done::default() };
    let pruned = if let Some(share) = args.channels {
        let (pruned, narrowed, refused) = prune_channels(&model, &samples, share, &how, step)?;
        (done.channels, done.refused) = (narrowed, refused);
        pruned
    } else if let Some(share) = args.heads {
        let (pruned, narrowed, refused) = prune_heads(&model, &samples, share, &how, step)?;
        (done.channels, done.refused) = (narrowed, refused);
        pruned
    } else if let Some(count) = args.blocks {
        let (pruned, influences) = remove_blocks(&model, &samples, count, (how.batch, &how.options), step)?;
        done.blocks = influences;
        pruned
    } else {
        let pruned = prune(&model, &samples, &how, step)?;
        (done.layers, done.refused) = (pruned.layers, pruned.refused);
        pruned.model
    };
    bar.finish_and_clear();
    onnx::write(pruned.graph(), pruned.metadata(), &args.output)?;
    (done.parameters_after, done.zeros_after) = parameters(&pruned);
    [done.model, done.output] = [&args.model, &args.output].map(|p| p.display().to_string());
    if args.json {
        print_json(&done)?
    } else {
        show(&done)
    }
    Ok(ExitCode::SUCCESS)
}

/// Numbers in floating-point constants, and how many of them are zero.
fn parameters(model: &Model) -> (usize, usize) {
    let constants = model.graph().values.iter().filter_map(|v| v.constant.as_ref()).filter(|t| t.dtype().is_float());
    constants.fold((0, 0), |(all, zeros), t| (all + t.numel(), zeros + t.to_f64().iter().filter(|v| **v == 0.0).count()))
}

fn show(done: &Done) {
    let (mut layers, mut channels) =
        (table(&["layer", "weights", "zero", "error"]), table(&["layer", "channels, heads", "left", "error"]));
    for l in &done.layers {
        let (zeros, error) = (format!("{:.1} %", 100.0 * l.zeros), format!("{:.4}", l.relative_error));
        layers.add_row([l.layer.clone(), l.weights.to_string(), zeros, error]);
    }
    for c in &done.channels {
        channels.add_row([c.layer.clone(), c.before.to_string(), c.after.to_string(), format!("{:.4}", c.relative_error)]);
    }
    let mut blocks = table(&["block", "influence", ""]);
    for b in &done.blocks {
        blocks.add_row([b.block.clone(), format!("{:.4}", b.influence), if b.removed { "removed" } else { "" }.into()]);
    }
    let tables = [(done.layers.len(), layers), (done.channels.len(), channels), (done.blocks.len(), blocks)];
    tables.iter().filter(|(rows, _)| *rows > 0).for_each(|(_, t)| print(&t.to_string()));
    done.refused.iter().for_each(|r| print(&format!("left alone: {}: {}", r.node, r.why)));
    let (before, after, zeros) = (done.parameters_before, done.parameters_after, done.zeros_after);
    print(&format!("{before} parameters, now {after}, of which {zeros} are zero; errors are relative to the outputs"));
}
