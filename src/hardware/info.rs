//! A device's description.

use std::sync::Arc;

use super::tuned::Tuned;

/// The kinds of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[allow(missing_docs)]
pub enum DeviceKind {
    Cpu,
    Cuda,
    Wgpu,
    /// Runs nothing; a virtual clock for tests of planning.
    Null,
}

bitflags::bitflags! {
    /// Instruction sets and features that kernels ask for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Capabilities: u64 {
        /// x86: AVX2 with FMA and F16C.
        const AVX2 = 1 << 0;
        /// x86: AVX-512 F, BW, DQ, VL.
        const AVX512 = 1 << 1;
        /// x86: AVX-512 VNNI.
        const AVX512_VNNI = 1 << 2;
        /// x86: VNNI on 256-bit registers (VEX).
        const AVX_VNNI = 1 << 3;
        /// x86: AVX-512 BF16.
        const AVX512_BF16 = 1 << 4;
        /// x86: AVX-512 VBMI.
        const AVX512_VBMI = 1 << 5;
        /// x86: AMX on bytes, where the system lets this process use it.
        const AMX_INT8 = 1 << 6;
        /// Arm: NEON.
        const NEON = 1 << 8;
        /// Arm: dot product.
        const DOTPROD = 1 << 9;
        /// Arm: 8-bit matrix multiply.
        const I8MM = 1 << 10;
        /// NVIDIA: dot products of four 8-bit integers.
        const SM_61 = 1 << 24;
        /// NVIDIA: matrix products of f16 and 8-bit integers in a warp.
        const SM_75 = 1 << 25;
        /// NVIDIA: bf16, asynchronous copies.
        const SM_80 = 1 << 26;
        /// NVIDIA: warpgroup products and the tensor memory accelerator; 9.0 alone.
        const SM_90A = 1 << 27;
        /// NVIDIA: products of matrices of which two elements in every four are zero: a driver that knows PTX 8.5 (CUDA 12.5).
        const MMA_SP = 1 << 28;
        /// GPU: 16-bit float arithmetic in shaders.
        const SHADER_F16 = 1 << 16;
        /// GPU: subgroup operations.
        const SUBGROUPS = 1 << 17;
        /// GPU: 64-bit integers in shaders.
        const SHADER_INT64 = 1 << 18;
        /// GPU: 64-bit floats in shaders.
        const SHADER_F64 = 1 << 19;
        /// GPU: cooperative matrices of 16 x 16, f16 summed in f32, in subgroups of 32.
        const COOP_16 = 1 << 20;
        /// GPU: the same of 8 x 8.
        const COOP_8 = 1 << 21;
        /// GPU: the same of 8 x 8, in subgroups of 8.
        const COOP_8_NARROW = 1 << 22;
        /// GPU: 20 storage buffers in a shader.
        const BUFFERS_20 = 1 << 23;
    }
}

impl std::fmt::Display for Capabilities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = self.iter_names().map(|(n, _)| n.to_lowercase().replace('_', "-")).collect();
        f.write_str(&if names.is_empty() { "nothing".into() } else { names.join(", ") })
    }
}

/// Cache sizes in bytes; 0 when unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct Caches {
    pub l1d_bytes: usize,
    pub l2_bytes: usize,
    pub l3_bytes: usize,
}

/// Rates that bound every kernel, of the whole device.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)]
pub struct Peaks {
    pub f32_gflops: f64,
    /// Products of f16 matrices with sums in f32.
    pub f16_gflops: f64,
    pub int8_gops: f64,
    pub read_gbps: f64,
}

/// One device as kernels and the chooser see it.
#[derive(Debug, Clone)]
pub struct DeviceInfo {
    /// What it is.
    pub kind: DeviceKind,
    /// Name for people.
    pub name: String,
    /// Instruction sets and features.
    pub capabilities: Capabilities,
    /// Cores that this process may use, or streaming multiprocessors.
    pub cores: usize,
    /// Threads that kernels may use.
    pub threads: usize,
    /// Cache sizes.
    pub caches: Caches,
    /// Shared memory that a block of threads may have, in bytes; 0 on a CPU.
    pub shared_bytes: usize,
    /// Memory in bytes; 0 when unknown.
    pub memory_bytes: u64,
    /// Bytes that one operand of a kernel may have: what a shader can bind.
    pub operand_bytes: u64,
    /// Predicted or measured rates.
    pub peaks: Peaks,
    /// Device, driver and kernels, for what is kept of measurements; empty where nothing is.
    pub identity: String,
    /// What was measured on it.
    pub tuned: Arc<Tuned>,
}
