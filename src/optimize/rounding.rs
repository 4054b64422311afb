//! Weights rounded with regard to what goes into their layer.

use super::Samples;
use super::prune::{Pruning, grams};
use crate::calibrate::reconstruct::{Curvature, Grid, round};
use crate::error::Result;
use crate::pass::layer::Layer;
use crate::pass::quantize::Stored;
use crate::session::Model;

/// How weights become integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Rounding {
    /// Each to the nearest.
    #[default]
    Nearest,
    /// One after the other, those that are left making up for the error on the samples (Frantar et al., "GPTQ", 2023).
    Gptq,
}

/// The weights of a product or convolution on the grid of `nearest`, such that its outputs on the samples stay as near as they can. Errors
/// when its inputs are not finite.
pub(super) fn gptq(model: &Model, layer: &Layer, nearest: &Stored, samples: &Samples) -> Result<Stored> {
    let graph = model.graph();
    let mut weights = layer.weights(graph)?;
    let (part, scales) = (weights.len() / layer.groups, nearest.scales.len() / layer.groups);
    let how = Pruning::default();
    let grams = grams(&how.stream(model, samples), graph, layer)?;
    let mut codes = Vec::with_capacity(weights.len());
    let groups = nearest.scales.chunks_exact(scales).zip(nearest.zeros.chunks_exact(scales));
    for ((weights, (scales, zeros)), gram) in weights.chunks_exact_mut(part).zip(groups).zip(&grams) {
        let limits = [nearest.bits.least(), nearest.bits.limit()];
        let grid = Grid { scales, zeros, group: nearest.group, limits };
        codes.extend(round(weights, &Curvature::new(gram)?, grid));
    }
    Ok(Stored { codes, ..nearest.clone() })
}
