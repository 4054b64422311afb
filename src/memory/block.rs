//! Owned memory: raw blocks and typed buffers. Dropping one neither blocks nor panics.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;

use bytemuck::Pod;

use super::provider::StreamId;
use super::span::Span;

/// Bytes of a device, given back to their arena when dropped. The address is told only to a [`super::Launch`].
pub struct Block {
    span: ManuallyDrop<Box<Span>>,
    bytes: u64,
}

impl Block {
    pub(super) fn new(span: Box<Span>, bytes: u64) -> Self {
        Block { span: ManuallyDrop::new(span), bytes }
    }

    /// Bytes that were asked for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it lies, for what is not work on a stream: tables of addresses, tests. Work that reads or writes it is to be
    /// recorded by [`super::Launch::bind`], or the block may be another's before the work is done.
    pub fn address(&self) -> u64 {
        self.span.address
    }

    /// The stream that it was allocated for.
    pub fn stream(&self) -> StreamId {
        self.span.lane.stream
    }

    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// This block as `len` elements. Errors with the block when they do not fit.
    pub fn typed<T: Pod>(self, len: usize) -> Result<Buffer<T>, Self> {
        match (len as u64).checked_mul(size_of::<T>() as u64) {
            Some(bytes) if bytes <= self.bytes => Ok(Buffer { block: self, len, element: PhantomData }),
            _ => Err(self),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: taken once, here.
        let span = unsafe { ManuallyDrop::take(&mut self.span) };
        span.give_back();
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Block({} bytes at {:#x})", self.bytes, self.span.address)
    }
}

/// `len` elements of a device.
#[derive(Debug)]
pub struct Buffer<T: Pod> {
    block: Block,
    len: usize,
    element: PhantomData<fn() -> T>,
}

impl<T: Pod> Buffer<T> {
    /// Elements.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes underneath.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// The bytes underneath, untyped.
    pub fn into_block(self) -> Block {
        self.block
    }
}
