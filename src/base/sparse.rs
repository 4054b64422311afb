//! Weights of which two in every four neighbours of a row are zero, as the sparse products of tensor cores read them. Source: PTX ISA, "Warp-level
//! matrix instructions: mma.sp" (matrix fragments and metadata of `m16n8k32` for 16-bit elements and of `m16n8k64` for bytes).

use bytemuck::Pod;

/// Rows of a block: those of one instruction.
pub const ROWS: usize = 16;
/// Columns of a block: those of two instructions for 16-bit elements, of one for bytes.
pub const COLUMNS: usize = 64;
/// Threads of a warp.
const LANES: usize = 32;

/// A matrix [rows x k] in blocks of 16 x 64, zeros beyond its borders; blocks of the same rows follow one another.
///
/// A block is 32 words of metadata, one for each lane, and for each of its instructions four registers for each lane, the lanes one
/// after the other: with 16 bytes a lane has its part of the left operand. The first instruction of 16-bit elements takes its metadata from lanes 0 and 1 of
/// each four (sparsity selector 0), the second from lanes 2 and 3 (selector 1); that of bytes from all.
#[derive(Debug, Clone, PartialEq)]
pub struct TwoOfFour<T> {
    rows: usize,
    k: usize,
    /// What is left of the elements.
    pub values: Vec<T>,
    /// For each four of a row two places of two bits, the lower one first.
    pub metadata: Vec<u32>,
}

/// Where a four of a block's row lies.
struct Place {
    /// In the block's values, of the first of its two.
    value: usize,
    /// In the block's metadata: the word, and its first bit.
    word: usize,
    bit: usize,
}

/// Of four `q` in row `r` of a block. Lane `4 g + t` holds rows g and g + 8; a register holds 4 bytes of a row.
fn place(size: usize, r: usize, q: usize) -> Place {
    let (g, low) = (r % 8, r / 8);
    // Elements that a register holds, fours of one instruction, and its registers: rows g and g + 8 of one half of k, then of the other.
    let (per, fours) = (4 / size, 16 / size);
    let (instruction, q) = (q / fours, q % fours);
    // The first of the two among the elements of the row that are left.
    let column = 2 * q;
    let (half, column) = (column / (4 * per), column % (4 * per));
    let (register, t) = (low + 2 * half, column / per);
    let value = ((instruction * LANES + 4 * g + t) * 4 + register) * per + column % per;
    let (word, bit) = match size {
        2 => (4 * g + 2 * instruction + q / 4, 16 * low + q % 4 * 4),
        _ => (4 * g + low + q / 8 * 2, q % 8 * 4),
    };
    Place { value, word, bit }
}

impl<T: Pod + PartialEq> TwoOfFour<T> {
    /// Packs a matrix [rows x k] of elements of one or two bytes; `None` where a four has more than two that are not zero. The last
    /// four of a row may be short.
    pub fn new(dense: &[T], rows: usize, k: usize) -> Option<Self> {
        let size = size_of::<T>();
        assert!(matches!(size, 1 | 2) && dense.len() == rows * k, "elements of one or two bytes, rows x k of them");
        let (across, down) = (k.div_ceil(COLUMNS), rows.div_ceil(ROWS));
        let mut packed = TwoOfFour {
            rows,
            k,
            values: vec![T::zeroed(); across * down * ROWS * COLUMNS / 2],
            metadata: vec![0; across * down * LANES],
        };
        for (row, q) in (0..down * ROWS).flat_map(|row| (0..across * COLUMNS / 4).map(move |q| (row, q))) {
            let at = |i: usize| if row < rows && 4 * q + i < k { dense[row * k + 4 * q + i] } else { T::zeroed() };
            let mut kept: Vec<usize> = (0..4).filter(|&i| at(i) != T::zeroed()).collect();
            if kept.len() > 2 {
                return None;
            }
            // Any two that differ will do where there are fewer.
            let others: Vec<usize> = (0..4).filter(|i| !kept.contains(i)).take(2 - kept.len()).collect();
            kept.extend(others);
            kept.sort_unstable();
            let (value, word, bit) = packed.find(row, q);
            packed.values[value..value + 2].copy_from_slice(&[at(kept[0]), at(kept[1])]);
            packed.metadata[word] |= ((kept[0] | kept[1] << 2) as u32) << bit;
        }
        Some(packed)
    }

    /// Of a four: its first value, its word of metadata, and the first bit.
    fn find(&self, row: usize, q: usize) -> (usize, usize, usize) {
        let block = row / ROWS * self.k.div_ceil(COLUMNS) + q / (COLUMNS / 4);
        let place = place(size_of::<T>(), row % ROWS, q % (COLUMNS / 4));
        (block * ROWS * COLUMNS / 2 + place.value, block * LANES + place.word, place.bit)
    }

    /// The matrix again, [rows x k].
    pub fn dense(&self) -> Vec<T> {
        let mut dense = vec![T::zeroed(); self.rows * self.k];
        for (row, q) in (0..self.rows).flat_map(|row| (0..self.k.div_ceil(4)).map(move |q| (row, q))) {
            let (value, word, bit) = self.find(row, q);
            for i in 0..2 {
                let at = 4 * q + (self.metadata[word] >> (bit + 2 * i) & 3) as usize;
                if at < self.k {
                    dense[row * self.k + at] = self.values[value + i];
                }
            }
        }
        dense
    }

    /// Bytes of values and metadata.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.values[..]) + size_of_val(&self.metadata[..])
    }
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
            assert!(of_bytes.dense() == bytes && of_words.dense() == words, "{rows} x {k}");
            if (rows, k) == (64, 256) {
                assert_eq!((of_bytes.bytes(), of_words.bytes()), (rows * k * 5 / 8, rows * k * 2 * 9 / 16));
            }
        }
    }

    #[test]
    fn places_of_two_in_four_differ_and_grow() {
        let packed = TwoOfFour::new(&sparse(&mut Xorshift::new(3), 32, 128), 32, 128).unwrap();
        let fours = packed.metadata.iter().flat_map(|w| (0..8).map(move |i| w >> (4 * i) & 15));
        assert!(fours.into_iter().all(|four| four & 3 < four >> 2));
    }

    #[test]
    fn three_of_four_are_refused() {
        assert!(TwoOfFour::new(&[1i8, 0, 1, 1], 1, 4).is_none());
        assert!(TwoOfFour::new(&[1i8, 1, 0, 0, 1, 1], 1, 6).is_some());
    }
}
