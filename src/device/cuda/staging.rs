//! Copies through two pinned buffers, so that the driver need not wait for the caller's pageable memory.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;

use cudarc::driver::sys;

use super::context::Context;
use super::event::Event;
use crate::error::Result;

/// Bytes of one buffer.
pub const CHUNK_BYTES: usize = 4 << 20;

/// Pinned memory and the event after its last use.
struct Buffer {
    context: Arc<Context>,
    memory: *mut u8,
    used: Event,
}

// SAFETY: the memory is the buffer's own.
unsafe impl Send for Buffer {}

/// Two buffers, in turn.
pub struct Staging([Buffer; 2]);

impl Buffer {
    fn new(context: &Arc<Context>) -> Result<Buffer> {
        let used = Event::new(context)?;
        let mut memory: *mut c_void = null_mut();
        // SAFETY: the driver writes one pointer.
        let answer = unsafe { sys::cuMemHostAlloc(&mut memory, CHUNK_BYTES, 0) };
        // What is short here is the host's memory.
        context.faults.check("cuMemHostAlloc", answer)?;
        Ok(Buffer { context: context.clone(), memory: memory.cast(), used })
    }

    /// Puts a copy to the device into the stream; the bytes may be changed as soon as this returns.
    fn send(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.used.wait()?;
        // SAFETY: at most CHUNK_BYTES, and no copy from the buffer is under way.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.memory, bytes.len()) };
        // SAFETY: the buffer is not touched before `used` has passed; the device's range is the caller's.
        let answer = unsafe { sys::cuMemcpyHtoDAsync_v2(address, self.memory.cast(), bytes.len(), self.context.stream()) };
        self.context.faults.check("cuMemcpyHtoDAsync", answer)?;
        self.used.record()
    }

    /// Puts a copy from the device into the stream.
    fn ask(&self, address: u64, bytes: usize) -> Result<()> {
        self.used.wait()?;
        // SAFETY: at most CHUNK_BYTES, and no copy with the buffer is under way; the device's range is the caller's.
        let answer = unsafe { sys::cuMemcpyDtoHAsync_v2(self.memory.cast(), address, bytes, self.context.stream()) };
        self.context.faults.check("cuMemcpyDtoHAsync", answer)?;
        self.used.record()
    }

    /// Takes what was asked for.
    fn take(&self, bytes: &mut [u8]) -> Result<()> {
        self.used.wait()?;
        // SAFETY: the copy of so many bytes into the buffer is done.
        unsafe { std::ptr::copy_nonoverlapping(self.memory, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.context.give_back(|| {
            // SAFETY: waited for, so that no copy is under way.
            unsafe {
                sys::cuStreamSynchronize(self.context.stream());
                sys::cuMemFreeHost(self.memory.cast());
            }
        });
    }
}

impl Staging {
    /// Takes the pinned memory.
    pub fn new(context: &Arc<Context>) -> Result<Staging> {
        Ok(Staging([Buffer::new(context)?, Buffer::new(context)?]))
    }

    /// Host to device, in the stream's order.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let chunks = bytes.chunks(CHUNK_BYTES).enumerate();
        chunks.into_iter().try_for_each(|(i, chunk)| self.0[i % 2].send(address + (i * CHUNK_BYTES) as u64, chunk))
    }

    /// Device to host, after all that came before; one chunk is copied out while the next one comes.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        let count = bytes.len().div_ceil(CHUNK_BYTES);
        let size = |i: usize| CHUNK_BYTES.min(bytes.len() - i * CHUNK_BYTES);
        let sizes: Vec<usize> = (0..count).map(size).collect();
        for i in 0..=count {
            if i < count {
                self.0[i % 2].ask(address + (i * CHUNK_BYTES) as u64, sizes[i])?;
            }
            if let Some(last) = i.checked_sub(1) {
                let from = last * CHUNK_BYTES;
                self.0[last % 2].take(&mut bytes[from..from + sizes[last]])?;
            }
        }
        Ok(())
    }
}
