//! Reductions, arg-reductions, softmax and its kin, running sums, dynamic quantisation.

use crate::base::{DType, Shape};
use crate::error::Result;
use crate::graph::problem::reduce::{Fold, Groups, ReduceKind, Rows, SoftmaxKind};
use crate::graph::problem::{Problem, ReduceProblem};
use crate::graph::{Lower, OpDef, Refusal, Site, Type};

const fn fold(name: &'static str) -> OpDef {
    OpDef { domain: "", name, infer: infer_fold, lower: Lower::Family(lower_fold) }
}

const fn same(domain: &'static str, name: &'static str, lower: fn(&Site, &[Type]) -> Result<Problem>) -> OpDef {
    OpDef { domain, name, infer: infer_same, lower: Lower::Family(lower) }
}

pub(super) static OPS: &[OpDef] = &[
    fold("ReduceSum"),
    fold("ReduceMean"),
    fold("ReduceMax"),
    fold("ReduceMin"),
    fold("ReduceProd"),
    fold("ReduceL1"),
    fold("ReduceL2"),
    fold("ReduceLogSum"),
    fold("ReduceLogSumExp"),
    fold("ReduceSumSquare"),
    OpDef { domain: "", name: "ArgMax", infer: infer_arg, lower: Lower::Family(lower_arg) },
    OpDef { domain: "", name: "ArgMin", infer: infer_arg, lower: Lower::Family(lower_arg) },
    same("", "Softmax", lower_softmax),
    same("", "LogSoftmax", lower_softmax),
    same("", "Hardmax", lower_softmax),
    same("", "LpNormalization", lower_lp),
    same("", "MeanVarianceNormalization", lower_standardize),
    OpDef { domain: "", name: "CumSum", infer: infer_cumsum, lower: Lower::Family(lower_cumsum) },
    OpDef { domain: "", name: "DynamicQuantizeLinear", infer: infer_dynamic, lower: Lower::Family(lower_dynamic) },
    same("com.microsoft", "QLinearSoftmax", lower_quantized_softmax),
];

/// The problem of a reduction family's node.
pub(super) fn problem(site: &Site, out: &[Type], kind: ReduceKind) -> Result<Problem> {
    let out = out.iter().map(|t| t.dtype).collect();
    Ok(Problem::Reduce(ReduceProblem { x: site.ty(0)?.clone(), out, kind }))
}

/// Output 0 is like input 0.
pub(super) fn infer_same(site: &Site) -> Result<Vec<Type>, Refusal> {
    Ok(vec![site.ty(0)?.clone(); site.output_count()])
}

/// The reduced axes, sorted.
fn axes(site: &Site) -> Result<Vec<usize>, Refusal> {
    let rank = site.ty(0)?.shape.rank();
    let given = site.ints_attr_or_input("axes", 1)?.unwrap_or_default();
    if given.is_empty() && site.int("noop_with_empty_axes", 0) == 0 {
        return Ok((0..rank).collect());
    }
    let mut axes = given.iter().map(|&a| site.axis(a, rank)).collect::<Result<Vec<_>>>()?;
    axes.sort_unstable();
    if axes.windows(2).any(|w| w[0] == w[1]) {
        return Err(site.error("an axis is named twice").into());
    }
    Ok(axes)
}

/// `shape` with `axes` (sorted) gone, or 1 if `keep`.
fn reduced(shape: &Shape, axes: &[usize], keep: bool) -> Shape {
    let dim = |(i, &d): (usize, &usize)| match axes.contains(&i) {
        true if keep => Some(1),
        true => None,
        false => Some(d),
    };
    shape.iter().enumerate().filter_map(dim).collect()
}

fn infer_fold(site: &Site) -> Result<Vec<Type>, Refusal> {
    let x = site.ty(0)?;
    if x.dtype == DType::Bool && !matches!(site.node.op.as_str(), "ReduceMax" | "ReduceMin") {
        return Err(site.error("bool is not a number").into());
    }
    Ok(vec![Type::new(x.dtype, reduced(&x.shape, &axes(site)?, site.int("keepdims", 1) != 0))])
}

/// A value that `infer` has already read is known.
fn known<T>(site: &Site, value: Result<T, Refusal>) -> Result<T> {
    value.map_err(|refusal| match refusal {
        Refusal::Error(e) => e,
        Refusal::NeedsValue(i) => site.error(format!("input {i} must be known")),
    })
}

fn lower_fold(site: &Site, out: &[Type]) -> Result<Problem> {
    let fold = match site.node.op.as_str() {
        "ReduceSum" => Fold::Sum,
        "ReduceMean" => Fold::Mean,
        "ReduceMax" => Fold::Max,
        "ReduceMin" => Fold::Min,
        "ReduceProd" => Fold::Prod,
        "ReduceL1" => Fold::L1,
        "ReduceL2" => Fold::L2,
        "ReduceLogSum" => Fold::LogSum,
        "ReduceLogSumExp" => Fold::LogSumExp,
        _ => Fold::SumSquare,
    };
    let groups = Groups::new(&site.ty(0)?.shape, &known(site, axes(site))?);
    problem(site, out, ReduceKind::Fold { fold, groups })
}

fn infer_arg(site: &Site) -> Result<Vec<Type>, Refusal> {
    let x = site.ty(0)?;
    let axis = site.axis(site.int("axis", 0), x.shape.rank())?;
    if x.shape[axis] == 0 && x.shape.iter().enumerate().all(|(i, &d)| i == axis || d != 0) {
        return Err(site.error("an empty axis has no largest or smallest element").into());
    }
    Ok(vec![Type::new(DType::I64, reduced(&x.shape, &[axis], site.int("keepdims", 1) != 0))])
}

fn lower_arg(site: &Site, out: &[Type]) -> Result<Problem> {
    let x = site.ty(0)?;
    let rows = Rows::along(&x.shape, site.axis(site.int("axis", 0), x.shape.rank())?);
    let last = site.int("select_last_index", 0) != 0;
    problem(site, out, ReduceKind::Arg { rows, max: site.node.op == "ArgMax", last })
}

/// Before operator set 13 the default axis is 1 and all axes from it on are one; since then it is the last, alone.
fn softmax_rows(site: &Site, opset: i64) -> Result<Rows> {
    let shape = &site.ty(0)?.shape;
    let axis = site.int("axis", if opset < 13 { 1 } else { -1 });
    if opset < 13 && axis == shape.rank() as i64 {
        return Ok(Rows::span(shape, shape.rank(), shape.rank()));
    }
    let axis = site.axis(axis, shape.rank())?;
    Ok(if opset < 13 { Rows::span(shape, axis, shape.rank()) } else { Rows::along(shape, axis) })
}

fn float(site: &Site) -> Result<()> {
    match site.ty(0)?.dtype.is_float() {
        true => Ok(()),
        false => Err(site.error(format!("input 0 is {}, not a float", site.ty(0)?.dtype))),
    }
}

fn lower_softmax(site: &Site, out: &[Type]) -> Result<Problem> {
    float(site)?;
    let kind = match site.node.op.as_str() {
        "Softmax" => SoftmaxKind::Softmax,
        "LogSoftmax" => SoftmaxKind::LogSoftmax,
        _ => SoftmaxKind::Hardmax,
    };
    problem(site, out, ReduceKind::Softmax { rows: softmax_rows(site, site.opset())?, kind })
}

fn lower_lp(site: &Site, out: &[Type]) -> Result<Problem> {
    float(site)?;
    let shape = &site.ty(0)?.shape;
    let rows = Rows::along(shape, site.axis(site.int("axis", -1), shape.rank())?);
    match site.int("p", 2) {
        p @ 1..=2 => problem(site, out, ReduceKind::LpNormalize { rows, p: p as u8 }),
        p => Err(site.error(format!("the norm of order {p} is not defined"))),
    }
}

fn lower_standardize(site: &Site, out: &[Type]) -> Result<Problem> {
    float(site)?;
    let shape = &site.ty(0)?.shape;
    let axes = site.ints("axes").unwrap_or(&[0, 2, 3]).iter().map(|&a| site.axis(a, shape.rank()));
    let groups = Groups::new(shape, &axes.collect::<Result<Vec<_>>>()?);
    problem(site, out, ReduceKind::Standardize { groups, epsilon: 1e-9 })
}

fn cumsum_axis(site: &Site) -> Result<usize, Refusal> {
    let rank = site.ty(0)?.shape.rank();
    match site.int_values(1)?.as_deref() {
        Some(&[axis]) => Ok(site.axis(axis, rank)?),
        _ => Err(site.error("axis must be one integer").into()),
    }
}

fn infer_cumsum(site: &Site) -> Result<Vec<Type>, Refusal> {
    cumsum_axis(site)?;
    if site.ty(0)?.dtype == DType::Bool {
        return Err(site.error("bool is not a number").into());
    }
    infer_same(site)
}

fn lower_cumsum(site: &Site, out: &[Type]) -> Result<Problem> {
    let rows = Rows::along(&site.ty(0)?.shape, known(site, cumsum_axis(site))?);
    let flag = |name| site.int(name, 0) != 0;
    problem(site, out, ReduceKind::CumSum { rows, exclusive: flag("exclusive"), reverse: flag("reverse") })
}

fn infer_dynamic(site: &Site) -> Result<Vec<Type>, Refusal> {
    let x = site.ty(0)?;
    if x.dtype != DType::F32 {
        return Err(site.error(format!("input 0 is {}, not f32", x.dtype)).into());
    }
    let all = [Type::new(DType::U8, x.shape.clone()), Type::new(DType::F32, []), Type::new(DType::U8, [])];
    Ok(all.into_iter().take(site.output_count()).collect())
}

fn lower_dynamic(site: &Site, out: &[Type]) -> Result<Problem> {
    problem(site, out, ReduceKind::DynamicQuantize)
}

fn lower_quantized_softmax(site: &Site, out: &[Type]) -> Result<Problem> {
    let dtype = site.ty(0)?.dtype;
    if !matches!(dtype, DType::U8 | DType::I8) {
        return Err(site.error(format!("input 0 is {dtype}, not an 8-bit integer")));
    }
    for i in [1, 3] {
        if site.ty(i)?.dtype != DType::F32 || site.ty(i)?.shape.numel() != 1 {
            return Err(site.error(format!("input {i} must be one f32 scale")));
        }
    }
    for i in [2, 4] {
        if site.input(i).is_some_and(|z| z.ty.dtype != dtype || z.ty.shape.numel() != 1) {
            return Err(site.error(format!("input {i} must be one {dtype} zero point")));
        }
    }
    problem(site, out, ReduceKind::QuantizedSoftmax { rows: softmax_rows(site, site.int("opset", 13))? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Tensor;
    use crate::graph::{Attr, Node, Operand, ValueId};

    fn node(op: &str, opset: i64, attrs: &[(&str, Attr)], inputs: &[Operand]) -> (Node, Vec<Option<Operand>>) {
        let ids = (0..inputs.len()).map(|i| Some(ValueId(i))).collect();
        let mut node = Node::new("", op, opset, ids, vec![Some(ValueId(9))]);
        node.attrs = attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
        (node, inputs.iter().cloned().map(Some).collect())
    }

    fn floats<const N: usize>(dims: [usize; N]) -> Operand {
        Operand { ty: Type::new(DType::F32, dims), value: None }
    }

    fn ints(values: &[i64]) -> Operand {
        Operand { ty: Type::new(DType::I64, [values.len()]), value: Some(Tensor::vector(values)) }
    }

    #[test]
    fn softmax_flattens_before_operator_set_13_only() {
        for (opset, attrs, want) in [
            (12, vec![], Rows { outer: 2, len: 12, inner: 1 }),
            (13, vec![], Rows { outer: 6, len: 4, inner: 1 }),
            (13, vec![("axis", Attr::Int(1))], Rows { outer: 2, len: 3, inner: 4 }),
            (11, vec![("axis", Attr::Int(-1))], Rows { outer: 6, len: 4, inner: 1 }),
        ] {
            let (node, inputs) = node("Softmax", opset, &attrs, &[floats([2, 3, 4])]);
            assert_eq!(softmax_rows(&Site { node: &node, inputs: &inputs }, opset).unwrap(), want);
        }
    }

    #[test]
    fn reduced_shapes_follow_axes_and_keepdims() {
        let shape = |attrs: &[(&str, Attr)], axes: Option<Operand>| {
            let inputs: Vec<Operand> = std::iter::once(floats([2, 3, 4])).chain(axes).collect();
            let (node, inputs) = node("ReduceSum", 18, attrs, &inputs);
            infer_fold(&Site { node: &node, inputs: &inputs }).map(|t| t[0].shape.to_vec())
        };
        assert_eq!(shape(&[], None).unwrap(), [1, 1, 1]);
        assert_eq!(shape(&[("keepdims", Attr::Int(0))], Some(ints(&[-1, 0]))).unwrap(), [3]);
        assert_eq!(shape(&[("noop_with_empty_axes", Attr::Int(1))], Some(ints(&[]))).unwrap(), [2, 3, 4]);
        assert!(matches!(shape(&[], Some(ints(&[0, -3]))), Err(Refusal::Error(_))));
        assert!(matches!(shape(&[], Some(ints(&[3]))), Err(Refusal::Error(_))));
        let unknown = Operand { value: None, ..ints(&[1]) };
        assert!(matches!(shape(&[], Some(unknown)), Err(Refusal::NeedsValue(1))));
    }
}
