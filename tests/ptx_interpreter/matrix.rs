//! Matrices spread over the registers of a warp: `ldmatrix`, `stmatrix` and `mma.sync`.

use super::access::{Spot, aligned};
use super::entry::Instruction;
use super::machine::Run;
use super::number::{Ty, sign_extend};
use super::op::{Element, Mma, Op, Space};
use super::operand::Operand;
use super::packed::widen;
use super::warp::Warp;
use super::{Kind, Result, fault};

impl Run<'_> {
    pub(super) fn matrix(&mut self, warp: &mut Warp, i: &Instruction) -> Result<()> {
        match i.op {
            Op::LoadMatrix { count, transposed } => self.load_matrices(warp, i, count, transposed),
            Op::StoreMatrix { count, transposed } => self.store_matrices(warp, i, count, transposed),
            Op::Mma(shape) => product(warp, &i.operands, shape),
            other => fault(Kind::Syntax, format!("{other:?}")),
        }
    }

    /// Row r of matrix m, 8 elements of 16 bits, lies where lane 8 m + r says. Lane l gets elements 2 (l % 4) and the next of
    /// row l / 4, or, transposed, of column l / 4.
    fn load_matrices(&mut self, warp: &mut Warp, i: &Instruction, count: usize, transposed: bool) -> Result<()> {
        let place = warp.place.clone();
        let to = expect(&i.operands[0], count)?;
        let mut rows = vec![[0u8; 16]; count * 8];
        for (lane, row) in rows.iter_mut().enumerate() {
            let spot = shared(warp, &i.operands[1], lane)?;
            *row = self.load(&place, lane, spot, 16)?;
        }
        for (m, register) in to.into_iter().enumerate() {
            let element = |row: usize, column: usize| &rows[m * 8 + row][column * 2..][..2];
            for lane in 0..32 {
                let (major, minor) = (lane / 4, lane % 4 * 2);
                let pick = |n: usize| if transposed { element(minor + n, major) } else { element(major, minor + n) };
                let bits = super::access::bits(&[pick(0), pick(1)].concat());
                warp.set_register(register, lane, Ty::Bits(32), bits)?;
            }
        }
        Ok(())
    }

    fn store_matrices(&mut self, warp: &mut Warp, i: &Instruction, count: usize, transposed: bool) -> Result<()> {
        let place = warp.place.clone();
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
                let spot = shared(warp, &i.operands[0], lane)?;
                self.store(&place, lane, spot, row)?;
            }
        }
        Ok(())
    }
}

fn shared(warp: &Warp, operand: &Operand, lane: usize) -> Result<Spot> {
    aligned(warp, operand, lane, Space::Shared, 16)
}

/// The registers of a vector of `count`.
fn expect(operand: &Operand, count: usize) -> Result<Vec<usize>> {
    let registers = Warp::registers_of(operand)?;
    if registers.len() == count { Ok(registers) } else { fault(Kind::Syntax, format!("{count} registers are wanted")) }
}

/// Element `n` of a register.
pub(super) fn element(of: Element, bits: u64, n: usize) -> f64 {
    match of {
        Element::F16 | Element::BF16 => widen(of == Element::BF16, bits >> (16 * n) & 0xffff),
        Element::S8 => sign_extend(bits >> (8 * n), 8) as f64,
        Element::U8 => (bits >> (8 * n) & 255) as f64,
    }
}

/// The accumulator and the products of a row and a column. f32: each product is exact, each sum rounded, in the order of k.
/// s32: exact, and wraps.
pub(super) fn accumulate(integer: bool, sum: u64, row: &[f64], column: &[f64]) -> u64 {
    let products = row.iter().zip(column).map(|(a, b)| a * b);
    if integer {
        return products.fold(sum as u32, |s, p| s.wrapping_add(p as i64 as u32)).into();
    }
    products.fold(f32::from_bits(sum as u32), |s, p| (f64::from(s) + p) as f32).to_bits().into()
}

/// `mma.sync d, a, b, c`. Lane l holds, with g = l / 4 and t = l % 4: of A (by rows) and B (by columns) in each register as
/// many neighbouring elements of k as fit, from k = t * per on, rows or columns g; register r of A has rows g + 8 (r % 2) and
/// k + (r / 2) * half; of C and D elements (g + 8 (r / 2), 2 t + r % 2). Source: PTX ISA 9.7.13.4, figures of each shape.
fn product(warp: &mut Warp, o: &[Operand], shape: Mma) -> Result<()> {
    let per = 4 / shape.a.bytes();
    // Elements of k that one register of all four lanes of a row covers.
    let span = per * 4;
    let (tall, deep) = (shape.m / 8, shape.k / span);
    let (a, b) = (expect(&o[1], tall * deep)?, expect(&o[2], deep)?);
    let (d, c) = (expect(&o[0], tall * 2)?, Warp::registers_of(&o[3])?);
    let gather = |of: Element, row: usize, registers: &dyn Fn(usize) -> usize| -> Result<Vec<f64>> {
        let at = |k: usize| {
            let bits = warp.register(registers(k / span), row % 8 * 4 + k % span / per)?;
            Ok(element(of, bits, k % per))
        };
        (0..shape.k).map(at).collect()
    };
    let rows = (0..shape.m).map(|r| gather(shape.a, r, &|h| a[r / 8 + tall * h])).collect::<Result<Vec<_>>>()?;
    let columns = (0..8).map(|n| gather(shape.b, n, &|h| b[h])).collect::<Result<Vec<_>>>()?;
    let mut results = Vec::with_capacity(32 * d.len());
    for lane in 0..32 {
        for (r, from) in c.iter().enumerate() {
            let (row, column) = (lane / 4 + 8 * (r / 2), lane % 4 * 2 + r % 2);
            let sum = warp.register(*from, lane)?;
            results.push(accumulate(shape.a.is_integer(), sum, &rows[row], &columns[column]));
        }
    }
    if c.len() != d.len() {
        return fault(Kind::Syntax, "the accumulators differ");
    }
    for (n, bits) in results.into_iter().enumerate() {
        warp.set_register(d[n % d.len()], n / d.len(), Ty::Bits(32), bits)?;
    }
    Ok(())
}
