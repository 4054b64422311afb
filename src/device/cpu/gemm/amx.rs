//! AMX: registers that hold matrices of 16 rows of 64 bytes and multiply them, four bytes to an i32 (Intel SDM, volume 1, chapter 18).
//!
//! A's rows are read as they lie, B's panels as AVX-512 VNNI packs them: rows of 32 columns in groups of four. Two registers of A and
//! two of B are multiplied into four of sums, 32 rows by 32 columns.

use std::arch::asm;

use super::bytes::Isa;
use super::tile::{Matrices, MatrixTiles};
use crate::hardware::Capabilities;

/// AMX from four rows of A on, else as [`super::bytes::AVX512_VNNI`].
pub static AMX: Isa = Isa {
    needs: Capabilities::AMX_INT8.union(Capabilities::AVX512_VNNI),
    matrix: Some(MatrixTiles { least_rows: 4, product: unsigned, listed: signed }),
    ..super::bytes::AVX512_VNNI
};

/// What ldtilecfg reads: palette 1, for each register bytes of a row and rows.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Configuration {
    /// Sums in registers 0 to 3, A in 4 and 5, B in 6 and 7; so many groups of four bytes at once.
    fn new(groups: usize) -> Self {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        row_bytes[..8].copy_from_slice(&[64, 64, 64, 64, 4 * groups as u16, 4 * groups as u16, 64, 64]);
        rows[..8].copy_from_slice(&[16, 16, 16, 16, 16, 16, groups as u8, groups as u8]);
        Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    }
}

/// Multiplies u8 by s8.
///
/// # Safety
/// As for [`run`].
unsafe fn unsigned(m: &Matrices, a: *const u8, b: *const u8, start: *const i32, c: *mut i32) {
    // SAFETY: the caller's contract.
    unsafe { run(m, a, b, start, c, [unsigned_16, unsigned_32]) }
}

/// Multiplies s8 by u8.
///
/// # Safety
/// As for [`run`].
unsafe fn signed(m: &Matrices, a: *const u8, b: *const u8, start: *const i32, c: *mut i32) {
    // SAFETY: the caller's contract.
    unsafe { run(m, a, b, start, c, [signed_16, signed_32]) }
}

/// One tile: `(matrices, a, b, start, c)`, the registers configured.
type Tile = unsafe fn(&Matrices, *const u8, *const u8, *const i32, *mut i32);

/// # Safety
/// The process may use AMX. A, B, the start and the sums lie as [`Matrices`] says.
unsafe fn run(m: &Matrices, a: *const u8, b: *const u8, start: *const i32, c: *mut i32, tiles: [Tile; 2]) {
    let configuration = Configuration::new(m.groups);
    let tile = tiles[usize::from(m.height > 16)];
    // SAFETY: the compiler knows nothing of these registers and uses none, so they keep their values from the first instruction to the
    // last: nothing is called in between but tiles, each of them one block. Released, they cost a change of threads nothing.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &configuration, options(nostack, preserves_flags));
        for panel in 0..m.panels {
            tile(m, a, b.add(panel * m.panel), start.add(panel * m.start_step), c.add(panel * 32));
        }
        asm!("tilerelease", options(nostack, preserves_flags));
    }
}

/// Tiles of 16 and of 32 rows that multiply by one instruction.
macro_rules! tiles {
    ($one:ident, $two:ident, $multiply:literal) => {
        /// # Safety
        /// As for [`run`], of up to 16 rows; the registers are configured.
        unsafe fn $one(m: &Matrices, a: *const u8, b: *const u8, start: *const i32, c: *mut i32) {
            // SAFETY: the caller's contract.
            unsafe {
                asm!(
                    "xor {at:e}, {at:e}",
                    "tileloadd tmm0, [{start} + {at}]",
                    "tileloadd tmm1, [{start} + {at} + 64]",
                    "2:",
                    "mov {at:e}, dword ptr [{pieces}]",
                    "add {at}, {b}",
                    "tileloadd tmm4, [{a} + {a_row}]",
                    "tileloadd tmm6, [{at} + {b_row}]",
                    "tileloadd tmm7, [{at} + {b_row} + 64]",
                    concat!($multiply, " tmm0, tmm4, tmm6"),
                    concat!($multiply, " tmm1, tmm4, tmm7"),
                    "add {a}, 64",
                    "add {pieces}, 4",
                    "dec {count}",
                    "jnz 2b",
                    "tilestored [{c} + {c_row}], tmm0",
                    "tilestored [{c} + {c_row} + 64], tmm1",
                    at = out(reg) _, start = in(reg) start, count = inout(reg) m.pieces.len() => _,
                    pieces = inout(reg) m.pieces.as_ptr() => _,
                    a = inout(reg) a => _, a_row = in(reg) 64 * m.pieces.len(), b = in(reg) b, b_row = in(reg) m.row,
                    c = in(reg) c, c_row = in(reg) 4 * m.c_step,
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _, options(nostack),
                );
            }
        }

        /// # Safety
        /// As for [`run`], of up to 32 rows; the registers are configured.
        unsafe fn $two(m: &Matrices, a: *const u8, b: *const u8, start: *const i32, c: *mut i32) {
            // SAFETY: the caller's contract.
            unsafe {
                asm!(
                    "xor {at:e}, {at:e}",
                    "tileloadd tmm0, [{start} + {at}]",
                    "tileloadd tmm1, [{start} + {at} + 64]",
                    "tileloadd tmm2, [{start} + {at}]",
                    "tileloadd tmm3, [{start} + {at} + 64]",
                    "2:",
                    "mov {at:e}, dword ptr [{pieces}]",
                    "add {at}, {b}",
                    "tileloadd tmm4, [{a} + {a_row}]",
                    "tileloadd tmm6, [{at} + {b_row}]",
                    "tileloadd tmm7, [{at} + {b_row} + 64]",
                    concat!($multiply, " tmm0, tmm4, tmm6"),
                    "tileloadd tmm5, [{below} + {a_row}]",
                    concat!($multiply, " tmm1, tmm4, tmm7"),
                    concat!($multiply, " tmm2, tmm5, tmm6"),
                    concat!($multiply, " tmm3, tmm5, tmm7"),
                    "add {a}, 64",
                    "add {below}, 64",
                    "add {pieces}, 4",
                    "dec {count}",
                    "jnz 2b",
                    "mov {at}, {c_row}",
                    "shl {at}, 4",
                    "add {at}, {c}",
                    "tilestored [{c} + {c_row}], tmm0",
                    "tilestored [{c} + {c_row} + 64], tmm1",
                    "tilestored [{at} + {c_row}], tmm2",
                    "tilestored [{at} + {c_row} + 64], tmm3",
                    at = out(reg) _, start = in(reg) start, count = inout(reg) m.pieces.len() => _,
                    pieces = inout(reg) m.pieces.as_ptr() => _,
                    a = inout(reg) a => _, below = inout(reg) a.add(16 * 64 * m.pieces.len()) => _,
                    a_row = in(reg) 64 * m.pieces.len(), b = in(reg) b, b_row = in(reg) m.row,
                    c = in(reg) c, c_row = in(reg) 4 * m.c_step,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _, options(nostack),
                );
            }
        }
    };
}

tiles!(unsigned_16, unsigned_32, "tdpbusd");
tiles!(signed_16, signed_32, "tdpbsud");
