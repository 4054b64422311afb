//! Weights of which two in every four neighbours of a row are zero, as the sparse products of tensor cores read them. Source: PTX ISA, "Warp-level
//! matrix instructions: mma.sp" (matrix fragments and metadata of `m16n8k32` for 16-bit elements and of `m16n8k64` for bytes).

use bytemuck::Pod;
use rayon::prelude::*;

/// Rows of a block: those of one instruction.
pub const ROWS: usize = 16;
/// Bytes of each row in a block before packing: those of two instructions.
pub const WIDTH: usize = 128;
/// Bytes of the elements that one instruction reads: 16 for each lane of a warp.
const VALUES: usize = 512;
/// Blocks behind the last: whoever reads rows 128 at a time may read beyond those there are.
const SPARE: usize = 128 / ROWS - 1;

/// A matrix [rows x k] in blocks of 16 rows x 128 bytes, zeros beyond its borders; first come those of the first 128 bytes of all rows.
///
/// A block is, for each of its two instructions, four registers for each lane, the lanes one after the other, and then the metadata: a word for each
/// lane with bytes, with 16-bit elements for lanes 0 and 1 of each four (sparsity selector 0). Row `g` of an instruction is row `2 g` of the block and
/// row `g + 8` row `2 g + 1`: with rows as columns of a result, a lane has neighbours of it.
#[derive(Debug, Clone, PartialEq)]
pub struct TwoOfFour {
    rows: usize,
    k: usize,
    /// Of an element.
    size: usize,
    /// All blocks, and a few empty ones.
    pub bytes: Vec<u8>,
}

/// Where a four of a block's row lies.
struct Place {
    /// In the block, of the first of its two elements.
    value: usize,
    /// In the block, of the word of metadata, and the first bit in it.
    word: usize,
    bit: usize,
}

/// Bytes of a block of elements of `size` bytes.
fn block_bytes(size: usize) -> usize {
    2 * (VALUES + 128 / size)
}

/// Of four `q` in row `r` of a block. Lane `4 g + t` holds rows g and g + 8; a register holds 4 bytes of a row.
fn place(size: usize, r: usize, q: usize) -> Place {
    let (g, low) = (r / 2, r % 2);
    // Elements that a register holds, fours of one instruction, and its registers: rows g and g + 8 of one half of k, then of the other.
    let (per, fours) = (4 / size, 16 / size);
    let (start, q) = (q / fours * block_bytes(size) / 2, q % fours);
    // The first of the two among the elements of the row that are left.
    let (half, column) = (2 * q / (4 * per), 2 * q % (4 * per));
    let (register, t) = (low + 2 * half, column / per);
    let value = start + ((4 * g + t) * 4 + register) * 4 + column % per * size;
    let (word, bit) = match size {
        2 => (2 * g + q / 4, 16 * low + q % 4 * 4),
        _ => (4 * g + low + q / 8 * 2, q % 8 * 4),
    };
    Place { value, word: start + VALUES + 4 * word, bit }
}

/// The first two places that hold all elements of a four that are not zero; `None` where there are more.
fn places(is_zero: impl Fn(usize) -> bool) -> Option<(usize, usize)> {
    let left = (0..4).filter(|&i| !is_zero(i)).fold(0, |all, i| all | 1 << i);
    let mut pairs = (0..3).flat_map(|i| (i + 1..4).map(move |j| (i, j)));
    pairs.find(|&(i, j)| left & !(1 << i | 1 << j) == 0)
}

/// Whether of every four neighbours in a row of a matrix [rows x k] two at least are zero. The last four of a row may be short.
pub fn fits(rows: usize, k: usize, is_zero: impl Fn(usize, usize) -> bool + Sync) -> bool {
    let four = |row: usize, q: usize| places(|i| 4 * q + i >= k || is_zero(row, 4 * q + i)).is_some();
    (0..k.div_ceil(4)).into_par_iter().all(|q| (0..rows).all(|row| four(row, q)))
}

impl TwoOfFour {
    /// Packs a matrix [rows x k] of elements of one or two bytes; `None` where it does not fit. A zero of floats may have a sign, which is lost.
    pub fn new<T: Pod + PartialEq + Send + Sync>(dense: &[T], rows: usize, k: usize) -> Option<Self> {
        let size = size_of::<T>();
        assert!(matches!(size, 1 | 2) && dense.len() == rows * k, "elements of one or two bytes, rows x k of them");
        let (down, across) = (rows.div_ceil(ROWS), k.div_ceil(WIDTH / size));
        let mut bytes = vec![0; (down * across + SPARE) * block_bytes(size)];
        let zero = T::zeroed();
        bytes.par_chunks_exact_mut(block_bytes(size)).enumerate().try_for_each(|(b, block)| {
            let (first, start) = (b % down.max(1) * ROWS, b / down.max(1) * (WIDTH / size));
            for (r, q) in (0..ROWS).flat_map(|r| (0..WIDTH / size / 4).map(move |q| (r, q))) {
                let (row, column) = (first + r, start + 4 * q);
                let at = |i: usize| if row < rows && column + i < k { dense[row * k + column + i] } else { zero };
                let (i, j) = places(|i| at(i) == zero)?;
                let Place { value, word, bit } = place(size, r, q);
                block[value..value + 2 * size].copy_from_slice(bytemuck::bytes_of(&[at(i), at(j)]));
                block[word + bit / 8] |= ((i | j << 2) << (bit % 8)) as u8;
            }
            Some(())
        })?;
        Some(TwoOfFour { rows, k, size, bytes })
    }

    /// The matrix again, [rows x k].
    pub fn dense<T: Pod>(&self) -> Vec<T> {
        let size = self.size;
        let mut dense = vec![T::zeroed(); self.rows * self.k];
        for (row, q) in (0..self.rows).flat_map(|row| (0..self.k.div_ceil(4)).map(move |q| (row, q))) {
            let fours = WIDTH / size / 4;
            let block = q / fours * pitch_bytes(self.rows, size) + row / ROWS * block_bytes(size);
            let Place { value, word, bit } = place(size, row % ROWS, q % fours);
            for i in 0..2 {
                let at = 4 * q + (self.bytes[block + word + bit / 8] >> (bit % 8 + 2 * i) & 3) as usize;
                if at < self.k {
                    dense[row * self.k + at] = bytemuck::pod_read_unaligned(&self.bytes[block + value + i * size..][..size]);
                }
            }
        }
        dense
    }
}

/// Bytes from the blocks of some 128 bytes of all rows to those of the next.
pub fn pitch_bytes(rows: usize, size: usize) -> usize {
    rows.div_ceil(ROWS) * block_bytes(size)
}

/// What is stored of `bytes` bytes of a matrix of elements of `size`: half, and two bits for each element left.
pub fn stored_bytes(bytes: f64, size: usize) -> f64 {
    bytes * block_bytes(size) as f64 / (ROWS * WIDTH) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    /// Two of four, sometimes one or none, at any places.
    fn sparse(random: &mut Xorshift, rows: usize, k: usize) -> Vec<i8> {
        let mut all = vec![0; rows * k];
        for row in all.chunks_exact_mut(k) {
            for four in row.chunks_mut(4) {
                for _ in 0..2 {
                    let at = random.below(four.len());
                    four[at] = random.below(255) as i8;
                }
            }
        }
        all
    }

    #[test]
    fn what_is_packed_comes_back_and_is_smaller() {
        let mut random = Xorshift::new(2);
        for (rows, k) in [(16, 64), (1, 1), (17, 66), (40, 130), (64, 256)] {
            let bytes = sparse(&mut random, rows, k);
            let words: Vec<u16> = bytes.iter().map(|&b| u16::from(b as u8) * 257).collect();
            let (of_bytes, of_words) = (TwoOfFour::new(&bytes, rows, k).unwrap(), TwoOfFour::new(&words, rows, k).unwrap());
            assert!(of_bytes.dense::<i8>() == bytes && of_words.dense::<u16>() == words, "{rows} x {k}");
            if (rows, k) == (64, 256) {
                let sizes = [of_bytes, of_words].map(|p| p.bytes.len() - SPARE * block_bytes(p.size));
                assert_eq!(sizes, [rows * k * 5 / 8, rows * k * 2 * 9 / 16]);
            }
        }
    }

    #[test]
    fn places_of_two_in_four_differ_and_grow() {
        let packed = TwoOfFour::new(&sparse(&mut Xorshift::new(3), 32, 128), 32, 128).unwrap();
        // Those of the spare blocks too.
        let units = packed.bytes.chunks_exact(VALUES + 128);
        let fours = units.flat_map(|unit| unit[VALUES..].iter().flat_map(|w| [w & 15, w >> 4]));
        assert!(fours.into_iter().all(|four| four & 3 < four >> 2));
    }

    #[test]
    fn three_of_four_are_refused_and_zeros_may_have_signs() {
        let of = |dense: &[i8], k: usize| (TwoOfFour::new(dense, 1, k).is_some(), fits(1, k, |_, i| dense[i] == 0));
        assert_eq!(of(&[1, 0, 1, 1], 4), (false, false));
        assert_eq!(of(&[1, 1, 0, 0, 1, 1], 6), (true, true));
        let signed = [1.0, -0.0, 0.0, 2.0, -0.0].map(half::f16::from_f32);
        assert!(TwoOfFour::new(&signed, 1, 5).is_some_and(|p| p.dense::<half::f16>() == signed));
    }
}
