//! Where a command runs: on the plan's device, or on the CPU beside it where the device has no kernel.

use super::work::{Facts, Work};
use crate::base::tensor::size_bytes;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::hardware::DeviceInfo;
use crate::kernel::{Choice, NoKernel, choose, why_dense};

/// Microseconds of a copy between host and device, however small.
const COPY_US: f64 = 10.0;
/// Bytes of a copy in a microsecond: pageable memory over PCIe 3.0 x16.
const COPY_BYTES_PER_US: f64 = 6e3;

/// A work's kernel.
pub struct Placed {
    /// The kernel and its predicted time, copies included.
    pub choice: Choice,
    /// Why the plan's device does not run it; `None` when it does.
    pub fallback: Option<String>,
    /// Why zeros in weights are multiplied, where two in every four are zero; `None` where none are, or there are not so many.
    pub dense: Option<String>,
}

/// The device's cheapest kernel, else that of the CPU beside it. Errors when neither takes the work, or, with `strict`, when the
/// device does not.
pub fn place(device: &dyn Device, work: &Work, facts: &Facts, wanted: Option<&str>, strict: bool) -> Result<Placed> {
    let unsupported = |why: String| Error::Unsupported {
        at: format!("node {} ({})", work.name, work.op),
        why: format!("no kernel takes it: {why}"),
    };
    let refused = match too_large(device.info(), work, facts)? {
        Some(why) => why,
        None => match choose(device.info(), &work.problem, wanted) {
            Ok(choice) => {
                let dense = why_dense(device.info(), &work.problem, choice.kernel, wanted);
                return Ok(Placed { choice, fallback: None, dense });
            }
            Err(refused) => refused.to_string(),
        },
    };
    let host = device.host().filter(|_| !strict).ok_or_else(|| unsupported(refused.clone()))?;
    let mut choice = choose(host, &work.problem, wanted).map_err(|why: NoKernel| unsupported(why.to_string()))?;
    choice.cost_us += copies_us(work, facts)?;
    Ok(Placed { choice, fallback: Some(refused), dense: None })
}

/// Why an operand cannot be given to any kernel of the device, if so.
fn too_large(info: &DeviceInfo, work: &Work, facts: &Facts) -> Result<Option<String>> {
    for fact in work.inputs.iter().chain(&work.outputs).flatten().map(|&f| &facts[f]) {
        let bytes = size_bytes(fact.ty.dtype, &fact.ty.shape)? as u64;
        if bytes > info.operand_bytes {
            return Ok(Some(format!("an operand of {bytes} bytes: {} takes {} in one piece", info.name, info.operand_bytes)));
        }
    }
    Ok(None)
}

/// Predicted time of bringing a work's operands to the host and its results back; constants are there.
fn copies_us(work: &Work, facts: &Facts) -> Result<f64> {
    let moved = work.inputs.iter().chain(&work.outputs).flatten().map(|&f| &facts[f]).filter(|f| f.value.is_none());
    moved.map(|f| Ok(COPY_US + size_bytes(f.ty.dtype, &f.ty.shape)? as f64 / COPY_BYTES_PER_US)).sum()
}
