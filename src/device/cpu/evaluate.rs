//! Runs one problem at once on known tensors: constant folding and shape arithmetic.

use super::Call;
use super::device::find;
use crate::base::{AlignedBytes, Tensor};
use crate::error::{Error, Result};
use crate::graph::{Problem, Type};
use crate::hardware::DeviceInfo;
use crate::kernel::choose;

/// The problem's outputs for known inputs.
pub fn evaluate(info: &DeviceInfo, problem: &Problem, inputs: &[Option<Tensor>], outputs: &[Type]) -> Result<Vec<Tensor>> {
    let choice = choose(info, problem, None)
        .map_err(|why| Error::Unsupported { at: format!("{:?}", problem.family()), why: why.to_string() })?;
    let code = find(choice.kernel.name)?.code;
    let packed = code.pack(problem, inputs)?;
    let aligned: Vec<Option<Tensor>> = inputs.iter().map(|t| t.as_ref().map(Tensor::aligned)).collect();
    let views: Vec<_> = aligned.iter().map(|t| t.as_ref().map(Tensor::view)).collect();
    let mut results = outputs.iter().map(|t| Tensor::zeros(t.dtype, t.shape.clone())).collect::<Result<Vec<_>>>()?;
    {
        let mut written: Vec<_> = results.iter_mut().map(|t| Some(t.view_mut())).collect();
        let mut scratch = AlignedBytes::zeroed(code.scratch_bytes(problem, info));
        let packed = packed.as_ref().map(|(p, _)| p);
        code.run(&mut Call { problem, packed, ahead: &[], inputs: &views, outputs: &mut written, scratch: &mut scratch })?;
    }
    Ok(results)
}
