//! What the float convolutions of any kind take: the image, the weights as panels, the bias and the epilogue.

use std::borrow::Cow;

use bytemuck::Pod;
use half::f16;

use super::dense::Place;
use super::finish::{Epilogue, error, input};
use crate::base::{DType, Tensor};
use crate::device::cpu::call::{Call, Packed, Packing};
use crate::device::cpu::gemm::core::Isa;
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::ConvProblem;

/// Weights as a kernel's tiles read them.
pub(super) type Panels = fn(&Isa, &ConvProblem, &[f32]) -> Vec<f32>;

/// Weights rounded as the problem says.
fn lowered<'a>(p: &ConvProblem, w: &'a [f32]) -> Cow<'a, [f32]> {
    match p.w_as {
        DType::F16 => w.iter().map(|&v| f16::from_f32(v).to_f32()).collect(),
        _ => Cow::Borrowed(w),
    }
}

/// Constant weights as panels.
pub(super) fn pack(isa: &Isa, panels: Panels, problem: &Problem, constants: &[Option<Tensor>]) -> Result<Packing> {
    let Problem::Conv(p) = problem else { return Ok(None) };
    let Some(Some(w)) = constants.get(p.w_at) else { return Ok(None) };
    let packed = panels(isa, p, &lowered(p, &w.values::<f32>()?));
    Ok(Some((Packed { parts: vec![Tensor::vector(&packed)] }, vec![p.w_at])))
}

/// The operands of one launch.
pub(super) struct Operands<'a> {
    pub isa: &'static Isa,
    pub p: &'a ConvProblem,
    /// Images by channels.
    pub x: &'a [f32],
    /// As `panels` made them.
    pub weights: Cow<'a, [f32]>,
    /// One for each output channel.
    pub bias: Option<&'a [f32]>,
    pub epilogue: Option<Epilogue<'a>>,
}

impl<'a> Operands<'a> {
    /// Read from a call; weights that [`pack`] did not see are packed now.
    pub fn new(isa: &'static Isa, panels: Panels, call: &Call<'a>) -> Result<Self> {
        let Problem::Conv(p) = call.problem else { return Err(error("the problem is of another family")) };
        let floats = |i: usize| input(call.inputs, i).map(|v| v.slice::<f32>());
        let weights = match call.packed {
            Some(packed) => Cow::Borrowed(bytemuck::cast_slice(packed.parts[0].bytes())),
            None => Cow::Owned(panels(isa, p, &lowered(p, floats(p.w_at)?))),
        };
        let epilogue = Epilogue::new(p, call.inputs)?;
        Ok(Operands { isa, p, x: floats(p.x_at)?, weights, bias: p.b_at.map(floats).transpose()?, epilogue })
    }

    /// Takes a piece's sums, bias included, to its stored elements: through the epilogue, if there is one.
    pub fn finish<E: Pod>(&self, place: &Place, sums: &mut [f32], out: &mut [E]) {
        match &self.epilogue {
            Some(e) => e.row(place, sums, bytemuck::cast_slice_mut(out)),
            None => bytemuck::cast_slice_mut(out).copy_from_slice(sums),
        }
    }

    /// The bias of output channel `m`.
    pub fn bias_of(&self, m: usize) -> f32 {
        self.bias.map_or(0.0, |b| b[m])
    }
}
