//! A small matrix product for blocks that stay in cache: 4 rows by N columns in registers.

/// A row-major matrix: elements and the step from row to row.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub values: &'a [f32],
    pub step: usize,
}

/// `c[m, n] = a[m, k] b[k, n]` for `n` a multiple of N; rows of c lie `n` apart.
#[inline(always)]
pub(super) fn product<const N: usize>(a: Matrix, b: Matrix, c: &mut [f32], [m, n, k]: [usize; 3]) {
    for column in (0..n).step_by(N) {
        let mut row = 0;
        while row + 4 <= m {
            let sums = block::<4, N>(a, b, row, column, k);
            for (r, sums) in sums.iter().enumerate() {
                c[(row + r) * n + column..][..N].copy_from_slice(sums);
            }
            row += 4;
        }
        while row < m {
            let [sums] = block::<1, N>(a, b, row, column, k);
            c[row * n + column..][..N].copy_from_slice(&sums);
            row += 1;
        }
    }
}

#[inline(always)]
fn block<const M: usize, const N: usize>(a: Matrix, b: Matrix, row: usize, column: usize, k: usize) -> [[f32; N]; M] {
    let mut sums = [[0f32; N]; M];
    let rows: [&[f32]; M] = std::array::from_fn(|r| &a.values[(row + r) * a.step..][..k]);
    for (i, b) in b.values.chunks(b.step.max(1)).take(k).enumerate() {
        let b: &[f32; N] = b[column..].first_chunk().expect("invariant: n is a multiple of N");
        for (row, sums) in rows.iter().zip(&mut sums) {
            for j in 0..N {
                sums[j] = row[i].mul_add(b[j], sums[j]);
            }
        }
    }
    sums
}
