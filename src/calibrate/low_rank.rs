//! Factors of low rank (LoRA) as integers.

use crate::base::quant::symmetric_scale;

/// How factors are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// 8 or 16.
    pub bits: u32,
    /// Zero points for each rank of each factor, where its values are not around zero.
    pub asymmetric: bool,
}

/// A [rank x k] and B [rows x rank] as integers. Each rank has one scale, the product of its row's of A and its column's of B: it may be
/// moved from one factor to the other without a change, as training leaves it.
#[derive(Debug, Clone)]
pub struct LowRank {
    rank: usize,
    code: Code,
    a: Vec<i32>,
    /// As [rank x rows].
    b: Vec<i32>,
    scales: Vec<f32>,
    /// Of A and of B, for each rank; empty when symmetric.
    zeros: Vec<[i32; 2]>,
}

impl LowRank {
    /// Rounds factors A [rank x k] and B [rows x rank].
    pub fn new(a: &[f32], b: &[f32], rank: usize, code: Code) -> LowRank {
        let columns: Vec<f32> = (0..rank).flat_map(|r| b.iter().skip(r).step_by(rank)).copied().collect();
        let [a, b] = [a, &columns].map(|factor| {
            let lines = factor.chunks_exact((factor.len() / rank.max(1)).max(1));
            lines.map(|line| code.round(line)).collect::<Vec<_>>()
        });
        let scales = a.iter().zip(&b).map(|(a, b)| a.scale * b.scale).collect();
        let zeros = a.iter().zip(&b).filter(|_| code.asymmetric).map(|(a, b)| [a.zero, b.zero]).collect();
        let [a, b] = [a, b].map(|lines| lines.into_iter().flat_map(|l| l.codes).collect());
        LowRank { rank, code, a, b, scales, zeros }
    }

    /// A [rank x k] and B [rows x rank], the scales in B.
    pub fn factors(&self) -> (Vec<f32>, Vec<f32>) {
        let (rows, k) = (self.b.len() / self.rank.max(1), self.a.len() / self.rank.max(1));
        let zero = |r: usize| self.zeros.get(r).copied().unwrap_or_default();
        let a = self.a.iter().enumerate().map(|(i, a)| (a - zero(i / k)[0]) as f32).collect();
        let places = (0..rows).flat_map(|row| (0..self.rank).map(move |r| (row, r)));
        let b = places.map(|(row, r)| self.scales[r] * (self.b[r * rows + row] - zero(r)[1]) as f32).collect();
        (a, b)
    }

    /// B A, [rows x k].
    pub fn product(&self) -> Vec<f32> {
        let (a, b) = self.factors();
        product(&a, &b, self.rank)
    }

    /// Bytes of the integers, scales and zero points.
    pub fn bytes(&self) -> usize {
        let code = self.code.bits as usize / 8;
        (self.a.len() + self.b.len() + 2 * self.zeros.len()) * code + 4 * self.scales.len()
    }
}

/// One rank of one factor.
struct Line {
    codes: Vec<i32>,
    scale: f32,
    zero: i32,
}

impl Code {
    fn round(&self, line: &[f32]) -> Line {
        let limit = (1i32 << (self.bits - 1)) - 1;
        let (min, max) = line.iter().fold((0f32, 0f32), |(min, max), &v| (min.min(v), max.max(v)));
        let (scale, zero) = if self.asymmetric && max > min {
            let scale = (max - min) / (2 * limit + 1) as f32;
            (scale, (-limit - 1) - (min / scale).round_ties_even() as i32)
        } else {
            (symmetric_scale(max.max(-min)) * 127.0 / limit as f32, 0)
        };
        let code = |&v: &f32| ((v / scale).round_ties_even() as i32).saturating_add(zero).clamp(-limit - 1, limit);
        Line { codes: line.iter().map(code).collect(), scale, zero }
    }
}

/// B A of factors A [rank x k] and B [rows x rank], [rows x k].
pub fn product(a: &[f32], b: &[f32], rank: usize) -> Vec<f32> {
    let k = a.len() / rank.max(1);
    let mut product = vec![0f32; b.len() / rank.max(1) * k];
    for (row, b) in product.chunks_exact_mut(k.max(1)).zip(b.chunks_exact(rank.max(1))) {
        for (a, &factor) in a.chunks_exact(k).zip(b) {
            row.iter_mut().zip(a).for_each(|(v, a)| *v += factor * a);
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    /// Ratio of signal to the error, in dB.
    fn sqnr_db(want: &[f32], got: &[f32]) -> f64 {
        let energy = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>();
        10.0 * (energy(&mut want.iter().copied()) / energy(&mut want.iter().zip(got).map(|(a, b)| a - b))).log10()
    }

    /// Factors as of trained weights' strongest directions: bell-shaped, each rank weaker than the one before.
    fn factors(rows: usize, k: usize, rank: usize) -> (Vec<f32>, Vec<f32>) {
        let mut random = Xorshift::new(rank as u64);
        let mut bell = |n: usize| -> Vec<f32> { (0..n).map(|_| random.reals(12, 1.0).iter().sum::<f32>() / 2.0).collect() };
        let (mut a, mut b) = (bell(rank * k), bell(rows * rank));
        a.chunks_mut(k).enumerate().for_each(|(r, row)| row.iter_mut().for_each(|v| *v /= 1.0 + 0.2 * r as f32));
        b.iter_mut().for_each(|v| *v *= 0.1);
        (a, b)
    }

    fn db(a: &[f32], b: &[f32], rank: usize, code: Code) -> f64 {
        sqnr_db(&product(a, b, rank), &LowRank::new(a, b, rank, code).product())
    }

    #[test]
    fn eight_bits_are_a_quarter_of_the_bytes_and_37_db() {
        for rank in [8, 16, 64] {
            let (a, b) = factors(384, 384, rank);
            for asymmetric in [false, true] {
                let [eight, sixteen] = [8, 16].map(|bits| db(&a, &b, rank, Code { bits, asymmetric }));
                println!("rank {rank}, asymmetric {asymmetric}: {eight:.1} dB, 16 bits {sixteen:.1} dB");
                assert!(eight >= 37.0 && sixteen >= 82.0, "rank {rank}: {eight:.1} and {sixteen:.1} dB");
            }
            let code = Code { bits: 8, asymmetric: false };
            let ratio = (4 * (a.len() + b.len())) as f64 / LowRank::new(&a, &b, rank, code).bytes() as f64;
            assert!(ratio > 3.95, "{ratio:.3}");
        }
    }

    #[test]
    fn moving_scale_from_one_factor_to_the_other_changes_nothing() {
        let (mut a, mut b) = factors(96, 80, 8);
        for asymmetric in [false, true] {
            let code = Code { bits: 8, asymmetric };
            let before = db(&a, &b, 8, code);
            let mut random = Xorshift::new(9);
            for r in 0..8 {
                let gauge = (2.0 * random.real()).exp();
                a[r * 80..][..80].iter_mut().for_each(|v| *v *= gauge);
                b.iter_mut().skip(r).step_by(8).for_each(|v| *v /= gauge);
            }
            let after = db(&a, &b, 8, code);
            assert!((before - after).abs() < 0.1, "{before:.2} dB, then {after:.2}");
        }
    }

    #[test]
    fn a_zero_point_helps_what_is_not_around_zero() {
        let (mut a, mut b) = factors(64, 64, 4);
        a.iter_mut().chain(&mut b).for_each(|v| *v += 5.0);
        let [symmetric, asymmetric] = [false, true].map(|asymmetric| db(&a, &b, 4, Code { bits: 8, asymmetric }));
        assert!(asymmetric >= symmetric, "{asymmetric:.1} dB, {symmetric:.1} without");
        let none = LowRank::new(&[0.0; 4], &[0.0; 6], 2, Code { bits: 8, asymmetric: true });
        assert_eq!(none.product(), [0.0; 6]);
    }
}
