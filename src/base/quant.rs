//! The arithmetic of quantisation, in one place.

/// Rounds half to even and saturates to `[lo, hi]`; NaN gives 0 clamped into the range.
pub fn quantize(x: f32, scale: f32, zero_point: i32, lo: i32, hi: i32) -> i32 {
    let q = (x / scale).round_ties_even();
    // `as` saturates and maps NaN to 0; clamping first keeps the addition in range.
    (q as i64).saturating_add(zero_point.into()).clamp(lo.into(), hi.into()) as i32
}

/// The scale that maps `[-max_abs, max_abs]` onto `[-127, 127]`; 1 when all values are zero.
pub fn symmetric_scale(max_abs: f32) -> f32 {
    if max_abs > 0.0 { max_abs / 127.0 } else { 1.0 }
}

/// Scale and zero point of ONNX `DynamicQuantizeLinear` for values in `[min, max]` (u8).
/// Source: ONNX operator specification, DynamicQuantizeLinear-11.
pub fn dynamic_u8(min: f32, max: f32) -> (f32, u8) {
    let (min, max) = (min.min(0.0), max.max(0.0));
    let scale = (max - min) / 255.0;
    if scale == 0.0 {
        return (1.0, 0);
    }
    (scale, (-min / scale).round_ties_even().clamp(0.0, 255.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_half_to_even_and_saturates() {
        assert_eq!(quantize(2.5, 1.0, 0, -128, 127), 2);
        assert_eq!(quantize(3.5, 1.0, 0, -128, 127), 4);
        assert_eq!(quantize(1e30, 1.0, 5, 0, 255), 255);
        assert_eq!(quantize(f32::NAN, 1.0, 0, -128, 127), 0);
    }

    #[test]
    fn dynamic_range_always_holds_zero() {
        assert_eq!(dynamic_u8(1.0, 3.0).1, 0);
        assert_eq!(dynamic_u8(-2.0, -1.0).1, 255);
        assert_eq!(dynamic_u8(0.0, 0.0), (1.0, 0));
    }
}
