//! Weights in panels of 32 columns, `[panels, k, 32]`, and their products with rows: f32, or exact sums of integers.

use crate::device::cpu::isa::Work;

/// Columns of a panel.
pub(super) const WIDTH: usize = 32;

/// Elements of the panels of a `[k, n]` matrix.
pub(super) fn panels_len(k: usize, n: usize) -> usize {
    n.div_ceil(WIDTH) * WIDTH * k
}

/// Panels of a `[k, n]` matrix whose element is `at(row, column)`, padded with zeros.
pub(super) fn pack<T: Copy + Default>(k: usize, n: usize, at: impl Fn(usize, usize) -> T) -> Vec<T> {
    let mut all = vec![T::default(); panels_len(k, n)];
    for (i, v) in all.iter_mut().enumerate() {
        let (panel, row, column) = (i / (k * WIDTH), i / WIDTH % k, i % WIDTH);
        if panel * WIDTH + column < n {
            *v = at(row, panel * WIDTH + column);
        }
    }
    all
}

/// An element of panels: what it is multiplied by, and what sums are made of.
pub(super) trait Weight: Copy + Default + Send + Sync + 'static {
    /// An element of a row.
    type Left: Copy + Send + Sync;
    /// A sum.
    type Sum: Copy + Default + Send + Sync;
    /// `sum + left * self`.
    fn add(self, left: Self::Left, sum: Self::Sum) -> Self::Sum;
}

impl Weight for f32 {
    type Left = f32;
    type Sum = f32;
    #[inline(always)]
    fn add(self, left: f32, sum: f32) -> f32 {
        left.mul_add(self, sum)
    }
}

/// Quantised weights less their zero point, times quantised elements less theirs: |sum| < 2^31 for k < 33,000.
impl Weight for i16 {
    type Left = i16;
    type Sum = i32;
    #[inline(always)]
    fn add(self, left: i16, sum: i32) -> i32 {
        sum + i32::from(left) * i32::from(self)
    }
}

/// `out[m, n] = rows[m, k] weights[k, n]` with four rows of N columns of sums in registers.
pub(super) struct Product<'a, W: Weight, const N: usize> {
    pub rows: &'a [W::Left],
    pub weights: &'a [W],
    pub out: &'a mut [W::Sum],
    pub k: usize,
    pub n: usize,
}

impl<W: Weight, const N: usize> Work for Product<'_, W, N> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let m = self.out.len().checked_div(self.n).unwrap_or(0);
        let (k, n) = (self.k, self.n);
        for column in (0..n).step_by(N) {
            // N divides the panel's width: a block of columns lies within one panel.
            let panel = &self.weights[column / WIDTH * k * WIDTH..];
            let (start, width) = (column % WIDTH, N.min(n - column));
            let mut row = 0;
            while row < m {
                let rows = &self.rows[row * k..];
                let mut put = |r: usize, sums: &[W::Sum; N]| {
                    self.out[(row + r) * n + column..][..width].copy_from_slice(&sums[..width]);
                };
                if row + 4 <= m {
                    block::<W, 4, N>(rows, panel, start, k).iter().enumerate().for_each(|(r, sums)| put(r, sums));
                    row += 4;
                } else {
                    put(0, &block::<W, 1, N>(rows, panel, start, k)[0]);
                    row += 1;
                }
            }
        }
    }
}

#[inline(always)]
fn block<W: Weight, const M: usize, const N: usize>(rows: &[W::Left], panel: &[W], start: usize, k: usize) -> [[W::Sum; N]; M] {
    let mut sums = [[W::Sum::default(); N]; M];
    let rows: [&[W::Left]; M] = std::array::from_fn(|r| &rows[r * k..][..k]);
    for (i, weights) in panel.chunks_exact(WIDTH).take(k).enumerate() {
        let weights: &[W; N] = weights[start..].first_chunk().expect("invariant: N divides the panel's width");
        for (row, sums) in rows.iter().zip(&mut sums) {
            for j in 0..N {
                sums[j] = weights[j].add(row[i], sums[j]);
            }
        }
    }
    sums
}
