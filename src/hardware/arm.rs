//! Rounds of arithmetic in the registers of an Arm processor, for [`super::roofline`]. Stable Rust has no intrinsics for sdot
//! and usmmla.

use std::arch::{aarch64::*, asm};
use std::hint::black_box;

/// Registers of sums: the rest of the 32 hold the factors.
const SUMS: usize = 24;

/// `add` on each register of sums, again and again. `operations` of one time; gives those of all.
#[inline(always)]
fn repeat<T: Copy>(rounds: usize, start: T, operations: usize, add: impl Fn(&mut T)) -> f64 {
    let mut sums = [start; SUMS];
    for _ in 0..rounds {
        sums.iter_mut().for_each(&add);
    }
    black_box(sums);
    (rounds * SUMS * operations) as f64
}

/// # Safety
/// The processor must have NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn float_neon(rounds: usize) -> f64 {
    let (a, b) = (vdupq_n_f32(black_box(0.999)), vdupq_n_f32(black_box(0.001)));
    repeat(rounds, vdupq_n_f32(1.0), 8, |s| *s = vfmaq_f32(b, *s, a))
}

/// # Safety
/// The processor must have NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn int_neon(rounds: usize) -> f64 {
    let x = vdup_n_s16(black_box(1));
    repeat(rounds, vdupq_n_s32(0), 8, |s| *s = vmlal_s16(*s, x, x))
}

/// # Safety
/// The processor must have dotprod.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn int_dotprod(rounds: usize) -> f64 {
    let x = vdupq_n_s8(black_box(1));
    // SAFETY: the instruction touches its registers only.
    repeat(rounds, vdupq_n_s32(0), 32, |s| unsafe {
        asm!("sdot {s:v}.4s, {x:v}.16b, {x:v}.16b", s = inout(vreg) *s, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
    })
}

/// # Safety
/// The processor must have i8mm.
#[target_feature(enable = "neon,i8mm")]
pub(super) unsafe fn int_i8mm(rounds: usize) -> f64 {
    let x = vdupq_n_s8(black_box(1));
    // SAFETY: the instruction touches its registers only.
    repeat(rounds, vdupq_n_s32(0), 64, |s| unsafe {
        asm!("usmmla {s:v}.4s, {x:v}.16b, {x:v}.16b", s = inout(vreg) *s, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
    })
}
