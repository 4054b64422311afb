//! What every device does, and no operator's name among it.

use std::sync::Arc;

use crate::base::tensor::size_bytes;
use crate::base::{Tensor, TensorView, TensorViewMut};
use crate::device::cpu::Packed;
use crate::error::Result;
use crate::graph::{Problem, Type};
use crate::hardware::DeviceInfo;
use crate::kernel::{KernelDef, scalar::in_place};
use crate::memory::{Account, Charge, HostBytes, Pool};

/// Memory reserved on a device.
pub enum Region {
    /// The host's.
    Host(HostBytes),
    /// Somewhere that the host cannot read.
    Opaque {
        /// The device's own name for it.
        handle: u64,
        /// Its size.
        bytes: usize,
    },
}

impl Region {
    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Region::Host(b) => b.len(),
            Region::Opaque { bytes, .. } => *bytes,
        }
    }
}

/// Constants made ready for one kernel, once.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    /// The CPU's packed form.
    pub packed: Option<Packed>,
    /// Inputs that launches no longer need.
    pub dropped: Vec<usize>,
    /// Who pays for the packed form, where launches read it as it lies here.
    pub paid: Option<Arc<Charge>>,
}

/// Where an operand lies during a run.
#[derive(Debug, Clone)]
pub enum Place {
    /// At this byte of the plan's arena.
    Arena(usize),
    /// A constant.
    Constant(Tensor),
    /// An input of the run.
    Input(usize),
    /// An output of the run.
    Output(usize),
}

/// An operand of a command.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Where.
    pub place: Place,
    /// What.
    pub ty: Type,
}

/// One kernel launch.
#[derive(Debug, Clone)]
pub struct Command {
    /// The row of the kernel table.
    pub kernel: &'static KernelDef,
    /// What to compute.
    pub problem: Arc<Problem>,
    /// Constants made ready.
    pub prepared: Option<Arc<Prepared>>,
    /// Operands read.
    pub inputs: Vec<Option<Slot>>,
    /// Operands written.
    pub outputs: Vec<Option<Slot>>,
    /// Scratch: byte of the arena and size.
    pub scratch: (usize, usize),
    /// Predicted time.
    pub cost_us: f64,
}

impl Command {
    /// The input that the output lies on, where the kernel may work in place.
    pub fn in_place(&self) -> Option<usize> {
        let [Some(Slot { place: Place::Arena(at), ty })] = &self.outputs[..] else { return None };
        let bytes = size_bytes(ty.dtype, &ty.shape).ok()?;
        let lies = |s: &Slot| {
            matches!(s.place, Place::Arena(a) if a == *at) && size_bytes(s.ty.dtype, &s.ty.shape).is_ok_and(|b| b == bytes)
        };
        let may = |i: &usize| self.inputs[*i].as_ref().is_some_and(lies) && in_place(self.kernel, &self.problem, *i);
        (0..self.inputs.len()).find(may)
    }
}

/// Launches in order, over one arena.
#[derive(Debug, Clone, Default)]
pub struct CommandList {
    /// The launches.
    pub commands: Vec<Command>,
    /// Size of the arena.
    pub arena_bytes: usize,
}

/// A command list in the device's own form.
pub struct Recorded {
    /// The launches.
    pub list: Arc<CommandList>,
    /// Size of the arena that a run needs here: that of the list, and what the device puts there besides.
    pub arena_bytes: usize,
    /// The device's own name for it.
    pub handle: u64,
}

/// What a run works on.
pub struct Bindings<'a> {
    /// Of at least the recording's arena size.
    pub arena: &'a mut Region,
    /// The run's inputs.
    pub inputs: &'a [TensorView<'a>],
    /// The run's outputs.
    pub outputs: &'a mut [TensorViewMut<'a>],
    /// Whether to time each command.
    pub profile: bool,
}

/// Start and duration of one command, in microseconds since the submission.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct Timing {
    pub start_us: f64,
    pub duration_us: f64,
}

/// Work under way.
pub struct Ticket {
    /// One for each command when profiling, else empty.
    pub timings: Vec<Timing>,
}

/// A device. Shared between threads; every verb takes `&self`.
pub trait Device: Send + Sync {
    /// What it is.
    fn info(&self) -> &DeviceInfo;
    /// Whether it is gone for good: nothing on it will work again, and what it kept is lost.
    fn is_lost(&self) -> bool {
        false
    }
    /// What its memory is taken from.
    fn pools(&self) -> Vec<&Pool>;
    /// Who pays for what this handle takes.
    fn account(&self) -> &Arc<Account>;
    /// Another handle of this device, which pays by an account of its own of at most `limit_bytes` (`u64::MAX` for no limit), below this
    /// handle's: constants and tables by that, arenas of runs by its part `runs`. Constants that several handles use are paid by the first.
    fn tenant(&self, name: &str, limit_bytes: u64) -> Arc<dyn Device>;
    /// The CPU that runs, on copies, what this device has no kernel for; `None` when there is none.
    fn host(&self) -> Option<&DeviceInfo> {
        None
    }
    /// Whether a run does better with the arena of one before: where something on the device holds its address.
    fn keeps_arenas(&self) -> bool {
        true
    }
    /// Takes memory, aligned to 64 bytes at least.
    fn reserve(&self, bytes: usize) -> Result<Region>;
    /// Gives memory back.
    fn release(&self, region: Region);
    /// Host to device.
    fn upload(&self, region: &mut Region, offset: usize, bytes: &[u8]) -> Result<()>;
    /// Device to host.
    fn download(&self, region: &Region, offset: usize, bytes: &mut [u8]) -> Result<()>;
    /// Makes a kernel's constants ready (`None` where an input is not constant). The result may be used with any problem that
    /// differs only in its variable extents: rows, batch, image size.
    fn prepare(&self, kernel: &'static KernelDef, problem: &Problem, constants: &[Option<Tensor>]) -> Result<Prepared>;
    /// Bytes of the arena that one launch needs for itself, beside its operands.
    fn scratch_bytes(&self, kernel: &'static KernelDef, problem: &Problem) -> Result<usize>;
    /// Checks a command list and turns it into the device's own form.
    fn record(&self, list: Arc<CommandList>) -> Result<Recorded>;
    /// Starts a recorded list.
    fn submit(&self, recorded: &Recorded, bindings: Bindings) -> Result<Ticket>;
    /// Waits for it.
    fn wait(&self, ticket: Ticket) -> Result<Vec<Timing>>;
    /// Drops what the device keeps for a recorded list.
    fn forget(&self, _: &Recorded) {}
}
