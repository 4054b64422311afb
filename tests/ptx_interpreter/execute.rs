//! One step of a warp: which lanes run, and what the instruction does to them.

use smallvec::SmallVec;

use super::arithmetic::compute;
use super::convert::{convert, pair};
use super::entry::Instruction;
use super::machine::{Cluster, Run, Step};
use super::number::{Ty, low};
use super::op::*;
use super::operand::Operand;
use super::warp::{Copies, GENERIC_CONST, GENERIC_PARAM, GENERIC_SHARED, Warp, groups, lanes};
use super::{Kind, Result, fault};

/// How lanes go on after an instruction.
enum Flow {
    On,
    To(usize),
    /// Their program counters are set.
    Left(Step),
}

/// What becomes of the lanes' program counters.
pub(super) enum Next {
    /// The next instruction.
    On,
    /// They stay, and are woken.
    Park,
    /// The instruction was a poll in vain.
    Polled,
    /// The same: it is tried again when the warp's turn comes.
    Again,
}

impl Run<'_> {
    /// Runs instructions of lanes that stand at the same one, until they go apart or meet others, or somebody waits.
    pub(super) fn stretch(&mut self, warp: &mut Warp, left: &mut usize) -> Result<Step> {
        let entry = self.entry;
        let open = warp.live & !warp.parked;
        let mut together: SmallVec<[(usize, u32); 4]> =
            groups(open, |l| warp.pc[l]).map(|(l, group)| (warp.pc[l], group)).collect();
        // The lanes furthest behind, so that others are caught up with; now and then others, since those may wait for them.
        together.sort_unstable();
        if together.len() > 1 && self.random.below(8) == 0 {
            let first = self.random.below(together.len());
            together.rotate_left(first);
        }
        for &(pc, group) in &together {
            let may = entry.code.get(pc).map_or(Ok(true), |i| may_run(warp, i, group).map_err(|f| f.at(i.line, &i.text)));
            if !may? {
                continue;
            }
            let meets = together.iter().map(|t| t.0).filter(|other| *other > pc).min();
            let apart = together.len() > 1;
            return self.run(warp, (pc, group), (apart, meets.unwrap_or(usize::MAX)), left);
        }
        Ok(Step::Stuck)
    }

    fn run(
        &mut self,
        warp: &mut Warp,
        (mut pc, group): (usize, u32),
        (apart, meets): (bool, usize),
        left: &mut usize,
    ) -> Result<Step> {
        let entry = self.entry;
        let leave = |warp: &mut Warp, pc: usize| lanes(group).for_each(|lane| warp.pc[lane] = pc);
        let first = pc;
        loop {
            let Some(i) = entry.code.get(pc) else {
                leave(warp, pc);
                self.exit(warp, group)?;
                return Ok(Step::Ran);
            };
            let blame = |f: super::Fault| f.at(i.line, &i.text);
            if pc != first && i.op.is_collective() && !may_run(warp, i, group).map_err(blame)? {
                leave(warp, pc);
                return Ok(Step::Ran);
            }
            self.at = pc;
            self.statistics.warp_instructions += 1;
            if self.statistics.warp_instructions > self.most {
                leave(warp, pc);
                return Err(self.deadlock());
            }
            let active = guarded(warp, i, group).map_err(blame)?;
            self.statistics.lane_instructions += u64::from(active.count_ones());
            self.statistics.lines[pc].executions += 1;
            *left = left.saturating_sub(1);
            pc += 1;
            match &i.fast {
                Some(fast) => {
                    if active != 0 {
                        super::fast::run(warp, fast, active).map_err(blame)?;
                    }
                }
                None if active == 0 => {}
                None => match self.other(warp, i, (pc, group), active).map_err(blame)? {
                    Flow::On => {}
                    Flow::To(target) => pc = target,
                    Flow::Left(step) => return Ok(step),
                },
            }
            // Lanes that are apart run up to where others stand, and not around a loop.
            if *left == 0 || pc == meets || (apart && pc <= first) || !self.woken.is_empty() {
                leave(warp, pc);
                return Ok(Step::Ran);
            }
        }
    }

    /// Runs what is not simple, for lanes whose next instruction would be at `pc`.
    fn other(&mut self, warp: &mut Warp, i: &Instruction, (pc, group): (usize, u32), active: u32) -> Result<Flow> {
        let leave = |warp: &mut Warp, mask: u32, pc: usize| lanes(mask).for_each(|lane| warp.pc[lane] = pc);
        if i.op.is_collective() && active != group && !matches!(i.op, Op::Shuffle(_) | Op::Vote(_) | Op::Among(..) | Op::WarpSync)
        {
            return fault(Kind::Misuse, "only some lanes of the warp run it");
        }
        match i.op {
            Op::Branch => {
                let Operand::Label(target) = i.operands[0] else { return fault(Kind::Syntax, "no label") };
                if active == group {
                    return Ok(Flow::To(target));
                }
                leave(warp, group & !active, pc);
                leave(warp, active, target);
                return Ok(Flow::Left(Step::Ran));
            }
            Op::Exit => {
                leave(warp, group, pc);
                self.exit(warp, active)?;
                return Ok(Flow::Left(Step::Ran));
            }
            _ => {}
        }
        Ok(match self.execute(warp, i, active)? {
            Next::On => Flow::On,
            Next::Park => {
                leave(warp, group & !active, pc);
                leave(warp, active, pc - 1);
                warp.parked |= active;
                Flow::Left(Step::Ran)
            }
            Next::Again => {
                leave(warp, group & !active, pc);
                leave(warp, active, pc - 1);
                Flow::Left(Step::Polled)
            }
            Next::Polled => {
                leave(warp, group, pc);
                Flow::Left(Step::Polled)
            }
        })
    }

    fn execute(&mut self, warp: &mut Warp, i: &Instruction, active: u32) -> Result<Next> {
        match i.op {
            Op::Load { .. } | Op::Store { .. } | Op::Atomic { .. } => self.access(warp, i, active)?,
            Op::Barrier { .. } | Op::ClusterArrive | Op::ClusterWait | Op::WarpSync | Op::Fence(_) => {
                return self.barrier(warp, i, active);
            }
            Op::MbarrierInit
            | Op::MbarrierInvalidate
            | Op::MbarrierArrive { .. }
            | Op::MbarrierExpect { .. }
            | Op::MbarrierWait { .. } => return self.mbarrier(warp, i, active),
            Op::CopyAsync { .. } | Op::CopyArrive { .. } | Op::CopyCommit | Op::CopyWait { .. } => self.copy(warp, i, active)?,
            Op::TensorLoad { .. }
            | Op::TensorStore { .. }
            | Op::BulkLoad { .. }
            | Op::BulkForward
            | Op::BulkReduce(..)
            | Op::BulkStore
            | Op::BulkCommit
            | Op::BulkWait { .. } => {
                self.tensor(warp, i, active)?;
            }
            Op::LoadMatrix { .. } | Op::StoreMatrix { .. } | Op::Mma(_) => self.matrix(warp, i)?,
            Op::WgmmaFence | Op::WgmmaCommit | Op::WgmmaWait | Op::Wgmma(_) => return self.wgmma(warp, i),
            Op::Nothing => {}
            Op::Trap => return fault(Kind::Misuse, "the kernel traps"),
            Op::Among(what, ty) => among(warp, (what, ty), &i.operands, active)?,
            Op::Shuffle(how) => shuffle(warp, how, &i.operands, active)?,
            Op::Vote(how) => vote(warp, how, &i.operands, active)?,
            Op::Elect => {
                let leader = active.trailing_zeros() as usize;
                for lane in lanes(active) {
                    set_pair(warp, &i.operands[0], lane, [(Ty::Bits(32), leader as u64), (Ty::Pred, (lane == leader).into())])?;
                }
            }
            _ => {
                scalar(warp, i, active)?;
            }
        }
        Ok(Next::On)
    }

    /// The lanes are done; barriers that wait for all that are left may be complete.
    fn exit(&mut self, warp: &mut Warp, mask: u32) -> Result<()> {
        self.polls = 0;
        warp.live &= !mask;
        let over = |copies: &[Copies]| lanes(mask).filter_map(|l| copies.get(l)).all(Copies::is_over);
        if !over(&warp.copies) || !over(&warp.bulk) || warp.flights.any {
            return fault(Kind::Unfinished, "a thread exits with copies or products not waited for");
        }
        let place = warp.place;
        let Cluster { blocks, clocks, .. } = &mut self.clusters[place.cluster];
        let (clustered, block) = (blocks.len() > 1, &mut blocks[place.block]);
        block.live -= mask.count_ones();
        if clustered {
            clocks.release(place.index, mask, &mut block.exits);
        }
        if clustered && block.live == 0 {
            let own = place.index - place.warp..place.index - place.warp + block.warps.len();
            block.shared.released(&own, &block.exits)?;
        }
        self.barriers_after_exit(place.cluster, place.block)
    }
}

/// Writes both registers of a pair, or the first value to a single operand.
fn set_pair(warp: &mut Warp, operand: &Operand, lane: usize, values: [(Ty, u64); 2]) -> Result<()> {
    let Operand::Pair(p, q) = *operand else { return warp.set(operand, lane, values[0].0, values[0].1) };
    for (register, (ty, bits)) in [p, q].into_iter().zip(values) {
        if let Some(register) = register {
            warp.set_register(register, lane, ty, bits)?;
        }
    }
    Ok(())
}

/// The lanes of the group whose predicate lets them run.
#[inline]
fn guarded(warp: &Warp, i: &Instruction, group: u32) -> Result<u32> {
    let Some((register, wanted)) = i.guard else { return Ok(group) };
    warp.readable(register, group)?;
    let holds = warp.predicates[register];
    Ok(group & if wanted { holds } else { !holds })
}

/// Whether all lanes that run the instruction together are there.
fn may_run(warp: &Warp, i: &Instruction, group: u32) -> Result<bool> {
    if !i.op.is_collective() {
        return Ok(true);
    }
    let members = match i.op {
        Op::Shuffle(_) | Op::Vote(_) | Op::Elect | Op::Among(..) | Op::WarpSync => {
            let active = guarded(warp, i, group)?;
            let Some(lane) = lanes(active).next() else { return Ok(true) };
            let members = warp.value(&i.operands[i.operands.len() - 1], lane, Ty::Bits(32))? as u32;
            if members & active != active {
                return fault(Kind::Misuse, "a lane runs it that is no member of the mask");
            }
            return Ok(members & warp.live & !active == 0);
        }
        Op::Barrier { .. } => warp.live,
        _ if warp.live != u32::MAX => return fault(Kind::Misuse, "lanes of the warp have exited"),
        _ => u32::MAX,
    };
    Ok(group == members)
}

/// Types of the operands that differ from the instruction's.
fn operand_type(what: Arith, ty: Ty, n: usize) -> Ty {
    use Arith::*;
    let amount = Ty::Unsigned(32);
    match (what, n) {
        (Select, 2) => Ty::Pred,
        (SelectBySign { real }, 2) => {
            if real {
                Ty::F32
            } else {
                Ty::Signed(32)
            }
        }
        (Extend { .. }, 1) => amount,
        (ShiftLeft | ShiftRight, 1) | (FieldExtract, 1 | 2) | (FieldInsert, 2 | 3) | (Lop3, 3) => amount,
        (FunnelLeft { .. } | FunnelRight { .. }, 2) => amount,
        (MadWide, 2) => match ty {
            Ty::Signed(n) => Ty::Signed(n * 2),
            other => Ty::Unsigned(other.bits() * 2),
        },
        _ => ty,
    }
}

/// An instruction on registers alone, lane by lane.
fn scalar(warp: &mut Warp, i: &Instruction, active: u32) -> Result<()> {
    let o = &i.operands;
    let row = |n: usize, ty: Ty| warp.values(&o[n], active, ty);
    let mut out = [0; 32];
    let ty = match i.op {
        Op::Arith(what, ty, flags) => {
            let mut rows = [[0; 32]; 4];
            for (n, to) in rows[..o.len() - 1].iter_mut().enumerate() {
                *to = row(n + 1, operand_type(what, ty, n))?;
            }
            for lane in lanes(active) {
                out[lane] = compute(what, ty, flags, rows.each_ref().map(|row| row[lane]))?;
            }
            match what {
                Arith::MulWide | Arith::MadWide => operand_type(Arith::MadWide, ty, 2),
                Arith::Population | Arith::LeadingZeros | Arith::HighestBit { .. } => Ty::Bits(32),
                Arith::Test(_) => Ty::Pred,
                _ => ty,
            }
        }
        Op::Move(ty) => {
            out = row(1, ty)?;
            ty
        }
        Op::Convert { to, from, flags } => {
            let x = row(1, from)?;
            lanes(active).for_each(|lane| out[lane] = convert(to, from, flags, x[lane]));
            to
        }
        Op::ConvertTf32 { flags } => {
            let x = row(1, Ty::F32)?;
            lanes(active).for_each(|lane| out[lane] = super::convert::to_tf32(x[lane], flags));
            Ty::Bits(32)
        }
        Op::ConvertPair { to, flags } => {
            let (high, low) = (row(1, Ty::F32)?, row(2, Ty::F32)?);
            lanes(active).for_each(|lane| out[lane] = pair(to, flags, high[lane], low[lane]));
            to
        }
        Op::PackSaturated { to } => {
            lanes(active).try_for_each(|lane| packed(warp, o, lane, to).map(|v| out[lane] = v))?;
            Ty::Bits(32)
        }
        Op::Compare { .. } => return lanes(active).try_for_each(|lane| compare(warp, i, lane)),
        Op::Address { space, to_generic } => {
            let window = match space {
                Space::Shared => GENERIC_SHARED,
                Space::Param => GENERIC_PARAM,
                Space::Const => GENERIC_CONST,
                _ => 0,
            };
            out = row(1, Ty::Bits(64))?.map(|address| if to_generic { address | window } else { address & !window });
            Ty::Bits(64)
        }
        Op::MapShared => {
            let (address, rank) = (row(1, Ty::Bits(32))?, row(2, Ty::Bits(32))?);
            if let Some(lane) = lanes(active).find(|l| rank[*l] >= warp.place.blocks_of_cluster as u64) {
                return fault(Kind::Bounds, format!("the cluster has no block {}", rank[lane]));
            }
            lanes(active).for_each(|lane| out[lane] = address[lane] & 0xff_ffff | (rank[lane] + 1) << 24);
            Ty::Bits(32)
        }
        Op::ActiveMask => {
            out = [active.into(); 32];
            Ty::Bits(32)
        }
        other => return fault(Kind::Syntax, format!("{other:?} is not executed")),
    };
    warp.fill(&o[0], active, ty, &out)
}

/// `d = c << 2w | sat(a) << w | sat(b)`; without c the rest is 0.
fn packed(warp: &Warp, o: &[Operand], lane: usize, to: Ty) -> Result<u64> {
    let saturated = |n: usize| {
        let v = Ty::Signed(32).integer(warp.value(&o[n], lane, Ty::Signed(32))?);
        let (lowest, highest) = to.limits().unwrap_or((0, 0));
        Ok(to.low(v.clamp(lowest, highest) as u64))
    };
    let above = if o.len() > 3 { warp.value(&o[3], lane, Ty::Bits(32))? } else { 0 };
    Ok(low(above << (2 * to.bits()) | saturated(1)? << to.bits() | saturated(2)?, 32))
}

fn compare(warp: &mut Warp, i: &Instruction, lane: usize) -> Result<()> {
    let Op::Compare { how, unordered, ty, with, flush } = i.op else { return fault(Kind::Syntax, "no comparison") };
    let o = &i.operands;
    let (a, b) = (warp.value(&o[1], lane, ty)?, warp.value(&o[2], lane, ty)?);
    let single = |x: u64| f32::from_bits(if flush { super::float::flushed(x as u32) } else { x as u32 });
    let order = match ty {
        Ty::F32 => single(a).partial_cmp(&single(b)),
        Ty::F64 => f64::from_bits(a).partial_cmp(&f64::from_bits(b)),
        Ty::F16 | Ty::BF16 => super::packed::widen(ty == Ty::BF16, a).partial_cmp(&super::packed::widen(ty == Ty::BF16, b)),
        _ => Some(ty.integer(a).cmp(&ty.integer(b))),
    };
    let holds = match (how, order) {
        (Comparison::Ordered, o) => o.is_some(),
        (Comparison::Unordered, o) => o.is_none(),
        (_, None) => unordered,
        (Comparison::Equal, Some(o)) => o.is_eq(),
        (Comparison::NotEqual, Some(o)) => o.is_ne(),
        (Comparison::Less, Some(o)) => o.is_lt(),
        (Comparison::LessEqual, Some(o)) => o.is_le(),
        (Comparison::Greater, Some(o)) => o.is_gt(),
        (Comparison::GreaterEqual, Some(o)) => o.is_ge(),
    };
    let other = match with {
        Some(_) => warp.value(&o[3], lane, Ty::Pred)? != 0,
        None => false,
    };
    let combined = |holds: bool| match with {
        None => holds,
        Some(Logic::And) => holds & other,
        Some(Logic::Or) => holds | other,
        Some(Logic::Xor) => holds ^ other,
    };
    set_pair(warp, &o[0], lane, [(Ty::Pred, combined(holds).into()), (Ty::Pred, combined(!holds).into())])
}

/// `shfl.sync.how d[|p], a, b, c, members`: c is the clamp, and above it the mask of the segment.
fn shuffle(warp: &mut Warp, how: Shuffle, o: &[Operand], active: u32) -> Result<()> {
    let mut results = Vec::new();
    for lane in lanes(active) {
        let (b, c) = (warp.value(&o[2], lane, Ty::Bits(32))? & 31, warp.value(&o[3], lane, Ty::Bits(32))?);
        let (clamp, segment, at) = ((c & 31) as i64, (c >> 8 & 31) as i64, lane as i64);
        let highest = (at & segment) | (clamp & !segment);
        let (source, inside) = match how {
            Shuffle::Index => {
                let j = (at & segment) | (b as i64 & !segment);
                (j, j <= highest)
            }
            Shuffle::Up => (at - b as i64, at - b as i64 >= highest),
            Shuffle::Down => (at + b as i64, at + b as i64 <= highest),
            Shuffle::Butterfly => (at ^ b as i64, (at ^ b as i64) <= highest),
        };
        let source = if inside { source as usize } else { lane };
        if active >> source & 1 == 0 {
            return fault(Kind::Misuse, format!("lane {lane} takes from lane {source}, which does not take part"));
        }
        results.push((lane, warp.value(&o[1], source, Ty::Bits(32))?, inside));
    }
    for (lane, bits, inside) in results {
        set_pair(warp, &o[0], lane, [(Ty::Bits(32), bits), (Ty::Pred, inside.into())])?;
    }
    Ok(())
}

/// `redux.sync d, a, members` and `match.sync d[|p], a, members`.
fn among(warp: &mut Warp, (what, ty): (Among, Ty), o: &[Operand], active: u32) -> Result<()> {
    let values = warp.values(&o[1], active, ty)?;
    let values = values.map(|v| ty.low(v));
    let mut all = lanes(active).map(|l| values[l]);
    let first = all.next().unwrap_or(0);
    let fold = |f: fn(i128, i128) -> i128| ty.low(all.clone().fold(ty.integer(first), |x, y| f(x, ty.integer(y))) as u64);
    let reduced = match what {
        Among::Add => fold(|x, y| x + y),
        Among::Min => fold(i128::min),
        Among::Max => fold(i128::max),
        Among::And => fold(|x, y| x & y),
        Among::Or => fold(|x, y| x | y),
        Among::Xor => fold(|x, y| x ^ y),
        Among::MatchAll => {
            if all.clone().all(|v| v == first) {
                active.into()
            } else {
                0
            }
        }
        Among::MatchAny => {
            let same = |l: usize| lanes(active).filter(|m| values[*m] == values[l]).fold(0u32, |all, m| all | 1 << m);
            return lanes(active).try_for_each(|l| warp.set(&o[0], l, Ty::Bits(32), same(l).into()));
        }
    };
    lanes(active).try_for_each(|l| set_pair(warp, &o[0], l, [(Ty::Bits(32), reduced), (Ty::Pred, (reduced != 0).into())]))
}

fn vote(warp: &mut Warp, how: Vote, o: &[Operand], active: u32) -> Result<()> {
    let mut ballot = 0u32;
    for lane in lanes(active) {
        ballot |= u32::from(warp.value(&o[1], lane, Ty::Pred)? != 0) << lane;
    }
    let (ty, bits) = match how {
        Vote::All => (Ty::Pred, u64::from(ballot == active)),
        Vote::Any => (Ty::Pred, u64::from(ballot != 0)),
        Vote::Uniform => (Ty::Pred, u64::from(ballot == active || ballot == 0)),
        Vote::Ballot => (Ty::Bits(32), ballot.into()),
    };
    lanes(active).try_for_each(|lane| warp.set(&o[0], lane, ty, bits))
}
