//! What the pool asks of a device: memory in slabs or by mapping, and streams of work with sequence numbers.
//!
//! Two capabilities stand behind one trait. Every provider gives slabs ([`Provider::allocate`]); one that also manages
//! virtual memory (CUDA driver API, cuMemAddressReserve and its kin) answers [`Provider::mapping`], and the pool then uses that alone.

pub mod host;
pub mod software;
pub mod virtual_device;

use std::time::Duration;

use crate::error::Result;

/// A stream: work on one happens in the order of submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StreamId(pub u16);

/// Physical memory of [`Mapping::create`] (CUmemGenericAllocationHandle).
pub type Handle = u64;

/// A device's memory and streams. Addresses are opaque to the pool, but consecutive bytes have consecutive addresses.
pub trait Provider: Send + Sync {
    /// What to call the device in errors.
    fn name(&self) -> &str;

    /// Bytes that the device has in all.
    fn capacity_bytes(&self) -> u64;

    /// A slab aligned to 256 bytes. Errors with [`crate::Error::OutOfMemory`].
    fn allocate(&self, bytes: u64) -> Result<u64>;

    /// Gives a slab back; no work uses it any more.
    fn free(&self, address: u64, bytes: u64);

    /// The largest slab it gives.
    fn largest_slab_bytes(&self) -> u64 {
        self.capacity_bytes()
    }

    /// Virtual memory management, where the device has it.
    fn mapping(&self) -> Option<&dyn Mapping> {
        None
    }

    /// Its streams.
    fn streams(&self) -> &dyn Streams;

    /// Copies between two ranges that do not overlap, in the order of `stream`.
    fn copy(&self, stream: StreamId, from: u64, to: u64, bytes: u64) -> Result<()>;
}

/// Virtual memory management. Calls happen at once, not in the order of a stream: the pool unmaps only what no work uses.
/// Addresses and sizes are multiples of the granularity.
pub trait Mapping: Send + Sync {
    /// The smallest handle (cuMemGetAllocationGranularity; 2 MiB on today's GPUs). A power of two.
    fn granularity_bytes(&self) -> u64;

    /// Reserves addresses without memory behind them (cuMemAddressReserve).
    fn reserve(&self, bytes: u64) -> Result<u64>;

    /// Gives addresses back, with nothing mapped (cuMemAddressFree).
    fn unreserve(&self, address: u64, bytes: u64);

    /// Physical memory (cuMemCreate); a handle is never split. Errors with [`crate::Error::OutOfMemory`].
    fn create(&self, bytes: u64) -> Result<Handle>;

    /// Puts the whole of a handle at an address (cuMemMap).
    fn map(&self, address: u64, bytes: u64, handle: Handle) -> Result<()>;

    /// Makes a mapped range, of one or many handles, readable and writable (cuMemSetAccess).
    fn set_access(&self, address: u64, bytes: u64) -> Result<()>;

    /// Takes a range of whole handles out of the address space (cuMemUnmap). No work uses it any more.
    fn unmap(&self, address: u64, bytes: u64) -> Result<()>;

    /// Gives physical memory that is not mapped back (cuMemRelease).
    fn release(&self, handle: Handle, bytes: u64);
}

/// Streams whose marks are numbered 1, 2, 3 ... each.
pub trait Streams: Send + Sync {
    /// Puts a mark behind all work submitted to `stream` so far; its sequence number.
    fn mark(&self, stream: StreamId) -> Result<u64>;

    /// The last mark that all work before is done of; cheap (no driver call where it can be read from memory).
    fn completed(&self, stream: StreamId) -> u64;

    /// Lets later work of `stream` start only after mark `seq` of `other`; the host does not wait (cuStreamWaitEvent).
    fn wait(&self, stream: StreamId, other: StreamId, seq: u64) -> Result<()>;

    /// Blocks the host until mark `seq` of `stream` is done, at most `timeout`; whether it is.
    fn wait_host(&self, stream: StreamId, seq: u64, timeout: Duration) -> Result<bool>;
}
