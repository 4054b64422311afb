//! Cached retrieval: a text's nearest neighbours in an index that changes. See `docs/retrieval.md`.

mod collection;
mod normalization;
mod prefetch;
mod query;
mod retriever;
mod semantic;

pub use collection::Collection;
pub use normalization::Normalization;
pub use prefetch::{Prefetcher, Prefetching, Progress};
pub use query::{Embed, Origin, Query, Retrieved};
pub use retriever::{Retriever, RetrieverOptions};
pub use semantic::{SemanticCache, SemanticOptions, Similar};
