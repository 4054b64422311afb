//! Retrieval: texts that are alike share answers, an answer belongs to an index that existed, similar queries and prefetching.

mod cached;
mod prefetch;
#[allow(dead_code)]
#[path = "../serve_cache/redis.rs"]
mod redis;
mod semantic;
mod similar;
mod versions;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use halfbyte::hardware::DeviceKind;
use halfbyte::retrieval::{Collection, Origin, Query, Retriever, RetrieverOptions};
use halfbyte::search::IndexOptions;
use halfbyte::serve::engine::Submit;
use halfbyte::{Batching, Engine, Options, Result, TensorView};

type Cache = halfbyte::serve::cache::Cache<String>;

const DIM: usize = 32;

/// Counts of character pairs, hashed: near for texts that are written nearly alike.
fn hashed(text: &str) -> Vec<f32> {
    let mut vector = vec![0f32; DIM];
    let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
    bytes.windows(2).for_each(|pair| vector[((pair[0] * 31 + pair[1]) % DIM as u32) as usize] += 1.0);
    vector
}

/// An embedding of hashed pairs that counts how often it is asked.
fn counted(count: &Arc<AtomicUsize>) -> impl Fn(&str, &Submit) -> Result<Vec<f32>> + Send + Sync + use<> {
    let count = count.clone();
    move |text: &str, _: &Submit| {
        count.fetch_add(1, SeqCst);
        Ok(hashed(text))
    }
}

/// Nothing comes too late.
fn engine() -> Arc<Engine> {
    Arc::new(Engine::with_models(vec![], Batching { target_p99: Duration::from_secs(600), ..Batching::default() }).unwrap())
}

fn collection() -> Arc<Collection> {
    let session = Options { device: Some(DeviceKind::Cpu), threads: Some(2), ..Options::default() };
    Arc::new(Collection::new(DIM, IndexOptions { session, ..IndexOptions::default() }).unwrap())
}

/// One of the embeddings of texts.
fn of_texts(texts: &[&str]) -> Arc<Collection> {
    let collection = collection();
    let vectors: Vec<f32> = texts.iter().flat_map(|text| hashed(text)).collect();
    collection.add(TensorView::of([texts.len(), DIM], &vectors)).unwrap();
    collection
}

fn query(text: &str) -> Query<'_> {
    Query { text, k: 2, ..Query::default() }
}
