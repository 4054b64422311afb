//! A quick placement.

use std::cmp::Reverse;

use super::lifetime::Lifetime;

/// Offsets, largest buffer first, each at the lowest offset that is free for its whole life (Pisarchyk and Lee, "Efficient Memory
/// Management for Deep Neural Net Inference", 2020).
pub fn by_size(lifetimes: &[Lifetime]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lifetimes.len()).collect();
    order.sort_by_key(|&i| (Reverse(lifetimes[i].bytes), lifetimes[i]));
    let mut offsets = vec![0; lifetimes.len()];
    let mut placed: Vec<usize> = Vec::new(); // by offset
    for i in order {
        let own = lifetimes[i];
        let mut at = 0;
        for &j in placed.iter().filter(|&&j| own.meets(&lifetimes[j])) {
            if at + own.bytes <= offsets[j] {
                break;
            }
            at = at.max(offsets[j] + lifetimes[j].bytes);
        }
        offsets[i] = at;
        placed.insert(placed.partition_point(|&j| offsets[j] <= at), i);
    }
    offsets
}

#[cfg(test)]
mod tests {
    use super::super::lifetime::check;
    use super::*;

    #[test]
    fn buffers_alive_together_never_overlap_and_dead_ones_are_reused() {
        let life = |bytes, first, last| Lifetime { bytes, first, last };
        let all = [life(128, 0, 1), life(256, 1, 2), life(128, 2, 3), life(64, 0, 3), life(256, 3, 4)];
        assert_eq!(check(&all, &by_size(&all), 1, 448), Ok(()));
    }
}
