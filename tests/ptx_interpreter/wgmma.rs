//! `wgmma`: products of matrices in shared memory by the four warps of a warpgroup, asynchronous. They are computed when all
//! four have issued them, but no accumulator may be used, and no operand written, before their group was waited for.

use super::entry::Instruction;
use super::execute::Next;
use super::machine::Run;
use super::matrix::{Fours, accumulate, element, register_of, sums_of};
use super::number::Ty;
use super::op::{Element, Mma, Op};
use super::operand::{Operand, constant};
use super::shadow::{Access, What};
use super::tensor::swizzled;
use super::warp::{Flight, Warp};
use super::{Kind, Result, fault};

/// A matrix in shared memory. Source: PTX ISA 9.7.14.5, matrix descriptor; what the offsets mean of each layout: CUTLASS,
/// `cute/arch/mma_sm90_desc.hpp`.
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

    /// Where 16 bytes begin: of a matrix that lies by rows of k, one of the 2 or 4 of a row.
    fn chunk(&self, row: usize, piece: usize) -> u64 {
        let (block, row, piece) = (row as u64 / 8, row as u64 % 8, piece as u64);
        let at = self.start + block * self.stride;
        match self.swizzle_bytes {
            0 => at + piece * self.leading + row * 16,
            n => swizzled(at + row * n as u64 + piece * 16, n),
        }
    }

    /// The same of a transposed matrix: 8 neighbouring rows at one k.
    fn transposed_chunk(&self, eight: usize, k: usize) -> u64 {
        let (eight, group, k) = (eight as u64, k as u64 / 8, k as u64 % 8);
        match self.swizzle_bytes {
            0 => self.start + eight * self.stride + group * self.leading + k * 16,
            n => {
                let across = n as u64 / 16;
                let at = self.start + eight / across * self.leading + group * self.stride;
                swizzled(at + k * n as u64 + eight % across * 16, n)
            }
        }
    }
}

/// The part of a matrix that a product reads: rows from one on, their number, k, the elements.
#[derive(Clone, Copy)]
struct Part {
    from: usize,
    count: usize,
    k: usize,
    of: Element,
    transposed: bool,
}

impl Part {
    /// Where its chunks of 16 bytes lie.
    fn chunks(self, of: &Descriptor) -> Result<Vec<u64>> {
        let Part { from, count, k, .. } = self;
        let pieces = k * self.of.bytes() / 16;
        Ok(match self.transposed {
            true => (0..count / 8 * k).map(|i| of.transposed_chunk(from / 8 + i / k, i % k)).collect(),
            false if of.swizzle_bytes != 0 && pieces * 16 > of.swizzle_bytes => {
                return fault(Kind::Misuse, format!("{} bytes of k in rows of {}", pieces * 16, of.swizzle_bytes));
            }
            false => (0..count * pieces).map(|i| of.chunk(from + i / pieces, i % pieces)).collect(),
        })
    }

    /// Where an element of a chunk belongs, by rows of k.
    fn place(self, chunk: usize, n: usize) -> usize {
        if self.transposed { (chunk / self.k * 8 + n) * self.k + chunk % self.k } else { chunk * (16 / self.of.bytes()) + n }
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
        self.statistics.multiply_adds += (shape.m * shape.n * shape.k) as u64;
        self.product(c, b, first, i, shape).map_err(|f| f.at(i.line, &i.text))?;
        self.woken.extend((first..first + 4).map(|w| (c, b, w, u32::MAX)));
        Ok(())
    }

    fn product(&mut self, c: usize, b: usize, first: usize, i: &Instruction, shape: Mma) -> Result<()> {
        let o = &i.operands;
        let d = Warp::registers_of(&o[0])?;
        let from_registers = matches!(o[1], Operand::Vector(_));
        let wanted = if shape.half { shape.n / 4 } else { shape.n / 2 };
        if d.len() != wanted {
            return fault(Kind::Syntax, format!("{wanted} accumulators are wanted"));
        }
        // Metadata and their selector stand before what else follows.
        let (rest, left_k) = if shape.sparse { (&o[5..], shape.k / 2) } else { (&o[3..], shape.k) };
        let (mut sign, mut transposed) = (1.0, [false; 2]);
        if !shape.a.is_integer() {
            sign = (constant(&rest[1])? * constant(&rest[2])?) as f32;
            let given = rest[3..].iter().map(|t| Ok(constant(t)? != 0)).collect::<Result<Vec<_>>>()?;
            match given[..] {
                [a, b] if !from_registers => transposed = [a, b],
                [b] if from_registers => transposed = [false, b],
                [] => {}
                _ => return fault(Kind::Syntax, "a left factor in registers is not transposed, others say so"),
            }
        }
        let group = &self.clusters[c].blocks[b].warps[first..first + 4];
        let descriptor =
            |n: usize| -> Result<Vec<u64>> { group.iter().map(|w| w.uniform(&o[n], u32::MAX, Ty::Bits(64))).collect() };
        let (left, right) = (if from_registers { Vec::new() } else { descriptor(1)? }, descriptor(2)?);
        if left.iter().any(|a| *a != left[0]) || right.iter().any(|b| *b != right[0]) {
            return fault(Kind::Misuse, "the warps of a warpgroup have other descriptors");
        }
        let part = Part { from: 0, count: shape.n, k: shape.k, of: shape.b, transposed: transposed[1] };
        let columns = self.rows(c, b, first..first + 4, right[0], part)?;
        let mut by_k = vec![0f32; shape.n * shape.k];
        for (n, column) in columns.chunks_exact(shape.k).enumerate() {
            column.iter().enumerate().for_each(|(k, v)| by_k[k * shape.n + n] = *v);
        }
        for w in first..first + 4 {
            let mut rows = if from_registers {
                fragment(&self.clusters[c].blocks[b].warps[w], &Warp::registers_of(&o[1])?, shape, left_k)?
            } else {
                let part = Part { from: 16 * (w - first), count: 16, k: left_k, of: shape.a, transposed: transposed[0] };
                self.rows(c, b, w..w + 1, left[0], part)?
            };
            if sign != 1.0 {
                rows.iter_mut().for_each(|x| *x *= sign);
            }
            let warp = &mut self.clusters[c].blocks[b].warps[w];
            let mut read = if from_registers { Warp::registers_of(&o[1])? } else { Vec::new() };
            if shape.sparse {
                let fours = Fours::new(&o[3], &o[4], shape)?;
                given(warp, fours.register, shape, fours.mask())?;
                rows = spread(warp, &fours, &rows, shape)?;
                read.push(fours.register);
            }
            let keep = warp.uniform(&rest[0], u32::MAX, Ty::Pred)? != 0;
            add(warp, &d, (keep, shape), &rows, &by_k)?;
            let flight = Flight { group: warp.flights.committed + 1, shape };
            read.into_iter().for_each(|r| warp.flights.of[r] = Some(flight));
        }
        Ok(())
    }

    /// Rows of 32 or 64 bytes of a matrix, and the note that the products of these warps' group read them.
    fn rows(&mut self, c: usize, b: usize, warps: std::ops::Range<usize>, bits: u64, part: Part) -> Result<Vec<f32>> {
        let chunks = part.chunks(&Descriptor::read(bits)?)?;
        let cluster = &mut self.clusters[c];
        let block = &mut cluster.blocks[b];
        let (actor, warp) = (block.products[warps.start / 4], &block.warps[warps.start]);
        let moment = warp.flights.committed + 1;
        let base = warp.place.index - warp.place.warp;
        for w in warps.clone() {
            // Warps that know the same see the same.
            if w > warps.start && cluster.clocks.same(base + w, base + w - 1) {
                continue;
            }
            let view = cluster.clocks.view(base + w, 1);
            let own = Access::own(&view, What::Read);
            let access = Access { actor: actor as u16, lanes: 1, moment, proxy: true, ..own };
            chunks.iter().try_for_each(|at| block.shared.touch(*at, 16, access, &view))?;
        }
        let mut found = vec![0f32; part.count * part.k];
        for (chunk, at) in chunks.iter().enumerate() {
            for (n, bytes) in block.shared.load(*at, 16)?.chunks_exact(part.of.bytes()).enumerate() {
                found[part.place(chunk, n)] = element(part.of, super::access::bits(bytes), 0);
            }
        }
        Ok(found)
    }
}

/// Rows of what is left of each four, with zeros between.
fn spread(warp: &Warp, fours: &Fours, rows: &[f32], shape: Mma) -> Result<Vec<f32>> {
    let mut all = vec![0.0; 16 * shape.k];
    for (i, value) in rows.iter().enumerate() {
        let (row, k) = (i / (shape.k / 2), i % (shape.k / 2));
        all[row * shape.k + fours.column(warp, row, k)?] = *value;
    }
    Ok(all)
}

/// The 16 rows of the left factor that a warp holds, as in `mma.sync`, `width` elements each.
fn fragment(warp: &Warp, registers: &[usize], shape: Mma, width: usize) -> Result<Vec<f32>> {
    if registers.len() != 4 {
        return fault(Kind::Syntax, "4 registers are wanted");
    }
    registers.iter().try_for_each(|r| given(warp, *r, shape, u32::MAX))?;
    let per = 4 / shape.a.bytes();
    let at = |i: usize| {
        let (row, k) = (i / width, i % width);
        let bits = warp.registers[registers[row / 8 + 2 * (k / (per * 4))]][row % 8 * 4 + k % (per * 4) / per];
        element(shape.a, bits, k % per)
    };
    Ok((0..16 * width).map(at).collect())
}

/// A product may read this register of these lanes.
fn given(warp: &Warp, register: usize, shape: Mma, lanes: u32) -> Result<()> {
    usable(warp, register, shape)?;
    if warp.defined[register] & lanes == lanes {
        return Ok(());
    }
    fault(Kind::Uninitialised, format!("{} was never written", warp.entry.register_names[register]))
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
    let per = if shape.half { 2 } else { 1 };
    let mut sums = vec![0u32; 16 * shape.n];
    for (r, register) in d.iter().enumerate().filter(|_| keep) {
        for lane in 0..32 {
            let held = sums_of(shape, warp.registers[*register][lane]);
            (0..per).for_each(|n| sums[place(r * per + n, lane)] = held[n]);
        }
    }
    for (sums, row) in sums.chunks_exact_mut(shape.n).zip(rows.chunks_exact(shape.k)) {
        accumulate(shape, sums, row, by_k);
    }
    let flight = Some(Flight { group: warp.flights.committed + 1, shape });
    for (r, register) in d.iter().enumerate() {
        let sum = |n: usize, lane| sums[place(r * per + n.min(per - 1), lane)];
        warp.registers[*register] = std::array::from_fn(|lane| register_of(shape, [sum(0, lane), sum(1, lane)]));
        warp.defined[*register] = u32::MAX;
        warp.flights.of[*register] = flight;
    }
    warp.flights.any = true;
    Ok(())
}
