//! An index of vectors that answers exactly.

use std::sync::Arc;

use super::nearest::{merge, unit};
use super::part::Part;
use crate::base::{DType, TensorView};
use crate::error::{Error, Result};
use crate::session::Options;

/// Vectors of one part at most: what bounds the scores of a run where a device stores them.
const PART_ROWS: usize = 1 << 18;

/// What "nearest" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Metric {
    /// The largest inner product.
    #[default]
    InnerProduct,
    /// The largest cosine of the angle; 0 to vectors of zeros.
    Cosine,
    /// The smallest square of the Euclidean distance.
    SquaredDistance,
}

/// How vectors are stored and multiplied. Sums are f32, of 8-bit integers exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Storage {
    /// 4 bytes a number.
    #[default]
    F32,
    /// 2 bytes a number.
    F16,
    /// 1 byte a number and a scale for each vector; queries are rounded to 8 bits in the same way.
    Int8,
}

/// Of an [`Index`].
#[derive(Debug, Clone, Default)]
pub struct IndexOptions {
    /// What "nearest" means.
    pub metric: Metric,
    /// How vectors are stored.
    pub storage: Storage,
    /// Of 8-bit vectors: so many candidates for each neighbour are compared again, by copies of the vectors as f16, which are kept beside them. 0
    /// keeps none.
    pub rescore: usize,
    /// Where and how products run.
    pub session: Options,
}

/// Vectors, numbered from 0 in the order in which they were added; a removed vector's number is not given again. A clone shares them, and
/// keeps what it has when the other changes.
///
/// They lie in parts that are searched one after the other; parts of about the same size are joined, so that adding n vectors one by one
/// moves each of them log n times (O'Neil and others, The Log-Structured Merge-Tree, 1996).
#[derive(Clone)]
pub struct Index {
    dim: usize,
    options: IndexOptions,
    parts: Vec<Arc<Part>>,
    /// The number of the next vector.
    next: u64,
}

/// What a search gives, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Neighbours of each query: as many as were asked for, or all vectors where these are fewer.
    pub k: usize,
    /// `[queries, k]`.
    pub ids: Vec<u64>,
    /// `[queries, k]`: inner product, cosine, or the square of the distance. Of equal ones the vector that was added first comes first.
    pub scores: Vec<f32>,
}

impl Index {
    /// Of vectors of `dim` numbers. Errors when that is 0.
    pub fn new(dim: usize, options: IndexOptions) -> Result<Self> {
        if dim == 0 {
            return Err(Error::BadInput("vectors of 0 numbers".into()));
        }
        Ok(Index { dim, options, parts: Vec::new(), next: 0 })
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.rows()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Numbers of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Bytes of the vectors as they are stored.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.bytes()).sum()
    }

    /// Adds `[n, dim]` vectors of f32. Errors when they are of another shape or not finite; then nothing is added.
    pub fn add(&mut self, vectors: TensorView) -> Result<()> {
        let rows = self.rows(&vectors, "vectors")?;
        // Of a clone, so that nothing is added where a part cannot be made.
        let mut parts = self.parts.clone();
        let mut next = self.next;
        for rows in rows.chunks(PART_ROWS * self.dim) {
            parts.push(Arc::new(Part::new(rows, self.dim, next, &self.options)?));
            next += (rows.len() / self.dim) as u64;
            while let [.., before, last] = &parts[..] {
                if before.rows() >= 2 * last.rows() || before.rows() + last.rows() > PART_ROWS {
                    break;
                }
                let joined = before.joined(last)?;
                parts.truncate(parts.len() - 2);
                parts.push(Arc::new(joined));
            }
        }
        (self.parts, self.next) = (parts, next);
        Ok(())
    }

    /// Removes vectors by their numbers; how many of them were there. Errors when a part cannot be made anew; then nothing is removed.
    pub fn remove(&mut self, ids: &[u64]) -> Result<usize> {
        let before = self.len();
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            parts.push(part.without(ids)?.map_or_else(|| part.clone(), Arc::new));
        }
        parts.retain(|part| part.rows() > 0);
        self.parts = parts;
        Ok(before - self.len())
    }

    /// The `k` nearest vectors of each of `[n, dim]` queries of f32. Errors when they are of another shape or not finite, and with the device.
    pub fn search(&self, queries: TensorView, k: usize) -> Result<Found> {
        let rows = self.rows(&queries, "queries")?;
        let (count, k) = (rows.len() / self.dim, k.min(self.len()));
        let mut best: Vec<Vec<(f32, u64)>> = vec![Vec::new(); count];
        for part in self.parts.iter().filter(|_| count > 0 && k > 0) {
            part.search(&rows, k, &self.options, |query, found| merge(&mut best[query], found, k))?;
        }
        let (scores, ids): (Vec<f32>, Vec<u64>) = best.into_iter().flatten().unzip();
        let scores = match self.options.metric {
            Metric::InnerProduct | Metric::Cosine => scores,
            Metric::SquaredDistance => squares(&rows, self.dim, &scores, k),
        };
        Ok(Found { k, ids, scores })
    }

    /// The numbers, of length 1 where angles alone matter.
    fn rows(&self, t: &TensorView, what: &str) -> Result<Vec<f32>> {
        let numbers: Vec<f32> = match t.shape[..] {
            [_, dim] if dim == self.dim && t.dtype == DType::F32 => bytemuck::pod_collect_to_vec(t.bytes),
            _ => return Err(Error::BadInput(format!("{what} of {} and shape {}, not f32 [n, {}]", t.dtype, t.shape, self.dim))),
        };
        if let Some(at) = numbers.iter().position(|v| !v.is_finite()) {
            return Err(Error::BadInput(format!("{} among the {what}, in row {}", numbers[at], at / self.dim)));
        }
        Ok(if self.options.metric == Metric::Cosine { unit(numbers, self.dim) } else { numbers })
    }
}

/// Squares of distances out of q v - |v|^2 / 2; not below 0, where rounding would take them.
fn squares(queries: &[f32], dim: usize, scores: &[f32], k: usize) -> Vec<f32> {
    let length = |q: &[f32]| q.iter().map(|v| v * v).sum::<f32>();
    let lengths = queries.chunks_exact(dim).flat_map(|q| std::iter::repeat_n(length(q), k));
    lengths.zip(scores).map(|(q, s)| (q - 2.0 * s).max(0.0)).collect()
}
