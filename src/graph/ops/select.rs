//! Operators that choose elements: top-k, non-zero, non-maximum suppression.

use crate::base::{DType, Shape};
use crate::error::Result;
use crate::graph::problem::SelectProblem;
use crate::graph::problem::select::{Nms, Selection};
use crate::graph::{Lower, OpDef, Problem, Refusal, Site, Type};

const fn row(
    name: &'static str,
    infer: fn(&Site) -> Result<Vec<Type>, Refusal>,
    lower: fn(&Site, &[Type]) -> Result<Problem>,
) -> OpDef {
    OpDef { domain: "", name, infer, lower: Lower::Family(lower) }
}

pub(super) static OPS: &[OpDef] = &[
    row("TopK", top_k_types, top_k),
    row("NonZero", non_zero_type, |s, out| selected(s, out, Selection::NonZero)),
    row("Compress", compress_type, |s, out| selected(s, out, Selection::Compress { axis: compress_axis(s)? })),
    row("NonMaxSuppression", nms_type, |s, out| {
        selected(s, out, Selection::NonMaxSuppression(nms(s).map_err(|e| refused(s, e))?))
    }),
];

fn selected(site: &Site, out: &[Type], selection: Selection) -> Result<Problem> {
    Ok(Problem::Select(SelectProblem { selection, x: site.ty(0)?.clone(), outputs: out.to_vec() }))
}

fn refused(site: &Site, refusal: Refusal) -> crate::Error {
    match refusal {
        Refusal::Error(e) => e,
        Refusal::NeedsValue(i) => site.error(format!("input {i} must be known")),
    }
}

fn top_k_types(site: &Site) -> Result<Vec<Type>, Refusal> {
    let x = site.ty(0)?;
    let axis = site.axis(site.int("axis", -1), x.shape.rank())?;
    let k = match site.attr("k") {
        Some(_) => site.int("k", 0),
        None => site.int_values(1)?.and_then(|v| v.first().copied()).ok_or_else(|| site.error("k is missing"))?,
    };
    let mut shape = x.shape.clone();
    shape[axis] = usize::try_from(k)
        .ok()
        .filter(|&k| k <= shape[axis])
        .ok_or_else(|| site.error(format!("k is {k}, the axis {}", shape[axis])))?;
    Ok([Type::new(x.dtype, shape.clone()), Type::new(DType::I64, shape)].into_iter().take(site.output_count().max(1)).collect())
}

fn top_k(site: &Site, out: &[Type]) -> Result<Problem> {
    let axis = site.axis(site.int("axis", -1), out[0].shape.rank())?;
    selected(site, out, Selection::TopK { axis, k: out[0].shape[axis], largest: site.int("largest", 1) != 0 })
}

/// The output's size depends on the elements: the planner must know them.
fn non_zero_type(site: &Site) -> Result<Vec<Type>, Refusal> {
    let values = site.float_values(0)?.ok_or_else(|| site.error("the input is missing"))?;
    let count = values.iter().filter(|v| **v != 0.0).count();
    Ok(vec![Type::new(DType::I64, [site.ty(0)?.shape.rank(), count])])
}

fn compress_axis(site: &Site) -> Result<Option<usize>> {
    match site.attr("axis") {
        Some(_) => Ok(Some(site.axis(site.int("axis", 0), site.ty(0)?.shape.rank())?)),
        None => Ok(None),
    }
}

fn compress_type(site: &Site) -> Result<Vec<Type>, Refusal> {
    let x = site.ty(0)?;
    let count = site.int_values(1)?.unwrap_or_default().iter().filter(|v| **v != 0).count();
    let shape = match compress_axis(site)? {
        Some(axis) => {
            let mut shape = x.shape.clone();
            shape[axis] = count;
            shape
        }
        None => Shape::from([count]),
    };
    Ok(vec![Type::new(x.dtype, shape)])
}

fn nms(site: &Site) -> Result<Nms, Refusal> {
    let float = |i: usize| -> Result<Option<f64>, Refusal> { Ok(site.float_values(i)?.and_then(|v| v.first().copied())) };
    Ok(Nms {
        centred: site.int("center_point_box", 0) != 0,
        max_per_class: float(2)?.unwrap_or(0.0).max(0.0) as usize,
        iou_threshold: float(3)?.unwrap_or(0.0) as f32,
        score_threshold: float(4)?.map(|v| v as f32),
    })
}

fn nms_type(site: &Site) -> Result<Vec<Type>, Refusal> {
    let parameters = nms(site)?;
    let (boxes, scores) = (site.float_values(0)?.unwrap_or_default(), site.float_values(1)?.unwrap_or_default());
    let shape = &site.ty(1)?.shape;
    if shape.rank() != 3 || boxes.len() != shape[0] * shape[2] * 4 {
        return Err(site.error("boxes and scores do not fit each other").into());
    }
    let narrow = |v: Vec<f64>| v.into_iter().map(|x| x as f32).collect::<Vec<_>>();
    let kept = parameters.select(&narrow(boxes), &narrow(scores), [shape[0], shape[1], shape[2]]).len();
    Ok(vec![Type::new(DType::I64, [kept, 3])])
}
