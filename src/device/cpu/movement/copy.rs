//! Strided copies.

use smallvec::SmallVec;

use super::run::error;
use crate::base::layout::Layout;
use crate::base::{TensorView, TensorViewMut};
use crate::device::cpu::share;
use crate::error::Result;
use crate::graph::problem::movement::Piece;

/// Bytes below which one thread copies faster than two.
const PARALLEL_BYTES: usize = 256 << 10;
/// Elements of a part of an axis that threads share.
const PART: usize = 32 << 10;

pub(super) fn pieces(
    pieces: &[Piece],
    fill: Option<Option<usize>>,
    inputs: &[Option<TensorView>],
    outputs: &mut [Option<TensorViewMut>],
) -> Result<()> {
    if let Some(value) = fill {
        let value = value.and_then(|i| inputs.get(i)).and_then(|v| v.as_ref());
        for out in outputs.iter_mut().flatten() {
            fill_with(out, value);
        }
    }
    for piece in pieces {
        let Some(Some(out)) = outputs.get_mut(piece.output) else { continue };
        let input = inputs.get(piece.input).and_then(|v| v.as_ref());
        one(piece, input.ok_or_else(|| error(format!("input {} is missing", piece.input)))?, out)?;
    }
    Ok(())
}

fn fill_with(out: &mut TensorViewMut, value: Option<&TensorView>) {
    let size = out.dtype.size_bytes();
    match value {
        Some(v) if v.bytes.len() >= size => out.bytes.chunks_exact_mut(size).for_each(|e| e.copy_from_slice(&v.bytes[..size])),
        _ => out.bytes.fill(0),
    }
}

/// An axis with its steps in bytes.
#[derive(Clone, Copy, PartialEq)]
struct Axis {
    dim: usize,
    from: isize,
    to: isize,
}

fn one(piece: &Piece, input: &TensorView, out: &mut TensorViewMut) -> Result<()> {
    let size = input.dtype.size_bytes();
    if piece.from.shape.numel() == 0 {
        return Ok(());
    }
    if !(piece.from.is_inside(input.bytes.len() / size) && piece.to.is_inside(out.bytes.len() / size))
        || size != out.dtype.size_bytes()
    {
        return Err(error("a copy would leave its tensor"));
    }
    let axes = joined(&piece.from, &piece.to, size);
    let (from, to) = (piece.from.offset * size, piece.to.offset * size);
    let bytes = piece.to.shape.numel() * size;
    if !piece.to.is_contiguous() || bytes < PARALLEL_BYTES || rayon::current_num_threads() == 1 {
        walk(&axes, input.bytes, from as isize, out.bytes, to as isize, size);
        return Ok(());
    }
    let out = &mut out.bytes[to..to + bytes];
    match axes[..] {
        [first, ref rest @ ..] if !rest.is_empty() => share::parts(out, first.to as usize, |i, part| {
            walk(rest, input.bytes, from as isize + i as isize * first.from, part, 0, size);
        }),
        // Parts of one axis are the same axis, shorter.
        [axis] => share::parts(out, PART * size, |i, part| {
            let at = from as isize + (i * PART) as isize * axis.from;
            walk(&[Axis { dim: part.len() / size, ..axis }], input.bytes, at, part, 0, size);
        }),
        _ => walk(&axes, input.bytes, from as isize, out, 0, size),
    }
    Ok(())
}

/// The axes, outermost first, those that can be walked as one joined.
fn joined(from: &Layout, to: &Layout, size: usize) -> SmallVec<[Axis; 6]> {
    let mut axes: SmallVec<[Axis; 6]> = SmallVec::new();
    for i in 0..from.shape.rank() {
        let axis = Axis { dim: from.shape[i], from: from.strides[i] * size as isize, to: to.strides[i] * size as isize };
        if axis.dim == 1 {
            continue;
        }
        match axes.last_mut() {
            Some(outer) if outer.from == axis.from * axis.dim as isize && outer.to == axis.to * axis.dim as isize => {
                *outer = Axis { dim: outer.dim * axis.dim, ..axis };
            }
            _ => axes.push(axis),
        }
    }
    axes
}

/// `one` has seen that every step stays inside both slices; slicing checks it again.
fn walk(axes: &[Axis], from: &[u8], at: isize, to: &mut [u8], into: isize, size: usize) {
    match axes {
        [] => to[into as usize..into as usize + size].copy_from_slice(&from[at as usize..at as usize + size]),
        [a] if a.from == size as isize && a.to == size as isize => {
            let n = a.dim * size;
            to[into as usize..into as usize + n].copy_from_slice(&from[at as usize..at as usize + n]);
        }
        [a] => match size {
            1 => line::<1>(*a, from, at, to, into),
            2 => line::<2>(*a, from, at, to, into),
            4 => line::<4>(*a, from, at, to, into),
            _ => line::<8>(*a, from, at, to, into),
        },
        [a, b] if b.from != size as isize && a.from == size as isize => transposed(*a, *b, from, at, to, into, size),
        [a, rest @ ..] => {
            for i in 0..a.dim as isize {
                walk(rest, from, at + i * a.from, to, into + i * a.to, size);
            }
        }
    }
}

/// Two axes of which the outer is contiguous in the source: in blocks, so that both sides stay in cache.
fn transposed(a: Axis, b: Axis, from: &[u8], at: isize, to: &mut [u8], into: isize, size: usize) {
    const BLOCK: usize = 16;
    for i in (0..a.dim).step_by(BLOCK) {
        for j in (0..b.dim).step_by(BLOCK) {
            for k in i..(i + BLOCK).min(a.dim) {
                let part = Axis { dim: BLOCK.min(b.dim - j), ..b };
                let (at, into) = (at + k as isize * a.from + j as isize * b.from, into + k as isize * a.to + j as isize * b.to);
                walk(&[part], from, at, to, into, size);
            }
        }
    }
}

fn line<const SIZE: usize>(a: Axis, from: &[u8], at: isize, to: &mut [u8], into: isize) {
    for i in 0..a.dim as isize {
        let (f, t) = ((at + i * a.from) as usize, (into + i * a.to) as usize);
        let element: [u8; SIZE] = from[f..f + SIZE].try_into().expect("invariant: the range is SIZE long");
        to[t..t + SIZE].copy_from_slice(&element);
    }
}
