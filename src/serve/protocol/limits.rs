//! How much a request may ask for.

/// Reading a body never allocates more than this many bytes for each of its own, beside [`ALLOCATED_BYTES`]. The worst is gRPC: one byte of
/// a varint is an element of 8 bytes, in a vector that doubles as it grows, and 8 bytes more in the tensor.
pub const ALLOCATED_PER_BYTE: usize = 32;

/// What reading any body may allocate: its tensors' names, shapes and parameters.
pub const ALLOCATED_BYTES: usize = 1 << 20;

/// Most axes of a tensor.
pub(super) const RANK: usize = 32;

/// Most inputs, outputs and parameters of a message, together and each.
pub(super) const ENTRIES: usize = 1024;

/// Limits on requests. What is over them is refused before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Elements of all input tensors of a request.
    pub elements: usize,
    /// How deep arrays of `data` may lie in each other.
    pub json_depth: usize,
    /// Numbers in JSON of a request: each costs about ten times what it does in binary.
    pub json_numbers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { body_bytes: 64 << 20, elements: 64 << 20, json_depth: 16, json_numbers: 4 << 20 }
    }
}
