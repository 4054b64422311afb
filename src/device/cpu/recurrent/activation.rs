//! Activations of gates in f32: the two usual ones as loops of their own, all others by their formula's steps.

use crate::base::DType;
use crate::error::Result;
use crate::scalar::cpu::math::{exp, tanh};
use crate::scalar::cpu::{Lane, Program};
use crate::scalar::{Formula, Steps, arg};

/// Elements that a formula is run over at a time.
const CHUNK: usize = 256;

/// An activation ready to run.
pub(super) enum Activation {
    Sigmoid,
    Tanh,
    Other(Program),
}

impl Activation {
    /// Of a formula of one argument.
    pub(super) fn new(formula: &Formula) -> Result<Self> {
        Ok(match formula {
            f if *f == arg(0).sigmoid() => Activation::Sigmoid,
            f if *f == arg(0).tanh() => Activation::Tanh,
            f => Activation::Other(Program::new(Steps::compile(f, &[DType::F32], DType::F32)?)),
        })
    }

    /// Applies it to each element.
    #[inline(always)]
    pub(super) fn apply(&self, x: &mut [f32]) {
        match self {
            Activation::Sigmoid => x.iter_mut().for_each(|x| *x = 1.0 / (exp(-*x) + 1.0)),
            Activation::Tanh => x.iter_mut().for_each(|x| *x = tanh(*x)),
            Activation::Other(program) => {
                for x in x.chunks_mut(CHUNK) {
                    let mut copy = [0f32; CHUNK];
                    let copy = &mut copy[..x.len()];
                    copy.copy_from_slice(x);
                    program.run(&[Lane::Slice(bytemuck::cast_slice(copy))], bytemuck::cast_slice_mut(x));
                }
            }
        }
    }
}
