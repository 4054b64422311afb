//! Operators that change shapes only, and values known from types.

use super::scalar::onnx_dtype;
use crate::base::{DType, Shape, Tensor, round};
use crate::error::Result;
use crate::graph::{Attr, Lower, OpDef, Refusal, Site, Type};

const fn view(name: &'static str, infer: fn(&Site) -> Result<Vec<Type>, Refusal>) -> OpDef {
    OpDef { domain: "", name, infer, lower: Lower::View }
}

const fn value(
    name: &'static str,
    infer: fn(&Site) -> Result<Vec<Type>, Refusal>,
    make: fn(&Site) -> Result<Vec<Tensor>>,
) -> OpDef {
    OpDef { domain: "", name, infer, lower: Lower::Value(make) }
}

pub(super) static OPS: &[OpDef] = &[
    view("Reshape", reshape),
    view("Flatten", flatten),
    view("Squeeze", squeeze),
    view("Unsqueeze", unsqueeze),
    view("Identity", |s| Ok(vec![s.ty(0)?.clone()])),
    value("Shape", |s| Ok(types(&shape_of(s)?)), shape_of),
    value("Size", |s| Ok(types(&size_of(s)?)), size_of),
    value("Constant", |s| Ok(types(&constant(s)?)), constant),
    value("ConstantOfShape", |s| Ok(types(&filled(s)?)), |s| unrefused(s, filled(s))),
    value("Range", |s| Ok(types(&range(s)?)), |s| unrefused(s, range(s))),
    value("EyeLike", |s| Ok(types(&eye(s)?)), eye),
];

fn types(values: &[Tensor]) -> Vec<Type> {
    values.iter().map(|t| Type::new(t.dtype(), t.shape().clone())).collect()
}

fn unrefused<T>(site: &Site, r: Result<T, Refusal>) -> Result<T> {
    r.map_err(|e| match e {
        Refusal::Error(e) => e,
        Refusal::NeedsValue(i) => site.error(format!("input {i} must be known")),
    })
}

fn reshape(site: &Site) -> Result<Vec<Type>, Refusal> {
    let ty = site.ty(0)?;
    let wanted = match site.ints("shape") {
        Some(v) => v.to_vec(),
        None => site.int_values(1)?.ok_or_else(|| site.error("the shape is missing"))?,
    };
    let zero_copies = site.int("allowzero", 0) == 0;
    let mut shape = Shape::default();
    let mut open = None;
    for (i, &d) in wanted.iter().enumerate() {
        shape.push(match d {
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            0 if zero_copies => {
                *ty.shape.get(i).ok_or_else(|| site.error(format!("size 0 at axis {i}, which the input lacks")))?
            }
            d => usize::try_from(d).map_err(|_| site.error(format!("size {d} in the shape")))?,
        });
    }
    let known = shape.checked_numel().unwrap_or(usize::MAX);
    if let Some(i) = open {
        if known == 0 || !ty.shape.numel().is_multiple_of(known) {
            return Err(site.error(format!("{} elements do not fill the shape {wanted:?}", ty.shape.numel())).into());
        }
        shape[i] = ty.shape.numel() / known;
    } else if known != ty.shape.numel() {
        return Err(site.error(format!("{} elements do not fill the shape {wanted:?}", ty.shape.numel())).into());
    }
    Ok(vec![Type::new(ty.dtype, shape)])
}

fn flatten(site: &Site) -> Result<Vec<Type>, Refusal> {
    let ty = site.ty(0)?;
    let rank = ty.shape.rank() as i64;
    let axis = site.int("axis", 1);
    let axis = if axis < 0 { axis + rank } else { axis };
    if !(0..=rank).contains(&axis) {
        return Err(site.error(format!("axis {axis} is outside a tensor of {rank} axes")).into());
    }
    let (a, b) = ty.shape.split_at(axis as usize);
    Ok(vec![Type::new(ty.dtype, [a.iter().product::<usize>(), b.iter().product()])])
}

fn squeeze(site: &Site) -> Result<Vec<Type>, Refusal> {
    let ty = site.ty(0)?;
    let drop: Vec<usize> = match site.ints_attr_or_input("axes", 1)? {
        Some(axes) => axes.iter().map(|&a| site.axis(a, ty.shape.rank())).collect::<Result<_>>()?,
        None => (0..ty.shape.rank()).filter(|&i| ty.shape[i] == 1).collect(),
    };
    if let Some(&i) = drop.iter().find(|&&i| ty.shape[i] != 1) {
        return Err(site.error(format!("axis {i} of size {} cannot be squeezed", ty.shape[i])).into());
    }
    let kept: Shape = (0..ty.shape.rank()).filter(|i| !drop.contains(i)).map(|i| ty.shape[i]).collect();
    Ok(vec![Type::new(ty.dtype, kept)])
}

fn unsqueeze(site: &Site) -> Result<Vec<Type>, Refusal> {
    let ty = site.ty(0)?;
    let axes = site.ints_attr_or_input("axes", 1)?.ok_or_else(|| site.error("the axes are missing"))?;
    let rank = ty.shape.rank() + axes.len();
    let new: Vec<usize> = axes.iter().map(|&a| site.axis(a, rank)).collect::<Result<_>>()?;
    let mut old = ty.shape.iter();
    let shape: Option<Shape> = (0..rank).map(|i| if new.contains(&i) { Some(1) } else { old.next().copied() }).collect();
    let shape = shape.filter(|_| old.next().is_none()).ok_or_else(|| site.error("an axis is given twice"))?;
    Ok(vec![Type::new(ty.dtype, shape)])
}

fn shape_of(site: &Site) -> Result<Vec<Tensor>> {
    let shape = &site.ty(0)?.shape;
    let rank = shape.rank() as i64;
    let clamp = |v: i64| (if v < 0 { v + rank } else { v }).clamp(0, rank) as usize;
    let (start, end) = (clamp(site.int("start", 0)), clamp(site.int("end", rank)));
    let dims: Vec<i64> = shape[start..end.max(start)].iter().map(|&d| d as i64).collect();
    Ok(vec![Tensor::vector(&dims)])
}

fn size_of(site: &Site) -> Result<Vec<Tensor>> {
    Ok(vec![Tensor::scalar(site.ty(0)?.shape.numel() as i64)])
}

fn constant(site: &Site) -> Result<Vec<Tensor>> {
    let named = |n: &str| site.attr(n);
    let one = match (named("value"), named("value_float"), named("value_int")) {
        (Some(Attr::Tensor(t)), _, _) => t.clone(),
        (_, Some(Attr::Float(v)), _) => Tensor::scalar(*v),
        (_, _, Some(Attr::Int(v))) => Tensor::scalar(*v),
        _ => match (site.floats("value_floats"), site.ints("value_ints")) {
            (Some(v), _) => Tensor::vector(v),
            (_, Some(v)) => Tensor::vector(v),
            _ => return Err(site.unsupported("a constant that is no tensor and no number")),
        },
    };
    Ok(vec![one])
}

fn filled(site: &Site) -> Result<Vec<Tensor>, Refusal> {
    let dims = site.int_values(0)?.ok_or_else(|| site.error("the shape is missing"))?;
    let shape: Option<Shape> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let shape = shape.ok_or_else(|| site.error(format!("shape {dims:?} has a negative size")))?;
    let Some(Attr::Tensor(t)) = site.attr("value") else { return Ok(vec![Tensor::zeros(DType::F32, shape)?]) };
    let mut out = Tensor::zeros(t.dtype(), shape)?;
    if t.numel() != 1 {
        return Err(site.error("the value must be one element").into());
    }
    out.view_mut().bytes.chunks_exact_mut(t.dtype().size_bytes()).for_each(|e| e.copy_from_slice(t.bytes()));
    Ok(vec![out])
}

fn range(site: &Site) -> Result<Vec<Tensor>, Refusal> {
    let dtype = site.ty(0)?.dtype;
    let one = |i: usize| -> Result<f64, Refusal> {
        let v = site.float_values(i)?.and_then(|v| v.first().copied());
        Ok(v.ok_or_else(|| site.error(format!("input {i} is missing")))?)
    };
    let (start, limit, delta) = (one(0)?, one(1)?, one(2)?);
    let count = ((limit - start) / delta).ceil().max(0.0);
    if !count.is_finite() || count > f64::from(u32::MAX) {
        return Err(site.error(format!("a range of {count} elements")).into());
    }
    let values = (0..count as usize).map(|i| start + i as f64 * delta);
    Ok(vec![match dtype {
        DType::I64 => Tensor::vector(&values.map(|v| v as i64).collect::<Vec<_>>()),
        DType::I32 => Tensor::vector(&values.map(|v| v as i32).collect::<Vec<_>>()),
        DType::I16 => Tensor::vector(&values.map(|v| v as i16).collect::<Vec<_>>()),
        DType::F64 => Tensor::vector(&values.collect::<Vec<_>>()),
        DType::F32 => Tensor::vector(&values.map(|v| v as f32).collect::<Vec<_>>()),
        DType::F16 => Tensor::vector(&values.map(round::to_f16).collect::<Vec<_>>()),
        DType::BF16 => Tensor::vector(&values.map(round::to_bf16).collect::<Vec<_>>()),
        other => return Err(site.unsupported(format!("a range of {other}")).into()),
    }])
}

fn eye(site: &Site) -> Result<Vec<Tensor>> {
    let ty = site.ty(0)?;
    let dtype = match site.int("dtype", 0) {
        0 => ty.dtype,
        n => onnx_dtype(site, n)?,
    };
    let &[rows, columns] = &ty.shape[..] else { return Err(site.error("the input must have two axes")) };
    let k = site.int("k", 0);
    let mut out = Tensor::zeros(dtype, ty.shape.clone())?;
    let one = match dtype {
        DType::F32 => Tensor::scalar(1f32),
        DType::F64 => Tensor::scalar(1f64),
        DType::F16 => Tensor::scalar(half::f16::ONE),
        DType::BF16 => Tensor::scalar(half::bf16::ONE),
        _ => Tensor::scalar(1u64),
    };
    let size = dtype.size_bytes();
    let view = out.view_mut();
    for r in 0..rows {
        let c = r as i64 + k;
        if (0..columns as i64).contains(&c) {
            let at = (r * columns + c as usize) * size;
            view.bytes[at..at + size].copy_from_slice(&one.bytes()[..size]);
        }
    }
    Ok(vec![out])
}
