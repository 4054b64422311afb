//! A kernel as it was read.

use super::op::Op;
use super::operand::Operand;

/// Where shared memory starts, so that address 0 is none of it.
pub const SHARED_BASE: u64 = 1024;

#[derive(Clone, Debug)]
pub struct Instruction {
    /// Runs for lanes whose predicate is as said.
    pub guard: Option<(usize, bool)>,
    pub op: Op,
    pub operands: Vec<Operand>,
    pub line: usize,
    pub text: String,
}

#[derive(Clone, Debug)]
pub struct Param {
    pub name: String,
    pub offset: usize,
    pub size: usize,
}

/// A kernel.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    pub name: String,
    pub params: Vec<Param>,
    pub param_bytes: usize,
    /// Widths in bits.
    pub registers: Vec<u32>,
    pub register_names: Vec<String>,
    pub code: Vec<Instruction>,
    /// End of its static shared memory, and start of the dynamic one.
    pub shared_end: u64,
    pub dynamic_at: Option<u64>,
    /// Most threads of a block, and whether exactly so many; blocks of a cluster.
    pub threads: Option<(u32, bool)>,
    pub cluster: u32,
}
