//! One piece of plain Rust compiled for several instruction sets.

/// Work whose loops the compiler turns into vector code. Implementations mark `run`, and all it calls in its loops,
/// `#[inline(always)]`, so that they are compiled within the instruction set's function.
pub(super) trait Work {
    /// What it gives.
    type Out;
    /// Does it.
    fn run(self) -> Self::Out;
}

/// An instruction set to compile work for.
#[allow(dead_code)] // Each target uses its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isa {
    /// What every processor of the target has.
    Portable,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// NEON, which every 64-bit Arm processor has.
    Neon,
}

impl Isa {
    /// Runs `work` as compiled for the instruction set, or for any processor where it is missing.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn run<W: Work>(self, work: W) -> W::Out {
        let wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        match self {
            // SAFETY: the features were detected.
            Isa::Avx512 if wide && avx2 => unsafe { run_avx512(work) },
            // SAFETY: the features were detected.
            Isa::Avx2 if avx2 => unsafe { run_avx2(work) },
            _ => work.run(),
        }
    }

    /// Runs `work` as compiled for any processor.
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn run<W: Work>(self, work: W) -> W::Out {
        work.run()
    }
}

/// # Safety
/// The processor has AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2<W: Work>(work: W) -> W::Out {
    work.run()
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn run_avx512<W: Work>(work: W) -> W::Out {
    work.run()
}

/// `f` over all elements, folded by `op` from `start` in 32 lanes: the order is fixed, whatever the instruction set.
#[inline(always)]
pub(super) fn fold_lanes<T: Copy, S: Copy>(x: &[T], start: S, f: impl Fn(T) -> S, op: impl Fn(S, S) -> S) -> S {
    let mut lanes = [start; 32];
    let (chunks, rest) = x.as_chunks::<32>();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = op(*lane, f(v));
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(rest) {
        *lane = op(*lane, f(v));
    }
    let mut n = 32;
    while n > 1 {
        n /= 2;
        for i in 0..n {
            lanes[i] = op(lanes[i], lanes[i + n]);
        }
    }
    lanes[0]
}
