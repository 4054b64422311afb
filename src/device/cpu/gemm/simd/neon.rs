//! NEON, its dot products and its matrix multiplications. Vectors of eight lanes are pairs of registers, so that tiles are
//! as wide as AVX2's; a row's element of A is a lane of a register, which the multiplications read at no cost.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Dot, Real};

/// 8 lanes.
#[derive(Clone, Copy)]
pub struct Neon([float32x4_t; 2]);

/// 8 lanes, one product a step: bytes widened to i16, smlal.
#[derive(Clone, Copy)]
pub struct NeonDot([int32x4_t; 2]);

/// 8 lanes, quads by sdot. Both operands are signed: A is packed as `a - 128`.
#[derive(Clone, Copy)]
pub struct NeonSdot([int32x4_t; 2]);

/// `N` f32 or groups of four bytes from `p` on, at most four; nothing beyond them is read.
///
/// # Safety
/// `p` is valid for `N` elements.
#[inline(always)]
unsafe fn lanes<const N: usize>(p: *const f32) -> float32x4_t {
    // SAFETY: each arm reads N elements.
    unsafe {
        match N {
            0 => vdupq_n_f32(0.0),
            1 => vdupq_n_f32(p.read_unaligned()),
            2 => vcombine_f32(vld1_f32(p), vdup_n_f32(0.0)),
            3 => vsetq_lane_f32::<2>(p.add(2).read_unaligned(), vcombine_f32(vld1_f32(p), vdup_n_f32(0.0))),
            _ => vld1q_f32(p),
        }
    }
}

/// A column of A: up to six rows in two registers.
///
/// # Safety
/// `p` is valid for `ROWS` elements.
#[inline(always)]
unsafe fn column<const ROWS: usize>(p: *const f32) -> [float32x4_t; 2] {
    // SAFETY: reads ROWS elements.
    unsafe {
        match ROWS {
            0 => [lanes::<0>(p), lanes::<0>(p)],
            1 => [lanes::<1>(p), lanes::<0>(p)],
            2 => [lanes::<2>(p), lanes::<0>(p)],
            3 => [lanes::<3>(p), lanes::<0>(p)],
            4 => [lanes::<4>(p), lanes::<0>(p)],
            5 => [lanes::<4>(p), lanes::<1>(p.add(4))],
            6 => [lanes::<4>(p), lanes::<2>(p.add(4))],
            _ => unreachable!("tiles have at most six rows"),
        }
    }
}

impl Neon {
    /// `sum + a[LANE] * b` for one row.
    #[inline(always)]
    fn row<const LANE: i32>(sum: Option<&mut [Neon; 2]>, a: float32x4_t, b: &[Neon; 2]) {
        let Some(sum) = sum else { return };
        for (s, b) in sum.iter_mut().zip(b) {
            // SAFETY: registers only.
            *s = Neon(unsafe { [vfmaq_laneq_f32::<LANE>(s.0[0], b.0[0], a), vfmaq_laneq_f32::<LANE>(s.0[1], b.0[1], a)] });
        }
    }
}

#[rustfmt::skip]
#[allow(clippy::undocumented_unsafe_blocks)] // The trait's contract covers each intrinsic.
impl Real for Neon {
    const LANES: usize = 8;
    #[inline(always)] unsafe fn zero() -> Self { Neon(unsafe { [vdupq_n_f32(0.0); 2] }) }
    #[inline(always)] unsafe fn splat(x: f32) -> Self { Neon(unsafe { [vdupq_n_f32(x); 2] }) }
    #[inline(always)] unsafe fn load(p: *const f32) -> Self { Neon(unsafe { [vld1q_f32(p), vld1q_f32(p.add(4))] }) }
    #[inline(always)] unsafe fn load_f16(p: *const u16) -> Self {
        Neon(unsafe { [vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))), vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p.add(4))))] })
    }
    #[inline(always)] unsafe fn load_bf16(p: *const u16) -> Self {
        let wide = |p| unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p))) };
        Neon([wide(p), wide(unsafe { p.add(4) })])
    }
    #[inline(always)] unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Neon(unsafe { [vfmaq_f32(c.0[0], self.0[0], b.0[0]), vfmaq_f32(c.0[1], self.0[1], b.0[1])] })
    }
    #[inline(always)] unsafe fn store(self, p: *mut f32) { unsafe { vst1q_f32(p, self.0[0]); vst1q_f32(p.add(4), self.0[1]) } }
    #[inline(always)] unsafe fn step<const ROWS: usize>(sums: &mut [[Self; 2]; ROWS], a: *const f32, b: [Self; 2]) {
        let [low, high] = unsafe { column::<ROWS>(a) };
        Neon::row::<0>(sums.get_mut(0), low, &b);
        Neon::row::<1>(sums.get_mut(1), low, &b);
        Neon::row::<2>(sums.get_mut(2), low, &b);
        Neon::row::<3>(sums.get_mut(3), low, &b);
        Neon::row::<0>(sums.get_mut(4), high, &b);
        Neon::row::<1>(sums.get_mut(5), high, &b);
    }
}

impl NeonDot {
    /// `sum + a[LANE] * b` for one row.
    #[inline(always)]
    fn row<const LANE: i32>(sum: Option<&mut [NeonDot; 2]>, a: int16x4_t, b: &[NeonDot; 2]) {
        let Some(sum) = sum else { return };
        for (s, b) in sum.iter_mut().zip(b) {
            // SAFETY: registers only.
            unsafe {
                let b = vreinterpretq_s16_s32(b.0[0]);
                let low = vmlal_lane_s16::<LANE>(s.0[0], vget_low_s16(b), a);
                *s = NeonDot([low, vmlal_high_lane_s16::<LANE>(s.0[1], b, a)]);
            }
        }
    }
}

#[rustfmt::skip]
#[allow(clippy::undocumented_unsafe_blocks)] // The trait's contract covers each intrinsic.
impl Dot for NeonDot {
    const LANES: usize = 8;
    #[inline(always)] unsafe fn zero() -> Self { NeonDot(unsafe { [vdupq_n_s32(0); 2] }) }
    #[inline(always)] unsafe fn load(p: *const i32) -> Self { NeonDot(unsafe { [vld1q_s32(p), vld1q_s32(p.add(4))] }) }
    #[inline(always)] unsafe fn store(self, p: *mut i32) { unsafe { vst1q_s32(p, self.0[0]); vst1q_s32(p.add(4), self.0[1]) } }
    const GROUP: usize = 1;
    const A_BYTES: usize = 2;
    #[inline(always)] unsafe fn splat_a(p: *const u8) -> Self {
        NeonDot(unsafe { [vreinterpretq_s32_s16(vdupq_n_s16(p.cast::<i16>().read_unaligned())); 2] })
    }
    /// Widened to i16 in the first register.
    #[inline(always)] unsafe fn load_b(p: *const i8) -> Self {
        NeonDot(unsafe { [vreinterpretq_s32_s16(vmovl_s8(vld1_s8(p))), vdupq_n_s32(0)] })
    }
    #[inline(always)] unsafe fn dot(self, a: Self, b: Self) -> Self {
        let mut sum = [self; 2];
        NeonDot::row::<0>(Some(&mut sum), unsafe { vget_low_s16(vreinterpretq_s16_s32(a.0[0])) }, &[b, b]);
        sum[0]
    }
    #[inline(always)] unsafe fn step<const ROWS: usize, const SWAP: bool>(sums: &mut [[Self; 2]; ROWS], a: *const u8, b: [Self; 2]) {
        let (low, high) = unsafe { column16::<ROWS>(a.cast()) };
        NeonDot::row::<0>(sums.get_mut(0), low, &b);
        NeonDot::row::<1>(sums.get_mut(1), low, &b);
        NeonDot::row::<2>(sums.get_mut(2), low, &b);
        NeonDot::row::<3>(sums.get_mut(3), low, &b);
        NeonDot::row::<0>(sums.get_mut(4), high, &b);
        NeonDot::row::<1>(sums.get_mut(5), high, &b);
    }
}

/// As [`column`], of elements of two bytes.
///
/// # Safety
/// `p` is valid for `ROWS` elements.
#[inline(always)]
unsafe fn column16<const ROWS: usize>(p: *const i16) -> (int16x4_t, int16x4_t) {
    // SAFETY: reads ROWS elements.
    unsafe {
        let one = |i: usize| vdup_n_s16(p.add(i).read_unaligned());
        let two = |i: usize| vreinterpret_s16_u32(vdup_n_u32(p.add(i).cast::<u32>().read_unaligned()));
        match ROWS {
            0 => (vdup_n_s16(0), vdup_n_s16(0)),
            1 => (one(0), vdup_n_s16(0)),
            2 => (two(0), vdup_n_s16(0)),
            3 => (vset_lane_s16::<2>(p.add(2).read_unaligned(), two(0)), vdup_n_s16(0)),
            4 => (vld1_s16(p), vdup_n_s16(0)),
            5 => (vld1_s16(p), one(4)),
            6 => (vld1_s16(p), two(4)),
            _ => unreachable!("tiles have at most six rows"),
        }
    }
}

/// `sum[i] + b[4i..4i + 4] . a[4 LANE..4 LANE + 4]`. Stable Rust has no intrinsic for it.
///
/// # Safety
/// The processor has dotprod.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sdot<const LANE: i32>(mut sum: int32x4_t, b: int32x4_t, a: float32x4_t) -> int32x4_t {
    // SAFETY: the instruction touches nothing but its registers, and the instruction set is enabled here.
    unsafe {
        asm!("sdot {s:v}.4s, {b:v}.16b, {a:v}.4b[{lane}]", s = inout(vreg) sum, b = in(vreg) b, a = in(vreg) a,
            lane = const LANE, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

impl NeonSdot {
    /// `sum + a[LANE] . b` for one row.
    ///
    /// # Safety
    /// The processor has dotprod.
    #[inline(always)]
    unsafe fn row<const LANE: i32>(sum: Option<&mut [NeonSdot; 2]>, a: float32x4_t, b: &[NeonSdot; 2]) {
        let Some(sum) = sum else { return };
        for (s, b) in sum.iter_mut().zip(b) {
            // SAFETY: the caller's contract.
            *s = NeonSdot(unsafe { [sdot::<LANE>(s.0[0], b.0[0], a), sdot::<LANE>(s.0[1], b.0[1], a)] });
        }
    }
}

#[rustfmt::skip]
#[allow(clippy::undocumented_unsafe_blocks)] // The trait's contract covers each intrinsic.
impl Dot for NeonSdot {
    const LANES: usize = 8;
    #[inline(always)] unsafe fn zero() -> Self { NeonSdot(unsafe { [vdupq_n_s32(0); 2] }) }
    #[inline(always)] unsafe fn load(p: *const i32) -> Self { NeonSdot(unsafe { [vld1q_s32(p), vld1q_s32(p.add(4))] }) }
    #[inline(always)] unsafe fn store(self, p: *mut i32) { unsafe { vst1q_s32(p, self.0[0]); vst1q_s32(p.add(4), self.0[1]) } }
    const GROUP: usize = 4;
    const A_BYTES: usize = 1;
    #[inline(always)] unsafe fn splat_a(p: *const u8) -> Self {
        NeonSdot(unsafe { [vdupq_n_s32(p.cast::<i32>().read_unaligned()); 2] })
    }
    #[inline(always)] unsafe fn load_b(p: *const i8) -> Self {
        NeonSdot(unsafe { [vreinterpretq_s32_s8(vld1q_s8(p)), vreinterpretq_s32_s8(vld1q_s8(p.add(16)))] })
    }
    #[inline(always)] unsafe fn dot(self, a: Self, b: Self) -> Self {
        let mut sum = [self; 2];
        unsafe { NeonSdot::row::<0>(Some(&mut sum), vreinterpretq_f32_s32(a.0[0]), &[b, b]) };
        sum[0]
    }
    #[inline(always)] unsafe fn step<const ROWS: usize, const SWAP: bool>(sums: &mut [[Self; 2]; ROWS], a: *const u8, b: [Self; 2]) {
        unsafe {
            let [low, high] = column::<ROWS>(a.cast());
            NeonSdot::row::<0>(sums.get_mut(0), low, &b);
            NeonSdot::row::<1>(sums.get_mut(1), low, &b);
            NeonSdot::row::<2>(sums.get_mut(2), low, &b);
            NeonSdot::row::<3>(sums.get_mut(3), low, &b);
            NeonSdot::row::<0>(sums.get_mut(4), high, &b);
            NeonSdot::row::<1>(sums.get_mut(5), high, &b);
        }
    }
}
