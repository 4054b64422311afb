//! Takes a launch apart and gives its rows to the vector code.

use std::borrow::Cow;

use super::super::{normalize, reference};
use super::arg::{Wanted, arg};
use super::cumsum::{Order, cumsum};
use super::fold::FoldRows;
use super::lines;
use super::normalize::{NormalizeRows, ScaleRows};
use super::softmax::Softmax;
use crate::base::quant::dynamic_u8;
use crate::base::{TensorView, TensorViewMut};
use crate::device::cpu::isa::Isa;
use crate::device::cpu::quantize::{QuantizeU8, Range};
use crate::device::cpu::rows::each;
use crate::device::cpu::widen::to_f32;
use crate::device::cpu::{Call, CpuCode};
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::graph::problem::reduce::{BatchNorm, Fold, Groups, Normalize, ReduceKind, Rows, SoftmaxKind};

/// Solves the problems that `kernel::reduce` accepts for these kernels; statistics as outputs are left to the reference.
pub(in super::super) struct On(pub Isa);

impl CpuCode for On {
    fn run(&self, call: &mut Call) -> Result<()> {
        let Problem::Reduce(p) = call.problem else {
            return Err(Error::BadInput("a reduce kernel was called with another family's problem".into()));
        };
        let Some(x) = call.inputs[0].clone() else { return Err(Error::BadInput("a reduction without input".into())) };
        if matches!(p.kind, ReduceKind::DynamicQuantize) {
            return dynamic_quantize(self.0, &x, call);
        }
        let (head, tail) = call.outputs.split_at_mut(1);
        match (&p.kind, &mut head[0]) {
            (ReduceKind::Fold { fold, groups }, Some(y)) => fold_rows(self.0, *fold, groups, &x, y),
            (&ReduceKind::Arg { rows, max, last }, Some(y)) => arg(self.0, rows, Wanted { max, last }, &x, y),
            (&ReduceKind::CumSum { rows, exclusive, reverse }, Some(y)) => {
                cumsum(self.0, rows, Order { exclusive, reverse }, &x, y)
            }
            (&ReduceKind::Softmax { rows, kind }, Some(y)) => softmax(self.0, rows, kind, &x, y),
            (ReduceKind::Normalize(norm), Some(y)) if tail.iter().all(|o| o.is_none()) => {
                normalize_rows(self.0, norm, call.inputs, &x, y)
            }
            (ReduceKind::BatchNorm(norm), Some(y)) if !norm.training => batch(self.0, norm, call.inputs, &x, y),
            _ => return reference::run(call),
        }
        Ok(())
    }
}

fn fold_rows(isa: Isa, fold: Fold, groups: &Groups, x: &TensorView, y: &mut TensorViewMut) {
    let Some(rows @ Rows { len, inner, .. }) = groups.rows() else { return };
    if !x.dtype.is_float() {
        return lines::fold(isa, fold, rows, x, y);
    }
    each(x, y, [len * inner, inner], |_, x, y| isa.run(FoldRows { fold, x, y, len, inner }));
}

fn softmax(isa: Isa, Rows { len, inner, .. }: Rows, kind: SoftmaxKind, x: &TensorView, y: &mut TensorViewMut) {
    let log = kind == SoftmaxKind::LogSoftmax;
    each(x, y, [len * inner; 2], |_, x, y| isa.run(Softmax { x, y, len, inner, log }));
}

/// Scale or bias as one factor for each place; `fill` where there is none.
fn factors<'a>(norm: &Normalize, inputs: &[Option<TensorView<'a>>], i: usize, fill: f32) -> Cow<'a, [f32]> {
    let n = norm.affine.shape.numel();
    let (slot, ty) = (norm.slots()[i], if i == 0 { &norm.scale } else { &norm.bias });
    match (ty, inputs.get(slot).and_then(|v| v.as_ref())) {
        (Some(_), Some(view)) if view.numel() == n => to_f32(view, 0, n),
        (Some(_), Some(_)) => {
            let spread = normalize::affine(norm, inputs)[i].take();
            spread.unwrap_or_default().iter().map(|&v| v as f32).collect()
        }
        _ => Cow::Owned(vec![fill; n]),
    }
}

fn normalize_rows(isa: Isa, norm: &Normalize, inputs: &[Option<TensorView>], x: &TensorView, y: &mut TensorViewMut) {
    let (scale, bias) = (factors(norm, inputs, 0, 1.0), factors(norm, inputs, 1, 0.0));
    let (scale, bias) = (&scale[..], &bias[..]);
    each(x, y, [norm.len; 2], |first, x, y| isa.run(NormalizeRows { norm, first, x, y, scale, bias }));
}

fn batch(isa: Isa, norm: &BatchNorm, inputs: &[Option<TensorView>], x: &TensorView, y: &mut TensorViewMut) {
    let table = |i: usize| inputs[i].as_ref().map(|v| to_f32(v, 0, norm.channels)).unwrap_or_default();
    let [scale, bias, mean, variance] = [1, 2, 3, 4].map(table);
    let pair = |c: usize| {
        let factor = scale[c] / (variance[c] + norm.epsilon).sqrt();
        (factor, bias[c] - mean[c] * factor)
    };
    let factors: Vec<(f32, f32)> = (0..norm.channels).map(pair).collect();
    let each_element = norm.inner == 1;
    let len = if each_element { norm.channels } else { norm.inner };
    each(x, y, [len; 2], |first, x, y| isa.run(ScaleRows { first, len, x, y, factors: &factors, each_element }));
}

fn dynamic_quantize(isa: Isa, x: &TensorView, call: &mut Call) -> Result<()> {
    let x = x.slice::<f32>();
    let (lo, hi) = isa.run(Range(x));
    let (scale, zero) = dynamic_u8(lo, hi);
    let mut outputs = call.outputs.iter_mut();
    if let Some(Some(y)) = outputs.next() {
        isa.run(QuantizeU8 { x, y: y.slice::<u8>(), scale, zero });
    }
    if let Some(Some(out)) = outputs.next() {
        out.slice::<f32>()[0] = scale;
    }
    if let Some(Some(out)) = outputs.next() {
        out.slice::<u8>()[0] = zero;
    }
    Ok(())
}
