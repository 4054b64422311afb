//! Strided copies and fills.

use super::walk::{Axis, Walk, over};
use crate::base::DType;
use crate::device::gpu::call::Call;
use crate::device::gpu::device::failed;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::device::gpu::variant::Variant;
use crate::error::Result;
use crate::graph::problem::movement::Piece;

/// Bytes of one launch of a fill at most.
const FILL_BYTES: usize = 1 << 30;
/// An axis shorter than this is not worth a tile.
const TILED: usize = 8;

pub(super) fn launches(call: &Call, pieces: &[Piece], fill: Option<Option<usize>>) -> Result<Vec<Launch>> {
    let mut launches = Vec::new();
    for (i, out) in call.outputs.iter().enumerate().filter_map(|(i, t)| Some((i, t.as_ref()?))) {
        let value = fill.map(|input| input.filter(|&i| call.input(i).is_ok()).map_or(Pointer::Null, |i| Pointer::Input(i, 0)));
        let bytes = out.shape.numel() * out.dtype.size_bytes();
        launches.extend(value.into_iter().flat_map(|v| filled(|at| Pointer::Output(i, at), bytes, v, out.dtype.size_bytes(), 0)));
    }
    let wanted = |p: &&Piece| p.from.shape.numel() > 0 && call.output(p.output).is_ok();
    for piece in pieces.iter().filter(wanted) {
        launches.push(copied(call, piece)?);
    }
    Ok(launches)
}

/// Fills `bytes` bytes with the element of `size` bytes at `value`, or with `pattern` where that is null.
pub(super) fn filled(to: impl Fn(u64) -> Pointer, bytes: usize, value: Pointer, size: usize, pattern: u32) -> Vec<Launch> {
    let part = |at: usize| {
        let n = (bytes - at).min(FILL_BYTES);
        let numbers = [size as u32, pattern, n as u32].map(Arg::U32);
        let args = [Arg::Pointer(to(at as u64)), Arg::Pointer(value)].into_iter().chain(numbers).collect();
        over("fill", n.div_ceil(16), args)
    };
    (0..bytes).step_by(FILL_BYTES).map(part).collect()
}

fn copied(call: &Call, piece: &Piece) -> Result<Launch> {
    let (input, output) = (call.input(piece.input)?, call.output(piece.output)?);
    let size = input.dtype.size_bytes();
    let inside = piece.from.is_inside(input.shape.numel()) && piece.to.is_inside(output.shape.numel());
    if !inside || size != output.dtype.size_bytes() || piece.from.shape != piece.to.shape {
        return Err(failed("a copy would leave its tensor"));
    }
    let steps = piece.from.strides.iter().zip(&piece.to.strides);
    let axes = piece.from.shape.iter().zip(steps).map(|(&n, (&f, &t))| (n, [f as i64, t as i64]));
    let mut walk = Walk::new(axes);
    let width = walk.width(size, 2, &[piece.from.offset as i64, piece.to.offset as i64]);
    let bytes = size * width;
    walk = walk.widened(width, 2);
    let pointers = [Pointer::Output(piece.output, 0), Pointer::Input(piece.input, 0)].map(Arg::Pointer);
    // Steps may lead back, so that the first element is not the operand's first.
    let starts = [piece.to.offset, piece.from.offset].map(|offset| Arg::U32((offset / width) as u32));
    match tiled(&walk).filter(|_| bytes <= DType::F64.size_bytes()) {
        Some((along, across)) => transposed(walk, along, across, bytes, pointers, starts),
        None => {
            let numbers = [Arg::U32(walk.elements() as u32), walk.rank()];
            let args = pointers.into_iter().chain(numbers).chain(starts).chain([walk.argument()?]).collect();
            Ok(over(&format!("copy{bytes}"), walk.elements(), args))
        }
    }
}

/// The axes that are contiguous where they are read and where they are written, if they are two.
fn tiled(walk: &Walk<2>) -> Option<(usize, usize)> {
    let contiguous = |side: usize| walk.axes.iter().position(|a| a.steps[side] == 1 && a.size >= TILED);
    let (along, across) = (contiguous(0)?, contiguous(1)?);
    let apart = |axis: usize, side: usize| walk.axes[axis].steps[side] > 1;
    (along != across && apart(along, 1) && apart(across, 0)).then_some((along, across))
}

fn transposed(walk: Walk<2>, along: usize, across: usize, bytes: usize, pointers: [Arg; 2], starts: [Arg; 2]) -> Result<Launch> {
    let variant = Variant::named(&format!("transpose{bytes}"));
    let tile = i64::from(variant.number("tile"));
    let tiles = |axis: Axis<2>, counts: [i64; 2]| {
        let [f, t] = axis.steps.map(|s| s * tile);
        Axis { size: axis.size.div_ceil(tile as usize), steps: [f, t, counts[0], counts[1]], joins: false }
    };
    let (a, b) = (walk.axes[along], walk.axes[across]);
    let rest = walk.axes.iter().enumerate().filter(|(i, _)| *i != along && *i != across);
    let mut blocks = Walk::new(rest.map(|(_, a)| (a.size, [a.steps[0], a.steps[1], 0, 0])));
    blocks.push(tiles(a, [tile, 0]));
    blocks.push(tiles(b, [0, tile]));
    let numbers = [a.size as u32, b.size as u32, a.steps[1] as u32, b.steps[0] as u32].map(Arg::U32);
    let args = pointers.into_iter().chain([blocks.rank()]).chain(numbers).chain(starts).chain([blocks.argument()?]).collect();
    Ok(Launch::new(variant, [blocks.elements() as u32, 1, 1], args))
}
