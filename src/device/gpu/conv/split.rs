//! Convolutions of few tiles: K in parts, each with blocks of its own, whose sums kernels/conv_reduce.ptx.j2 adds up in order.

use super::geometry::{bias_or_quant, finish};
use crate::device::gpu::call::Call;
use crate::device::gpu::divide::magic;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::device::gpu::variant::Variant;
use crate::error::Result;
use crate::graph::problem::ConvProblem;
use crate::kernel::gpu::conv::parts;

/// Bytes of all parts' sums, for this grid of an unsplit product.
pub(super) fn scratch_bytes(p: &ConvProblem, cores: usize, grid: [u32; 3], steps: usize) -> usize {
    let tiles = grid.iter().map(|&n| n as usize).product();
    parts(cores, tiles, steps)[0] * p.out_shape().numel() * 4
}

/// The product over `steps` steps of K by parts, whose sums begin at byte `at` of scratch, and what adds them up.
pub(super) fn launches(call: &Call, p: &ConvProblem, mut product: Launch, steps: usize, at: usize) -> Result<[Launch; 2]> {
    let results = p.out_shape().numel() as u32;
    let tiles = product.grid.iter().map(|&n| n as usize).product();
    let [count, each] = parts(call.info.cores, tiles, steps);
    let sums = Arg::Pointer(Pointer::Scratch(at as u64));
    product.grid[2] *= count as u32;
    product.args.push(sums.clone());
    product.args.extend([results, p.groups as u32, each as u32].map(Arg::U32));

    let variant = Variant::named(if p.quant.is_some() { "conv_reduce_s32" } else { "conv_reduce_f32" });
    let mut args = vec![sums, Arg::U32(results), Arg::U32(count as u32)];
    if p.quant.is_some() {
        let (pixels, outputs) = (magic(p.window.pixels() as u32), magic(p.m as u32));
        args.extend([pixels.0, pixels.1, p.m as u32, outputs.0, outputs.1].map(Arg::U32));
        args.extend(bias_or_quant(call, p)?);
    }
    let reduce = Launch::new(variant, [results.div_ceil(variant.threads), 1, 1], args);
    Ok([product, finish(call, p, reduce)?])
}
