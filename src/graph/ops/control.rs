//! If and Loop: their subgraphs are run by the planner.

use crate::graph::OpDef;

pub(super) static OPS: &[OpDef] = &[];
