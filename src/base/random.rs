//! The generator from which ONNX's reference implementation draws: MT19937 as NumPy's `RandomState` seeds and reads it.

const LEN: usize = 624;
/// Distance between the words that are mixed.
const SHIFT: usize = 397;

/// Matsumoto and Nishimura's MT19937.
#[derive(Debug, Clone)]
pub struct Mt19937 {
    state: [u32; LEN],
    next: usize,
}

impl Mt19937 {
    /// A generator with Knuth's seeding.
    pub fn new(seed: u32) -> Self {
        let mut state = [seed; LEN];
        for i in 1..LEN {
            let last = state[i - 1];
            state[i] = (last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Mt19937 { state, next: LEN }
    }

    fn word(&mut self) -> u32 {
        if self.next == LEN {
            for i in 0..LEN {
                let both = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % LEN] & 0x7fff_ffff);
                let odd = if both & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + SHIFT) % LEN] ^ (both >> 1) ^ odd;
            }
            self.next = 0;
        }
        let y = self.state[self.next];
        self.next += 1;
        let y = y ^ (y >> 11);
        let y = y ^ ((y << 7) & 0x9d2c_5680);
        let y = y ^ ((y << 15) & 0xefc6_0000);
        y ^ (y >> 18)
    }

    /// The next number in `[0, 1)`, of 53 bits.
    pub fn uniform(&mut self) -> f64 {
        let (high, low) = (self.word() >> 5, self.word() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_numpys() {
        // numpy.random.RandomState(0).uniform(size=1000), elements 0, 1, 2 and 999.
        let mut random = Mt19937::new(0);
        let drawn: Vec<f64> = (0..1000).map(|_| random.uniform()).collect();
        assert_eq!(drawn[..3], [0.5488135039273248, 0.7151893663724195, 0.6027633760716439]);
        assert_eq!(drawn[999], 0.6771411441114241);
    }
}
