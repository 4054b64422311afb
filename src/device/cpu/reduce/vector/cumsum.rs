//! Running sums: integers wrap, floats are added up in f64.

use std::num::Wrapping;
use std::ops::Add;

use half::{bf16, f16};
use rayon::prelude::*;

use super::lines::{BLOCK, SHARED, blocks};
use crate::base::{DType, Element, TensorView, TensorViewMut, round};
use crate::device::cpu::isa::{Isa, Work};
use crate::graph::problem::reduce::Rows;

/// How the sums run.
#[derive(Clone, Copy)]
pub(super) struct Order {
    /// A sum is that of the elements before its own.
    pub exclusive: bool,
    /// From the last element to the first.
    pub reverse: bool,
}

/// Running sums along the rows.
pub(super) fn cumsum(isa: Isa, rows: Rows, order: Order, x: &TensorView, y: &mut TensorViewMut) {
    let io = (isa, rows, order, x, y);
    match x.dtype {
        DType::I8 | DType::U8 | DType::Bool => sums(io, Wrapping::<u8>, |s| s.0),
        DType::I16 | DType::U16 => sums(io, Wrapping::<u16>, |s| s.0),
        DType::I32 | DType::U32 => sums(io, Wrapping::<u32>, |s| s.0),
        DType::I64 | DType::U64 => sums(io, Wrapping::<u64>, |s| s.0),
        DType::F16 => sums(io, f16::to_f64, round::to_f16),
        DType::BF16 => sums(io, bf16::to_f64, round::to_bf16),
        DType::F32 => sums(io, f64::from, |s| s as f32),
        DType::F64 => sums(io, |v: f64| v, |s| s),
    }
}

fn sums<T: Element, S: Copy + Default + Add<Output = S>>(
    (isa, rows, order, x, y): (Isa, Rows, Order, &TensorView, &mut TensorViewMut),
    widen: impl Fn(T) -> S + Copy + Sync,
    narrow: impl Fn(S) -> T + Copy + Sync,
) {
    let (x, y): (&[T], &mut [T]) = (bytemuck::cast_slice(x.bytes), bytemuck::cast_slice_mut(y.bytes));
    let slab = rows.len * rows.inner;
    if slab == 0 {
        return;
    }
    let work = |(x, y)| isa.run(Sums { rows, order, x, y, widen, narrow });
    if x.len() < SHARED || rayon::current_num_threads() == 1 {
        x.chunks_exact(slab).zip(y.chunks_exact_mut(slab)).for_each(work);
    } else {
        x.par_chunks_exact(slab).zip(y.par_chunks_exact_mut(slab)).for_each(work);
    }
}

/// One slab, `[len, inner]`.
struct Sums<'a, T, W, N> {
    rows: Rows,
    order: Order,
    x: &'a [T],
    y: &'a mut [T],
    widen: W,
    narrow: N,
}

impl<T: Copy, S: Copy + Default + Add<Output = S>, W: Fn(T) -> S, N: Fn(S) -> T> Work for Sums<'_, T, W, N> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let Sums { rows: Rows { len, inner, .. }, order, x, y, widen, narrow } = self;
        let at = |i: usize| if order.reverse { len - 1 - i } else { i };
        let step = |sum: &mut S, v: T| {
            let before = *sum;
            *sum = before + widen(v);
            narrow(if order.exclusive { before } else { *sum })
        };
        if inner == 1 {
            let mut sum = S::default();
            (0..len).map(at).for_each(|i| y[i] = step(&mut sum, x[i]));
            return;
        }
        blocks(Rows { outer: 1, len, inner }, 0, inner, |column, range| {
            let mut sums = [S::default(); BLOCK];
            for row in (0..len).map(|i| at(i) * inner + column) {
                let (x, y) = (&x[row..][..range.len()], &mut y[row..][..range.len()]);
                sums.iter_mut().zip(x.iter().zip(y)).for_each(|(s, (&x, y))| *y = step(s, x));
            }
        });
    }
}
