//! The exact offline optimum: fewest lost requests when all arrivals are known, by a dynamic programme over the minimum finish time of the
//! first i requests with m of them lost. Requests are alike, so that some optimum serves them in order of arrival.

use super::device::Device;

/// The fewest requests that must be late or given up; `None` when that is more than `most`. Arrivals are in ascending order, each due `target_s` later.
pub fn fewest_lost(arrivals_s: &[f64], device: &Device, target_s: f64, most: usize) -> Option<usize> {
    const EPSILON: f64 = 1e-12;
    let (count, width) = (arrivals_s.len(), most + 1);
    let times: Vec<f64> = (0..=device.max_batch).map(|rows| device.time_s(rows)).collect();
    let reach = device.max_batch + 1;
    // Finish times of the next `reach` states, a ring of rows.
    let mut finish = vec![f64::INFINITY; reach * width];
    finish[..width].fill(0.0);
    finish[1..width].fill(f64::INFINITY);
    for i in 0..count {
        let row = i % reach * width;
        for lost in 0..width {
            let free_s = finish[row + lost];
            if free_s == f64::INFINITY {
                continue;
            }
            if lost + 1 < width {
                let next = &mut finish[(i + 1) % reach * width + lost + 1];
                *next = next.min(free_s);
            }
            for rows in 1..=device.max_batch.min(count - i) {
                let start_s = free_s.max(arrivals_s[i + rows - 1]);
                if start_s + times[1] > arrivals_s[i] + target_s + EPSILON {
                    break;
                }
                let end_s = start_s + times[rows];
                if end_s <= arrivals_s[i] + target_s + EPSILON {
                    let next = &mut finish[(i + rows) % reach * width + lost];
                    *next = next.min(end_s);
                }
            }
        }
        finish[row..row + width].fill(f64::INFINITY);
    }
    let last = count % reach * width;
    finish[last..last + width].iter().position(|t| t.is_finite())
}

/// The highest rate between `low` and `high` that holds, by 13 bisections.
pub fn highest_rate(mut low: f64, mut high: f64, mut holds: impl FnMut(f64) -> bool) -> f64 {
    for _ in 0..13 {
        let middle = 0.5 * (low + high);
        if holds(middle) { low = middle } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    /// All ways: each request in turn is lost, or begins a batch of the next ones; batches start as early as they can or later.
    fn brute(arrivals: &[f64], device: &Device, target_s: f64, free_s: f64) -> usize {
        let Some((first, rest)) = arrivals.split_first() else { return 0 };
        let mut best = 1 + brute(rest, device, target_s, free_s);
        for rows in 1..=arrivals.len().min(device.max_batch) {
            let end_s = free_s.max(arrivals[rows - 1]) + device.time_s(rows);
            if end_s <= first + target_s + 1e-12 {
                best = best.min(brute(&arrivals[rows..], device, target_s, end_s));
            }
        }
        best
    }

    /// All subsets, all batches of any members: also those that are not neighbours.
    fn any_members(arrivals: &[f64], device: &Device, target_s: f64, free_s: f64, left: u32) -> usize {
        let mut most = 0;
        let mut set = left;
        while set > 0 {
            let members = || (0..arrivals.len()).filter(|i| set >> i & 1 == 1);
            let rows = set.count_ones() as usize;
            if rows <= device.max_batch {
                let ready = members().map(|i| arrivals[i]).fold(free_s, f64::max);
                let end_s = ready + device.time_s(rows);
                if members().all(|i| end_s <= arrivals[i] + target_s + 1e-12) {
                    most = most.max(rows + any_members(arrivals, device, target_s, end_s, left & !set));
                }
            }
            set = (set - 1) & left;
        }
        most
    }

    #[test]
    fn the_optimum_is_that_of_all_ways() {
        let mut random = Xorshift::new(9);
        for case in 0..300 {
            let count = 1 + random.below(if case % 3 == 0 { 6 } else { 9 });
            let mut arrivals: Vec<f64> = (0..count).map(|_| random.unit() * 12.0).collect();
            arrivals.sort_by(f64::total_cmp);
            let tile = 1 + random.below(3);
            let device = Device {
                name: "small",
                base_s: 0.2 + 2.0 * random.unit(),
                row_s: random.unit(),
                tile,
                max_batch: 1 + random.below(5),
            };
            let target_s = 1.0 + 5.0 * random.unit();
            let found = fewest_lost(&arrivals, &device, target_s, count);
            assert_eq!(found, Some(brute(&arrivals, &device, target_s, 0.0)), "case {case}");
            if count <= 6 {
                assert_eq!(found, Some(count - any_members(&arrivals, &device, target_s, 0.0, (1 << count) - 1)), "case {case}");
            }
            let most = found.unwrap();
            assert!(most == 0 || fewest_lost(&arrivals, &device, target_s, most - 1).is_none());
        }
    }

    #[test]
    fn bisection_finds_a_threshold() {
        assert!((highest_rate(0.0, 100.0, |r| r < 37.0) - 37.0).abs() < 0.02);
    }
}
