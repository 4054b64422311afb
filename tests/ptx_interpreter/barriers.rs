//! Barriers of warps, blocks and clusters, and fences.

use super::clocks::Stamp;
use super::entry::Instruction;
use super::execute::Next;
use super::machine::Run;
use super::number::Ty;
use super::op::{Fence, Op};
use super::warp::{Warp, lanes};
use super::{Kind, Result, fault};

/// A named barrier of a block.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    /// Threads that have arrived, and how many are wanted; `None`: all that have not exited.
    arrived: u32,
    wanted: Option<u32>,
    waiting: Vec<(usize, u32)>,
    stamp: Stamp,
}

impl Run<'_> {
    pub(super) fn barrier(&mut self, warp: &mut Warp, i: &Instruction, active: u32) -> Result<Next> {
        match i.op {
            Op::WarpSync => {
                let clocks = &mut self.clusters[warp.place.cluster].clocks;
                let mut stamp = Stamp::default();
                clocks.release(warp.place.index, active, &mut stamp);
                clocks.acquire(warp.place.index, active, &stamp);
                Ok(Next::On)
            }
            Op::Fence(kind) => {
                let clocks = &mut self.clusters[warp.place.cluster].clocks;
                match kind {
                    Fence::Memory => {}
                    Fence::Device => clocks.fence_device(warp.place.index, active),
                    Fence::Proxy | Fence::BarrierInit => clocks.fence_proxy(warp.place.index, active),
                }
                Ok(Next::On)
            }
            Op::Barrier { waits, .. } => self.named(warp, i, active, waits),
            _ => self.cluster_barrier(warp, i, active),
        }
    }

    fn named(&mut self, warp: &mut Warp, i: &Instruction, active: u32, waits: bool) -> Result<Next> {
        self.polls = 0;
        let place = warp.place;
        let number = warp.uniform(&i.operands[0], active, Ty::Bits(32))?;
        let wanted = i.operands.get(1).map(|o| warp.uniform(o, active, Ty::Bits(32))).transpose()?.map(|n| n as u32);
        if number > 15 || wanted.is_some_and(|n| n == 0 || !n.is_multiple_of(32)) {
            return fault(Kind::Misuse, format!("barrier {number} for {wanted:?} threads"));
        }
        let cluster = &mut self.clusters[place.cluster];
        let barrier = cluster.blocks[place.block].named.entry(number).or_default();
        if barrier.arrived > 0 && barrier.wanted != wanted {
            return fault(Kind::Misuse, format!("barrier {number} is used with {:?} and {wanted:?} threads", barrier.wanted));
        }
        barrier.wanted = wanted;
        barrier.arrived += active.count_ones();
        cluster.clocks.release(place.index, active, &mut barrier.stamp);
        if waits {
            barrier.waiting.push((place.warp, active));
        }
        self.complete(place.cluster, place.block, number)?;
        Ok(if waits { Next::Park } else { Next::On })
    }

    /// Opens the barrier if all have arrived.
    fn complete(&mut self, c: usize, b: usize, number: u64) -> Result<()> {
        let cluster = &mut self.clusters[c];
        let block = &mut cluster.blocks[b];
        let Some(barrier) = block.named.get(&number) else { return Ok(()) };
        let wanted = barrier.wanted.unwrap_or(block.live);
        if barrier.arrived > wanted {
            return fault(Kind::Misuse, format!("{} threads arrive at barrier {number} for {wanted}", barrier.arrived));
        }
        if barrier.arrived < wanted || barrier.arrived == 0 {
            return Ok(());
        }
        let Some(barrier) = block.named.remove(&number) else { return Ok(()) };
        for (warp, mask) in barrier.waiting {
            cluster.clocks.acquire(b * block.warps.len() + warp, mask, &barrier.stamp);
            self.woken.push((c, b, warp, mask));
        }
        Ok(())
    }

    pub(super) fn barriers_after_exit(&mut self, c: usize, b: usize) -> Result<()> {
        let open: Vec<u64> = self.clusters[c].blocks[b].named.keys().copied().collect();
        open.into_iter().try_for_each(|number| self.complete(c, b, number))?;
        self.cluster_complete(c);
        Ok(())
    }

    fn cluster_barrier(&mut self, warp: &mut Warp, i: &Instruction, active: u32) -> Result<Next> {
        let c = warp.place.cluster;
        let cluster = &mut self.clusters[c];
        if i.op == Op::ClusterArrive {
            self.polls = 0;
            for lane in lanes(active) {
                let phase = &mut cluster.phases[warp.place.index * 32 + lane];
                if *phase > cluster.phase {
                    return fault(Kind::Misuse, "a thread arrives twice at the cluster's barrier");
                }
                *phase += 1;
            }
            cluster.clocks.release(warp.place.index, active, &mut cluster.stamps.0);
            cluster.arrived += active.count_ones();
            self.cluster_complete(c);
            return Ok(Next::On);
        }
        let open = |lane: usize| cluster.phases[warp.place.index * 32 + lane] <= cluster.phase;
        if !lanes(active).all(open) {
            return Ok(Next::Again);
        }
        let stamp = cluster.stamps.1.clone();
        cluster.clocks.acquire(warp.place.index, active, &stamp);
        Ok(Next::On)
    }

    fn cluster_complete(&mut self, c: usize) {
        let cluster = &mut self.clusters[c];
        let live: u32 = cluster.blocks.iter().map(|b| b.live).sum();
        if cluster.arrived > 0 && cluster.arrived >= live {
            cluster.arrived = 0;
            cluster.phase += 1;
            cluster.stamps.1 = cluster.stamps.0.clone();
        }
    }
}
