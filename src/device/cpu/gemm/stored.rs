//! Elements that are stored narrower than they are computed with.

use super::blocks::wide;
use crate::base::DType;

/// Elements of f16 or bf16 as f32, in a form that vectorises: of f16, the exponent's bias is changed by a multiplication, which
/// is exact for subnormal numbers too.
pub fn widen(dtype: DType, from: &[u16], to: &mut [f32]) {
    let f16 = |h: u16| {
        let bits = u32::from(h & 0x7fff) << 13;
        let special = if h & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
        let value = f32::from_bits(bits) * f32::from_bits(0x7780_0000); // 2^112
        f32::from_bits(value.to_bits() | special | u32::from(h & 0x8000) << 16)
    };
    let bf16 = |h: u16| f32::from_bits(u32::from(h) << 16);
    match dtype {
        DType::F16 => wide(|| to.iter_mut().zip(from).for_each(|(to, &h)| *to = f16(h))),
        _ => wide(|| to.iter_mut().zip(from).for_each(|(to, &h)| *to = bf16(h))),
    }
}

/// Rows of as many bytes as there are scales, as f32 times these.
pub(super) fn scale(from: &[i8], scales: &[f32], to: &mut [f32]) {
    wide(|| {
        for (to, from) in to.chunks_exact_mut(scales.len()).zip(from.chunks_exact(scales.len())) {
            to.iter_mut().zip(from).zip(scales).for_each(|((to, &b), s)| *to = f32::from(b) * s);
        }
    });
}
