//! The times that matter.

use std::ops::Range;

use super::lifetime::Lifetime;

/// For each lifetime the range of **sections** that it covers, and how many sections there are. A section is a time at which a largest
/// set of buffers is alive: buffers that are apart at all sections are apart always (the maximal cliques of an interval graph).
pub fn sections(lifetimes: &[Lifetime]) -> (Vec<Range<usize>>, usize) {
    let mut events: Vec<(usize, bool)> = lifetimes.iter().flat_map(|l| [(l.first, false), (l.last, true)]).collect();
    events.sort_unstable(); // births before deaths, as a buffer is alive at both of its steps
    let mut times = Vec::new();
    let mut born = false;
    for (time, death) in events {
        if death && born {
            times.push(time);
        }
        born = !death;
    }
    let covered = |l: &Lifetime| times.partition_point(|&t| t < l.first)..times.partition_point(|&t| t <= l.last);
    (lifetimes.iter().map(covered).collect(), times.len())
}

/// Most bytes alive at one time: no placement needs less. Saturates.
pub fn max_live(lifetimes: &[Lifetime]) -> usize {
    let (spans, count) = sections(lifetimes);
    let mut live = vec![0usize; count];
    for (life, span) in lifetimes.iter().zip(spans) {
        live[span].iter_mut().for_each(|l| *l = l.saturating_add(life.bytes));
    }
    live.into_iter().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_largest_sets_of_live_buffers_count() {
        let life = |first, last, bytes| Lifetime { first, last, bytes };
        // Alive at 0..=5: {a}, {ab}, {ab}, {bc}, {c}, {}, and d by itself at 9.
        let all = [life(0, 2, 1), life(1, 3, 10), life(3, 4, 100), life(9, 9, 5)];
        let (spans, count) = sections(&all);
        assert_eq!((spans, count), (vec![0..1, 0..2, 1..2, 2..3], 3));
        assert_eq!(max_live(&all), 110);
        assert_eq!(max_live(&[]), 0);
    }
}
