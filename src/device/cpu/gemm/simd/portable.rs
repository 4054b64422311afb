//! Plain Rust, for any processor.

use super::{Dot, Real};

/// Eight lanes in plain Rust.
#[derive(Clone, Copy)]
pub struct Portable([f32; 8]);

impl Real for Portable {
    const LANES: usize = 8;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Portable([0.0; 8])
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Portable([x; 8])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: valid for 8 elements by contract.
        Portable(unsafe { p.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        // SAFETY: valid for 8 elements by contract.
        Portable(unsafe { p.cast::<[u16; 8]>().read_unaligned() }.map(|b| half::f16::from_bits(b).to_f32()))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: valid for 8 elements by contract.
        Portable(unsafe { p.cast::<[u16; 8]>().read_unaligned() }.map(|b| f32::from_bits(u32::from(b) << 16)))
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: valid for 8 elements by contract.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
}

/// Eight i32 lanes in plain Rust, one product a step.
#[derive(Clone, Copy)]
pub struct PortableDot([i32; 8]);

impl Dot for PortableDot {
    const LANES: usize = 8;
    const GROUP: usize = 1;
    const A_BYTES: usize = 2;
    #[inline(always)]
    unsafe fn zero() -> Self {
        PortableDot([0; 8])
    }
    #[inline(always)]
    unsafe fn splat_a(p: *const u8) -> Self {
        // SAFETY: valid for one element by contract.
        PortableDot([i32::from(unsafe { p.cast::<i16>().read_unaligned() }); 8])
    }
    #[inline(always)]
    unsafe fn load_b(p: *const i8) -> Self {
        // SAFETY: valid for 8 elements by contract.
        PortableDot(unsafe { p.cast::<[i8; 8]>().read_unaligned() }.map(i32::from))
    }
    #[inline(always)]
    unsafe fn dot(self, a: Self, b: Self) -> Self {
        PortableDot(std::array::from_fn(|i| self.0[i].wrapping_add(a.0[i] * b.0[i])))
    }
    #[inline(always)]
    unsafe fn load(p: *const i32) -> Self {
        // SAFETY: valid for 8 elements by contract.
        PortableDot(unsafe { p.cast::<[i32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut i32) {
        // SAFETY: valid for 8 elements by contract.
        unsafe { p.cast::<[i32; 8]>().write_unaligned(self.0) }
    }
}
