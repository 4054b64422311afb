//! Multiply and add over many sums at once, by the processor's vectors where it has them.

/// `sums[i] = a * b[i] + sums[i]`, each rounded once; the sums are f32 by their bits.
pub fn multiply_add(sums: &mut [u32], a: f32, b: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    if sums.len().is_multiple_of(8) && std::arch::is_x86_feature_detected!("fma") && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function needs.
        return unsafe { vectors(sums, a, b) };
    }
    for (s, b) in sums.iter_mut().zip(b) {
        *s = a.mul_add(*b, f32::from_bits(*s)).to_bits();
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn vectors(sums: &mut [u32], a: f32, b: &[f32]) {
    use std::arch::x86_64::*;
    let a = _mm256_set1_ps(a);
    for (s, b) in sums.chunks_exact_mut(8).zip(b.chunks_exact(8)) {
        // SAFETY: both chunks have eight elements of 4 bytes.
        unsafe {
            let sum = _mm256_loadu_ps(s.as_ptr().cast());
            _mm256_storeu_ps(s.as_mut_ptr().cast(), _mm256_fmadd_ps(a, _mm256_loadu_ps(b.as_ptr()), sum));
        }
    }
}
