//! Rows laid side by side in units of 32 bits, `[row][unit]` to `[unit][row]`: how the tiles read A.

/// Writes unit `u` of row `r`, found at `from[r * step + 4 * u]`, to `out[u * pitch + r]`.
///
/// # Panics
/// When `from` or `out` is too short, or rows do not fit between units.
pub fn interleave(from: &[u8], step: usize, height: usize, units: usize, pitch: usize, out: &mut [u32]) {
    if height == 0 || units == 0 {
        return;
    }
    assert!(from.len() >= (height - 1) * step + 4 * units, "rows to interleave are too short");
    assert!(height <= pitch && out.len() >= (units - 1) * pitch + height, "rows do not fit side by side");
    let mut row = 0;
    let mut pass = |rows: usize, lay: Lay| {
        while row + rows <= height {
            // SAFETY: `rows` rows from `row` on lie inside both (asserted above); the instruction set was detected.
            unsafe { lay(from.as_ptr().add(row * step), step, pitch, units, out.as_mut_ptr().add(row)) };
            row += rows;
        }
    };
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") {
            pass(8, x86::eight);
        }
        pass(4, x86::four);
        pass(2, x86::two);
    }
    #[cfg(target_arch = "aarch64")]
    pass(4, arm::four);
    pass(1, |from, step, pitch, units, out| {
        // SAFETY: as above.
        unsafe { rest(1, 0, from, step, pitch, units, out) }
    });
}

/// Some rows at a time: `(from, step, pitch, units, out)` as for [`interleave`].
type Lay = unsafe fn(*const u8, usize, usize, usize, *mut u32);

/// Units from `done` on, one by one.
///
/// # Safety
/// `rows` rows of `units` units lie in `from`, `step` bytes apart; `out` has room for them, `pitch` units apart.
unsafe fn rest(rows: usize, done: usize, from: *const u8, step: usize, pitch: usize, units: usize, out: *mut u32) {
    for u in done..units {
        for r in 0..rows {
            // SAFETY: the caller's contract.
            unsafe { *out.add(u * pitch + r) = from.add(r * step + 4 * u).cast::<u32>().read_unaligned() };
        }
    }
}

/// Eight, four and two rows at a time.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::rest;

    /// # Safety
    /// As for [`rest`]; the processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn eight(from: *const u8, step: usize, pitch: usize, units: usize, out: *mut u32) {
        let whole = units / 8 * 8;
        for u in (0..whole).step_by(8) {
            // SAFETY: eight units of eight rows lie inside by the caller's contract.
            let x: [__m256i; 8] = std::array::from_fn(|r| unsafe { _mm256_loadu_si256(from.add(r * step + 4 * u).cast()) });
            let pairs = [0, 2, 4, 6].map(|r| [_mm256_unpacklo_epi32(x[r], x[r + 1]), _mm256_unpackhi_epi32(x[r], x[r + 1])]);
            // Units 0 and 4, 1 and 5, 2 and 6, 3 and 7 of rows 0 to 3, then of rows 4 to 7.
            let fours = [0, 2].map(|p| {
                let quad = |h: usize| {
                    let (a, b) = (pairs[p][h], pairs[p + 1][h]);
                    [_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)]
                };
                let ([a, b], [c, d]) = (quad(0), quad(1));
                [a, b, c, d]
            });
            for (i, (&low, &high)) in fours[0].iter().zip(&fours[1]).enumerate() {
                // SAFETY: as above, for the output.
                unsafe {
                    let to = out.add((u + i) * pitch);
                    _mm256_storeu_si256(to.cast(), _mm256_permute2x128_si256::<0x20>(low, high));
                    _mm256_storeu_si256(to.add(4 * pitch).cast(), _mm256_permute2x128_si256::<0x31>(low, high));
                }
            }
        }
        // SAFETY: the caller's contract.
        unsafe { rest(8, whole, from, step, pitch, units, out) }
    }

    /// # Safety
    /// As for [`rest`].
    pub(super) unsafe fn four(from: *const u8, step: usize, pitch: usize, units: usize, out: *mut u32) {
        let whole = units / 4 * 4;
        for u in (0..whole).step_by(4) {
            // SAFETY: four units of four rows lie inside both by the caller's contract; SSE2 is always there.
            unsafe {
                let x: [__m128i; 4] = std::array::from_fn(|r| _mm_loadu_si128(from.add(r * step + 4 * u).cast()));
                let (a, b) = (_mm_unpacklo_epi32(x[0], x[1]), _mm_unpackhi_epi32(x[0], x[1]));
                let (c, d) = (_mm_unpacklo_epi32(x[2], x[3]), _mm_unpackhi_epi32(x[2], x[3]));
                let to = out.add(u * pitch);
                _mm_storeu_si128(to.cast(), _mm_unpacklo_epi64(a, c));
                _mm_storeu_si128(to.add(pitch).cast(), _mm_unpackhi_epi64(a, c));
                _mm_storeu_si128(to.add(2 * pitch).cast(), _mm_unpacklo_epi64(b, d));
                _mm_storeu_si128(to.add(3 * pitch).cast(), _mm_unpackhi_epi64(b, d));
            }
        }
        // SAFETY: the caller's contract.
        unsafe { rest(4, whole, from, step, pitch, units, out) }
    }

    /// # Safety
    /// As for [`rest`].
    pub(super) unsafe fn two(from: *const u8, step: usize, pitch: usize, units: usize, out: *mut u32) {
        let whole = units / 4 * 4;
        for u in (0..whole).step_by(4) {
            // SAFETY: four units of two rows lie inside both by the caller's contract; SSE2 is always there.
            unsafe {
                let (x, y) = (_mm_loadu_si128(from.add(4 * u).cast()), _mm_loadu_si128(from.add(step + 4 * u).cast()));
                let (a, b) = (_mm_unpacklo_epi32(x, y), _mm_unpackhi_epi32(x, y));
                let to = out.add(u * pitch);
                _mm_storel_epi64(to.cast(), a);
                _mm_storel_epi64(to.add(pitch).cast(), _mm_unpackhi_epi64(a, a));
                _mm_storel_epi64(to.add(2 * pitch).cast(), b);
                _mm_storel_epi64(to.add(3 * pitch).cast(), _mm_unpackhi_epi64(b, b));
            }
        }
        // SAFETY: the caller's contract.
        unsafe { rest(2, whole, from, step, pitch, units, out) }
    }
}

/// Four rows at a time.
#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::rest;

    /// # Safety
    /// As for [`rest`].
    pub(super) unsafe fn four(from: *const u8, step: usize, pitch: usize, units: usize, out: *mut u32) {
        let whole = units / 4 * 4;
        for u in (0..whole).step_by(4) {
            // SAFETY: four units of four rows lie inside both by the caller's contract; NEON is always there.
            unsafe {
                let x: [uint32x4_t; 4] = std::array::from_fn(|r| vreinterpretq_u32_u8(vld1q_u8(from.add(r * step + 4 * u))));
                let (a, b) = (vzip1q_u32(x[0], x[1]), vzip2q_u32(x[0], x[1]));
                let (c, d) = (vzip1q_u32(x[2], x[3]), vzip2q_u32(x[2], x[3]));
                for (i, (x, y)) in [(a, c), (b, d)].into_iter().enumerate() {
                    let (x, y) = (vreinterpretq_u64_u32(x), vreinterpretq_u64_u32(y));
                    let to = out.add((u + 2 * i) * pitch);
                    vst1q_u32(to, vreinterpretq_u32_u64(vzip1q_u64(x, y)));
                    vst1q_u32(to.add(pitch), vreinterpretq_u32_u64(vzip2q_u64(x, y)));
                }
            }
        }
        // SAFETY: the caller's contract.
        unsafe { rest(4, whole, from, step, pitch, units, out) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lie_side_by_side_at_every_height_and_length() {
        for height in 0..=16 {
            for units in [0, 1, 3, 4, 7, 8, 9, 16, 21] {
                let step = 4 * units + 3;
                let from: Vec<u8> = (0..height * step + 4).map(|i| (i * 37 % 251) as u8).collect();
                let pitch = height + units % 3;
                let mut out = vec![0u32; pitch * units + 1];
                interleave(&from, step, height, units, pitch, &mut out);
                for (u, r) in (0..units).flat_map(|u| (0..height).map(move |r| (u, r))) {
                    let want = u32::from_ne_bytes(from[r * step + 4 * u..][..4].try_into().unwrap());
                    assert_eq!(out[u * pitch + r], want, "unit {u} of row {r}, {height} rows of {units}");
                }
                let beyond = (0..out.len()).filter(|i| pitch == 0 || i % pitch >= height || i / pitch >= units);
                assert!(beyond.into_iter().all(|i| out[i] == 0), "nothing is written beyond");
            }
        }
    }
}
