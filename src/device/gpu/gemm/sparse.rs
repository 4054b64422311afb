//! Weights of which two in every four neighbours are zero, packed as the sparse kernels read them. Launches of those of a warp's products are those of
//! [`super::tile`]; those of `wgmma` are here.

use half::{bf16, f16};

use super::super::call::{Call, GpuKernel};
use super::super::device::failed;
use super::super::launch::{Arg, Launch};
use super::super::variant::Variant;
use super::hopper::{SLOT, evenly, map};
use super::int8::Terms;
use super::operand::{Preparation, pitch};
use super::tile::{Operands, element, gemm, operands, suffix, value};
use super::{pack, top};
use crate::base::sparse::{TwoOfFour, pitch_bytes};
use crate::base::{DType, Shape, Tensor};
use crate::device::cpu::Packed;
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::gemm::GemmProblem;
use crate::hardware::DeviceInfo;
use crate::kernel::gpu::hopper::Wide;

/// As [`pack::pack`], with part 0 in the form of [`TwoOfFour`].
fn pack(problem: &Problem, constants: &[Option<Tensor>]) -> Result<Option<(Packed, Vec<usize>)>> {
    let p = gemm(problem)?;
    let (to, shape) = (element(p), [p.n, pitch(p.k, element(p))]);
    let Some((mut packed, dropped)) = pack::pack(p, to, constants)? else { return Ok(None) };
    let dense = packed.parts[0].bytes();
    let sparse = match to {
        DType::F16 => TwoOfFour::new::<f16>(bytemuck::cast_slice(dense), shape[0], shape[1]),
        DType::BF16 => TwoOfFour::new::<bf16>(bytemuck::cast_slice(dense), shape[0], shape[1]),
        _ => TwoOfFour::new::<i8>(bytemuck::cast_slice(dense), shape[0], shape[1]),
    };
    let sparse = sparse.ok_or_else(|| failed("weights of which more than two in four are not zero"))?;
    packed.parts[0] = Tensor::from_raw(DType::U8, Shape::from([sparse.bytes.len()]), &sparse.bytes)?;
    Ok(Some((packed, dropped)))
}

/// A row's code.
pub const fn kernel(
    name: &'static str,
    scratch_bytes: fn(&Problem, &DeviceInfo) -> usize,
    launches: fn(&Call) -> Result<Vec<Launch>>,
) -> GpuKernel {
    GpuKernel { name, pack, scratch_bytes, launches }
}

/// The launches of a kernel on `wgmma`. A comes through a tensor map, B as the runs of [`TwoOfFour`].
pub fn wide_launches(tile: &Wide, call: &Call) -> Result<Vec<Launch>> {
    let p = gemm(call.problem)?;
    if p.batch.numel() * p.m * p.n == 0 {
        return Ok(Vec::new());
    }
    call.packed.ok_or_else(|| failed("weights that were not packed"))?;
    let mut to = Preparation::new(p);
    let o = operands(&mut to, true)?;
    top::each(to, call, |to, columns| {
        let variant = Variant::named(&format!("gemm_sm90_sparse_{}_{}x{}", suffix(p, value(p)), tile.m, tile.n));
        let product = Launch::new(variant, [tile.clusters(p, call.info) as u32, 1, 1], wide_arguments(tile, p, &o, call.info)?);
        to.launches.push(columns.epilogue.complete(product));
        Ok(())
    })
}

fn wide_arguments(tile: &Wide, p: &GemmProblem, o: &Operands, info: &DeviceInfo) -> Result<Vec<Arg>> {
    let (a, a_batch) = map(p, &o.a, p.m, tile.m, 3)?;
    let size = o.b.dtype.size_bytes();
    let mut args = vec![Arg::Map(a), Arg::Pointer(o.b.at)];
    let [tiles_m, tiles_n, tiles] = tile.tiles(p);
    let slots = (p.k * size).div_ceil(SLOT);
    let numbers = [pitch_bytes(p.n, size), p.m, p.n, slots, tiles_m, tiles_n, tiles, tile.group(info), a_batch];
    args.extend(numbers.map(|n| Arg::U32(n as u32)));
    if p.quant.is_some() {
        for Terms { at, batch } in [&o.records.rows, &o.records.columns] {
            args.extend([Arg::Pointer(*at), Arg::U32(evenly(&p.batch, batch)? as u32)]);
        }
    }
    Ok(args)
}
