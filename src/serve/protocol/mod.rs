//! The Open Inference Protocol, version 2 (KServe's "V2", with Triton's extensions for binary tensors, model repositories and statistics):
//! bodies to tensors and back, over HTTP and gRPC. Pure: no sockets and no sessions.
//!
//! What a body claims is checked against what it holds before anything is allocated for it. Reading a body of `n` bytes allocates at most
//! [`ALLOCATED_PER_BYTE`] `* n +` [`ALLOCATED_BYTES`], whatever it says (`tests/protocol.rs` measures it).

mod contents;
mod datatype;
mod elements;
mod json;
mod limits;
mod malformed;
pub mod messages;
mod request;
mod response;
mod wire;

pub use datatype::{datatype, dtype};
pub use limits::{ALLOCATED_BYTES, ALLOCATED_PER_BYTE, Limits};
pub use malformed::{Fault, Malformed};
pub use request::{InferRequest, RequestedOutput};
pub use response::{HttpReply, InferReply};
pub use wire::decode as decode_infer;
