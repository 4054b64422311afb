//! Operators that move elements.

use smallvec::SmallVec;

use crate::base::Shape;
use crate::base::layout::Layout;
use crate::error::Result;
use crate::graph::problem::MoveProblem;
use crate::graph::problem::movement::{Movement, Piece, Reduction};
use crate::graph::{Lower, OpDef, Problem, Refusal, Site, Type};

type Infer = fn(&Site) -> Result<Vec<Type>, Refusal>;

pub(super) const fn row(name: &'static str, infer: Infer, lower: fn(&Site, &[Type]) -> Result<Problem>) -> OpDef {
    OpDef { domain: "", name, infer, lower: Lower::Family(lower) }
}

pub(super) static OPS: &[OpDef] = &[
    row("Transpose", transpose_type, transpose),
    row("Slice", slice_type, slice),
    row("Concat", concat_type, concat),
    row("Split", split_types, split),
    row("Expand", expand_type, expand),
    row("Tile", tile_type, tile),
    row("DepthToSpace", depth_to_space_type, depth_to_space),
    row("SpaceToDepth", space_to_depth_type, space_to_depth),
    row("Gather", gather_type, |s, out| {
        Ok(moved(s, out, Movement::Gather { axis: s.axis(s.int("axis", 0), s.ty(0)?.shape.rank())? }))
    }),
    row(
        "GatherElements",
        |s| Ok(vec![Type::new(s.ty(0)?.dtype, s.ty(1)?.shape.clone())]),
        |s, out| Ok(moved(s, out, Movement::GatherElements { axis: s.axis(s.int("axis", 0), s.ty(0)?.shape.rank())? })),
    ),
    row("GatherND", gather_nd_type, |s, out| {
        Ok(moved(s, out, Movement::GatherNd { batch_dims: s.int("batch_dims", 0).max(0) as usize }))
    }),
    row("ScatterElements", first, scatter_elements),
    row("Scatter", first, scatter_elements),
    row("ScatterND", first, |s, out| Ok(moved(s, out, Movement::ScatterNd { reduction: reduction(s)? }))),
    row("Trilu", trilu_type, trilu),
    row("OneHot", one_hot_type, one_hot),
    row("ReverseSequence", first, |s, out| {
        let (batch_axis, time_axis) = (s.int("batch_axis", 1) as usize, s.int("time_axis", 0) as usize);
        Ok(moved(s, out, Movement::ReverseSequence { batch_axis, time_axis }))
    }),
];

pub(super) fn moved(site: &Site, out: &[Type], movement: Movement) -> Problem {
    let inputs = site.inputs.iter().map(|o| o.as_ref().map(|o| o.ty.clone())).collect();
    Problem::Move(MoveProblem { movement, inputs, outputs: out.to_vec() })
}

/// One copy from a layout of input 0 to the whole of output 0.
fn copy(site: &Site, out: &[Type], from: Layout) -> Problem {
    let to = Layout::contiguous(from.shape.clone());
    moved(site, out, Movement::Copy { pieces: vec![Piece { input: 0, from, output: 0, to }], fill: None })
}

pub(super) fn first(site: &Site) -> Result<Vec<Type>, Refusal> {
    Ok(vec![site.ty(0)?.clone()])
}

fn permutation(site: &Site) -> Result<Vec<usize>> {
    let rank = site.ty(0)?.shape.rank();
    let Some(perm) = site.ints("perm") else { return Ok((0..rank).rev().collect()) };
    let axes = perm.iter().map(|&p| site.axis(p, rank)).collect::<Result<Vec<_>>>()?;
    if axes.len() != rank || (0..rank).any(|i| !axes.contains(&i)) {
        return Err(site.error(format!("{perm:?} is no permutation of {rank} axes")));
    }
    Ok(axes)
}

fn transpose_type(site: &Site) -> Result<Vec<Type>, Refusal> {
    let ty = site.ty(0)?;
    let shape: Shape = permutation(site)?.iter().map(|&p| ty.shape[p]).collect();
    Ok(vec![Type::new(ty.dtype, shape)])
}

fn transpose(site: &Site, out: &[Type]) -> Result<Problem> {
    let whole = Layout::contiguous(site.ty(0)?.shape.clone());
    let perm = permutation(site)?;
    let shape = perm.iter().map(|&p| whole.shape[p]).collect();
    let strides = perm.iter().map(|&p| whole.strides[p]).collect();
    Ok(copy(site, out, Layout { shape, strides, offset: 0 }))
}

/// Start, step and count along each axis.
fn slices(site: &Site) -> Result<Vec<(usize, isize, usize)>, Refusal> {
    let shape = &site.ty(0)?.shape;
    let missing = |what: &str| site.error(format!("the {what} are missing"));
    let starts = site.ints_attr_or_input("starts", 1)?.ok_or_else(|| missing("starts"))?;
    let ends = site.ints_attr_or_input("ends", 2)?.ok_or_else(|| missing("ends"))?;
    let axes = site.ints_attr_or_input("axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = site.int_values(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err(site.error("starts, ends, axes and steps differ in number").into());
    }
    let mut all: Vec<(usize, isize, usize)> = shape.iter().map(|&d| (0, 1, d)).collect();
    for i in 0..starts.len() {
        let axis = site.axis(axes[i], shape.rank())?;
        let (dim, step) = (shape[axis] as i64, steps[i]);
        if step == 0 {
            return Err(site.error("a step of 0").into());
        }
        let wrap = |v: i64| if v < 0 { v.saturating_add(dim) } else { v };
        let (lo, hi) = if step > 0 { (0, dim) } else { (-1, dim - 1) };
        let start = wrap(starts[i]).clamp(if step > 0 { 0 } else { -1 }, if step > 0 { dim } else { dim - 1 });
        // An end below -dim means "past the beginning" when walking back.
        let end = wrap(ends[i]).clamp(lo, hi);
        let count = if step > 0 { (end - start + step - 1).div_euclid(step) } else { (start - end - step - 1).div_euclid(-step) };
        all[axis] = (start.max(0) as usize, step as isize, count.max(0) as usize);
    }
    Ok(all)
}

fn slice_type(site: &Site) -> Result<Vec<Type>, Refusal> {
    let shape: Shape = slices(site)?.iter().map(|s| s.2).collect();
    Ok(vec![Type::new(site.ty(0)?.dtype, shape)])
}

fn slice(site: &Site, out: &[Type]) -> Result<Problem> {
    let whole = site.ty(0)?.shape.strides();
    let parts = known(site, slices(site))?;
    let offset = parts.iter().zip(&whole).map(|(p, s)| p.0 * s).sum();
    let strides = parts.iter().zip(&whole).map(|(p, &s)| p.1 * s as isize).collect();
    Ok(copy(site, out, Layout { shape: out[0].shape.clone(), strides, offset }))
}

/// Lowering follows inference, which has read every value that it needs.
pub(super) fn known<T>(site: &Site, r: Result<T, Refusal>) -> Result<T> {
    r.map_err(|e| match e {
        Refusal::Error(e) => e,
        Refusal::NeedsValue(i) => site.error(format!("input {i} must be known")),
    })
}

fn concat_axis(site: &Site) -> Result<usize> {
    site.axis(site.int("axis", 1), site.ty(0)?.shape.rank())
}

fn concat_type(site: &Site) -> Result<Vec<Type>, Refusal> {
    let axis = concat_axis(site)?;
    let mut out = site.ty(0)?.clone();
    out.shape[axis] = 0;
    for (i, operand) in site.inputs.iter().enumerate() {
        let shape = &operand.as_ref().ok_or_else(|| site.error(format!("input {i} is missing")))?.ty.shape;
        let fits = shape.rank() == out.shape.rank() && (0..shape.rank()).all(|a| a == axis || shape[a] == out.shape[a]);
        if !fits {
            return Err(site.error(format!("input {i} of shape {shape} does not fit the others along axis {axis}")).into());
        }
        out.shape[axis] += shape[axis];
    }
    Ok(vec![out])
}

/// The part of `shape` from `start`, `size` long along `axis`.
fn part(shape: &Shape, axis: usize, start: usize, size: usize) -> Layout {
    let mut layout = Layout::contiguous(shape.clone());
    layout.offset = start * layout.strides[axis] as usize;
    layout.shape[axis] = size;
    layout
}

fn concat(site: &Site, out: &[Type]) -> Result<Problem> {
    let axis = concat_axis(site)?;
    let mut at = 0;
    let mut pieces = Vec::new();
    for (input, operand) in site.inputs.iter().enumerate() {
        let Some(shape) = operand.as_ref().map(|o| o.ty.shape.clone()) else { continue };
        let size = shape[axis];
        pieces.push(Piece { input, from: Layout::contiguous(shape), output: 0, to: part(&out[0].shape, axis, at, size) });
        at += size;
    }
    Ok(moved(site, out, Movement::Copy { pieces, fill: None }))
}

fn split_types(site: &Site) -> Result<Vec<Type>, Refusal> {
    let ty = site.ty(0)?;
    let axis = site.axis(site.int("axis", 0), ty.shape.rank())?;
    let count = site.output_count().max(1);
    let sizes: Vec<usize> = match site.ints_attr_or_input("split", 1)? {
        Some(sizes) => {
            sizes.iter().map(|&s| usize::try_from(s).map_err(|_| site.error(format!("a part of {s}")))).collect::<Result<_>>()?
        }
        None => {
            let each = ty.shape[axis].div_ceil(count);
            (0..count).map(|i| each.min(ty.shape[axis].saturating_sub(i * each))).collect()
        }
    };
    if sizes.iter().sum::<usize>() != ty.shape[axis] || sizes.len() != count {
        return Err(site.error(format!("parts {sizes:?} do not make {} in {count} outputs", ty.shape[axis])).into());
    }
    let sized = |&n: &usize| {
        let mut t = ty.clone();
        t.shape[axis] = n;
        t
    };
    Ok(sizes.iter().map(sized).collect())
}

fn split(site: &Site, out: &[Type]) -> Result<Problem> {
    let shape = &site.ty(0)?.shape;
    let axis = site.axis(site.int("axis", 0), shape.rank())?;
    let mut at = 0;
    let mut pieces = Vec::new();
    for (output, ty) in out.iter().enumerate() {
        let size = ty.shape[axis];
        pieces.push(Piece { input: 0, from: part(shape, axis, at, size), output, to: Layout::contiguous(ty.shape.clone()) });
        at += size;
    }
    Ok(moved(site, out, Movement::Copy { pieces, fill: None }))
}

fn expand_type(site: &Site) -> Result<Vec<Type>, Refusal> {
    let ty = site.ty(0)?;
    let dims = site.int_values(1)?.ok_or_else(|| site.error("the shape is missing"))?;
    let to: Shape = dims.iter().map(|&d| d.max(0) as usize).collect();
    let shape = ty.shape.broadcast(&to).ok_or_else(|| site.error(format!("shape {} does not expand to {to}", ty.shape)))?;
    Ok(vec![Type::new(ty.dtype, shape)])
}

fn expand(site: &Site, out: &[Type]) -> Result<Problem> {
    let strides = site.ty(0)?.shape.broadcast_strides(&out[0].shape).ok_or_else(|| site.error("the shape does not expand"))?;
    Ok(copy(site, out, Layout { shape: out[0].shape.clone(), strides: strides.iter().map(|&s| s as isize).collect(), offset: 0 }))
}

fn repeats(site: &Site) -> Result<Vec<usize>, Refusal> {
    let repeats = site.int_values(1)?.ok_or_else(|| site.error("the repeats are missing"))?;
    if repeats.len() != site.ty(0)?.shape.rank() {
        return Err(site.error("one repeat is needed for each axis").into());
    }
    Ok(repeats.iter().map(|&r| r.max(0) as usize).collect())
}

fn tile_type(site: &Site) -> Result<Vec<Type>, Refusal> {
    let ty = site.ty(0)?;
    let shape: Shape = ty.shape.iter().zip(repeats(site)?).map(|(d, r)| d.saturating_mul(r)).collect();
    Ok(vec![Type::new(ty.dtype, shape)])
}

/// Each axis becomes two: the repeats (stride 0) and its own.
fn tile(site: &Site, out: &[Type]) -> Result<Problem> {
    let whole = Layout::contiguous(site.ty(0)?.shape.clone());
    let repeats = known(site, repeats(site))?;
    let shape = whole.shape.iter().zip(&repeats).flat_map(|(&d, &r)| [r, d]).collect();
    let strides = whole.strides.iter().flat_map(|&s| [0, s]).collect();
    Ok(copy(site, out, Layout { shape, strides, offset: 0 }))
}

fn blocks(site: &Site) -> Result<(usize, [usize; 4])> {
    let b = site.int("blocksize", 0).max(0) as usize;
    match &site.ty(0)?.shape[..] {
        &[n, c, h, w] if b > 0 => Ok((b, [n, c, h, w])),
        _ => Err(site.error("needs four axes and a blocksize")),
    }
}

fn depth_to_space_type(site: &Site) -> Result<Vec<Type>, Refusal> {
    let (b, [n, c, h, w]) = blocks(site)?;
    if !c.is_multiple_of(b * b) {
        return Err(site.error(format!("{c} channels are no multiple of the block's {}", b * b)).into());
    }
    Ok(vec![Type::new(site.ty(0)?.dtype, [n, c / (b * b), h * b, w * b])])
}

/// A copy whose axes, in output order, are these (size, stride) pairs.
fn axes(site: &Site, out: &[Type], list: &[(usize, usize)]) -> Problem {
    let strides: SmallVec<[isize; 6]> = list.iter().map(|a| a.1 as isize).collect();
    copy(site, out, Layout { shape: list.iter().map(|a| a.0).collect(), strides, offset: 0 })
}

fn depth_to_space(site: &Site, out: &[Type]) -> Result<Problem> {
    let (b, [n, c, h, w]) = blocks(site)?;
    let (plane, depth) = (h * w, c / (b * b));
    // Column-row-depth takes the block's axes before the channel, depth-column-row after it.
    let (channel, y, x) = match site.str("mode", "DCR") {
        "CRD" => (b * b * plane, b * plane, plane),
        _ => (plane, b * depth * plane, depth * plane),
    };
    Ok(axes(site, out, &[(n, c * plane), (depth, channel), (h, w), (b, y), (w, 1), (b, x)]))
}

fn space_to_depth_type(site: &Site) -> Result<Vec<Type>, Refusal> {
    let (b, [n, c, h, w]) = blocks(site)?;
    if !h.is_multiple_of(b) || !w.is_multiple_of(b) {
        return Err(site.error(format!("{h} x {w} is no multiple of the block {b}")).into());
    }
    Ok(vec![Type::new(site.ty(0)?.dtype, [n, c * b * b, h / b, w / b])])
}

fn space_to_depth(site: &Site, out: &[Type]) -> Result<Problem> {
    let (b, [n, c, h, w]) = blocks(site)?;
    Ok(axes(site, out, &[(n, c * h * w), (b, w), (b, 1), (c, h * w), (h / b, b * w), (w / b, b)]))
}

fn gather_type(site: &Site) -> Result<Vec<Type>, Refusal> {
    let (data, indices) = (site.ty(0)?, site.ty(1)?);
    let axis = site.axis(site.int("axis", 0), data.shape.rank())?;
    let dims = data.shape[..axis].iter().chain(indices.shape.iter()).chain(&data.shape[axis + 1..]);
    Ok(vec![Type::new(data.dtype, dims.copied().collect::<Shape>())])
}

fn gather_nd_type(site: &Site) -> Result<Vec<Type>, Refusal> {
    let (data, indices) = (site.ty(0)?, site.ty(1)?);
    let batch = site.int("batch_dims", 0).max(0) as usize;
    let depth = indices.shape.last().copied().unwrap_or(0);
    if batch + depth > data.shape.rank() || batch >= indices.shape.rank() {
        return Err(site.error("the indices are deeper than the data").into());
    }
    let dims = indices.shape[..indices.shape.rank() - 1].iter().chain(&data.shape[batch + depth..]);
    Ok(vec![Type::new(data.dtype, dims.copied().collect::<Shape>())])
}

fn reduction(site: &Site) -> Result<Reduction> {
    Ok(match site.str("reduction", "none") {
        "none" => Reduction::None,
        "add" => Reduction::Add,
        "mul" => Reduction::Mul,
        "max" => Reduction::Max,
        "min" => Reduction::Min,
        other => return Err(site.unsupported(format!("reduction {other:?}"))),
    })
}

fn scatter_elements(site: &Site, out: &[Type]) -> Result<Problem> {
    let axis = site.axis(site.int("axis", 0), site.ty(0)?.shape.rank())?;
    Ok(moved(site, out, Movement::ScatterElements { axis, reduction: reduction(site)? }))
}

fn trilu_type(site: &Site) -> Result<Vec<Type>, Refusal> {
    if site.ty(0)?.shape.rank() < 2 {
        return Err(site.error("needs two axes").into());
    }
    site.int_values(1)?;
    first(site)
}

fn trilu(site: &Site, out: &[Type]) -> Result<Problem> {
    let k = known(site, site.int_values(1))?.and_then(|v| v.first().copied()).unwrap_or(0);
    Ok(moved(site, out, Movement::Trilu { upper: site.int("upper", 1) != 0, k }))
}

fn one_hot_type(site: &Site) -> Result<Vec<Type>, Refusal> {
    let indices = site.ty(0)?;
    let depth = site.float_values(1)?.and_then(|v| v.first().copied()).ok_or_else(|| site.error("the depth is missing"))?;
    let axis = site.axis(site.int("axis", -1), indices.shape.rank() + 1)?;
    let mut shape = indices.shape.clone();
    shape.insert(axis, depth.max(0.0) as usize);
    Ok(vec![Type::new(site.ty(2)?.dtype, shape)])
}

fn one_hot(site: &Site, out: &[Type]) -> Result<Problem> {
    let axis = site.axis(site.int("axis", -1), out[0].shape.rank())?;
    Ok(moved(site, out, Movement::OneHot { axis, depth: out[0].shape[axis] }))
}
