//! Removal of residual blocks that change little, an affine map in the place of each.

use super::samples::Samples;
use super::taps::Taps;
use crate::base::Tensor;
use crate::calibrate::cholesky::{DAMPING, damp, solve_rows};
use crate::calibrate::gram::Gram;
use crate::error::{Error, Result};
use crate::graph::ValueId;
use crate::pass::layer::transposed;
use crate::pass::residual::{Block, blocks, replace};
use crate::session::{Model, Options};

/// A block that could be removed.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Influence {
    /// The node that ends it.
    pub block: String,
    /// 1 less the mean cosine between what goes in and what comes out, over all positions (Men and others, "ShortGPT", 2024).
    pub influence: f64,
    /// Whether it was removed.
    pub removed: bool,
}

/// Removes the block of the least influence `count` times, measuring again after each. Gives the model, and the influence of each block
/// when it was measured last. Errors when there are not as many blocks.
pub fn remove_blocks(
    model: &Model,
    samples: &Samples,
    count: usize,
    (batch, options): (usize, &Options),
    mut progress: impl FnMut(usize, usize),
) -> Result<(Model, Vec<Influence>)> {
    let (mut model, mut removed) = (model.clone(), Vec::new());
    let mut left = Vec::new();
    for done in 0..count {
        let all = blocks(model.graph());
        let influences = influences(&model, &all, samples, batch, options)?;
        let of =
            |(block, influence): (&Block, &f64)| Influence { block: block.name.clone(), influence: *influence, removed: false };
        left = all.iter().zip(&influences).map(of).collect();
        let fits = (0..all.len()).filter(|&i| influences[i].is_finite());
        let Some(least) = fits.min_by(|&a, &b| influences[a].total_cmp(&influences[b])) else {
            return Err(Error::BadInput(format!("{count} residual blocks asked for, {done} could be removed")));
        };
        let (weights, offset) = affine(&model, &all[least], samples, batch, options)?;
        let mut graph = model.graph().clone();
        replace(&mut graph, &all[least], &weights, &offset)?;
        model = model.with_graph(graph);
        removed.push(Influence { removed: true, ..left.remove(least) });
        progress(done + 1, count);
    }
    removed.extend(left);
    Ok((model, removed))
}

/// The vectors of all positions, one after the other, and their length.
fn rows(tensor: &Tensor, convolutional: bool) -> Result<(Vec<f32>, usize)> {
    let (values, shape) = (tensor.values::<f32>()?, tensor.shape());
    if !convolutional {
        return Ok((values.to_vec(), shape.last().copied().unwrap_or(1)));
    }
    let c = shape.get(1).copied().unwrap_or(1);
    let image = shape[1..].iter().product::<usize>().max(1);
    Ok((values.chunks_exact(image).flat_map(|i| transposed(i, c, image / c.max(1))).collect(), c))
}

/// The influence of each block; infinite where input and output differ in shape or type.
fn influences(model: &Model, all: &[Block], samples: &Samples, batch: usize, options: &Options) -> Result<Vec<f64>> {
    let values: Vec<ValueId> = all.iter().flat_map(|b| [b.input, b.output]).collect();
    let taps = Taps::new(model, &values, options.clone())?;
    let (mut sums, mut counts) = (vec![0.0; all.len()], vec![0; all.len()]);
    for sample in samples.batches(batch) {
        for (i, ends) in taps.run(&sample?)?.chunks_exact(2).enumerate() {
            if ends[0].shape() != ends[1].shape() || ends.iter().any(|t| t.values::<f32>().is_err()) {
                sums[i] = f64::NEG_INFINITY;
                continue;
            }
            let ((x, c), (y, _)) = (rows(&ends[0], all[i].convolutional)?, rows(&ends[1], all[i].convolutional)?);
            sums[i] += x.chunks(c.max(1)).zip(y.chunks(c.max(1))).map(|(x, y)| cosine(x, y)).sum::<f64>();
            counts[i] += x.len() / c.max(1);
        }
    }
    Ok(sums.iter().zip(counts).map(|(sum, n)| 1.0 - sum / n.max(1) as f64).collect())
}

fn cosine(x: &[f32], y: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(x, y) / (dot(x, x) * dot(y, y)).sqrt().max(1e-30)
}

/// The affine map that is nearest to a block: weights [inputs x outputs] and offset. Ridge regression of what the block adds, so that
/// what the samples do not tell stays as it is.
fn affine(model: &Model, block: &Block, samples: &Samples, batch: usize, options: &Options) -> Result<(Vec<f32>, Vec<f32>)> {
    let taps = Taps::new(model, &[block.input, block.output], options.clone())?;
    let mut both: Option<Gram> = None;
    for sample in samples.batches(batch) {
        let ends = taps.run(&sample?)?;
        let ((x, c), (y, _)) = (rows(&ends[0], block.convolutional)?, rows(&ends[1], block.convolutional)?);
        let joined: Vec<f32> = x.chunks(c).zip(y.chunks(c)).flat_map(|(x, y)| x.iter().chain(y).copied()).collect();
        both.get_or_insert_with(|| Gram::new(2 * c)).add(&joined);
    }
    let gram = both.ok_or_else(|| Error::BadInput("no samples".into()))?;
    let (c, mean, count) = (gram.columns() / 2, gram.mean(), gram.rows() as f64);
    let covariance = |i: usize, j: usize| gram.product(i, j) - count * mean[i] * mean[j];
    let pairs = || (0..c).flat_map(|i| (0..c).map(move |j| (i, j)));
    let mut inner: Vec<f64> = pairs().map(|(i, j)| covariance(i, j)).collect();
    // Row by row what comes out less what goes in.
    let mut map: Vec<f64> = pairs().map(|(out, j)| covariance(c + out, j) - covariance(out, j)).collect();
    damp(&mut inner, c, DAMPING);
    solve_rows(&inner, c, &mut map)?;
    map.iter_mut().step_by(c + 1).for_each(|v| *v += 1.0);
    let offset = (0..c).map(|o| (mean[c + o] - (0..c).map(|j| map[o * c + j] * mean[j]).sum::<f64>()) as f32).collect();
    Ok((pairs().map(|(i, out)| map[out * c + i] as f32).collect(), offset))
}
