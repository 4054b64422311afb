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
use super::warp::{Flight, Warp};
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
        let place = warp.place;
        let flights = &mut warp.flights;
        match i.op {
            Op::WgmmaFence => {
                flights.touched.fill(false);
                flights.fenced = true;
            }
            Op::WgmmaCommit => flights.committed += 1,
            Op::WgmmaWait => {
                let done = flights.committed.saturating_sub(constant(&i.operands[0])? as u32);
                let cluster = &mut self.clusters[place.cluster];
                let actor = cluster.blocks[place.block].products[place.warp / 4];
                cluster.clocks.sees(place.index, u32::MAX, actor, done);
                for flight in &mut flights.of {
                    *flight = flight.filter(|f| f.group > done);
                }
                flights.any = flights.of.iter().any(Option::is_some);
            }
            _ if !flights.fenced => return fault(Kind::Misuse, "there was no wgmma.fence"),
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
        let mut sign = 1.0;
        if !shape.a.is_integer() {
            sign = (constant(&o[4])? * constant(&o[5])?) as f32;
            if o[6..].iter().map(constant).any(|t| t.as_ref().ok() != Some(&0)) {
                return fault(Kind::Misuse, "transposed operands are not executed");
            }
        }
        let group = &self.clusters[c].blocks[b].warps[first..first + 4];
        let descriptor =
            |n: usize| -> Result<Vec<u64>> { group.iter().map(|w| w.uniform(&o[n], u32::MAX, Ty::Bits(64))).collect() };
        let (left, right) = (if from_registers { Vec::new() } else { descriptor(1)? }, descriptor(2)?);
        if left.iter().any(|a| *a != left[0]) || right.iter().any(|b| *b != right[0]) {
            return fault(Kind::Misuse, "the warps of a warpgroup have other descriptors");
        }
        let columns = self.rows(c, b, first..first + 4, right[0], (0, shape.n, shape.b))?;
        let mut by_k = vec![0f32; shape.n * shape.k];
        for (n, column) in columns.chunks_exact(shape.k).enumerate() {
            column.iter().enumerate().for_each(|(k, v)| by_k[k * shape.n + n] = *v);
        }
        for w in first..first + 4 {
            let mut rows = if from_registers {
                fragment(&self.clusters[c].blocks[b].warps[w], &Warp::registers_of(&o[1])?, shape)?
            } else {
                self.rows(c, b, w..w + 1, left[0], (16 * (w - first), 16, shape.a))?
            };
            if sign != 1.0 {
                rows.iter_mut().for_each(|x| *x *= sign);
            }
            let warp = &mut self.clusters[c].blocks[b].warps[w];
            let keep = warp.uniform(&o[3], u32::MAX, Ty::Pred)? != 0;
            add(warp, &d, (keep, shape), &rows, &by_k)?;
            if from_registers {
                let flight = Flight { group: warp.flights.committed + 1, shape };
                Warp::registers_of(&o[1])?.into_iter().for_each(|r| warp.flights.of[r] = Some(flight));
            }
        }
        Ok(())
    }

    /// Rows of 32 bytes of a matrix, and the note that the products of these warps' group read them.
    fn rows(
        &mut self,
        c: usize,
        b: usize,
        warps: std::ops::Range<usize>,
        bits: u64,
        (from, count, of): (usize, usize, Element),
    ) -> Result<Vec<f32>> {
        let descriptor = Descriptor::read(bits)?;
        let cluster = &mut self.clusters[c];
        let block = &mut cluster.blocks[b];
        let (actor, warp) = (block.products[warps.start / 4], &block.warps[warps.start]);
        let moment = warp.flights.committed + 1;
        let base = warp.place.index - warp.place.warp;
        let mut found = Vec::with_capacity(count * 32 / of.bytes());
        for w in warps.clone() {
            // Warps that know the same see the same.
            if w > warps.start && cluster.clocks.same(base + w, base + w - 1) {
                continue;
            }
            let view = cluster.clocks.view(base + w, 1);
            let own = Access::own(&view, What::Read);
            let access = Access { actor: actor as u16, lanes: 1, moment, proxy: true, ..own };
            for chunk in 0..count * 2 {
                block.shared.touch(descriptor.chunk(from + chunk / 2, chunk % 2), 16, access, &view)?;
            }
        }
        for chunk in 0..count * 2 {
            let bytes = block.shared.load(descriptor.chunk(from + chunk / 2, chunk % 2), 16)?;
            found.extend(bytes.chunks_exact(of.bytes()).map(|b| element(of, super::access::bits(b), 0)));
        }
        Ok(found)
    }
}

/// The 16 rows of the left factor that a warp holds, as in `mma.sync`.
fn fragment(warp: &Warp, registers: &[usize], shape: Mma) -> Result<Vec<f32>> {
    if registers.len() != 4 {
        return fault(Kind::Syntax, "4 registers are wanted");
    }
    for r in registers {
        usable(warp, *r, shape)?;
        if warp.defined[*r] != u32::MAX {
            return fault(Kind::Uninitialised, format!("{} was never written", warp.entry.register_names[*r]));
        }
    }
    let per = 4 / shape.a.bytes();
    let at = |i: usize| {
        let (row, k) = (i / shape.k, i % shape.k);
        let bits = warp.registers[registers[row / 8 + 2 * (k / (per * 4))]][row % 8 * 4 + k % (per * 4) / per];
        element(shape.a, bits, k % per)
    };
    Ok((0..16 * shape.k).map(at).collect())
}

/// A product may use a register that nothing wrote since the fence, or that products of the same shape are under way on.
fn usable(warp: &Warp, register: usize, shape: Mma) -> Result<()> {
    let name = &warp.entry.register_names[register];
    if warp.flights.touched[register] {
        return fault(Kind::Misuse, format!("{name} was written since the last wgmma.fence"));
    }
    match warp.flights.of[register] {
        Some(flight) if flight.shape != shape => fault(Kind::Unfinished, format!("a product of another shape uses {name}")),
        _ => Ok(()),
    }
}

/// Adds the products to the accumulators: lane l's register e is element (l / 4 + 8 (e / 2 % 2), e / 4 * 8 + l % 4 * 2 + e % 2).
fn add(warp: &mut Warp, d: &[usize], (keep, shape): (bool, Mma), rows: &[f32], by_k: &[f32]) -> Result<()> {
    for register in d {
        usable(warp, *register, shape)?;
        if keep && warp.defined[*register] != u32::MAX {
            let name = &warp.entry.register_names[*register];
            return fault(Kind::Uninitialised, format!("{name} is added to before it is written"));
        }
    }
    let place = |e: usize, lane: usize| (lane / 4 + 8 * (e / 2 % 2)) * shape.n + e / 4 * 8 + lane % 4 * 2 + e % 2;
    let mut sums = vec![0u32; 16 * shape.n];
    if keep {
        for (e, register) in d.iter().enumerate() {
            (0..32).for_each(|lane| sums[place(e, lane)] = warp.registers[*register][lane] as u32);
        }
    }
    for (sums, row) in sums.chunks_exact_mut(shape.n).zip(rows.chunks_exact(shape.k)) {
        accumulate(shape.a.is_integer(), sums, row, by_k);
    }
    let flight = Some(Flight { group: warp.flights.committed + 1, shape });
    for (e, register) in d.iter().enumerate() {
        warp.registers[*register] = std::array::from_fn(|lane| sums[place(e, lane)].into());
        warp.defined[*register] = u32::MAX;
        warp.flights.of[*register] = flight;
    }
    warp.flights.any = true;
    Ok(())
}
