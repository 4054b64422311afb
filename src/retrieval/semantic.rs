//! Answers to earlier queries that mean nearly the same.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use moka::sync::Cache;

use crate::base::{dot, lock};
use crate::error::{Error, Result};
use crate::search::nearest::unit;

/// Of a [`SemanticCache`].
#[derive(Debug, Clone, PartialEq)]
pub struct SemanticOptions {
    /// The least cosine between the embeddings of a query and of an earlier one that its answer is given for. Above 0, at most 1. What is near
    /// enough depends on the embedding: measure it on pairs of queries that must not share an answer.
    pub threshold: f32,
    /// Earlier queries of a partition that are kept, the latest.
    pub capacity: usize,
    /// How long an answer is given.
    pub ttl: Duration,
    /// Partitions that are kept at once.
    pub partitions: u64,
}

impl Default for SemanticOptions {
    fn default() -> Self {
        SemanticOptions { threshold: 0.97, capacity: 1024, ttl: Duration::from_secs(3600), partitions: 1024 }
    }
}

/// An earlier query's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Similar<A> {
    /// Its answer.
    pub answer: A,
    /// The cosine between both embeddings.
    pub cosine: f32,
    /// The earlier query.
    pub query: Arc<str>,
}

struct Entry<A> {
    query: Arc<str>,
    answer: A,
    until: Instant,
}

/// The latest queries of a partition, in a ring.
struct Recent<A> {
    /// Embeddings of length 1 behind each other, one for each entry.
    vectors: Vec<f32>,
    entries: Vec<Entry<A>>,
    /// The place of the next one.
    next: usize,
}

impl<A> Default for Recent<A> {
    fn default() -> Self {
        Recent { vectors: Vec::new(), entries: Vec::new(), next: 0 }
    }
}

/// Recent queries with their answers, found by what they mean: the nearest of a partition by cosine, all of them compared.
///
/// Such an answer is another query's, and may be wrong for this one. So it comes with that query and how near it was, and partitions share nothing.
pub struct SemanticCache<A> {
    dim: usize,
    options: SemanticOptions,
    recent: Cache<String, Arc<Mutex<Recent<A>>>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl<A: Clone + Send + Sync + 'static> SemanticCache<A> {
    /// Of embeddings of `dim` numbers. Errors when the threshold is not in (0, 1].
    pub fn new(dim: usize, options: SemanticOptions) -> Result<Self> {
        if !(options.threshold > 0.0 && options.threshold <= 1.0) {
            return Err(Error::BadInput(format!(
                "a threshold of {}: a cosine above 0 and at most 1 is needed",
                options.threshold
            )));
        }
        let recent = Cache::builder().max_capacity(options.partitions).time_to_idle(options.ttl).build();
        Ok(SemanticCache { dim, options, recent, hits: AtomicU64::new(0), misses: AtomicU64::new(0) })
    }

    /// The nearest earlier query of the partition, if it is near enough and its answer not too old. Errors as [`SemanticCache::keep`].
    pub fn find(&self, partition: &str, embedding: &[f32]) -> Result<Option<Similar<A>>> {
        let vector = self.unit(embedding)?;
        let found = self.recent.get(partition).and_then(|recent| self.nearest(&lock(&recent), &vector));
        (if found.is_some() { &self.hits } else { &self.misses }).fetch_add(1, Relaxed);
        Ok(found)
    }

    fn nearest(&self, recent: &Recent<A>, vector: &[f32]) -> Option<Similar<A>> {
        let now = Instant::now();
        let cosines = recent.vectors.chunks_exact(self.dim).map(|earlier| dot(earlier, vector));
        let alive = cosines.zip(&recent.entries).filter(|(cosine, entry)| *cosine >= self.options.threshold && now < entry.until);
        let (cosine, entry) = alive.max_by(|a, b| a.0.total_cmp(&b.0))?;
        Some(Similar { answer: entry.answer.clone(), cosine, query: entry.query.clone() })
    }

    /// Keeps an answer, in place of the partition's oldest where there is no room. Errors when the embedding has not `dim` finite numbers.
    pub fn keep(&self, partition: &str, embedding: &[f32], query: &str, answer: A) -> Result<()> {
        let vector = self.unit(embedding)?;
        let until = Instant::now() + self.options.ttl.min(Duration::from_secs(100 * 365 * 86400));
        let entry = Entry { query: query.into(), answer, until };
        let recent = self.recent.get_with_by_ref(partition, Arc::default);
        let mut recent = lock(&recent);
        let at = recent.next;
        if at == recent.entries.len() {
            recent.vectors.extend_from_slice(&vector);
            recent.entries.push(entry);
        } else {
            recent.vectors[at * self.dim..][..self.dim].copy_from_slice(&vector);
            recent.entries[at] = entry;
        }
        recent.next = (at + 1) % self.options.capacity.max(1);
        Ok(())
    }

    fn unit(&self, embedding: &[f32]) -> Result<Vec<f32>> {
        if embedding.len() != self.dim || embedding.iter().any(|v| !v.is_finite()) {
            return Err(Error::BadInput(format!("an embedding of {} numbers, not of {} finite ones", embedding.len(), self.dim)));
        }
        Ok(unit(embedding.to_vec(), self.dim))
    }

    /// Queries that found an answer, and that did not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.load(Relaxed), self.misses.load(Relaxed))
    }
}
