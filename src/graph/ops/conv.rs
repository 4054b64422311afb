//! Convolutions.

use crate::graph::OpDef;

pub(super) static OPS: &[OpDef] = &[];
