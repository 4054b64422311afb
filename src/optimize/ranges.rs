//! What quantisation asks of samples before it rounds: ranges, and the largest values of channels.

use std::collections::{BTreeMap, BTreeSet};

use super::{QuantizeOptions, Samples, Taps};
use crate::calibrate::{Calibrator, Observed, range};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::pass::layer::{Layer, all_layers};
use crate::pass::quantize::{Affine, factors, smooth};
use crate::session::{Model, Options};

/// The model with the inputs of its products smoothed by their largest values over the samples.
pub(super) fn smoothed(
    model: &Model,
    options: &QuantizeOptions,
    strength: f32,
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
    let mut largest: Vec<Vec<f32>> = vec![Vec::new(); inputs.len()];
    let runs = samples.batches(Samples::BATCH);
    let count = runs.len();
    for (done, sample) in runs.enumerate() {
        for (largest, t) in largest.iter_mut().zip(taps.run(&sample?)?) {
            let channels = t.shape().last().copied().unwrap_or(1);
            largest.resize(channels, 0.0);
            for row in t.values::<f32>()?.chunks_exact(channels.max(1)) {
                largest.iter_mut().zip(row).for_each(|(m, v)| *m = m.max(v.abs()));
            }
        }
        progress(done + 1, count);
    }
    let found =
        inputs.iter().zip(&largest).filter_map(|(input, l)| Some((*input, factors(graph, &by_input[input], l, strength)?)));
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
