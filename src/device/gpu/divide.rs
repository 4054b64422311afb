//! Division by a number known at launch, as a multiplication.

/// `magic` and `shift` such that `n / divisor == (mulhi(n, magic) + n) >> shift` for every `n` below 2^31.
/// Source: Granlund and Montgomery, Division by Invariant Integers using Multiplication, 1994, figure 4.1.
pub fn magic(divisor: u32) -> (u32, u32) {
    let d = u64::from(divisor.max(1));
    let shift = d.next_power_of_two().trailing_zeros();
    let magic = ((1u64 << 32) * ((1u64 << shift) - d)) / d + 1;
    (magic as u32, shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    #[test]
    fn quotients_are_exact() {
        let mut r = Xorshift::new(3);
        for _ in 0..20_000 {
            let d = 1 + (r.bits() as u32 >> (1 + r.below(31)));
            let n = match r.below(3) {
                0 => (r.bits() as u32) >> 1,
                1 => (d as u64 * r.below(1 << 16) as u64).min(i32::MAX as u64) as u32,
                _ => (d as u64 * r.below(1 << 16) as u64 + d as u64 - 1).min(i32::MAX as u64) as u32,
            };
            let (magic, shift) = magic(d);
            let high = ((u64::from(n) * u64::from(magic)) >> 32) as u32;
            assert_eq!((high + n) >> shift, n / d, "{n} / {d}");
        }
    }
}
