//! The weights of a layer, packed for the cores of matrix products, and products with them.

use crate::base::{DType, Tensor, TensorView, quant};
use crate::device::cpu::call::Packed;
use crate::device::cpu::gemm::lines::Rows;
use crate::device::cpu::gemm::{bytes, core};
use crate::device::cpu::isa::Isa;
use crate::device::cpu::quantize::{QuantizeU8, Range};
use crate::device::cpu::widen::{to_f32, to_i128};
use crate::error::{Error, Result};
use crate::graph::problem::RecurrentProblem;
use crate::graph::problem::recurrent::Cell;

/// Columns that a core finishes together, at most.
const SEGMENT: usize = 256;

/// What one kernel computes with.
pub(super) struct Tier {
    /// For the cells.
    pub isa: Isa,
    /// For the products.
    pub tiles: Tiles,
}

/// The tiles of a kernel's products.
pub(super) enum Tiles {
    Float(&'static core::Isa),
    /// Exact, of rows quantised to u8 each by its own range.
    Int8(&'static bytes::Isa),
}

/// One matrix of a direction: columns `first..first + n` of input `input`.
#[derive(Clone, Copy)]
struct Piece {
    input: usize,
    k: usize,
    first: usize,
    n: usize,
}

/// All gates of w; of r those that see h as it is, and the hidden gate of a GRU, which the reset gate comes before.
fn pieces(p: &RecurrentProblem) -> Vec<Piece> {
    let (n, all) = (p.hidden_size, p.cell.gates() * p.hidden_size);
    let direct = if let Cell::Gru { .. } = p.cell { 2 * n } else { all };
    let piece = |input, k, first, n| Piece { input, k, first, n };
    let mut pieces = vec![piece(1, p.input_size, 0, all), piece(2, n, 0, direct)];
    pieces.extend((direct < all).then(|| piece(2, n, direct, all - direct)));
    pieces
}

/// A packed matrix.
pub(super) enum Matrix<'a> {
    Float(&'static core::Isa, core::Weights<'a>),
    /// With zero points as packed and scales for each column.
    Int8(&'static bytes::Isa, bytes::Weights<'a>, &'a [i32], &'a [f32]),
}

impl Tiles {
    /// Bytes of a piece: panels, then (of integers) column sums, zero points and scales, each from a 64-byte boundary on.
    fn layout(&self, p: &RecurrentProblem, piece: &Piece) -> [usize; 2] {
        let (panels, rest) = match self {
            Tiles::Float(isa) => (core::packed_len(isa, piece.k, piece.n) * p.dtype.size_bytes(), 0),
            Tiles::Int8(isa) => (bytes::packed_len(isa, piece.k, piece.n), 3 * (piece.n * 4).next_multiple_of(64)),
        };
        [panels.next_multiple_of(64), rest]
    }

    /// All pieces of all directions, when what they are made of is among the inputs.
    pub(super) fn pack(&self, p: &RecurrentProblem, inputs: &[Option<TensorView>]) -> Result<Option<Packed>> {
        let view = |i: usize| inputs.get(i).and_then(|v| v.as_ref());
        let needed = if let Tiles::Int8(_) = self { &[1, 2, 8, 9, 10, 11][..] } else { &[1, 2] };
        if needed.iter().any(|&i| view(i).is_none()) {
            return Ok(None);
        }
        let places: Vec<(usize, Piece)> = (0..p.directions()).flat_map(|d| pieces(p).into_iter().map(move |s| (d, s))).collect();
        let total = places.iter().map(|(_, piece)| self.layout(p, piece).iter().sum::<usize>()).sum();
        let mut out = Tensor::zeros(DType::U8, [total])?;
        let mut left = out.view_mut().bytes;
        for (d, piece) in &places {
            let [panels, rest] = self.layout(p, piece);
            let (panels, after) = left.split_at_mut(panels);
            let (rest, after) = after.split_at_mut(rest);
            left = after;
            let Some(w) = view(piece.input) else { continue };
            match self {
                Tiles::Float(isa) => pack_floats(isa, p, piece, *d, w, panels),
                Tiles::Int8(isa) => pack_integers(isa, p, piece, *d, inputs, panels, rest),
            }
        }
        Ok(Some(Packed { parts: vec![out] }))
    }

    /// The matrices of direction `d` as packed.
    pub(super) fn matrices<'a>(&self, p: &RecurrentProblem, packed: &'a Packed, d: usize) -> Result<Vec<Matrix<'a>>> {
        let pieces = pieces(p);
        let size = |piece: &Piece| self.layout(p, piece).iter().sum::<usize>();
        let (start, len) = (d * pieces.iter().map(size).sum::<usize>(), pieces.iter().map(size).sum::<usize>());
        let part = packed.parts.first().and_then(|t| t.bytes().get(start..start + len));
        let mut left = part.ok_or_else(|| Error::BadInput("packed weights of another kernel".into()))?;
        let mut matrix = |piece: &Piece| {
            let (own, after) = left.split_at(size(piece));
            left = after;
            let (panels, rest) = own.split_at(self.layout(p, piece)[0]);
            match self {
                Tiles::Float(isa) => Matrix::Float(isa, core::Weights::packed(isa, piece.k, piece.n, p.dtype, panels)),
                Tiles::Int8(isa) => {
                    let (sums, rest) = rest.split_at(rest.len() / 3);
                    let (zeros, scales) = rest.split_at(rest.len() / 2);
                    let sums = &bytemuck::cast_slice(sums)[..piece.n];
                    let weights = bytes::Weights::packed(isa, piece.k, piece.n, bytemuck::cast_slice(panels), sums);
                    Matrix::Int8(isa, weights, bytemuck::cast_slice(zeros), bytemuck::cast_slice(scales))
                }
            }
        };
        Ok(pieces.iter().map(&mut matrix).collect())
    }
}

/// `w` is `[directions, gates * hidden, k]`.
fn pack_floats(isa: &core::Isa, p: &RecurrentProblem, piece: &Piece, d: usize, w: &TensorView, out: &mut [u8]) {
    let at = (d * p.cell.gates() * p.hidden_size + piece.first) * piece.k;
    let (steps, size) = ((1, piece.k), (piece.k, piece.n));
    match p.dtype {
        DType::F32 => core::pack_b(isa, &w.slice::<f32>()[at..], steps, size, bytemuck::cast_slice_mut(out), |x: f32| x),
        _ => {
            let w = &bytemuck::cast_slice::<u8, u16>(w.bytes)[at..];
            core::pack_b(isa, w, steps, size, bytemuck::cast_slice_mut(out), |x: u16| x);
        }
    }
}

/// `w` is `[directions, k, gates * hidden]`; scales and zero points are one for each column, or for each direction.
fn pack_integers(
    isa: &bytes::Isa,
    p: &RecurrentProblem,
    piece: &Piece,
    d: usize,
    inputs: &[Option<TensorView>],
    panels: &mut [u8],
    rest: &mut [u8],
) {
    // Inputs 8 and 9 are w's, 10 and 11 are r's; `pack` has seen that all are there.
    let view = |i: usize| inputs[i].as_ref().expect("invariant: the caller looked");
    let (w, scales, zeros) = (view(piece.input), view(6 + 2 * piece.input), view(7 + 2 * piece.input));
    let all = p.cell.gates() * p.hidden_size;
    let (scales, zeros) = (to_f32(scales, 0, scales.numel()), to_i128(zeros));
    let of = |len: usize, j: usize| (d * all + piece.first + j) * len / (p.directions() * all);
    let unsigned = w.dtype == DType::U8;
    // Unsigned weights are packed less 128, and so are their zero points.
    let (flip, shift) = if unsigned { (0x80, 128) } else { (0, 0) };
    let (sums, rest) = rest.split_at_mut(rest.len() / 3);
    let (zero_out, scale_out) = rest.split_at_mut(rest.len() / 2);
    for j in 0..piece.n {
        bytemuck::cast_slice_mut::<u8, i32>(zero_out)[j] = zeros[of(zeros.len(), j)] as i32 - shift;
        bytemuck::cast_slice_mut::<u8, f32>(scale_out)[j] = scales[of(scales.len(), j)];
    }
    let at = |i: usize, j: usize| (d * piece.k + i) * all + piece.first + j;
    let (panels, sums) = (bytemuck::cast_slice_mut(panels), bytemuck::cast_slice_mut(sums));
    bytes::pack_b(isa, (piece.k, piece.n), panels, sums, |i, j| (w.bytes[at(i, j)] ^ flip) as i8);
}

impl Matrix<'_> {
    /// `m` rows of `[m, k]` times the matrix: `done(row, first column, sums)` once for each segment, from several threads.
    /// `ranges` is room for two numbers a row.
    pub(super) fn product(
        &self,
        isa: Isa,
        rows: &[f32],
        m: usize,
        ranges: &mut [f32],
        done: &(dyn Fn(usize, usize, &mut [f32]) + Sync),
    ) {
        let (tiles, weights, zeros, scales) = match self {
            Matrix::Float(tiles, weights) => {
                let a = core::Rows::Strided { a: rows, row: weights.k, col: 1 };
                return core::product(tiles, m, a, weights, done);
            }
            Matrix::Int8(tiles, weights, zeros, scales) => (tiles, weights, zeros, scales),
        };
        let k = weights.k;
        let ranges = &mut ranges.as_chunks_mut::<2>().0[..m];
        for (r, range) in ranges.iter_mut().enumerate() {
            let (lo, hi) = isa.run(Range(&rows[r * k..][..k]));
            let (scale, zero) = quant::dynamic_u8(lo, hi);
            *range = [scale, zero.into()];
        }
        let ranges = &*ranges;
        let fill = |r: usize, y: &mut [u8]| {
            let [scale, zero] = ranges[r];
            isa.run(QuantizeU8 { x: &rows[r * k..][..k], y, scale, zero: zero as u8 });
        };
        let unmoved = bytes::Zeros { a: 0, row_sums: true };
        let finish = |mut segment: bytes::Segment| {
            let [scale, zero] = ranges[segment.row];
            segment.correct(weights, unmoved, zero as i32, |j| zeros[j]);
            let mut x = [0f32; SEGMENT];
            let x = &mut x[..segment.sums.len()];
            let factors = &scales[segment.column..];
            x.iter_mut().zip(&*segment.sums).zip(factors).for_each(|((x, &sum), s)| *x = sum as f32 * (scale * s));
            done(segment.row, segment.column, x);
        };
        bytes::product(tiles, m, Rows::Each(&fill), weights, unmoved, &finish);
    }
}
