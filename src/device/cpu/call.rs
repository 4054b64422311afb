//! How a CPU kernel is called.

use crate::base::{Tensor, TensorView, TensorViewMut};
use crate::error::Result;
use crate::graph::Problem;
use crate::hardware::DeviceInfo;

/// Constants rearranged for one kernel, once, before the first run: panels, column sums, compiled formulas' tables.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    /// In the kernel's own order.
    pub parts: Vec<Tensor>,
}

/// One launch. Kernels use the rayon pool they are called in (`rayon::current_num_threads()`), and none when
/// the work is too small to share.
pub struct Call<'a> {
    /// What to compute.
    pub problem: &'a Problem,
    /// What [`CpuCode::pack`] gave, if anything.
    pub packed: Option<&'a Packed>,
    /// What the next launch with constants of its own reads first, for kernels that leave memory idle in the end.
    pub ahead: &'a [u8],
    /// The family's inputs, then the epilogue's operands. Inputs that were packed and are not needed any more are `None`,
    /// as are optional ones left out, and the one that the output lies on ([`in_place`](crate::kernel::scalar::in_place)). Aligned to 64 bytes unless the caller's own.
    pub inputs: &'a [Option<TensorView<'a>>],
    /// Outputs; `None` when nobody wants one.
    pub outputs: &'a mut [Option<TensorViewMut<'a>>],
    /// As many bytes as [`CpuCode::scratch_bytes`] asked for, aligned to 64, contents undefined.
    pub scratch: &'a mut [u8],
}

/// What [`CpuCode::pack`] gives: the packed form, and the indices of the inputs that [`CpuCode::run`] then no longer needs.
pub type Packing = Option<(Packed, Vec<usize>)>;

/// [`CpuCode::pack`] as a function, for kernels of other devices whose constants are rearranged on the host.
pub type Pack = fn(&Problem, &[Option<Tensor>]) -> Result<Packing>;

/// The [`Pack`] of kernels that rearrange nothing.
pub fn pack_nothing(_: &Problem, _: &[Option<Tensor>]) -> Result<Packing> {
    Ok(None)
}

/// Scratch bytes of kernels that need none.
pub fn no_scratch(_: &Problem, _: &DeviceInfo) -> usize {
    0
}

/// What a kernel does; a function that runs it is all that kernels without constants and scratch need.
pub trait CpuCode: Sync {
    /// Rearranges constant inputs (`None` where an input is not constant); `None` when there is nothing to pack. The packed form
    /// is kept and used with other problems of the same node that differ in their variable extents (rows, batch, image size),
    /// so it must not depend on them. The tensors may lie misaligned in a mapped file: read them by [`Tensor::values`].
    fn pack(&self, _problem: &Problem, _constants: &[Option<Tensor>]) -> Result<Packing> {
        Ok(None)
    }

    /// Scratch bytes of one launch.
    fn scratch_bytes(&self, _problem: &Problem, _info: &DeviceInfo) -> usize {
        0
    }

    /// Computes.
    fn run(&self, call: &mut Call) -> Result<()>;
}

impl<F: Fn(&mut Call) -> Result<()> + Sync> CpuCode for F {
    fn run(&self, call: &mut Call) -> Result<()> {
        self(call)
    }
}

/// The code of one row of the kernel table.
pub struct CpuKernel {
    /// Name of the row.
    pub name: &'static str,
    /// What it does.
    pub code: &'static dyn CpuCode,
}

impl CpuKernel {
    /// The row `name` with its code.
    pub(super) const fn new(name: &'static str, code: &'static dyn CpuCode) -> Self {
        CpuKernel { name, code }
    }
}
