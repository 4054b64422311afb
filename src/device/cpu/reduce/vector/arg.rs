//! Where the largest or smallest elements are.

use super::lines::{BLOCK, blocks, pieces};
use crate::base::{DType, Element, TensorView, TensorViewMut};
use crate::device::cpu::isa::{Isa, Work, fold_lanes};
use crate::device::cpu::widen::to_f32;
use crate::graph::problem::reduce::Rows;

/// What is looked for: the largest element or the smallest, the last of equal ones or the first. NaN is neither larger nor smaller
/// than anything, so that it is found only where it comes first.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub max: bool,
    pub last: bool,
}

/// Indices along the rows, which have elements.
pub(super) fn arg(isa: Isa, rows: Rows, wanted: Wanted, x: &TensorView, y: &mut TensorViewMut) {
    let y = y.slice::<i64>();
    match x.dtype {
        DType::I8 => find::<i8>(isa, rows, wanted, x.slice(), y),
        DType::I16 => find::<i16>(isa, rows, wanted, x.slice(), y),
        DType::U16 => find::<u16>(isa, rows, wanted, x.slice(), y),
        DType::I32 => find::<i32>(isa, rows, wanted, x.slice(), y),
        DType::U32 => find::<u32>(isa, rows, wanted, x.slice(), y),
        DType::I64 => find::<i64>(isa, rows, wanted, x.slice(), y),
        DType::U64 => find::<u64>(isa, rows, wanted, x.slice(), y),
        DType::U8 | DType::Bool => find::<u8>(isa, rows, wanted, x.slice(), y),
        _ => find::<f32>(isa, rows, wanted, &to_f32(x, 0, x.numel()), y),
    }
}

fn find<T: Element + PartialOrd>(isa: Isa, rows: Rows, Wanted { max, last }: Wanted, x: &[T], y: &mut [i64]) {
    if max {
        pieces(rows, y, |first, y| isa.run(Find { rows, x, first, y, last, better: |new: T, old: T| new > old }));
    } else {
        pieces(rows, y, |first, y| isa.run(Find { rows, x, first, y, last, better: |new: T, old: T| new < old }));
    }
}

/// The first element, or the last, that is `best`; 0 when none is.
#[inline(always)]
fn place<T: Element>(row: &[T], best: T, last: bool) -> usize {
    let chunk = |i: usize| &row[i * BLOCK..row.len().min((i + 1) * BLOCK)];
    let here = |i: &usize| chunk(*i).iter().fold(false, |found, &v| found | (v == best));
    let mut chunks = 0..row.len().div_ceil(BLOCK);
    let Some(i) = (if last { chunks.rfind(here) } else { chunks.find(here) }) else { return 0 };
    let mut elements = chunk(i).iter();
    let within = if last { elements.rposition(|&v| v == best) } else { elements.position(|&v| v == best) };
    i * BLOCK + within.unwrap_or(0)
}

/// Rows from `first` on.
struct Find<'a, T, B> {
    rows: Rows,
    x: &'a [T],
    first: usize,
    y: &'a mut [i64],
    last: bool,
    better: B,
}

impl<T: Element + PartialOrd, B: Fn(T, T) -> bool> Work for Find<'_, T, B> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let Find { rows, x, first, y, last, better } = self;
        let Rows { len, inner, .. } = rows;
        if inner == 1 {
            for (row, y) in x[first * len..].chunks_exact(len).zip(y) {
                let best = fold_lanes(row, row[0], |v| v, |old, new| if better(new, old) { new } else { old });
                *y = place(row, best, last) as i64;
            }
            return;
        }
        blocks(rows, first, y.len(), |column, range| {
            let n = range.len();
            let y = &mut y[range];
            y.fill(0);
            let mut best = [x[column]; BLOCK];
            best[..n].copy_from_slice(&x[column..][..n]);
            for (i, row) in x[column..].chunks(inner).enumerate().take(len).skip(1) {
                for ((best, y), &v) in best.iter_mut().zip(&mut *y).zip(&row[..n]) {
                    let found = better(v, *best) || (last && v == *best);
                    *best = if found { v } else { *best };
                    *y = if found { i as i64 } else { *y };
                }
            }
        });
    }
}
