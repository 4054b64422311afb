//! The CPU: instruction sets, caches and cores.

use super::{Caches, Capabilities, DeviceInfo, DeviceKind, Peaks};

/// The instruction sets that this processor has.
pub fn capabilities() -> Capabilities {
    #[allow(unused_mut)]
    let mut found = Capabilities::empty();
    #[cfg(target_arch = "x86_64")]
    {
        let mut add = |has: bool, c| found |= if has { c } else { Capabilities::empty() };
        add(
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c"),
            Capabilities::AVX2,
        );
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        add(avx512, Capabilities::AVX512);
        add(avx512 && is_x86_feature_detected!("avx512vnni"), Capabilities::AVX512_VNNI);
        add(avx512 && is_x86_feature_detected!("avx512bf16"), Capabilities::AVX512_BF16);
        add(is_x86_feature_detected!("avxvnni"), Capabilities::AVX_VNNI);
    }
    #[cfg(target_arch = "aarch64")]
    {
        let mut add = |has: bool, c| found |= if has { c } else { Capabilities::empty() };
        add(std::arch::is_aarch64_feature_detected!("neon"), Capabilities::NEON);
        add(std::arch::is_aarch64_feature_detected!("dotprod"), Capabilities::DOTPROD);
        add(std::arch::is_aarch64_feature_detected!("i8mm"), Capabilities::I8MM);
    }
    found
}

/// This machine's CPU with `threads` threads for kernels.
pub fn info(threads: usize) -> DeviceInfo {
    let capabilities = capabilities();
    let lanes = if capabilities.contains(Capabilities::AVX512) { 32.0 } else { 16.0 };
    let f32_gflops = 2.0 * lanes * 3.0 * threads as f64;
    DeviceInfo {
        kind: DeviceKind::Cpu,
        name: "cpu".into(),
        capabilities,
        cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
        threads,
        caches: Caches { l1d_bytes: 32 << 10, l2_bytes: 512 << 10, l3_bytes: 16 << 20 },
        memory_bytes: 0,
        peaks: Peaks { f32_gflops, int8_gops: 2.0 * f32_gflops, read_gbps: 15.0 },
    }
}
