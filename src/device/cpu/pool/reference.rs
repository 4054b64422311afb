//! The plain definition: windows over planes of any rank, tap by tap, in f64.

use rayon::prelude::*;

use super::geometry::{Geometry, Span, counted};
use crate::device::cpu::Call;
use crate::device::cpu::widen::{from_f64, to_f64};
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::graph::problem::pool::Pooling;

pub(super) fn error(why: impl Into<String>) -> Error {
    Error::Device { device: "cpu".into(), why: why.into() }
}

pub(super) fn run(call: &mut Call) -> Result<()> {
    let Problem::Pool(p) = call.problem else { return Err(error("the problem is of another family")) };
    let x = call.inputs.first().and_then(|v| v.as_ref()).ok_or_else(|| error("the image is missing"))?;
    let geometry = Geometry::new(p);
    let [plane, pixels] = geometry.sizes();
    if pixels == 0 || p.planes == 0 {
        return Ok(());
    }
    let values = to_f64(x);
    let mut results = vec![0f64; p.planes * pixels];
    let one = |(i, out): (usize, &mut [f64])| geometry.plane(&values[i * plane..(i + 1) * plane], out);
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
        from_f64(out, &results);
    }
    Ok(())
}

impl Geometry<'_> {
    fn plane(&self, x: &[f64], out: &mut [f64]) {
        match self.p.pooling {
            Pooling::Max { .. } => self.fold(x, out, f64::NEG_INFINITY, |m, v| if v > m || v.is_nan() { v } else { m }, |m, _| m),
            Pooling::Average { include_pad } => {
                self.fold(x, out, 0.0, |s, v| s + v, |s, spans| s / counted(spans, include_pad) as f64)
            }
            Pooling::Lp { p } => self.fold(x, out, 0.0, |s, v| s + v.abs().powi(p as i32), |s, _| s.powf(1.0 / p as f64)),
        }
    }

    fn fold(&self, x: &[f64], out: &mut [f64], start: f64, join: impl Fn(f64, f64) -> f64, end: impl Fn(f64, &[Span]) -> f64) {
        for (i, o) in out.iter_mut().enumerate() {
            let spans = self.window(self.p.window.rank(), i);
            let mut value = start;
            self.taps(&spans, &mut |at| value = join(value, x[at]));
            *o = end(value, &spans);
        }
    }

    /// Where the largest elements are, counted from the first plane's start.
    fn indices(&self, x: &[f64], base: usize, out: &mut [i64]) {
        for (i, o) in out.iter_mut().enumerate() {
            let (mut best, mut at_best) = (f64::NEG_INFINITY, None);
            self.taps(&self.window(self.p.window.rank(), i), &mut |at| {
                if at_best.is_none() || x[at] > best {
                    (best, at_best) = (x[at], Some(at));
                }
            });
            let at = at_best.unwrap_or(0);
            *o = (base + if let Pooling::Max { column_major: true, .. } = self.p.pooling { self.columns_first(at) } else { at })
                as i64;
        }
    }

    fn columns_first(&self, at: usize) -> usize {
        let (mut rest, mut index, mut stride, mut sizes) = (at, 0, 1, Vec::new());
        for &d in self.p.window.input.iter().rev() {
            sizes.push(rest % d);
            rest /= d;
        }
        for (i, &d) in sizes.iter().rev().zip(&self.p.window.input) {
            index += i * stride;
            stride *= d;
        }
        index
    }
}
