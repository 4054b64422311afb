//! What is asked, and what comes of it.

use std::sync::Arc;
use std::time::Duration;

use crate::base::Tensor;
use crate::error::{Error, Result};
use crate::serve::cache::{Answer, Digest};
use crate::serve::engine::Submit;

/// Makes the vector of a text: the caller's tokenizer and model. `submit` holds the query's tenant, class and the time that is left, for an
/// engine's ticket; its model is the caller's to fill in. Any `Fn(&str, &Submit) -> Result<Vec<f32>>` is one.
pub trait Embed: Send + Sync {
    /// The vector of a normalised text, of as many numbers as those of the collection.
    fn embed(&self, text: &str, submit: &Submit) -> Result<Vec<f32>>;
}

impl<F: Fn(&str, &Submit) -> Result<Vec<f32>> + Send + Sync> Embed for F {
    fn embed(&self, text: &str, submit: &Submit) -> Result<Vec<f32>> {
        self(text, submit)
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The text, as it was written.
    pub text: &'a str,
    /// How many neighbours.
    pub k: usize,
    /// Whose answers: a query finds only those of its own partition, and learns nothing of others'.
    pub partition: &'a str,
    /// On whose behalf, for the engine's shares.
    pub tenant: u32,
    /// Its class in the engine: 0 goes first.
    pub priority: u8,
    /// How soon the answer is due. `None` takes the engine's target for embedding and search each, and waits for an equal query for as
    /// long as it takes.
    pub deadline: Option<Duration>,
}

impl Default for Query<'_> {
    fn default() -> Self {
        Query { text: "", k: 10, partition: "", tenant: 0, priority: 0, deadline: None }
    }
}

/// Where an answer comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// From the index.
    Computed,
    /// From the cache, or with an equal query that was under way: what the index said, to the bit.
    Cached,
    /// It is the answer to another query of this partition, on the same version of the index.
    #[allow(missing_docs)]
    Similar { query: Arc<str>, cosine: f32 },
}

/// The neighbours of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Retrieved {
    /// Best first.
    pub ids: Vec<u64>,
    /// As [`crate::search::Found::scores`].
    pub scores: Vec<f32>,
    /// The version of the collection that was searched. It was the collection's at some time between question and answer.
    pub version: Digest,
    /// Where the answer comes from.
    pub origin: Origin,
}

impl Retrieved {
    /// Out of the outputs of a search.
    pub(super) fn of(answer: &Answer, origin: Origin) -> Result<Self> {
        Ok(Retrieved {
            ids: tensor(answer, "ids")?.values()?.into_owned(),
            scores: tensor(answer, "scores")?.values()?.into_owned(),
            version: version(answer)?,
            origin,
        })
    }
}

pub(super) fn tensor<'a>(answer: &'a Answer, name: &str) -> Result<&'a Tensor> {
    let found = answer.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor);
    found.ok_or_else(|| Error::BadInput(format!("an answer in the cache has no {name:?}: clear the cache")))
}

/// The version that a search's outputs are of.
pub(super) fn version(answer: &Answer) -> Result<Digest> {
    let bytes = tensor(answer, "version")?.bytes().try_into();
    bytes.map(Digest).map_err(|_| Error::BadInput("an answer's version has not 32 bytes".into()))
}
