//! The exact 8-bit product: A u8 times B s8, summed in i32 without saturation. Other types and zero points come down to it:
//! with `a' = a + 128` and `b' = b - 128` where the sign differs,
//! `sum (a - za)(b - zb) = sum a'b' - za' colsum(b') - zb' rowsum(a') + K za' zb'`, modulo 2^32 and so exact whenever the result
//! fits i32. The tiles' sums start from the second term.

use std::cell::RefCell;
use std::ops::Range;

use super::blocks::{Cut, SEGMENT, caches, cut, each_task, heights, present, wide, with_buffer};
use super::interleave::interleave;
use super::simd::PortableDot;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2Dot, Avx512Dot, Avx512Vnni, AvxVnni};
#[cfg(target_arch = "x86_64")]
use super::tile::Places;
use super::tile::{self, DotTile, List, Overlapping, Step, Tiles};
use crate::base::AlignedBytes;
use crate::hardware::Capabilities;

/// The byte tiles of one instruction set.
#[derive(Debug)]
pub struct Isa {
    pub(super) needs: Capabilities,
    /// Columns of a panel of B.
    pub columns: usize,
    /// Elements of K that lie together.
    pub group: usize,
    /// Bytes of one packed element of A.
    pub a_bytes: usize,
    /// Whether the tiles take A as s8, which is then packed as `a' - 128`.
    pub(super) signed_a: bool,
    pub(super) tiles: Tiles<DotTile<Step>>,
    /// Tiles whose rows of B lie anywhere. A is signed, of `a_bytes` an element.
    pub listed: Tiles<DotTile<List>>,
    /// Tiles of one row of A whose groups of B overlap, where they are worth more than groups laid out in memory, and what they need
    /// besides.
    pub overlapping: Option<(Capabilities, Tiles<DotTile<Overlapping>>)>,
    /// Whether [`Isa::listed`] takes B as u8, else as s8.
    pub unsigned_b: bool,
}

/// Plain Rust.
pub static PORTABLE: Isa = Isa {
    needs: Capabilities::empty(),
    columns: 16,
    group: 1,
    a_bytes: 2,
    signed_a: false,
    tiles: Tiles {
        one: &[tile::dot::<PortableDot, 1, 1, false, Step>, tile::dot::<PortableDot, 2, 1, false, Step>],
        abreast: &[],
    },
    listed: Tiles {
        one: &[tile::dot::<PortableDot, 1, 1, false, List>, tile::dot::<PortableDot, 2, 1, false, List>],
        abreast: &[],
    },
    overlapping: None,
    unsigned_b: false,
};
/// AVX2: pairs widened to i16, vpmaddwd.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub static AVX2: Isa = Isa { needs: Capabilities::AVX2, columns: 16, group: 2, a_bytes: 2, signed_a: false,
    tiles: avx2_tiles(), listed: avx2_tiles(), overlapping: None, unsigned_b: false };
/// VNNI on 256-bit registers: quads, vpdpbusd.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub static AVX_VNNI: Isa = Isa { needs: Capabilities::AVX2.union(Capabilities::AVX_VNNI), columns: 16, group: 4, a_bytes: 1,
    signed_a: false, tiles: avx_vnni_tiles::<false, Step>(), listed: avx_vnni_tiles::<true, List>(),
    overlapping: Some((Capabilities::empty(), Tiles { one: &[avx_vnni::<1, 1, true, _>], abreast: &[(4, avx_vnni::<1, 4, true, _>)] })), unsigned_b: true };
/// AVX-512 BW: pairs widened to i16, vpmaddwd.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub static AVX512: Isa = Isa { needs: Capabilities::AVX512, columns: 32, group: 2, a_bytes: 2, signed_a: false,
    tiles: avx512_tiles(), listed: avx512_tiles(), overlapping: None, unsigned_b: false };
/// AVX-512 VNNI: quads, vpdpbusd.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub static AVX512_VNNI: Isa = Isa { needs: Capabilities::AVX512_VNNI, columns: 32, group: 4, a_bytes: 1, signed_a: false,
    tiles: vnni_tiles::<false, Step>(), listed: vnni_tiles::<true, List>(),
    overlapping: Some((Capabilities::AVX512_VBMI, Tiles { one: &[vbmi::<1>], abreast: &[(4, vbmi::<4>)] })), unsigned_b: true };

/// # Safety
/// As for [`tile::dot`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[rustfmt::skip]
unsafe fn avx2<const R: usize, const N: usize, P: Places>(groups: usize, a: *const u8, b: *const i8, places: P, start: *const i32, c: *mut i32, c_step: usize) {
    // SAFETY: the instruction set is enabled here; the rest is the caller's contract.
    unsafe { tile::dot::<Avx2Dot, R, N, false, P>(groups, a, b, places, start, c, c_step) }
}

/// # Safety
/// As for [`tile::dot`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avxvnni")]
#[rustfmt::skip]
unsafe fn avx_vnni<const R: usize, const N: usize, const S: bool, P: Places>(groups: usize, a: *const u8, b: *const i8, places: P, start: *const i32, c: *mut i32, c_step: usize) {
    // SAFETY: the instruction set is enabled here; the rest is the caller's contract.
    unsafe { tile::dot::<AvxVnni, R, N, S, P>(groups, a, b, places, start, c, c_step) }
}

/// # Safety
/// As for [`tile::dot`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[rustfmt::skip]
unsafe fn avx512<const R: usize, const N: usize, P: Places>(groups: usize, a: *const u8, b: *const i8, places: P, start: *const i32, c: *mut i32, c_step: usize) {
    // SAFETY: the instruction set is enabled here; the rest is the caller's contract.
    unsafe { tile::dot::<Avx512Dot, R, N, false, P>(groups, a, b, places, start, c, c_step) }
}

/// # Safety
/// As for [`tile::dot`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[rustfmt::skip]
unsafe fn vnni<const R: usize, const N: usize, const S: bool, P: Places>(groups: usize, a: *const u8, b: *const i8, places: P, start: *const i32, c: *mut i32, c_step: usize) {
    // SAFETY: the instruction set is enabled here; the rest is the caller's contract.
    unsafe { tile::dot::<Avx512Vnni, R, N, S, P>(groups, a, b, places, start, c, c_step) }
}

/// # Safety
/// As for [`tile::dot`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi")]
#[rustfmt::skip]
unsafe fn vbmi<const N: usize>(groups: usize, a: *const u8, b: *const i8, places: Overlapping, start: *const i32, c: *mut i32, c_step: usize) {
    // SAFETY: the instruction set is enabled here; the rest is the caller's contract.
    unsafe { tile::dot::<Avx512Vnni, 1, N, true, Overlapping>(groups, a, b, places, start, c, c_step) }
}

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const fn avx2_tiles<P: Places>() -> Tiles<DotTile<P>> {
    let one: &[DotTile<P>] = const { &[avx2::<1, 1, P>, avx2::<2, 1, P>, avx2::<3, 1, P>, avx2::<4, 1, P>, avx2::<5, 1, P>, avx2::<6, 1, P>] };
    Tiles { one, abreast: const { &[(4, avx2::<1, 4, P>), (2, avx2::<2, 2, P>), (2, avx2::<3, 2, P>)] } }
}

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const fn avx_vnni_tiles<const S: bool, P: Places>() -> Tiles<DotTile<P>> {
    let one: &[DotTile<P>] = const { &[avx_vnni::<1, 1, S, P>, avx_vnni::<2, 1, S, P>, avx_vnni::<3, 1, S, P>, avx_vnni::<4, 1, S, P>, avx_vnni::<5, 1, S, P>, avx_vnni::<6, 1, S, P>] };
    Tiles { one, abreast: const { &[(4, avx_vnni::<1, 4, S, P>), (2, avx_vnni::<2, 2, S, P>), (2, avx_vnni::<3, 2, S, P>)] } }
}

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const fn avx512_tiles<P: Places>() -> Tiles<DotTile<P>> {
    let one: &[DotTile<P>] = const { &[avx512::<1, 1, P>, avx512::<2, 1, P>, avx512::<3, 1, P>, avx512::<4, 1, P>, avx512::<5, 1, P>, avx512::<6, 1, P>,
        avx512::<7, 1, P>, avx512::<8, 1, P>, avx512::<9, 1, P>, avx512::<10, 1, P>, avx512::<11, 1, P>, avx512::<12, 1, P>] };
    Tiles { one, abreast: const { &[(4, avx512::<1, 4, P>), (2, avx512::<2, 2, P>), (2, avx512::<3, 2, P>)] } }
}

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const fn vnni_tiles<const S: bool, P: Places>() -> Tiles<DotTile<P>> {
    let one: &[DotTile<P>] = const { &[vnni::<1, 1, S, P>, vnni::<2, 1, S, P>, vnni::<3, 1, S, P>, vnni::<4, 1, S, P>, vnni::<5, 1, S, P>, vnni::<6, 1, S, P>,
        vnni::<7, 1, S, P>, vnni::<8, 1, S, P>, vnni::<9, 1, S, P>, vnni::<10, 1, S, P>, vnni::<11, 1, S, P>, vnni::<12, 1, S, P>,
        vnni::<13, 1, S, P>, vnni::<14, 1, S, P>] };
    Tiles { one, abreast: const { &[(4, vnni::<1, 4, S, P>), (2, vnni::<2, 2, S, P>), (2, vnni::<3, 2, S, P>)] } }
}

/// B as the tiles read it.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// Rows.
    pub k: usize,
    /// Columns.
    pub n: usize,
    /// What [`pack_b`] wrote.
    panels: &'a [i8],
    /// Sum of each column as packed.
    pub sums: &'a [i32],
}

/// Elements that [`pack_b`] writes.
pub fn packed_len(isa: &Isa, k: usize, n: usize) -> usize {
    n.div_ceil(isa.columns) * isa.columns * k.next_multiple_of(isa.group)
}

/// Lays B (element `(i, j)` is `b(i, j)`) out in panels with groups of K together, zeros beyond the edges, and sums its columns.
pub fn pack_b(isa: &Isa, (k, n): (usize, usize), panels: &mut [i8], sums: &mut [i32], b: impl Fn(usize, usize) -> i8) {
    panels[..packed_len(isa, k, n)].fill(0);
    sums[..n].fill(0);
    let panel = isa.columns * k.next_multiple_of(isa.group);
    for i in 0..k {
        let (group, within) = (i / isa.group, i % isa.group);
        for (j, sum) in sums[..n].iter_mut().enumerate() {
            let x = b(i, j);
            panels[j / isa.columns * panel + (group * isa.columns + j % isa.columns) * isa.group + within] = x;
            *sum = sum.wrapping_add(x.into());
        }
    }
}

impl<'a> Weights<'a> {
    /// What [`pack_b`] wrote.
    pub fn packed(isa: &Isa, k: usize, n: usize, panels: &'a [i8], sums: &'a [i32]) -> Self {
        assert!(panels.len() >= packed_len(isa, k, n) && sums.len() >= n, "packed weights are too short");
        Weights { k, n, panels, sums }
    }
}

/// A, row by row, as unsigned bytes.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    /// Element `(i, k)` at `a[i * row + k]`.
    Strided {
        /// The elements.
        a: &'a [u8],
        /// Step from row to row.
        row: usize,
    },
    /// Writes all K elements of a row.
    Each(&'a (dyn Fn(usize, &mut [u8]) + Sync)),
}

/// Zero points as packed: what the sums still have to be corrected for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Zeros {
    /// That of all rows of A.
    pub a: i32,
    /// Whether [`Segment::row_sum`] is wanted: B's zero points are not all 0, or A's differ by row.
    pub row_sums: bool,
}

/// A finished segment of one row.
#[derive(Debug)]
pub struct Segment<'a> {
    /// The row.
    pub row: usize,
    /// Its first column.
    pub column: usize,
    /// `sum a'b' - za' colsum(b')` with the zero point of [`Zeros`].
    pub sums: &'a mut [i32],
    /// Sum of the row of A as packed, where it is wanted.
    pub row_sum: i32,
}

impl Segment<'_> {
    /// Corrects the sums for B's zero points as packed, by column, and for what the row's zero point `a_zero` is more than that
    /// of [`Zeros`].
    pub fn correct(&mut self, weights: &Weights, zeros: Zeros, a_zero: i32, b_zero: impl Fn(usize) -> i32) {
        let more = a_zero.wrapping_sub(zeros.a);
        let columns = &weights.sums[self.column..];
        let by_row = (weights.k as i32).wrapping_mul(a_zero).wrapping_sub(self.row_sum);
        wide(|| {
            for (j, (sum, &column)) in self.sums.iter_mut().zip(columns).enumerate() {
                let fix = b_zero(self.column + j).wrapping_mul(by_row);
                *sum = sum.wrapping_sub(more.wrapping_mul(column)).wrapping_add(fix);
            }
        });
    }
}

thread_local! {
    static BLOCK: RefCell<AlignedBytes> = RefCell::new(AlignedBytes::zeroed(0));
    static LINES: RefCell<AlignedBytes> = RefCell::new(AlignedBytes::zeroed(0));
    static WIDENED: RefCell<AlignedBytes> = RefCell::new(AlignedBytes::zeroed(0));
}

impl Rows<'_> {
    /// Rows `first..first + height` as `[group][height]`. Their sums, as u8, go to `sums` when it is not empty.
    fn pack(&self, isa: &Isa, (first, height): (usize, usize), k: usize, out: &mut [u8], sums: &mut [i32]) {
        let deep = k.next_multiple_of(isa.group);
        if k == 0 {
            return sums.fill(0);
        }
        let sum = |row: &[u8]| wide(|| row.iter().map(|&x| i32::from(x)).sum());
        match *self {
            Rows::Strided { a, row } if k == deep && !isa.signed_a => {
                let a = &a[first * row..];
                sums.iter_mut().enumerate().for_each(|(r, to)| *to = sum(&a[r * row..][..k]));
                lay(isa, a, row, height, k, out);
            }
            _ => with_buffer(&LINES, height * deep, |lines| {
                for (r, line) in lines.chunks_exact_mut(deep).enumerate() {
                    let (line, rest) = line.split_at_mut(k);
                    rest.fill(0);
                    match *self {
                        Rows::Strided { a, row } => line.copy_from_slice(&a[(first + r) * row..][..k]),
                        Rows::Each(fill) => fill(first + r, line),
                    }
                    if let Some(to) = sums.get_mut(r) {
                        *to = sum(line);
                    }
                    if isa.signed_a {
                        wide(|| line.iter_mut().for_each(|x| *x ^= 0x80));
                    }
                }
                lay(isa, lines, deep, height, deep, out);
            }),
        }
    }
}

/// Lays `height` rows of `deep` bytes, `step` apart, out as `[group][height]`.
fn lay(isa: &Isa, rows: &[u8], step: usize, height: usize, deep: usize, out: &mut [u8]) {
    if isa.a_bytes == 2 {
        return with_buffer(&WIDENED, height * deep * 2, |wider| {
            let wider: &mut [u16] = bytemuck::cast_slice_mut(wider);
            for (line, row) in wider.chunks_exact_mut(deep).zip(rows.chunks(step)) {
                wide(|| line.iter_mut().zip(row).for_each(|(to, &x)| *to = x.into()));
            }
            side_by_side(bytemuck::cast_slice(wider), 2 * deep, height, 2 * deep, isa.group * 2, out);
        });
    }
    side_by_side(rows, step, height, deep, isa.group, out);
}

/// Units of `unit` bytes of `height` rows, `step` bytes apart and `bytes` long, as `[unit][height]`.
fn side_by_side(rows: &[u8], step: usize, height: usize, bytes: usize, unit: usize, out: &mut [u8]) {
    match unit {
        _ if height == 1 => out.copy_from_slice(&rows[..bytes]),
        4 => interleave(rows, step, height, bytes / 4, bytemuck::cast_slice_mut(out)),
        _ => {
            for (r, row) in rows.chunks(step).take(height).enumerate() {
                let places = out.chunks_exact_mut(unit).skip(r).step_by(height);
                places.zip(row[..bytes].chunks_exact(unit)).for_each(|(to, x)| to.copy_from_slice(x));
            }
        }
    }
}

/// Computes `m` rows of `A x B` and calls `done` once for each segment of at most 256 columns, from several threads.
pub fn product(isa: &Isa, m: usize, a: Rows, b: &Weights, zeros: Zeros, done: &(dyn Fn(Segment) + Sync)) {
    assert!(present(isa.needs), "the processor lacks {}", isa.needs);
    let most = isa.tiles.rows();
    let panels = b.n.div_ceil(isa.columns);
    let deep = b.k.next_multiple_of(isa.group);
    let row_bytes = deep * isa.a_bytes;
    let cut: Cut = cut(m, panels, most, row_bytes, m as f64 * b.n as f64 * b.k as f64);
    let packed_zero = zeros.a.wrapping_sub(i32::from(isa.signed_a) << 7);
    // Panels that stay in half of the second cache while row panels pass.
    let group = (caches().l2_bytes / 2 / (deep * isa.columns).max(1)).clamp(1, SEGMENT / isa.columns);
    each_task(m, panels, cut, |rows, part| {
        let a_len = (rows.len() * row_bytes).next_multiple_of(64);
        let extra = rows.len() + (most + 1) * SEGMENT;
        with_buffer(&BLOCK, a_len + extra * 4, |buffer| {
            let (packed, rest) = buffer.split_at_mut(a_len);
            let (row_sums, rest) = bytemuck::cast_slice_mut::<u8, i32>(rest).split_at_mut(rows.len());
            let (start, sums) = rest.split_at_mut(SEGMENT);
            for (first, height) in heights(rows.len(), most) {
                let to = &mut packed[first * row_bytes..(first + height) * row_bytes];
                let sums = if zeros.row_sums { &mut row_sums[first..first + height] } else { &mut [] };
                a.pack(isa, (rows.start + first, height), b.k, to, sums);
            }
            for at in part.clone().step_by(group) {
                let columns = at..(at + group).min(part.end);
                let (from, to) = (columns.start * isa.columns, (columns.end * isa.columns).min(b.n));
                start[to - from..].fill(0);
                start.iter_mut().zip(&b.sums[from..to]).for_each(|(s, &c)| *s = packed_zero.wrapping_mul(c).wrapping_neg());
                for (first, height) in heights(rows.len(), most) {
                    let packed = &packed[first * row_bytes..(first + height) * row_bytes];
                    row_panel(isa, height, packed, b, columns.clone(), start, sums);
                    for (r, line) in sums.chunks_exact_mut(SEGMENT).take(height).enumerate() {
                        let row_sum = if zeros.row_sums { row_sums[first + r] } else { 0 };
                        done(Segment { row: rows.start + first + r, column: from, sums: &mut line[..to - from], row_sum });
                    }
                }
            }
        });
    });
}

/// Sums of one panel of rows times some panels of B, [`SEGMENT`] apart.
fn row_panel(isa: &Isa, height: usize, a: &[u8], b: &Weights, panels: Range<usize>, start: &[i32], sums: &mut [i32]) {
    let deep = b.k.next_multiple_of(isa.group);
    let width = panels.len() * isa.columns;
    assert!(a.len() >= height * deep * isa.a_bytes && sums.len() >= height * SEGMENT && width <= SEGMENT.min(start.len()));
    let places = Step { row: isa.columns, panel: deep / isa.group * isa.columns };
    for (j, tile) in isa.tiles.over(height, panels.clone()) {
        let (panel, at) = (b.panels[j * deep * isa.columns..].as_ptr(), (j - panels.start) * isa.columns);
        // SAFETY: `product` saw that the instruction set is there; the asserts here and in `Weights::packed` bound A, B, the
        // start and the sums.
        unsafe {
            let (start, sums) = (start[at..].as_ptr(), sums[at..].as_mut_ptr());
            tile(deep / isa.group, a.as_ptr(), panel, places, start, sums, SEGMENT);
        }
    }
}
