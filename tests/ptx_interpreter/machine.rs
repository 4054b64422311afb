//! A launch: blocks and warps, and the scheduler that picks which of them runs next.

use std::collections::BTreeMap;

use halfbyte::base::xorshift::Xorshift;

use super::barriers::Named;
use super::clocks::{Clocks, Stamp};
use super::entry::{Entry, Instruction};
use super::global::Global;
use super::mbarrier::Mbarrier;
use super::op::{Op, Space};
use super::races::Races;
use super::shadow::Shared;
use super::statistics::Statistics;
use super::tensor::{Delivery, TensorMap};
use super::warp::{Extents, Place, Warp, lanes};
use super::{Fault, Kind, Result, fault};

/// Clusters that run at the same time, and as many where blocks may wait for each other: as many as a large device has
/// multiprocessors.
const RESIDENT: usize = 8;
const RESIDENT_WAITING: usize = 132;
/// Polls in vain, for each warp, after which nothing is thought to come.
const PATIENCE: usize = 1000;

/// A kernel's argument.
#[derive(Clone, Debug)]
pub enum Argument {
    Bytes(Vec<u8>),
    Map(TensorMap),
}

impl Argument {
    pub fn u32(v: u32) -> Argument {
        Argument::Bytes(v.to_le_bytes().into())
    }

    pub fn f32(v: f32) -> Argument {
        Argument::Bytes(v.to_le_bytes().into())
    }

    pub fn u64(v: u64) -> Argument {
        Argument::Bytes(v.to_le_bytes().into())
    }
}

/// Extents of a launch, in blocks, in threads, and in bytes of dynamic shared memory.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: usize,
    pub arguments: Vec<Argument>,
    /// 0 runs warps in turn and copies at once; others at random.
    pub seed: u64,
}

/// A device: its global memory.
#[derive(Clone, Debug, Default)]
pub struct Gpu {
    pub global: Global,
}

/// A block of threads.
pub(super) struct Block<'a> {
    pub shared: Shared,
    pub warps: Vec<Warp<'a>>,
    pub named: BTreeMap<u64, Named>,
    pub mbarriers: BTreeMap<u64, Mbarrier>,
    /// The actors of its warpgroups' products.
    pub products: Vec<usize>,
    /// Threads that have not exited.
    pub live: u32,
    /// What those that have exited knew.
    pub exits: Stamp,
}

pub(super) struct Cluster<'a> {
    pub blocks: Vec<Block<'a>>,
    pub clocks: Clocks,
    /// Of `barrier.cluster`: threads that have arrived, how often all have, of each thread how often it has, what they know.
    pub arrived: u32,
    pub phase: u32,
    pub phases: Vec<u32>,
    pub stamps: (Stamp, Stamp),
    pub number: usize,
}

impl Cluster<'_> {
    fn none() -> Self {
        let (blocks, phases, stamps) = Default::default();
        Cluster { blocks, clocks: Clocks::new(&[]), arrived: 0, phase: 0, phases, stamps, number: 0 }
    }

    fn is_done(&self) -> bool {
        self.blocks.iter().all(|b| b.live == 0)
    }
}

pub(super) struct Run<'a> {
    pub entry: &'a Entry,
    pub global: &'a mut Global,
    pub races: Races,
    pub params: Vec<u8>,
    pub maps: Vec<TensorMap>,
    pub launch: &'a Launch,
    /// Those that are resident.
    pub clusters: Vec<Cluster<'a>>,
    pub random: Xorshift,
    pub deliveries: Vec<Delivery>,
    pub turn: u64,
    /// Polls in vain since something happened.
    pub polls: usize,
    pub statistics: Statistics,
    /// The instruction that runs.
    pub at: usize,
    /// Instructions after which the launch is given up.
    pub most: u64,
    /// Lanes to wake: cluster, block, warp, lanes.
    pub woken: Vec<(usize, usize, usize, u32)>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Ran,
    /// A poll in vain.
    Polled,
    /// No lane can go on by itself.
    Stuck,
}

impl Gpu {
    /// Runs a kernel to its end.
    pub fn launch(&mut self, entry: &Entry, launch: &Launch) -> Result<Statistics> {
        let threads: u32 = launch.block.iter().product();
        let fits = entry.threads.is_none_or(|(most, exact)| if exact { threads == most } else { threads <= most });
        let blocks = launch.grid.iter().product::<u32>() as usize;
        let whole = launch.grid.iter().zip(entry.cluster_extents).all(|(n, c)| c > 0 && n.is_multiple_of(c));
        if threads == 0 || threads > 1024 || !fits || !whole {
            return fault(Kind::Misuse, format!("{threads} threads and {blocks} blocks do not fit the kernel"));
        }
        let (params, maps) = arguments(entry, &launch.arguments)?;
        let mut run = Run {
            entry,
            global: &mut self.global,
            races: Races::default(),
            params,
            maps,
            launch,
            clusters: Vec::new(),
            random: Xorshift::new(launch.seed),
            deliveries: Vec::new(),
            turn: 0,
            polls: 0,
            statistics: Statistics::new(entry),
            at: 0,
            most: 100_000_000 + 1_000_000 * blocks as u64,
            woken: Vec::new(),
        };
        run.all(blocks / entry.cluster as usize)?;
        Ok(run.statistics)
    }
}

/// The parameters' bytes. A map's are its number.
fn arguments(entry: &Entry, given: &[Argument]) -> Result<(Vec<u8>, Vec<TensorMap>)> {
    if given.len() != entry.params.len() {
        return fault(Kind::Misuse, format!("{} arguments for {} parameters", given.len(), entry.params.len()));
    }
    let (mut bytes, mut maps) = (vec![0; entry.param_bytes], Vec::new());
    for (param, argument) in entry.params.iter().zip(given) {
        let number = (maps.len() as u64).to_le_bytes();
        let value = match argument {
            Argument::Bytes(b) if b.len() == param.size => b,
            Argument::Map(map) if param.size == 128 => {
                maps.push(map.clone());
                &number[..]
            }
            _ => return fault(Kind::Misuse, format!("the argument {} has another size", param.name)),
        };
        bytes[param.offset..param.offset + value.len()].copy_from_slice(value);
    }
    Ok((bytes, maps))
}

impl<'a> Run<'a> {
    fn all(&mut self, clusters: usize) -> Result<()> {
        let waits = |i: &Instruction| match i.op {
            Op::Load { strong: true, space, .. } | Op::Atomic { returns: true, space, .. } => {
                matches!(space, Space::Global | Space::Generic)
            }
            _ => false,
        };
        let resident = if self.entry.code.iter().any(waits) { RESIDENT_WAITING } else { RESIDENT };
        let mut next = resident.min(clusters);
        for number in 0..next {
            let cluster = self.cluster(number, number, None);
            self.clusters.push(cluster);
        }
        let (mut ready, mut last) = (Vec::new(), 0);
        loop {
            self.turn += 1;
            self.deliver()?;
            self.ready(&mut ready);
            if ready.is_empty() {
                if self.clusters.iter().all(Cluster::is_done) {
                    return Ok(());
                }
                if self.deliveries.is_empty() {
                    return Err(self.deadlock());
                }
                continue;
            }
            let pick = if self.launch.seed == 0 { last % ready.len() } else { self.random.below(ready.len()) };
            last += 1;
            let [c, b, w] = ready[pick];
            self.burst(c, b, w)?;
            if self.clusters[c].is_done() {
                if self.deliveries.iter().any(|d| d.cluster == c) {
                    return fault(Kind::Unfinished, "blocks end while a bulk copy to their shared memory is under way");
                }
                if next < clusters {
                    let old = std::mem::replace(&mut self.clusters[c], Cluster::none());
                    self.clusters[c] = self.cluster(c, next, Some(old));
                    next += 1;
                }
            }
        }
    }

    fn ready(&self, found: &mut Vec<[usize; 3]>) {
        found.clear();
        for (c, cluster) in self.clusters.iter().enumerate() {
            for (b, block) in cluster.blocks.iter().enumerate().filter(|(_, b)| b.live > 0) {
                let runs = |w: &Warp| w.live & !w.parked != 0;
                found.extend(block.warps.iter().enumerate().filter(|(_, w)| runs(w)).map(|(w, _)| [c, b, w]));
            }
        }
    }

    /// The cluster of a number, in the memory of one that is over.
    fn cluster(&self, slot: usize, number: usize, old: Option<Cluster<'a>>) -> Cluster<'a> {
        let size = self.entry.cluster as usize;
        let threads: u32 = self.launch.block.iter().product();
        let count = threads.div_ceil(32) as usize;
        let live = |warp: usize| if threads as usize - warp * 32 >= 32 { u32::MAX } else { (1 << (threads % 32)) - 1 };
        let exists: Vec<u32> = (0..count * size).map(|w| live(w % count)).collect();
        let mut clocks = Clocks::new(&exists);
        let dynamic = if self.entry.dynamic_at.is_some() { self.launch.shared_bytes as u64 } else { 0 };
        let mut old_blocks = old.map_or(Vec::new(), |c| c.blocks).into_iter();
        let blocks = (0..size).map(|rank| {
            let at = |n: usize, extents: [u32; 3]| {
                let (n, [x, y, _]) = (n as u32, extents);
                [n % x, n / x % y, n / x / y]
            };
            let (grid, cluster) = (self.launch.grid, self.entry.cluster_extents);
            let cluster_at = at(number, [0, 1, 2].map(|a| grid[a] / cluster[a]));
            let rank_at = at(rank, cluster);
            let extents = Extents {
                cluster_at,
                rank_at,
                cluster,
                threads: self.launch.block,
                block_at: [0, 1, 2].map(|a| cluster_at[a] * cluster[a] + rank_at[a]),
                grid: self.launch.grid,
                shared_bytes: dynamic,
            };
            let place = |warp| Place { cluster: slot, block: rank, warp, index: rank * count + warp, blocks_of_cluster: size };
            let old = old_blocks.next();
            let (shared, warps) = old.map_or((None, Vec::new()), |b| (Some(b.shared), b.warps));
            let mut warps = warps.into_iter();
            Block {
                shared: shared.map_or_else(|| Shared::new(self.entry.shared_end + dynamic), Shared::renewed),
                warps: (0..count).map(|w| Warp::new(self.entry, place(w), &extents, live(w), warps.next())).collect(),
                named: BTreeMap::new(),
                mbarriers: BTreeMap::new(),
                products: (0..count.div_ceil(4)).map(|_| clocks.actor()).collect(),
                live: threads,
                exits: Stamp::default(),
            }
        });
        let blocks: Vec<Block> = blocks.collect();
        let phases = vec![0; count * 32 * size];
        Cluster { blocks, clocks, arrived: 0, phase: 0, phases, stamps: Default::default(), number }
    }

    /// Runs a warp for some instructions.
    fn burst(&mut self, c: usize, b: usize, w: usize) -> Result<()> {
        let mut left = if self.launch.seed == 0 { 256 } else { 1 + self.random.below(48) };
        while left > 0 {
            let mut warp = std::mem::replace(&mut self.clusters[c].blocks[b].warps[w], Warp::hollow(self.entry));
            let step = self.stretch(&mut warp, &mut left);
            self.clusters[c].blocks[b].warps[w] = warp;
            let step = step?;
            self.together(c, b, w)?;
            for (c, b, w, mask) in std::mem::take(&mut self.woken) {
                let warp = &mut self.clusters[c].blocks[b].warps[w];
                warp.parked &= !mask;
                lanes(mask).for_each(|lane| warp.pc[lane] += 1);
            }
            let warp = &self.clusters[c].blocks[b].warps[w];
            if warp.live & !warp.parked == 0 {
                return Ok(());
            }
            match step {
                Step::Ran => {}
                Step::Polled | Step::Stuck => return self.patience(),
            }
        }
        Ok(())
    }

    /// Counts a turn in which nothing happened.
    fn patience(&mut self) -> Result<()> {
        self.polls += 1;
        let warps: usize = self.clusters.iter().flat_map(|c| &c.blocks).map(|b| if b.live > 0 { b.warps.len() } else { 0 }).sum();
        if self.polls > PATIENCE * warps && self.deliveries.is_empty() { Err(self.deadlock()) } else { Ok(()) }
    }

    /// Where threads wait.
    pub(super) fn deadlock(&self) -> Fault {
        let mut places = BTreeMap::new();
        for warp in self.clusters.iter().flat_map(|c| &c.blocks).flat_map(|b| &b.warps) {
            for lane in lanes(warp.live) {
                *places.entry(warp.pc[lane]).or_insert(0) += 1;
            }
        }
        let line = |pc: usize| self.entry.code.get(pc).map_or("the end".into(), |i| format!("line {} ({})", i.line, i.text));
        let waits: Vec<String> = places.iter().map(|(pc, n)| format!("{n} threads at {}", line(*pc))).collect();
        Fault::new(Kind::Deadlock, format!("no thread goes on: {}", waits.join(", ")))
    }
}
