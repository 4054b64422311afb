//! Pad, Resize and Upsample.

use super::movement::{known, moved, row};
use crate::base::layout::Layout;
use crate::base::{DType, Shape};
use crate::error::Result;
use crate::graph::problem::movement::{Movement, Piece, Taps};
use crate::graph::{OpDef, Problem, Refusal, Site, Type};

pub(super) static OPS: &[OpDef] =
    &[row("Pad", pad_type, pad), row("Resize", resize_type, resize), row("Upsample", resize_type, resize)];

/// Elements added before and after each axis; negative ones are cut off.
fn pads(site: &Site) -> Result<Vec<(i64, i64)>, Refusal> {
    let rank = site.ty(0)?.shape.rank();
    let list = match site.ints("pads") {
        Some(v) => v.to_vec(),
        None => site.int_values(1)?.ok_or_else(|| site.error("the pads are missing"))?,
    };
    let axes: Vec<usize> = match site.int_values(3)? {
        Some(axes) => axes.iter().map(|&a| site.axis(a, rank)).collect::<Result<_>>()?,
        None => (0..rank).collect(),
    };
    if list.len() != 2 * axes.len() {
        return Err(site.error(format!("{} pads for {} axes", list.len(), axes.len())).into());
    }
    let mut all = vec![(0, 0); rank];
    for (i, &axis) in axes.iter().enumerate() {
        all[axis] = (list[i], list[i + axes.len()]);
    }
    Ok(all)
}

fn pad_type(site: &Site) -> Result<Vec<Type>, Refusal> {
    let ty = site.ty(0)?;
    let dim = |(&d, (a, b)): (&usize, (i64, i64))| {
        usize::try_from(d as i64 + a + b).map_err(|_| site.error("the pads cut off more than there is"))
    };
    let shape = ty.shape.iter().zip(pads(site)?).map(dim).collect::<Result<Shape>>()?;
    Ok(vec![Type::new(ty.dtype, shape)])
}

fn pad(site: &Site, out: &[Type]) -> Result<Problem> {
    let (shape, pads) = (&site.ty(0)?.shape, known(site, pads(site))?);
    let mode = site.str("mode", "constant");
    if mode == "constant" {
        return constant_pad(site, &pads, out);
    }
    let map = |(axis, &(before, _)): (usize, &(i64, i64))| -> Result<Option<Vec<usize>>> {
        let n = shape[axis] as i64;
        if n == 0 {
            return Err(site.error("an empty axis cannot be continued"));
        }
        let at = |i: i64| match mode {
            "edge" => i.clamp(0, n - 1),
            "wrap" => i.rem_euclid(n),
            _ if n == 1 => 0,
            _ => {
                let m = i.rem_euclid(2 * (n - 1));
                m.min(2 * (n - 1) - m)
            }
        };
        Ok(Some((0..out[0].shape[axis] as i64).map(|i| at(i - before) as usize).collect()))
    };
    if !matches!(mode, "edge" | "wrap" | "reflect") {
        return Err(site.unsupported(format!("mode {mode:?}")));
    }
    Ok(moved(site, out, Movement::Axes(pads.iter().enumerate().map(map).collect::<Result<_>>()?)))
}

fn constant_pad(site: &Site, pads: &[(i64, i64)], out: &[Type]) -> Result<Problem> {
    let shape = &site.ty(0)?.shape;
    let (mut from, mut to) = (Layout::contiguous(shape.clone()), Layout::contiguous(out[0].shape.clone()));
    let mut copied = Shape::default();
    for (axis, &(before, after)) in pads.iter().enumerate() {
        let cut = (-before).max(0) as usize;
        copied.push(shape[axis].saturating_sub(cut + (-after).max(0) as usize));
        from.offset += cut * from.strides[axis] as usize;
        to.offset += before.max(0) as usize * to.strides[axis] as usize;
    }
    from.shape = copied.clone();
    to.shape = copied;
    // Opset 2 gives the value as an attribute.
    let fill = match site.input(2) {
        Some(_) => Some(2),
        None if site.float("value", 0.0) != 0.0 => return Err(site.unsupported("a pad value given as an attribute")),
        None => None,
    };
    Ok(moved(site, out, Movement::Copy { pieces: vec![Piece { input: 0, from, output: 0, to }], fill: Some(fill) }))
}

/// New size and scale of each axis.
struct Scaling {
    sizes: Vec<usize>,
    scales: Vec<f64>,
    /// Start and end of the region for `tf_crop_and_resize`.
    roi: Vec<(f64, f64)>,
}

fn scaling(site: &Site) -> Result<Scaling, Refusal> {
    let shape = &site.ty(0)?.shape;
    let rank = shape.rank();
    // Upsample and Resize-10 have the scales at 1, later Resize has roi, scales, sizes.
    let late = site.node.op == "Resize" && site.opset() >= 11;
    let (roi_at, scales_at) = if late { (1, 2) } else { (usize::MAX, 1) };
    let axes: Vec<usize> = match site.ints("axes") {
        Some(axes) => axes.iter().map(|&a| site.axis(a, rank)).collect::<Result<_>>()?,
        None => (0..rank).collect(),
    };
    let listed = match site.floats("scales") {
        Some(v) => Some(v.iter().map(|&v| v.into()).collect()),
        None => site.float_values(scales_at)?.filter(|v| !v.is_empty()),
    };
    let sizes = if late { site.int_values(3)?.filter(|v| !v.is_empty()) } else { None };
    let mut all = Scaling { sizes: shape.to_vec(), scales: vec![1.0; rank], roi: vec![(0.0, 1.0); rank] };
    let fits =
        |n: usize| if n == axes.len() { Ok(()) } else { Err(site.error(format!("{n} scales or sizes for {} axes", axes.len()))) };
    if crops(site) {
        let roi = site.float_values(roi_at)?.unwrap_or_default();
        for (i, &axis) in axes.iter().enumerate().filter(|(i, _)| i + axes.len() < roi.len()) {
            all.roi[axis] = (roi[i], roi[i + axes.len()]);
        }
    }
    match (listed, sizes) {
        (_, Some(sizes)) => {
            fits(sizes.len())?;
            apply_sizes(site, &axes, &sizes, &mut all);
        }
        (Some(scales), None) => {
            fits(scales.len())?;
            for (&axis, &s) in axes.iter().zip(&scales) {
                all.scales[axis] = s;
                let (start, end) = all.roi[axis];
                all.sizes[axis] = (shape[axis] as f64 * (end - start) * s).floor().max(0.0) as usize;
            }
        }
        (None, None) => return Err(site.error("neither scales nor sizes are given").into()),
    }
    Ok(all)
}

/// Whether a region of the input is resized; what lies outside the input is then `extrapolation_value`.
fn crops(site: &Site) -> bool {
    site.str("coordinate_transformation_mode", "") == "tf_crop_and_resize"
}

fn apply_sizes(site: &Site, axes: &[usize], sizes: &[i64], all: &mut Scaling) {
    let old: Vec<f64> = axes.iter().map(|&a| all.sizes[a] as f64).collect();
    let ratios = sizes.iter().zip(&old).map(|(&s, &o)| s as f64 / o);
    let policy = site.str("keep_aspect_ratio_policy", "stretch");
    let common = match policy {
        "not_larger" => Some(ratios.fold(f64::INFINITY, f64::min)),
        "not_smaller" => Some(ratios.fold(0.0, f64::max)),
        _ => None,
    };
    for (i, &axis) in axes.iter().enumerate() {
        // The specification rounds half up here.
        all.sizes[axis] = common.map_or(sizes[i].max(0) as usize, |r| (r * old[i] + 0.5).floor() as usize);
        all.scales[axis] = common.unwrap_or(sizes[i] as f64 / old[i]);
    }
}

fn resize_type(site: &Site) -> Result<Vec<Type>, Refusal> {
    let shape: Shape = scaling(site)?.sizes.into_iter().collect();
    Ok(vec![Type::new(site.ty(0)?.dtype, shape)])
}

fn resize(site: &Site, out: &[Type]) -> Result<Problem> {
    let shape = &site.ty(0)?.shape;
    let all = known(site, scaling(site))?;
    let mode = site.str("mode", "nearest");
    if shape.iter().zip(&all.sizes).any(|(&old, &new)| old == 0 && new > 0) {
        return Err(site.error(format!("an empty axis of {shape} cannot grow")));
    }
    let same = |axis: usize| all.sizes[axis] == shape[axis] && all.scales[axis] == 1.0 && all.roi[axis] == (0.0, 1.0);
    let coordinate = |axis: usize, x: usize| source(site, &all, axis, shape[axis], x);
    // Rounding of the coordinate itself takes no edge out of the input.
    let beyond = |axis: usize, x: f64| crops(site) && !(-1e-9..=shape[axis] as f64 - 1.0 + 1e-9).contains(&x);
    let closest = |axis: usize, x: f64| nearest(site, x).clamp(0.0, shape[axis] as f64 - 1.0) as usize;
    let within = |axis: usize| (0..all.sizes[axis]).all(|x| !beyond(axis, coordinate(axis, x)));
    if mode == "nearest" && (0..shape.rank()).all(within) {
        let map = |axis: usize| (!same(axis)).then(|| (0..all.sizes[axis]).map(|x| closest(axis, coordinate(axis, x))).collect());
        return Ok(moved(site, out, Movement::Axes((0..shape.rank()).map(map).collect())));
    }
    let dtype = site.ty(0)?.dtype;
    if mode == "nearest" && (dtype == DType::F64 || (dtype.is_int() && dtype.size_bytes() > 2)) {
        return Err(site.unsupported(format!("the nearest {dtype} where some positions are outside the input")));
    }
    let filter = |axis: usize| {
        let kernel = Kernel::of(site, all.scales[axis]);
        let taps = |x: usize| match coordinate(axis, x) {
            x if beyond(axis, x) => Taps { taps: Vec::new() },
            x if mode == "nearest" => Taps { taps: vec![(closest(axis, x), 1.0)] },
            x => kernel.taps(x, shape[axis]),
        };
        (!same(axis)).then(|| (0..all.sizes[axis]).map(taps).collect())
    };
    let axes = (0..shape.rank()).map(filter).collect();
    Ok(moved(
        site,
        out,
        Movement::Interpolate { axes, outside: if crops(site) { site.float("extrapolation_value", 0.0) } else { 0.0 } },
    ))
}

/// Where output position `x` lies in the input. Source: ONNX, Resize, coordinate_transformation_mode.
fn source(site: &Site, all: &Scaling, axis: usize, old: usize, x: usize) -> f64 {
    let (scale, new, x) = (all.scales[axis], all.sizes[axis] as f64, x as f64);
    let old = old as f64;
    let default = if site.node.op == "Resize" && site.opset() >= 11 { "half_pixel" } else { "asymmetric" };
    match site.str("coordinate_transformation_mode", default) {
        "asymmetric" => x / scale,
        "align_corners" if new > 1.0 => x * (old - 1.0) / (old * scale - 1.0),
        "align_corners" => 0.0,
        "pytorch_half_pixel" if new <= 1.0 => 0.0,
        "half_pixel_symmetric" => {
            let adjustment = new / (old * scale);
            old / 2.0 * (1.0 - adjustment) + (x + 0.5) / scale - 0.5
        }
        "tf_half_pixel_for_nn" => (x + 0.5) / scale,
        "tf_crop_and_resize" => {
            let (start, end) = all.roi[axis];
            if new > 1.0 {
                start * (old - 1.0) + x * (end - start) * (old - 1.0) / (new - 1.0)
            } else {
                0.5 * (start + end) * (old - 1.0)
            }
        }
        _ => (x + 0.5) / scale - 0.5,
    }
}

fn nearest(site: &Site, x: f64) -> f64 {
    let default = if site.node.op == "Resize" && site.opset() >= 11 { "round_prefer_floor" } else { "floor" };
    match site.str("nearest_mode", default) {
        "floor" => x.floor(),
        "ceil" => x.ceil(),
        "round_prefer_ceil" => (x + 0.5).floor(),
        _ => (x - 0.5).ceil(),
    }
}

/// An interpolation kernel: how much a sample at a distance weighs.
struct Kernel {
    cubic: Option<f64>,
    /// Below 1 the kernel is stretched by its inverse (antialiasing).
    scale: f64,
    exclude_outside: bool,
}

impl Kernel {
    fn of(site: &Site, scale: f64) -> Self {
        let cubic = (site.str("mode", "") == "cubic").then(|| f64::from(site.float("cubic_coeff_a", -0.75)));
        let stretched = site.int("antialias", 0) != 0 && scale < 1.0;
        Kernel { cubic, scale: if stretched { scale } else { 1.0 }, exclude_outside: site.int("exclude_outside", 0) != 0 }
    }

    fn weight(&self, distance: f64) -> f64 {
        let d = distance.abs() * self.scale;
        match self.cubic {
            None => (1.0 - d).max(0.0),
            Some(a) if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
            Some(a) if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
            Some(_) => 0.0,
        }
    }

    /// Samples around `x` with weights that sum to 1; those outside are the edge's, or left out.
    fn taps(&self, x: f64, size: usize) -> Taps {
        let reach = if self.cubic.is_some() { 2.0 } else { 1.0 } / self.scale;
        let (first, last) = ((x - reach).ceil() as i64, (x + reach).floor() as i64);
        let mut taps: Vec<(usize, f64)> = Vec::new();
        for i in first..=last {
            let inside = (0..size as i64).contains(&i);
            let w = if inside || !self.exclude_outside { self.weight(i as f64 - x) } else { 0.0 };
            let at = i.clamp(0, size as i64 - 1) as usize;
            match taps.last_mut() {
                Some(last) if last.0 == at => last.1 += w,
                _ => taps.push((at, w)),
            }
        }
        let sum: f64 = taps.iter().map(|t| t.1).sum();
        let sum = if sum == 0.0 { 1.0 } else { sum };
        Taps { taps: taps.into_iter().filter(|t| t.1 != 0.0).map(|(i, w)| (i, (w / sum) as f32)).collect() }
    }
}
