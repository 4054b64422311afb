//! The operator table: what every operator is called, what it gives, and what it comes down to.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::{Attr, Graph, Node, Parts, Problem, ops};
use crate::base::{DType, Shape, Tensor};
use crate::error::Result;
use crate::scalar::Formula;

/// Element type and shape of a value at planning time, when every size is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Sizes of the axes.
    pub shape: Shape,
}

impl Type {
    /// A type.
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Self {
        Type { dtype, shape: shape.into() }
    }
}

/// What is known of a node's input when its types are worked out.
#[derive(Debug, Clone)]
pub struct Operand {
    /// Its type.
    pub ty: Type,
    /// Its elements, when they are known before running: constants and shape arithmetic.
    pub value: Option<Tensor>,
}

/// Why types could not be worked out.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// The output's type depends on the elements of this input, which are not known yet. The planner runs the graph
    /// up to here, reads them, and asks again.
    NeedsValue(usize),
    /// The node is wrong, or asks for something unsupported.
    Error(crate::Error),
}

impl From<crate::Error> for Refusal {
    fn from(e: crate::Error) -> Self {
        Refusal::Error(e)
    }
}

/// A node together with what is known of its inputs.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The node.
    pub node: &'a Node,
    /// One for each of `node.inputs`.
    pub inputs: &'a [Option<Operand>],
}

/// How an operator is computed.
#[derive(Clone, Copy)]
pub enum Lower {
    /// Elementwise over broadcast inputs: `arg(i)` is input i.
    Scalar(fn(&Site) -> Result<Formula>),
    /// A family of kernels.
    Family(fn(&Site, &[Type]) -> Result<Problem>),
    /// Several problems one after the other.
    Parts(fn(&Site, &[Type]) -> Result<Parts>),
    /// Output 0 has input 0's bytes under the inferred shape: nothing runs.
    View,
    /// Known when the types are: Shape, Size, Constant, ConstantOfShape of few elements.
    Value(fn(&Site) -> Result<Vec<Tensor>>),
    /// If, Loop, Scan: the planner runs the subgraphs.
    Control,
}

/// One row of the operator table.
pub struct OpDef {
    /// "" for ai.onnx.
    pub domain: &'static str,
    /// Operator name in its domain.
    pub name: &'static str,
    /// Types of all outputs (one for each of `node.outputs`), from concrete input types.
    pub infer: fn(&Site) -> Result<Vec<Type>, Refusal>,
    /// How it is computed.
    pub lower: Lower,
}

impl std::fmt::Debug for OpDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpDef({}:{})", self.domain, self.name)
    }
}

/// The definition of `domain`/`name`, if the table has one.
pub fn find(domain: &str, name: &str) -> Option<&'static OpDef> {
    static INDEX: OnceLock<HashMap<(&'static str, &'static str), &'static OpDef>> = OnceLock::new();
    let domain = if domain == "ai.onnx" { "" } else { domain };
    INDEX.get_or_init(|| ops::all().map(|d| ((d.domain, d.name), d)).collect()).get(&(domain, name)).copied()
}

impl<'a> Site<'a> {
    /// The operator set's version for this node's domain.
    pub fn opset(&self) -> i64 {
        self.node.opset
    }

    /// Input `i`, if given.
    pub fn input(&self, i: usize) -> Option<&'a Operand> {
        self.inputs.get(i).and_then(|o| o.as_ref())
    }

    /// Type of a required input.
    pub fn ty(&self, i: usize) -> Result<&'a Type> {
        self.input(i).map(|o| &o.ty).ok_or_else(|| self.error(format!("input {i} is missing")))
    }

    /// Whether output `i` is wanted.
    pub fn wants(&self, i: usize) -> bool {
        self.node.outputs.get(i).is_some_and(|o| o.is_some())
    }

    /// Number of outputs listed, wanted or not.
    pub fn output_count(&self) -> usize {
        self.node.outputs.len()
    }

    /// An attribute.
    pub fn attr(&self, name: &str) -> Option<&'a Attr> {
        self.node.attrs.get(name)
    }

    /// An integer attribute or its default.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        match self.attr(name) {
            Some(Attr::Int(v)) => *v,
            _ => default,
        }
    }

    /// A float attribute or its default.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        match self.attr(name) {
            Some(Attr::Float(v)) => *v,
            Some(Attr::Int(v)) => *v as f32,
            _ => default,
        }
    }

    /// A string attribute or its default.
    pub fn str(&self, name: &str, default: &'a str) -> &'a str {
        match self.attr(name) {
            Some(Attr::Str(v)) => v,
            _ => default,
        }
    }

    /// An integer-list attribute, if given.
    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        match self.attr(name) {
            Some(Attr::Ints(v)) => Some(v),
            _ => None,
        }
    }

    /// A float-list attribute, if given.
    pub fn floats(&self, name: &str) -> Option<&'a [f32]> {
        match self.attr(name) {
            Some(Attr::Floats(v)) => Some(v),
            _ => None,
        }
    }

    /// A subgraph attribute.
    pub fn graph(&self, name: &str) -> Option<&'a Graph> {
        match self.attr(name) {
            Some(Attr::Graph(g)) => Some(g),
            _ => None,
        }
    }

    /// The elements of input `i` as integers; `Ok(None)` when the input is left out.
    pub fn int_values(&self, i: usize) -> Result<Option<Vec<i64>>, Refusal> {
        let Some(operand) = self.input(i) else { return Ok(None) };
        let value = operand.value.as_ref().ok_or(Refusal::NeedsValue(i))?;
        let ints = value.to_i64().ok_or_else(|| self.error(format!("input {i} must hold integers")))?;
        Ok(Some(ints))
    }

    /// The elements of input `i` as floats; `Ok(None)` when the input is left out.
    pub fn float_values(&self, i: usize) -> Result<Option<Vec<f64>>, Refusal> {
        let Some(operand) = self.input(i) else { return Ok(None) };
        Ok(Some(operand.value.as_ref().ok_or(Refusal::NeedsValue(i))?.to_f64()))
    }

    /// A list that older operator sets give as an attribute and newer ones as an input (axes, pads, split ...).
    pub fn ints_attr_or_input(&self, name: &str, i: usize) -> Result<Option<Vec<i64>>, Refusal> {
        match self.ints(name) {
            Some(v) => Ok(Some(v.to_vec())),
            None => self.int_values(i),
        }
    }

    /// `axis` (negative counts from the end) of a tensor of `rank` axes.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let at = if axis < 0 { axis + rank as i64 } else { axis };
        if (0..rank as i64).contains(&at) {
            return Ok(at as usize);
        }
        Err(self.error(format!("axis {axis} is outside a tensor of {rank} axes")))
    }

    /// An error for what the operator's definition knows but no kernel does.
    pub fn unsupported(&self, why: impl Into<String>) -> crate::Error {
        crate::Error::Unsupported { at: format!("node {} ({})", self.node.name, self.node.full_op()), why: why.into() }
    }
}
