//! The tiles of Arm processors: 6x16 in f32 and int8.
//!
//! NEON is part of every 64-bit Arm processor, so its tiles need no function of their own for the instruction set.

use std::arch::aarch64::*;
use std::arch::asm;

use super::simd::{Neon, NeonDot, NeonSdot};
use super::tile::{self, DotTile, List, Places, Step, Tile};
use super::{bytes, core};
use crate::hardware::Capabilities;

/// NEON, 6x16.
pub static NEON: core::Isa = core::Isa {
    needs: Capabilities::NEON,
    columns: 16,
    tiles: [&real::<{ tile::F32 }, Step>(), &real::<{ tile::F16 }, Step>(), &real::<{ tile::BF16 }, Step>()],
    listed: &real::<{ tile::F32 }, List>(),
};

/// NEON: bytes widened to i16, smlal.
pub static NEON_BYTES: bytes::Isa =
    bytes::Isa { needs: Capabilities::NEON, columns: 16, group: 1, a_bytes: 2, signed_a: false, tiles: &WIDENED };
/// Dot product: quads, sdot, A packed as `a - 128`.
pub static DOTPROD: bytes::Isa =
    bytes::Isa { needs: Capabilities::DOTPROD, columns: 16, group: 4, a_bytes: 1, signed_a: true, tiles: &QUADS };
/// 8-bit matrix multiplication: two rows by two columns of eight products, usmmla.
pub static I8MM: bytes::Isa =
    bytes::Isa { needs: Capabilities::I8MM, columns: 16, group: 8, a_bytes: 1, signed_a: false, tiles: &SQUARES };

#[rustfmt::skip]
const fn real<const S: u8, P: Places>() -> [Tile<P>; 6] {
    [tile::real::<Neon, 1, S, 4, P>, tile::real::<Neon, 2, S, 2, P>, tile::real::<Neon, 3, S, 2, P>, tile::real::<Neon, 4, S, 1, P>,
     tile::real::<Neon, 5, S, 1, P>, tile::real::<Neon, 6, S, 1, P>]
}

#[rustfmt::skip]
static WIDENED: [DotTile; 6] = [tile::dot::<NeonDot, 1, 4>, tile::dot::<NeonDot, 2, 2>, tile::dot::<NeonDot, 3, 2>,
    tile::dot::<NeonDot, 4, 1>, tile::dot::<NeonDot, 5, 1>, tile::dot::<NeonDot, 6, 1>];
static QUADS: [DotTile; 6] = [quads::<1, 4>, quads::<2, 2>, quads::<3, 2>, quads::<4, 1>, quads::<5, 1>, quads::<6, 1>];
static SQUARES: [DotTile; 6] = [squares::<1>, squares::<2>, squares::<3>, squares::<4>, squares::<5>, squares::<6>];

/// # Safety
/// As for [`tile::dot`].
#[target_feature(enable = "neon,dotprod")]
#[rustfmt::skip]
unsafe fn quads<const R: usize, const N: usize>(groups: usize, a: *const u8, b: *const i8, start: *const i32, c: *mut i32, c_step: usize) {
    // SAFETY: the instruction set is enabled here; the rest is the caller's contract.
    unsafe { tile::dot::<NeonSdot, R, N>(groups, a, b, start, c, c_step) }
}

/// Pairs of columns of a panel.
const PAIRS: usize = 8;

/// [`tile::dot`] for groups of eight: a register holds the sums of two rows and two columns.
///
/// # Safety
/// As for [`tile::dot`].
#[target_feature(enable = "neon,i8mm")]
#[rustfmt::skip]
unsafe fn squares<const ROWS: usize>(groups: usize, a: *const u8, b: *const i8, start: *const i32, c: *mut i32, c_step: usize) {
    // SAFETY: the caller's contract covers each access below.
    unsafe {
        let two = |pair: usize| {
            let columns = vld1_s32(start.add(2 * pair));
            vcombine_s32(columns, columns)
        };
        let mut sums = [std::array::from_fn::<_, PAIRS, _>(two); 3];
        for at in 0..groups {
            let (a, b) = (a.add(at * ROWS * 8), b.add(at * PAIRS * 16));
            let rows = [two_rows::<ROWS>(a, 0), two_rows::<ROWS>(a, 2), two_rows::<ROWS>(a, 4)];
            for pair in 0..PAIRS {
                let columns = vld1q_s8(b.add(pair * 16));
                for (i, sums) in sums[..ROWS.div_ceil(2)].iter_mut().enumerate() {
                    sums[pair] = usmmla(sums[pair], rows[i], columns);
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
