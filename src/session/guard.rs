//! Looks for NaN and infinity in what a run gives.

use crate::base::{DType, Tensor};
use crate::error::{Error, Result};

/// An error naming the first output that is not finite.
pub(crate) fn check_finite<'a>(outputs: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Result<()> {
    for (name, tensor) in outputs {
        if !finite(tensor) {
            return Err(Error::NonFinite { output: name.into() });
        }
    }
    Ok(())
}

fn finite(tensor: &Tensor) -> bool {
    match tensor.dtype() {
        DType::F32 => tensor.values::<f32>().is_ok_and(|v| v.iter().all(|x| x.is_finite())),
        d if d.is_float() => tensor.to_f64().iter().all(|x| x.is_finite()),
        _ => true,
    }
}
