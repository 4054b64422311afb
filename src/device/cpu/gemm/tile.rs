//! Register tiles: `ROWS` rows by two vectors of columns, over the whole of a K block.
//!
//! A is packed `[k][ROWS]`, B `[k][2 * LANES]` (rows of B anywhere), C has any step between rows. Tiles of few rows
//! keep several sets of sums, so that the adder's latency does not bound them.

use super::simd::{Dot, Real};

/// One tile: `(k, a, b, places, c, c_step, accumulate)`; the step of C in elements, `b` is f32 or 16-bit storage as `STORE` says.
pub type Tile<P> = unsafe fn(usize, *const f32, *const u8, P, *mut f32, usize, bool);

/// Where the rows of B lie, in elements (groups, in tiles of bytes).
pub trait Places: Copy {
    /// Where row `k` does.
    ///
    /// # Safety
    /// There is a row `k`.
    unsafe fn of(self, k: usize) -> usize;
}

/// Rows at equal distances.
#[derive(Clone, Copy)]
pub struct Step(pub usize);

impl Places for Step {
    #[inline(always)]
    unsafe fn of(self, k: usize) -> usize {
        k * self.0
    }
}

/// Rows where a list says.
#[derive(Clone, Copy)]
pub struct List(pub *const u32);

impl Places for List {
    #[inline(always)]
    unsafe fn of(self, k: usize) -> usize {
        // SAFETY: the caller's contract.
        unsafe { *self.0.add(k) as usize }
    }
}

/// One tile of bytes: `(groups, a, b, places, start, c, c_step)`; sums start from `start`, one value a column. Places are counted
/// in groups.
pub type DotTile<P> = unsafe fn(usize, *const u8, *const i8, P, *const i32, *mut i32, usize);

/// B stored as f32.
pub const F32: u8 = 0;
/// B stored as f16.
pub const F16: u8 = 1;
/// B stored as bf16.
pub const BF16: u8 = 2;

/// # Safety
/// The caller has enabled `V`'s instruction set. `b` holds vectors from `at` on.
#[inline(always)]
unsafe fn load<V: Real, const STORE: u8>(b: *const u8, at: usize) -> V {
    // SAFETY: the caller's contract.
    unsafe {
        match STORE {
            F16 => V::load_f16(b.cast::<u16>().add(at)),
            BF16 => V::load_bf16(b.cast::<u16>().add(at)),
            _ => V::load(b.cast::<f32>().add(at)),
        }
    }
}

/// # Safety
/// The caller has enabled `V`'s instruction set; `a` holds `k * ROWS` elements, `b` `k` rows of two vectors at `places`,
/// `c` `ROWS` rows of two vectors `c_step` apart.
#[inline(always)]
pub unsafe fn real<V: Real, const ROWS: usize, const STORE: u8, const SETS: usize, P: Places>(
    k: usize,
    a: *const f32,
    b: *const u8,
    places: P,
    c: *mut f32,
    c_step: usize,
    accumulate: bool,
) {
    // SAFETY: the caller's contract covers each access below.
    unsafe {
        let mut sums = [[[V::zero(); 2]; ROWS]; SETS];
        let mut at = 0;
        while at + SETS <= k {
            for (set, sums) in sums.iter_mut().enumerate() {
                real_step::<V, ROWS, STORE>(sums, a.add((at + set) * ROWS), b, places.of(at + set));
            }
            at += SETS;
        }
        while at < k {
            real_step::<V, ROWS, STORE>(&mut sums[0], a.add(at * ROWS), b, places.of(at));
            at += 1;
        }
        let (first, rest) = sums.split_at_mut(1);
        for set in rest.iter() {
            for (sum, more) in first[0].iter_mut().zip(set) {
                *sum = [sum[0].add(more[0]), sum[1].add(more[1])];
            }
        }
        for (r, sum) in first[0].iter().enumerate() {
            for (v, sum) in sum.iter().enumerate() {
                let p = c.add(r * c_step + v * V::LANES);
                if accumulate { V::load(p).add(*sum).store(p) } else { sum.store(p) }
            }
        }
    }
}

/// One step of K.
///
/// # Safety
/// As for [`real`].
#[inline(always)]
unsafe fn real_step<V: Real, const ROWS: usize, const STORE: u8>(
    sums: &mut [[V; 2]; ROWS],
    a: *const f32,
    b: *const u8,
    at: usize,
) {
    // SAFETY: the caller's contract.
    unsafe {
        V::step(sums, a, [load::<V, STORE>(b, at), load::<V, STORE>(b, at + V::LANES)]);
    }
}

/// # Safety
/// The caller has enabled `V`'s instruction set; `a` holds `groups * ROWS` groups of A, `b` `groups` rows of `2 * LANES` groups of
/// B at `places`, `start` two vectors, `c` `ROWS` rows of two vectors `c_step` apart. With `SWAP`, A is the signed side and B the
/// unsigned one.
#[inline(always)]
pub unsafe fn dot<V: Dot, const ROWS: usize, const SETS: usize, const SWAP: bool, P: Places>(
    groups: usize,
    a: *const u8,
    b: *const i8,
    places: P,
    start: *const i32,
    c: *mut i32,
    c_step: usize,
) {
    // SAFETY: the caller's contract covers each access below.
    unsafe {
        let mut sums = [[[V::zero(); 2]; ROWS]; SETS];
        sums[0] = [[V::load(start), V::load(start.add(V::LANES))]; ROWS];
        let mut at = 0;
        while at + SETS <= groups {
            for (set, sums) in sums.iter_mut().enumerate() {
                dot_step::<V, ROWS, SWAP>(sums, a.add((at + set) * ROWS * V::GROUP * V::A_BYTES), b, places.of(at + set));
            }
            at += SETS;
        }
        while at < groups {
            dot_step::<V, ROWS, SWAP>(&mut sums[0], a.add(at * ROWS * V::GROUP * V::A_BYTES), b, places.of(at));
            at += 1;
        }
        let (first, rest) = sums.split_at_mut(1);
        for set in rest.iter() {
            for (sum, more) in first[0].iter_mut().zip(set) {
                *sum = [sum[0].add(more[0]), sum[1].add(more[1])];
            }
        }
        for (r, sum) in first[0].iter().enumerate() {
            sum[0].store(c.add(r * c_step));
            sum[1].store(c.add(r * c_step + V::LANES));
        }
    }
}

/// One group of K.
///
/// # Safety
/// As for [`dot`].
#[inline(always)]
unsafe fn dot_step<V: Dot, const ROWS: usize, const SWAP: bool>(
    sums: &mut [[V; 2]; ROWS],
    a: *const u8,
    b: *const i8,
    at: usize,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let b = b.add(at * V::GROUP);
        V::step::<ROWS, SWAP>(sums, a, [V::load_b(b), V::load_b(b.add(V::LANES * V::GROUP))]);
    }
}
