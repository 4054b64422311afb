//! Removal of whole inputs of layers, the ones that are left making up for them.

use super::cholesky::{DAMPING, damp, inverse};
use super::gram::Gram;
use crate::error::Result;

/// A layer that reads channels, `width` columns of its weights [rows x k] each.
pub struct Reader {
    k: usize,
    width: usize,
    weights: Vec<f64>,
    /// Of the damped Gram matrix of the inputs that are left; zero for the others.
    inverse: Vec<f64>,
}

impl Reader {
    /// A layer with what goes into it. Errors when that was not finite.
    pub fn new(weights: &[f32], gram: &Gram, width: usize) -> Result<Reader> {
        let (k, mut matrix) = (gram.columns(), gram.matrix());
        damp(&mut matrix, k, DAMPING);
        let weights = weights.iter().map(|&w| f64::from(w)).collect();
        Ok(Reader { k, width, weights, inverse: inverse(&matrix, k)? })
    }

    /// The inverse of the part of the inverse that belongs to a channel.
    fn part(&self, channel: usize) -> Result<Vec<f64>> {
        let columns = || channel * self.width..(channel + 1) * self.width;
        let part: Vec<f64> = columns().flat_map(|i| self.inverse[i * self.k..][columns()].iter().copied()).collect();
        inverse(&part, self.width)
    }

    /// By how much the error of the outputs grows without a channel when all others make up for it.
    fn saliency(&self, channel: usize) -> Result<f64> {
        let part = self.part(channel)?;
        let row = |w: &[f64]| -> f64 {
            let own = &w[channel * self.width..][..self.width];
            own.iter().zip(part.chunks_exact(self.width)).map(|(w, p)| w * product(p, own)).sum()
        };
        Ok(self.weights.chunks_exact(self.k).map(row).sum())
    }

    /// Takes a channel away.
    fn remove(&mut self, channel: usize) -> Result<()> {
        let (k, width, first) = (self.k, self.width, channel * self.width);
        let part = self.part(channel)?;
        let lines = self.inverse[first * k..][..width * k].to_vec();
        for row in self.weights.chunks_exact_mut(k).chain(self.inverse.chunks_exact_mut(k)) {
            let own = row[first..first + width].to_vec();
            for (p, line) in part.chunks_exact(width).zip(lines.chunks_exact(k)) {
                let factor = product(p, &own);
                row.iter_mut().zip(line).for_each(|(v, l)| *v -= factor * l);
            }
            row[first..first + width].fill(0.0);
        }
        self.inverse[first * k..][..width * k].fill(0.0);
        Ok(())
    }

    /// The weights [rows x k]: zero for channels that are gone.
    pub fn weights(&self) -> Vec<f32> {
        self.weights.iter().map(|&w| w as f32).collect()
    }
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Removes `count` of `channels`, one after the other, each time the one whose loss the readers' outputs feel least (Kurtic and others,
/// "ZipLM", 2023). Gives those that are left, in order.
pub fn remove_channels(readers: &mut [Reader], channels: usize, count: usize) -> Result<Vec<usize>> {
    let mut left: Vec<usize> = (0..channels).collect();
    for _ in 0..count.min(channels.saturating_sub(1)) {
        let saliency = |&c: &usize| readers.iter().map(|r| r.saliency(c)).sum::<Result<f64>>();
        let all = left.iter().map(saliency).collect::<Result<Vec<f64>>>()?;
        let Some(least) = (0..all.len()).min_by(|&a, &b| all[a].total_cmp(&all[b])) else { break };
        let channel = left.remove(least);
        readers.iter_mut().try_for_each(|r| r.remove(channel))?;
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;
    use crate::calibrate::reconstruct::restrict;

    /// Twelve inputs, of which the last three repeat the first three.
    fn gram(random: &mut Xorshift) -> Gram {
        let mut gram = Gram::new(12);
        for _ in 0..200 {
            let mut row = random.reals(12, 1.0);
            row.copy_within(0..3, 9);
            gram.add(&row);
        }
        gram
    }

    #[test]
    fn what_others_know_goes_first_and_the_rest_is_the_least_squares_solution() {
        let mut random = Xorshift::new(4);
        let gram = gram(&mut random);
        let weights = random.reals(5 * 12, 1.0);
        let mut readers = [Reader::new(&weights, &gram, 3).unwrap()];
        let left = remove_channels(&mut readers, 4, 1).unwrap();
        assert!(left == [1, 2, 3] || left == [0, 1, 2], "one of the twins: {left:?}");
        let kept: Vec<usize> = left.iter().flat_map(|c| c * 3..c * 3 + 3).collect();
        let best = restrict(&weights, &gram, &kept).unwrap();
        let own = readers[0].weights();
        for (row, best) in own.chunks(12).zip(best.chunks(9)) {
            assert!(kept.iter().zip(best).all(|(&j, b)| (row[j] - b).abs() < 1e-4), "{row:?} {best:?}");
        }
    }

    #[test]
    fn at_least_one_channel_is_left_and_all_readers_have_a_say() {
        let mut random = Xorshift::new(5);
        let gram = gram(&mut random);
        let mut light = vec![0f32; 12];
        light[0..6].fill(1e-3);
        let mut heavy = vec![0f32; 12];
        heavy[6..12].fill(3.0);
        let mut readers = [light, heavy].map(|w| Reader::new(&w, &gram, 6).unwrap());
        assert_eq!(remove_channels(&mut readers, 2, 9).unwrap(), [1]);
    }
}
