//! References of the normalisations, in f64.

use super::super::widen::{from_f64, to_f64};
use crate::base::{DType, TensorView};
use crate::device::cpu::Call;
use crate::graph::problem::reduce::{BatchNorm, Groups, Normalize};

/// Input `i` of a call, widened.
fn input(call: &Call, i: usize) -> Option<Vec<f64>> {
    call.inputs.get(i)?.as_ref().map(to_f64)
}

fn store(call: &mut Call, i: usize, values: &[f64]) {
    if let Some(Some(out)) = call.outputs.get_mut(i) {
        from_f64(out, values);
    }
}

/// Scale or bias `view` broadcast to one factor for each place of `norm.affine`; `None` for no factor.
fn factors(norm: &Normalize, view: Option<&TensorView>, ty: Option<&crate::graph::Type>) -> Option<Vec<f64>> {
    let (values, ty) = (to_f64(view?), ty?);
    let shape = &norm.affine.shape;
    let strides = ty.shape.broadcast_strides(shape)?;
    let dense = shape.strides();
    let at = |i: usize| dense.iter().zip(&strides).zip(shape.iter()).map(|((d, s), n)| i / d % n * s).sum::<usize>();
    Some((0..shape.numel()).map(|i| values[at(i)]).collect())
}

/// Scale and bias of a call as full tables; also used by the fast kernels.
pub(super) fn affine(norm: &Normalize, inputs: &[Option<TensorView>]) -> [Option<Vec<f64>>; 2] {
    let [scale, bias, ..] = norm.slots();
    let view = |i: usize| inputs.get(i).and_then(|v| v.as_ref());
    [factors(norm, view(scale), norm.scale.as_ref()), factors(norm, view(bias), norm.bias.as_ref())]
}

/// Rows shifted and scaled by their own statistics. Outputs: y, mean, 1 / deviation, and with a skip the sum that was normalised.
pub(super) fn normalize(norm: &Normalize, call: &mut Call) {
    let [_, _, skip, own_bias] = norm.slots();
    let mut x = input(call, 0).unwrap_or_default();
    if let Some(skip) = input(call, skip) {
        x.iter_mut().zip(&skip).for_each(|(x, s)| *x += s);
    }
    if let Some(bias) = input(call, own_bias) {
        x.iter_mut().enumerate().for_each(|(i, x)| *x += bias[i % bias.len()]);
    }
    if norm.skip {
        store(call, 3, &x);
    }
    let [scale, bias] = affine(norm, call.inputs);
    let (mut means, mut inverses) = (vec![0.0; norm.rows], vec![0.0; norm.rows]);
    let a = &norm.affine;
    for r in 0..norm.rows {
        let row = &mut x[r * norm.len..][..norm.len];
        (means[r], inverses[r]) = statistics(row, norm.center, norm.epsilon.into());
        for (j, v) in row.iter_mut().enumerate() {
            let f = r % a.period * a.per_row + j / a.inner;
            *v = (*v - means[r]) * inverses[r];
            *v = *v * scale.as_ref().map_or(1.0, |s| s[f]) + bias.as_ref().map_or(0.0, |b| b[f]);
        }
    }
    store(call, 0, &x);
    store(call, 1, &means);
    store(call, 2, &inverses);
}

/// Mean (0 unless `center`) and 1 / sqrt(variance + epsilon).
fn statistics(row: &[f64], center: bool, epsilon: f64) -> (f64, f64) {
    let n = row.len() as f64;
    let mean = if center { row.iter().sum::<f64>() / n } else { 0.0 };
    let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

/// Mean and variance normalisation over any axes.
pub(super) fn standardize(groups: &Groups, epsilon: f64, call: &mut Call) {
    let mut x = input(call, 0).unwrap_or_default();
    let reduced = groups.offsets(true);
    for k in groups.offsets(false) {
        let n = reduced.len() as f64;
        let mean = reduced.iter().map(|r| x[k + r]).sum::<f64>() / n;
        let variance = reduced.iter().map(|r| (x[k + r] - mean).powi(2)).sum::<f64>() / n;
        reduced.iter().for_each(|r| x[k + r] = (x[k + r] - mean) / (variance.sqrt() + epsilon));
    }
    store(call, 0, &x);
}

/// Batch normalisation with given statistics, or with those of x.
pub(super) fn batch(norm: &BatchNorm, call: &mut Call) {
    let mut x = input(call, 0).unwrap_or_default();
    let [scale, bias, mut mean, mut variance] = [1, 2, 3, 4].map(|i| input(call, i).unwrap_or_default());
    let index = |c: usize, i: usize| (i / norm.inner.max(1) * norm.channels + c) * norm.inner + i % norm.inner.max(1);
    let count = norm.batch * norm.inner;
    if norm.training {
        let keep = f64::from(norm.momentum);
        let (mut running_mean, mut running_variance) = (mean.clone(), variance.clone());
        for c in 0..norm.channels {
            let row: Vec<f64> = (0..count).map(|i| x[index(c, i)]).collect();
            mean[c] = row.iter().sum::<f64>() / count as f64;
            variance[c] = row.iter().map(|v| (v - mean[c]).powi(2)).sum::<f64>() / count as f64;
            running_mean[c] = running_mean[c] * keep + mean[c] * (1.0 - keep);
            running_variance[c] = running_variance[c] * keep + variance[c] * (1.0 - keep);
        }
        store(call, 1, &running_mean);
        store(call, 2, &running_variance);
    }
    for c in 0..norm.channels {
        let factor = scale[c] / (variance[c] + f64::from(norm.epsilon)).sqrt();
        (0..count).for_each(|i| x[index(c, i)] = (x[index(c, i)] - mean[c]) * factor + bias[c]);
    }
    store(call, 0, &x);
}

/// Smallest and largest element, both at least as far as 0 (NaN ignored).
pub(super) fn range(x: &[f32]) -> (f32, f32) {
    x.iter().fold((0.0, 0.0), |(lo, hi), &v| (v.min(lo), v.max(hi)))
}

/// DynamicQuantizeLinear.
pub(super) fn dynamic_quantize(call: &mut Call) {
    let Some(x) = call.inputs[0].as_ref().map(|x| x.slice::<f32>()) else { return };
    let (lo, hi) = range(x);
    let (scale, zero) = crate::base::quant::dynamic_u8(lo, hi);
    for (i, out) in call.outputs.iter_mut().enumerate() {
        let Some(out) = out else { continue };
        match (i, out.dtype) {
            (1, DType::F32) => out.slice::<f32>()[0] = scale,
            (2, _) => out.slice::<u8>()[0] = zero,
            _ => {
                let quantize = |v| crate::base::quant::quantize(v, scale, zero.into(), 0, 255) as u8;
                out.slice::<u8>().iter_mut().zip(x).for_each(|(o, &v)| *o = quantize(v));
            }
        }
    }
}
