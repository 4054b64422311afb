//! Problems made from sizes alone, as the operator table lowers them.

use crate::base::{DType, Tensor};
use crate::error::{Error, Result};
use crate::graph::{Attr, Attrs, Lower, Node, Operand, Problem, Refusal, Site, Type, ValueId};

/// A product of an M x K and a K x N matrix.
pub fn gemm(types: (DType, DType), [m, n, k]: [usize; 3]) -> Result<Problem> {
    let op = if types.0.is_float() { "MatMul" } else { "MatMulInteger" };
    lowered(op, &[Type::new(types.0, [m, k]), Type::new(types.1, [k, n])], Attrs::new())
}

/// The same product with constant weights of which two in every four are zero.
pub fn two_of_four(mut problem: Problem) -> Problem {
    if let Problem::Gemm(p) = &mut problem {
        p.two_of_four = true;
    }
    problem
}

/// Weights [k, n] with zeros for two in every four rows, for other rows in each column.
pub fn thinned(weights: &Tensor) -> Result<Tensor> {
    let (columns, size) = (weights.shape()[1], weights.dtype().size_bytes());
    let mut bytes = weights.bytes().to_vec();
    let zeros = |i: &usize| (i / columns + i % columns) % 4 >= 2;
    (0..bytes.len() / size).filter(zeros).for_each(|i| bytes[i * size..][..size].fill(0));
    Tensor::from_raw(weights.dtype(), weights.shape().clone(), &bytes)
}

/// A convolution in f32 of N images of C channels, H x W, with M filters of K x K: step 1, padded to keep the size.
pub fn conv([n, c, h, w, m, k]: [usize; 6]) -> Result<Problem> {
    let attrs = [("auto_pad".to_string(), Attr::Str("SAME_UPPER".into()))].into_iter().collect();
    lowered("Conv", &[Type::new(DType::F32, [n, c, h, w]), Type::new(DType::F32, [m, c, k, k])], attrs)
}

fn lowered(op: &str, inputs: &[Type], attrs: Attrs) -> Result<Problem> {
    let ids = (0..inputs.len()).map(|i| Some(ValueId(i))).collect();
    let node = Node { name: op.into(), attrs, ..Node::new("", op, 13, ids, vec![Some(ValueId(inputs.len()))]) };
    let operands: Vec<_> = inputs.iter().map(|ty| Some(Operand { ty: ty.clone(), value: None })).collect();
    let site = Site { node: &node, inputs: &operands };
    let def = node.def.ok_or_else(|| site.unsupported("no such operator in the table"))?;
    let types = (def.infer)(&site).map_err(|refusal| match refusal {
        Refusal::Error(e) => e,
        Refusal::NeedsValue(i) => Error::BadInput(format!("{op} needs the elements of input {i}")),
    })?;
    match def.lower {
        Lower::Family(problem) => problem(&site, &types),
        _ => Err(site.unsupported("no kernel computes it")),
    }
}
