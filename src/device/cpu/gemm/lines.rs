//! The rows of A of an 8-bit product, and how its tiles read them.

use std::cell::RefCell;

use super::blocks::{wide, with_buffer};
use super::bytes::Isa;
use super::interleave::interleave;
use crate::base::AlignedBytes;

/// A, row by row, as unsigned bytes.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    /// Element `(i, k)` at `a[i * row + k]`.
    Strided {
        /// The elements.
        a: &'a [u8],
        /// Step from row to row.
        row: usize,
    },
    /// Writes all K elements of a row.
    Each(&'a (dyn Fn(usize, &mut [u8]) + Sync)),
}

thread_local! {
    static LINES: RefCell<AlignedBytes> = RefCell::new(AlignedBytes::zeroed(0));
    static WIDENED: RefCell<AlignedBytes> = RefCell::new(AlignedBytes::zeroed(0));
}

impl Rows<'_> {
    /// Rows `first..first + height` as `[group][height]`. Their sums, as u8, go to `sums` when it is not empty.
    pub(super) fn pack(&self, isa: &Isa, (first, height): (usize, usize), k: usize, out: &mut [u8], sums: &mut [i32]) {
        let deep = k.next_multiple_of(isa.group);
        if k == 0 {
            return sums.fill(0);
        }
        match *self {
            Rows::Strided { a, row } if k == deep && !isa.signed_a => {
                let a = &a[first * row..];
                sums.iter_mut().enumerate().for_each(|(r, to)| *to = byte_sum(&a[r * row..][..k]));
                lay(isa, a, row, height, k, out);
            }
            _ => with_buffer(&LINES, height * deep, |lines| {
                self.lines(first, k, deep, lines, sums);
                if isa.signed_a {
                    wide(|| lines.iter_mut().for_each(|x| *x ^= 0x80));
                }
                lay(isa, lines, deep, height, deep, out);
            }),
        }
    }

    /// Rows from `first` on of `deep` bytes each, zeros after the `k` elements.
    pub(super) fn lines(&self, first: usize, k: usize, deep: usize, out: &mut [u8], sums: &mut [i32]) {
        for (r, line) in out.chunks_exact_mut(deep).enumerate() {
            let (line, rest) = line.split_at_mut(k);
            rest.fill(0);
            match *self {
                Rows::Strided { a, row } => line.copy_from_slice(&a[(first + r) * row..][..k]),
                Rows::Each(fill) => fill(first + r, line),
            }
            if let Some(to) = sums.get_mut(r) {
                *to = byte_sum(line);
            }
        }
    }
}

fn byte_sum(row: &[u8]) -> i32 {
    wide(|| row.iter().map(|&x| i32::from(x)).sum())
}

/// Lays `height` rows of `deep` bytes, `step` apart, out as `[group][height]`.
fn lay(isa: &Isa, rows: &[u8], step: usize, height: usize, deep: usize, out: &mut [u8]) {
    if isa.a_bytes == 2 {
        return with_buffer(&WIDENED, height * deep * 2, |wider| {
            let wider: &mut [u16] = bytemuck::cast_slice_mut(wider);
            for (line, row) in wider.chunks_exact_mut(deep).zip(rows.chunks(step)) {
                wide(|| line.iter_mut().zip(row).for_each(|(to, &x)| *to = x.into()));
            }
            side_by_side(bytemuck::cast_slice(wider), 2 * deep, height, 2 * deep, isa.group * 2, out);
        });
    }
    side_by_side(rows, step, height, deep, isa.group, out);
}

/// Units of `unit` bytes of `height` rows, `step` bytes apart and `bytes` long, as `[unit][height]`.
fn side_by_side(rows: &[u8], step: usize, height: usize, bytes: usize, unit: usize, out: &mut [u8]) {
    match unit {
        _ if height == 1 => out.copy_from_slice(&rows[..bytes]),
        4 => interleave(rows, step, height, bytes / 4, height, bytemuck::cast_slice_mut(out)),
        _ => {
            for (r, row) in rows.chunks(step).take(height).enumerate() {
                let places = out.chunks_exact_mut(unit).skip(r).step_by(height);
                places.zip(row[..bytes].chunks_exact(unit)).for_each(|(to, x)| to.copy_from_slice(x));
            }
        }
    }
}
