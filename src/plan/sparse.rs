//! Finds constant weights of products of which two in every four neighbours along K are zero.

use std::collections::HashMap;
use std::sync::Mutex;

use super::work::{Facts, Origin, Work};
use crate::base::sparse::fits;
use crate::base::{DType, Tensor, lock};
use crate::graph::Problem;
use crate::graph::problem::GemmProblem;

/// Rows of weights that are shorter are not looked at: kernels multiply whole blocks.
const SHORTEST: usize = 32;

/// A matrix's address and how it lies: rows and columns with their steps.
type Place = (usize, [usize; 4]);

/// What was found of each matrix. The tensors stay alive so that no other can come to lie there.
#[derive(Default)]
pub struct Patterns(Mutex<HashMap<Place, (Tensor, bool)>>);

impl Patterns {
    /// Says of each product with one constant matrix whether it is so: [`GemmProblem::two_of_four`].
    pub fn mark(&self, works: &mut [Work], facts: &Facts) {
        for work in works {
            let Problem::Gemm(p) = &mut work.problem else { continue };
            let weights = work.inputs.get(p.b.input).copied().flatten().map(|f| &facts[f]);
            let Some(t) = weights.filter(|f| f.origin == Origin::Known).and_then(|f| f.value.as_ref()) else { continue };
            let plain = p.contraction.is_none() && p.pick.is_none() && p.b.batch.iter().all(|&s| s == 0);
            p.two_of_four = plain && p.k >= SHORTEST && self.holds(p, t);
        }
    }

    fn holds(&self, p: &GemmProblem, weights: &Tensor) -> bool {
        let key = (weights.address(), [p.n, p.k, p.b.col, p.b.row]);
        if let Some((_, found)) = lock(&self.0).get(&key) {
            return *found;
        }
        let found = two_of_four(p, weights);
        lock(&self.0).insert(key, (weights.clone(), found));
        found
    }
}

/// By the elements as they are multiplied: of u8 128 is zero.
fn two_of_four(p: &GemmProblem, weights: &Tensor) -> bool {
    let size = weights.dtype().size_bytes();
    // Floats without their sign.
    let zero = |e: &[u8]| e[..size - 1].iter().all(|&b| b == 0) && e[size - 1] & 0x7f == 0;
    let bytes = weights.bytes();
    let is_zero = |n: usize, k: usize| {
        let at = (k * p.b.row + n * p.b.col) * size;
        match weights.dtype() {
            DType::I8 => bytes[at] == 0,
            DType::U8 => bytes[at] == 128,
            _ => zero(&bytes[at..at + size]),
        }
    };
    let known = matches!(weights.dtype(), DType::F32 | DType::F16 | DType::BF16 | DType::I8 | DType::U8);
    known && fits(p.n, p.k, is_zero)
}
