//! A query's way: normalised, looked up, embedded, compared with similar ones, searched.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::query::{tensor, version};
use super::semantic::{SemanticCache, SemanticOptions, Similar};
use super::{Collection, Embed, Normalization, Origin, Query, Retrieved};
use crate::base::Tensor;
use crate::error::{Error, Result};
use crate::serve::cache::{self, Answer, Begin, Cache, Digest, Failure, Fetched, Identity, Lead, Scope};
use crate::serve::engine::{Engine, Serving, Submit};
use crate::serve::schedule::Rejection;

/// Of a [`Retriever`].
#[derive(Debug, Clone, Default)]
pub struct RetrieverOptions {
    /// Which differences between texts count for nothing. Embeddings are made of the normalised text, so that an answer does not depend on which
    /// spelling was asked first.
    pub normalization: Normalization,
    /// Names the embedding and all that it depends on beside the text: tokenizer, model, version, weights, precision. Where a second level is shared,
    /// those that differ in this see nothing of each other.
    pub embedding: String,
    /// The cache of embeddings and neighbours, with Redis as its second level where that is said.
    pub cache: cache::Options,
    /// Answers of similar queries; none by default.
    pub semantic: Option<SemanticOptions>,
}

/// Finds the neighbours of texts in a [`Collection`], with a cache in front of the embedding and of the search. Blocks; shared freely between
/// threads, and equal queries of theirs are computed once, others in batches.
pub struct Retriever<E> {
    embed: E,
    engine: Arc<Engine>,
    collection: Arc<Collection>,
    /// The collection's number in the engine.
    search: u32,
    dim: usize,
    options: RetrieverOptions,
    cache: Cache<Error>,
    semantic: Option<SemanticCache<Answer>>,
}

/// A normalised query on its way.
struct Asked<'a> {
    text: &'a str,
    query: &'a Query<'a>,
    until: Option<Instant>,
    /// As `Identity::partition`.
    scope: Scope,
}

impl<E: Embed> Retriever<E> {
    /// Searches `collection` through `engine`, which gets it as another model. Errors when an option makes no sense.
    pub fn new(embed: E, engine: Arc<Engine>, collection: Arc<Collection>, options: RetrieverOptions) -> Result<Self> {
        let cache = Cache::new(options.cache.clone())?;
        let dim = collection.index().dim();
        let semantic = options.semantic.clone().map(|s| SemanticCache::new(dim, s)).transpose()?;
        let search = engine.add(Serving::new("search", collection.clone()))?;
        Ok(Retriever { embed, engine, collection, search, dim, options, cache, semantic })
    }

    /// What is searched.
    pub fn collection(&self) -> &Collection {
        &self.collection
    }

    /// Figures of the cache; embeddings and neighbours are counted alike.
    pub fn cache_stats(&self) -> cache::Stats {
        self.cache.stats()
    }

    /// Queries that got a similar one's answer, and that found none.
    pub fn similar_and_not(&self) -> (u64, u64) {
        self.semantic.as_ref().map_or((0, 0), SemanticCache::hits_and_misses)
    }

    /// The neighbours of a text. Errors as the embedding and the engine do.
    pub fn retrieve(&self, query: &Query) -> Result<Retrieved> {
        let text = self.options.normalization.apply(query.text);
        let asked = self.asked(&text, query);
        let lead = match self.fetch(&asked, || asked.neighbours(self.collection.version()))? {
            Fetched::Hit(answer) => return Retrieved::of(&answer, Origin::Cached),
            Fetched::Lead(lead) => lead,
        };
        match self.embedding(&asked).and_then(|vector| self.nearest(&asked, &vector)) {
            Ok(Ok(answer)) => {
                // The index may have changed since the key was made. Those that follow then begin again.
                let own = asked.neighbours(version(&answer)?) == lead.key();
                let answer = if own { lead.publish(answer) } else { self.keep(&asked, answer)? };
                Retrieved::of(&answer, Origin::Computed)
            }
            // Another query's answer is none that equal queries should find as theirs.
            Ok(Err(Similar { answer, cosine, query })) => Retrieved::of(&answer, Origin::Similar { query, cosine }),
            Err(error) => Err(give_up(lead, error)),
        }
    }

    /// Computes what the cache does not have, and keeps it; whether there was anything to compute. No query waits for this one: where an equal one
    /// comes meanwhile, both compute.
    pub(super) fn warm(&self, query: &Query) -> Result<bool> {
        let text = self.options.normalization.apply(query.text);
        let asked = self.asked(&text, query);
        if self.known(&asked, asked.neighbours(self.collection.version())) {
            return Ok(false);
        }
        let key = asked.embedding();
        let vector = if self.known(&asked, key) {
            self.embedding(&asked)?
        } else {
            let vector = self.embed(&asked)?;
            self.publish(key, embedded(&vector));
            vector
        };
        let answer = self.search(&asked, &vector)?;
        self.remember(&asked, &vector, &answer)?;
        self.keep(&asked, answer)?;
        Ok(true)
    }

    fn asked<'a>(&self, text: &'a str, query: &'a Query) -> Asked<'a> {
        let identity = Identity { model: &self.options.embedding, partition: query.partition, ..Identity::default() };
        Asked {
            text,
            query,
            until: query.deadline.and_then(|time| Instant::now().checked_add(time)),
            scope: Scope::new(&identity),
        }
    }

    /// The answer of a key, or the lead. The key is made anew when the one that led has given up.
    fn fetch(&self, asked: &Asked, key: impl Fn() -> Digest) -> Result<Fetched<Error>> {
        loop {
            match self.cache.begin(key()) {
                Begin::Hit(answer) => return Ok(Fetched::Hit(answer)),
                Begin::Lead(lead) => return Ok(lead.fetch_within(asked.until)),
                Begin::Follow(waiter) => match waiter.wait(asked.until) {
                    Ok(answer) => return Ok(Fetched::Hit(answer)),
                    Err(Failure::Abandoned) => {}
                    Err(Failure::Failed(error)) => return Err(error),
                    Err(Failure::Panicked(why)) => return Err(Error::Panicked { why }),
                    Err(Failure::Late) => {
                        return Err(Rejection::TooLate {
                            needed: asked.query.deadline.unwrap_or_default(),
                            left: Duration::ZERO,
                        }
                        .into());
                    }
                },
            }
        }
    }

    /// Whether a key has an answer or is being computed.
    fn known(&self, asked: &Asked, key: Digest) -> bool {
        match self.cache.begin(key) {
            Begin::Lead(lead) => matches!(lead.fetch_within(asked.until), Fetched::Hit(_)),
            Begin::Hit(_) | Begin::Follow(_) => true,
        }
    }

    /// Keeps a search's answer under the version that it is of.
    fn keep(&self, asked: &Asked, answer: Answer) -> Result<Answer> {
        Ok(self.publish(asked.neighbours(version(&answer)?), answer))
    }

    fn publish(&self, key: Digest, answer: Answer) -> Answer {
        match self.cache.begin(key) {
            Begin::Lead(lead) => lead.publish(answer),
            Begin::Hit(_) | Begin::Follow(_) => answer,
        }
    }

    fn embedding(&self, asked: &Asked) -> Result<Vec<f32>> {
        match self.fetch(asked, || asked.embedding())? {
            Fetched::Hit(answer) => Ok(tensor(&answer, "embedding")?.values()?.into_owned()),
            Fetched::Lead(lead) => match self.embed(asked) {
                Ok(vector) => {
                    lead.publish(embedded(&vector));
                    Ok(vector)
                }
                Err(error) => Err(give_up(lead, error)),
            },
        }
    }

    fn embed(&self, asked: &Asked) -> Result<Vec<f32>> {
        let vector = self.embed.embed(asked.text, &asked.submit(0))?;
        if vector.len() != self.dim || vector.iter().any(|v| !v.is_finite()) {
            let why = format!("the embedding of {:?} has {} numbers, not {} finite ones", asked.text, vector.len(), self.dim);
            return Err(Error::BadInput(why));
        }
        Ok(vector)
    }

    /// The index's answer, or a similar query's.
    fn nearest(&self, asked: &Asked, vector: &[f32]) -> Result<Result<Answer, Similar<Answer>>> {
        if let Some(semantic) = &self.semantic
            && let Some(similar) = semantic.find(&asked.partition(self.collection.version()), vector)?
        {
            return Ok(Err(similar));
        }
        let answer = self.search(asked, vector)?;
        self.remember(asked, vector, &answer)?;
        Ok(Ok(answer))
    }

    fn remember(&self, asked: &Asked, vector: &[f32], answer: &Answer) -> Result<()> {
        let Some(semantic) = &self.semantic else { return Ok(()) };
        semantic.keep(&asked.partition(version(answer)?), vector, asked.text, answer.clone())
    }

    fn search(&self, asked: &Asked, vector: &[f32]) -> Result<Answer> {
        let k = Tensor::vector(&[i64::try_from(asked.query.k).unwrap_or(i64::MAX)]);
        let inputs = [("queries", Tensor::new([1, vector.len()], vector)?), ("k", k)];
        let reply = self.engine.submit_with(&inputs, &asked.submit(self.search))?.wait()?;
        Ok(reply.outputs.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect())
    }
}

impl Asked<'_> {
    fn submit(&self, model: u32) -> Submit {
        let Query { tenant, priority, .. } = *self.query;
        let deadline = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        Submit { model, tenant, priority, deadline }
    }

    /// The key of the text's embedding.
    fn embedding(&self) -> Digest {
        self.scope.key(&[], [("text", &Tensor::vector(self.text.as_bytes()))])
    }

    /// The key of its neighbours in a version of the collection.
    fn neighbours(&self, version: Digest) -> Digest {
        let [text, version, k] = [self.text.as_bytes(), &version.0, &(self.query.k as u64).to_le_bytes()].map(Tensor::vector);
        self.scope.key(&[], [("text", &text), ("version", &version), ("k", &k)])
    }

    /// Queries that may share answers because they mean nearly the same.
    fn partition(&self, version: Digest) -> String {
        format!("{} {} {}", version.hex(), self.query.k, self.query.partition)
    }
}

impl<E> Drop for Retriever<E> {
    fn drop(&mut self) {
        self.engine.remove(self.search);
    }
}

fn embedded(vector: &[f32]) -> Answer {
    vec![("embedding".to_string(), Tensor::vector(vector))].into()
}

/// Tells those that follow, unless what happened says nothing about them.
fn give_up(lead: Lead<Error>, error: Error) -> Error {
    match error {
        Error::Rejected(_) => lead.abandon(),
        _ => lead.fail(error.clone()),
    }
    error
}
