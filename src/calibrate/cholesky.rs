//! Symmetric positive definite systems of small size, in f64 (Golub and Van Loan, "Matrix Computations", chapter 4).

use std::ops::Range;

use rayon::prelude::*;

use crate::error::{Error, Result};

/// Columns that are settled in all rows below before the next ones: as many rows of the factor as stay in the cache.
const PANEL: usize = 64;

/// What is added to the diagonal of a Gram matrix, as a share of its mean: makes up for columns that are nearly the same, and for
/// those that were always zero, which are then judged by the size of their weights alone.
pub const DAMPING: f64 = 0.01;

/// Adds `damping` times the mean of the diagonal to it; 1 where all of it is zero.
pub fn damp(matrix: &mut [f64], n: usize, damping: f64) {
    let mean = matrix.iter().step_by(n + 1).sum::<f64>() / n.max(1) as f64;
    let more = if mean > 0.0 { damping * mean } else { 1.0 };
    matrix.iter_mut().step_by(n + 1).for_each(|v| *v += more);
}

/// Replaces a symmetric `n` x `n` matrix by its lower Cholesky factor L, L L^T = A; what is above the diagonal becomes 0. Errors when it
/// is not positive definite.
pub fn cholesky(a: &mut [f64], n: usize) -> Result<()> {
    for first in (0..n).step_by(PANEL) {
        let last = n.min(first + PANEL);
        let (done, below) = a.split_at_mut(last * n);
        for i in first..last {
            let (done, row) = done.split_at_mut(i * n);
            settle(&mut row[..n], done, first..i, n);
            let square = row[i] - dot(&row[..i], &row[..i]);
            if !(square > 0.0 && square.is_finite()) {
                return Err(Error::BadInput(format!("a Gram matrix of {n} columns is not positive definite at column {i}")));
            }
            row[i] = square.sqrt();
            row[i + 1..n].fill(0.0);
        }
        below.par_chunks_mut(n).for_each(|row| settle(row, done, first..last, n));
    }
    Ok(())
}

/// The elements of a row in the columns of a panel, whose rows of the factor are `done`.
fn settle(row: &mut [f64], done: &[f64], panel: Range<usize>, n: usize) {
    for j in panel {
        let other = &done[j * n..][..=j];
        row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut lanes = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    lanes.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

/// The inverse of a lower triangular matrix, lower triangular too.
pub fn triangular_inverse(l: &[f64], n: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; n * n];
    let panels: Vec<(usize, Vec<f64>)> =
        (0..n).into_par_iter().step_by(PANEL).map(|first| (first, inverse_columns(l, n, first..n.min(first + PANEL)))).collect();
    for (first, panel) in panels {
        let width = PANEL.min(n - first);
        for (row, part) in inverse.chunks_exact_mut(n).skip(first).zip(panel.chunks_exact(width)) {
            row[first..first + width].copy_from_slice(part);
        }
    }
    inverse
}

/// Some columns of the inverse of a lower triangular matrix, from row `columns.start` on; those before are zero.
fn inverse_columns(l: &[f64], n: usize, columns: Range<usize>) -> Vec<f64> {
    let (first, width) = (columns.start, columns.len());
    let mut x = vec![0.0; (n - first) * width];
    for i in first..n {
        let (done, row) = x.split_at_mut((i - first) * width);
        let row = &mut row[..width];
        if columns.contains(&i) {
            row[i - first] = 1.0;
        }
        for (factor, done) in l[i * n + first..i * n + i].iter().zip(done.chunks_exact(width)) {
            row.iter_mut().zip(done).for_each(|(v, d)| *v -= factor * d);
        }
        row.iter_mut().for_each(|v| *v /= l[i * n + i]);
    }
    x
}

/// The upper factor U of the inverse of a positive definite matrix, U^T U = A^-1. Row `i` of U, divided by its diagonal, is how the columns
/// after `i` make up for a change of column `i` when those before it stay (Frantar and others, "GPTQ", 2023, section 3.3).
pub fn inverse_factor(a: &[f64], n: usize) -> Result<Vec<f64>> {
    // With all rows and columns in the opposite order, A = L L^T; L^-1 in the opposite order is U.
    let mut lower: Vec<f64> = a.iter().rev().copied().collect();
    cholesky(&mut lower, n)?;
    let mut inverse = triangular_inverse(&lower, n);
    inverse.reverse();
    Ok(inverse)
}

/// The inverse of a positive definite matrix.
pub fn inverse(a: &[f64], n: usize) -> Result<Vec<f64>> {
    let upper = inverse_factor(a, n)?;
    let mut product = vec![0.0; n * n];
    for row in upper.chunks_exact(n.max(1)) {
        for (i, &left) in row.iter().enumerate().filter(|(_, v)| **v != 0.0) {
            product[i * n..][..n].iter_mut().zip(row).for_each(|(sum, right)| *sum += left * right);
        }
    }
    Ok(product)
}

/// Solves X A = B for the rows of B, `n` numbers each, in place. `a` is positive definite.
pub fn solve_rows(a: &[f64], n: usize, rows: &mut [f64]) -> Result<()> {
    let mut l = a.to_vec();
    cholesky(&mut l, n)?;
    for row in rows.chunks_exact_mut(n.max(1)) {
        for i in 0..n {
            row[i] = (row[i] - dot(&row[..i], &l[i * n..][..i])) / l[i * n + i];
        }
        for i in (0..n).rev() {
            row[i] /= l[i * n + i];
            let (before, from) = row.split_at_mut(i);
            before.iter_mut().zip(&l[i * n..]).for_each(|(v, l)| *v -= from[0] * l);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    fn positive(n: usize, seed: u64) -> Vec<f64> {
        let x: Vec<f64> = Xorshift::new(seed).reals(3 * n * n, 1.0).into_iter().map(f64::from).collect();
        let product = |i: usize, j: usize| (0..3 * n).map(|r| x[r * n + i] * x[r * n + j]).sum();
        (0..n * n).map(|at| product(at / n, at % n)).collect()
    }

    fn product(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
        (0..n * n).map(|at| (0..n).map(|k| a[at / n * n + k] * b[k * n + at % n]).sum()).collect()
    }

    fn transposed(a: &[f64], n: usize) -> Vec<f64> {
        (0..n * n).map(|at| a[at % n * n + at / n]).collect()
    }

    fn close(a: &[f64], b: &[f64]) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-8)
    }

    #[test]
    fn factors_multiply_to_what_they_factor() {
        for n in [1, 2, 5, 17, 64, 130] {
            let a = positive(n, n as u64);
            let identity: Vec<f64> = (0..n * n).map(|at| f64::from(u8::from(at / n == at % n))).collect();
            let mut l = a.clone();
            cholesky(&mut l, n).unwrap();
            assert!(close(&product(&l, &transposed(&l, n), n), &a));
            assert!(close(&product(&l, &triangular_inverse(&l, n), n), &identity));
            let inverse = inverse(&a, n).unwrap();
            assert!(close(&product(&inverse, &a, n), &identity));
            let u = inverse_factor(&a, n).unwrap();
            assert!((0..n).all(|i| (0..i).all(|j| u[i * n + j] == 0.0)), "upper");
            assert!(close(&product(&transposed(&u, n), &u, n), &inverse));
            let mut rows = a.clone();
            solve_rows(&a, n, &mut rows).unwrap();
            assert!(close(&rows, &identity));
        }
    }

    #[test]
    fn columns_that_were_always_zero_are_damped_and_numbers_that_are_none_refused() {
        let mut a = vec![4.0, 0.0, 0.0, 0.0];
        assert!(cholesky(&mut a.clone(), 2).is_err());
        damp(&mut a, 2, DAMPING);
        assert!(close(&inverse(&a, 2).unwrap(), &[1.0 / 4.02, 0.0, 0.0, 1.0 / 0.02]));
        let mut zero = vec![0.0; 4];
        damp(&mut zero, 2, DAMPING);
        assert_eq!(zero, [1.0, 0.0, 0.0, 1.0]);
        assert!(cholesky(&mut [f64::NAN], 1).is_err() && cholesky(&mut [f64::INFINITY], 1).is_err());
    }
}
