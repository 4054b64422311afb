//! A formula over broadcast operands.

use smallvec::SmallVec;

use super::broadcast::Rows;
use crate::base::{Shape, TensorView};
use crate::device::cpu::{Call, share};
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::scalar::Steps;
use crate::scalar::cpu::{Lane, Program};

/// Elements below which one thread is faster than two.
const PARALLEL_ELEMENTS: usize = 32 << 10;
/// Elements of one task.
const TASK_ELEMENTS: usize = 16 << 10;
/// Rows shorter than this are gathered into longer ones.
const SHORT_ROW: usize = 64;
/// Elements that are copied before they are computed on.
const BLOCK: usize = 1024;

pub(super) fn run(call: &mut Call) -> Result<()> {
    let Problem::Scalar(p) = call.problem else { return Err(mismatch("the problem is of another family")) };
    let types: Vec<_> = p.operands.iter().map(|t| t.dtype).collect();
    let program = Program::new(Steps::compile(&p.formula, &types, p.out.dtype)?);
    let shapes: Vec<&Shape> = p.operands.iter().map(|t| &t.shape).collect();
    let rows = Rows::new(&p.out.shape, &shapes).ok_or_else(|| mismatch("an operand does not broadcast to the output"))?;
    let operands: Vec<Option<&TensorView>> = call.inputs.iter().take(types.len()).map(Option::as_ref).collect();
    let sizes: Vec<usize> = types.iter().map(|t| t.size_bytes()).collect();
    let size = p.out.dtype.size_bytes();
    let there = |i: usize| operands.get(i).is_some_and(|o| o.is_some() || shapes[i] == &p.out.shape && sizes[i] == size);
    if !(0..types.len()).all(there) {
        return Err(mismatch("an operand is missing"));
    }
    let Some(out) = call.outputs.first_mut().and_then(|o| o.as_mut()) else { return Ok(()) };
    let work = Work { rows: &rows, operands: &operands, sizes: &sizes, program: &program, out_size: size };
    let total = p.out.shape.numel();
    let parallel = total >= PARALLEL_ELEMENTS && rayon::current_num_threads() > 1;
    // A task is a run of elements; rows are cut by it where they are long.
    let task = if rows.len >= TASK_ELEMENTS { TASK_ELEMENTS } else { (TASK_ELEMENTS / rows.len.max(1)).max(1) * rows.len };
    let task = if parallel { task } else { total };
    share::parts(out.bytes, task * size, |i, out| work.run(i * task, out));
    Ok(())
}

fn mismatch(why: &str) -> Error {
    Error::Device { device: "cpu".into(), why: why.into() }
}

struct Work<'a> {
    rows: &'a Rows,
    /// `None` where the output holds the operand.
    operands: &'a [Option<&'a TensorView<'a>>],
    sizes: &'a [usize],
    program: &'a Program,
    out_size: usize,
}

impl Work<'_> {
    /// Computes the elements of the output that start at `first`.
    fn run(&self, first: usize, out: &mut [u8]) {
        if self.rows.len < SHORT_ROW && self.rows.count > 1 {
            return self.gathered(first, out);
        }
        let total = out.len() / self.out_size;
        let mut done = 0;
        let in_place = self.operands.iter().any(Option::is_none);
        let mut held = Vec::new();
        while done < total {
            let (row, offset) = ((first + done) / self.rows.len, (first + done) % self.rows.len);
            let n = (self.rows.len - offset).min(total - done).min(if in_place { BLOCK } else { usize::MAX });
            let block = &mut out[done * self.out_size..(done + n) * self.out_size];
            if in_place {
                held.clear();
                held.extend_from_slice(block);
            }
            let lanes: SmallVec<[Lane; 8]> = (0..self.operands.len()).map(|i| self.lane(i, row, offset, n, &held)).collect();
            self.program.run(&lanes, block);
            done += n;
        }
    }

    fn lane<'l>(&'l self, i: usize, row: usize, offset: usize, n: usize, held: &'l [u8]) -> Lane<'l> {
        let Some(operand) = self.operands[i] else { return Lane::Slice(held) };
        let (size, start) = (self.sizes[i], self.rows.start(i, row));
        if self.rows.splat[i] {
            return Lane::Splat(&operand.bytes[start * size..(start + 1) * size]);
        }
        Lane::Slice(&operand.bytes[(start + offset) * size..(start + offset + n) * size])
    }

    /// Short rows: each operand's elements are first written one after the other.
    fn gathered(&self, first: usize, out: &mut [u8]) {
        let mut buffers: Vec<crate::base::AlignedBytes> =
            self.sizes.iter().map(|s| crate::base::AlignedBytes::zeroed(s * BLOCK)).collect();
        let total = out.len() / self.out_size;
        let mut done = 0;
        while done < total {
            let n = BLOCK.min(total - done);
            for (i, buffer) in buffers.iter_mut().enumerate() {
                let (size, buffer) = (self.sizes[i], &mut buffer[..n * self.sizes[i]]);
                match self.operands[i] {
                    Some(operand) => self.gather(i, operand.bytes, first + done, buffer),
                    None => buffer.copy_from_slice(&out[done * size..(done + n) * size]),
                }
            }
            let lanes: Vec<Lane> = buffers.iter().zip(self.sizes).map(|(b, s)| Lane::Slice(&b[..n * s])).collect();
            self.program.run(&lanes, &mut out[done * self.out_size..(done + n) * self.out_size]);
            done += n;
        }
    }

    fn gather(&self, i: usize, from: &[u8], first: usize, buffer: &mut [u8]) {
        let (size, len) = (self.sizes[i], self.rows.len);
        let mut at = 0;
        while at < buffer.len() {
            let index = first + at / size;
            let (row, offset) = (index / len, index % len);
            let n = (len - offset).min((buffer.len() - at) / size);
            let start = self.rows.start(i, row) * size;
            let into = &mut buffer[at..at + n * size];
            if self.rows.splat[i] {
                into.chunks_exact_mut(size).for_each(|e| e.copy_from_slice(&from[start..start + size]));
            } else {
                into.copy_from_slice(&from[start + offset * size..start + (offset + n) * size]);
            }
            at += n * size;
        }
    }
}
