//! The exact 8-bit product: A u8 times B s8, summed in i32 without saturation. Other types and zero points come down to it:
//! with `a' = a + 128` and `b' = b - 128` where the sign differs,
//! `sum (a - za)(b - zb) = sum a'b' - za' colsum(b') - zb' rowsum(a') + K za' zb'`, modulo 2^32 and so exact whenever the result
//! fits i32.

use std::cell::RefCell;

use super::blocks::{Cut, SEGMENT, cut, each_task, heights, wide, with_buffer};
use super::simd::PortableDot;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2Dot, Avx512Dot, Avx512Vnni, AvxVnni};
use super::tile::{self, DotTile};
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
    pub(super) a_bytes: usize,
    /// Whether the tiles take A as s8, which is then packed as `a' - 128`.
    pub(super) signed_a: bool,
    pub(super) tiles: &'static [DotTile],
}

/// Plain Rust.
pub static PORTABLE: Isa = Isa {
    needs: Capabilities::empty(),
    columns: 16,
    group: 1,
    a_bytes: 1,
    signed_a: false,
    tiles: &[tile::dot::<PortableDot, 1, 1>, tile::dot::<PortableDot, 2, 1>],
};
/// AVX2: pairs widened to i16, vpmaddwd.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub static AVX2: Isa = Isa { needs: Capabilities::AVX2, columns: 16, group: 2, a_bytes: 2, signed_a: false,
    tiles: &[avx2::<1, 4>, avx2::<2, 2>, avx2::<3, 2>, avx2::<4, 1>, avx2::<5, 1>, avx2::<6, 1>] };
/// VNNI on 256-bit registers: quads, vpdpbusd.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub static AVX_VNNI: Isa = Isa { needs: Capabilities::AVX2.union(Capabilities::AVX_VNNI), columns: 16, group: 4, a_bytes: 1,
    signed_a: false, tiles: &[avx_vnni::<1, 4>, avx_vnni::<2, 2>, avx_vnni::<3, 2>, avx_vnni::<4, 1>, avx_vnni::<5, 1>, avx_vnni::<6, 1>] };
/// AVX-512 BW: pairs widened to i16, vpmaddwd.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub static AVX512: Isa = Isa { needs: Capabilities::AVX512, columns: 32, group: 2, a_bytes: 2, signed_a: false,
    tiles: &[avx512::<1, 4>, avx512::<2, 4>, avx512::<3, 2>, avx512::<4, 2>, avx512::<5, 1>, avx512::<6, 1>, avx512::<7, 1>,
        avx512::<8, 1>, avx512::<9, 1>, avx512::<10, 1>, avx512::<11, 1>, avx512::<12, 1>] };
/// AVX-512 VNNI: quads, vpdpbusd.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub static AVX512_VNNI: Isa = Isa { needs: Capabilities::AVX512_VNNI, columns: 32, group: 4, a_bytes: 1, signed_a: false,
    tiles: &[vnni::<1, 4>, vnni::<2, 4>, vnni::<3, 4>, vnni::<4, 2>, vnni::<5, 2>, vnni::<6, 2>, vnni::<7, 1>,
        vnni::<8, 1>, vnni::<9, 1>, vnni::<10, 1>, vnni::<11, 1>, vnni::<12, 1>, vnni::<13, 1>, vnni::<14, 1>] };

/// # Safety
/// As for [`tile::dot`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn avx2<const R: usize, const N: usize>(groups: usize, a: *const u8, b: *const i8, c: *mut i32, c_step: usize) {
    // SAFETY: the instruction set is enabled here; the rest is the caller's contract.
    unsafe { tile::dot::<Avx2Dot, R, N>(groups, a, b, c, c_step) }
}

/// # Safety
/// As for [`tile::dot`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn avx_vnni<const R: usize, const N: usize>(groups: usize, a: *const u8, b: *const i8, c: *mut i32, c_step: usize) {
    // SAFETY: the instruction set is enabled here; the rest is the caller's contract.
    unsafe { tile::dot::<AvxVnni, R, N>(groups, a, b, c, c_step) }
}

/// # Safety
/// As for [`tile::dot`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn avx512<const R: usize, const N: usize>(groups: usize, a: *const u8, b: *const i8, c: *mut i32, c_step: usize) {
    // SAFETY: the instruction set is enabled here; the rest is the caller's contract.
    unsafe { tile::dot::<Avx512Dot, R, N>(groups, a, b, c, c_step) }
}

/// # Safety
/// As for [`tile::dot`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn vnni<const R: usize, const N: usize>(groups: usize, a: *const u8, b: *const i8, c: *mut i32, c_step: usize) {
    // SAFETY: the instruction set is enabled here; the rest is the caller's contract.
    unsafe { tile::dot::<Avx512Vnni, R, N>(groups, a, b, c, c_step) }
}

impl Isa {
    /// Whether this processor has it.
    pub fn present(&self) -> bool {
        static FOUND: std::sync::OnceLock<Capabilities> = std::sync::OnceLock::new();
        FOUND.get_or_init(crate::hardware::cpu::capabilities).contains(self.needs)
    }
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

/// A finished segment of one row.
#[derive(Debug)]
pub struct Segment<'a> {
    /// The row.
    pub row: usize,
    /// Its first column.
    pub column: usize,
    /// `sum a'b'`, as packed; [`Segment::correct`] makes it the product.
    pub sums: &'a mut [i32],
    /// Sum of the row of A, as u8.
    pub row_sum: i32,
    /// What was taken from each element of A beside its zero point: 128 where the tiles take it as s8.
    shift: i32,
}

impl Segment<'_> {
    /// Corrects the sums for zero points, those of `a'` and `b'` (A's is one for the row; B's is read by column).
    pub fn correct(&mut self, weights: &Weights, a_zero: i32, b_zero: impl Fn(usize) -> i32) {
        let k = weights.k as i32;
        let columns = &weights.sums[self.column..];
        // Both terms of `by_row` move by as much when A is packed with another zero point.
        let packed_zero = a_zero - self.shift;
        let by_row = k.wrapping_mul(a_zero).wrapping_sub(self.row_sum);
        wide(|| {
            for (j, (sum, &column)) in self.sums.iter_mut().zip(columns).enumerate() {
                let fix = b_zero(self.column + j).wrapping_mul(by_row);
                *sum = sum.wrapping_sub(packed_zero.wrapping_mul(column)).wrapping_add(fix);
            }
        });
    }
}

thread_local! {
    static BLOCK: RefCell<AlignedBytes> = RefCell::new(AlignedBytes::zeroed(0));
    static LINE: RefCell<AlignedBytes> = RefCell::new(AlignedBytes::zeroed(0));
}

/// Writes `height` rows as `[group][height]`, and their sums. `row` writes all K elements of a row.
fn pack_rows(isa: &Isa, first: usize, k: usize, out: &mut [u8], sums: &mut [i32], row: &(dyn Fn(usize, &mut [u8]) + Sync)) {
    let height = sums.len();
    if k == 0 {
        return sums.fill(0);
    }
    let deep = k.next_multiple_of(isa.group);
    with_buffer(&LINE, deep, |line| {
        line[k..].fill(0);
        for (r, sum) in sums.iter_mut().enumerate() {
            row(first + r, &mut line[..k]);
            *sum = wide(|| line[..k].iter().map(|&x| i32::from(x)).sum());
            if isa.signed_a {
                wide(|| line[..k].iter_mut().for_each(|x| *x ^= 0x80));
            }
            let each_four = |out: &mut [u8], group: usize, four: fn(&[u8]) -> [u8; 4]| {
                let places = out.as_chunks_mut::<4>().0[r..].iter_mut().step_by(height);
                places.zip(line.chunks_exact(group)).for_each(|(to, x)| *to = four(x));
            };
            match (isa.group, isa.a_bytes) {
                (4, 1) if height == 1 => out.copy_from_slice(line),
                (4, 1) => each_four(out, 4, |x| [x[0], x[1], x[2], x[3]]),
                (2, 2) => each_four(out, 2, |x| [x[0], 0, x[1], 0]),
                (1, 2) => {
                    let places = out.as_chunks_mut::<2>().0[r..].iter_mut().step_by(height);
                    places.zip(&*line).for_each(|(to, &x)| *to = [x, 0]);
                }
                (8, 1) => {
                    let places = out.as_chunks_mut::<8>().0[r..].iter_mut().step_by(height);
                    places.zip(line.as_chunks::<8>().0).for_each(|(to, x)| *to = *x);
                }
                _ => out[r..].iter_mut().step_by(height).zip(&*line).for_each(|(to, &x)| *to = x),
            }
        }
    });
}

/// Computes `m` rows of `A x B` and calls `done` once for each segment of at most 256 columns, from several threads. `row` writes
/// all K elements of a row of A.
pub fn product(isa: &Isa, m: usize, row: &(dyn Fn(usize, &mut [u8]) + Sync), b: &Weights, done: &(dyn Fn(Segment) + Sync)) {
    assert!(isa.present(), "the processor lacks {}", isa.needs);
    let most = isa.tiles.len();
    let panels = b.n.div_ceil(isa.columns);
    let deep = b.k.next_multiple_of(isa.group);
    let row_bytes = deep * isa.a_bytes;
    let cut: Cut = cut(m, panels, most, row_bytes, m as f64 * b.n as f64 * b.k as f64);
    each_task(m, panels, cut, |rows, part| {
        let a_len = (rows.len() * row_bytes).next_multiple_of(64);
        with_buffer(&BLOCK, a_len + rows.len() * (SEGMENT + 1) * 4, |buffer| {
            let (packed, rest) = buffer.split_at_mut(a_len);
            let (sums, row_sums) = bytemuck::cast_slice_mut::<u8, i32>(rest).split_at_mut(rows.len() * SEGMENT);
            for (first, height) in heights(rows.len(), most) {
                let to = &mut packed[first * row_bytes..(first + height) * row_bytes];
                pack_rows(isa, rows.start + first, b.k, to, &mut row_sums[first..first + height], row);
            }
            let group = SEGMENT / isa.columns;
            for start in part.clone().step_by(group) {
                let columns = start..(start + group).min(part.end);
                block(isa, rows.len(), packed, b, columns.clone(), sums);
                let (from, to) = (columns.start * isa.columns, (columns.end * isa.columns).min(b.n));
                for (r, line) in sums.chunks_exact_mut(SEGMENT).enumerate() {
                    let sums = &mut line[..to - from];
                    done(Segment {
                        row: rows.start + r,
                        column: from,
                        sums,
                        row_sum: row_sums[r],
                        shift: i32::from(isa.signed_a) << 7,
                    });
                }
            }
        });
    });
}

/// Sums of a block of rows times some panels, [`SEGMENT`] apart.
fn block(isa: &Isa, rows: usize, a: &[u8], b: &Weights, panels: std::ops::Range<usize>, sums: &mut [i32]) {
    let deep = b.k.next_multiple_of(isa.group);
    assert!(a.len() >= rows * deep * isa.a_bytes && sums.len() >= rows * SEGMENT && panels.len() * isa.columns <= SEGMENT);
    for j in panels.clone() {
        let panel = b.panels[j * deep * isa.columns..].as_ptr();
        for (first, height) in heights(rows, isa.tiles.len()) {
            let a = a[first * deep * isa.a_bytes..].as_ptr();
            let c = sums[first * SEGMENT + (j - panels.start) * isa.columns..].as_mut_ptr();
            // SAFETY: `product` saw that the instruction set is there; the asserts here and in `Weights::packed` bound A, B and
            // the sums.
            unsafe { isa.tiles[height - 1](deep / isa.group, a, panel, c, SEGMENT) };
        }
    }
}
