//! A constant B, rearranged on the host: rows of K elements for each column, as [`super::operand::Operand`] describes.
//!
//! Part 0 is the matrices, one after the other over the batch axes that B has. Of 8-bit products part 1 is an
//! [`super::int8::Terms`] record for each column: the sum of its bytes, 0, its scale (1 unless B was rounded here), 0.

use half::{bf16, f16};
use rayon::prelude::*;

use super::operand::{Side, pitch, source};
use crate::base::quant::{quantize, symmetric_scale};
use crate::base::{DType, Tensor};
use crate::device::cpu::Packed;
use crate::error::Result;
use crate::graph::problem::gemm::GemmProblem;

/// Packs B, if it is constant, as elements of `to`: f32, f16, bf16, or i8.
pub fn pack(p: &GemmProblem, to: DType, constants: &[Option<Tensor>]) -> Result<Option<(Packed, Vec<usize>)>> {
    let Some(b) = constants.get(p.b.input).and_then(Option::as_ref) else { return Ok(None) };
    let starts = starts(p);
    let (columns, row_bytes) = (starts.len() * p.n, pitch(p.k, to) * to.size_bytes());
    let mut matrix = Tensor::zeros(DType::U8, [columns * row_bytes])?;
    let mut terms = Tensor::zeros(DType::I32, [if to == DType::I8 { columns * 4 } else { 0 }])?;
    let b = b.aligned();
    let b = b.view();
    let place = |column: usize, k: usize| starts[column / p.n] + k * p.b.row + column % p.n * p.b.col;
    let rows = matrix.view_mut().bytes.par_chunks_exact_mut(row_bytes.max(1)).enumerate();
    match (b.dtype, to) {
        (_, DType::I8) => {
            let records = bytemuck::cast_slice_mut::<u8, i32>(terms.view_mut().bytes).par_chunks_exact_mut(4);
            rows.zip(records).for_each(|((column, row), record)| {
                record[2] = 1f32.to_bits() as i32;
                let row = &mut bytemuck::cast_slice_mut::<u8, i8>(row)[..p.k];
                let elements = row.iter_mut().enumerate().map(|(k, to)| (to, place(column, k)));
                match b.dtype {
                    DType::F32 => {
                        let all = b.slice::<f32>();
                        let scale = symmetric_scale((0..p.k).fold(0f32, |m, k| m.max(all[place(column, k)].abs())));
                        elements.for_each(|(to, at)| *to = quantize(all[at], scale, 0, -127, 127) as i8);
                        record[2] = scale.to_bits() as i32;
                    }
                    DType::U8 => elements.for_each(|(to, at)| *to = (b.bytes[at] ^ 0x80) as i8),
                    _ => elements.for_each(|(to, at)| *to = b.bytes[at] as i8),
                }
                record[0] = row.iter().map(|&x| i32::from(x)).sum();
            });
        }
        (DType::F32, DType::F16) => fill(rows, p.k, |c, k| f16::from_f32(b.slice::<f32>()[place(c, k)])),
        (DType::F32, DType::BF16) => fill(rows, p.k, |c, k| bf16::from_f32(b.slice::<f32>()[place(c, k)])),
        (DType::F32, _) => fill(rows, p.k, |c, k| b.slice::<f32>()[place(c, k)]),
        _ => fill(rows, p.k, |c, k| bytemuck::cast_slice::<u8, u16>(b.bytes)[place(c, k)]),
    }
    let parts = if to == DType::I8 { vec![matrix, terms] } else { vec![matrix] };
    Ok(Some((Packed { parts }, vec![p.b.input])))
}

fn fill<'a, T: bytemuck::Pod>(
    rows: impl IndexedParallelIterator<Item = (usize, &'a mut [u8])>,
    k: usize,
    element: impl Fn(usize, usize) -> T + Sync,
) {
    rows.for_each(|(column, row)| {
        let row = bytemuck::cast_slice_mut::<u8, T>(row)[..k].iter_mut();
        row.enumerate().for_each(|(k, to)| *to = element(column, k));
    });
}

/// The first element of each of B's matrices, in the order of the batch axes.
fn starts(p: &GemmProblem) -> Vec<usize> {
    let mut starts = vec![0];
    for (&dim, &step) in p.batch.iter().zip(&source(p, Side::B).matrix.batch) {
        if step != 0 {
            starts = starts.iter().flat_map(|s| (0..dim).map(move |i| s + i * step)).collect();
        }
    }
    starts
}
