//! The CPU: instruction sets, caches and cores.

use std::sync::{Arc, OnceLock};

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
        add(avx512 && is_x86_feature_detected!("avx512vbmi"), Capabilities::AVX512_VBMI);
        add(avx512 && is_x86_feature_detected!("avx512bf16"), Capabilities::AVX512_BF16);
        add(is_x86_feature_detected!("avxvnni"), Capabilities::AVX_VNNI);
        add(amx_int8(), Capabilities::AMX_INT8);
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

/// Whether the processor has AMX on bytes (tiles and their products: CPUID 7, EDX bits 24 and 25) and Linux lets this process use it:
/// the registers are so large that a process has to ask once (arch_prctl, ARCH_REQ_XCOMP_PERM; the kernel's
/// Documentation/arch/x86/xstate.rst).
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn amx_int8() -> bool {
    const XTILEDATA: libc::c_long = 18;
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let has = std::arch::x86_64::__cpuid(0).eax >= 7;
        has && std::arch::x86_64::__cpuid_count(7, 0).edx >> 24 & 0b11 == 0b11 && permitted(XTILEDATA)
    })
}

/// Whether Linux lets this process use a part of the processor's state, by its bit.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn permitted(feature: libc::c_long) -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    // SAFETY: asks for a permission, and touches no memory.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, feature) == 0 }
}

/// Not asked for on other systems.
#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn amx_int8() -> bool {
    false
}

/// Cache sizes as Linux tells them; typical ones elsewhere.
fn caches() -> Caches {
    let mut found = Caches { l1d_bytes: 32 << 10, l2_bytes: 512 << 10, l3_bytes: 16 << 20 };
    for i in 0..8 {
        let read = |what: &str| {
            std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{i}/{what}")).unwrap_or_default()
        };
        let size = read("size").trim().strip_suffix('K').and_then(|k| k.parse::<usize>().ok()).map(|k| k << 10);
        let (Some(size), level, kind) = (size, read("level"), read("type")) else { continue };
        match (level.trim(), kind.trim()) {
            ("1", "Data") => found.l1d_bytes = size,
            ("2", _) => found.l2_bytes = size,
            ("3", _) => found.l3_bytes = size,
            _ => {}
        }
    }
    found
}

/// A field of a file of `name : value` lines.
fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|l| l.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

/// What does not change while the process lives, read from the system once.
fn fixed() -> &'static DeviceInfo {
    static FIXED: OnceLock<DeviceInfo> = OnceLock::new();
    FIXED.get_or_init(|| {
        let memory = field("/proc/meminfo", "MemTotal").and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok());
        DeviceInfo {
            kind: DeviceKind::Cpu,
            name: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            capabilities: capabilities(),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
            threads: 1,
            caches: caches(),
            shared_bytes: 0,
            memory_bytes: memory.unwrap_or(0) << 10,
            operand_bytes: u64::MAX,
            peaks: predicted(1),
            identity: String::new(),
            tuned: Arc::default(),
        }
    })
}

/// Peaks of `threads` threads before anything is measured.
fn predicted(threads: usize) -> Peaks {
    let capabilities = capabilities();
    // Two fused multiply-adds a cycle of four, eight or sixteen lanes, at 3 GHz; so many 8-bit products for one of f32.
    let (lanes, bytes) = match capabilities {
        c if c.contains(Capabilities::AMX_INT8) => (32.0, 32.0),
        c if c.contains(Capabilities::AVX512_VNNI) => (32.0, 4.0),
        c if c.contains(Capabilities::AVX512) => (32.0, 2.0),
        c if c.contains(Capabilities::AVX_VNNI) => (16.0, 4.0),
        c if c.contains(Capabilities::I8MM) => (8.0, 8.0),
        c if c.contains(Capabilities::DOTPROD) => (8.0, 4.0),
        c if c.contains(Capabilities::NEON) => (8.0, 1.0),
        _ => (16.0, 2.0),
    };
    let f32_gflops = 2.0 * lanes * 3.0 * threads as f64;
    Peaks { f32_gflops, f16_gflops: f32_gflops, int8_gops: f32_gflops * bytes, read_gbps: 15.0 }
}

/// This machine's CPU with `threads` threads for kernels. Its peaks are predictions; [`super::roofline::measure`] measures.
pub fn info(threads: usize) -> DeviceInfo {
    DeviceInfo { threads, peaks: predicted(threads), ..fixed().clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fn what_linux_does_not_permit_is_not_there() {
        // No such state, and one that no process is given.
        assert!(!permitted(63) && !permitted(10));
        assert!(!amx_int8() || permitted(18), "asking again changes nothing");
    }

    #[test]
    fn only_threads_and_peaks_depend_on_the_threads_asked_for() {
        let (one, four) = (info(1), info(4));
        assert_eq!((one.threads, four.threads), (1, 4));
        assert_eq!(4.0 * one.peaks.f32_gflops, four.peaks.f32_gflops);
        assert_eq!((one.name, one.capabilities, one.caches), (four.name, four.capabilities, four.caches));
    }
}
