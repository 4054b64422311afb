//! Operators that choose elements: top-k, arg-max, non-zero, non-maximum suppression.

use crate::graph::OpDef;

pub(super) static OPS: &[OpDef] = &[];
