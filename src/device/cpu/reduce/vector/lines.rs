//! Integers folded along rows and down columns, exactly.

use std::num::Wrapping;
use std::ops::{Add, Div, Mul, Neg};

use bytemuck::{Pod, cast_slice, cast_slice_mut};

use crate::base::{DType, Element, TensorView, TensorViewMut};
use crate::device::cpu::isa::{Isa, Work};
use crate::device::cpu::share;
use crate::graph::problem::reduce::{Fold, Rows};

/// Columns worked on together.
pub(super) const BLOCK: usize = 128;
/// Elements of x below which sharing costs more than it saves.
pub(super) const SHARED: usize = 32 << 10;

/// Sums, products and norms wrap; means are truncated.
pub(super) fn fold(isa: Isa, fold: Fold, rows: Rows, x: &TensorView, y: &mut TensorViewMut) {
    let io = (isa, rows, x.bytes, &mut *y.bytes);
    match (x.dtype, fold) {
        (DType::I8, Fold::Mean) => mean::<i8, i64>(io),
        (DType::I16, Fold::Mean) => mean::<i16, i64>(io),
        (DType::U16, Fold::Mean) => mean::<u16, i64>(io),
        (DType::I32, Fold::Mean) => mean::<i32, i64>(io),
        (DType::U32, Fold::Mean) => mean::<u32, i64>(io),
        (DType::I64, Fold::Mean) => mean::<i64, i128>(io),
        (DType::U64, Fold::Mean) => mean::<u64, i128>(io),
        (_, Fold::Mean) => mean::<u8, i64>(io),
        (DType::I8, _) => wrapping::<Wrapping<i8>>(fold, io),
        (DType::I16, _) => wrapping::<Wrapping<i16>>(fold, io),
        (DType::U16, _) => wrapping::<Wrapping<u16>>(fold, io),
        (DType::I32, _) => wrapping::<Wrapping<i32>>(fold, io),
        (DType::U32, _) => wrapping::<Wrapping<u32>>(fold, io),
        (DType::I64, _) => wrapping::<Wrapping<i64>>(fold, io),
        (DType::U64, _) => wrapping::<Wrapping<u64>>(fold, io),
        _ => wrapping::<Wrapping<u8>>(fold, io),
    }
}

/// What is folded, and where to.
type Io<'a> = (Isa, Rows, &'a [u8], &'a mut [u8]);

fn wrapping<T>(fold: Fold, io: Io)
where
    T: Pod + Send + Sync + Ord + Default + Add<Output = T> + Mul<Output = T> + Neg<Output = T>,
{
    match fold {
        Fold::Max => lines(io, |v: T| v, |a, b| if a > b { a } else { b }, |v| v),
        Fold::Min => lines(io, |v: T| v, |a, b| if a < b { a } else { b }, |v| v),
        Fold::Prod => lines(io, |v: T| v, |a, b| a * b, |v| v),
        Fold::L1 => lines(io, |v: T| if v < T::default() { -v } else { v }, |a, b| a + b, |v| v),
        Fold::SumSquare => lines(io, |v: T| v * v, |a, b| a + b, |v| v),
        _ => lines(io, |v: T| v, |a, b| a + b, |v| v),
    }
}

/// Sums that do not wrap, divided.
fn mean<T: Element + Default + Into<S> + TryFrom<S>, S>(io: Io)
where
    S: Copy + Send + Sync + Add<Output = S> + Div<Output = S> + From<u32> + Mul<Output = S>,
{
    // Rows are counted in two halves of 32 bits, which every S has.
    let len = io.1.len as u64;
    let half = |n: u64| S::from(n as u32);
    let len = half(len >> 32) * half(1 << 31) * half(2) + half(len);
    lines(io, Into::<S>::into, |a, b| a + b, |sum| T::try_from(sum / len).unwrap_or_default());
}

fn lines<T: Pod + Send + Sync, S: Copy + Send + Sync>(
    (isa, rows, x, y): Io,
    start: impl Fn(T) -> S + Copy + Sync,
    join: impl Fn(S, S) -> S + Copy + Sync,
    end: impl Fn(S) -> T + Copy + Sync,
) {
    let x = cast_slice(x);
    pieces(rows, cast_slice_mut(y), |first, y| isa.run(Lines { rows, x, first, y, start, join, end }));
}

/// Calls `f(first, y)` for pieces of y, one element of which stands for a row.
pub(super) fn pieces<T: Send>(rows: Rows, y: &mut [T], f: impl Fn(usize, &mut [T]) + Sync) {
    let threads = rayon::current_num_threads();
    if y.is_empty() || rows.len * y.len() < SHARED || threads == 1 {
        return f(0, y);
    }
    let piece = y.len().div_ceil(2 * threads);
    share::parts(y, piece, |i, y| f(i * piece, y));
}

/// Calls `f(column, range)` for blocks of neighbouring columns: the first element of x, and the elements `first..first + len` of y that they
/// stand for, counted from `first`.
#[inline(always)]
pub(super) fn blocks(rows: Rows, first: usize, len: usize, mut f: impl FnMut(usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < len {
        let (outer, column) = ((first + done) / rows.inner, (first + done) % rows.inner);
        let n = BLOCK.min(len - done).min(rows.inner - column);
        f(outer * rows.len * rows.inner + column, done..done + n);
        done += n;
    }
}

/// Rows from `first` on: `start` makes a sum of an element, `join` one of two, `end` the result. Rows have elements.
struct Lines<'a, T, A, J, E> {
    rows: Rows,
    x: &'a [T],
    first: usize,
    y: &'a mut [T],
    start: A,
    join: J,
    end: E,
}

impl<T: Copy, S: Copy, A: Fn(T) -> S, J: Fn(S, S) -> S, E: Fn(S) -> T> Work for Lines<'_, T, A, J, E> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let Lines { rows, x, first, y, start, join, end } = self;
        let Rows { len, inner, .. } = rows;
        if inner == 1 {
            for (row, y) in x[first * len..].chunks_exact(len).zip(y) {
                *y = end(row[1..].iter().fold(start(row[0]), |sum, &v| join(sum, start(v))));
            }
            return;
        }
        blocks(rows, first, y.len(), |column, range| {
            let n = range.len();
            let mut sums = [start(x[column]); BLOCK];
            sums.iter_mut().zip(&x[column..][..n]).for_each(|(s, &v)| *s = start(v));
            for row in x[column..].chunks(inner).skip(1).take(len - 1) {
                sums.iter_mut().zip(&row[..n]).for_each(|(s, &v)| *s = join(*s, start(v)));
            }
            y[range].iter_mut().zip(&sums).for_each(|(y, &s)| *y = end(s));
        });
    }
}
