//! Elements of any type as f64, f32 or i128, and back: what references and conversions at a kernel's edge use.

use std::borrow::Cow;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::base::{DType, Element, TensorView, TensorViewMut, round};

fn read<T: Element, U>(view: &TensorView, f: impl Fn(T) -> U) -> Vec<U> {
    view.slice::<T>().iter().map(|&v| f(v)).collect()
}

fn write<T: Element, U: Copy>(view: &mut TensorViewMut, values: &[U], f: impl Fn(U) -> T) {
    for (to, &v) in view.slice::<T>().iter_mut().zip(values) {
        *to = f(v);
    }
}

/// Integers and bools exactly; floats truncated.
pub(super) fn to_i128(view: &TensorView) -> Vec<i128> {
    match view.dtype {
        DType::I8 => read(view, |v: i8| v.into()),
        DType::U8 | DType::Bool => read(view, |v: u8| v.into()),
        DType::I16 => read(view, |v: i16| v.into()),
        DType::U16 => read(view, |v: u16| v.into()),
        DType::I32 => read(view, |v: i32| v.into()),
        DType::U32 => read(view, |v: u32| v.into()),
        DType::I64 => read(view, |v: i64| v.into()),
        DType::U64 => read(view, |v: u64| v.into()),
        _ => to_f64(view).into_iter().map(|v| v as i128).collect(),
    }
}

/// Integers wrap around.
pub(super) fn from_i128(view: &mut TensorViewMut, values: &[i128]) {
    match view.dtype {
        DType::I8 => write(view, values, |v| v as i8),
        DType::U8 | DType::Bool => write(view, values, |v| v as u8),
        DType::I16 => write(view, values, |v| v as i16),
        DType::U16 => write(view, values, |v| v as u16),
        DType::I32 => write(view, values, |v| v as i32),
        DType::U32 => write(view, values, |v| v as u32),
        DType::I64 => write(view, values, |v| v as i64),
        DType::U64 => write(view, values, |v| v as u64),
        _ => from_f64(view, &values.iter().map(|&v| v as f64).collect::<Vec<_>>()),
    }
}

/// Every type; 64-bit integers are rounded.
pub(super) fn to_f64(view: &TensorView) -> Vec<f64> {
    match view.dtype {
        DType::F32 => read(view, |v: f32| v.into()),
        DType::F64 => read(view, |v: f64| v),
        DType::F16 => read(view, |v: f16| v.to_f64()),
        DType::BF16 => read(view, |v: bf16| v.to_f64()),
        _ => to_i128(view).into_iter().map(|v| v as f64).collect(),
    }
}

/// Floats are rounded; integers are truncated and saturate.
pub(super) fn from_f64(view: &mut TensorViewMut, values: &[f64]) {
    match view.dtype {
        DType::F32 => write(view, values, |v| v as f32),
        DType::F64 => write(view, values, |v| v),
        DType::F16 => write(view, values, round::to_f16),
        DType::BF16 => write(view, values, round::to_bf16),
        dtype => {
            let (lo, hi) = dtype.int_range().unwrap_or((0, 1));
            let ints: Vec<i128> = values.iter().map(|&v| (v as i128).clamp(lo.into(), hi.into())).collect();
            from_i128(view, &ints);
        }
    }
}

/// Elements `at..at + n` of a float tensor of at most 32 bits as f32, without a copy where they are.
pub(super) fn to_f32<'a>(view: &TensorView<'a>, at: usize, n: usize) -> Cow<'a, [f32]> {
    let widen16 = |wide: &dyn Fn(&mut [f32])| {
        let mut out = vec![0.0; n];
        wide(&mut out);
        Cow::Owned(out)
    };
    match view.dtype {
        DType::F32 => Cow::Borrowed(&view.slice::<f32>()[at..at + n]),
        DType::F16 => widen16(&|o| view.slice::<f16>()[at..at + n].convert_to_f32_slice(o)),
        DType::BF16 => widen16(&|o| view.slice::<bf16>()[at..at + n].convert_to_f32_slice(o)),
        DType::U8 => Cow::Owned(view.slice::<u8>()[at..at + n].iter().map(|&v| v.into()).collect()),
        DType::I8 => Cow::Owned(view.slice::<i8>()[at..at + n].iter().map(|&v| v.into()).collect()),
        _ => Cow::Owned(to_f64(view)[at..at + n].iter().map(|&v| v as f32).collect()),
    }
}
