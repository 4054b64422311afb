//! Removal of output channels and neurons, with all that they go through shrunk.

use super::prune::{Pruning, choose, grams};
use super::samples::Samples;
use crate::calibrate::channels::{Reader, remove_channels};
use crate::calibrate::reconstruct::{energy, portion};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::pass::channels::{Channels, follow, shrink};
use crate::pass::layer::{Layer, Refused, layers};
use crate::session::Model;

/// What became of a layer's output channels.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Narrowed {
    /// The layer.
    pub layer: String,
    /// Channels before.
    pub before: usize,
    /// Channels now.
    pub after: usize,
    /// The error of the outputs of those that read them on the calibration's inputs, relative to the outputs.
    pub relative_error: f64,
}

/// Removes a share of the output channels of each layer from which they can be followed to the layers that read them; those make up for
/// it. Layers one after the other, each on what the narrowed ones before give. Gives the model, what was narrowed and what was not, and why.
/// Errors when the model cannot run or no layer can be narrowed.
pub fn prune_channels(
    model: &Model,
    samples: &Samples,
    share: f64,
    how: &Pruning,
    mut progress: impl FnMut(usize, usize),
) -> Result<(Model, Vec<Narrowed>, Vec<Refused>)> {
    let (all, mut refused) = layers(model.graph());
    let chosen = choose(all, how, &mut refused);
    let (mut graph, mut narrowed) = (model.graph().clone(), Vec::new());
    for (i, layer) in chosen.iter().enumerate() {
        let (all, _) = layers(&graph);
        let Some(at) = all.iter().position(|l| l.nodes == layer.nodes) else { continue };
        match follow(&graph, &all, at) {
            Ok(channels) => narrowed.push(narrow(model, &mut graph, &all, at, &channels, samples, share, how)?),
            Err(why) => refused.push(Refused { node: layer.name.clone(), why }),
        }
        progress(i + 1, chosen.len());
    }
    if narrowed.is_empty() {
        let why: Vec<String> = refused.iter().map(|r| format!("{}: {}", r.node, r.why)).collect();
        return Err(Error::BadInput(format!("no layer whose channels can be removed: {}", why.join("; "))));
    }
    Ok((model.with_graph(graph), narrowed, refused))
}

#[allow(clippy::too_many_arguments)]
fn narrow(
    model: &Model,
    graph: &mut Graph,
    layers: &[Layer],
    at: usize,
    channels: &Channels,
    samples: &Samples,
    share: f64,
    how: &Pruning,
) -> Result<Narrowed> {
    let (mut readers, mut inputs) = (Vec::new(), Vec::new());
    for &(reader, width) in &channels.readers {
        let (weights, gram) =
            (layers[reader].weights(graph)?, grams(model, graph, &layers[reader], samples, how)?.swap_remove(0));
        readers.push(Reader::new(&weights, &gram, width)?);
        inputs.push((weights, gram));
    }
    let kept = remove_channels(&mut readers, channels.count, portion(channels.count, share))?;
    let weights: Vec<Vec<f32>> = readers.iter().map(Reader::weights).collect();
    let (mut error, mut size) = (0.0, 0.0);
    for ((before, gram), after) in inputs.iter().zip(&weights) {
        let wide: Vec<f64> = before.iter().map(|&w| f64::from(w)).collect();
        size += energy(&wide, gram);
        error += energy(&wide.iter().zip(after).map(|(b, a)| b - f64::from(*a)).collect::<Vec<_>>(), gram);
    }
    shrink(graph, layers, at, channels, &kept, &weights)?;
    let relative_error = if size > 0.0 { (error / size).sqrt() } else { 0.0 };
    Ok(Narrowed { layer: layers[at].name.clone(), before: channels.count, after: kept.len(), relative_error })
}
