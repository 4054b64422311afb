//! Reductions, softmax, normalisations and attention.

use crate::graph::OpDef;

pub(super) static OPS: &[OpDef] = &[];
