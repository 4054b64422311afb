//! Small graphs made in memory.

use halfbyte::graph::{Attr, Graph, Node, Port, ValueId};
use halfbyte::{DType, Model, Tensor};

#[derive(Default)]
pub struct Draft(Graph);

impl Draft {
    pub fn input(&mut self, name: &str, dtype: DType) -> ValueId {
        let value = self.0.add_value(name, None);
        self.0.inputs.push(Port { value, dtype: Some(dtype), dims: None });
        value
    }

    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        let name = format!("c{}", self.0.values.len());
        self.0.add_value(name, Some(tensor))
    }

    pub fn node(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
        let name = format!("{op}{}", self.0.nodes.len());
        let out = self.0.add_value(format!("{name}.out"), None);
        let attrs = attrs.iter().map(|(n, a)| (n.to_string(), a.clone())).collect();
        let inputs = inputs.iter().copied().map(Some).collect();
        self.0.nodes.push(Node { name, attrs, ..Node::new("", op, 18, inputs, vec![Some(out)]) });
        out
    }

    pub fn model(mut self, outputs: &[ValueId]) -> Model {
        self.0.outputs = outputs.iter().map(|&value| Port { value, dtype: None, dims: None }).collect();
        Model::from_graph(self.0)
    }
}
