//! Windows over planes of any rank: f32 inside, whatever the element type.

use rayon::prelude::*;

use crate::base::{DType, TensorView, TensorViewMut};
use crate::device::cpu::Call;
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::graph::problem::PoolProblem;
use crate::graph::problem::pool::Pooling;

fn error(why: impl Into<String>) -> Error {
    Error::Device { device: "cpu".into(), why: why.into() }
}

pub(super) fn run(call: &mut Call) -> Result<()> {
    let Problem::Pool(p) = call.problem else { return Err(error("the problem is of another family")) };
    let x = call.inputs.first().and_then(|v| v.as_ref()).ok_or_else(|| error("the image is missing"))?;
    let (plane, pixels): (usize, usize) = (p.input.iter().product(), p.output.iter().product());
    if pixels == 0 || p.planes == 0 {
        return Ok(());
    }
    let wide;
    let values: &[f32] = match x.try_slice::<f32>() {
        Some(v) => v,
        None => {
            wide = widen(x)?;
            &wide
        }
    };
    let geometry = Geometry::new(p);
    let mut results = vec![0f32; p.planes * pixels];
    let one = |(i, out): (usize, &mut [f32])| geometry.plane(&values[i * plane..(i + 1) * plane], out);
    if p.flops() > 100_000.0 && rayon::current_num_threads() > 1 {
        results.par_chunks_exact_mut(pixels).enumerate().for_each(one);
    } else {
        results.chunks_exact_mut(pixels).enumerate().for_each(one);
    }
    if let Some(Some(indices)) = call.outputs.get_mut(1) {
        for (i, out) in indices.slice::<i64>().chunks_exact_mut(pixels).enumerate() {
            geometry.indices(&values[i * plane..(i + 1) * plane], i * plane, out);
        }
    }
    if let Some(Some(out)) = call.outputs.first_mut() {
        store(&results, out)?;
    }
    Ok(())
}

fn widen(x: &TensorView) -> Result<Vec<f32>> {
    Ok(x.to_tensor()?.to_f64().into_iter().map(|v| v as f32).collect())
}

fn store(values: &[f32], out: &mut TensorViewMut) -> Result<()> {
    let steps = crate::scalar::Steps::compile(&crate::scalar::arg(0), &[DType::F32], out.dtype)?;
    crate::scalar::cpu::Program::new(&steps).run(&[crate::scalar::cpu::Lane::Slice(bytemuck::cast_slice(values))], out.bytes);
    Ok(())
}

/// For each axis and output position: the taps inside the image, as input positions.
struct Geometry<'a> {
    p: &'a PoolProblem,
    /// First tap inside, number of taps inside, first input position, taps counted when padding counts.
    spans: Vec<Vec<Span>>,
}

#[derive(Clone, Copy)]
struct Span {
    start: usize,
    count: usize,
    padded: usize,
}

impl<'a> Geometry<'a> {
    fn new(p: &'a PoolProblem) -> Self {
        let axis = |a: usize| {
            let span = |o: usize| {
                let first = (o * p.strides[a]) as i64 - p.pads[a];
                let at = |t: usize| first + (t * p.dilations[a]) as i64;
                let inside = |t: &usize| (0..p.input[a] as i64).contains(&at(*t));
                let taps: Vec<usize> = (0..p.kernel[a]).filter(inside).collect();
                // Padding counts up to the pads given; a window that ceil_mode lets stick out further counts no more.
                let end = p.input[a] as i64 + p.pads_end[a];
                let padded = (0..p.kernel[a]).filter(|&t| at(t) < end).count();
                Span { start: taps.first().map_or(0, |&t| at(t) as usize), count: taps.len(), padded }
            };
            (0..p.output[a]).map(span).collect()
        };
        Geometry { p, spans: (0..p.input.len()).map(axis).collect() }
    }

    /// The spans of output pixel `i`, outermost axis first.
    fn window(&self, mut i: usize) -> smallvec::SmallVec<[Span; 3]> {
        let mut spans: smallvec::SmallVec<[Span; 3]> = smallvec::SmallVec::new();
        for (axis, &n) in self.spans.iter().zip(&self.p.output).rev() {
            spans.insert(0, axis[i % n]);
            i /= n;
        }
        spans
    }

    /// Calls `each` with the position of every tap inside the image.
    fn taps(&self, spans: &[Span], axis: usize, base: usize, each: &mut impl FnMut(usize)) {
        let (span, step) = (spans[axis], self.p.dilations[axis]);
        for t in 0..span.count {
            let at = base * self.p.input[axis] + span.start + t * step;
            if axis + 1 == spans.len() {
                each(at);
            } else {
                self.taps(spans, axis + 1, at, each);
            }
        }
    }

    fn plane(&self, x: &[f32], out: &mut [f32]) {
        let whole = out.len() == 1 && self.p.kernel == self.p.input;
        match self.p.pooling {
            Pooling::Average { .. } if whole => out[0] = sum(x) / x.len() as f32,
            Pooling::Max { .. } => self.fold(x, out, f32::NEG_INFINITY, |m, v| if v > m || v.is_nan() { v } else { m }, |m, _| m),
            Pooling::Average { include_pad } => self.fold(
                x,
                out,
                0.0,
                |s, v| s + v,
                |s, spans| {
                    let count: usize = spans.iter().map(|s| if include_pad { s.padded } else { s.count }).product();
                    s / count.max(1) as f32
                },
            ),
            Pooling::Lp { p } => self.fold(x, out, 0.0, |s, v| s + v.abs().powi(p as i32), |s, _| s.powf(1.0 / p as f32)),
        }
    }

    fn fold(&self, x: &[f32], out: &mut [f32], start: f32, join: impl Fn(f32, f32) -> f32, end: impl Fn(f32, &[Span]) -> f32) {
        for (i, o) in out.iter_mut().enumerate() {
            let spans = self.window(i);
            let mut value = start;
            self.taps(&spans, 0, 0, &mut |at| value = join(value, x[at]));
            *o = end(value, &spans);
        }
    }

    /// Where the largest elements are, counted from the first plane's start.
    fn indices(&self, x: &[f32], base: usize, out: &mut [i64]) {
        for (i, o) in out.iter_mut().enumerate() {
            let (mut best, mut at_best) = (f32::NEG_INFINITY, None);
            self.taps(&self.window(i), 0, 0, &mut |at| {
                if at_best.is_none() || x[at] > best {
                    (best, at_best) = (x[at], Some(at));
                }
            });
            let at = at_best.unwrap_or(0);
            *o = (base + if let Pooling::Max { column_major: true } = self.p.pooling { self.columns_first(at) } else { at })
                as i64;
        }
    }

    fn columns_first(&self, at: usize) -> usize {
        let (mut rest, mut index, mut stride, mut sizes) = (at, 0, 1, Vec::new());
        for &d in self.p.input.iter().rev() {
            sizes.push(rest % d);
            rest /= d;
        }
        for (i, &d) in sizes.iter().rev().zip(&self.p.input) {
            index += i * stride;
            stride *= d;
        }
        index
    }
}

/// In eight partial sums, so that the loop becomes vector code.
fn sum(x: &[f32]) -> f32 {
    let mut parts = [0f32; 16];
    let chunks = x.chunks_exact(16);
    let rest: f32 = chunks.remainder().iter().sum();
    for c in chunks {
        parts.iter_mut().zip(c).for_each(|(s, v)| *s += v);
    }
    parts.iter().sum::<f32>() + rest
}
