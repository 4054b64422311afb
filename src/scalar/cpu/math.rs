//! f32 functions without branches, so that loops over them become vector code. No multiplication is fused with an addition
//! here, so that other backends give the same bits.

/// Of `e^r` for `|r| <= ln(2) / 2`: `1 + r + r^2 p(r)`.
pub const EXP: [f32; 6] = [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];
/// Of `log(1 + m)` for `1 + m` in [sqrt(1/2), sqrt(2)): `m - m^2/2 + m^3 p(m)`.
pub const LOG: [f32; 9] = [
    7.037_683_6e-2,
    -0.115_146_1,
    0.116_769_98,
    -0.124_201_41,
    0.142_493_23,
    -0.166_680_57,
    0.200_007_15,
    -0.249_999_94,
    0.333_333_3,
];
/// Of tanh below 0.625: `x + x^3 p(x^2)`.
pub const TANH: [f32; 5] = [-5.704_989e-3, 2.063_908_8e-2, -5.373_971_6e-2, 0.133_314_42, -0.333_332_8];
/// Of erf up to 4: `x p(x^2) / q(x^2)`, within 2.5e-8, fitted for the least relative error.
#[allow(clippy::approx_constant)] // The last one is 2/sqrt(pi)'s neighbour.
pub const ERF_NUMERATOR: [f32; 6] = [1.986_825e-6, 2.845_629_4e-4, 3.883_167_4e-3, 5.310_119e-2, 0.193_540_8, 1.128_379_1];
/// The denominator.
pub const ERF_DENOMINATOR: [f32; 6] = [3.742_047e-5, 1.185_530_6e-3, 1.520_689_1e-2, 0.115_348_24, 0.504_853_6, 1.0];
/// ln 2 as the sum of two numbers, the first of few bits.
pub const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// 1.5 * 2^23: adding it rounds to an integer in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// The polynomial with these coefficients, the highest power's first.
#[inline(always)]
fn polynomial<const N: usize>(coefficients: [f32; N], x: f32) -> f32 {
    let mut p = coefficients[0];
    for c in &coefficients[1..] {
        p = p * x + c;
    }
    p
}

/// `e^x` within 2 ulp; 0 below -103.97, infinity above 88.73, NaN for NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-104.0, 89.0);
    let shifted = clamped * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = clamped - n * LN_2[0] - n * LN_2[1];
    let y = polynomial(EXP, r) * r * r + r + 1.0;
    // 2^n in two halves, so that results below the normal range come out right.
    let n = shifted.to_bits() as i32 - MAGIC.to_bits() as i32;
    let half = n >> 1;
    let power = |k: i32| f32::from_bits(((k + 127) << 23) as u32);
    y * power(half) * power(n - half)
}

/// Natural logarithm within 2 ulp; NaN below 0, -infinity at 0.
#[inline(always)]
pub fn log(x: f32) -> f32 {
    let tiny = x < f32::MIN_POSITIVE;
    let scaled = if tiny { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits() as i32;
    // Mantissa in [sqrt(1/2), sqrt(2)).
    let e = (bits.wrapping_sub(0x3f35_04f3)) >> 23;
    let m = f32::from_bits(bits.wrapping_sub(e << 23) as u32) - 1.0;
    let z = m * m;
    let p = polynomial(LOG, m);
    let e = e as f32 - if tiny { 23.0 } else { 0.0 };
    let y = p * m * z + e * LN_2[1] - 0.5 * z;
    let y = m + y + e * LN_2[0];
    if x > 0.0 {
        if x == f32::INFINITY { x } else { y }
    } else if x == 0.0 {
        f32::NEG_INFINITY
    } else {
        f32::NAN
    }
}

/// Hyperbolic tangent within a few ulp.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let z = x * x;
    let small = x + x * z * polynomial(TANH, z);
    let a = x.abs();
    let large = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
    let large = if x < 0.0 { -large } else { large };
    if a < 0.625 {
        small
    } else if x.is_nan() {
        x
    } else {
        large
    }
}

/// Error function within 4e-7, of itself and of 1.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let z = x * x;
    (x * polynomial(ERF_NUMERATOR, z) / polynomial(ERF_DENOMINATOR, z)).clamp(-1.0, 1.0)
}

/// An integer of magnitude at most 2^22 as i32; 0 for NaN. A conversion that saturates does not become vector code.
#[inline(always)]
pub fn to_i32(x: f32) -> i32 {
    let shifted = if x.is_nan() { MAGIC } else { x + MAGIC };
    shifted.to_bits() as i32 - MAGIC.to_bits() as i32
}

/// QuantizeLinear of one scale, zero point and range without a division, where there is a fused multiplication and addition:
/// `min(max(round(x / scale) + zero, low), high)`, and 0 for NaN.
#[derive(Clone, Copy)]
pub struct Quantizer {
    scale: f32,
    inverse: f32,
    /// What is clipped beyond is clipped to `low` and `high` all the same.
    least: f32,
    most: f32,
    /// From the bits of a quotient moved by [`MAGIC`] to its integer and the zero point.
    offset: i32,
    low: i32,
    high: i32,
}

impl Quantizer {
    /// `None` where the scale or its inverse, or remainders of quotients that do not round to 0, may lose bits, or the numbers are no
    /// integers of at most 2^21.
    #[inline]
    pub fn new(scale: f32, zero: f64, low: f64, high: f64) -> Option<Quantizer> {
        let is_small = |v: f64| f64::from(v as i32) == v && v.abs() <= 2_097_152.0;
        if !(scale > 1e-18 && scale < 1e18 && is_small(zero) && is_small(low) && is_small(high) && low <= high) {
            return None;
        }
        let (least, most) = ((low - zero - 1.0) as f32 * scale, (high - zero + 1.0) as f32 * scale);
        let offset = (zero as i32).wrapping_sub(MAGIC.to_bits() as i32);
        Some(Quantizer { scale, inverse: 1.0 / scale, least, most, offset, low: low as i32, high: high as i32 })
    }

    /// `x / scale`, rounded once: a quotient within one ulp, corrected by its exact remainder times the inverse, which is itself rounded
    /// to nearest. Markstein, Computation of elementary functions on the IBM RISC System/6000 processor, 1990.
    #[inline(always)]
    fn quotient(self, x: f32) -> f32 {
        let quotient = x * self.inverse;
        (-quotient).mul_add(self.scale, x).mul_add(self.inverse, quotient)
    }

    /// The quantised number.
    #[inline(always)]
    pub fn integer(self, x: f32) -> i32 {
        let below = if x > self.most { self.most } else { x };
        let inside = if below < self.least { self.least } else { below };
        let integer = ((self.quotient(inside) + MAGIC).to_bits() as i32).wrapping_add(self.offset);
        if x.is_nan() { 0 } else { integer.clamp(self.low, self.high) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(f: fn(f32) -> f32, oracle: fn(f64) -> f64, lo: f32, hi: f32) -> (f64, f64) {
        let (mut absolute, mut relative) = (0f64, 0f64);
        for i in 0..200_000 {
            let x = lo + (hi - lo) * (i as f32 / 200_000.0);
            let (got, want) = (f(x) as f64, oracle(x as f64));
            absolute = absolute.max((got - want).abs());
            if want.abs() > 1e-35 {
                relative = relative.max(((got - want) / want).abs());
            }
        }
        (absolute, relative)
    }

    #[test]
    fn functions_keep_their_bounds() {
        assert!(sweep(exp, f64::exp, -80.0, 88.0).1 < 3e-7, "{:?}", sweep(exp, f64::exp, -80.0, 88.0));
        assert!(sweep(log, f64::ln, 1e-30, 100.0).0 < 1e-5);
        assert!(sweep(log, f64::ln, 0.5, 2.0).0 < 2e-7);
        assert!(sweep(tanh, f64::tanh, -10.0, 10.0).1 < 1e-6);
        let (absolute, relative) = sweep(erf, crate::scalar::steps::erf, -5.0, 5.0);
        assert!(absolute < 4e-7 && relative < 5e-7, "{absolute} {relative}");
    }

    #[test]
    fn a_quantizer_divides_to_the_bit() {
        let mut random = crate::base::xorshift::Xorshift::new(5);
        let mut bits = || f32::from_bits(random.bits() as u32);
        let mut seen = 0;
        while seen < 1_000_000 {
            let (x, scale) = (bits(), bits().abs());
            let Some(quantizer) = Quantizer::new(scale, 3.0, -128.0, 127.0) else { continue };
            let quotient = x / scale;
            if (1e-9..4e6).contains(&quotient.abs()) {
                assert_eq!(quantizer.quotient(x).to_bits(), quotient.to_bits(), "{x:e} / {scale:e}");
                seen += 1;
            }
            let want = (quotient.round_ties_even() + 3.0).clamp(-128.0, 127.0) as i32;
            assert_eq!(quantizer.integer(x), want, "{x:e} / {scale:e}");
        }
    }

    /// Quotients that lie between two integers, or next to there, and scales of the longest mantissas.
    #[test]
    fn a_quantizer_rounds_halves_as_a_division_does() {
        for (low, high, zero) in [(-128.0, 127.0, 0.0), (0.0, 255.0, 131.0), (-7.0, 7.0, -2.0)] {
            for scale in
                (0..5_000).map(|i| f32::from_bits(0x3c23_d70a + i)).chain((0..100).map(|i| f32::from_bits(0x3fff_ffff - i)))
            {
                let quantizer = Quantizer::new(scale, zero, low, high).unwrap();
                for q in -300..300 {
                    let middle = (q as f32 + 0.5) * scale;
                    for x in [middle, f32::from_bits(middle.to_bits() + 1), f32::from_bits(middle.to_bits() - 1)] {
                        let want = ((x / scale).round_ties_even() + zero as f32).clamp(low as f32, high as f32);
                        assert_eq!(quantizer.integer(x), want as i32, "{x:e} / {scale:e}");
                    }
                }
                let all = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0, -0.0, 1e-45]
                    .map(|x| quantizer.integer(x));
                let middle = zero.clamp(low, high) as i32;
                assert_eq!(all, [0, high as i32, low as i32, high as i32, low as i32, middle, middle, middle]);
            }
        }
        for scale in [0.0, -0.5, f32::NAN, f32::INFINITY, 1e-30] {
            assert!(Quantizer::new(scale, 0.0, -128.0, 127.0).is_none());
        }
    }

    #[test]
    fn integers_are_what_a_conversion_gives() {
        for x in [0.0, -0.0, 1.0, -1.0, 255.0, -32_768.0, 65_535.0, 4_194_304.0, -4_194_304.0, f32::NAN, -f32::NAN] {
            assert_eq!(to_i32(x), x as i32, "{x}");
        }
    }

    #[test]
    fn special_values_are_kept() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan() && log(f32::NAN).is_nan() && tanh(f32::NAN).is_nan() && erf(f32::NAN).is_nan());
        assert!(exp(-100.0) > 0.0, "subnormal");
        assert_eq!(log(0.0), f32::NEG_INFINITY);
        assert!(log(-1.0).is_nan());
        assert_eq!((tanh(1e9), erf(-1e9), erf(4.0)), (1.0, -1.0, 1.0));
        assert_eq!((erf(0.0).to_bits(), erf(-0.0).to_bits()), (0.0f32.to_bits(), (-0.0f32).to_bits()));
    }
}
