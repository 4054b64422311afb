//! A model whose inner values can be seen.

use super::Sample;
use crate::base::{Tensor, TensorView};
use crate::error::Result;
use crate::graph::{Graph, Port, ValueId};
use crate::session::{Model, Options, Session};

/// Runs as much of a model as some of its values need, and shows them.
pub struct Taps {
    session: Session,
    /// For each value asked for, which output of the session it is.
    places: Vec<usize>,
}

impl Taps {
    /// `values` of the model's graph, on the device that `options` ask for. Errors as [`Session::new`].
    pub fn new(model: &Model, values: &[ValueId], options: Options) -> Result<Self> {
        let mut graph = Graph { outputs: Vec::new(), ..model.graph().clone() };
        let mut places = Vec::with_capacity(values.len());
        for &value in values {
            let at = graph.outputs.iter().position(|p| p.value == value).unwrap_or_else(|| {
                graph.outputs.push(Port { value, dtype: None, dims: None });
                graph.outputs.len() - 1
            });
            places.push(at);
        }
        Ok(Taps { session: Session::new(&model.with_graph(graph), options)?, places })
    }

    /// The values in the order they were asked for, of one run.
    pub fn run(&self, sample: &Sample) -> Result<Vec<Tensor>> {
        let all = run(&self.session, sample)?;
        Ok(self.places.iter().map(|&at| all[at].clone()).collect())
    }
}

/// The outputs of a run on a sample, in the model's order.
pub fn run(session: &Session, sample: &Sample) -> Result<Vec<Tensor>> {
    let views: Vec<(&str, TensorView)> = sample.iter().map(|(name, t)| (name.as_str(), t.view())).collect();
    Ok(session.run(&views)?.iter().map(|(_, t)| t.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_values_are_those_that_the_next_node_reads() {
        let model = Model::open("models/digits-mlp.onnx").unwrap();
        let graph = model.graph();
        // What the last product reads, its weights aside, and the model's output twice.
        let last = graph.nodes.iter().rev().find(|n| matches!(n.op.as_str(), "Gemm" | "MatMul")).unwrap();
        let (read, out) = (last.inputs[0].unwrap(), graph.outputs[0].value);
        let taps = Taps::new(&model, &[read, out, out], Options::default()).unwrap();
        let x = Tensor::new([2, 64], &(0..128).map(|i| (i % 17) as f32 / 16.0).collect::<Vec<f32>>()).unwrap();
        let sample: Sample = vec![(model.inputs().next().unwrap().0.to_string(), x)];
        let seen = taps.run(&sample).unwrap();
        let plain = run(&Session::new(&model, Options::default()).unwrap(), &sample).unwrap();
        assert_eq!((&seen[1], &seen[2]), (&plain[0], &plain[0]));
        let weights = graph.constant(last.inputs[1].unwrap()).unwrap().shape().clone();
        assert!(seen[0].shape()[0] == 2 && weights.contains(&seen[0].shape()[1]), "{:?}", seen[0]);
        assert!(seen[0].to_f64().iter().all(|&v| v >= 0.0), "behind a ReLU");
    }
}
