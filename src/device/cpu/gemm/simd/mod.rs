//! Vectors of f32 and i32 under one interface, so that each tile is written once.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use portable::{Portable, PortableDot};
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx2Dot, Avx512, Avx512Dot, Avx512Vnni};

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
    /// Sum.
    unsafe fn add(self, b: Self) -> Self;
    /// Writes f32.
    unsafe fn store(self, p: *mut f32);
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
    /// Bytes that one element of A takes: 1 (u8) or 2 (i16).
    const A_BYTES: usize;
    /// Zeros.
    unsafe fn zero() -> Self;
    /// A group of A, in each lane.
    unsafe fn splat_a(p: *const u8) -> Self;
    /// `LANES` groups of B (s8).
    unsafe fn load_b(p: *const i8) -> Self;
    /// `self + a . b`, lane by lane.
    unsafe fn dot(self, a: Self, b: Self) -> Self;
    /// Sum.
    unsafe fn add(self, b: Self) -> Self;
    /// Writes i32.
    unsafe fn store(self, p: *mut i32);
}
