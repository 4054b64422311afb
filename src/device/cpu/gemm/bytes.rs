//! The exact 8-bit product: A u8 times B s8, summed in i32 without saturation. Other types and zero points come down to it:
//! with `a' = a + 128` and `b' = b - 128` where the sign differs,
//! `sum (a - za)(b - zb) = sum a'b' - za' colsum(b') - zb' rowsum(a') + K za' zb'`, modulo 2^32 and so exact whenever the result
//! fits i32. The tiles' sums start from the second term.

use std::cell::RefCell;
use std::ops::Range;

use smallvec::SmallVec;

use super::blocks::{Ahead, Cut, SEGMENT, caches, cut, each_task, heights_of, present, wide, wide_work, with_buffer};
use super::lines::Rows;
use super::simd::PortableDot;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2Dot, Avx512Dot, Avx512Vnni, AvxVnni};
#[cfg(target_arch = "x86_64")]
use super::tile::Places;
use super::tile::{self, DotTile, List, MATRIX, Matrices, MatrixTiles, Overlapping, Step, Tiles};
use crate::base::AlignedBytes;
use crate::device::cpu::isa::Work;
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
    /// Registers that hold matrices, for panels of 32 columns and groups of four.
    pub matrix: Option<MatrixTiles>,
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
    matrix: None,
};
/// AVX2: pairs widened to i16, vpmaddwd.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub static AVX2: Isa = Isa { needs: Capabilities::AVX2, columns: 16, group: 2, a_bytes: 2, signed_a: false,
    tiles: avx2_tiles(), listed: avx2_tiles(), overlapping: None, unsigned_b: false, matrix: None };
/// VNNI on 256-bit registers: quads, vpdpbusd.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub static AVX_VNNI: Isa = Isa { needs: Capabilities::AVX2.union(Capabilities::AVX_VNNI), columns: 16, group: 4, a_bytes: 1,
    signed_a: false, tiles: avx_vnni_tiles::<false, Step>(), listed: avx_vnni_tiles::<true, List>(),
    overlapping: Some((Capabilities::empty(), Tiles { one: &[avx_vnni::<1, 1, true, _>], abreast: &[(4, avx_vnni::<1, 4, true, _>)] })), unsigned_b: true, matrix: None };
/// AVX-512 BW: pairs widened to i16, vpmaddwd.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub static AVX512: Isa = Isa { needs: Capabilities::AVX512, columns: 32, group: 2, a_bytes: 2, signed_a: false,
    tiles: avx512_tiles(), listed: avx512_tiles(), overlapping: None, unsigned_b: false, matrix: None };
/// AVX-512 VNNI: quads, vpdpbusd.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub static AVX512_VNNI: Isa = Isa { needs: Capabilities::AVX512_VNNI, columns: 32, group: 4, a_bytes: 1, signed_a: false,
    tiles: vnni_tiles::<false, Step>(), listed: vnni_tiles::<true, List>(),
    overlapping: Some((Capabilities::AVX512_VBMI, Tiles { one: &[vbmi::<1>], abreast: &[(4, vbmi::<4>)] })), unsigned_b: true, matrix: None };

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
    /// Bytes that are read after the product.
    ahead: &'a [u8],
}

/// Elements that [`pack_b`] writes. Registers of matrices read whole ones, beyond the last row too.
pub fn packed_len(isa: &Isa, k: usize, n: usize) -> usize {
    let beyond = if isa.matrix.is_some() { (MATRIX[0] - 1) * isa.columns * isa.group } else { 0 };
    n.div_ceil(isa.columns) * isa.columns * k.next_multiple_of(isa.group) + beyond
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
        Weights { k, n, panels, sums, ahead: &[] }
    }

    /// With what is read after the product.
    pub fn before(self, ahead: &'a [u8]) -> Self {
        Weights { ahead, ..self }
    }
}

/// Zero points as packed: what the sums still have to be corrected for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Zeros {
    /// That of all rows of A.
    pub a: i32,
    /// Whether [`Segment::row_sum`] is wanted: B's zero points are not all 0.
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
    /// Corrects the sums for what the row's zero point `a_zero` is more than that of [`Zeros`]: all there is to do where B's are 0.
    pub fn correct_row(&mut self, weights: &Weights, zeros: Zeros, a_zero: i32) {
        let more = a_zero.wrapping_sub(zeros.a);
        if more != 0 {
            wide_work(Less { sums: self.sums, columns: &weights.sums[self.column..], more });
        }
    }

    /// The same, and for B's zero points as packed, by column.
    pub fn correct(&mut self, weights: &Weights, zeros: Zeros, a_zero: i32, b_zero: impl Fn(usize) -> i32) {
        self.correct_row(weights, zeros, a_zero);
        let by_row = (weights.k as i32).wrapping_mul(a_zero).wrapping_sub(self.row_sum);
        let (sums, first) = (&mut *self.sums, self.column);
        // By value: what is read through references in the loop keeps it from becoming vector code.
        wide(move || {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = sum.wrapping_add(b_zero(first + j).wrapping_mul(by_row));
            }
        });
    }
}

/// Columns' sums taken from the sums of a row, as often as `more` says.
struct Less<'a> {
    sums: &'a mut [i32],
    columns: &'a [i32],
    more: i32,
}

impl Work for Less<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        for (sum, &column) in self.sums.iter_mut().zip(self.columns) {
            *sum = sum.wrapping_sub(self.more.wrapping_mul(column));
        }
    }
}

thread_local! {
    static BLOCK: RefCell<AlignedBytes> = RefCell::new(AlignedBytes::zeroed(0));
}

/// Computes `m` rows of `A x B` and calls `done` once for each segment of at most 256 columns, from several threads.
pub fn product(isa: &Isa, m: usize, a: Rows, b: &Weights, zeros: Zeros, done: &(dyn Fn(Segment) + Sync)) {
    assert!(present(isa.needs), "the processor lacks {}", isa.needs);
    let panels = b.n.div_ceil(isa.columns);
    let deep = b.k.next_multiple_of(isa.group);
    let matrix = isa.matrix.filter(|t| m >= t.least_rows && b.k > 0);
    let (most, unit) = matrix.map_or((isa.tiles.rows(), 1), |_| (2 * MATRIX[0], MATRIX[0]));
    let row_bytes = if matrix.is_some() { b.k.next_multiple_of(MATRIX[1]) } else { deep * isa.a_bytes };
    let cut: Cut = cut(m, panels, if unit > 1 { unit } else { most }, row_bytes, m as f64 * b.n as f64 * b.k as f64);
    let packed_zero = zeros.a.wrapping_sub(i32::from(isa.signed_a) << 7);
    // Panels that stay in half of the second cache while row panels pass.
    let group = (caches().l2_bytes / 2 / (deep * isa.columns).max(1)).clamp(1, SEGMENT / isa.columns);
    each_task(m, panels, cut, |rows, part| {
        let a_len = (rows.len().next_multiple_of(unit) * row_bytes).next_multiple_of(64);
        // Sums begin on a line of the cache.
        let sums_len = rows.len().next_multiple_of(16);
        let extra = sums_len + (most + 1) * SEGMENT;
        with_buffer(&BLOCK, a_len + extra * 4, |buffer| {
            let (packed, rest) = buffer.split_at_mut(a_len);
            let (row_sums, rest) = bytemuck::cast_slice_mut::<u8, i32>(rest).split_at_mut(sums_len);
            let (start, sums) = rest.split_at_mut(SEGMENT);
            for (first, height) in heights_of(rows.len(), most, unit) {
                let to = &mut packed[first * row_bytes..(first + height) * row_bytes];
                let sums = if zeros.row_sums { &mut row_sums[first..first + height] } else { &mut [] };
                match matrix {
                    Some(_) => a.lines(rows.start + first, b.k, row_bytes, to, sums),
                    None => a.pack(isa, (rows.start + first, height), b.k, to, sums),
                }
            }
            for at in part.clone().step_by(group) {
                let columns = at..(at + group).min(part.end);
                let next = columns.end..(columns.end + group).min(part.end);
                let ahead = Ahead::new(if next.is_empty() { b.ahead } else { bytes_of(isa, b, next) }, rows.len());
                let (from, to) = (columns.start * isa.columns, (columns.end * isa.columns).min(b.n));
                start[to - from..].fill(0);
                start.iter_mut().zip(&b.sums[from..to]).for_each(|(s, &c)| *s = packed_zero.wrapping_mul(c).wrapping_neg());
                for (first, height) in heights_of(rows.len(), most, unit) {
                    let packed = &packed[first * row_bytes..][..height.next_multiple_of(unit) * row_bytes];
                    match matrix {
                        Some(tiles) => matrix_panel(tiles, height, packed, b, columns.clone(), start, sums),
                        None => row_panel(isa, height, packed, b, columns.clone(), start, sums),
                    }
                    for (r, line) in sums.chunks_exact_mut(SEGMENT).take(height).enumerate() {
                        let row_sum = if zeros.row_sums { row_sums[first + r] } else { 0 };
                        ahead.fetch(first + r);
                        done(Segment { row: rows.start + first + r, column: from, sums: &mut line[..to - from], row_sum });
                    }
                }
            }
        });
    });
}

/// The bytes of some panels.
fn bytes_of<'a>(isa: &Isa, b: &Weights<'a>, panels: Range<usize>) -> &'a [u8] {
    let panel = b.k.next_multiple_of(isa.group) * isa.columns;
    bytemuck::cast_slice(&b.panels[panels.start * panel..panels.end * panel])
}

/// The same as [`row_panel`] in registers that hold matrices.
fn matrix_panel(tiles: MatrixTiles, height: usize, a: &[u8], b: &Weights, panels: Range<usize>, start: &[i32], sums: &mut [i32]) {
    let ([rows, bytes], [columns, group]) = (MATRIX, [32, 4]);
    let piece = bytes * columns;
    let pieces: SmallVec<[u32; 64]> = (0..b.k.div_ceil(bytes)).map(|i| (i * piece) as u32).collect();
    let panel = b.k.next_multiple_of(group) * columns;
    let whole = height.next_multiple_of(rows);
    assert!(height <= 2 * rows && a.len() >= whole * pieces.len() * bytes && sums.len() >= whole * SEGMENT);
    assert!(panels.len() * columns <= SEGMENT.min(start.len()), "invariant: a segment holds the panels");
    let read = &b.panels[panels.start * panel..][..(panels.len() - 1) * panel + pieces.len() * piece];
    let (groups, row, panels) = (bytes / group, columns * group, panels.len());
    let matrices = Matrices { height, pieces: &pieces, groups, row, panel, panels, start_step: columns, c_step: SEGMENT };
    // SAFETY: `product` saw that the instruction set is there; A, what is read of B, the start and the sums are bounded above.
    unsafe { (tiles.product)(&matrices, a.as_ptr(), read.as_ptr().cast(), start.as_ptr(), sums.as_mut_ptr()) }
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
