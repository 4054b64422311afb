//! Groups of rows shared between threads, widened to f32 and narrowed again at the edges.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::share;
use super::widen::to_f32;
use crate::base::{DType, TensorView, TensorViewMut};

/// Elements below which sharing costs more than it saves, and that one piece of work has at least.
const PIECE: usize = 16 << 10;

/// Calls `f(first row, x, y)` for pieces of whole rows, of `x_len` elements of x and `y_len` of y each. Types: those of
/// [`to_f32`], stored as they are read; f32 is neither copied nor converted.
pub(super) fn each(
    x: &TensorView,
    y: &mut TensorViewMut,
    [x_len, y_len]: [usize; 2],
    f: impl Fn(usize, &[f32], &mut [f32]) + Sync,
) {
    let rows = y.numel() / y_len.max(1);
    if rows == 0 || y_len == 0 {
        return;
    }
    let (dtype, size) = (y.dtype, y.dtype.size_bytes());
    let alone = rows * (x_len + y_len) < 2 * PIECE || rayon::current_num_threads() == 1;
    let piece_rows = if alone {
        (4 * PIECE / (x_len + y_len)).clamp(1, rows)
    } else {
        (PIECE / (x_len + y_len)).clamp(1, rows.div_ceil(2 * rayon::current_num_threads()))
    };
    let piece = |i: usize, out: &mut [u8]| {
        let (first, count) = (i * piece_rows, out.len() / (y_len * size));
        in_f32(dtype, out, |y| f(first, &to_f32(x, first * x_len, count * x_len), y));
    };
    let pieces = piece_rows * y_len * size;
    if alone {
        y.bytes.chunks_mut(pieces).enumerate().for_each(|(i, out)| piece(i, out));
    } else {
        share::parts(y.bytes, pieces, piece);
    }
}

/// Lets `f` write f32, and converts what it wrote where the elements are narrower; integers saturate.
pub(super) fn in_f32(dtype: DType, out: &mut [u8], f: impl FnOnce(&mut [f32])) {
    match dtype {
        DType::F16 => {
            let mut wide = vec![0.0; out.len() / 2];
            f(&mut wide);
            bytemuck::cast_slice_mut::<u8, f16>(out).convert_from_f32_slice(&wide);
        }
        DType::BF16 => {
            let mut wide = vec![0.0; out.len() / 2];
            f(&mut wide);
            bytemuck::cast_slice_mut::<u8, bf16>(out).convert_from_f32_slice(&wide);
        }
        DType::U8 | DType::I8 => {
            let mut wide = vec![0f32; out.len()];
            f(&mut wide);
            let signed = dtype == DType::I8;
            out.iter_mut().zip(wide).for_each(|(o, v)| *o = if signed { v as i8 as u8 } else { v as u8 });
        }
        _ => f(bytemuck::cast_slice_mut(out)),
    }
}
