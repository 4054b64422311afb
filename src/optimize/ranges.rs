//! What quantisation asks of samples before it rounds: ranges, and the sizes of channels.

use std::collections::{BTreeMap, BTreeSet};

use super::{QuantizeOptions, Samples, Taps};
use crate::calibrate::{Calibrator, Observed, range};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::pass::layer::{Layer, all_layers};
use crate::pass::quantize::{Affine, factors, smooth};
use crate::session::{Model, Options};

/// How channels of a product's input share their size with its weights.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Smoothing {
    /// How much of it goes into the weights: 0.5 is even.
    pub strength: f32,
    /// What the size of a channel is.
    pub size: Size,
}

/// The size of a channel over all samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Size {
    /// Its largest magnitude, as SmoothQuant has it; single rows decide.
    #[default]
    Largest,
    /// The power mean of its magnitudes: 2 is the root mean square; from larger ones to the largest.
    Mean(u8),
}

impl Size {
    /// What is kept of magnitudes, and another one.
    fn add(self, kept: f64, magnitude: f64) -> f64 {
        match self {
            Size::Largest => kept.max(magnitude),
            Size::Mean(power) => kept + magnitude.powi(power.into()),
        }
    }

    /// What was kept of `count` magnitudes, as a size.
    fn of(self, kept: f64, count: usize) -> f32 {
        match self {
            Size::Largest => kept as f32,
            Size::Mean(power) => (kept / count.max(1) as f64).powf(1.0 / f64::from(power.max(1))) as f32,
        }
    }
}

/// The model with the inputs of its products smoothed by their channels' sizes over the samples.
pub(super) fn smoothed(
    model: &Model,
    options: &QuantizeOptions,
    Smoothing { strength, size }: Smoothing,
    samples: &Samples,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Model> {
    let graph = model.graph();
    let (all, _) = all_layers(graph);
    let mut by_input: BTreeMap<ValueId, Vec<&Layer>> = BTreeMap::new();
    for layer in all.iter().filter(|l| l.kind.is_product() && !options.keeps(graph, l)) {
        // Weights that several inputs meet would need a copy for each.
        if let [input] = sources(graph, layer)[..] {
            by_input.entry(input).or_default().push(layer);
        }
    }
    let inputs: Vec<ValueId> = by_input.keys().copied().collect();
    let taps = Taps::new(model, &inputs, Options::default())?;
    let mut sizes: Vec<(Vec<f64>, usize)> = vec![Default::default(); inputs.len()];
    let runs = samples.batches(Samples::BATCH);
    let count = runs.len();
    for (done, sample) in runs.enumerate() {
        for ((kept, rows), t) in sizes.iter_mut().zip(taps.run(&sample?)?) {
            let channels = t.shape().last().copied().unwrap_or(1);
            kept.resize(channels, 0.0);
            for row in t.values::<f32>()?.chunks_exact(channels.max(1)) {
                kept.iter_mut().zip(row).for_each(|(kept, v)| *kept = size.add(*kept, v.abs().into()));
                *rows += 1;
            }
        }
        progress(done + 1, count);
    }
    let found = inputs.iter().zip(&sizes).filter_map(|(input, (kept, rows))| {
        let sizes: Vec<f32> = kept.iter().map(|&kept| size.of(kept, *rows)).collect();
        Some((*input, factors(graph, &by_input[input], &sizes, strength)?))
    });
    let chosen: Vec<Layer> = by_input.values().flatten().map(|l| (*l).clone()).collect();
    Ok(Model::from_graph(smooth(graph, &chosen, &found.collect())?))
}

/// The values that go into a layer, each once.
pub(super) fn sources(graph: &Graph, layer: &Layer) -> Vec<ValueId> {
    layer.inputs(graph).into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

/// Scale and zero point that cover a range.
fn affine((low, high): (f32, f32)) -> Affine {
    let scale = (high - low) / 255.0;
    if scale.is_nan() || scale <= 0.0 || !scale.is_finite() {
        return Affine { scale: 1.0, zero: 0 };
    }
    Affine { scale, zero: (-128.0 - low / scale).round_ties_even().clamp(-128.0, 127.0) as i8 }
}

/// Scales and zero points for values that share one each, by what they are over all samples.
pub(super) fn ranges(
    model: &Model,
    shared: &BTreeSet<Vec<ValueId>>,
    samples: &Samples,
    calibrator: Calibrator,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<BTreeMap<Vec<ValueId>, Affine>> {
    let values: Vec<ValueId> = shared.iter().flatten().copied().collect();
    let taps = Taps::new(model, &values, Options::default())?;
    let mut seen = vec![Observed::default(); shared.len()];
    let runs = samples.batches(Samples::BATCH);
    let count = runs.len();
    for (done, sample) in runs.enumerate() {
        let mut tensors = taps.run(&sample?)?.into_iter();
        for (seen, values) in seen.iter_mut().zip(shared) {
            tensors.by_ref().take(values.len()).try_for_each(|t| t.values::<f32>().map(|v| seen.add(&v)))?;
        }
        progress(done + 1, count);
    }
    Ok(shared.iter().cloned().zip(seen.iter().map(|s| affine(range(s, calibrator)))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_means_lie_between_the_mean_and_the_largest_value() {
        let size = |size: Size| size.of([3.0, 4.0].into_iter().fold(0.0, |kept, v| size.add(kept, v)), 2);
        assert_eq!((size(Size::Largest), size(Size::Mean(1))), (4.0, 3.5));
        assert!((size(Size::Mean(2)) - 12.5f32.sqrt()).abs() < 1e-6);
        let powers = [1, 2, 4, 16].map(|power| size(Size::Mean(power)));
        assert!(powers.windows(2).all(|w| w[0] < w[1]) && powers[3] < 4.0, "{powers:?}");
    }
}
