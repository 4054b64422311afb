//! Weights as integers.

use crate::base::quant::quantize;

/// How weights are stored, all with symmetric scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Bits {
    /// In [-7, 7], a scale for so many weights of a row; where a row is no multiple of that, and of other layers than products, 8 bits.
    Four(usize),
    /// In [-127, 127], a scale for each row.
    #[default]
    Eight,
    /// In [-32767, 32767], a scale for each row.
    Sixteen,
}

impl Bits {
    /// The largest integer.
    pub fn limit(self) -> i16 {
        match self {
            Bits::Four(_) => 7,
            Bits::Eight => 127,
            Bits::Sixteen => i16::MAX,
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
    /// Weights of a row that share a scale: a divisor of k.
    pub group: usize,
    /// What the integers are.
    pub bits: Bits,
}

impl Stored {
    /// Each weight of rows of `k` to the nearest integer, with scales for the largest ones.
    pub fn nearest(weights: &[f32], k: usize, bits: Bits) -> Self {
        let (bits, group) = match bits {
            Bits::Four(group) if group > 1 && k.is_multiple_of(group) => (bits, group),
            Bits::Four(_) => (Bits::Eight, k),
            _ => (bits, k),
        };
        let limit = bits.limit();
        let scale = |part: &[f32]| match part.iter().fold(0f32, |m, w| m.max(w.abs())) {
            0.0 => 1.0,
            largest => largest / f32::from(limit),
        };
        let scales: Vec<f32> = weights.chunks_exact(group.max(1)).map(scale).collect();
        let code = |w: f32, scale: f32| quantize(w, scale, 0, (-limit).into(), limit.into()) as i16;
        let groups = weights.chunks_exact(group.max(1)).zip(&scales);
        let codes = groups.flat_map(|(part, &scale)| part.iter().map(move |&w| code(w, scale))).collect();
        Stored { codes, scales, group, bits }
    }

    /// The weights that the integers stand for, [rows x k].
    pub fn dequantised(&self) -> Vec<f32> {
        let groups = self.codes.chunks_exact(self.group.max(1)).zip(&self.scales);
        groups.flat_map(|(part, scale)| part.iter().map(move |&c| f32::from(c) * scale)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    #[test]
    fn more_bits_and_smaller_groups_are_nearer() {
        let weights = Xorshift::new(2).reals(6 * 64, 1.0);
        let error = |bits| {
            let stored = Stored::nearest(&weights, 64, bits);
            let each = stored.dequantised().into_iter().zip(&weights).map(|(a, b)| f64::from(a - b).powi(2));
            assert!(stored.codes.iter().all(|c| c.abs() <= stored.bits.limit()));
            (each.sum::<f64>(), stored.bits)
        };
        let ways = [Bits::Four(64), Bits::Four(16), Bits::Eight, Bits::Sixteen];
        assert!(ways.windows(2).all(|w| error(w[1]).0 < error(w[0]).0));
        assert_eq!(error(Bits::Four(48)).1, Bits::Eight, "48 does not divide 64");
        assert_eq!(Stored::nearest(&[0.0; 4], 2, Bits::Eight).scales, [1.0, 1.0]);
    }
}
