//! Large channels of a product's input moved into its weights.

use std::collections::{BTreeMap, HashMap};

use super::layers::{Kind, Layer};
use crate::base::Tensor;
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, NodeId, ValueId};
use crate::pass::emit::splice;

/// Divides the channels of each input by its factors, and multiplies the weights of the products that read it by them (Xiao et al.,
/// "SmoothQuant", 2023). The products must be all of `layers` that read the input. Errors where the factors do not fit.
pub fn smooth(graph: &Graph, layers: &[Layer], factors: &BTreeMap<ValueId, Vec<f32>>) -> Result<Graph> {
    let mut graph = graph.clone();
    // A value may be the weights of several products with different inputs: those stay.
    let mut before: HashMap<NodeId, Vec<Node>> = HashMap::new();
    for (&input, factors) in factors {
        let readers: Vec<&Layer> = layers.iter().filter(|l| l.input == input && l.kind.is_product()).collect();
        let Some(first) = readers.iter().map(|l| l.node).min() else { continue };
        let name = graph.values[input.0].name.clone();
        let inverse: Vec<f32> = factors.iter().map(|f| 1.0 / f).collect();
        let inverse = graph.add_value(format!("{name}/smooth_factors"), Some(Tensor::vector(&inverse)));
        let smoothed = graph.add_value(format!("{name}/smooth"), None);
        let opset = graph.nodes[first].opset;
        let node = Node::new("", "Mul", opset, vec![Some(input), Some(inverse)], vec![Some(smoothed)]);
        before.entry(first).or_default().push(Node { name: format!("{name}/Smooth"), ..node });
        for layer in readers {
            let scaled = scaled(&graph, layer, factors)?;
            let name = format!("{}/smooth_weights", layer.name);
            let weight = graph.add_value(name, Some(scaled));
            graph.nodes[layer.node].inputs[0] = Some(smoothed);
            graph.nodes[layer.node].inputs[1] = Some(weight);
        }
    }
    for (&at, nodes) in &mut before {
        nodes.push(graph.nodes[at].clone());
    }
    splice(&mut graph, before);
    Ok(graph)
}

/// The weights with the row of each input channel multiplied.
fn scaled(graph: &Graph, layer: &Layer, factors: &[f32]) -> Result<Tensor> {
    let unfit = || Error::BadInput(format!("{} factors do not fit the weights of {}", factors.len(), layer.name));
    let weights = graph.constant(layer.weight).ok_or_else(unfit)?;
    let &[rows, columns] = &weights.shape()[..] else { return Err(unfit()) };
    let by_column = layer.kind == Kind::TransposedProduct;
    if factors.len() != if by_column { columns } else { rows } {
        return Err(unfit());
    }
    let values = weights.values::<f32>()?;
    let channel = |i: usize| if by_column { i % columns } else { i / columns };
    let all: Vec<f32> = values.iter().enumerate().map(|(i, w)| w * factors[channel(i)]).collect();
    Tensor::new(weights.shape().clone(), &all)
}

/// Factors that share the difficulty: `largest input ^ strength / largest weight ^ (1 - strength)` for each channel, about 1 on average.
/// `weights`: those of all products that read the input.
pub fn factors(graph: &Graph, layers: &[&Layer], largest_inputs: &[f32], strength: f32) -> Option<Vec<f32>> {
    let channels = largest_inputs.len();
    let mut largest_weights = vec![0f32; channels];
    for layer in layers {
        let weights = graph.constant(layer.weight)?;
        let &[rows, columns] = &weights.shape()[..] else { return None };
        let by_column = layer.kind == Kind::TransposedProduct;
        if channels != if by_column { columns } else { rows } {
            return None;
        }
        for (i, w) in weights.values::<f32>().ok()?.iter().enumerate() {
            let channel = if by_column { i % columns } else { i / columns };
            largest_weights[channel] = largest_weights[channel].max(w.abs());
        }
    }
    let factor = |(x, w): (&f32, &f32)| {
        let f = x.powf(strength) / w.powf(1.0 - strength);
        if f.is_finite() && f > 0.0 { f.clamp(1e-4, 1e4) } else { 1.0 }
    };
    let all: Vec<f32> = largest_inputs.iter().zip(&largest_weights).map(factor).collect();
    let mean = all.iter().map(|f| f64::from(f.ln())).sum::<f64>() / channels.max(1) as f64;
    Some(all.iter().map(|f| f / mean.exp() as f32).collect())
}
