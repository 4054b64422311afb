//! Pages of one size, for caches of keys and values: up to 64 of them in a block, claimed and released by bits of a word.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::Arena;
use crate::base::lock;
use crate::error::{Error, Result};
use crate::memory::block::Block;
use crate::memory::launch::Launch;

struct Slab {
    block: Block,
    /// A bit for each free page.
    free: AtomicU64,
    all: u64,
}

/// Pages for one stream and account.
pub struct Pages {
    arena: Arena,
    page_bytes: u64,
    /// Pages of a block.
    slab_pages: u32,
    slabs: Mutex<Vec<Arc<Slab>>>,
}

/// A page; free for the next sequence when dropped, which takes one atomic operation.
pub struct Page {
    slab: Arc<Slab>,
    index: u32,
    bytes: u64,
}

impl Pages {
    /// Pages of `page_bytes`, a multiple of 256, `slab_pages` of them (1 to 64) to a block. Errors for other sizes.
    pub fn new(arena: Arena, page_bytes: u64, slab_pages: u32) -> Result<Self> {
        if page_bytes == 0 || !page_bytes.is_multiple_of(256) || !(1..=64).contains(&slab_pages) {
            return Err(Error::BadInput(format!("pages of {page_bytes} bytes, {slab_pages} to a block")));
        }
        Ok(Pages { arena, page_bytes, slab_pages, slabs: Mutex::default() })
    }

    /// A page, of the fullest block that has one. Errors when memory is out.
    pub fn page(&self) -> Result<Page> {
        let mut slabs = lock(&self.slabs);
        let free = |slab: &Arc<Slab>| slab.free.load(Ordering::Acquire).count_ones();
        let fullest = slabs.iter().filter(|s| free(s) > 0).min_by_key(|s| free(s)).cloned();
        let slab = match fullest {
            Some(slab) => slab,
            None => {
                let all = u64::MAX >> (64 - self.slab_pages);
                let block = self.arena.block(self.page_bytes * u64::from(self.slab_pages))?;
                let slab = Arc::new(Slab { block, free: all.into(), all });
                slabs.push(slab.clone());
                slab
            }
        };
        // Only this function takes bits away, under the lock; drops only add some.
        let index = slab.free.load(Ordering::Acquire).trailing_zeros();
        slab.free.fetch_and(!(1 << index), Ordering::AcqRel);
        Ok(Page { slab, index, bytes: self.page_bytes })
    }

    /// Gives blocks without a page in use back, but for `keep` of them.
    pub fn trim(&self, keep: usize) {
        let mut kept = 0;
        lock(&self.slabs).retain(|slab| {
            let used = slab.free.load(Ordering::Acquire) != slab.all;
            kept += usize::from(!used);
            used || kept <= keep
        });
    }

    /// Pages in use, and pages that there are.
    pub fn count(&self) -> (u32, u32) {
        let slabs = lock(&self.slabs);
        let free: u32 = slabs.iter().map(|s| s.free.load(Ordering::Acquire).count_ones()).sum();
        let all = slabs.len() as u32 * self.slab_pages;
        (all - free, all)
    }
}

impl Page {
    /// The page's address for work on the stream of its [`Pages`]. Errors for another stream: pages are reused in stream order.
    pub fn bind<'b>(&'b self, launch: &mut Launch<'b>) -> Result<u64> {
        if launch.stream() != self.slab.block.stream() {
            return Err(Error::BadInput("a page belongs to one stream".into()));
        }
        Ok(launch.bind(&self.slab.block)? + u64::from(self.index) * self.bytes)
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.slab.free.fetch_or(1 << self.index, Ordering::AcqRel);
    }
}
