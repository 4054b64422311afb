//! The code behind a CUDA row of the kernel table.

use std::sync::Arc;

use super::finish::Finish;
use super::launch::{Launch, Pointer};
use crate::base::DType;
use crate::device::cpu::{Packed, call::Pack};
use crate::error::Result;
use crate::graph::problem::EpilogueSpec;
use crate::graph::{Problem, Type};
use crate::hardware::DeviceInfo;

/// What launches are made from.
pub struct Call<'a> {
    /// What to compute.
    pub problem: &'a Problem,
    /// On what.
    pub info: &'a DeviceInfo,
    /// What [`GpuKernel::pack`] gave, if anything.
    pub packed: Option<&'a Packed>,
    /// Types of the inputs: the family's own, then the epilogue's operands. `None` where one is left out or was packed and is
    /// not needed any more.
    pub inputs: &'a [Option<Type>],
    /// Types of the outputs; `None` when nobody wants one.
    pub outputs: &'a [Option<Type>],
}

/// The code of one row of the kernel table.
pub struct GpuKernel {
    /// Name of the row.
    pub name: &'static str,
    /// Rearranges constant inputs on the host: as [`crate::device::cpu::CpuCode::pack`].
    pub pack: Pack,
    /// Scratch bytes of one call, shared by its launches.
    pub scratch_bytes: fn(&Problem, &DeviceInfo) -> usize,
    /// The launches, in order. Pure.
    pub launches: fn(&Call) -> Result<Vec<Launch>>,
}

impl Call<'_> {
    /// The type of input `i`; an error where it is left out.
    pub fn input(&self, i: usize) -> Result<&Type> {
        let missing = || super::device::failed(format!("input {i} of the kernel is missing"));
        self.inputs.get(i).and_then(Option::as_ref).ok_or_else(missing)
    }

    /// The type of output `i`; an error where nobody wants it.
    pub fn output(&self, i: usize) -> Result<&Type> {
        let missing = || super::device::failed(format!("output {i} of the kernel is missing"));
        self.outputs.get(i).and_then(Option::as_ref).ok_or_else(missing)
    }

    /// Completes a launch that stores output 0: through the epilogue, whose operands come after `own` inputs, or converted
    /// from `value`.
    pub fn finish(&self, launch: Launch, value: DType, epilogue: Option<&EpilogueSpec>, own: usize) -> Result<Launch> {
        let finish = Arc::new(Finish::epilogue(epilogue, value, self.output(0)?)?);
        let operands = epilogue.map_or(0, |e| e.operands.len());
        let pointers: Vec<Pointer> = (own..own + operands).map(|i| Pointer::Input(i, 0)).collect();
        Ok(launch.finished(&finish, Pointer::Output(0, 0), &pointers))
    }
}
