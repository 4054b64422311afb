//! If and Loop: the planner walks their subgraphs.

use crate::error::Result;
use crate::graph::{Lower, OpDef, Refusal, Site, Type};

pub(super) static OPS: &[OpDef] = &[
    OpDef { domain: "", name: "If", infer: planner_only, lower: Lower::Control },
    OpDef { domain: "", name: "Loop", infer: planner_only, lower: Lower::Control },
];

fn planner_only(site: &Site) -> Result<Vec<Type>, Refusal> {
    Err(site.unsupported("types of control flow are known to the planner only").into())
}
