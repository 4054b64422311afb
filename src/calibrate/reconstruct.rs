//! Weights that make up for what was taken from others: pruning and rounding by the optimal brain surgeon's update.
//!
//! A layer's weights lie as `rows` outputs of `k` inputs. What counts is the error of its outputs on the calibration's inputs X,
//! |(W - W') X^T|^2, which their Gram matrix tells. Columns are settled one after the other; each leaves its error to those after it, as
//! the upper factor U of the inverse Gram matrix says (Frantar and Alistarh, "SparseGPT", 2023; Frantar and others, "GPTQ", 2023). What
//! is left of a pruned row then goes to its least squares solution by coordinate descent.

use std::ops::Range;

use rayon::prelude::*;

use super::cholesky::{DAMPING, damp, inverse_factor, solve_rows};
use super::gram::Gram;
use crate::error::Result;

/// Columns that are settled before what they leave is spread over the columns after them.
const BLOCK: usize = 128;
/// Columns for which a mask is chosen at once. Weights settle in the light of what was chosen before them, so that few are better than
/// SparseGPT's 128.
const MASK: usize = 8;
/// Passes of coordinate descent: the error of ten is within a percent of the least there is.
const ROUNDS: usize = 10;

/// Which weights become zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sparsity {
    /// This share of a layer's, wherever they are.
    Share(f64),
    /// Two of every four that lie one after the other in a row; of an incomplete last group, what is more than two.
    TwoOfFour,
}

/// What goes into a layer: the Gram matrix, damped, and the upper factor of its inverse; `k` x `k` each.
#[derive(Debug, Clone)]
pub struct Curvature {
    k: usize,
    matrix: Vec<f64>,
    upper: Vec<f64>,
}

impl Curvature {
    /// Of these inputs. Errors when they were not finite.
    pub fn new(gram: &Gram) -> Result<Self> {
        let (k, mut matrix) = (gram.columns(), gram.matrix());
        damp(&mut matrix, k, DAMPING);
        Ok(Curvature { k, upper: inverse_factor(&matrix, k)?, matrix })
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.upper[i * self.k..][..self.k]
    }

    /// Of a weight that becomes zero: by how much the error grows when all columns after it make up for it.
    fn saliency(&self, column: usize, weight: f64) -> f64 {
        (weight / self.row(column)[column]).powi(2)
    }
}

/// Settles the columns of a block in all rows: `value` says what a weight becomes, given row, column and the row as it is then.
fn settle(
    weights: &mut [f64],
    inputs: &Curvature,
    block: Range<usize>,
    value: impl Fn(usize, usize, &[f64], &mut Vec<usize>) -> f64 + Sync,
) {
    weights.par_chunks_mut(inputs.k).enumerate().for_each(|(at, row)| {
        let (mut errors, mut chosen) = ([0.0; BLOCK], Vec::new());
        for i in block.clone() {
            let settled = value(at, i, row, &mut chosen);
            let error = (row[i] - settled) / inputs.row(i)[i];
            row[i] = settled;
            errors[i - block.start] = error;
            spread(&mut row[i + 1..block.end], error, &inputs.row(i)[i + 1..]);
        }
        for (i, error) in block.clone().zip(errors) {
            spread(&mut row[block.end..], error, &inputs.row(i)[block.end..]);
        }
    });
}

fn spread(to: &mut [f64], error: f64, by: &[f64]) {
    if error != 0.0 {
        to.iter_mut().zip(by).for_each(|(w, u)| *w -= error * u);
    }
}

fn blocks(k: usize, width: usize) -> impl Iterator<Item = Range<usize>> {
    (0..k).step_by(width).map(move |first| first..k.min(first + width))
}

/// Sets weights [rows x k] to zero; the others make up for it, towards the outputs of `target`, which may be the weights themselves.
pub fn prune(weights: &mut [f32], target: &[f32], inputs: &Curvature, sparsity: Sparsity) {
    let k = inputs.k;
    let mut wide: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
    for block in blocks(k, if sparsity == Sparsity::TwoOfFour { BLOCK } else { MASK }) {
        match sparsity {
            Sparsity::Share(share) => {
                let (mask, width) = (least(&wide, inputs, &block, share), block.len());
                let pruned = |row: usize, i: usize| mask[row * width + i - block.start];
                settle(&mut wide, inputs, block.clone(), |row, i, w, _| if pruned(row, i) { 0.0 } else { w[i] });
            }
            Sparsity::TwoOfFour => settle(&mut wide, inputs, block, |_, i, row, pruned| {
                if i % 4 == 0 {
                    *pruned = excess(i, row, |i, w| inputs.saliency(i, w));
                }
                if pruned.contains(&i) { 0.0 } else { row[i] }
            }),
        }
    }
    wide.par_chunks_mut(k).zip(target.par_chunks(k)).for_each(|(row, target)| descend(row, target, inputs));
    weights.iter_mut().zip(wide).for_each(|(w, v)| *w = v as f32);
}

/// Moves the weights of a row that are not zero towards the least error of its output, one after the other.
fn descend(row: &mut [f64], target: &[f32], inputs: &Curvature) {
    let k = inputs.k;
    let line = |j: usize| &inputs.matrix[j * k..][..k];
    let kept: Vec<usize> = (0..k).filter(|&j| row[j] != 0.0).collect();
    let difference: Vec<f64> = target.iter().zip(&*row).map(|(t, w)| f64::from(*t) - w).collect();
    let mut slope = vec![0.0; k];
    (0..k).for_each(|j| spread(&mut slope, -difference[j], line(j)));
    for &j in kept.iter().cycle().take(ROUNDS * kept.len()) {
        let step = slope[j] / line(j)[j];
        row[j] += step;
        spread(&mut slope, step, line(j));
    }
}

/// Which weights of a block, row by row, are the share that matters least.
fn least(weights: &[f64], inputs: &Curvature, block: &Range<usize>, share: f64) -> Vec<bool> {
    let rows = weights.chunks_exact(inputs.k).map(|row| &row[block.clone()]);
    let saliency: Vec<f64> = rows.flat_map(|row| block.clone().zip(row).map(|(i, &w)| inputs.saliency(i, w))).collect();
    let up_to = |column: usize| portion(saliency.len() / block.len() * column, share);
    smallest(&saliency, up_to(block.end) - up_to(block.start))
}

/// A share of `of`, to the nearest whole number.
pub fn portion(of: usize, share: f64) -> usize {
    (of as f64 * share).round() as usize
}

/// A mask of the `count` smallest numbers.
pub fn smallest(of: &[f64], count: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..of.len()).collect();
    order.sort_by(|&a, &b| of[a].total_cmp(&of[b]));
    let mut mask = vec![false; of.len()];
    order.iter().take(count).for_each(|&at| mask[at] = true);
    mask
}

/// Of the up to four columns from `first` on, those that are not among the two that matter most.
fn excess<T: Copy>(first: usize, row: &[T], saliency: impl Fn(usize, T) -> f64) -> Vec<usize> {
    let mut group: Vec<usize> = (first..row.len().min(first + 4)).collect();
    group.sort_by(|&a, &b| saliency(b, row[b]).total_cmp(&saliency(a, row[a])));
    group.split_off(group.len().min(2))
}

/// Sets the smallest weights [rows x k] to zero and leaves the others as they are.
pub fn prune_by_magnitude(weights: &mut [f32], k: usize, sparsity: Sparsity) {
    match sparsity {
        Sparsity::Share(share) => {
            let sizes: Vec<f64> = weights.iter().map(|w| f64::from(w.abs())).collect();
            weights
                .iter_mut()
                .zip(smallest(&sizes, portion(sizes.len(), share)))
                .filter(|(_, pruned)| *pruned)
                .for_each(|(w, _)| *w = 0.0);
        }
        Sparsity::TwoOfFour => {
            for row in weights.chunks_exact_mut(k) {
                for first in (0..k).step_by(4) {
                    excess(first, row, |_, w| f64::from(w.abs())).into_iter().for_each(|i| row[i] = 0.0);
                }
            }
        }
    }
}

/// Integers for weights, each `group` columns of a row with a scale and a zero point.
#[derive(Debug, Clone, Copy)]
pub struct Grid<'a> {
    /// Row by row, one for each group of columns, the last of which may be shorter.
    pub scales: &'a [f32],
    /// The integers that stand for 0, as many as scales.
    pub zeros: &'a [i8],
    /// Columns that share a scale.
    pub group: usize,
    /// The smallest and the largest integer: -127 and 127 for eight bits.
    pub limits: [i16; 2],
}

impl Grid<'_> {
    /// The integer for a weight, and what it stands for.
    fn nearest(&self, weight: f64, row: usize, column: usize, k: usize) -> (f64, f64) {
        let at = row * k.div_ceil(self.group) + column / self.group;
        let (scale, zero) = (f64::from(self.scales[at]), f64::from(self.zeros[at]));
        let [least, largest] = self.limits.map(f64::from);
        let code = ((weight / scale).round_ties_even() + zero).clamp(least, largest);
        (code, (code - zero) * scale)
    }
}

/// Rounds weights [rows x k] to a grid and lets those that are not rounded yet make up for the error. `weights` become what the integers
/// stand for; gives the integers.
pub fn round(weights: &mut [f32], inputs: &Curvature, grid: Grid) -> Vec<i16> {
    let k = inputs.k;
    let mut wide: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
    for block in blocks(k, BLOCK) {
        settle(&mut wide, inputs, block, |row, i, w, _| grid.nearest(w[i], row, i, k).1);
    }
    let each = wide.iter().zip(weights).enumerate().map(|(at, (v, w))| {
        let (code, value) = grid.nearest(*v, at / k, at % k, k);
        *w = value as f32;
        code as i16
    });
    each.collect()
}

/// The error of the outputs on the calibration's inputs, relative to the outputs: |(W - W') X^T| / |W X^T|.
pub fn relative_error(before: &[f32], after: &[f32], gram: &Gram) -> f64 {
    let difference: Vec<f64> = before.iter().zip(after).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
    let own: Vec<f64> = before.iter().map(|&w| f64::from(w)).collect();
    let (error, size) = (energy(&difference, gram), energy(&own, gram));
    if size > 0.0 { (error / size).sqrt() } else { 0.0 }
}

/// |W X^T|^2 of weights [rows x k].
pub fn energy(weights: &[f64], gram: &Gram) -> f64 {
    let k = gram.columns();
    let matrix = gram.matrix();
    let row = |w: &[f64]| -> f64 {
        let product = |(i, &wi): (usize, &f64)| wi * w.iter().zip(&matrix[i * k..]).map(|(w, g)| w * g).sum::<f64>();
        w.iter().enumerate().filter(|(_, w)| **w != 0.0).map(product).sum()
    };
    weights.par_chunks_exact(k.max(1)).map(row).sum::<f64>().max(0.0)
}

/// What has to be added to the bias so that the mean output stays: the old weights' mean output on their inputs less the new weights' on
/// theirs. Weights [rows x k], mean inputs `[k]`.
pub fn bias_correction(before: &[f32], mean_before: &[f64], after: &[f32], mean_after: &[f64]) -> Vec<f64> {
    let k = mean_before.len().max(1);
    let mean = |w: &[f32], x: &[f64]| w.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
    let rows = before.chunks_exact(k).zip(after.chunks_exact(k));
    rows.map(|(before, after)| mean(before, mean_before) - mean(after, mean_after)).collect()
}

/// Weights [rows x `kept`] on some of the columns alone, such that the outputs stay as near as they can to those of all, [rows x k].
/// Errors when what went in was not finite.
pub fn restrict(weights: &[f32], gram: &Gram, kept: &[usize]) -> Result<Vec<f32>> {
    let (k, mut matrix) = (gram.columns(), gram.matrix());
    damp(&mut matrix, k, DAMPING);
    let cross = |row: &[f32], j: usize| row.iter().zip(&matrix[j * k..]).map(|(w, h)| f64::from(*w) * h).sum::<f64>();
    let mut rows: Vec<f64> = weights.chunks_exact(k.max(1)).flat_map(|row| kept.iter().map(move |&j| cross(row, j))).collect();
    let inner: Vec<f64> = kept.iter().flat_map(|&i| kept.iter().map(move |&j| (i, j))).map(|(i, j)| matrix[i * k + j]).collect();
    solve_rows(&inner, kept.len(), &mut rows)?;
    Ok(rows.into_iter().map(|w| w as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    /// Inputs that hang together, their Gram matrix and weights.
    fn layer(rows: usize, k: usize, seed: u64) -> (Gram, Vec<f32>) {
        let mut random = Xorshift::new(seed);
        let mix = random.reals(k * k, 1.0);
        let mut gram = Gram::new(k);
        for _ in 0..4 * k {
            let x = random.reals(k, 1.0);
            let row: Vec<f32> = (0..k).map(|j| 0.3 + x[j] + (0..k).map(|i| 0.5 * x[i] * mix[i * k + j]).sum::<f32>()).collect();
            gram.add(&row);
        }
        (gram, random.reals(rows * k, 1.0))
    }

    fn zeros(weights: &[f32]) -> usize {
        weights.iter().filter(|w| **w == 0.0).count()
    }

    #[test]
    fn after_one_weight_the_others_are_the_least_squares_solution() {
        let (gram, weights) = layer(1, 9, 1);
        let inputs = Curvature::new(&gram).unwrap();
        let mut wide: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
        settle(&mut wide, &inputs, 0..9, |_, i, row, _| if i == 0 { 0.0 } else { row[i] });
        let best = restrict(&weights, &gram, &(1..9).collect::<Vec<_>>()).unwrap();
        assert!(
            wide[0] == 0.0 && wide[1..].iter().zip(&best).all(|(a, b)| (a - f64::from(*b)).abs() < 1e-5),
            "{wide:?} {best:?}"
        );
    }

    #[test]
    fn restricted_weights_are_at_the_minimum() {
        let (gram, weights) = layer(1, 8, 2);
        let kept = [1, 2, 4, 7];
        let restricted = restrict(&weights, &gram, &kept).unwrap();
        let error = |changed: usize, by: f32| {
            let mut all = [0f32; 8];
            kept.iter().zip(&restricted).for_each(|(&j, w)| all[j] = *w);
            all[kept[changed % 4]] += by;
            let damped = DAMPING * (0..8).map(|i| gram.product(i, i)).sum::<f64>() / 8.0;
            let apart: f64 = all.iter().zip(&weights).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            energy(&all.iter().zip(&weights).map(|(a, b)| f64::from(a - b)).collect::<Vec<_>>(), &gram) + damped * apart
        };
        assert!((0..4).all(|i| error(i, 1e-2) > error(0, 0.0) && error(i, -1e-2) > error(0, 0.0)));
    }

    #[test]
    fn pruning_makes_exactly_as_many_zeros_as_asked_for_and_beats_magnitude() {
        for (seed, rows, k) in [(3, 16, 12), (4, 16, 40), (5, 1, 150), (6, 7, 260)] {
            let (gram, weights) = layer(rows, k, seed);
            let inputs = Curvature::new(&gram).unwrap();
            for sparsity in [Sparsity::Share(0.25), Sparsity::Share(0.5), Sparsity::Share(0.75), Sparsity::TwoOfFour] {
                let (mut own, mut magnitude) = (weights.clone(), weights.clone());
                prune(&mut own, &weights, &inputs, sparsity);
                prune_by_magnitude(&mut magnitude, k, sparsity);
                let share = if let Sparsity::Share(share) = sparsity { share } else { 0.5 };
                let wanted = if k.is_multiple_of(4) { portion(rows * k, share) } else { zeros(&magnitude) };
                assert_eq!((zeros(&own), zeros(&magnitude)), (wanted, wanted), "{sparsity:?} of {k}");
                let error = |w: &[f32]| relative_error(&weights, w, &gram);
                assert!(error(&own) < 0.8 * error(&magnitude), "{sparsity:?} of {k}: {} {}", error(&own), error(&magnitude));
            }
        }
    }

    #[test]
    fn two_of_four_holds_in_every_group() {
        let (gram, mut weights) = layer(5, 139, 7);
        let target = weights.clone();
        prune(&mut weights, &target, &Curvature::new(&gram).unwrap(), Sparsity::TwoOfFour);
        for row in weights.chunks(139) {
            assert!(row.chunks(4).all(|group| group.len() - zeros(group) == 2.min(group.len())));
        }
    }

    #[test]
    fn rounding_with_the_others_making_up_for_it_is_nearer_than_rounding_each() {
        for (limit, group, k) in [(127i16, 140, 140), (7, 32, 140), (7, 48, 64)] {
            let (gram, weights) = layer(6, k, 8);
            let of = |part: &[f32]| part.iter().fold(0f32, |m, w| m.max(w.abs())) / f32::from(limit);
            let scales: Vec<f32> = weights.chunks(k).flat_map(|row| row.chunks(group).map(of)).collect();
            let grid = Grid { scales: &scales, zeros: &vec![0; scales.len()], group, limits: [-limit, limit] };
            let mut own = weights.clone();
            let codes = round(&mut own, &Curvature::new(&gram).unwrap(), grid);
            let scale = |at: usize| f64::from(scales[at / k * k.div_ceil(group) + at % k / group]);
            let stands_for = |at: usize| (f64::from(codes[at]) * scale(at)) as f32;
            assert!(own.iter().enumerate().all(|(at, w)| *w == stands_for(at)) && codes.iter().all(|c| c.abs() <= limit));
            let nearest = |(at, w): (usize, &f32)| grid.nearest(f64::from(*w), at / k, at % k, k).1 as f32;
            let plain: Vec<f32> = weights.iter().enumerate().map(nearest).collect();
            assert!(relative_error(&weights, &own, &gram) < relative_error(&weights, &plain, &gram));
        }
    }

    #[test]
    fn a_corrected_bias_keeps_the_mean() {
        let (gram, weights) = layer(3, 10, 9);
        let mut pruned = weights.clone();
        prune_by_magnitude(&mut pruned, 10, Sparsity::Share(0.5));
        let mean = gram.mean();
        let out = |w: &[f32], r: usize| (0..10).map(|j| f64::from(w[r * 10 + j]) * mean[j]).sum::<f64>();
        for (r, shift) in bias_correction(&weights, &mean, &pruned, &mean).into_iter().enumerate() {
            assert!((out(&pruned, r) + shift - out(&weights, r)).abs() < 1e-9);
        }
    }

    #[test]
    fn inputs_that_were_always_zero_are_judged_by_their_weights() {
        let mut gram = Gram::new(4);
        gram.add(&[1.0, 0.0, 2.0, 0.0, 2.0, 0.0, 1.0, 0.0]);
        let mut weights = vec![1.0, 0.1, 1.0, 3.0];
        prune(&mut weights, &[1.0, 0.1, 1.0, 3.0], &Curvature::new(&gram).unwrap(), Sparsity::Share(0.25));
        assert_eq!((weights[1], weights[3]), (0.0, 3.0));
        let mut none = vec![1.0, 2.0, 4.0, 3.0];
        prune(&mut none, &[1.0, 2.0, 4.0, 3.0], &Curvature::new(&Gram::new(4)).unwrap(), Sparsity::Share(0.5));
        assert_eq!(none, [0.0, 0.0, 4.0, 3.0], "without samples, by size");
    }
}
