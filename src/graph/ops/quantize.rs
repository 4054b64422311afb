//! QuantizeLinear and DequantizeLinear.

use super::scalar::onnx_dtype;
use crate::base::{DType, Shape};
use crate::error::Result;
use crate::graph::problem::{Problem, ScalarProblem};
use crate::graph::{Lower, OpDef, Refusal, Site, Type};
use crate::scalar::{Formula, arg};

pub(super) static OPS: &[OpDef] = &[
    OpDef { domain: "", name: "QuantizeLinear", infer: quantized, lower: Lower::Family(quantize) },
    OpDef { domain: "", name: "DequantizeLinear", infer: dequantized, lower: Lower::Family(dequantize) },
    OpDef { domain: "com.microsoft", name: "QuantizeLinear", infer: quantized, lower: Lower::Family(quantize) },
    OpDef { domain: "com.microsoft", name: "DequantizeLinear", infer: dequantized, lower: Lower::Family(dequantize) },
];

fn quantized(site: &Site) -> Result<Vec<Type>, Refusal> {
    let declared = match site.int("output_dtype", 0) {
        0 => None,
        n => Some(onnx_dtype(site, n)?),
    };
    let dtype = site.input(2).map(|z| z.ty.dtype).or(declared).unwrap_or(DType::U8);
    if dtype.int_range().is_none() {
        return Err(site.unsupported(format!("quantising to {dtype}")).into());
    }
    Ok(vec![Type::new(dtype, site.ty(0)?.shape.clone())])
}

fn dequantized(site: &Site) -> Result<Vec<Type>, Refusal> {
    let dtype = match site.int("output_dtype", 0) {
        0 => site.ty(1)?.dtype,
        n => onnx_dtype(site, n)?,
    };
    Ok(vec![Type::new(dtype, site.ty(0)?.shape.clone())])
}

/// `saturate(round(x / scale) + zero_point)`, rounding half to even. Source: ONNX, QuantizeLinear.
fn quantize(site: &Site, out: &[Type]) -> Result<Problem> {
    let (lo, hi) = out[0].dtype.int_range().unwrap_or((0, 255));
    let rounded = (arg(0) / arg(1)).round();
    let shifted = if site.input(2).is_some() { rounded + arg(2) } else { rounded };
    problem(site, shifted.clip(lo as f64, hi as f64), out)
}

/// `(x - zero_point) * scale`.
fn dequantize(site: &Site, out: &[Type]) -> Result<Problem> {
    let centred = if site.input(2).is_some() { arg(0) - arg(2) } else { arg(0) };
    problem(site, centred * arg(1), out)
}

/// A scalar problem whose scales and zero points lie along the axis.
fn problem(site: &Site, formula: Formula, out: &[Type]) -> Result<Problem> {
    let shape = &site.ty(0)?.shape;
    let scale = &site.ty(1)?.shape;
    let block = site.int("block_size", 0);
    if block > 0 && scale.rank() == shape.rank() {
        return blocked(site, formula, out, block as usize);
    }
    let aligned = if scale.numel() == 1 {
        Shape::scalar()
    } else {
        let axis = site.axis(site.int("axis", 1), shape.rank())?;
        if scale.numel() != shape[axis] {
            return Err(site.error(format!("{} scales for {} slices along axis {axis}", scale.numel(), shape[axis])));
        }
        (axis..shape.rank()).map(|i| if i == axis { shape[i] } else { 1 }).collect()
    };
    let operands = site.inputs.iter().flatten().enumerate();
    let operands = operands.map(|(i, o)| Type::new(o.ty.dtype, if i == 0 { shape.clone() } else { aligned.clone() })).collect();
    Ok(Problem::Scalar(ScalarProblem { formula, operands, out: out[0].clone() }))
}

/// One scale for each block along the axis: seen as one more axis of the block's size.
fn blocked(site: &Site, formula: Formula, out: &[Type], block: usize) -> Result<Problem> {
    let shape = &site.ty(0)?.shape;
    let axis = site.axis(site.int("axis", 1), shape.rank())?;
    if !shape[axis].is_multiple_of(block) || site.ty(1)?.shape[axis] != shape[axis] / block {
        return Err(site.unsupported("a last block that is not full"));
    }
    let split = |inner: usize| -> Shape {
        let cut = |i: usize| if i == axis { vec![shape[i] / block, inner] } else { vec![shape[i]] };
        (0..shape.rank()).flat_map(cut).collect()
    };
    let operands = site.inputs.iter().flatten().enumerate();
    let operands = operands.map(|(i, o)| Type::new(o.ty.dtype, split(if i == 0 { block } else { 1 }))).collect();
    let out = Type::new(out[0].dtype, split(block));
    Ok(Problem::Scalar(ScalarProblem { formula, operands, out }))
}
