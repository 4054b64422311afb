//! Gram matrices of what goes into a layer: the second moments that say what a change of its weights does to its outputs.
//!
//! Samples stream through; what is kept does not grow with them.

use rayon::prelude::*;

use crate::base::dot;
use crate::graph::problem::Window;

/// Rows whose products are summed in f32 before they go into the f64 sums.
const BLOCK: usize = 128;

/// X^T X and the column sums of all rows X that were added, of `columns` numbers each.
#[derive(Debug, Clone)]
pub struct Gram {
    columns: usize,
    rows: usize,
    /// The upper triangle, row-major with `columns` elements a row.
    products: Vec<f64>,
    sums: Vec<f64>,
}

impl Gram {
    /// Of no rows yet: 8 * `columns`^2 bytes.
    pub fn new(columns: usize) -> Gram {
        Gram { columns, rows: 0, products: vec![0.0; columns * columns], sums: vec![0.0; columns] }
    }

    /// One for each of `groups`; `None` where memory cannot hold them and the copies that a factorisation makes of one.
    pub fn all(columns: usize, groups: usize) -> Option<Vec<Gram>> {
        let numbers = columns.checked_mul(columns)?.checked_mul(groups.checked_add(3)?)?;
        Vec::<f64>::new().try_reserve_exact(numbers).ok()?;
        Some(vec![Gram::new(columns); groups])
    }

    /// Whether all sums are numbers.
    pub fn is_finite(&self) -> bool {
        self.products.iter().chain(&self.sums).all(|v| v.is_finite())
    }

    /// Columns of X.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How many rows were added.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The mean row; zeros before the first.
    pub fn mean(&self) -> Vec<f64> {
        self.sums.iter().map(|s| s / self.rows.max(1) as f64).collect()
    }

    /// X^T X, `columns` x `columns`.
    pub fn matrix(&self) -> Vec<f64> {
        let n = self.columns;
        (0..n * n).map(|at| self.product(at / n, at % n)).collect()
    }

    /// Sum over the rows of column `i` times column `j`.
    pub fn product(&self, i: usize, j: usize) -> f64 {
        self.products[i.min(j) * self.columns + i.max(j)]
    }

    /// Adds rows that lie one after the other; what is left of a last row that is not whole is ignored.
    pub fn add(&mut self, rows: &[f32]) {
        let n = self.columns;
        let mut columns = vec![0f32; n * BLOCK];
        for block in rows.chunks(n.max(1) * BLOCK) {
            let count = block.len() / n.max(1);
            for (j, column) in columns.chunks_exact_mut(BLOCK).enumerate() {
                column.iter_mut().enumerate().for_each(|(r, v)| *v = if r < count { block[r * n + j] } else { 0.0 });
                self.sums[j] += column.iter().map(|&v| f64::from(v)).sum::<f64>();
            }
            self.products.par_chunks_mut(n.max(1)).enumerate().for_each(|(i, products)| {
                let (own, rest) = columns[i * BLOCK..].split_at(BLOCK);
                let others = std::iter::once(own).chain(rest.chunks_exact(BLOCK));
                products[i..].iter_mut().zip(others).for_each(|(sum, other)| *sum += f64::from(dot(own, other)));
            });
            self.rows += count;
        }
    }
}

/// Adds what the window of a convolution sees of one image, channels x sizes: for each output pixel and group a row of the group's
/// channels x taps. One Gram matrix for each group.
pub fn add_windows(grams: &mut [Gram], image: &[f32], window: &Window) {
    let (plane, pixels) = (window.plane().max(1), window.pixels());
    let taps: Vec<Vec<usize>> = (0..window.taps()).map(|tap| position(tap, &window.kernel)).collect();
    let channels = image.len() / plane / grams.len().max(1);
    let mut rows = Vec::new();
    for (group, gram) in grams.iter_mut().enumerate() {
        let planes = &image[group * channels * plane..][..channels * plane];
        for first in (0..pixels).step_by(BLOCK) {
            rows.clear();
            for pixel in first..pixels.min(first + BLOCK) {
                let pixel = position(pixel, &window.output);
                let sources: Vec<Option<usize>> = taps.iter().map(|tap| source(&pixel, tap, window)).collect();
                let seen = |channel: &[f32], at: &Option<usize>| at.map_or(0.0, |at| channel[at]);
                rows.extend(planes.chunks_exact(plane).flat_map(|c| sources.iter().map(move |at| seen(c, at))));
            }
            gram.add(&rows);
        }
    }
}

/// Coordinates of element `at` of an array of these sizes.
fn position(mut at: usize, sizes: &[usize]) -> Vec<usize> {
    let mut coordinates = vec![0; sizes.len()];
    for (coordinate, &size) in coordinates.iter_mut().zip(sizes).rev() {
        (*coordinate, at) = (at % size, at / size);
    }
    coordinates
}

/// The input element that a tap reads for an output pixel; `None` in the padding.
fn source(pixel: &[usize], tap: &[usize], window: &Window) -> Option<usize> {
    (0..pixel.len()).try_fold(0, |at, i| {
        let x = usize::try_from(window.at(i, pixel[i], tap[i])).ok();
        x.filter(|&x| x < window.input[i]).map(|x| at * window.input[i] + x)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    #[test]
    fn sums_are_those_of_all_rows_however_they_come() {
        let (n, rows) = (7, 300);
        let x = Xorshift::new(3).reals(n * rows, 2.0);
        let (mut whole, mut parts) = (Gram::new(n), Gram::new(n));
        whole.add(&x);
        x.chunks(n * 11).for_each(|part| parts.add(part));
        for i in 0..n {
            let column = |j: usize| x.iter().skip(j).step_by(n).map(|&v| f64::from(v));
            assert!((whole.mean()[i] - column(i).sum::<f64>() / rows as f64).abs() < 1e-9);
            for j in 0..n {
                let want: f64 = column(i).zip(column(j)).map(|(a, b)| a * b).sum();
                assert!((whole.product(i, j) - want).abs() < 1e-3 && (parts.product(i, j) - want).abs() < 1e-3);
                assert_eq!(whole.matrix()[i * n + j], whole.product(j, i));
            }
        }
        assert_eq!((whole.rows(), parts.rows()), (rows, rows));
    }

    #[test]
    fn what_memory_cannot_hold_and_what_is_no_number_is_told() {
        assert!(Gram::all(1 << 24, 1).is_none() && Gram::all(usize::MAX, 2).is_none());
        let mut gram = Gram::all(3, 2).unwrap().swap_remove(1);
        gram.add(&[1.0, 2.0, 3.0]);
        assert!(gram.is_finite());
        gram.add(&[1e30, 0.0, f32::NAN]);
        assert!(!gram.is_finite());
    }

    #[test]
    fn windows_are_what_the_convolution_multiplies() {
        let window = Window {
            input: vec![4, 5],
            output: vec![2, 3],
            kernel: vec![3, 2],
            strides: vec![2, 2],
            dilations: vec![1, 2],
            pads: vec![1, 1],
            pads_end: vec![0, 1],
        };
        let image = Xorshift::new(5).reals(4 * 20, 1.0);
        let mut grams = vec![Gram::new(12), Gram::new(12)];
        add_windows(&mut grams, &image, &window);
        // The sum of squares of what a tap sees, by hand: tap (0, 1) of channel 3, which is the second of group 1.
        let at = |y: i64, x: i64| {
            if (0..4).contains(&y) && (0..5).contains(&x) { f64::from(image[(60 + y * 5 + x) as usize]) } else { 0.0 }
        };
        let seen = (0..2).flat_map(|oy| (0..3).map(move |ox| (oy * 2 - 1, ox * 2 - 1 + 2)));
        let want: f64 = seen.map(|(y, x)| at(y, x).powi(2)).sum();
        assert!((grams[1].product(7, 7) - want).abs() < 1e-5);
        assert_eq!(grams[0].rows(), 6);
    }
}
