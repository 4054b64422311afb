//! Operands as the tiled kernels read them, and the launches that make them so.

use super::super::launch::{Arg, Launch, Pointer};
use super::super::variant::Variant;
use super::batch::{Batch, own};
use crate::base::{DType, Shape};
use crate::error::Result;
use crate::graph::problem::gemm::{GemmProblem, Matrix};

/// Rows start at multiples of so many bytes.
pub const ALIGN: usize = 16;

/// A matrix for each batch: rows of K elements of one type side by side, filled up with zeros to `pitch`, a multiple of [`ALIGN`] bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Operand {
    /// The first element.
    pub at: Pointer,
    /// Element type.
    pub dtype: DType,
    /// Elements from row to row.
    pub pitch: usize,
    /// Elements from one matrix to the next along each batch axis of the problem; 0 where it is broadcast.
    pub batch: Vec<usize>,
}

/// Which operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A: rows of the output.
    A,
    /// B: columns of the output.
    B,
}

/// A strided source of rows: where row `r`, element `k` lies.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    /// The problem's description.
    pub matrix: &'a Matrix,
    /// How many rows (of the output, or columns).
    pub rows: usize,
    /// Elements from row to row.
    pub row: usize,
    /// Elements from one element of a row to the next.
    pub step: usize,
}

/// The rows of one side.
pub fn source(p: &GemmProblem, side: Side) -> Source<'_> {
    match side {
        Side::A => Source { matrix: &p.a, rows: p.m, row: p.a.row, step: p.a.col },
        Side::B => Source { matrix: &p.b, rows: p.n, row: p.b.col, step: p.b.row },
    }
}

/// Elements of a row with its filling.
pub fn pitch(k: usize, dtype: DType) -> usize {
    k.next_multiple_of(ALIGN / dtype.size_bytes())
}

impl Source<'_> {
    /// Whether kernels can read it where it lies: the type fits, K runs through memory, every row starts at a multiple of
    /// [`ALIGN`] bytes and ends at one.
    fn lies_well(&self, k: usize, dtype: DType) -> bool {
        let even = |elements: usize| (elements * dtype.size_bytes()).is_multiple_of(ALIGN);
        self.matrix.dtype == dtype
            && (self.step == 1 || k <= 1)
            && even(k)
            && (even(self.row) || self.rows == 1)
            && self.matrix.batch.iter().all(|&s| even(s))
    }
}

/// The launches before the product, and the scratch that all take.
pub struct Preparation<'a> {
    /// The problem.
    pub p: &'a GemmProblem,
    /// In order.
    pub launches: Vec<Launch>,
    scratch: u64,
}

impl<'a> Preparation<'a> {
    /// Nothing yet.
    pub fn new(p: &'a GemmProblem) -> Self {
        Self::after(p, 0)
    }

    /// With the first bytes of the scratch taken, a multiple of 256.
    pub fn after(p: &'a GemmProblem, scratch: u64) -> Self {
        Preparation { p, launches: Vec::new(), scratch }
    }

    /// The same launches and scratch, for another problem's to come after.
    pub fn next<'b>(self, p: &'b GemmProblem) -> Preparation<'b> {
        Preparation { p, launches: self.launches, scratch: self.scratch }
    }

    /// Bytes of scratch taken.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch as usize
    }

    /// Takes scratch, at a multiple of 256 bytes.
    pub fn take(&mut self, bytes: usize) -> Pointer {
        let at = self.scratch;
        self.scratch += bytes.next_multiple_of(256) as u64;
        Pointer::Scratch(at)
    }

    /// One side as elements of `dtype`: read in place, as packed on the host (`packed`), or arranged. s8 is made of u8 by
    /// taking off 128: see [`super::int8`].
    pub fn operand(&mut self, side: Side, dtype: DType, packed: bool) -> Result<Operand> {
        let source = source(self.p, side);
        let (shape, steps) = self.dense(&source, dtype);
        let pitch = pitch(self.p.k, dtype);
        if packed {
            return Ok(Operand { at: Pointer::Packed(0, 0), dtype, pitch, batch: steps });
        }
        if source.lies_well(self.p.k, dtype) {
            let (batch, pitch) = (source.matrix.batch.to_vec(), if source.rows == 1 { pitch } else { source.row });
            return Ok(Operand { at: Pointer::Input(source.matrix.input, 0), dtype, pitch, batch });
        }
        let at = self.take(shape.numel() * source.rows * pitch * dtype.size_bytes());
        self.arrange(&source, dtype, &shape, at)?;
        Ok(Operand { at, dtype, pitch, batch: steps })
    }

    /// The batch axes that a side moves along, and its steps once its matrices lie without gaps.
    pub fn dense(&self, source: &Source, dtype: DType) -> (Shape, Vec<usize>) {
        own(&self.p.batch, &[&source.matrix.batch], source.rows * pitch(self.p.k, dtype))
    }

    fn arrange(&mut self, source: &Source, to: DType, shape: &Shape, at: Pointer) -> Result<()> {
        let (k, pitch) = (self.p.k, pitch(self.p.k, to));
        if pitch * source.rows * shape.numel() == 0 {
            return Ok(());
        }
        let from = source.matrix.dtype;
        let variant = Variant::named(arrangement(from, to));
        let batch = axes(shape, &[source.matrix.batch.to_vec()])?;
        let grid = [pitch.div_ceil(32) as u32, source.rows.div_ceil(32) as u32, batch.count()];
        let flip = if from == DType::U8 && to == DType::I8 { 0x80 } else { 0 };
        let numbers = [source.rows, k, pitch, source.row, source.step, flip].map(|v| Arg::U32(v as u32));
        let mut args = vec![Arg::Pointer(Pointer::Input(source.matrix.input, 0)), Arg::Pointer(at)];
        args.extend(numbers);
        args.push(batch.argument());
        self.launches.push(Launch::new(variant, grid, args));
        Ok(())
    }
}

/// The batch axes of operands with these steps. The rows of the kernel table refuse products of which this fails.
pub fn axes(shape: &Shape, operands: &[Vec<usize>]) -> Result<Batch> {
    Batch::new(shape, operands).ok_or_else(|| super::super::device::failed("batch axes broadcast in too many ways"))
}

/// The kernel that moves elements of one type to rows of another.
fn arrangement(from: DType, to: DType) -> &'static str {
    match (from, to) {
        (DType::F32, DType::F16) => "gemm_arrange_f32_f16",
        (DType::F32, DType::BF16) => "gemm_arrange_f32_bf16",
        (DType::F16, DType::F32) => "gemm_arrange_f16_f32",
        (DType::BF16, DType::F32) => "gemm_arrange_bf16_f32",
        _ if to.size_bytes() == 4 => "gemm_arrange_b32",
        _ if to.size_bytes() == 2 => "gemm_arrange_b16",
        _ => "gemm_arrange_b8",
    }
}
