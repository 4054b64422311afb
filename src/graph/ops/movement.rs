//! Operators that move elements.

use crate::graph::OpDef;

pub(super) static OPS: &[OpDef] = &[];
