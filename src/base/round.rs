//! Rounding to 16-bit floats, half to even, the same on every processor. (`half`'s own conversions from f64 drop the lowest 32
//! bits first where there is no instruction for it.)

use half::{bf16, f16};

/// `x` as the nearest f16.
pub fn to_f16(x: f64) -> f16 {
    f16::from_f32(to_odd(x))
}

/// `x` as the nearest bf16.
pub fn to_bf16(x: f64) -> bf16 {
    bf16::from_f32(to_odd(x))
}

/// `x` in f32, the last bit set where bits are lost. Rounding that to fewer bits gives what rounding `x` gives (Boldo and
/// Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008).
fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    let (bits, size) = (near.to_bits(), f64::from(near).abs());
    if x.is_nan() || size == x.abs() || bits & 1 == 1 {
        return near;
    }
    f32::from_bits(if x.abs() > size { bits + 1 } else { bits - 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_far_below_a_tie_decide_it() {
        let bit = |n: i32| 2f64.powi(n);
        for sign in [1.0, -1.0] {
            for below in [-24, -30, -40, -52] {
                assert_eq!(to_f16(sign * (1.0 + bit(-11) + bit(below))).to_f64(), sign * (1.0 + bit(-10)));
                assert_eq!(to_f16(sign * (1.0 + 3.0 * bit(-11) - bit(below))).to_f64(), sign * (1.0 + bit(-10)));
                assert_eq!(to_bf16(sign * (1.0 + bit(-8) + bit(below))).to_f64(), sign * (1.0 + bit(-7)));
                assert_eq!(to_bf16(sign * (1.0 + 3.0 * bit(-8) - bit(below))).to_f64(), sign * (1.0 + bit(-7)));
            }
        }
        assert_eq!(to_f16(1.0 + bit(-11)).to_f64(), 1.0);
    }

    #[test]
    fn edges() {
        assert_eq!(to_f16(65_519.999_999_999).to_f64(), 65504.0);
        assert_eq!(to_f16(65520.0), f16::INFINITY);
        assert_eq!(to_f16(1e300), f16::INFINITY);
        assert_eq!(to_bf16(-1e300), bf16::NEG_INFINITY);
        assert_eq!(to_f16(f64::NEG_INFINITY), f16::NEG_INFINITY);
        assert!(to_f16(f64::NAN).is_nan() && to_bf16(f64::NAN).is_nan());
        let tie = 2f64.powi(-25);
        assert_eq!((to_f16(tie).to_bits(), to_f16(tie * (1.0 + f64::EPSILON)).to_bits()), (0, 1));
        assert_eq!((to_f16(1e-300).to_bits(), to_f16(-1e-300).to_bits()), (0, 0x8000));
    }
}
