//! Node attributes.

use std::collections::BTreeMap;

use super::Graph;
use crate::base::Tensor;
use crate::scalar::Formula;

/// One attribute's value.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Attr {
    Int(i64),
    Float(f32),
    Str(String),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Strs(Vec<String>),
    Tensor(Tensor),
    Graph(Box<Graph>),
    /// Of fused scalar nodes.
    Formula(Formula),
}

/// A node's attributes by name.
pub type Attrs = BTreeMap<String, Attr>;
