//! What a launch did, counted: instructions by class, how shared memory's banks and global memory's sectors were used.

use super::entry::{Entry, Instruction};
use super::machine::Run;
use super::op::{Arith, Op, Space};
use super::warp::{GENERIC_CONST, GENERIC_PARAM, GENERIC_SHARED, Row, lanes};

/// Kinds of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Integer,
    Float,
    /// Moves, conversions, comparisons and selections.
    Move,
    /// Loads, stores and atomics, and copies of them.
    Memory,
    /// Products of matrices.
    Tensor,
    /// Jumps, barriers, votes and shuffles.
    Control,
}

/// Requests of warps to a memory, in units that it serves at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    pub requests: u64,
    /// Wavefronts of shared memory, of 32 banks of 4 bytes each; sectors of 32 bytes of global memory.
    pub units: u64,
    /// As few as there could be of as many bytes.
    pub least: u64,
}

impl Requests {
    /// Units beyond the least: of shared memory, those of bank conflicts.
    pub fn excess(self) -> u64 {
        self.units - self.least.min(self.units)
    }

    fn add(&mut self, units: u64, least: u64) {
        self.requests += 1;
        self.units += units;
        self.least += least;
    }
}

/// What an instruction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub line: usize,
    pub text: String,
    /// By warps.
    pub executions: u64,
    pub shared: Requests,
    pub global: Requests,
    class: Option<Class>,
}

/// Counts of a launch. Atomics, `cp.async` and bulk copies are in no requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Instructions that warps executed, and the same by lanes.
    pub warp_instructions: u64,
    pub lane_instructions: u64,
    /// Of tensor cores.
    pub multiply_adds: u64,
    pub shared_loads: Requests,
    pub shared_stores: Requests,
    pub global_loads: Requests,
    pub global_stores: Requests,
    /// Of each instruction, in the order of the text.
    pub lines: Vec<Line>,
}

impl Statistics {
    pub(super) fn new(entry: &Entry) -> Statistics {
        let line = |i: &Instruction| Line { line: i.line, text: i.text.clone(), class: Some(class(&i.op)), ..Line::default() };
        Statistics { lines: entry.code.iter().map(line).collect(), ..Statistics::default() }
    }

    /// Instructions of a class that warps executed.
    pub fn executed(&self, class: Class) -> u64 {
        self.lines.iter().filter(|l| l.class == Some(class)).map(|l| l.executions).sum()
    }

    /// The instructions with bank conflicts, as text.
    pub fn conflicts(&self) -> Vec<String> {
        let of = |l: &Line| format!("line {} ({}): {} wavefronts, {} needed", l.line, l.text, l.shared.units, l.shared.least);
        self.lines.iter().filter(|l| l.shared.excess() > 0).map(of).collect()
    }

    /// The instructions that touch more than `slack` sectors a request beyond the least, as text; 1 allows for rows that begin
    /// within a sector.
    pub fn scattered(&self, slack: u64) -> Vec<String> {
        let of = |l: &Line| format!("line {} ({}): {} sectors, {} needed", l.line, l.text, l.global.units, l.global.least);
        self.lines.iter().filter(|l| l.global.excess() > slack * l.global.requests).map(of).collect()
    }
}

fn class(op: &Op) -> Class {
    match op {
        Op::Arith(Arith::Select, ..) => Class::Move,
        Op::Arith(_, ty, _) if ty.is_float() => Class::Float,
        Op::Arith(..) => Class::Integer,
        Op::Move(_) | Op::Convert { .. } | Op::ConvertPair { .. } | Op::ConvertTf32 { .. } | Op::PackSaturated { .. } => {
            Class::Move
        }
        Op::Compare { .. } | Op::Address { .. } | Op::MapShared => Class::Move,
        Op::Load { .. } | Op::Store { .. } | Op::Atomic { .. } | Op::LoadMatrix { .. } | Op::StoreMatrix { .. } => Class::Memory,
        Op::CopyAsync { .. } | Op::TensorLoad { .. } | Op::TensorStore { .. } | Op::BulkLoad { .. } => Class::Memory,
        Op::BulkStore | Op::BulkForward | Op::BulkReduce(..) => Class::Memory,
        Op::Mma(_) | Op::Wgmma(_) => Class::Tensor,
        _ => Class::Control,
    }
}

/// Wavefronts of an access of shared memory, and the least: lanes of 8 or 16 bytes are served by halves or quarters of a warp,
/// and different words of a bank one after the other.
fn wavefronts(active: u32, addresses: &Row, bytes: usize) -> (u64, u64) {
    let width = 32 * 4 / bytes.max(4);
    let (mut units, mut least) = (0, 0);
    for first in (0..32).step_by(width) {
        let group = active & (u32::MAX >> (32 - width)) << first;
        if group == 0 {
            continue;
        }
        let (mut words, mut count) = ([0u64; 32], 0);
        let mut depth = [0u8; 32];
        for lane in lanes(group) {
            for part in 0..bytes.div_ceil(4) as u64 {
                let word = addresses[lane] / 4 + part;
                let bank = (word % 32) as usize;
                if depth[bank] > 0 && words[..count].contains(&word) {
                    continue;
                }
                depth[bank] += 1;
                words[count] = word;
                count += 1;
            }
        }
        units += u64::from(depth.into_iter().max().unwrap_or(0));
        least += 1;
    }
    (units, least)
}

/// Sectors of 32 bytes that an access touches, and the least for as many bytes.
fn sectors(active: u32, addresses: &Row, bytes: usize) -> (u64, u64) {
    let (mut found, mut count) = ([0u64; 32], 0);
    let (mut last, mut different) = (u64::MAX, 0);
    for lane in lanes(active) {
        let sector = addresses[lane] / 32;
        if count == 0 || found[count - 1] != sector && !found[..count].contains(&sector) {
            found[count] = sector;
            count += 1;
        }
        different += u64::from(addresses[lane] != last);
        last = addresses[lane];
    }
    (count as u64, (different * bytes as u64).div_ceil(32).min(count as u64))
}

impl Run<'_> {
    /// Counts a request of the instruction that runs.
    pub(super) fn count(&mut self, space: Space, active: u32, addresses: &Row, bytes: usize, stores: bool) {
        let first = addresses[active.trailing_zeros() as usize];
        let shared = match space {
            Space::Shared | Space::Cluster => true,
            Space::Global => false,
            Space::Generic if first & (GENERIC_PARAM | GENERIC_CONST) == 0 => first & GENERIC_SHARED != 0,
            _ => return,
        };
        let (s, line) = (&mut self.statistics, self.at);
        if shared {
            let (units, least) = wavefronts(active, addresses, bytes);
            if stores { &mut s.shared_stores } else { &mut s.shared_loads }.add(units, least);
            s.lines[line].shared.add(units, least);
        } else {
            let (units, least) = sectors(active, addresses, bytes);
            if stores { &mut s.global_stores } else { &mut s.global_loads }.add(units, least);
            s.lines[line].global.add(units, least);
        }
    }
}
