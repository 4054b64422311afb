//! Register tiles: `c[MR][NR] = sum over k of a[k][MR] * b[k][NR]`, f32.

/// A tile for one instruction set.
pub(super) struct Tile {
    /// Rows.
    pub mr: usize,
    /// Columns.
    pub nr: usize,
    /// Computes one tile: `(k, a, b, c)`, `a` of `k * mr`, `b` of `k * nr`, `c` of `mr * nr` elements.
    ///
    /// # Safety
    /// The pointers must be valid for those lengths, and the processor must have the tile's instruction set.
    pub run: unsafe fn(usize, *const f32, *const f32, *mut f32),
}

pub(super) static PORTABLE: Tile = Tile { mr: 4, nr: 16, run: portable };
#[cfg(target_arch = "x86_64")]
pub(super) static AVX2: Tile = Tile { mr: 6, nr: 16, run: avx2 };
#[cfg(target_arch = "x86_64")]
pub(super) static AVX512: Tile = Tile { mr: 12, nr: 32, run: avx512 };
#[cfg(target_arch = "aarch64")]
pub(super) static NEON: Tile = Tile { mr: 6, nr: 16, run: neon };

/// # Safety
/// As [`Tile::run`].
#[cfg(target_arch = "aarch64")]
unsafe fn neon(k: usize, a: *const f32, b: *const f32, c: *mut f32) {
    // SAFETY: the caller's promise on lengths.
    unsafe { crate::device::cpu::gemm::arm::tile_6x16(k, a, b, c) }
}

/// # Safety
/// As [`Tile::run`].
unsafe fn portable(k: usize, a: *const f32, b: *const f32, c: *mut f32) {
    // SAFETY: the caller's promise on lengths.
    let (a, b, c) = unsafe {
        (std::slice::from_raw_parts(a, k * 4), std::slice::from_raw_parts(b, k * 16), std::slice::from_raw_parts_mut(c, 64))
    };
    let mut sums = [[0f32; 16]; 4];
    for (a, b) in a.chunks_exact(4).zip(b.chunks_exact(16)) {
        for (row, x) in sums.iter_mut().zip(a) {
            for (s, y) in row.iter_mut().zip(b) {
                *s += x * y;
            }
        }
    }
    for (out, row) in c.chunks_exact_mut(16).zip(&sums) {
        out.copy_from_slice(row);
    }
}

/// # Safety
/// As [`Tile::run`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(k: usize, a: *const f32, b: *const f32, c: *mut f32) {
    use std::arch::x86_64::*;
    let mut sums = [[_mm256_setzero_ps(); 2]; 6];
    for p in 0..k {
        // SAFETY: `p < k`, and the caller promises `k * 6` and `k * 16` elements.
        unsafe {
            let y = [_mm256_loadu_ps(b.add(p * 16)), _mm256_loadu_ps(b.add(p * 16 + 8))];
            for (r, row) in sums.iter_mut().enumerate() {
                let x = _mm256_broadcast_ss(&*a.add(p * 6 + r));
                row[0] = _mm256_fmadd_ps(x, y[0], row[0]);
                row[1] = _mm256_fmadd_ps(x, y[1], row[1]);
            }
        }
    }
    for (r, row) in sums.iter().enumerate() {
        // SAFETY: the caller promises 6 x 16 elements.
        unsafe {
            _mm256_storeu_ps(c.add(r * 16), row[0]);
            _mm256_storeu_ps(c.add(r * 16 + 8), row[1]);
        }
    }
}

/// # Safety
/// As [`Tile::run`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512(k: usize, a: *const f32, b: *const f32, c: *mut f32) {
    use std::arch::x86_64::*;
    let mut sums = [[_mm512_setzero_ps(); 2]; 12];
    for p in 0..k {
        // SAFETY: `p < k`, and the caller promises `k * 12` and `k * 32` elements.
        unsafe {
            let y = [_mm512_loadu_ps(b.add(p * 32)), _mm512_loadu_ps(b.add(p * 32 + 16))];
            for (r, row) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(p * 12 + r));
                row[0] = _mm512_fmadd_ps(x, y[0], row[0]);
                row[1] = _mm512_fmadd_ps(x, y[1], row[1]);
            }
        }
    }
    for (r, row) in sums.iter().enumerate() {
        // SAFETY: the caller promises 12 x 32 elements.
        unsafe {
            _mm512_storeu_ps(c.add(r * 32), row[0]);
            _mm512_storeu_ps(c.add(r * 32 + 16), row[1]);
        }
    }
}
