//! Weights as integers.

use crate::base::quant::quantize;

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Bits {
    /// In [-7, 7], a scale for so many weights of a row; where a row is no multiple of that, and of other layers than products, 8 bits.
    Four(usize),
    /// In [-8, 7], a scale and a zero point for so many weights of a row, else as [`Bits::Four`].
    FourAsymmetric(usize),
    /// In [-127, 127], a scale for each row.
    #[default]
    Eight,
    /// In [-32767, 32767], a scale for each row.
    Sixteen,
}

impl Bits {
    /// Of 4 bits: weights of a row that share a scale.
    pub fn group_of_four(self) -> Option<usize> {
        match self {
            Bits::Four(group) | Bits::FourAsymmetric(group) => Some(group),
            Bits::Eight | Bits::Sixteen => None,
        }
    }

    /// The largest integer.
    pub fn limit(self) -> i16 {
        match self {
            Bits::Four(_) | Bits::FourAsymmetric(_) => 7,
            Bits::Eight => 127,
            Bits::Sixteen => i16::MAX,
        }
    }

    /// The smallest integer.
    pub fn least(self) -> i16 {
        match self {
            Bits::FourAsymmetric(_) => -8,
            _ => -self.limit(),
        }
    }
}

/// Weights of a layer as integers.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// [rows x k].
    pub codes: Vec<i16>,
    /// Row by row, one for each group; positive.
    pub scales: Vec<f32>,
    /// The integers that stand for 0, as many as scales.
    pub zeros: Vec<i8>,
    /// Weights of a row that share a scale: a divisor of k.
    pub group: usize,
    /// What the integers are.
    pub bits: Bits,
}

impl Stored {
    /// Each weight of rows of `k` to the nearest integer, with scales for the largest ones, or for the range from the smallest to the largest.
    pub fn nearest(weights: &[f32], k: usize, bits: Bits) -> Self {
        let (bits, group) = match bits {
            Bits::Eight | Bits::Sixteen => (bits, k),
            Bits::Four(group) | Bits::FourAsymmetric(group) if group > 1 && k.is_multiple_of(group) => (bits, group),
            _ => (Bits::Eight, k),
        };
        let (least, limit) = (bits.least(), bits.limit());
        let (scales, zeros): (Vec<f32>, Vec<i8>) = weights.chunks_exact(group.max(1)).map(|part| affine(part, bits)).unzip();
        let code = |w: f32, scale: f32, zero: i8| quantize(w, scale, zero.into(), least.into(), limit.into()) as i16;
        let groups = weights.chunks_exact(group.max(1)).zip(&scales).zip(&zeros);
        let codes = groups.flat_map(|((part, &scale), &zero)| part.iter().map(move |&w| code(w, scale, zero))).collect();
        Stored { codes, scales, zeros, group, bits }
    }

    /// Larger scales for rows of weights so small that the row's bias, in steps of `input_scale` times its scale, would pass 32 bits, as runtimes hold biases of
    /// quantised convolutions: dead channels. What rounding these weights then costs is less than the bias's own. Of `weights` as [`Stored::nearest`] took
    /// them, of 8 bits, one of `biases` a row.
    pub fn hold_bias(&mut self, weights: &[f32], biases: &[f32], input_scale: f32) {
        let rows = self.codes.chunks_exact_mut(self.group.max(1)).zip(weights.chunks_exact(self.group.max(1)));
        for ((codes, weights), (scale, bias)) in rows.zip(self.scales.iter_mut().zip(biases)) {
            let least = bias / input_scale / (1 << 29) as f32;
            let is_dead = weights.iter().all(|&w| w == 0.0);
            if self.bits == Bits::Eight && least.is_normal() && (is_dead || *scale < least) {
                *scale = least;
                codes.iter_mut().zip(weights).for_each(|(c, &w)| *c = quantize(w, least, 0, -127, 127) as i16);
            }
        }
    }

    /// The weights that the integers stand for, [rows x k].
    pub fn dequantised(&self) -> Vec<f32> {
        let groups = self.codes.chunks_exact(self.group.max(1)).zip(&self.scales).zip(&self.zeros);
        groups.flat_map(|((part, scale), &zero)| part.iter().map(move |&c| f32::from(c - i16::from(zero)) * scale)).collect()
    }
}

/// Scale and zero point of weights that share them.
fn affine(part: &[f32], bits: Bits) -> (f32, i8) {
    let [low, high] = part.iter().fold([0f32; 2], |[low, high], &w| [low.min(w), high.max(w)]);
    let (least, limit) = (f32::from(bits.least()), f32::from(bits.limit()));
    let is_symmetric = !matches!(bits, Bits::FourAsymmetric(_));
    let scale = if is_symmetric { high.max(-low) / limit } else { (high - low) / (limit - least) };
    match scale {
        0.0 => (1.0, 0),
        _ if is_symmetric => (scale, 0),
        _ => (scale, (least - low / scale).round_ties_even().clamp(least, limit) as i8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    #[test]
    fn rows_of_small_weights_hold_their_bias_in_32_bits() {
        let weights = [1e-30, -2e-30, 0.0, 0.0, 0.5, 1.0, 0.0, 0.0];
        let mut stored = Stored::nearest(&weights, 2, Bits::Eight);
        let before = stored.scales.clone();
        let biases = [0.3, 0.3, 0.3, 0.0];
        stored.hold_bias(&weights, &biases, 0.02);
        for (scale, bias) in stored.scales.iter().zip(biases) {
            let steps = f64::from(bias) / (0.02 * f64::from(*scale));
            assert!(steps < f64::from(1 << 30) && (bias == 0.0 || steps > 1000.0), "{steps} steps");
        }
        assert_eq!(stored.scales[2..], before[2..]);
        assert_eq!(stored.codes, [0, 0, 0, 0, 64, 127, 0, 0]);
    }

    #[test]
    fn more_bits_and_smaller_groups_are_nearer() {
        let weights = Xorshift::new(2).reals(6 * 64, 1.0);
        let error = |bits| {
            let stored = Stored::nearest(&weights, 64, bits);
            let each = stored.dequantised().into_iter().zip(&weights).map(|(a, b)| f64::from(a - b).powi(2));
            assert!(stored.codes.iter().all(|c| (stored.bits.least()..=stored.bits.limit()).contains(c)));
            (each.sum::<f64>(), stored.bits)
        };
        for group in [64, 16] {
            assert!(error(Bits::FourAsymmetric(group)).0 < error(Bits::Four(group)).0, "groups of {group}");
        }
        for four in [Bits::Four, Bits::FourAsymmetric] {
            let ways = [four(64), four(16), Bits::Eight, Bits::Sixteen];
            assert!(ways.windows(2).all(|w| error(w[1]).0 < error(w[0]).0), "{ways:?}");
        }
        assert_eq!(error(Bits::Four(48)).1, Bits::Eight, "48 does not divide 64");
        assert_eq!(Stored::nearest(&[0.0; 4], 2, Bits::Eight).scales, [1.0, 1.0]);
        // Of weights of one sign all sixteen integers are taken, and 0 stays 0.
        let stored = Stored::nearest(&[0.0, 1.0, 7.5, 15.0], 4, Bits::FourAsymmetric(4));
        assert_eq!((stored.zeros[..].to_vec(), stored.dequantised()), (vec![-8], vec![0.0, 1.0, 8.0, 15.0]));
    }
}
