//! Register tiles: `ROWS` rows by `PANELS` panels of two vectors of columns, over the whole of a K block.
//!
//! A is packed `[k][ROWS]`, B `[k][2 * LANES]` (rows of B anywhere), C has any step between rows. Each sum is one chain over K, whatever
//! the tile: so that the adder's latency does not bound tiles of few rows, these take several panels side by side.

use std::ops::Range;

use super::simd::{Dot, Real};

/// One tile: `(k, a, b, places, c, c_step, accumulate)`; the step of C in elements, `b` is f32 or 16-bit storage as `STORE` says.
pub type Tile<P> = unsafe fn(usize, *const f32, *const u8, P, *mut f32, usize, bool);

/// The tiles of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Tiles<T: 'static> {
    /// Of 1, 2, ... rows and one panel.
    pub one: &'static [T],
    /// Of 1, 2, ... rows and so many panels.
    pub abreast: &'static [(usize, T)],
}

impl<T: Copy> Tiles<T> {
    /// Most rows.
    pub fn rows(&self) -> usize {
        self.one.len()
    }

    /// Panels that a tile of so many rows takes at most.
    pub fn panels(&self, rows: usize) -> usize {
        self.abreast.get(rows - 1).map_or(1, |&(count, _)| count)
    }

    /// Tiles of so many rows that take some panels one after the other, each with its first panel.
    pub fn over(&self, rows: usize, panels: Range<usize>) -> impl Iterator<Item = (usize, T)> {
        let mut next = panels.start;
        std::iter::from_fn(move || {
            let first = next;
            let (count, tile) = (first < panels.end).then(|| self.of(rows, panels.end - first))?;
            next += count;
            Some((first, tile))
        })
    }

    /// A tile of so many rows for at most so many panels, and for how many.
    pub fn of(&self, rows: usize, panels: usize) -> (usize, T) {
        self.abreast.get(rows - 1).copied().filter(|&(count, _)| count <= panels).unwrap_or((1, self.one[rows - 1]))
    }
}

/// Where the rows of B lie, in elements (groups, in tiles of bytes).
pub trait Places: Copy {
    /// Whether the groups of a row overlap: each begins one element after the one before. Places are then counted in elements.
    const OVERLAPPING: bool = false;

    /// Where row `k` of the first panel does.
    ///
    /// # Safety
    /// There is a row `k`.
    unsafe fn of(self, k: usize) -> usize;

    /// How far the next panel is.
    fn panel(self) -> usize;
}

/// Rows at equal distances.
#[derive(Clone, Copy)]
pub struct Step {
    pub row: usize,
    pub panel: usize,
}

impl Places for Step {
    #[inline(always)]
    unsafe fn of(self, k: usize) -> usize {
        k * self.row
    }

    #[inline(always)]
    fn panel(self) -> usize {
        self.panel
    }
}

/// Rows where a list says.
#[derive(Clone, Copy)]
pub struct List {
    pub rows: *const u32,
    pub panel: usize,
}

impl Places for List {
    #[inline(always)]
    unsafe fn of(self, k: usize) -> usize {
        // SAFETY: the caller's contract.
        unsafe { *self.rows.add(k) as usize }
    }

    #[inline(always)]
    fn panel(self) -> usize {
        self.panel
    }
}

/// Rows where a list says, of groups that overlap: of a line of pixels, each with those after it.
#[derive(Clone, Copy)]
pub struct Overlapping(pub List);

impl Places for Overlapping {
    const OVERLAPPING: bool = true;

    #[inline(always)]
    unsafe fn of(self, k: usize) -> usize {
        // SAFETY: the caller's contract.
        unsafe { self.0.of(k) }
    }

    #[inline(always)]
    fn panel(self) -> usize {
        self.0.panel
    }
}

/// Bytes that tiles of overlapping groups may read beyond as many as there are columns.
pub const OVERLAP_BYTES: usize = 16;

/// One tile of bytes: `(groups, a, b, places, start, c, c_step)`; sums start from `start`, one value a column. Places are counted
/// in groups.
pub type DotTile<P> = unsafe fn(usize, *const u8, *const i8, P, *const i32, *mut i32, usize);

/// Rows that a register of a matrix holds, and bytes of each.
pub const MATRIX: [usize; 2] = [16, 64];

/// Some rows of A times some panels of B in registers that hold matrices.
#[allow(dead_code)] // Each target uses its own.
#[derive(Debug, Clone, Copy)]
pub struct Matrices<'a> {
    /// Rows of A, at most 32. In multiples of 16 they are read, and as many rows of sums written.
    pub height: usize,
    /// Where the pieces of K begin in a panel of B, in bytes. A has 64 bytes a row and piece, one row after the other.
    pub pieces: &'a [u32],
    /// Groups of four elements of a piece, at most 16. A has zeros in place of those that B lacks: what is read there may be anything.
    pub groups: usize,
    /// Bytes from a row of B in a piece, 32 groups, to the next.
    pub row: usize,
    /// Bytes from a panel of B to the next.
    pub panel: usize,
    /// Panels of B.
    pub panels: usize,
    /// From the values that the sums of a panel start from, one a column, to those of the next.
    pub start_step: usize,
    /// Elements from a row of sums to the next.
    pub c_step: usize,
}

/// Tiles of matrices: `(matrices, a, b, start, c)`.
pub type MatrixTile = unsafe fn(&Matrices, *const u8, *const u8, *const i32, *mut i32);

/// The tiles of registers that hold matrices.
#[derive(Debug, Clone, Copy)]
pub struct MatrixTiles {
    /// Rows of A from which on products are worth it.
    pub least_rows: usize,
    /// Of u8 times s8.
    pub product: MatrixTile,
    /// Of s8 times u8.
    pub listed: MatrixTile,
}

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
/// The caller has enabled `V`'s instruction set; `a` holds `k * ROWS` elements, `b` `k` rows of two vectors at `places` in each panel,
/// `c` `ROWS` rows of two vectors a panel, `c_step` apart.
#[inline(always)]
pub unsafe fn real<V: Real, const ROWS: usize, const STORE: u8, const PANELS: usize, P: Places>(
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
        let at = |panel: usize, row: usize| c.add(row * c_step + panel * 2 * V::LANES);
        let mut sums = [[[V::zero(); 2]; ROWS]; PANELS];
        if accumulate {
            for (panel, sums) in sums.iter_mut().enumerate() {
                for (row, sum) in sums.iter_mut().enumerate() {
                    *sum = [V::load(at(panel, row)), V::load(at(panel, row).add(V::LANES))];
                }
            }
        }
        for i in 0..k {
            let a = a.add(i * ROWS);
            for (panel, sums) in sums.iter_mut().enumerate() {
                let row = places.of(i) + panel * places.panel();
                V::step(sums, a, [load::<V, STORE>(b, row), load::<V, STORE>(b, row + V::LANES)]);
            }
        }
        for (panel, sums) in sums.iter().enumerate() {
            for (row, sum) in sums.iter().enumerate() {
                sum[0].store(at(panel, row));
                sum[1].store(at(panel, row).add(V::LANES));
            }
        }
    }
}

/// # Safety
/// The caller has enabled `V`'s instruction set; `a` holds `groups * ROWS` groups of A, `b` `groups` rows of `2 * LANES` groups of
/// B at `places` in each panel, `start` two vectors a panel, `c` `ROWS` rows of two vectors a panel, `c_step` apart. With `SWAP`, A is
/// the signed side and B the unsigned one. Rows of groups that overlap are followed by
/// [`OVERLAP_BYTES`].
#[inline(always)]
pub unsafe fn dot<V: Dot, const ROWS: usize, const PANELS: usize, const SWAP: bool, P: Places>(
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
        let mut sums = [[[V::zero(); 2]; ROWS]; PANELS];
        for (panel, sums) in sums.iter_mut().enumerate() {
            let start = start.add(panel * 2 * V::LANES);
            *sums = [[V::load(start), V::load(start.add(V::LANES))]; ROWS];
        }
        for i in 0..groups {
            let a = a.add(i * ROWS * V::GROUP * V::A_BYTES);
            for (panel, sums) in sums.iter_mut().enumerate() {
                let at = places.of(i) + panel * places.panel();
                let b = if P::OVERLAPPING {
                    [V::load_overlapping(b.add(at)), V::load_overlapping(b.add(at + V::LANES))]
                } else {
                    let b = b.add(at * V::GROUP);
                    [V::load_b(b), V::load_b(b.add(V::LANES * V::GROUP))]
                };
                V::step::<ROWS, SWAP>(sums, a, b);
            }
        }
        for (panel, sums) in sums.iter().enumerate() {
            for (row, sum) in sums.iter().enumerate() {
                let to = c.add(row * c_step + panel * 2 * V::LANES);
                sum[0].store(to);
                sum[1].store(to.add(V::LANES));
            }
        }
    }
}
