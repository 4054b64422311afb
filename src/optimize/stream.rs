//! Samples on their way through a model that is changed from its inputs on: what is behind them is not run again.

use std::collections::HashSet;

use super::Sample;
use super::samples::Samples;
use super::taps::Taps;
use crate::base::Tensor;
use crate::error::Result;
use crate::graph::{Graph, NodeId, Port, ValueId};
use crate::session::{Model, Options};

/// Bytes of values that are kept between layers at most; over it they are worked out again from where they were kept last.
const KEPT_BYTES: usize = 512 << 20;

/// Samples that have come as far as a node: kept are all values that it and the nodes behind it read.
pub(super) struct Stream<'a> {
    model: &'a Model,
    samples: &'a Samples,
    batch: usize,
    options: &'a Options,
    limit_bytes: usize,
    /// The first node that has not been run.
    at: NodeId,
    /// For each run its values by name; empty at the model's inputs.
    kept: Vec<Sample>,
}

impl<'a> Stream<'a> {
    /// At the model's inputs.
    pub fn new(model: &'a Model, samples: &'a Samples, batch: usize, options: &'a Options) -> Self {
        Stream { model, samples, batch, options, limit_bytes: KEPT_BYTES, at: 0, kept: Vec::new() }
    }

    /// Comes as far as node `to` of `graph`, which is the model's but for what nodes from here on do; those before `to` must not change any more. Stays where
    /// it is when the values there take too much memory, or when it is further already.
    pub fn forward(&mut self, graph: &Graph, to: NodeId) -> Result<()> {
        if to <= self.at {
            return Ok(());
        }
        let values = frontier(graph, to);
        let (mut kept, mut bytes) = (Vec::new(), 0);
        let runs = self.runs();
        let limit = self.limit_bytes;
        let fits = self.each(graph, &values, |tensors| {
            bytes += tensors.iter().map(|t| t.bytes().len()).sum::<usize>();
            let named = values.iter().map(|v| graph.values[v.0].name.clone()).zip(tensors.iter().cloned());
            kept.push(named.collect());
            // What the others will take, if they are like those so far.
            Ok(bytes / kept.len() * runs <= limit)
        })?;
        if fits {
            (self.at, self.kept) = (to, kept);
        }
        Ok(())
    }

    /// Shows some values of `graph` for one run after the other, as long as `see` says so; whether it did to the end.
    pub fn each(&self, graph: &Graph, values: &[ValueId], mut see: impl FnMut(&[Tensor]) -> Result<bool>) -> Result<bool> {
        let taps = Taps::new(&self.model.with_graph(self.rest(graph, values)), values, self.options.clone())?;
        let mut show = |sample: &Sample| see(&taps.run(sample)?);
        for sample in &self.kept {
            if !show(sample)? {
                return Ok(false);
            }
        }
        let fresh = if self.at == 0 { self.runs() } else { 0 };
        for sample in self.samples.batches(self.batch).take(fresh) {
            if !show(&sample?)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn runs(&self) -> usize {
        self.samples.batches(self.batch).len()
    }

    /// The part of `graph` from here to where the last of `values` is made, on what is kept.
    fn rest(&self, graph: &Graph, values: &[ValueId]) -> Graph {
        let made = |n: &crate::graph::Node| n.outputs.iter().flatten().any(|v| values.contains(v));
        let end = graph.nodes.iter().rposition(made).map_or(0, |last| last + 1).max(self.at);
        let nodes = graph.nodes[self.at..end].to_vec();
        let mut inputs = graph.inputs.clone();
        if self.at > 0 {
            inputs = frontier(graph, self.at).into_iter().map(|value| Port { value, dtype: None, dims: None }).collect();
        }
        Graph { nodes, inputs, ..graph.clone() }
    }
}

/// What nodes from `at` on read of what is before them.
fn frontier(graph: &Graph, at: NodeId) -> Vec<ValueId> {
    let (before, after) = graph.nodes.split_at(at);
    let made = before.iter().flat_map(|n| n.outputs.iter().flatten().copied());
    let known: HashSet<ValueId> = made.chain(graph.inputs.iter().map(|p| p.value)).collect();
    let mut seen = HashSet::new();
    let read = after.iter().flat_map(|n| n.uses()).chain(graph.outputs.iter().map(|p| p.value));
    read.filter(|v| known.contains(v) && seen.insert(*v)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::pass::layer::layers;

    #[test]
    fn values_are_the_same_wherever_the_samples_have_come_to() {
        let model = Model::open("models/digits-cnn.onnx").unwrap();
        let graph: &Graph = model.graph();
        let arrays = vec![(
            "x".to_string(),
            Tensor::new([6, 1, 8, 8], &(0..384).map(|i| (i % 23) as f32 / 23.0).collect::<Vec<_>>()).unwrap(),
        )];
        let input = model.inputs().next().unwrap().0.to_string();
        let samples = Samples::new(&model, &arrays, &[(input, "x".into())]).unwrap();
        let options = Options::default();
        let (found, _) = layers(graph);
        let last = found.last().unwrap().inputs(graph)[0];
        let shown = |stream: &Stream| {
            let mut all = Vec::new();
            assert!(
                stream
                    .each(graph, &[last], |t| {
                        all.push(t[0].to_f64());
                        Ok(true)
                    })
                    .unwrap()
            );
            all
        };
        let mut stream = Stream::new(&model, &samples, 4, &options);
        let want = shown(&stream);
        assert_eq!(want.len(), 2, "four and two samples");
        for layer in &found {
            stream.forward(graph, layer.nodes[0]).unwrap();
            assert_eq!(stream.at, layer.nodes[0]);
            let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5 * (1.0 + a.abs());
            assert!(shown(&stream).iter().flatten().zip(want.iter().flatten()).all(close));
        }
        let mut short = Stream { limit_bytes: 100, ..Stream::new(&model, &samples, 4, &options) };
        short.forward(graph, found[1].nodes[0]).unwrap();
        assert!(short.at == 0 && short.kept.is_empty() && shown(&short) == want, "nothing is kept");
    }
}
