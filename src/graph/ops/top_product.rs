//! The largest results of each row of a matrix product, without the others being stored: what exact nearest neighbours are.

use super::gemm::named;
use crate::base::DType;
use crate::error::Result;
use crate::graph::op::{Lower, Refusal};
use crate::graph::problem::gemm::GemmProblem;
use crate::graph::{OpDef, Problem, Site, Type};

/// `halfbyte:MatMulTopK`: the product `of` (MatMul, Gemm, Linear, LinearInt8 or LinearStored, with its inputs and attributes) of f32, and of each of
/// its rows the K largest results with their columns, as TopK of ONNX gives them. K is input [`K`].
pub(super) static OPS: &[OpDef] = &[OpDef { domain: "halfbyte", name: "MatMulTopK", infer, lower: Lower::Family(lower) }];

/// The input that says how many, after those of any product.
pub(crate) const K: usize = 4;

/// The product of rows by one matrix.
fn product(site: &Site) -> Result<GemmProblem> {
    let p = named(site, site.str("of", "MatMul"))?.folded();
    match () {
        _ if !p.batch.is_empty() || p.shape.last() != Some(&p.n) => Err(site.error("a stack of matrices, or a column")),
        _ if p.out != DType::F32 => Err(site.error(format!("results are {}, not f32", p.out))),
        _ if u32::try_from(p.n).is_err() => Err(site.error("more than 2^32 - 1 columns")),
        _ => Ok(p),
    }
}

fn infer(site: &Site) -> Result<Vec<Type>, Refusal> {
    let p = product(site)?;
    let k = site.int_values(K)?.and_then(|v| v.first().copied()).ok_or_else(|| site.error("K is missing"))?;
    let k = usize::try_from(k).ok().filter(|&k| k <= p.n).ok_or_else(|| site.error(format!("K is {k} of {}", p.n)))?;
    let mut shape = p.shape;
    shape.last_mut().into_iter().for_each(|last| *last = k);
    Ok(vec![Type::new(DType::F32, shape.clone()), Type::new(DType::I64, shape)])
}

fn lower(site: &Site, out: &[Type]) -> Result<Problem> {
    Ok(Problem::Gemm(GemmProblem { top: out[0].shape.last().copied(), ..product(site)? }))
}
