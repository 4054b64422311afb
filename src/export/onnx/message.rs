//! Graph to ModelProto.

use super::names::Names;
use super::opset;
use crate::base::{DType, Tensor};
use crate::error::{Error, Result};
use crate::graph::check::UNSUPPORTED;
use crate::graph::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto,
};
use crate::graph::{Attr, Dim, Graph, Node, Port, ValueId};

/// Attributes that passes give to nodes of standard operators; no file has them.
const OWN_ATTRIBUTES: [&str; 1] = ["weight_precision"];

/// The whole file; constants share their elements with the graph.
pub(super) fn model(graph: &Graph, metadata: &[(String, String)]) -> Result<ModelProto> {
    let opset_import = opset::imports(graph)?;
    if let Some(port) = graph.inputs.iter().find(|p| p.dtype.is_none()) {
        let name = &graph.values[port.value.0].name;
        return Err(Error::BadInput(format!(
            "input {name:?}: a file says of which type its inputs are, and this is no tensor of a known type"
        )));
    }
    let mut writer = Writer { names: Names::new(graph) };
    let names = writer.names.outermost(graph)?;
    let mut proto = writer.graph(graph, &names)?;
    proto.name = proto.name.filter(|n| !n.is_empty()).or(Some("graph".into()));
    Ok(ModelProto {
        ir_version: Some(opset::ir_version(&opset_import)),
        producer_name: Some(env!("CARGO_PKG_NAME").into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        graph: Some(proto),
        opset_import,
        metadata_props: metadata.iter().map(|(key, value)| entry(key, value)).collect(),
        functions: Vec::new(),
    })
}

/// A key with its value.
pub(super) fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) }
}

struct Writer {
    names: Names,
}

impl Writer {
    fn graph(&mut self, graph: &Graph, names: &[String]) -> Result<GraphProto> {
        if let Some(v) = graph.unmade() {
            return Err(Error::BadInput(format!("graph {}: nothing makes the value {:?}", graph.name, graph.values[v.0].name)));
        }
        let mut proto = GraphProto { name: Some(graph.name.clone()), ..GraphProto::default() };
        let (uses, captured) = (graph.use_counts(), |v: ValueId| graph.captures.iter().any(|&(_, own)| own == v));
        let optional = |v: ValueId| graph.optional_inputs.iter().any(|p| p.value == v);
        for (i, value) in graph.values.iter().enumerate() {
            let Some(constant) = &value.constant else { continue };
            if (uses[i] > 0 && !captured(ValueId(i))) || optional(ValueId(i)) {
                proto.initializer.push(if value.is_packed { packed(constant, &names[i]) } else { tensor(constant, &names[i]) });
            }
        }
        for node in &graph.nodes {
            proto.node.push(self.node(node, names)?);
        }
        let name = |p: &Port| names[p.value.0].clone();
        proto.input = graph.inputs.iter().chain(&graph.optional_inputs).map(|p| port(p, name(p))).collect();
        for p in &graph.outputs {
            // What a subgraph gives must be its own.
            let made = if captured(p.value) { self.names.fresh(&name(p)) } else { name(p) };
            if captured(p.value) {
                proto.node.push(identity(name(p), made.clone()));
            }
            proto.output.push(port(p, made));
        }
        Ok(proto)
    }

    fn node(&mut self, node: &Node, names: &[String]) -> Result<NodeProto> {
        if let Some(why) = refusal(node) {
            return Err(Error::Node { node: node.name.clone(), op: node.full_op(), why });
        }
        let given = node.inputs.iter().rposition(|i| i.is_some()).map_or(0, |last| last + 1);
        let name = |v: &Option<ValueId>| v.map_or(String::new(), |v| names[v.0].clone());
        let attribute = node.attrs.iter().map(|(name, attr)| self.attribute(name, attr, names)).collect::<Result<_>>()?;
        Ok(NodeProto {
            input: node.inputs[..given].iter().map(name).collect(),
            output: node.outputs.iter().map(name).collect(),
            name: Some(node.name.clone()),
            op_type: Some(node.op.clone()),
            attribute,
            domain: Some(node.domain.clone()),
        })
    }

    /// Kinds are numbered by onnx.proto's `AttributeProto.AttributeType`.
    fn attribute(&mut self, name: &str, attr: &Attr, names: &[String]) -> Result<AttributeProto> {
        let of = |kind| AttributeProto { name: Some(name.into()), r#type: Some(kind), ..AttributeProto::default() };
        Ok(match attr {
            Attr::Float(f) => AttributeProto { f: Some(*f), ..of(1) },
            Attr::Int(i) => AttributeProto { i: Some(*i), ..of(2) },
            Attr::Str(s) => AttributeProto { s: Some(s.clone().into()), ..of(3) },
            Attr::Tensor(t) => AttributeProto { t: Some(tensor(t, "")), ..of(4) },
            Attr::Graph(g) => AttributeProto { g: Some(self.subgraph(g, names)?), ..of(5) },
            Attr::Floats(floats) => AttributeProto { floats: floats.clone(), ..of(6) },
            Attr::Ints(ints) => AttributeProto { ints: ints.clone(), ..of(7) },
            Attr::Strs(strings) => AttributeProto { strings: strings.iter().map(|s| s.clone().into()).collect(), ..of(8) },
            Attr::Formula(_) => return Err(Error::BadInput(format!("attribute {name}: a formula is nothing that ONNX has"))),
        })
    }

    fn subgraph(&mut self, graph: &Graph, outside: &[String]) -> Result<GraphProto> {
        let names = self.names.enter(graph, outside);
        let proto = self.graph(graph, &names)?;
        self.names.leave(graph, &names);
        Ok(proto)
    }
}

/// Why ONNX has no such node.
fn refusal(node: &Node) -> Option<String> {
    if let Some(Attr::Str(why)) = node.attrs.get(UNSUPPORTED) {
        return Some(format!("the model holds something that could not be loaded: {why}"));
    }
    let own = OWN_ATTRIBUTES.iter().find(|a| node.attrs.contains_key(**a));
    if node.domain == "halfbyte" || node.epilogue.is_some() || own.is_some() {
        return Some("made for this engine's kernels: standard ONNX has no such node".into());
    }
    None
}

fn identity(from: String, to: String) -> NodeProto {
    NodeProto { input: vec![from], output: vec![to], op_type: Some("Identity".into()), ..NodeProto::default() }
}

fn tensor(tensor: &Tensor, name: &str) -> TensorProto {
    TensorProto {
        dims: tensor.shape().iter().map(|&d| d as i64).collect(),
        data_type: Some(tensor.dtype().onnx()),
        name: Some(name.into()),
        raw_data: Some(tensor.to_shared()),
        ..TensorProto::default()
    }
}

/// Of i8 or u8 with 4 bits: two in a byte, the first in the lower half (INT4, UINT4).
fn packed(of: &Tensor, name: &str) -> TensorProto {
    let half = |pair: &[u8]| (pair[0] & 15) | pair.get(1).map_or(0, |&b| b << 4);
    let bytes: Vec<u8> = of.bytes().chunks(2).map(half).collect();
    let number = if of.dtype() == DType::I8 { 22 } else { 21 };
    TensorProto { data_type: Some(number), raw_data: Some(bytes.into()), ..tensor(of, name) }
}

fn port(port: &Port, name: String) -> ValueInfoProto {
    let dim = |d: &Dim| match d {
        Dim::Known(n) => DimensionProto { dim_value: Some(*n as i64), dim_param: None },
        Dim::Named(name) => DimensionProto { dim_value: None, dim_param: Some(name.clone()) },
        Dim::Any => DimensionProto::default(),
    };
    let shape = port.dims.as_ref().map(|dims| TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let of = |dtype: crate::base::DType| TensorTypeProto { elem_type: Some(dtype.onnx()), shape };
    ValueInfoProto { name: Some(name), r#type: port.dtype.map(|d| TypeProto { tensor_type: Some(of(d)) }) }
}
