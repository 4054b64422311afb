//! Parts of a block that several own: weights of a model, intermediates of a planned run.

use std::sync::Arc;

use super::Arena;
use crate::error::{Error, Result};
use crate::memory::bins::UNIT;
use crate::memory::block::Block;

/// Some bytes of a block; the block lives as long as any part of it.
#[derive(Debug, Clone)]
pub struct Part {
    block: Arc<Block>,
    offset: u64,
    bytes: u64,
}

impl Part {
    /// `bytes` at `offset` of a block. Errors when they lie outside.
    pub fn of(block: &Arc<Block>, offset: u64, bytes: u64) -> Result<Self> {
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= block.bytes());
        let bad = || Error::BadInput(format!("{bytes} bytes at {offset} of a block of {}", block.bytes()));
        inside.then(|| Part { block: block.clone(), offset, bytes }).ok_or_else(bad)
    }

    /// The block.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// Where it starts in the block.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Constants of a model, one behind the other in as few blocks as their sum takes, so that what is long-lived does not lie
/// scattered among what is not.
pub struct Weights {
    arena: Arena,
    chunk_bytes: u64,
    last: Option<Arc<Block>>,
    filled: u64,
}

impl Weights {
    /// Blocks of `chunk_bytes` or, where a constant is larger, of its size; best the sum of all, each rounded up to 256.
    pub fn new(arena: Arena, chunk_bytes: u64) -> Self {
        Weights { arena, chunk_bytes, last: None, filled: 0 }
    }

    /// Room for the next constant. Errors when memory is out.
    pub fn push(&mut self, bytes: u64) -> Result<Part> {
        let room = |block: &&Arc<Block>| self.filled.saturating_add(bytes) <= block.bytes();
        let block = match self.last.as_ref().filter(room) {
            Some(block) => block.clone(),
            None => {
                let block = Arc::new(self.arena.block(self.chunk_bytes.max(bytes))?);
                self.filled = 0;
                self.last.insert(block).clone()
            }
        };
        let part = Part::of(&block, self.filled, bytes)?;
        self.filled += bytes.max(1).next_multiple_of(UNIT);
        Ok(part)
    }
}
