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
/// Of erf below 0.5: `x p(x^2)`.
pub const ERF_SMALL: [f32; 6] =
    [-8.548_327e-4, 5.223_977_6e-3, -2.686_617_1e-2, 0.112_837_92, -0.376_126_4, std::f32::consts::FRAC_2_SQRT_PI];
/// Of `(1 - erf(x)) e^(x^2) / t` for `t = 1 / (1 + 0.3275911 x)`. Abramowitz and Stegun 7.1.26.
pub const ERF_LARGE: [f32; 5] = [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6];
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

/// Error function within 3e-7 absolute and 1e-6 relative.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let small = x * polynomial(ERF_SMALL, z);
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let q = polynomial(ERF_LARGE, t) * t;
    let large = 1.0 - q * exp(-z);
    let large = if x < 0.0 { -large } else { large };
    if a < 0.5 {
        small
    } else if x.is_nan() {
        x
    } else {
        large
    }
}

/// An integer of magnitude at most 2^22 as i32; 0 for NaN. A conversion that saturates does not become vector code.
#[inline(always)]
pub fn to_i32(x: f32) -> i32 {
    let shifted = if x.is_nan() { MAGIC } else { x + MAGIC };
    shifted.to_bits() as i32 - MAGIC.to_bits() as i32
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
        assert!(absolute < 5e-7 && relative < 2e-6, "{absolute} {relative}");
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
        assert_eq!((tanh(1e9), erf(-1e9)), (1.0, -1.0));
    }
}
