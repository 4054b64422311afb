//! Measured peaks: what no kernel can beat on this machine.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use super::Peaks;

/// Accumulators that are independent of each other, so that every unit is busy, where no instruction set is named.
const LANES: usize = 256;

/// Rates of `threads` threads together: f32 multiply-adds in registers, exact 8-bit products (as 16-bit pairs), reads from
/// memory. Best of several short rounds; about half a second.
pub fn measure(threads: usize) -> Peaks {
    let threads = threads.max(1);
    let f32_ops = together(threads, 5, || float_round(20_000)) / 1e9;
    let int_ops = together(threads, 5, || int_round(20_000)) / 1e9;
    // Far beyond the caches.
    let bytes = (4 * super::cpu::info(1).caches.l3_bytes).clamp(64 << 20, 1 << 30);
    let memory = vec![1u8; bytes];
    let part = bytes / threads;
    let read = together_indexed(threads, 3, |t| read_round(&memory[t * part..(t + 1) * part]));
    Peaks { f32_gflops: f32_ops, f16_gflops: f32_ops, int8_gops: int_ops, read_gbps: read / 1e9 }
}

fn together(threads: usize, rounds: usize, work: impl Fn() -> f64 + Sync) -> f64 {
    together_indexed(threads, rounds, |_| work())
}

/// Units a second of all threads, in the best round. `work` gives the units it did.
fn together_indexed(threads: usize, rounds: usize, work: impl Fn(usize) -> f64 + Sync) -> f64 {
    let mut best = 0f64;
    for _ in 0..rounds {
        let barrier = Barrier::new(threads);
        let one = |t: usize| {
            barrier.wait();
            let start = Instant::now();
            let units = work(t);
            (units, start.elapsed().as_secs_f64())
        };
        let done: Vec<(f64, f64)> = std::thread::scope(|s| {
            let handles: Vec<_> = (0..threads)
                .map(|t| {
                    s.spawn({
                        let one = &one;
                        move || one(t)
                    })
                })
                .collect();
            handles.into_iter().filter_map(|h| h.join().ok()).collect()
        });
        let slowest = done.iter().map(|d| d.1).fold(1e-9, f64::max);
        best = best.max(done.iter().map(|d| d.0).sum::<f64>() / slowest);
    }
    best
}

fn float_round(rounds: usize) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instruction set.
            return unsafe { float_avx512(rounds) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the instruction sets.
            return unsafe { float_avx2(rounds) };
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        // SAFETY: the processor has the instruction set.
        return unsafe { super::arm::float_neon(rounds) };
    }
    float_any(rounds)
}

/// # Safety
/// The processor must have AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn float_avx512(rounds: usize) -> f64 {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_set1_ps};
    let (a, b) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
    let mut sums = [_mm512_set1_ps(1.0); 16];
    for _ in 0..rounds {
        for s in &mut sums {
            *s = _mm512_fmadd_ps(*s, a, b);
        }
    }
    black_box(sums);
    2.0 * (rounds * 16 * 16) as f64
}

/// # Safety
/// The processor must have AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn float_avx2(rounds: usize) -> f64 {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps};
    let (a, b) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
    // Twelve registers of eight: the rest of the sixteen hold the factors.
    let mut sums = [_mm256_set1_ps(1.0); 12];
    for _ in 0..rounds {
        for s in &mut sums {
            *s = _mm256_fmadd_ps(*s, a, b);
        }
    }
    black_box(sums);
    2.0 * (rounds * 12 * 8) as f64
}

/// For every other processor: what the compiler makes of it.
fn float_any(rounds: usize) -> f64 {
    let (a, b) = (black_box(0.999_f32), black_box(0.001_f32));
    let mut sums = [1f32; LANES];
    for _ in 0..rounds {
        for s in &mut sums {
            *s = *s * a + b;
        }
    }
    black_box(sums);
    2.0 * (rounds * LANES) as f64
}

fn int_round(rounds: usize) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512vnni") {
            // SAFETY: the processor has the instruction sets.
            return unsafe { int_vnni(rounds) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has the instruction set.
            return unsafe { int_avx2(rounds) };
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        use super::arm;
        use std::arch::is_aarch64_feature_detected;
        if is_aarch64_feature_detected!("i8mm") {
            // SAFETY: the processor has the instruction set.
            return unsafe { arm::int_i8mm(rounds) };
        }
        if is_aarch64_feature_detected!("dotprod") {
            // SAFETY: the processor has the instruction set.
            return unsafe { arm::int_dotprod(rounds) };
        }
        if is_aarch64_feature_detected!("neon") {
            // SAFETY: the processor has the instruction set.
            return unsafe { arm::int_neon(rounds) };
        }
    }
    let (a, mut sums) = (black_box(3i32), [0i32; 64]);
    for i in 0..rounds {
        sums.iter_mut().for_each(|s| *s = s.wrapping_add(a.wrapping_mul(i as i32)));
    }
    black_box(sums);
    2.0 * (rounds * 64) as f64
}

/// # Safety
/// The processor must have AVX-512 VNNI.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn int_vnni(rounds: usize) -> f64 {
    use std::arch::x86_64::{_mm512_dpbusd_epi32, _mm512_set1_epi32};
    let (a, b) = (_mm512_set1_epi32(black_box(0x0102_0304)), _mm512_set1_epi32(black_box(0x0101_0101)));
    let mut sums = [_mm512_set1_epi32(0); 16];
    for _ in 0..rounds {
        for s in &mut sums {
            *s = _mm512_dpbusd_epi32(*s, a, b);
        }
    }
    black_box(sums);
    2.0 * (rounds * 16 * 64) as f64
}

/// # Safety
/// The processor must have AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn int_avx2(rounds: usize) -> f64 {
    use std::arch::x86_64::{_mm256_add_epi32, _mm256_madd_epi16, _mm256_set1_epi32};
    let b = _mm256_set1_epi32(black_box(0x0001_0001));
    let mut sums = [_mm256_set1_epi32(black_box(1)); 12];
    for _ in 0..rounds {
        for s in &mut sums {
            *s = _mm256_add_epi32(*s, _mm256_madd_epi16(*s, b));
        }
    }
    black_box(sums);
    2.0 * (rounds * 12 * 16) as f64
}

fn read_round(bytes: &[u8]) -> f64 {
    let words: &[u64] = bytemuck::pod_align_to(bytes).1;
    let mut sums = [0u64; 16];
    for chunk in words.chunks_exact(16) {
        sums.iter_mut().zip(chunk).for_each(|(s, w)| *s = s.wrapping_add(*w));
    }
    black_box(sums);
    bytes.len() as f64
}
