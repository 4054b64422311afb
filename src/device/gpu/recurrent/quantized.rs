//! LSTM layers with 8-bit weights. Rows of the input, and at each step of the state, become u8, each by its own range; sums of products
//! are exact and scaled as the CPU does it. The weights, `[directions, k, gates * hidden]`, are the B of products that all directions
//! share the rows of: [`Preparation`] makes them rows of k side by side, and records of their columns.

use super::steps::{Places, Weights};
use crate::base::{DType, Shape, Tensor};
use crate::device::cpu::Packed;
use crate::device::cpu::call::Packing;
use crate::device::gpu::call::Call;
use crate::device::gpu::device::failed;
use crate::device::gpu::gemm::epilogue::Epilogue;
use crate::device::gpu::gemm::int8::{self, Records};
use crate::device::gpu::gemm::operand::Preparation;
use crate::device::gpu::gemm::pack as gemm;
use crate::device::gpu::gemm::tile::{Operands, arguments};
use crate::device::gpu::launch::{Launch, Pointer};
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::RecurrentProblem;
use crate::graph::problem::gemm::{GemmProblem, Matrix, Param, Quant};
use crate::hardware::{Capabilities, DeviceKind};
use crate::kernel::gpu::gemm::{SIMT_64X64, SM80_64X64, WGSL_INT8_64X64};

/// The product of `m` rows of f32 with the weights of input 1 (of x) or 2 (of h). `params`: how many scales and zero points there are,
/// one for each column or for each direction.
fn product(p: &RecurrentProblem, weights: usize, m: usize, params: [usize; 2]) -> Result<GemmProblem> {
    let (d, n) = (p.directions(), p.cell.gates() * p.hidden_size);
    let k = if weights == 1 { p.input_size } else { p.hidden_size };
    let dtype = p.quantized.ok_or_else(|| failed("a recurrent layer that is not quantised"))?;
    let param = |i: usize, dtype: DType| {
        let (step, matrix) = if params[i] == d * n { (1, n) } else { (0, 1) };
        Some(Param { input: 6 + 2 * weights + i, dtype, step, batch: [matrix].into_iter().collect() })
    };
    let matrix = |input: usize, dtype: DType, row: usize, step: usize| {
        let batch = [step].into_iter().collect();
        Matrix { input, dtype, row, col: 1, batch }
    };
    Ok(GemmProblem {
        batch: Shape::from([d]),
        m,
        n,
        k,
        a: matrix(0, DType::F32, k, 0),
        b: matrix(weights, dtype, n, k * n),
        b_as: dtype,
        pick: None,
        two_of_four: false,
        b_scale: None,
        c: None,
        alpha: 1.0,
        beta: 1.0,
        quant: Some(Quant { b_scale: param(0, DType::F32), b_zero: param(1, dtype), ..Quant::default() }),
        top: None,
        widths: Vec::new(),
        contraction: None,
        out: DType::F32,
        shape: Shape::from([d, m, n]),
        inputs: 12,
        epilogue: None,
    })
}

/// Constant weights as rows of k with the sums of each: parts 0 and 1 of x, 2 and 3 of h.
pub fn pack(problem: &Problem, constants: &[Option<Tensor>]) -> Result<Packing> {
    let Problem::Recurrent(p) = problem else { return Err(failed("not a recurrent layer")) };
    let mut parts = Vec::new();
    for weights in [1, 2] {
        let Some((made, _)) = gemm::pack(&product(p, weights, 1, [1; 2])?, DType::I8, constants)? else { return Ok(None) };
        parts.extend(made.parts);
    }
    Ok(Some((Packed { parts }, vec![1, 2])))
}

/// End of the scratch, from `at.end` on, that [`prepare`] takes when nothing is packed.
pub fn scratch_bytes(p: &RecurrentProblem, at: &Places) -> Result<usize> {
    let [of_x, of_h] = [product(p, 1, p.seq_len * p.batch, [1; 2])?, product(p, 2, p.batch, [1; 2])?];
    let mut to = Preparation::after(&of_x, at.end);
    int8::rows(&mut to)?;
    int8::columns(&mut to, None)?;
    let mut to = to.next(&of_h);
    int8::columns(&mut to, None)?;
    Ok(to.scratch_bytes())
}

/// Launches that quantise the input, multiply it and make the weights of the state ready.
pub fn prepare(call: &Call, p: &RecurrentProblem, at: &Places) -> Result<(Vec<Launch>, Weights)> {
    let count = |i: usize| Ok::<_, crate::Error>(call.input(i)?.shape.numel());
    let of_x = product(p, 1, p.seq_len * p.batch, [count(8)?, count(9)?])?;
    let of_h = product(p, 2, p.batch, [count(10)?, count(11)?])?;
    let packed = |part: usize| call.packed.map(|_| part);
    let mut to = Preparation::after(&of_x, at.end);
    if of_x.m * of_x.n > 0 {
        let (a, rows) = int8::rows(&mut to)?;
        let (b, columns) = int8::columns(&mut to, packed(0))?;
        let tile = match call.info.kind {
            DeviceKind::Wgpu => &WGSL_INT8_64X64,
            _ if call.info.capabilities.contains(Capabilities::SM_80) => &SM80_64X64,
            _ => &SIMT_64X64,
        };
        let operands = Operands { a, b, records: Records { rows, columns, corrects: true } };
        let args = arguments(&of_x, &operands, of_x.k.div_ceil(16), true)?;
        let launch = Launch::new(tile.variant("u8_f32"), tile.grid(&of_x, 1), args);
        let store = Epilogue::plain(&of_x, DType::F32, 1, Pointer::Scratch(at.inputs))?;
        to.launches.push(store.complete(launch));
    }
    let mut to = to.next(&of_h);
    let (b, columns) = int8::columns(&mut to, packed(2))?;
    let weights = Weights { at: b.at, columns: Some((columns.at, b.pitch / 4)) };
    Ok((to.launches, weights))
}
