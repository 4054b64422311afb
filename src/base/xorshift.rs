//! Pseudo-random numbers for made-up inputs and for tests: the same from the same seed on every machine.

use super::{DType, Shape, Tensor};
use crate::error::Result;

/// Marsaglia's xorshift64 (13, 7, 17).
#[derive(Debug, Clone)]
pub struct Xorshift(u64);

impl Xorshift {
    /// A generator; every seed gives another sequence.
    pub fn new(seed: u64) -> Self {
        Xorshift(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// 64 bits, of which the upper ones are the better.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// An integer below `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 20) as usize % n.max(1)
    }

    /// A number in [0, 1), of 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number in [-1, 1).
    pub fn real(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// `n` numbers in [-scale, scale).
    pub fn reals(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.real() * scale).collect()
    }

    /// A tensor: reals in [-1, 1), wider integers in [-1000, 1000], truth values, and bytes of which one in eight is an
    /// extreme one; zeros of every other type. Errors when the size overflows.
    pub fn fill(&mut self, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        let zeros = Tensor::zeros(dtype, shape.clone())?;
        let n = zeros.numel();
        let mut byte = || if self.below(8) == 0 { [0u8, 127, 128, 255][self.below(4)] } else { self.bits() as u8 };
        match dtype {
            DType::U8 => Tensor::new(shape, &(0..n).map(|_| byte()).collect::<Vec<_>>()),
            DType::I8 => Tensor::new(shape, &(0..n).map(|_| byte() as i8).collect::<Vec<_>>()),
            DType::Bool => Tensor::from_raw(dtype, shape, &(0..n).map(|_| self.below(2) as u8).collect::<Vec<_>>()),
            DType::I32 => Tensor::new(shape, &(0..n).map(|_| self.below(2001) as i32 - 1000).collect::<Vec<_>>()),
            DType::I64 => Tensor::new(shape, &(0..n).map(|_| self.below(2001) as i64 - 1000).collect::<Vec<_>>()),
            DType::F16 => Tensor::new(shape, &(0..n).map(|_| half::f16::from_f32(self.real())).collect::<Vec<_>>()),
            DType::BF16 => Tensor::new(shape, &(0..n).map(|_| half::bf16::from_f32(self.real())).collect::<Vec<_>>()),
            DType::F32 => Tensor::new(shape, &self.reals(n, 1.0)),
            DType::F64 => Tensor::new(shape, &(0..n).map(|_| f64::from(self.real())).collect::<Vec<_>>()),
            _ => Ok(zeros),
        }
    }

    /// As [`Xorshift::fill`], for tests.
    #[cfg(test)]
    pub fn tensor(&mut self, dtype: DType, shape: &[usize]) -> Tensor {
        self.fill(dtype, shape).expect("invariant: tensors of tests are small")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_sequence_and_bytes_reach_their_extremes() {
        let draw = |seed| Xorshift::new(seed).tensor(DType::I8, &[512]);
        assert_eq!(draw(3).bytes(), draw(3).bytes());
        assert_ne!(draw(3).bytes(), draw(4).bytes());
        assert!(draw(0).to_f64().contains(&-128.0) && draw(0).to_f64().contains(&127.0));
        let reals = Xorshift::new(0).reals(4096, 2.0);
        let (least, most) = reals.iter().fold((0f32, 0f32), |(a, b), &v| (a.min(v), b.max(v)));
        assert!((-2.0..-1.99).contains(&least) && (1.99..2.0).contains(&most), "{least} {most}");
        assert!(Xorshift::new(0).fill(DType::F32, [usize::MAX, 2]).is_err());
    }
}
