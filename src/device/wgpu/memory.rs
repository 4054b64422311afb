//! Buffers under addresses: the number of a buffer in the upper bits, a byte of it in the lower ones.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::lock;

/// Bits of an address that count bytes: buffers of up to 1 TiB.
const BYTE_BITS: u32 = 40;

/// A device's buffers.
#[derive(Default)]
pub struct Memory {
    buffers: Mutex<HashMap<u64, wgpu::Buffer>>,
    made: AtomicU64,
}

impl Memory {
    /// Keeps a buffer; its address.
    pub fn keep(&self, buffer: wgpu::Buffer) -> u64 {
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.buffers).insert(number, buffer);
        number << BYTE_BITS
    }

    /// Gives a buffer back.
    pub fn free(&self, address: u64) {
        lock(&self.buffers).remove(&(address >> BYTE_BITS));
    }

    /// The buffer and the byte in it that an address means.
    pub fn at(&self, address: u64) -> Option<(wgpu::Buffer, u64)> {
        let buffer = lock(&self.buffers).get(&(address >> BYTE_BITS)).cloned()?;
        Some((buffer, address & ((1 << BYTE_BITS) - 1)))
    }
}
