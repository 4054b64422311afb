//! Lists of the nearest, and vectors of length 1.

/// Puts `found`, best first, into `best`, and keeps `k`. Of equal scores those in `best` stay before.
pub(super) fn merge(best: &mut Vec<(f32, u64)>, found: impl Iterator<Item = (f32, u64)>, k: usize) {
    let before = std::mem::replace(best, Vec::with_capacity(k));
    let (mut before, mut found) = (before.into_iter().peekable(), found.peekable());
    while best.len() < k {
        let takes_found = match (before.peek(), found.peek()) {
            (Some(a), Some(b)) => b.0.total_cmp(&a.0).is_gt(),
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => break,
        };
        best.extend(if takes_found { found.next() } else { before.next() });
    }
}

/// Rows of `dim` numbers over their lengths; zeros stay.
pub(crate) fn unit(mut rows: Vec<f32>, dim: usize) -> Vec<f32> {
    for row in rows.chunks_exact_mut(dim) {
        let length = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 {
            row.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_merged_best_first_and_equal_ones_in_their_order() {
        let mut best = vec![(3.0, 0), (1.0, 1)];
        merge(&mut best, [(3.0, 10), (2.0, 15), (1.0, 16)].into_iter(), 4);
        assert_eq!(best, [(3.0, 0), (3.0, 10), (2.0, 15), (1.0, 1)]);
        merge(&mut best, [].into_iter(), 2);
        assert_eq!(best, [(3.0, 0), (3.0, 10)]);
    }

    #[test]
    fn lengths_are_one_however_large_the_numbers_are() {
        assert_eq!(unit(vec![3.0 * 2f32.powi(100), 4.0 * 2f32.powi(100), 0.0, 0.0], 2), [0.6, 0.8, 0.0, 0.0]);
    }
}
