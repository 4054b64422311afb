//! Memory of this process out of a pool.

use std::sync::Arc;
use std::time::Instant;

use super::arena::Arena;
use super::block::Block;
use super::budget::Account;
use super::options::Options;
use super::pool::Pool;
use super::provider::StreamId;
use super::provider::host::HostMemory;
use super::provider::software::SoftwareStreams;
use crate::error::Result;

/// Addresses beyond any machine's memory: the pool is limited by what the system gives.
const CAPACITY_BYTES: u64 = 1 << 46;

/// A pool of the host's memory.
pub struct HostPool {
    pool: Pool,
    arena: Arena,
}

impl HostPool {
    /// An empty one. Errors when the system refuses.
    pub fn new() -> Result<Self> {
        let memory = HostMemory::new(CAPACITY_BYTES, None, SoftwareStreams::immediate())?;
        let pool = Pool::new(Arc::new(memory), Options::default());
        let arena = pool.arena(pool.account(), StreamId::default());
        Ok(HostPool { pool, arena })
    }

    /// The same memory, charged to `account`.
    pub fn charged_to(&self, account: &Arc<Account>) -> HostPool {
        HostPool { pool: self.pool.clone(), arena: self.pool.arena(account, StreamId::default()) }
    }

    /// `len` bytes, aligned to 256, of any contents. Errors when the system has no more.
    pub fn take(&self, len: usize) -> Result<HostBytes> {
        Ok(HostBytes { block: self.arena.block(len as u64)?, len })
    }

    /// The pool.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Gives idle memory back to the system: see [`Pool::maintain`].
    pub fn maintain(&self) {
        // What cannot be given back stays for later.
        let _ = self.pool.maintain(Instant::now());
    }
}

/// Bytes of this process, given back when dropped.
pub struct HostBytes {
    block: Block,
    len: usize,
}

impl std::ops::Deref for HostBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: a block of `HostMemory` in slabs is memory of this process, mapped and initialised by the system, and ours alone as
        // long as the block lives.
        unsafe { std::slice::from_raw_parts(self.block.address() as *const u8, self.len) }
    }
}

impl std::ops::DerefMut for HostBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else sees it meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.block.address() as *mut u8, self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_their_owners_alone_and_come_back() {
        let pool = HostPool::new().unwrap();
        let (mut a, mut b) = (pool.take(5000).unwrap(), pool.take(1).unwrap());
        a.fill(1);
        b.fill(2);
        assert!(a.len() == 5000 && a.iter().all(|&x| x == 1) && b[..] == [2]);
        drop(a);
        assert_eq!(pool.take(5000).unwrap().len(), 5000);
        assert_eq!(pool.pool().stats().calls.allocate, 1, "one slab for all");
        assert!(pool.take(0).unwrap().is_empty());
        assert!(pool.take(usize::MAX >> 1).is_err());
    }
}
