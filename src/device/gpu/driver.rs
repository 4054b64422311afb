//! What the CUDA device asks of a driver: NVIDIA's own, or one that interprets PTX.

use super::launch::{Element, Module};
use crate::error::{Error, Result};
use crate::memory::provider::Mapping;

/// A tensor map whose address is known.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct ResolvedMap {
    pub address: u64,
    pub element: Element,
    pub dims: Vec<u64>,
    pub strides: Vec<u64>,
    pub extents: Vec<u32>,
    pub swizzle_bytes: u32,
}

/// An argument whose addresses are known.
#[derive(Debug, Clone)]
pub enum Value {
    /// The parameter's bytes.
    Bytes(Vec<u8>),
    /// A tensor map.
    Map(ResolvedMap),
}

/// A launch whose addresses are known.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Resolved<'a> {
    pub module: &'a Module,
    pub grid: [u32; 3],
    pub values: &'a [Value],
}

/// Launches captured once.
pub trait Graph: Send + Sync {
    /// Launches all of them again, at the addresses that they had.
    fn replay(&self) -> Result<()>;
}

/// Memory, modules and launches of one device. Launches and copies happen in the order of the calls.
pub trait Driver: Send + Sync + 'static {
    /// A loaded module.
    type Function: Clone + Send + Sync;
    /// A point in the order of launches.
    type Event: Send;

    /// Whether the device is gone for good.
    fn is_lost(&self) -> bool {
        false
    }
    /// Whether blocks of a pool may share an allocation: not where each is watched by itself.
    fn is_pooled(&self) -> bool {
        true
    }
    /// Bytes of an allocation at most.
    fn largest_allocation_bytes(&self) -> u64 {
        u64::MAX
    }
    /// Memory, aligned to 256 bytes, contents undefined. Errors with [`Error::OutOfMemory`].
    fn allocate(&self, bytes: usize) -> Result<u64>;
    /// Gives it back.
    fn free(&self, address: u64);
    /// Virtual memory management; where there is some, pools take all memory by it.
    fn mapping(&self) -> Option<&dyn Mapping> {
        None
    }
    /// Device to device, between ranges that do not overlap.
    fn copy(&self, _from: u64, _to: u64, _bytes: u64) -> Result<()> {
        Err(Error::Unsupported { at: "copy".into(), why: "the driver has none".into() })
    }
    /// Host to device.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<()>;
    /// Device to host, after all that came before.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()>;
    /// Loads a module. Errors with the assembler's words.
    fn load(&self, module: &Module) -> Result<Self::Function>;
    /// Launches.
    fn launch(&self, function: &Self::Function, launch: &Resolved) -> Result<()>;
    /// Launches to be repeated as one; `None` when the driver has no such thing. Nothing is launched yet.
    fn capture(&self, _: &[(&Self::Function, Resolved)]) -> Result<Option<Box<dyn Graph>>> {
        Ok(None)
    }
    /// Marks this point.
    fn event(&self) -> Result<Self::Event>;
    /// Microseconds from one point to another, when both are past.
    fn elapsed_us(&self, from: &Self::Event, to: &Self::Event) -> Result<f64>;
    /// Waits for all that came before.
    fn synchronize(&self) -> Result<()>;
}
