//! Which version of each operator set a file imports.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::graph::proto::OperatorSetIdProto;
use crate::graph::{Attr, Graph, Node};

/// Imported when no node is of the default domain.
const ANY_OPSET: i64 = 17;
/// Up to this version of the default domain, operators were changed so often that nodes of it are not taken for newer ones.
const EARLY_OPSET: i64 = 7;

/// Versions after [`EARLY_OPSET`] from which a node of an older version is invalid or means something else: an attribute became an input,
/// a default changed. Versions that only add types, optional inputs or attributes with the old meaning as default are not here.
/// Source: onnx/docs/Changelog.md.
const BREAKS: [(&str, &[i64]); 30] = [
    ("BatchNormalization", &[9]),
    ("Clip", &[11]),
    ("DFT", &[20]),
    ("Dropout", &[12]),
    ("GridSample", &[20]),
    ("GroupNormalization", &[21]),
    ("Hardmax", &[13]),
    ("LogSoftmax", &[13]),
    ("Pad", &[11]),
    ("ReduceL1", &[18]),
    ("ReduceL2", &[18]),
    ("ReduceLogSum", &[18]),
    ("ReduceLogSumExp", &[18]),
    ("ReduceMax", &[18]),
    ("ReduceMean", &[18]),
    ("ReduceMin", &[18]),
    ("ReduceProd", &[18]),
    ("ReduceSum", &[13]),
    ("ReduceSumSquare", &[18]),
    ("Resize", &[11]),
    ("RoiAlign", &[16]),
    ("Scan", &[9]),
    ("Scatter", &[11]),
    ("Slice", &[10]),
    ("Softmax", &[13]),
    ("Split", &[13, 18]),
    ("Squeeze", &[13]),
    ("TopK", &[10]),
    ("Unsqueeze", &[13]),
    ("Upsample", &[9, 10]),
];

/// The imports that all nodes are right under: of each domain the newest version that a node is of.
pub(super) fn imports(graph: &Graph) -> Result<Vec<OperatorSetIdProto>> {
    let mut nodes = Vec::new();
    collect(graph, &mut nodes);
    let mut versions = BTreeMap::new();
    for node in &nodes {
        let version: &mut i64 = versions.entry(node.domain.as_str()).or_insert(node.opset);
        *version = node.opset.max(*version);
    }
    if let Some(n) = nodes.iter().find(|n| changed(n, versions[n.domain.as_str()])) {
        let (own, newest) = (n.opset, versions[n.domain.as_str()]);
        let why = format!(
            "a file has one version of an operator set: this node is of {own}, others of {newest}, where it may mean something else"
        );
        return Err(Error::Node { node: n.name.clone(), op: n.full_op(), why });
    }
    versions.entry("").or_insert(ANY_OPSET);
    let import = |(domain, version): (&str, i64)| OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) };
    Ok(versions.into_iter().map(import).collect())
}

/// All nodes, those of subgraphs too.
fn collect<'g>(graph: &'g Graph, into: &mut Vec<&'g Node>) {
    for node in &graph.nodes {
        into.push(node);
        for attr in node.attrs.values() {
            if let Attr::Graph(inner) = attr {
                collect(inner, into);
            }
        }
    }
}

/// Whether the node may mean something else under `version`.
fn changed(node: &Node, version: i64) -> bool {
    if version == node.opset {
        return false;
    }
    let breaks = BREAKS.iter().find(|(op, _)| *op == node.op).map_or(&[][..], |(_, breaks)| breaks);
    let broken = breaks.iter().any(|&b| node.opset < b && b <= version);
    !node.domain.is_empty() || node.def.is_none() || node.opset < EARLY_OPSET || broken
}

/// The oldest IR version that goes with a version of the default domain, 8 at least. Source: onnx/helper.py, VERSION_TABLE.
pub(super) fn ir_version(imports: &[OperatorSetIdProto]) -> i64 {
    let default = imports.iter().find(|i| i.domain.as_deref() == Some("")).and_then(|i| i.version);
    match default.unwrap_or(ANY_OPSET) {
        ..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        23 => 11,
        24 => 12,
        25..=27 => 13,
        _ => 14,
    }
}
