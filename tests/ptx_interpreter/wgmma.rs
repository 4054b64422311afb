//! `wgmma`: products of matrices in shared memory by the four warps of a warpgroup, asynchronous. They are computed when all
//! four have issued them, but no accumulator may be used, and no operand written, before their group was waited for.

use super::entry::Instruction;
use super::execute::Next;
use super::machine::Run;
use super::matrix::{accumulate, element};
use super::number::Ty;
use super::op::{Element, Mma, Op};
use super::operand::{Operand, constant};
use super::shadow::{Access, What};
use super::tensor::swizzled;
use super::warp::{Flight, Warp, lanes};
use super::{Kind, Result, fault};

/// A matrix in shared memory, rows of k. Source: PTX ISA 9.7.14.5, matrix descriptor.
struct Descriptor {
    start: u64,
    leading: u64,
    stride: u64,
    swizzle_bytes: usize,
}

impl Descriptor {
    fn read(bits: u64) -> Result<Descriptor> {
        let field = |at: u32| (bits >> at & 0x3fff) << 4;
        if bits >> 49 & 7 != 0 {
            return fault(Kind::Misuse, format!("the descriptor {bits:#x} has a base offset"));
        }
        let swizzle_bytes = [0, 128, 64, 32][(bits >> 62) as usize];
        Ok(Descriptor { start: field(0), leading: field(16), stride: field(32), swizzle_bytes })
    }

    /// Where 16 bytes of a row begin: half 0 or 1 of the 32 bytes of k.
    fn chunk(&self, row: usize, half: usize) -> u64 {
        let (block, row, half) = (row as u64 / 8, row as u64 % 8, half as u64);
        let at = self.start + block * self.stride;
        match self.swizzle_bytes {
            0 => at + half * self.leading + row * 16,
            n => swizzled(at + row * n as u64 + half * 16, n),
        }
    }
}

impl Run<'_> {
    pub(super) fn wgmma(&mut self, warp: &mut Warp, i: &Instruction) -> Result<Next> {
        let place = &warp.place;
        match i.op {
            Op::WgmmaFence => {
                warp.touched.fill(false);
                warp.fenced = true;
            }
            Op::WgmmaCommit => warp.committed += 1,
            Op::WgmmaWait => {
                let done = warp.committed.saturating_sub(constant(&i.operands[0])? as u32);
                let cluster = &mut self.clusters[place.cluster];
                let actor = cluster.blocks[place.block].products[place.warp / 4];
                lanes(u32::MAX).for_each(|lane| cluster.clocks.sees(place.thread(lane), actor, done));
                for flight in &mut warp.flight {
                    *flight = flight.filter(|f| f.group > done);
                }
                warp.flying = warp.flight.iter().any(Option::is_some);
            }
            _ if !warp.fenced => return fault(Kind::Misuse, "there was no wgmma.fence"),
            _ => return Ok(Next::Park),
        }
        Ok(Next::On)
    }

    /// Computes a product that the last of four warps has now come to.
    pub(super) fn together(&mut self, c: usize, b: usize, w: usize) -> Result<()> {
        let entry = self.entry;
        let first = w / 4 * 4;
        let block = &self.clusters[c].blocks[b];
        let pc = block.warps[w].pc[0];
        let Some(i) = entry.code.get(pc) else { return Ok(()) };
        let Op::Wgmma(shape) = i.op else { return Ok(()) };
        let Some(group) = block.warps.get(first..first + 4) else {
            return fault(Kind::Misuse, "a warpgroup has four warps").map_err(|f: super::Fault| f.at(i.line, &i.text));
        };
        if group.iter().any(|w| w.parked != u32::MAX || w.pc[0] != pc) {
            return Ok(());
        }
        self.product(c, b, first, i, shape).map_err(|f| f.at(i.line, &i.text))?;
        self.woken.extend((first..first + 4).map(|w| (c, b, w, u32::MAX)));
        Ok(())
    }

    fn product(&mut self, c: usize, b: usize, first: usize, i: &Instruction, shape: Mma) -> Result<()> {
        let o = &i.operands;
        let d = Warp::registers_of(&o[0])?;
        let from_registers = matches!(o[1], Operand::Vector(_));
        if d.len() != shape.n / 2 {
            return fault(Kind::Syntax, format!("{} accumulators are wanted", shape.n / 2));
        }
        let mut signs = [1.0; 2];
        if !shape.a.is_integer() {
            signs = [constant(&o[4])? as f64, constant(&o[5])? as f64];
            if o[6..].iter().map(constant).any(|t| t.as_ref().ok() != Some(&0)) {
                return fault(Kind::Misuse, "transposed operands are not executed");
            }
        }
        for w in first..first + 4 {
            let warp = &self.clusters[c].blocks[b].warps[w];
            let keep = warp.uniform(&o[3], u32::MAX, Ty::Pred)? != 0;
            let rows = if from_registers {
                let registers = Warp::registers_of(&o[1])?;
                fragment(warp, &registers, shape)?
            } else {
                let bits = warp.uniform(&o[1], u32::MAX, Ty::Bits(64))?;
                self.rows(c, b, w, bits, (16 * (w - first), 16, shape.a))?
            };
            let warp = &self.clusters[c].blocks[b].warps[w];
            let bits = warp.uniform(&o[2], u32::MAX, Ty::Bits(64))?;
            let columns = self.rows(c, b, w, bits, (0, shape.n, shape.b))?;
            let sign = signs[0] * signs[1];
            let rows: Vec<Vec<f64>> = rows.into_iter().map(|r| r.into_iter().map(|x| x * sign).collect()).collect();
            let warp = &mut self.clusters[c].blocks[b].warps[w];
            add(warp, &d, (keep, shape), &rows, &columns)?;
            if from_registers {
                let flight = Flight { group: warp.committed + 1, shape };
                Warp::registers_of(&o[1])?.into_iter().for_each(|r| warp.flight[r] = Some(flight));
            }
        }
        Ok(())
    }

    /// Rows of 32 bytes of a matrix, and the note that the warpgroup's products read them.
    fn rows(
        &mut self,
        c: usize,
        b: usize,
        w: usize,
        bits: u64,
        (from, count, of): (usize, usize, Element),
    ) -> Result<Vec<Vec<f64>>> {
        let descriptor = Descriptor::read(bits)?;
        let cluster = &mut self.clusters[c];
        let block = &mut cluster.blocks[b];
        let (actor, warp) = (block.products[w / 4], &block.warps[w]);
        let access = Access { actor, moment: warp.committed + 1, what: What::Read, pending: false, proxy: true };
        let view = cluster.clocks.stamp(warp.place.thread(0));
        let mut found = Vec::with_capacity(count);
        for row in from..from + count {
            let mut values = Vec::with_capacity(32);
            for half in 0..2 {
                let at = descriptor.chunk(row, half);
                block.shared.touch(at, 16, access, view)?;
                let bytes = block.shared.load(at, 16)?;
                values.extend(bytes.chunks(of.bytes()).map(|b| element(of, super::access::bits(b), 0)));
            }
            found.push(values);
        }
        Ok(found)
    }
}

/// The 16 rows of the left factor that a warp holds, as in `mma.sync`.
fn fragment(warp: &Warp, registers: &[usize], shape: Mma) -> Result<Vec<Vec<f64>>> {
    if registers.len() != 4 {
        return fault(Kind::Syntax, "4 registers are wanted");
    }
    let per = 4 / shape.a.bytes();
    let at = |row: usize, k: usize| {
        let register = registers[row / 8 + 2 * (k / (per * 4))];
        usable(warp, register, shape)?;
        let lane = row % 8 * 4 + k % (per * 4) / per;
        if warp.defined[register] >> lane & 1 == 0 {
            return fault(Kind::Uninitialised, format!("{} was never written", warp.names[register]));
        }
        Ok(element(shape.a, warp.registers[register][lane], k % per))
    };
    (0..16).map(|row| (0..shape.k).map(|k| at(row, k)).collect()).collect()
}

/// A product may use a register that nothing wrote since the fence, or that products of the same shape are under way on.
fn usable(warp: &Warp, register: usize, shape: Mma) -> Result<()> {
    if warp.touched[register] {
        return fault(Kind::Misuse, format!("{} was written since the last wgmma.fence", warp.names[register]));
    }
    match warp.flight[register] {
        Some(flight) if flight.shape != shape => {
            fault(Kind::Unfinished, format!("a product of another shape uses {}", warp.names[register]))
        }
        _ => Ok(()),
    }
}

/// Adds the products to the accumulators: lane l's register e is element (l / 4 + 8 (e / 2 % 2), e / 4 * 8 + l % 4 * 2 + e % 2).
fn add(warp: &mut Warp, d: &[usize], (keep, shape): (bool, Mma), rows: &[Vec<f64>], columns: &[Vec<f64>]) -> Result<()> {
    for (e, register) in d.iter().enumerate() {
        usable(warp, *register, shape)?;
        if keep && warp.defined[*register] != u32::MAX {
            return fault(Kind::Uninitialised, format!("{} is added to before it is written", warp.names[*register]));
        }
        for lane in 0..32 {
            let (row, column) = (lane / 4 + 8 * (e / 2 % 2), e / 4 * 8 + lane % 4 * 2 + e % 2);
            let sum = if keep { warp.registers[*register][lane] } else { 0 };
            warp.registers[*register][lane] = accumulate(shape.a.is_integer(), sum, &rows[row], &columns[column]);
        }
        warp.defined[*register] = u32::MAX;
        warp.flight[*register] = Some(Flight { group: warp.committed + 1, shape });
    }
    warp.flying = true;
    Ok(())
}
