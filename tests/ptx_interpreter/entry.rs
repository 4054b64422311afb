//! A kernel as it was read.

use super::fast::Fast;
use super::op::Op;
use super::operand::{Operand, Special};

/// Where shared memory starts, so that address 0 is none of it.
pub const SHARED_BASE: u64 = 1024;

#[derive(Clone, Debug)]
pub struct Instruction {
    /// Runs for lanes whose predicate is as said.
    pub guard: Option<(usize, bool)>,
    pub op: Op,
    pub operands: Vec<Operand>,
    /// The same where it is one of the frequent, simple ones.
    pub fast: Option<Fast>,
    pub line: usize,
    pub text: String,
}

#[derive(Clone, Debug)]
pub struct Param {
    pub name: String,
    pub offset: usize,
    pub size: usize,
}

/// What a register of the interpreter's own holds from the start on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Preset {
    Constant(u64),
    Special(Special),
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
    /// The last registers, which nothing writes.
    pub presets: Vec<Preset>,
    /// The module's constant memory.
    pub constants: Vec<u8>,
    pub code: Vec<Instruction>,
    /// Whether there are asynchronous products.
    pub asynchronous: bool,
    /// End of its static shared memory, and start of the dynamic one.
    pub shared_end: u64,
    pub dynamic_at: Option<u64>,
    /// Most threads of a block, and whether exactly so many; blocks of a cluster.
    pub threads: Option<(u32, bool)>,
    pub cluster: u32,
    pub cluster_extents: [u32; 3],
}

impl Entry {
    /// The register that holds the value.
    pub fn preset(&mut self, preset: Preset) -> usize {
        let first = self.registers.len() - self.presets.len();
        if let Some(at) = self.presets.iter().position(|p| *p == preset) {
            return first + at;
        }
        self.presets.push(preset);
        self.registers.push(64);
        self.register_names.push(format!("{preset:?}"));
        first + self.presets.len() - 1
    }
}
