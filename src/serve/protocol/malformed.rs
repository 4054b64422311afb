//! What is wrong with a request.

use std::fmt::Display;

/// Kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It breaks the protocol, or does not agree with itself.
    Invalid,
    /// It is over a limit.
    TooLarge,
    /// It asks for a part of the protocol that is not here.
    Unsupported,
}

/// Why a request cannot be read: where, what, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {why}; {cure}")]
pub struct Malformed {
    /// The kind.
    pub fault: Fault,
    /// The field, as `inputs[0].shape`.
    pub at: String,
    /// What is wrong with it.
    pub why: String,
    /// What to send instead.
    pub cure: String,
}

/// Longest text of a request that an error repeats.
const REPEATED_CHARS: usize = 200;

impl Malformed {
    /// Breaks the protocol.
    pub fn invalid(at: impl Display, why: impl Display, cure: impl Display) -> Self {
        Self::new(Fault::Invalid, at, why, cure)
    }

    /// Over a limit.
    pub fn too_large(at: impl Display, why: impl Display, cure: impl Display) -> Self {
        Self::new(Fault::TooLarge, at, why, cure)
    }

    /// Not here.
    pub fn unsupported(at: impl Display, why: impl Display, cure: impl Display) -> Self {
        Self::new(Fault::Unsupported, at, why, cure)
    }

    fn new(fault: Fault, at: impl Display, why: impl Display, cure: impl Display) -> Self {
        Malformed { fault, at: clip(&at.to_string()), why: clip(&why.to_string()), cure: cure.to_string() }
    }
}

/// The beginning of a text that may be long.
pub(super) fn clip(text: &str) -> String {
    match text.char_indices().nth(REPEATED_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}
