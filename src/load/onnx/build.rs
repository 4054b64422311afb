//! GraphProto to [`Graph`].

use std::collections::{HashMap, HashSet};

use super::external::Files;
use super::sort::sort;
use super::tensor::{packed, tensor};
use crate::base::{DType, Tensor};
use crate::error::{Error, Result};
use crate::graph::check::UNSUPPORTED;
use crate::graph::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TypeProto, ValueInfoProto,
};
use crate::graph::{Attr, Attrs, Dim, Graph, Node, Port, ValueId};

/// Functions may call functions to this depth.
const MAX_FUNCTION_DEPTH: usize = 16;
/// Nodes that calls of functions become at most: a small file can ask for any number of them.
const MAX_INLINED_NODES: usize = 1 << 18;

/// What holds for the whole file.
pub(super) struct Context<'a> {
    /// Files beside the model, for external data.
    pub files: Files,
    opsets: HashMap<String, i64>,
    functions: HashMap<(&'a str, &'a str), &'a FunctionProto>,
}

impl<'a> Context<'a> {
    pub fn new(model: &'a ModelProto, files: Files) -> Self {
        let key = |f: &'a FunctionProto| (f.domain.as_deref().unwrap_or(""), f.name.as_deref().unwrap_or(""));
        let functions = model.functions.iter().map(|f| (key(f), f)).collect();
        Context { files, opsets: opsets(&model.opset_import), functions }
    }
}

fn opsets(imports: &[OperatorSetIdProto]) -> HashMap<String, i64> {
    imports.iter().map(|o| (domain(o.domain.as_deref()).to_string(), o.version.unwrap_or(1))).collect()
}

/// "ai.onnx" is another name of the default domain.
fn domain(name: Option<&str>) -> &str {
    match name.unwrap_or("") {
        "ai.onnx" => "",
        other => other,
    }
}

/// Builds one graph, and those inside it.
pub(super) struct Builder<'a> {
    /// What holds for the whole file.
    pub context: &'a Context<'a>,
    /// Graphs from the outermost to the one being built.
    scopes: Vec<Scope>,
    depth: usize,
    inlined: usize,
}

#[derive(Default)]
struct Scope {
    graph: Graph,
    names: HashMap<String, ValueId>,
    made: HashSet<ValueId>,
}

impl<'a> Builder<'a> {
    pub fn new(context: &'a Context<'a>) -> Self {
        Builder { context, scopes: Vec::new(), depth: 0, inlined: 0 }
    }

    /// The graph inside an attribute of the graph being built.
    pub fn subgraph(&mut self, proto: &GraphProto) -> Result<Graph> {
        self.graph(proto)
    }

    /// Builds `proto`; `inner` graphs see the values of those around them.
    pub fn graph(&mut self, proto: &GraphProto) -> Result<Graph> {
        self.scopes.push(Scope::default());
        let done = self.fill(proto);
        let scope = self.scopes.pop();
        done?;
        let mut graph = scope.map(|s| s.graph).unwrap_or_default();
        all_made(&graph)?;
        sort(&mut graph)?;
        Ok(graph)
    }

    fn scope(&mut self) -> &mut Scope {
        self.scopes.last_mut().expect("invariant: a graph is being built")
    }

    fn fill(&mut self, proto: &GraphProto) -> Result<()> {
        self.scope().graph.name = proto.name.clone().unwrap_or_default();
        for t in &proto.initializer {
            let id = self.define(t.name.as_deref().unwrap_or(""))?;
            match tensor(t, &self.context.files) {
                Ok(tensor) => {
                    let value = &mut self.scope().graph.values[id.0];
                    (value.constant, value.is_packed) = (Some(tensor), packed(t.data_type.unwrap_or(0)).is_some());
                }
                Err(Error::Unsupported { why, .. }) => self.missing(id, why),
                Err(e) => return Err(e),
            }
        }
        for values in proto.sparse_initializer.iter().filter_map(|s| s.values.as_ref()) {
            let id = self.define(values.name.as_deref().unwrap_or(""))?;
            self.missing(id, "sparse initialisers".into());
        }
        for info in &proto.input {
            self.input(info)?;
        }
        // Names that nodes make, before nodes that read them: the file need not be in order.
        let made: Vec<&str> =
            proto.node.iter().flat_map(|n| n.output.iter().map(String::as_str)).filter(|n| !n.is_empty()).collect();
        for name in made {
            self.define(name)?;
        }
        for (i, node) in proto.node.iter().enumerate() {
            self.node(node, &self.context.opsets, &format!("{i}"))?;
        }
        for info in &proto.output {
            let value = self.resolve(info.name.as_deref().unwrap_or(""), || "graph outputs".into())?;
            let port = port(value, info)?;
            self.scope().graph.outputs.push(port);
        }
        Ok(())
    }

    /// A constant that cannot be held, in the place of a node that cannot run: the model can be looked at all the same.
    fn missing(&mut self, id: ValueId, why: String) {
        let graph = &mut self.scope().graph;
        let name = graph.values[id.0].name.clone();
        let attrs = Attrs::from([(UNSUPPORTED.to_string(), Attr::Str(why))]);
        let node = Node { name, attrs, def: None, ..Node::new("", "Constant", 1, Vec::new(), vec![Some(id)]) };
        graph.nodes.push(node);
    }

    fn input(&mut self, info: &ValueInfoProto) -> Result<()> {
        let name = info.name.as_deref().unwrap_or("");
        if let Some(&value) = self.scope().names.get(name) {
            let optional = port(value, info)?;
            self.scope().graph.optional_inputs.push(optional);
            return Ok(());
        }
        let value = self.define(name)?;
        let required = port(value, info)?;
        self.scope().graph.inputs.push(required);
        Ok(())
    }

    /// A new value of this graph.
    fn define(&mut self, name: &str) -> Result<ValueId> {
        let scope = self.scope();
        let id = scope.graph.add_value(name, None);
        if scope.names.insert(name.to_string(), id).is_some() || !scope.made.insert(id) {
            return Err(Error::BadModel {
                at: format!("value {name:?}"),
                why: "two nodes, inputs or initialisers make it".into(),
            });
        }
        Ok(id)
    }

    /// The value that `name` stands for here; one of an enclosing graph is captured.
    fn resolve(&mut self, name: &str, at: impl Fn() -> String) -> Result<ValueId> {
        let level = (0..self.scopes.len()).rev().find(|&l| self.scopes[l].names.contains_key(name));
        let Some(level) = level else {
            return Err(Error::BadModel { at: at(), why: format!("nothing makes the value {name:?}") });
        };
        let mut id = self.scopes[level].names[name];
        for scope in &mut self.scopes[level + 1..] {
            let own = scope.graph.add_value(name, None);
            scope.names.insert(name.to_string(), own);
            scope.graph.captures.push((id, own));
            id = own;
        }
        Ok(id)
    }

    fn node(&mut self, proto: &NodeProto, opsets: &HashMap<String, i64>, position: &str) -> Result<()> {
        let op = proto.op_type.as_deref().unwrap_or("");
        let domain = domain(proto.domain.as_deref());
        let name = match proto.name.as_deref() {
            Some(name) if !name.is_empty() => name.to_string(),
            _ => format!("{op}_{position}"),
        };
        let at = || format!("node {name} ({op})");
        if let Some(&function) = self.context.functions.get(&(domain, op)) {
            return self.inline(function, proto, &name);
        }
        let optional = |name: &str| !name.is_empty();
        let mut inputs = Vec::with_capacity(proto.input.len());
        for input in &proto.input {
            inputs.push(if optional(input) { Some(self.resolve(input, at)?) } else { None });
        }
        let outputs: Vec<_> =
            proto.output.iter().map(|o| if optional(o) { self.scope().names.get(o).copied() } else { None }).collect();
        let opset = opsets.get(domain).copied().unwrap_or(1);
        let mut attrs = Attrs::new();
        for a in &proto.attribute {
            match self.attribute(a).map_err(|e| place(e, &at())) {
                Err(Error::Unsupported { at, why }) => attrs.insert(UNSUPPORTED.to_string(), Attr::Str(format!("{at}: {why}"))),
                read => attrs.insert(a.name.clone().unwrap_or_default(), read?),
            };
        }
        if let ("Constant", "", Some(t), [Some(out)]) = (op, domain, constant(&attrs), &outputs[..]) {
            self.scope().graph.values[out.0].constant = Some(t);
            return Ok(());
        }
        let mut node = Node { name, attrs, ..Node::new(domain, op, opset, inputs, outputs) };
        if node.attrs.contains_key(UNSUPPORTED) {
            node.def = None;
        }
        self.scope().graph.nodes.push(node);
        Ok(())
    }

    /// A call of a function of the file: its nodes in place of the call, their values under names of the call's own.
    fn inline(&mut self, function: &FunctionProto, call: &NodeProto, name: &str) -> Result<()> {
        if self.depth >= MAX_FUNCTION_DEPTH {
            return Err(Error::BadModel { at: format!("node {name}"), why: "functions call each other too deeply".into() });
        }
        let renamed: HashMap<&str, String> = function
            .input
            .iter()
            .zip(call.input.iter().map(String::as_str).chain(std::iter::repeat("")))
            .chain(function.output.iter().zip(call.output.iter().map(String::as_str).chain(std::iter::repeat(""))))
            .map(|(inside, outside)| (inside.as_str(), outside.to_string()))
            .collect();
        let rename = |n: &String| match renamed.get(n.as_str()) {
            Some(outside) if !outside.is_empty() || function.input.contains(n) => outside.clone(),
            _ if n.is_empty() => String::new(),
            _ => format!("{name}/{n}"),
        };
        let opsets = opsets(&function.opset_import);
        self.inlined += function.node.len();
        if self.inlined > MAX_INLINED_NODES {
            return Err(Error::BadModel { at: format!("node {name}"), why: "calls of functions never end".into() });
        }
        let local: HashSet<&str> =
            function.input.iter().chain(function.node.iter().flat_map(|n| &n.output)).map(|n| &n[..]).collect();
        let rename_inner = |n: &String| if local.contains(n.as_str()) { rename(n) } else { n.clone() };
        self.depth += 1;
        let mut nodes = Vec::new();
        for inside in &function.node {
            let mut node = inside.clone();
            node.input = inside.input.iter().map(rename).collect();
            node.output = inside.output.iter().map(rename).collect();
            node.attribute = inside.attribute.iter().filter_map(|a| argument(a, function, call)).collect();
            for inner in node.attribute.iter_mut().filter_map(|a| a.g.as_mut()) {
                rewrite(inner, &rename_inner, &|a| argument(a, function, call));
            }
            let fresh: Vec<String> = node.output.iter().filter(|o| !o.is_empty() && !call.output.contains(o)).cloned().collect();
            for o in fresh {
                self.define(&o)?;
            }
            nodes.push(node);
        }
        for (i, node) in nodes.iter().enumerate() {
            self.node(node, &opsets, &format!("{name}/{i}"))?;
        }
        self.depth -= 1;
        Ok(())
    }
}

/// An attribute inside a function: its own, or the call's (or the function's default) that it refers to.
fn argument(a: &AttributeProto, function: &FunctionProto, call: &NodeProto) -> Option<AttributeProto> {
    let Some(wanted) = a.ref_attr_name.as_deref().filter(|n| !n.is_empty()) else { return Some(a.clone()) };
    let named = |b: &&AttributeProto| b.name.as_deref() == Some(wanted);
    let given = call.attribute.iter().find(named).or_else(|| function.attribute_proto.iter().find(named))?;
    Some(AttributeProto { name: a.name.clone(), ..given.clone() })
}

/// A subgraph inside a function: names of the function's values, and references to its attributes, as at the call.
fn rewrite(
    graph: &mut GraphProto,
    rename: &dyn Fn(&String) -> String,
    argument: &dyn Fn(&AttributeProto) -> Option<AttributeProto>,
) {
    let made = graph.node.iter().flat_map(|n| n.output.clone());
    let named = graph.input.iter().filter_map(|i| i.name.clone()).chain(graph.initializer.iter().filter_map(|t| t.name.clone()));
    let own: HashSet<String> = made.chain(named).collect();
    let outer = |n: &String| if own.contains(n) { n.clone() } else { rename(n) };
    for node in &mut graph.node {
        node.input.iter_mut().for_each(|n| *n = outer(n));
        node.attribute = node.attribute.iter().filter_map(argument).collect();
        for inner in node.attribute.iter_mut().filter_map(|a| a.g.as_mut()) {
            rewrite(inner, &outer, argument);
        }
    }
    for name in graph.output.iter_mut().filter_map(|o| o.name.as_mut()) {
        *name = outer(name);
    }
}

/// What a Constant node gives, unless it is text.
fn constant(attrs: &Attrs) -> Option<Tensor> {
    attrs.iter().find_map(|(name, attr)| match (name.as_str(), attr) {
        ("value", Attr::Tensor(t)) => Some(t.clone()),
        ("value_float", Attr::Float(v)) => Some(Tensor::scalar(*v)),
        ("value_int", Attr::Int(v)) => Some(Tensor::scalar(*v)),
        ("value_floats", Attr::Floats(v)) => Some(Tensor::vector(v)),
        ("value_ints", Attr::Ints(v)) => Some(Tensor::vector(v)),
        _ => None,
    })
}

/// Checks that something makes every value that is read: a function need not make all that it promises.
fn all_made(graph: &Graph) -> Result<()> {
    graph.unmade().map_or(Ok(()), |v| {
        let why = format!("nothing makes the value {:?}", graph.values[v.0].name);
        Err(Error::BadModel { at: format!("graph {}", graph.name), why })
    })
}

fn place(error: Error, at: &str) -> Error {
    match error {
        Error::BadModel { at: inner, why } => Error::BadModel { at: format!("{at}, {inner}"), why },
        Error::Unsupported { at: inner, why } => Error::Unsupported { at: format!("{at}, {inner}"), why },
        other => other,
    }
}

fn port(value: ValueId, info: &ValueInfoProto) -> Result<Port> {
    let ty = info.r#type.as_ref().and_then(|t: &TypeProto| t.tensor_type.as_ref());
    let dim = |d: &crate::graph::proto::DimensionProto| match (d.dim_value, &d.dim_param) {
        // A negative size is how some exporters write "any".
        (Some(n), _) if n > 0 || (n == 0 && d.dim_param.is_none()) => Dim::Known(n as usize),
        (_, Some(name)) if !name.is_empty() && name != "?" => Dim::Named(name.clone()),
        _ => Dim::Any,
    };
    let dims = ty.and_then(|t| t.shape.as_ref()).map(|s| s.dim.iter().map(dim).collect());
    Ok(Port { value, dtype: ty.and_then(|t| DType::from_onnx(t.elem_type.unwrap_or(0))), dims })
}
