//! The float product: B in panels of two vectors, A in panels of up to `rows` rows, blocks that stay in the caches, and
//! finished row segments handed to a closure while they are hot.
//!
//! B may be stored as f32, f16, bf16, or i8 with scales by column; arithmetic is f32. Each sum is one chain over K: it depends on nothing but its
//! row of A and its column of B.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::blocks::{Ahead, SEGMENT, caches, cut, each_task, heights, present, with_buffer};
use super::interleave::interleave;
use super::simd::Portable;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::stored::{scale, widen};
use super::tile::{self, List, Places, Step, Tile, Tiles};
use crate::base::{AlignedBytes, DType};
use crate::hardware::Capabilities;

/// The tiles of one instruction set.
#[derive(Debug)]
pub struct Isa {
    pub(super) needs: Capabilities,
    /// Columns of a panel of B.
    pub columns: usize,
    /// For each storage of B.
    pub(super) tiles: [Tiles<Tile<Step>>; 3],
    /// For a B of f32 whose rows lie anywhere.
    pub listed: Tiles<Tile<List>>,
}

/// Plain Rust.
pub static PORTABLE: Isa = Isa {
    needs: Capabilities::empty(),
    columns: 16,
    tiles: [portable::<{ tile::F32 }, Step>(), portable::<{ tile::F16 }, Step>(), portable::<{ tile::BF16 }, Step>()],
    listed: portable::<{ tile::F32 }, List>(),
};
/// AVX2, 6x16.
#[cfg(target_arch = "x86_64")]
pub static AVX2: Isa = Isa {
    needs: Capabilities::AVX2,
    columns: 16,
    tiles: [avx2::<{ tile::F32 }, Step>(), avx2::<{ tile::F16 }, Step>(), avx2::<{ tile::BF16 }, Step>()],
    listed: avx2::<{ tile::F32 }, List>(),
};
/// AVX-512, 14x32.
#[cfg(target_arch = "x86_64")]
pub static AVX512: Isa = Isa {
    needs: Capabilities::AVX512,
    columns: 32,
    tiles: [avx512::<{ tile::F32 }, Step>(), avx512::<{ tile::F16 }, Step>(), avx512::<{ tile::BF16 }, Step>()],
    listed: avx512::<{ tile::F32 }, List>(),
};

#[rustfmt::skip]
const fn portable<const S: u8, P: Places>() -> Tiles<Tile<P>> {
    let one: &[Tile<P>] = const { &[tile::real::<Portable, 1, S, 1, P>, tile::real::<Portable, 2, S, 1, P>, tile::real::<Portable, 3, S, 1, P>,
        tile::real::<Portable, 4, S, 1, P>] };
    Tiles { one, abreast: &[] }
}

/// # Safety
/// As for [`tile::real`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2_tile<const R: usize, const S: u8, const N: usize, P: Places>(
    k: usize,
    a: *const f32,
    b: *const u8,
    places: P,
    c: *mut f32,
    c_step: usize,
    accumulate: bool,
) {
    // SAFETY: the instruction set is enabled here; the rest is the caller's contract.
    unsafe { tile::real::<Avx2, R, S, N, P>(k, a, b, places, c, c_step, accumulate) }
}

/// # Safety
/// As for [`tile::real`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn avx512_tile<const R: usize, const S: u8, const N: usize, P: Places>(
    k: usize,
    a: *const f32,
    b: *const u8,
    places: P,
    c: *mut f32,
    c_step: usize,
    accumulate: bool,
) {
    // SAFETY: the instruction set is enabled here; the rest is the caller's contract.
    unsafe { tile::real::<Avx512, R, S, N, P>(k, a, b, places, c, c_step, accumulate) }
}

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const fn avx2<const S: u8, P: Places>() -> Tiles<Tile<P>> {
    let one: &[Tile<P>] = const { &[avx2_tile::<1, S, 1, P>, avx2_tile::<2, S, 1, P>, avx2_tile::<3, S, 1, P>, avx2_tile::<4, S, 1, P>, avx2_tile::<5, S, 1, P>,
        avx2_tile::<6, S, 1, P>] };
    Tiles { one, abreast: const { &[(4, avx2_tile::<1, S, 4, P>), (2, avx2_tile::<2, S, 2, P>), (2, avx2_tile::<3, S, 2, P>)] } }
}

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const fn avx512<const S: u8, P: Places>() -> Tiles<Tile<P>> {
    let one: &[Tile<P>] = const { &[avx512_tile::<1, S, 1, P>, avx512_tile::<2, S, 1, P>, avx512_tile::<3, S, 1, P>, avx512_tile::<4, S, 1, P>, avx512_tile::<5, S, 1, P>,
        avx512_tile::<6, S, 1, P>, avx512_tile::<7, S, 1, P>, avx512_tile::<8, S, 1, P>, avx512_tile::<9, S, 1, P>, avx512_tile::<10, S, 1, P>,
        avx512_tile::<11, S, 1, P>, avx512_tile::<12, S, 1, P>, avx512_tile::<13, S, 1, P>, avx512_tile::<14, S, 1, P>] };
    Tiles { one, abreast: const { &[(4, avx512_tile::<1, S, 4, P>), (2, avx512_tile::<2, S, 2, P>), (2, avx512_tile::<3, S, 2, P>)] } }
}

/// B as the tiles read it.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// Rows.
    pub k: usize,
    /// Columns.
    pub n: usize,
    /// f32, f16, bf16, or i8 with scales.
    pub dtype: DType,
    /// One for each column of all panels, of i8.
    scales: &'a [f32],
    /// Whole panels; each row of a panel holds as many columns as the panel is wide.
    panels: &'a [u8],
    /// Elements from row to row of a panel, and from panel to panel.
    steps: (usize, usize),
    /// A last panel, packed, where `panels` cannot be read beyond the last column.
    tail: Option<&'a [u8]>,
    /// Bytes that are read after the product.
    ahead: &'a [u8],
}

/// Elements that [`pack_b`] writes.
pub fn packed_len(isa: &Isa, k: usize, n: usize) -> usize {
    n.div_ceil(isa.columns) * isa.columns * k
}

/// Lays B (element `(i, j)` at `b[i * row + j * col]`) out in panels, zeros beyond the last column.
pub fn pack_b<S: Copy + Sync, T: bytemuck::Pod + Send>(
    isa: &Isa,
    b: &[S],
    (row, col): (usize, usize),
    (k, n): (usize, usize),
    out: &mut [T],
    convert: impl Fn(S) -> T + Sync,
) {
    let width = isa.columns;
    if k == 0 || n == 0 {
        return;
    }
    let fill = |(j, panel): (usize, &mut [T])| {
        let first = j * width;
        let columns = width.min(n - first);
        for (i, line) in panel.chunks_exact_mut(width).enumerate() {
            for (c, to) in line[..columns].iter_mut().enumerate() {
                *to = convert(b[i * row + (first + c) * col]);
            }
            line[columns..].fill(T::zeroed());
        }
    };
    let panels = &mut out[..packed_len(isa, k, n)];
    if k * n > 1 << 16 && rayon::current_num_threads() > 1 {
        panels.par_chunks_exact_mut(k * width).enumerate().for_each(fill);
    } else {
        panels.chunks_exact_mut(k * width).enumerate().for_each(fill);
    }
}

impl<'a> Weights<'a> {
    /// What [`pack_b`] wrote.
    pub fn packed(isa: &Isa, k: usize, n: usize, dtype: DType, panels: &'a [u8]) -> Self {
        assert!(panels.len() >= packed_len(isa, k, n) * dtype.size_bytes(), "packed weights are too short");
        Weights { k, n, dtype, scales: &[], panels, steps: (isa.columns, isa.columns * k), tail: None, ahead: &[] }
    }

    /// The same of i8, each column with its scale; those of a last panel are as many as it has columns.
    pub fn scaled(isa: &Isa, k: usize, n: usize, scales: &'a [f32], panels: &'a [u8]) -> Self {
        assert!(scales.len() >= n.next_multiple_of(isa.columns), "too few scales");
        Weights { scales, ..Weights::packed(isa, k, n, DType::I8, panels) }
    }

    /// Row-major B read where it lies; `tail` is room for the last panel when it is not whole ([`packed_len`] of its columns).
    pub fn in_place(isa: &Isa, (k, n): (usize, usize), b: &'a [f32], row: usize, tail: &'a mut [f32]) -> Self {
        assert!(k == 0 || n == 0 || b.len() >= (k - 1) * row + n, "B is too short");
        let whole = n / isa.columns * isa.columns;
        let tail = (whole < n && k > 0).then(|| {
            pack_b(isa, &b[whole..], (row, 1), (k, n - whole), tail, |x| x);
            bytemuck::cast_slice(&*tail)
        });
        let (scales, panels, steps) = (&[], bytemuck::cast_slice(b), (row, isa.columns));
        Weights { k, n, dtype: DType::F32, scales, panels, steps, tail, ahead: &[] }
    }

    /// With what is read after the product.
    pub fn before(self, ahead: &'a [u8]) -> Self {
        Weights { ahead, ..self }
    }

    /// Rows from `k` on of panel `j`, at most `deep`, where they lie one after the other.
    fn rows(&self, isa: &Isa, j: usize, k: usize, deep: usize) -> &'a [u8] {
        let (row, panel) = self.steps;
        let size = if row == isa.columns { row * self.dtype.size_bytes() } else { 0 };
        &self.panels[(j * panel / row + k) * size..][..deep.min(self.k - k) * size]
    }

    fn store(&self) -> u8 {
        match self.dtype {
            DType::F16 => tile::F16,
            DType::BF16 => tile::BF16,
            _ => tile::F32,
        }
    }

    /// Panels of some, as many at a time as `abreast` where they lie side by side, else one: the first, and how many.
    fn together(&self, isa: &Isa, panels: Range<usize>, abreast: usize) -> impl Iterator<Item = (usize, usize)> {
        let whole = if self.tail.is_some() { self.n / isa.columns } else { usize::MAX };
        let mut j = panels.start;
        std::iter::from_fn(move || {
            let count = if j + abreast <= panels.end.min(whole) { abreast } else { 1 };
            j += count;
            (j <= panels.end).then(|| (j - count, count))
        })
    }

    /// What lies from row `k` of panel `j` on, and where its rows are.
    fn panel(&self, isa: &Isa, j: usize, k: usize) -> (&[u8], Step) {
        let size = self.dtype.size_bytes();
        match self.tail {
            Some(tail) if (j + 1) * isa.columns > self.n => {
                (&tail[k * isa.columns * size..], Step { row: isa.columns, panel: 0 })
            }
            _ => {
                let (row, panel) = self.steps;
                (&self.panels[(j * panel + k * row) * size..], Step { row, panel })
            }
        }
    }

    /// The same for `deep` rows of `count` packed panels of 8 or 16 bits, turned into f32.
    fn widened<'r>(
        &self,
        isa: &Isa,
        (j, count): (usize, usize),
        (k, deep): (usize, usize),
        room: &'r mut [f32],
    ) -> (&'r [u8], Step) {
        let len = deep * isa.columns;
        for (j, room) in (j..j + count).zip(room.chunks_exact_mut(len)) {
            let (panel, _) = self.panel(isa, j, k);
            match self.dtype {
                DType::I8 => scale(bytemuck::cast_slice(panel), &self.scales[j * isa.columns..][..isa.columns], room),
                _ => widen(self.dtype, &bytemuck::cast_slice(panel)[..len], room),
            }
        }
        (bytemuck::cast_slice(room), Step { row: isa.columns, panel: len })
    }
}

/// A, row by row.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    /// Element `(i, k)` at `a[i * row + k * col]`.
    Strided {
        /// The elements.
        a: &'a [f32],
        /// Step from row to row.
        row: usize,
        /// Step from column to column.
        col: usize,
    },
    /// Writes all K elements of a row.
    Each(&'a (dyn Fn(usize, &mut [f32]) + Sync)),
}

impl Rows<'_> {
    /// Rows `first..first + height` as `[k][height]`.
    fn pack(&self, first: usize, height: usize, k: usize, out: &mut [f32]) {
        match *self {
            _ if k == 0 => {}
            Rows::Strided { a, row, col: 1 } if height == 1 => out.copy_from_slice(&a[first * row..first * row + k]),
            Rows::Strided { a, row, col: 1 } => side_by_side(&a[first * row..], row, height, k, out),
            Rows::Strided { a, row, col: 0 } => {
                for (r, to) in (0..height).cycle().zip(out) {
                    *to = a[(first + r) * row];
                }
            }
            Rows::Strided { a, row, col } => {
                for r in 0..height {
                    let line = a[(first + r) * row..].iter().step_by(col);
                    out[r..].iter_mut().step_by(height).zip(line).for_each(|(to, &x)| *to = x);
                }
            }
            Rows::Each(fill) => with_buffer(&LINES, height * k * 4, |lines| {
                let lines: &mut [f32] = bytemuck::cast_slice_mut(lines);
                lines.chunks_exact_mut(k).enumerate().for_each(|(r, line)| fill(first + r, line));
                side_by_side(lines, k, height, k, out);
            }),
        }
    }
}

/// Rows of `k` elements, `step` apart, as `[k][height]`.
fn side_by_side(a: &[f32], step: usize, height: usize, k: usize, out: &mut [f32]) {
    interleave(bytemuck::cast_slice(a), step * 4, height, k, height, bytemuck::cast_slice_mut(out));
}

thread_local! {
    static BLOCK: RefCell<AlignedBytes> = RefCell::new(AlignedBytes::zeroed(0));
    static LINES: RefCell<AlignedBytes> = RefCell::new(AlignedBytes::zeroed(0));
    static PANEL: RefCell<AlignedBytes> = RefCell::new(AlignedBytes::zeroed(0));
}

/// Computes `m` rows of `A x B` and calls `done(row, first column, sums)` once for each segment of at most 256 columns, from
/// several threads.
pub fn product(isa: &Isa, m: usize, a: Rows, b: &Weights, done: &(dyn Fn(usize, usize, &mut [f32]) + Sync)) {
    assert!(present(isa.needs), "the processor lacks {}", isa.needs);
    let most = isa.tiles[0].rows();
    let panels = b.n.div_ceil(isa.columns);
    let cut = cut(m, panels, most, depth(isa, m, b.k) * 4, 2.0 * m as f64 * b.n as f64 * b.k as f64);
    each_task(m, panels, cut, |rows, part| {
        let (a_len, c_len) = (rows.len() * b.k, rows.len() * SEGMENT);
        with_buffer(&BLOCK, (a_len.next_multiple_of(16) + c_len) * 4, |buffer| {
            let (packed, sums) = bytemuck::cast_slice_mut::<u8, f32>(buffer).split_at_mut(a_len.next_multiple_of(16));
            for (first, height) in heights(rows.len(), most) {
                a.pack(rows.start + first, height, b.k, &mut packed[first * b.k..(first + height) * b.k]);
            }
            let group = SEGMENT / isa.columns;
            for start in part.clone().step_by(group) {
                let columns = start..(start + group).min(part.end);
                let after = if columns.end < part.end { b.rows(isa, columns.end, 0, b.k) } else { b.ahead };
                block(isa, rows.len(), packed, b, columns.clone(), sums, after);
                let (from, to) = (columns.start * isa.columns, (columns.end * isa.columns).min(b.n));
                for (r, line) in sums.chunks_exact_mut(SEGMENT).enumerate() {
                    done(rows.start + r, from, &mut line[..to - from]);
                }
            }
        });
    });
}

/// Elements of K of a block: of many rows, as many as keep the panels of a tile in the first cache; of few, as many as keep them there.
fn depth(isa: &Isa, rows: usize, k: usize) -> usize {
    let l1 = caches().l1d_bytes;
    let most = if rows > isa.tiles[0].rows() { l1 * 3 / 4 / (4 * isa.columns) } else { (l1 / 2 / (4 * rows.max(1))).max(256) };
    k.div_ceil(k.div_ceil(most).max(1))
}

/// Sums of a block of rows times some panels, [`SEGMENT`] apart. While they are computed what is read `after` is fetched.
fn block(isa: &Isa, rows: usize, a: &[f32], b: &Weights, panels: Range<usize>, sums: &mut [f32], after: &[u8]) {
    if b.k == 0 {
        return sums.fill(0.0);
    }
    let most = isa.tiles[0].rows();
    assert!(a.len() >= rows * b.k && sums.len() >= rows * SEGMENT && panels.len() * isa.columns <= SEGMENT);
    let depth = depth(isa, rows, b.k);
    // Panels of 16 bits that several row panels pass are turned into f32 once, those of 8 bits always.
    let once = b.dtype == DType::I8 || (b.dtype != DType::F32 && rows > most);
    let tiles = &isa.tiles[if once { tile::F32 } else { b.store() } as usize];
    let abreast = if rows > most { 1 } else { tiles.panels(rows) };
    with_buffer(&PANEL, if once { abreast * depth * isa.columns * 4 } else { 0 }, |room| {
        let room: &mut [f32] = bytemuck::cast_slice_mut(room);
        let all = (0..b.k).step_by(depth).flat_map(|k| b.together(isa, panels.clone(), abreast).map(move |j| (k, j)));
        let mut all = all.peekable();
        while let Some((k, (j, count))) = all.next() {
            let deep = depth.min(b.k - k);
            let next = all.peek().map_or(after, |&(k, (j, _))| b.rows(isa, j, k, depth));
            let ahead = Ahead::new(next, rows.div_ceil(most));
            let (panel, step) = if once { b.widened(isa, (j, count), (k, deep), room) } else { b.panel(isa, j, k) };
            for (i, (first, height)) in heights(rows, most).enumerate() {
                ahead.fetch(i);
                let a = a[first * b.k + k * height..].as_ptr();
                let c = sums[first * SEGMENT + (j - panels.start) * isa.columns..].as_mut_ptr();
                let (_, tile) = tiles.of(height, count);
                // SAFETY: `product` saw that the instruction set is there; the asserts here and where `Weights` is made bound
                // A, B and the sums.
                unsafe { tile(deep, a, panel.as_ptr(), step, c, SEGMENT, k > 0) };
            }
        }
    });
}
