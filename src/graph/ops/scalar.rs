//! Elementwise operators: each is a formula.

use crate::graph::OpDef;

pub(super) static OPS: &[OpDef] = &[];
