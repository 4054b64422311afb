//! Executes PTX on the CPU: the text of a module is read into instructions, and a grid of warps runs them under a seeded
//! scheduler, with what a device leaves undefined turned into errors: reads of registers and bytes that nothing wrote, accesses
//! outside an allocation, races in shared memory, asynchronous copies and products used before they were waited for, generic
//! writes that no proxy fence made visible to an asynchronous read, and waits that never end.
//!
//! Integers are bit-accurate. Scalar float arithmetic rounds as the ISA says; `.approx` functions give the correctly rounded
//! result, of which a device may be some units off. Products of matrices are exact, and are summed in f32 in ascending order
//! of k onto the accumulator, where a device keeps fewer bits in another order: compare within a tolerance.
//! Source of every instruction's meaning: PTX ISA 8.0, chapter 9.
#![allow(dead_code, unused_imports)]

mod access;
mod arithmetic;
mod barriers;
mod clocks;
mod constants;
mod convert;
mod copies;
mod decode;
mod entry;
mod execute;
mod fast;
mod float;
mod global;
mod lanewise;
mod machine;
mod matrix;
mod mbarrier;
mod modifiers;
mod number;
mod op;
mod operand;
mod packed;
mod planted;
mod races;
mod read;
mod shadow;
mod statistics;
mod tensor;
mod warp;
mod wgmma;

pub use machine::{Argument, Gpu, Launch};
pub use planted::{SEEDS, Try, caught, sound};
pub use read::Module;
pub use statistics::{Class, Line, Requests, Statistics};
pub use tensor::TensorMap;

/// What kind of error a text or its execution shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The text is not PTX, or not of the subset.
    Syntax,
    /// An access that lies in no allocation.
    Bounds,
    /// An address that is no multiple of the access's size.
    Misaligned,
    /// A read of what nothing wrote.
    Uninitialised,
    /// Two accesses of which one writes, with nothing to order them.
    Race,
    /// A generic write that an asynchronous access reads without a proxy fence between them.
    Proxy,
    /// Something asynchronous is used before it was waited for.
    Unfinished,
    /// No thread can go on.
    Deadlock,
    /// An instruction used as the ISA forbids.
    Misuse,
}

/// An error: what, in which line.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: Kind,
    /// From 1; 0 where no line is to blame.
    pub line: usize,
    /// The statement.
    pub text: String,
    pub what: String,
}

pub type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    pub fn new(kind: Kind, what: impl Into<String>) -> Fault {
        Fault { kind, line: 0, text: String::new(), what: what.into() }
    }

    /// The same at a line, unless it has one.
    pub fn at(mut self, line: usize, text: &str) -> Fault {
        if self.line == 0 {
            (self.line, self.text) = (line, text.into());
        }
        self
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {} (line {}: {})", self.kind, self.what, self.line, self.text)
    }
}

/// An error of the kind.
pub fn fault<T>(kind: Kind, what: impl Into<String>) -> Result<T> {
    Err(Fault::new(kind, what))
}
