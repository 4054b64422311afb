//! The tiles of Arm processors: 6x16 in f32 and int8.
//!
//! NEON is part of every 64-bit Arm processor, so its tiles need no function of their own for the instruction set.

use std::arch::aarch64::*;
use std::arch::asm;

use super::simd::{Neon, NeonDot, NeonSdot};
use super::tile::{self, DotTile, List, Places, Step, Tile, Tiles};
use super::{bytes, core};
use crate::hardware::Capabilities;

/// NEON, 6x16.
pub static NEON: core::Isa = core::Isa {
    needs: Capabilities::NEON,
    columns: 16,
    tiles: [real::<{ tile::F32 }, Step>(), real::<{ tile::F16 }, Step>(), real::<{ tile::BF16 }, Step>()],
    listed: real::<{ tile::F32 }, List>(),
};

/// NEON: bytes widened to i16, smlal.
#[rustfmt::skip]
pub static NEON_BYTES: bytes::Isa =
    bytes::Isa { needs: Capabilities::NEON, columns: 16, group: 1, a_bytes: 2, signed_a: false, tiles: widened(), listed: widened(), overlapping: None, unsigned_b: false, matrix: None };
/// Dot product: quads, sdot, A packed as `a - 128`.
#[rustfmt::skip]
pub static DOTPROD: bytes::Isa =
    bytes::Isa { needs: Capabilities::DOTPROD, columns: 16, group: 4, a_bytes: 1, signed_a: true, tiles: quads(), listed: quads(), overlapping: None, unsigned_b: false, matrix: None };
/// 8-bit matrix multiplication: two rows by two columns of eight products, usmmla.
#[rustfmt::skip]
pub static I8MM: bytes::Isa =
    bytes::Isa { needs: Capabilities::I8MM, columns: 16, group: 8, a_bytes: 1, signed_a: false, tiles: squares::<false, Step>(), listed: squares::<true, List>(), overlapping: None, unsigned_b: false, matrix: None };

#[rustfmt::skip]
const fn real<const S: u8, P: Places>() -> Tiles<Tile<P>> {
    let one: &[Tile<P>] = const { &[tile::real::<Neon, 1, S, 1, P>, tile::real::<Neon, 2, S, 1, P>, tile::real::<Neon, 3, S, 1, P>,
        tile::real::<Neon, 4, S, 1, P>, tile::real::<Neon, 5, S, 1, P>, tile::real::<Neon, 6, S, 1, P>] };
    Tiles { one, abreast: const { &[(4, tile::real::<Neon, 1, S, 4, P>), (2, tile::real::<Neon, 2, S, 2, P>)] } }
}

#[rustfmt::skip]
const fn widened<P: Places>() -> Tiles<DotTile<P>> {
    let one: &[DotTile<P>] = const { &[tile::dot::<NeonDot, 1, 1, false, P>, tile::dot::<NeonDot, 2, 1, false, P>, tile::dot::<NeonDot, 3, 1, false, P>,
        tile::dot::<NeonDot, 4, 1, false, P>, tile::dot::<NeonDot, 5, 1, false, P>, tile::dot::<NeonDot, 6, 1, false, P>] };
    Tiles { one, abreast: const { &[(4, tile::dot::<NeonDot, 1, 4, false, P>), (2, tile::dot::<NeonDot, 2, 2, false, P>)] } }
}

#[rustfmt::skip]
const fn quads<P: Places>() -> Tiles<DotTile<P>> {
    let one: &[DotTile<P>] = const { &[quad::<1, 1, P>, quad::<2, 1, P>, quad::<3, 1, P>, quad::<4, 1, P>, quad::<5, 1, P>, quad::<6, 1, P>] };
    Tiles { one, abreast: const { &[(4, quad::<1, 4, P>), (2, quad::<2, 2, P>)] } }
}

#[rustfmt::skip]
const fn squares<const S: bool, P: Places>() -> Tiles<DotTile<P>> {
    let one: &[DotTile<P>] = const { &[square::<1, S, P>, square::<2, S, P>, square::<3, S, P>, square::<4, S, P>, square::<5, S, P>, square::<6, S, P>] };
    Tiles { one, abreast: &[] }
}

/// # Safety
/// As for [`tile::dot`].
#[target_feature(enable = "neon,dotprod")]
#[rustfmt::skip]
unsafe fn quad<const R: usize, const N: usize, P: Places>(groups: usize, a: *const u8, b: *const i8, places: P, start: *const i32, c: *mut i32, c_step: usize) {
    // SAFETY: the instruction set is enabled here; the rest is the caller's contract.
    unsafe { tile::dot::<NeonSdot, R, N, false, P>(groups, a, b, places, start, c, c_step) }
}

/// Pairs of columns of a panel.
const PAIRS: usize = 8;

/// [`tile::dot`] for groups of eight: a register holds the sums of two rows and two columns. A is u8, or `SIGNED`.
///
/// # Safety
/// As for [`tile::dot`].
#[target_feature(enable = "neon,i8mm")]
#[rustfmt::skip]
unsafe fn square<const ROWS: usize, const SIGNED: bool, P: Places>(groups: usize, a: *const u8, b: *const i8, places: P, start: *const i32, c: *mut i32, c_step: usize) {
    // SAFETY: the caller's contract covers each access below.
    unsafe {
        let two = |pair: usize| {
            let columns = vld1_s32(start.add(2 * pair));
            vcombine_s32(columns, columns)
        };
        let mut sums = [std::array::from_fn::<_, PAIRS, _>(two); 3];
        for at in 0..groups {
            let (a, b) = (a.add(at * ROWS * 8), b.add(places.of(at) * 8));
            let rows = [two_rows::<ROWS>(a, 0), two_rows::<ROWS>(a, 2), two_rows::<ROWS>(a, 4)];
            for pair in 0..PAIRS {
                let columns = vld1q_s8(b.add(pair * 16));
                for (i, sums) in sums[..ROWS.div_ceil(2)].iter_mut().enumerate() {
                    sums[pair] = if SIGNED { smmla(sums[pair], rows[i], columns) } else { usmmla(sums[pair], rows[i], columns) };
                }
            }
        }
        for (i, sums) in sums[..ROWS.div_ceil(2)].iter().enumerate() {
            for (j, two) in sums.as_chunks::<2>().0.iter().enumerate() {
                let [x, y] = two.map(|v| vreinterpretq_s64_s32(v));
                let to = c.add(2 * i * c_step + j * 4);
                vst1q_s32(to, vreinterpretq_s32_s64(vzip1q_s64(x, y)));
                if 2 * i + 1 < ROWS {
                    vst1q_s32(to.add(c_step), vreinterpretq_s32_s64(vzip2q_s64(x, y)));
                }
            }
        }
    }
}

/// The groups of rows `first` and `first + 1`, zeros for rows that are not there.
///
/// # Safety
/// `a` holds `ROWS` groups of eight bytes.
#[inline(always)]
unsafe fn two_rows<const ROWS: usize>(a: *const u8, first: usize) -> uint8x16_t {
    // SAFETY: reads nothing beyond ROWS groups.
    unsafe {
        match ROWS.saturating_sub(first) {
            0 => vdupq_n_u8(0),
            1 => vcombine_u8(vld1_u8(a.add(first * 8)), vdup_n_u8(0)),
            _ => vld1q_u8(a.add(first * 8)),
        }
    }
}

/// `sum + a b'` for `a` and `b` of two rows and eight columns. Stable Rust has no intrinsic for it.
///
/// # Safety
/// The processor has i8mm.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn usmmla(mut sum: int32x4_t, a: uint8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction touches nothing but its registers, and the instruction set is enabled here.
    unsafe {
        asm!("usmmla {s:v}.4s, {a:v}.16b, {b:v}.16b", s = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// The same of a signed `a`.
///
/// # Safety
/// The processor has i8mm.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn smmla(mut sum: int32x4_t, a: uint8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction touches nothing but its registers, and the instruction set is enabled here.
    unsafe {
        asm!("smmla {s:v}.4s, {a:v}.16b, {b:v}.16b", s = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}
