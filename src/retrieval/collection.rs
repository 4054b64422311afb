//! An index that changes while it is searched, and says what it held.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::base::{DType, Tensor, TensorView, lock};
use crate::error::{Error, Result};
use crate::graph::{Dim, Graph, Port};
use crate::search::{Index, IndexOptions};
use crate::serve::cache::Digest;
use crate::serve::engine::Runner;
use crate::session::Outputs;

/// An index at one time.
pub(super) struct Snapshot {
    index: Index,
    pub version: Digest,
}

/// A [`crate::search::Index`] that many search while others change it: a search sees one version of it, whole, and nobody waits for a change.
///
/// A version is a hash of all that was done to the index since it was empty, in order. So equal versions hold equal vectors, in other processes too.
/// For an engine it is a model of two inputs, `queries` `[batch, dim]` of f32 and `k` `[1]` of i64, and three outputs: `ids` `[batch, k]` of u64,
/// `scores` `[batch, k]` of f32, and `version` `[batch, 32]` of u8.
pub struct Collection {
    graph: Graph,
    now: RwLock<Arc<Snapshot>>,
    /// Held by whoever changes it.
    change: Mutex<()>,
}

impl Collection {
    /// An empty one of vectors of `dim` numbers. Errors when that is 0.
    pub fn new(dim: usize, options: IndexOptions) -> Result<Self> {
        let IndexOptions { metric, storage, rescore, .. } = &options;
        let version = Digest(blake3::hash(format!("{dim} {metric:?} {storage:?} {rescore}").as_bytes()).into());
        let index = Index::new(dim, options)?;
        Ok(Collection { graph: declared(dim), now: RwLock::new(Arc::new(Snapshot { index, version })), change: Mutex::default() })
    }

    pub(super) fn now(&self) -> Arc<Snapshot> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The hash of what it holds.
    pub fn version(&self) -> Digest {
        self.now().version
    }

    /// What it holds, for searches outside of an engine.
    pub fn index(&self) -> Index {
        self.now().index.clone()
    }

    /// Adds `[n, dim]` vectors of f32, as [`Index::add`]; gives the new version.
    pub fn add(&self, vectors: TensorView) -> Result<Digest> {
        let bytes = vectors.bytes;
        self.change(b"add", bytes, |index| index.add(vectors))
    }

    /// Removes vectors by their numbers, as [`Index::remove`]; gives the new version.
    pub fn remove(&self, ids: &[u64]) -> Result<Digest> {
        self.change(b"remove", bytemuck::cast_slice(ids), |index| index.remove(ids).map(drop))
    }

    fn change(&self, what: &[u8], with: &[u8], change: impl FnOnce(&mut Index) -> Result<()>) -> Result<Digest> {
        let _one_at_a_time = lock(&self.change);
        let before = self.now();
        let mut index = before.index.clone();
        change(&mut index)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&before.version.0).update(what).update(with);
        let version = Digest(hasher.finalize().into());
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Snapshot { index, version });
        Ok(version)
    }
}

impl Runner for Collection {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn run(&self, inputs: &[(&str, TensorView)]) -> Result<Outputs> {
        let named = |name: &str| inputs.iter().find(|(n, _)| *n == name).map(|(_, view)| view);
        let (Some(queries), Some(k)) = (named("queries"), named("k")) else {
            return Err(Error::BadInput("a search takes the inputs queries and k".into()));
        };
        let k = usize::try_from(k.slice::<i64>()[0]).map_err(|_| Error::BadInput("k is below 0".into()))?;
        let now = self.now();
        let found = now.index.search(queries.clone(), k)?;
        let shape = [queries.shape[0], found.k];
        let outputs = [
            ("ids", Tensor::new(shape, &found.ids)?),
            ("scores", Tensor::new(shape, &found.scores)?),
            ("version", Tensor::new([shape[0], now.version.0.len()], &now.version.0.repeat(shape[0]))?),
        ];
        Ok(outputs.map(|(name, tensor)| (name.to_string(), tensor)).into_iter().collect())
    }
}

/// Inputs and outputs of a search.
fn declared(dim: usize) -> Graph {
    let mut graph = Graph { name: "search".into(), ..Graph::default() };
    let batch = || Dim::Named("batch".into());
    let mut port = |name: &str, dtype, dims: Vec<Dim>| {
        let value = graph.add_value(name, None);
        Port { value, dtype: Some(dtype), dims: Some(dims) }
    };
    let inputs = vec![port("queries", DType::F32, vec![batch(), Dim::Known(dim)]), port("k", DType::I64, vec![Dim::Known(1)])];
    let outputs = vec![
        port("ids", DType::U64, vec![batch(), Dim::Any]),
        port("scores", DType::F32, vec![batch(), Dim::Any]),
        port("version", DType::U8, vec![batch(), Dim::Known(32)]),
    ];
    (graph.inputs, graph.outputs) = (inputs, outputs);
    graph
}
