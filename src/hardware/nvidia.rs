//! What kernels need to know of NVIDIA GPUs, by compute capability: also for planning on a machine that has none.

use std::sync::Arc;

use super::{Caches, Capabilities, DeviceInfo, DeviceKind, Peaks};

/// What a device's driver says of it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct Figures {
    /// Compute capability: 90 of 9.0.
    pub sm: u32,
    pub sms: usize,
    pub memory_bytes: u64,
    pub clock_khz: u32,
    pub memory_gbps: f64,
    pub l2_bytes: usize,
    /// Shared memory that a block may ask for.
    pub shared_bytes: usize,
}

/// Operations (two for a multiplication with its addition) of an SM in a clock: of f16 matrices with f32 sums, and of 8-bit integers.
/// Source: CUDA C++ Programming Guide, arithmetic instructions; architecture white papers.
fn rates(sm: u32) -> (f64, f64) {
    match sm {
        90 => (4096.0, 8192.0),
        80 => (2048.0, 4096.0),
        86 | 89 | 120 => (512.0, 2048.0),
        100.. => (8192.0, 16384.0),
        75 => (1024.0, 2048.0),
        70 => (1024.0, 256.0),
        61 => (256.0, 1024.0),
        _ => (128.0, 128.0),
    }
}

/// The instruction-set tiers that a device of this compute capability runs with a driver that knows them. `wgmma` (`sm_90a`) is of 9.0 alone.
fn tiers(sm: u32) -> Capabilities {
    let from = |least: u32, c: Capabilities| if sm >= least { c } else { Capabilities::empty() };
    let hopper = if sm == 90 { Capabilities::SM_90A } else { Capabilities::empty() };
    from(61, Capabilities::SM_61) | from(75, Capabilities::SM_75) | from(80, Capabilities::SM_80 | Capabilities::MMA_SP) | hopper
}

/// Shared memory that a block may ask for. Source: CUDA C++ Programming Guide, technical specifications by compute capability.
const fn shared_kib(sm: u32) -> usize {
    match sm {
        90 | 100 => 227,
        80 => 163,
        86 | 89 | 120 => 99,
        75 => 64,
        _ => 48,
    }
}

/// A device as the chooser sees it.
pub fn info(name: &str, figures: Figures) -> DeviceInfo {
    let Figures { sm, sms, memory_bytes, clock_khz, memory_gbps, l2_bytes, shared_bytes } = figures;
    let lanes = if matches!(sm, 61 | 86 | 89..) { 128.0 } else { 64.0 };
    let giga_clocks = sms as f64 * f64::from(clock_khz) / 1e6;
    let (f16, int8) = rates(sm);
    DeviceInfo {
        kind: DeviceKind::Cuda,
        name: name.into(),
        capabilities: tiers(sm),
        cores: sms,
        threads: 1,
        caches: Caches { l1d_bytes: 0, l2_bytes, l3_bytes: 0 },
        shared_bytes,
        memory_bytes,
        operand_bytes: u64::MAX,
        peaks: Peaks {
            f32_gflops: 2.0 * lanes * giga_clocks,
            f16_gflops: f16 * giga_clocks,
            int8_gops: int8 * giga_clocks,
            read_gbps: memory_gbps,
        },
        identity: String::new(),
        tuned: Arc::default(),
    }
}

/// GPUs that can be planned for without having one: one of each tier. Source: vendor's data sheets.
const MODELS: &[(&str, Figures)] = &[
    ("gtx-1060", figures(61, 10, 6, 1_708_000, 192.0, 1536)),
    ("t4", figures(75, 40, 16, 1_590_000, 320.0, 4096)),
    ("a100", figures(80, 108, 80, 1_410_000, 2039.0, 40960)),
    ("rtx-4090", figures(89, 128, 24, 2_520_000, 1008.0, 73728)),
    ("h100", figures(90, 132, 80, 1_830_000, 3350.0, 51200)),
    ("h200", figures(90, 132, 141, 1_830_000, 4800.0, 61440)),
    ("rtx-5090", figures(120, 170, 32, 2_407_000, 1792.0, 98304)),
];

const fn figures(sm: u32, sms: usize, memory_gb: u64, clock_khz: u32, memory_gbps: f64, l2_kib: usize) -> Figures {
    let memory_bytes = memory_gb * 1_000_000_000;
    let (l2_bytes, shared_bytes) = (l2_kib * 1024, shared_kib(sm) * 1024);
    Figures { sm, sms, memory_bytes, clock_khz, memory_gbps, l2_bytes, shared_bytes }
}

/// The description of a known GPU, e.g. `h200`.
pub fn model(name: &str) -> Option<DeviceInfo> {
    MODELS.iter().find(|m| m.0 == name).map(|(name, figures)| info(name, *figures))
}

/// Names of the known GPUs.
pub fn models() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|m| m.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_follow_the_compute_capability() {
        let all = |name: &str| model(name).unwrap().capabilities;
        assert_eq!(all("gtx-1060"), Capabilities::SM_61);
        assert!(all("h200").contains(Capabilities::SM_90A | Capabilities::SM_80));
        assert!(all("rtx-5090").contains(Capabilities::SM_80) && !all("rtx-5090").contains(Capabilities::SM_90A));
    }

    #[test]
    fn peaks_are_those_of_the_data_sheet() {
        let h200 = model("h200").unwrap().peaks;
        assert!((h200.f16_gflops / 989e3 - 1.0).abs() < 0.01 && (h200.int8_gops / 1979e3 - 1.0).abs() < 0.01, "{h200:?}");
        let a100 = model("a100").unwrap().peaks;
        assert!((a100.f16_gflops / 312e3 - 1.0).abs() < 0.01, "{a100:?}");
    }
}
