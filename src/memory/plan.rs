//! Where each intermediate lies in one arena: lifetimes to offsets.

/// A buffer that lives from step `first` to step `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Size.
    pub bytes: usize,
    /// Step that writes it.
    pub first: usize,
    /// Last step that reads it.
    pub last: usize,
}

/// Every buffer starts on this boundary.
pub const ALIGN: usize = 64;

/// Offsets, one for each lifetime, and the arena's size. Greedy by size: largest first, each at the lowest offset that
/// is free for its whole life (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
pub fn place(lifetimes: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..lifetimes.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lifetimes[i].bytes), lifetimes[i].first));
    let mut offsets = vec![0; lifetimes.len()];
    let mut placed: Vec<usize> = Vec::new(); // by offset
    let mut size = 0;
    for i in order {
        let own = lifetimes[i];
        let mut at = 0;
        for &j in placed.iter().filter(|&&j| overlaps(&own, &lifetimes[j])) {
            if at + own.bytes <= offsets[j] {
                break;
            }
            at = at.max((offsets[j] + lifetimes[j].bytes).next_multiple_of(ALIGN));
        }
        offsets[i] = at;
        size = size.max(at + own.bytes);
        let position = placed.partition_point(|&j| offsets[j] <= at);
        placed.insert(position, i);
    }
    (offsets, size)
}

fn overlaps(a: &Lifetime, b: &Lifetime) -> bool {
    a.first <= b.last && b.first <= a.last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_alive_together_never_overlap_and_dead_ones_are_reused() {
        let life = |bytes, first, last| Lifetime { bytes, first, last };
        let all = [life(100, 0, 1), life(200, 1, 2), life(100, 2, 3), life(50, 0, 3), life(200, 3, 4)];
        let (offsets, size) = place(&all);
        for i in 0..all.len() {
            for j in 0..i {
                let apart = offsets[i] + all[i].bytes <= offsets[j] || offsets[j] + all[j].bytes <= offsets[i];
                assert!(apart || !overlaps(&all[i], &all[j]), "{i} and {j} overlap");
            }
        }
        assert!(size <= 448, "arena of {size} bytes");
    }
}
