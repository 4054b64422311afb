//! Matrices spread over the registers of a warp: `ldmatrix`, `stmatrix` and `mma.sync`.

use smallvec::SmallVec;

use super::access::aligned_at;
use super::entry::Instruction;
use super::machine::Run;
use super::number::Ty;
use super::op::{Element, Mma, Op, Space};
use super::operand::{Literal, Operand};
use super::warp::Warp;
use super::{Kind, Result, fault};

impl Run<'_> {
    pub(super) fn matrix(&mut self, warp: &mut Warp, i: &Instruction) -> Result<()> {
        match i.op {
            Op::LoadMatrix { count, transposed } => self.load_matrices(warp, i, count, transposed),
            Op::StoreMatrix { count, transposed } => self.store_matrices(warp, i, count, transposed),
            Op::Mma(shape) => {
                self.statistics.multiply_adds += (shape.m * shape.n * shape.k) as u64;
                product(warp, &i.operands, shape)
            }
            other => fault(Kind::Syntax, format!("{other:?}")),
        }
    }

    /// Row r of matrix m, 8 elements of 16 bits, lies where lane 8 m + r says. Lane l gets elements 2 (l % 4) and the next of
    /// row l / 4, or, transposed, of column l / 4.
    fn load_matrices(&mut self, warp: &mut Warp, i: &Instruction, count: usize, transposed: bool) -> Result<()> {
        let place = warp.place;
        let to = expect(&i.operands[0], count)?;
        let addresses = warp.addresses(&i.operands[1], u32::MAX >> (32 - 8 * count))?;
        self.count(Space::Shared, u32::MAX >> (32 - 8 * count), &addresses, 16, false);
        let mut rows = [[0u8; 16]; 32];
        for (lane, row) in rows[..count * 8].iter_mut().enumerate() {
            let spot = aligned_at(Space::Shared, addresses[lane], &place, 16)?;
            row.copy_from_slice(self.load(&place, 1 << lane, spot, 16)?);
        }
        for (m, register) in to.into_iter().enumerate() {
            let element = |row: usize, column: usize| {
                let row = &rows[m * 8 + row];
                u64::from(u16::from_le_bytes([row[column * 2], row[column * 2 + 1]]))
            };
            warp.written(register, u32::MAX)?;
            warp.registers[register] = std::array::from_fn(|lane| {
                let (major, minor) = (lane / 4, lane % 4 * 2);
                let pick = |n: usize| if transposed { element(minor + n, major) } else { element(major, minor + n) };
                pick(1) << 16 | pick(0)
            });
        }
        Ok(())
    }

    fn store_matrices(&mut self, warp: &mut Warp, i: &Instruction, count: usize, transposed: bool) -> Result<()> {
        let place = warp.place;
        let addresses = warp.addresses(&i.operands[0], u32::MAX >> (32 - 8 * count))?;
        self.count(Space::Shared, u32::MAX >> (32 - 8 * count), &addresses, 16, true);
        for (m, register) in expect(&i.operands[1], count)?.into_iter().enumerate() {
            let mut rows = [[0u8; 16]; 8];
            for lane in 0..32 {
                let bits = (warp.register(register, lane)? as u32).to_le_bytes();
                for n in 0..2 {
                    let (major, minor) = (lane / 4, lane % 4 * 2 + n);
                    let (row, column) = if transposed { (minor, major) } else { (major, minor) };
                    rows[row][column * 2..][..2].copy_from_slice(&bits[n * 2..][..2]);
                }
            }
            for (r, row) in rows.iter().enumerate() {
                let lane = m * 8 + r;
                let spot = aligned_at(Space::Shared, addresses[lane], &place, 16)?;
                self.store(&place, lane, spot, row)?;
            }
        }
        Ok(())
    }
}

/// The registers of a vector of `count`.
fn expect(operand: &Operand, count: usize) -> Result<Vec<usize>> {
    let registers = Warp::registers_of(operand)?;
    if registers.len() == count { Ok(registers) } else { fault(Kind::Syntax, format!("{count} registers are wanted")) }
}

/// Element `n` of a register.
#[inline]
pub(super) fn element(of: Element, bits: u64, n: usize) -> f32 {
    match of {
        Element::F16 => f16_value(bits as u32 >> (16 * n)),
        Element::BF16 => f32::from_bits((bits as u32 >> (16 * n)) << 16),
        // A device reads the upper 19 bits.
        Element::TF32 => f32::from_bits(bits as u32 & !0x1fff),
        Element::S8 => ((bits >> (8 * n)) as i8).into(),
        Element::U8 => ((bits >> (8 * n)) as u8).into(),
    }
}

/// The f32 of the low half.
fn f16_value(bits: u32) -> f32 {
    static TABLE: std::sync::OnceLock<Vec<f32>> = std::sync::OnceLock::new();
    let table = TABLE.get_or_init(|| (0..=u16::MAX).map(|b| half::f16::from_bits(b).to_f32()).collect());
    table[(bits & 0xffff) as usize]
}

/// Adds a row of the left factor times the right one, which lies by rows of k, to a row of sums. f32: each product is added
/// exactly and each sum rounded, in the order of k. s32: exact, and wraps, or stays in range.
pub(super) fn accumulate(shape: Mma, sums: &mut [u32], row: &[f32], by_k: &[f32]) {
    for (a, columns) in row.iter().zip(by_k.chunks_exact(sums.len())) {
        match (shape.a.is_integer(), shape.saturate) {
            (false, _) => super::lanewise::multiply_add(sums, *a, columns),
            (_, true) => sums.iter_mut().zip(columns).for_each(|(s, b)| *s = (*s as i32).saturating_add((a * b) as i32) as u32),
            _ => sums.iter_mut().zip(columns).for_each(|(s, b)| *s = s.wrapping_add((a * b) as i32 as u32)),
        }
    }
}

/// The accumulators that a register holds: one, or two halves.
pub(super) fn sums_of(shape: Mma, bits: u64) -> [u32; 2] {
    if shape.half { [0, 16].map(|at| f16_value(bits as u32 >> at).to_bits()) } else { [bits as u32, 0] }
}

/// The register that holds the sums: f16 are rounded once, from f32.
pub(super) fn register_of(shape: Mma, sums: [u32; 2]) -> u64 {
    let half = |s: u32| super::packed::narrow(false, f32::from_bits(s).into());
    if shape.half { half(sums[1]) << 16 | half(sums[0]) } else { sums[0].into() }
}

/// `mma.sync d, a, b, c`. Lane l holds, with g = l / 4 and t = l % 4: of A (by rows) and B (by columns) in each register as
/// many neighbouring elements of k as fit, from k = t * per on, rows or columns g; register r of A has rows g + 8 (r % 2) and
/// k + (r / 2) * half; of C and D elements (g + 8 (r / 2), 2 t + r % 2). Source: PTX ISA 9.7.13.4, figures of each shape. With `mma.sp` A
/// is half as deep, and two operands say which elements of a row it has: [`Fours`].
fn product(warp: &mut Warp, o: &[Operand], shape: Mma) -> Result<()> {
    let per = 4 / shape.a.bytes();
    // Elements of k that one register of all four lanes of a row covers.
    let span = per * 4;
    let (tall, deep) = (shape.m / 8, shape.k / span);
    let left_k = if shape.sparse { shape.k / 2 } else { shape.k };
    let (a, b) = (expect(&o[1], tall * left_k / span)?, expect(&o[2], deep)?);
    let fours = if shape.sparse { Some(Fours::new(&o[4], &o[5], shape)?) } else { None };
    fours.iter().try_for_each(|f| warp.readable(f.register, f.mask()))?;
    let per_register = if shape.half { 2 } else { 1 };
    let (d, c) = (expect(&o[0], tall * 2 / per_register)?, expect(&o[3], tall * 2 / per_register)?);
    a.iter().chain(&b).chain(&c).try_for_each(|r| warp.readable(*r, u32::MAX))?;
    let at = |of: Element, registers: &[usize], row: usize, k: usize| {
        element(of, warp.registers[registers[k / span]][row % 8 * 4 + k % span / per], k % per)
    };
    let mut by_k = [0f32; 8 * 64];
    for (i, v) in by_k[..shape.k * 8].iter_mut().enumerate() {
        *v = at(shape.b, &b, i % 8, i / 8);
    }
    let mut sums = [[0u32; 8]; 16];
    let rows_of = |r: usize, lane: usize| (lane / 4 + 8 * (r / 2), lane % 4 * 2 + r % 2);
    for (r, from) in c.iter().enumerate() {
        for lane in 0..32 {
            let held = sums_of(shape, warp.registers[*from][lane]);
            for (n, sum) in held[..per_register].iter().enumerate() {
                let (row, column) = rows_of(r * per_register + n, lane);
                sums[row][column] = *sum;
            }
        }
    }
    for (row, sums) in sums[..shape.m].iter_mut().enumerate() {
        let registers: SmallVec<[usize; 4]> = (0..left_k / span).map(|h| a[row / 8 + tall * h]).collect();
        let mut values = [0f32; 64];
        for k in 0..left_k {
            values[fours.as_ref().map_or(Ok(k), |f| f.column(warp, row, k))?] = at(shape.a, &registers, row, k);
        }
        accumulate(shape, sums, &values[..shape.k], &by_k[..shape.k * 8]);
    }
    for (r, to) in d.iter().enumerate() {
        warp.written(*to, u32::MAX)?;
        warp.registers[*to] = std::array::from_fn(|lane| {
            let sum = |n: usize| {
                let (row, column) = rows_of(r * per_register + n.min(per_register - 1), lane);
                sums[row][column]
            };
            register_of(shape, [sum(0), sum(1)])
        });
    }
    Ok(())
}

/// The metadata of `mma.sp`, and of `wgmma.mma_async.sp` for the 16 rows of each warp: of each four of a row two places of two bits, one after the other. Which lanes of each four give them says the
/// sparsity selector. Source: PTX ISA, "Warp-level matrix instructions: mma.sp" and "wgmma.mma_async.sp", figures of the metadata, which are
/// the same of m16n8k32 and m64nNk32, and of m16n8k64 and m64nNk64.
pub(super) struct Fours {
    pub(super) register: usize,
    selector: usize,
    shape: Mma,
}

impl Fours {
    pub(super) fn new(metadata: &Operand, selector: &Operand, shape: Mma) -> Result<Self> {
        let register = expect(metadata, 1)?[0];
        // Lanes of each four that give metadata.
        let lanes = shape.k / 16;
        let Operand::Literal(Literal::Integer(selector)) = selector else {
            return fault(Kind::Syntax, "the selector is no constant");
        };
        let selector = *selector as usize;
        if selector >= 4 / lanes {
            return fault(Kind::Misuse, format!("selector {selector} of metadata that {lanes} lanes give"));
        }
        Ok(Fours { register, selector, shape })
    }

    /// The lanes that are asked.
    pub(super) fn mask(&self) -> u32 {
        let lanes = self.shape.k / 16;
        (0..32).filter(|lane| lane % 4 / lanes == self.selector).fold(0, |all, lane| all | 1u32 << lane)
    }

    /// The column of element `k` of a row that is left.
    pub(super) fn column(&self, warp: &Warp, row: usize, k: usize) -> Result<usize> {
        let (g, low, four) = (row % 8, row / 8, k / 2);
        let (t, bit) = match (self.shape.a.is_integer(), self.shape.k) {
            (false, 16) => (self.selector, 16 * low + 4 * four),
            (false, _) => (2 * self.selector + four / 4, 16 * low + four % 4 * 4),
            (true, 32) => (2 * self.selector + low, 4 * four),
            (true, _) => (low + four / 8 * 2, four % 8 * 4),
        };
        let places = warp.registers[self.register][4 * g + t] >> bit;
        let [first, second] = [places & 3, places >> 2 & 3].map(|p| p as usize);
        if first >= second {
            return fault(Kind::Misuse, format!("places {first} and {second} of row {row} are not in order"));
        }
        Ok(4 * four + if k.is_multiple_of(2) { first } else { second })
    }
}
