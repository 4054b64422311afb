//! How much arithmetic each layer is.

use super::{Sample, Taps};
use crate::error::Result;
use crate::graph::ValueId;
use crate::pass::layer::{Kind, all_layers};
use crate::session::{Model, Options};

/// Multiplications of each layer's products for a sample, with the layers' names, in the graph's order; tables have none.
pub fn multiplications(model: &Model, sample: &Sample) -> Result<Vec<(String, u64)>> {
    let graph = model.graph();
    let (layers, _) = all_layers(graph);
    let output = |node: &usize| graph.nodes[*node].outputs.first().copied().flatten();
    let outputs: Vec<Vec<ValueId>> = layers.iter().map(|l| l.nodes.iter().filter_map(output).collect()).collect();
    let mut made = Taps::new(model, &outputs.concat(), Options::default())?.run(sample)?.into_iter();
    let each = layers.iter().zip(&outputs).map(|(layer, outputs)| {
        let elements: usize = made.by_ref().take(outputs.len()).map(|t| t.numel()).sum();
        (layer.name.clone(), if layer.kind == Kind::Table { 0 } else { (elements * layer.k) as u64 })
    });
    Ok(each.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Tensor;
    use crate::optimize::quantize::prepared;

    #[test]
    fn multiplications_are_outputs_times_inputs_of_each() {
        let model = prepared(&Model::open("models/digits-mlp.onnx").unwrap()).unwrap();
        let name = model.inputs().next().unwrap().0.to_string();
        let sample: Sample = vec![(name, Tensor::new([3, 64], &[0.5f32; 192]).unwrap())];
        let (layers, _) = all_layers(model.graph());
        let want: Vec<u64> = layers.iter().map(|l| 3 * (l.rows * l.k) as u64).collect();
        let found = multiplications(&model, &sample).unwrap();
        assert_eq!(found.iter().map(|(_, count)| *count).collect::<Vec<_>>(), want);
        // A convolution has as many for each pixel of its output: 8 x 8 where it keeps the size.
        let model = prepared(&Model::open("models/digits-cnn.onnx").unwrap()).unwrap();
        let name = model.inputs().next().unwrap().0.to_string();
        let sample: Sample = vec![(name, Tensor::new([1, 1, 8, 8], &[0.5f32; 64]).unwrap())];
        let (layers, _) = all_layers(model.graph());
        let first = (layers[0].rows * layers[0].k) as u64;
        assert_eq!(multiplications(&model, &sample).unwrap()[0].1, 64 * first, "{layers:?}");
    }
}
