//! Weights of which two in every four neighbours are zero, packed as the sparse kernels read them; their launches are those of [`super::tile`].

use half::{bf16, f16};

use super::super::call::{Call, GpuKernel};
use super::super::device::failed;
use super::super::launch::Launch;
use super::operand::pitch;
use super::pack;
use super::tile::{element, gemm};
use crate::base::sparse::TwoOfFour;
use crate::base::{DType, Shape, Tensor};
use crate::device::cpu::Packed;
use crate::error::Result;
use crate::graph::Problem;
use crate::hardware::DeviceInfo;

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
