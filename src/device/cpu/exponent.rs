//! The core of every softmax.

/// `e^x` of `x <= 0` within 2 ulp; 0 below -87.3, NaN for NaN. Meant for code compiled with FMA.
#[inline(always)]
pub(super) fn exp_below_zero(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer in the low bits
    let shifted = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let p = 1.987_569_1e-4_f32.mul_add(r, 1.398_2e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 0.166_666_65);
    let p = p.mul_add(r, 0.5);
    let y = p.mul_add(r * r, r + 1.0);
    // The low bits of `shifted` are n: they are added to the exponent of y.
    let scaled = f32::from_bits(y.to_bits().wrapping_add(shifted.to_bits() << 23));
    let scaled = if x < -87.3 { 0.0 } else { scaled };
    if x.is_nan() { x } else { scaled }
}

/// Makes each element `e^(element - max)`, where no element is larger than `max`, and gives their sum.
#[inline(always)]
pub(super) fn exp_sum(row: &mut [f32], max: f32) -> f32 {
    let mut lanes = [0f32; 32];
    let (chunks, rest) = row.as_chunks_mut::<32>();
    for chunk in chunks {
        for (v, lane) in chunk.iter_mut().zip(&mut lanes) {
            *v = exp_below_zero(*v - max);
            *lane += *v;
        }
    }
    for (v, lane) in rest.iter_mut().zip(&mut lanes) {
        *v = exp_below_zero(*v - max);
        *lane += *v;
    }
    let mut n = 32;
    while n > 1 {
        n /= 2;
        for i in 0..n {
            lanes[i] += lanes[i + n];
        }
    }
    lanes[0]
}

/// The larger of two numbers, the first when one is NaN: one instruction, where `f32::max` takes three.
#[inline(always)]
pub(super) fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_below_zero_keep_their_bound() {
        for i in 0..100_000 {
            let x = -(i as f32) * 8.73e-4;
            let (got, want) = (f64::from(exp_below_zero(x)), f64::from(x).exp());
            assert!(((got - want) / want).abs() < 3e-7, "{x}: {got} for {want}");
        }
        assert_eq!(exp_below_zero(0.0), 1.0);
        assert_eq!((exp_below_zero(-90.0), exp_below_zero(f32::NEG_INFINITY)), (0.0, 0.0));
        assert!(exp_below_zero(f32::NAN).is_nan());
        assert!(exp_sum(&mut [f32::INFINITY, 1.0], f32::INFINITY).is_nan());
    }
}
