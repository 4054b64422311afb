//! Vectors of f32 and i32 under one interface, so that each tile is written once.

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub use neon::{Neon, NeonDot, NeonSdot};
pub use portable::{Portable, PortableDot};
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx2Dot, Avx512, Avx512Dot, Avx512Vnni, AvxVnni};

/// A vector of f32.
///
/// # Safety
/// Every function may be called only where the implementation's instruction set is enabled, with pointers that are valid
/// for [`Real::LANES`] elements (of 16 bits for the half loads). No alignment is needed.
pub trait Real: Copy {
    /// Elements of a vector.
    const LANES: usize;
    /// Zeros.
    unsafe fn zero() -> Self;
    /// `x` in each lane.
    unsafe fn splat(x: f32) -> Self;
    /// Reads f32.
    unsafe fn load(p: *const f32) -> Self;
    /// Reads f16.
    unsafe fn load_f16(p: *const u16) -> Self;
    /// Reads bf16.
    unsafe fn load_bf16(p: *const u16) -> Self;
    /// `self * b + c`.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// Writes f32.
    unsafe fn store(self, p: *mut f32);
    /// One step of K: adds `a[row] * b` to the sums of each row.
    #[inline(always)]
    unsafe fn step<const ROWS: usize>(sums: &mut [[Self; 2]; ROWS], a: *const f32, b: [Self; 2]) {
        for (r, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `a` holds ROWS elements by contract.
            unsafe {
                let x = Self::splat(*a.add(r));
                *sum = [x.mul_add(b[0], sum[0]), x.mul_add(b[1], sum[1])];
            }
        }
    }
}

/// Exact dot products of small groups of bytes, summed in i32 lanes.
///
/// # Safety
/// As for [`Real`].
pub trait Dot: Copy {
    /// i32 lanes.
    const LANES: usize;
    /// Products summed into one lane by one step: the K-group of the packed operands.
    const GROUP: usize;
    /// Bytes that one element of A takes: 1 or 2 (i16).
    const A_BYTES: usize;
    /// Zeros.
    unsafe fn zero() -> Self;
    /// A group of A, in each lane.
    unsafe fn splat_a(p: *const u8) -> Self;
    /// `LANES` groups of B.
    unsafe fn load_b(p: *const i8) -> Self;
    /// `LANES` groups of B that overlap: each begins one byte after the one before. May read 16 bytes after the first of the last.
    #[inline(always)]
    unsafe fn load_overlapping(p: *const i8) -> Self {
        // SAFETY: reads the bytes of the groups; there are at most 64 elements in a vector.
        unsafe {
            let groups: [i8; 64] = std::array::from_fn(|i| *p.add((i / Self::GROUP).min(Self::LANES - 1) + i % Self::GROUP));
            Self::load_b(groups.as_ptr())
        }
    }
    /// `self + a . b`, lane by lane; of two operands of one byte, which is signed is the instruction's choice.
    unsafe fn dot(self, a: Self, b: Self) -> Self;
    /// Reads i32.
    unsafe fn load(p: *const i32) -> Self;
    /// Writes i32.
    unsafe fn store(self, p: *mut i32);
    /// One group of K: adds `a[row] . b` to the sums of each row. `SWAP` gives [`Dot::dot`] its operands the other way round.
    #[inline(always)]
    unsafe fn step<const ROWS: usize, const SWAP: bool>(sums: &mut [[Self; 2]; ROWS], a: *const u8, b: [Self; 2]) {
        for (r, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `a` holds ROWS groups by contract.
            unsafe {
                let x = Self::splat_a(a.add(r * Self::GROUP * Self::A_BYTES));
                *sum = if SWAP { [sum[0].dot(b[0], x), sum[1].dot(b[1], x)] } else { [sum[0].dot(x, b[0]), sum[1].dot(x, b[1])] };
            }
        }
    }
}
