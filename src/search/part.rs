//! Vectors that are one matrix.

use std::sync::{Arc, Mutex};

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{IndexOptions, Metric, Storage};
use crate::base::{DType, Shape, Tensor, TensorView, lock};
use crate::error::{Error, Result};
use crate::graph::{Attr, Dim, Graph, Node, Port, ValueId};
use crate::pass::quantize::{Bits, Stored};
use crate::session::{Model, Session};

/// ONNX's number of f32, for Cast.
const TO_F32: i64 = 1;
/// What is added to the products of removed vectors.
const REMOVED: f32 = f32::NEG_INFINITY;

/// Some of an index's vectors, and the session that multiplies them, made when it is first asked.
pub(super) struct Part {
    /// Ascending, one for each vector.
    ids: Vec<u64>,
    /// `[rows, dim]`.
    vectors: Tensor,
    /// Of 8-bit vectors, `[rows]`.
    scales: Option<Tensor>,
    /// Of 8-bit vectors whose candidates are compared again: as f16, `[rows, dim]`.
    closer: Option<Tensor>,
    /// Of distances: minus half of the squared length of each, `[rows]`.
    halves: Option<Tensor>,
    /// Where some were removed: what is added to the products instead of `halves`, minus infinity for those.
    mask: Option<Tensor>,
    removed: usize,
    session: Mutex<Option<Arc<Session>>>,
}

impl Part {
    /// Stores rows of `dim` numbers, numbered from `first`.
    pub fn new(rows: &[f32], dim: usize, first: u64, options: &IndexOptions) -> Result<Self> {
        let shape = [rows.len() / dim, dim];
        let (mut scales, mut closer) = (None, None);
        let vectors = match options.storage {
            Storage::F32 => Tensor::new(shape, rows)?,
            Storage::F16 => halved(shape, rows)?,
            Storage::Int8 => {
                let stored = Stored::nearest(rows, dim, Bits::Eight);
                scales = Some(Tensor::vector(&stored.scales));
                closer = (options.rescore > 0).then(|| halved(shape, rows)).transpose()?;
                Tensor::new(shape, &stored.codes.iter().map(|&code| code as i8).collect::<Vec<_>>())?
            }
        };
        let half = |row: &[f32]| (-0.5 * row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()) as f32;
        let halves = (options.metric == Metric::SquaredDistance)
            .then(|| Tensor::vector(&rows.chunks_exact(dim).map(half).collect::<Vec<f32>>()));
        let ids = (first..first + shape[0] as u64).collect();
        Ok(Part { ids, vectors, scales, closer, halves, mask: None, removed: 0, session: Mutex::default() })
    }

    /// Number of vectors, without those that were removed.
    pub fn rows(&self) -> usize {
        self.ids.len() - self.removed
    }

    /// Bytes stored.
    pub fn bytes(&self) -> usize {
        [Some(&self.vectors), self.scales.as_ref(), self.closer.as_ref(), self.halves.as_ref(), self.mask.as_ref()]
            .into_iter()
            .flatten()
            .map(|t| t.bytes().len())
            .sum()
    }

    /// These and those of `next`, without what was removed.
    pub fn joined(&self, next: &Part) -> Result<Part> {
        Self::gathered(&[self, next])
    }

    /// The same without `ids`; `None` when none of them is here. What is removed is masked until it is more than half.
    pub fn without(&self, ids: &[u64]) -> Result<Option<Part>> {
        let mut mask = match self.mask.as_ref().or(self.halves.as_ref()) {
            Some(mask) => mask.values::<f32>()?.into_owned(),
            None => vec![0.0; self.ids.len()],
        };
        let mut removed = self.removed;
        for at in ids.iter().filter_map(|id| self.ids.binary_search(id).ok()) {
            removed += usize::from(mask[at] != REMOVED);
            mask[at] = REMOVED;
        }
        if removed == self.removed {
            return Ok(None);
        }
        // A session that takes a mask takes this one too.
        let session = self.mask.as_ref().and_then(|_| lock(&self.session).clone());
        let part = Part {
            ids: self.ids.clone(),
            vectors: self.vectors.clone(),
            scales: self.scales.clone(),
            closer: self.closer.clone(),
            halves: self.halves.clone(),
            mask: Some(Tensor::vector(&mask)),
            removed,
            session: Mutex::new(session),
        };
        Ok(Some(if 2 * removed > part.ids.len() { Self::gathered(&[&part])? } else { part }))
    }

    /// What is left of parts, as one.
    fn gathered(parts: &[&Part]) -> Result<Part> {
        let live = parts.iter().map(|part| part.live()).collect::<Result<Vec<Vec<usize>>>>()?;
        let gather = |of: fn(&Part) -> Option<&Tensor>| {
            let Some(first) = of(parts[0]) else { return Ok(None) };
            let size = first.bytes().len() / parts[0].ids.len();
            let mut shape: Shape = first.shape().clone();
            shape[0] = live.iter().map(Vec::len).sum();
            let mut bytes = Vec::with_capacity(shape[0] * size);
            for (part, live) in parts.iter().zip(&live) {
                let all = of(part).map_or(&[][..], Tensor::bytes);
                live.iter().for_each(|row| bytes.extend_from_slice(&all[row * size..][..size]));
            }
            Tensor::from_raw(first.dtype(), shape, &bytes).map(Some)
        };
        Ok(Part {
            ids: parts.iter().zip(&live).flat_map(|(part, live)| live.iter().map(|&row| part.ids[row])).collect(),
            vectors: gather(|part| Some(&part.vectors))?.expect("invariant: every part has vectors"),
            scales: gather(|part| part.scales.as_ref())?,
            closer: gather(|part| part.closer.as_ref())?,
            halves: gather(|part| part.halves.as_ref())?,
            mask: None,
            removed: 0,
            session: Mutex::default(),
        })
    }

    /// Rows that were not removed.
    fn live(&self) -> Result<Vec<usize>> {
        let mask = self.mask.as_ref().map(Tensor::values::<f32>).transpose()?;
        Ok((0..self.ids.len()).filter(|&row| mask.as_ref().is_none_or(|mask| mask[row] != REMOVED)).collect())
    }

    /// Gives each query, of as many numbers as the vectors have, its `k` nearest at most: products, less half the squared lengths.
    pub fn search(
        &self,
        queries: &[f32],
        k: usize,
        options: &IndexOptions,
        mut found: impl FnMut(usize, &mut dyn Iterator<Item = (f32, u64)>),
    ) -> Result<()> {
        let dim = self.vectors.shape()[1];
        // What was removed comes last, so it is never among as many as there are others.
        let candidates = if self.closer.is_some() { k.saturating_mul(options.rescore) } else { k }.min(self.rows());
        let view = TensorView::of([queries.len() / dim, dim], queries);
        let k = [candidates as i64];
        let inputs =
            [Some(("queries", view)), Some(("k", TensorView::of([1], &k))), self.mask.as_ref().map(|m| ("mask", m.view()))];
        let outputs = self.session(options)?.run(&inputs.into_iter().flatten().collect::<Vec<_>>())?;
        let (scores, rows) = (outputs.values::<f32>("scores")?, outputs.values::<i64>("rows")?);
        for (query, (scores, rows)) in scores.chunks_exact(candidates).zip(rows.chunks_exact(candidates)).enumerate() {
            let mut all: Vec<(f32, usize)> = scores.iter().copied().zip(rows.iter().map(|&row| row as usize)).collect();
            if let Some(closer) = &self.closer {
                self.rescore(closer, &queries[query * dim..][..dim], &mut all)?;
            }
            found(query, &mut all.into_iter().map(|(score, row)| (score, self.ids[row])));
        }
        Ok(())
    }

    /// Scores of candidates by their f16 copies, best first.
    fn rescore(&self, closer: &Tensor, query: &[f32], all: &mut [(f32, usize)]) -> Result<()> {
        let (vectors, halves) = (closer.values::<f16>()?, self.halves.as_ref().map(Tensor::values::<f32>).transpose()?);
        let mut wider = vec![0f32; query.len()];
        for (score, row) in all.iter_mut() {
            vectors[*row * query.len()..][..query.len()].convert_to_f32_slice(&mut wider);
            let product: f32 = query.iter().zip(&wider).map(|(q, v)| q * v).sum();
            *score = product + halves.as_ref().map_or(0.0, |h| h[*row]);
        }
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        Ok(())
    }

    fn session(&self, options: &IndexOptions) -> Result<Arc<Session>> {
        let mut made = lock(&self.session);
        if let Some(session) = &*made {
            return Ok(session.clone());
        }
        let session = Session::new(&Model::from_graph(self.graph()), options.session.clone())?;
        Ok(made.insert(Arc::new(session)).clone())
    }

    /// `scores, rows = TopK(queries x vectors + mask or halves, k)`.
    fn graph(&self) -> Graph {
        let mut graph = Graph { name: "search".into(), ..Graph::default() };
        let dim = self.vectors.shape()[1];
        let queries = input(&mut graph, "queries", DType::F32, vec![Dim::Any, Dim::Known(dim)]);
        let k = input(&mut graph, "k", DType::I64, vec![Dim::Known(1)]);
        let vectors = graph.add_value("vectors", Some(self.vectors.clone()));
        let scales = self.scales.clone().map(|t| graph.add_value("scales", Some(t)));
        let added = match &self.mask {
            Some(mask) => Some(input(&mut graph, "mask", DType::F32, vec![Dim::Known(mask.numel())])),
            None => self.halves.clone().map(|t| graph.add_value("halves", Some(t))),
        };
        let transposed = ("transB", Attr::Int(1));
        let products = match self.vectors.dtype() {
            DType::I8 => {
                let inputs = vec![Some(queries), Some(vectors), scales, added];
                op(&mut graph, ("halfbyte", "LinearInt8", 1), inputs, &["products"], &[transposed])[0]
            }
            dtype => {
                let cast = [("to", Attr::Int(TO_F32))];
                let vectors = match dtype {
                    DType::F32 => vectors,
                    _ => op(&mut graph, ("", "Cast", 13), vec![Some(vectors)], &["floats"], &cast)[0],
                };
                let inputs = [Some(queries), Some(vectors)].into_iter().chain(added.map(Some)).collect();
                op(&mut graph, ("", "Gemm", 13), inputs, &["products"], &[transposed])[0]
            }
        };
        for v in op(&mut graph, ("", "TopK", 11), vec![Some(products), Some(k)], &["scores", "rows"], &[]) {
            graph.outputs.push(Port { value: v, dtype: None, dims: None });
        }
        graph
    }
}

/// As f16. Errors where they do not fit.
fn halved(shape: [usize; 2], rows: &[f32]) -> Result<Tensor> {
    let halves: Vec<f16> = rows.iter().map(|&v| f16::from_f32(v)).collect();
    if halves.iter().any(|v| !v.is_finite()) {
        return Err(Error::BadInput("numbers beyond the largest f16, 65504: store the vectors as f32".into()));
    }
    Tensor::new(shape, &halves)
}

fn input(graph: &mut Graph, name: &str, dtype: DType, dims: Vec<Dim>) -> ValueId {
    let value = graph.add_value(name, None);
    graph.inputs.push(Port { value, dtype: Some(dtype), dims: Some(dims) });
    value
}

fn op(
    graph: &mut Graph,
    (domain, op, opset): (&str, &str, i64),
    inputs: Vec<Option<ValueId>>,
    outputs: &[&str],
    attrs: &[(&str, Attr)],
) -> Vec<ValueId> {
    let made: Vec<ValueId> = outputs.iter().map(|name| graph.add_value(*name, None)).collect();
    let mut node = Node::new(domain, op, opset, inputs, made.iter().copied().map(Some).collect());
    node.name = op.to_lowercase();
    node.attrs = attrs.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    graph.nodes.push(node);
    made
}
