//! The graph, the operator table, and what each operator computes.

pub mod attr;
pub mod check;
pub mod dump;
pub mod ir;
pub mod op;
pub mod ops;
pub mod parts;
pub mod problem;
pub mod proto;

pub use attr::{Attr, Attrs};
pub use ir::{Dim, Epilogue, Graph, Node, NodeId, Port, Value, ValueId};
pub use op::{Lower, OpDef, Operand, Refusal, Site, Type, find};
pub use parts::{Feed, Parts};
pub use problem::Problem;
