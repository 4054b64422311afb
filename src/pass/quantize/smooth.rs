//! Large channels of a product's input moved into its weights.

use std::collections::{BTreeMap, HashMap};

use super::absorb::absorb;
use crate::base::Tensor;
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, NodeId, ValueId};
use crate::pass::emit::splice;
use crate::pass::layer::Layer;

/// Divides the channels of each input by its factors, and multiplies the weights of the products that read it by them (Xiao et al.,
/// "SmoothQuant", 2023), in the constants of what makes the input where it can take them in. The products must be all of `layers` that read the input. Errors where the factors do not fit.
pub fn smooth(graph: &Graph, layers: &[Layer], factors: &BTreeMap<ValueId, Vec<f32>>) -> Result<Graph> {
    let mut graph = graph.clone();
    // A value may be the weights of several products with different inputs: those stay.
    let mut before: HashMap<NodeId, Vec<Node>> = HashMap::new();
    let mut all_smoothed = Vec::new();
    for (&input, factors) in factors {
        let readers = || layers.iter().filter(|l| l.kind.is_product() && l.inputs(&graph).contains(&input));
        let readers: Vec<&Layer> = readers().collect();
        let Some(&first) = readers.iter().flat_map(|l| &l.nodes).min() else { continue };
        let name = graph.values[input.0].name.clone();
        let inverse: Vec<f32> = factors.iter().map(|f| 1.0 / f).collect();
        let inverse = graph.add_value(format!("{name}/smooth_factors"), Some(Tensor::vector(&inverse)));
        let smoothed = graph.add_value(format!("{name}/smooth"), None);
        all_smoothed.push(smoothed);
        let opset = graph.nodes[first].opset;
        let node = Node::new("", "Mul", opset, vec![Some(input), Some(inverse)], vec![Some(smoothed)]);
        before.entry(first).or_default().push(Node { name: format!("{name}/Smooth"), ..node });
        for layer in readers {
            let scaled = scaled(&graph, layer, factors)?;
            let name = format!("{}/smooth_weights", layer.name);
            let weight = graph.add_value(name, Some(scaled));
            for &at in &layer.nodes {
                graph.nodes[at].inputs[0] = Some(smoothed);
                graph.nodes[at].inputs[1] = Some(weight);
            }
        }
    }
    for (&at, nodes) in &mut before {
        nodes.push(graph.nodes[at].clone());
    }
    splice(&mut graph, before);
    all_smoothed.into_iter().try_for_each(|v| absorb(&mut graph, v))?;
    Ok(graph)
}

/// The weights with those of each input channel multiplied.
fn scaled(graph: &Graph, layer: &Layer, factors: &[f32]) -> Result<Tensor> {
    if factors.len() != layer.k {
        return Err(Error::BadInput(format!("{} factors do not fit the weights of {}", factors.len(), layer.name)));
    }
    let mut weights = layer.weights(graph)?;
    weights.chunks_exact_mut(layer.k).for_each(|row| row.iter_mut().zip(factors).for_each(|(w, f)| *w *= f));
    layer.tensor(graph, &weights)
}

/// Factors that share the difficulty: `size of input ^ strength / largest weight ^ (1 - strength)` for each channel, about 1 on average.
/// `layers`: all products that read the input. `None` where channels do not fit.
pub fn factors(graph: &Graph, layers: &[&Layer], input_sizes: &[f32], strength: f32) -> Option<Vec<f32>> {
    let channels = input_sizes.len();
    let mut largest_weights = vec![0f32; channels];
    for layer in layers {
        for row in layer.weights(graph).ok().filter(|_| layer.k == channels)?.chunks_exact(channels.max(1)) {
            largest_weights.iter_mut().zip(row).for_each(|(m, w)| *m = m.max(w.abs()));
        }
    }
    let factor = |(x, w): (&f32, &f32)| {
        let f = x.powf(strength) / w.powf(1.0 - strength);
        if f.is_finite() && f > 0.0 { f.clamp(1e-4, 1e4) } else { 1.0 }
    };
    let all: Vec<f32> = input_sizes.iter().zip(&largest_weights).map(factor).collect();
    let mean = all.iter().map(|f| f64::from(f.ln())).sum::<f64>() / channels.max(1) as f64;
    Some(all.iter().map(|f| f / mean.exp() as f32).collect())
}
