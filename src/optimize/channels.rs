//! Removal of output channels and neurons, with all that they go through shrunk.

use super::prune::{Pruning, choose, grams};
use super::samples::Samples;
use super::stream::Stream;
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
    let mut stream = how.stream(model, samples);
    for (i, layer) in chosen.iter().enumerate() {
        stream.forward(&graph, layer.nodes[0])?;
        let (all, _) = layers(&graph);
        let Some(at) = all.iter().position(|l| l.nodes == layer.nodes) else { continue };
        match follow(&graph, &all, at) {
            Ok(channels) => narrowed.push(narrow(&stream, &mut graph, &all, at, &channels, share)?),
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

fn narrow(stream: &Stream, graph: &mut Graph, layers: &[Layer], at: usize, channels: &Channels, share: f64) -> Result<Narrowed> {
    let (before, count) = (channels.count, portion(channels.count, share));
    let least = least_missed(stream, graph, layers, &channels.readers, (before, count))?;
    shrink(graph, layers, at, channels, &least.kept, &least.weights)?;
    Ok(Narrowed { layer: layers[at].name.clone(), before, after: least.kept.len(), relative_error: least.relative_error })
}

/// What is left when the channels are removed that their readers miss least.
pub(super) struct Least {
    /// Channels.
    pub kept: Vec<usize>,
    /// Of each reader, [rows x k].
    pub weights: Vec<Vec<f32>>,
    /// Of the readers' outputs.
    pub relative_error: f64,
}

/// Removes `count` of `channels` from what `readers`, with so many columns of each channel, are given.
pub(super) fn least_missed(
    stream: &Stream,
    graph: &Graph,
    layers: &[Layer],
    readers: &[(usize, usize)],
    (channels, count): (usize, usize),
) -> Result<Least> {
    let (mut reading, mut inputs) = (Vec::new(), Vec::new());
    for &(reader, width) in readers {
        let (weights, gram) = (layers[reader].weights(graph)?, grams(stream, graph, &layers[reader])?.swap_remove(0));
        reading.push(Reader::new(&weights, &gram, width)?);
        inputs.push((weights, gram));
    }
    let kept = remove_channels(&mut reading, channels, count)?;
    let weights: Vec<Vec<f32>> = reading.iter().map(Reader::weights).collect();
    let (mut error, mut size) = (0.0, 0.0);
    for ((before, gram), after) in inputs.iter().zip(&weights) {
        let wide: Vec<f64> = before.iter().map(|&w| f64::from(w)).collect();
        size += energy(&wide, gram);
        error += energy(&wide.iter().zip(after).map(|(b, a)| b - f64::from(*a)).collect::<Vec<_>>(), gram);
    }
    let relative_error = if size > 0.0 { (error / size).sqrt() } else { 0.0 };
    Ok(Least { kept, weights, relative_error })
}
