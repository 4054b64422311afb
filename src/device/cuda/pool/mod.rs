//! Pooling on CUDA.

mod run;

use super::call::CudaKernel;
use crate::device::cpu::call::{no_scratch, pack_nothing};

pub(super) static KERNELS: &[CudaKernel] = &[
    CudaKernel { name: "cuda-f32-pool", pack: pack_nothing, scratch_bytes: no_scratch, launches: |c| run::windows(c, false) },
    CudaKernel { name: "cuda-any-pool", pack: pack_nothing, scratch_bytes: no_scratch, launches: |c| run::windows(c, true) },
    CudaKernel { name: "cuda-whole-pool", pack: pack_nothing, scratch_bytes: no_scratch, launches: run::planes },
];
