//! A small matrix product for blocks that stay in cache: some rows by two vectors of columns in registers.

use crate::device::cpu::gemm::simd::Real;

/// A row-major matrix: elements and the step from row to row.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub values: &'a [f32],
    pub step: usize,
}

/// `c[m, n] = a[m, k] b[k, n]` for `n` a multiple of two vectors; rows of c lie `n` apart. Each element is one chain of fused
/// multiplications and additions over k, whatever the tile.
///
/// # Safety
/// The caller has enabled `V`'s instruction set.
#[inline(always)]
pub(super) unsafe fn product<V: Real, const ROWS: usize>(a: Matrix, b: Matrix, c: &mut [f32], [m, n, k]: [usize; 3]) {
    let holds = |of: Matrix, rows: usize, columns: usize| rows == 0 || (rows - 1) * of.step + columns <= of.values.len();
    assert!(
        n.is_multiple_of(2 * V::LANES) && holds(a, m, k) && holds(b, k, n) && m * n <= c.len(),
        "a product's operands are too short"
    );
    let steps = [a.step, b.step];
    for column in (0..n).step_by(2 * V::LANES) {
        let mut row = 0;
        while row < m {
            let whole = row + ROWS <= m;
            // SAFETY: the rows and columns of the tile lie within the operands, as seen above.
            unsafe {
                let (a, b, c) =
                    (a.values.as_ptr().add(row * a.step), b.values.as_ptr().add(column), c.as_mut_ptr().add(row * n + column));
                match whole {
                    true => tile::<V, ROWS>(k, (a, steps[0]), (b, steps[1]), (c, n)),
                    false => tile::<V, 1>(k, (a, steps[0]), (b, steps[1]), (c, n)),
                }
            }
            row += if whole { ROWS } else { 1 };
        }
    }
}

/// One tile; with each pointer the step from row to row.
///
/// # Safety
/// The caller has enabled `V`'s instruction set; a holds ROWS rows of k elements, b k rows and c ROWS rows of two vectors.
#[inline(always)]
unsafe fn tile<V: Real, const ROWS: usize>(
    k: usize,
    (a, a_step): (*const f32, usize),
    (b, b_step): (*const f32, usize),
    (c, c_step): (*mut f32, usize),
) {
    // SAFETY: the caller's contract covers each access.
    unsafe {
        let mut sums = [[V::zero(); 2]; ROWS];
        for i in 0..k {
            let b = b.add(i * b_step);
            let b = [V::load(b), V::load(b.add(V::LANES))];
            for (r, sum) in sums.iter_mut().enumerate() {
                let x = V::splat(*a.add(r * a_step + i));
                *sum = [x.mul_add(b[0], sum[0]), x.mul_add(b[1], sum[1])];
            }
        }
        for (r, sum) in sums.iter().enumerate() {
            let c = c.add(r * c_step);
            sum[0].store(c);
            sum[1].store(c.add(V::LANES));
        }
    }
}
