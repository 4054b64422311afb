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

/// Some of an index's vectors, and the session that multiplies them, made when it is first asked.
pub(super) struct Part {
    /// `[rows, dim]`.
    vectors: Tensor,
    /// Of 8-bit vectors, `[rows]`.
    scales: Option<Tensor>,
    /// Of 8-bit vectors whose candidates are compared again: as f16, `[rows, dim]`.
    closer: Option<Tensor>,
    /// Of distances: minus half of the squared length of each, `[rows]`.
    halves: Option<Tensor>,
    session: Mutex<Option<Arc<Session>>>,
}

impl Part {
    /// Stores rows of `dim` numbers.
    pub fn new(rows: &[f32], dim: usize, options: &IndexOptions) -> Result<Self> {
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
        Ok(Part { vectors, scales, closer, halves, session: Mutex::default() })
    }

    /// Number of vectors.
    pub fn rows(&self) -> usize {
        self.vectors.shape()[0]
    }

    /// Bytes stored.
    pub fn bytes(&self) -> usize {
        [Some(&self.vectors), self.scales.as_ref(), self.closer.as_ref(), self.halves.as_ref()]
            .into_iter()
            .flatten()
            .map(|t| t.bytes().len())
            .sum()
    }

    /// These and those of `next`.
    pub fn joined(&self, next: &Part) -> Result<Part> {
        let join = |a: &Tensor, b: &Tensor| {
            let mut shape: Shape = a.shape().clone();
            shape[0] += b.shape()[0];
            Tensor::from_raw(a.dtype(), shape, &[a.bytes(), b.bytes()].concat())
        };
        let both = |a: &Option<Tensor>, b: &Option<Tensor>| a.as_ref().zip(b.as_ref()).map(|(a, b)| join(a, b)).transpose();
        Ok(Part {
            vectors: join(&self.vectors, &next.vectors)?,
            scales: both(&self.scales, &next.scales)?,
            closer: both(&self.closer, &next.closer)?,
            halves: both(&self.halves, &next.halves)?,
            session: Mutex::default(),
        })
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
        let candidates = if self.closer.is_some() { k.saturating_mul(options.rescore) } else { k }.min(self.rows());
        let view = TensorView::of([queries.len() / dim, dim], queries);
        let outputs = self.session(options)?.run(&[("queries", view), ("k", TensorView::of([1], &[candidates as i64]))])?;
        let (scores, ids) = (outputs.values::<f32>("scores")?, outputs.values::<i64>("ids")?);
        for (query, (scores, ids)) in scores.chunks_exact(candidates).zip(ids.chunks_exact(candidates)).enumerate() {
            let mut all: Vec<(f32, u64)> = scores.iter().copied().zip(ids.iter().map(|&id| id as u64)).collect();
            if let Some(closer) = &self.closer {
                self.rescore(closer, &queries[query * dim..][..dim], &mut all)?;
            }
            found(query, &mut all.into_iter());
        }
        Ok(())
    }

    /// Scores of candidates by their f16 copies, best first.
    fn rescore(&self, closer: &Tensor, query: &[f32], all: &mut [(f32, u64)]) -> Result<()> {
        let (vectors, halves) = (closer.values::<f16>()?, self.halves.as_ref().map(Tensor::values::<f32>).transpose()?);
        let mut wider = vec![0f32; query.len()];
        for (score, id) in all.iter_mut() {
            let at = *id as usize;
            vectors[at * query.len()..][..query.len()].convert_to_f32_slice(&mut wider);
            let product: f32 = query.iter().zip(&wider).map(|(q, v)| q * v).sum();
            *score = product + halves.as_ref().map_or(0.0, |h| h[at]);
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

    /// `scores, ids = TopK(queries x vectors + halves, k)`.
    fn graph(&self) -> Graph {
        let mut graph = Graph { name: "search".into(), ..Graph::default() };
        let dim = self.vectors.shape()[1];
        let queries = input(&mut graph, "queries", DType::F32, vec![Dim::Any, Dim::Known(dim)]);
        let k = input(&mut graph, "k", DType::I64, vec![Dim::Known(1)]);
        let vectors = graph.add_value("vectors", Some(self.vectors.clone()));
        let scales = self.scales.clone().map(|t| graph.add_value("scales", Some(t)));
        let halves = self.halves.clone().map(|t| graph.add_value("halves", Some(t)));
        let transposed = ("transB", Attr::Int(1));
        let products = match self.vectors.dtype() {
            DType::I8 => {
                let inputs = vec![Some(queries), Some(vectors), scales, halves];
                op(&mut graph, ("halfbyte", "LinearInt8", 1), inputs, &["products"], &[transposed])[0]
            }
            dtype => {
                let cast = [("to", Attr::Int(TO_F32))];
                let vectors = match dtype {
                    DType::F32 => vectors,
                    _ => op(&mut graph, ("", "Cast", 13), vec![Some(vectors)], &["floats"], &cast)[0],
                };
                let inputs = [Some(queries), Some(vectors)].into_iter().chain(halves.map(Some)).collect();
                op(&mut graph, ("", "Gemm", 13), inputs, &["products"], &[transposed])[0]
            }
        };
        for v in op(&mut graph, ("", "TopK", 11), vec![Some(products), Some(k)], &["scores", "ids"], &[]) {
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
