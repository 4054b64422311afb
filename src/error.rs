//! The one error type of the crate.

/// What went wrong, where, and where it can be said, how to mend it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {why}")]
    File { path: String, why: String },
    /// The model file is damaged, hostile or breaks its specification.
    #[error("bad model: {at}: {why}")]
    BadModel { at: String, why: String },
    /// A node asks for something that no kernel or operator definition covers.
    #[error("unsupported: {at}: {why}")]
    Unsupported { at: String, why: String },
    /// The caller's tensors, names or options do not fit the model.
    #[error("bad input: {0}")]
    BadInput(String),
    /// A node's operands do not fit its operator.
    #[error("node {node} ({op}): {why}")]
    Node { node: String, op: String, why: String },
    /// A device failed, or has no driver, no memory, or no adapter.
    #[error("device {device}: {why}")]
    Device { device: String, why: String },
    /// The device is full.
    #[error("out of memory on {device}: {needed_bytes} bytes needed, {available_bytes} available")]
    OutOfMemory { device: String, needed_bytes: u64, available_bytes: u64 },
    /// A model's memory budget on a device is used up, or that of the process.
    #[error("over the memory budget of {account}: {needed_bytes} bytes needed, {available_bytes} left of {limit_bytes}")]
    OverBudget { account: String, limit_bytes: u64, needed_bytes: u64, available_bytes: u64 },
    /// An output holds NaN or infinity and the caller asked to be told.
    #[error("output {output} is not finite")]
    NonFinite { output: String },
    /// A run panicked: a fault of the program, not of the caller.
    #[error("the run panicked: {why}; the engine goes on, please report this with the inputs")]
    Panicked { why: String },
    /// The engine did not run a request.
    #[error(transparent)]
    Rejected(#[from] crate::serve::schedule::Rejection),
}

/// `std::result::Result` with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What is wrong with a file.
    pub(crate) fn file(path: &std::path::Path, why: impl std::fmt::Display) -> Self {
        Error::File { path: path.display().to_string(), why: why.to_string() }
    }

    /// Whether memory was short: the device's, or a budget's.
    pub fn is_memory(&self) -> bool {
        matches!(self, Error::OutOfMemory { .. } | Error::OverBudget { .. })
    }

    /// Whether the cause is a missing operator or kernel rather than a mistake (exit code 77 of the command line).
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Error::Unsupported { .. })
    }
}
