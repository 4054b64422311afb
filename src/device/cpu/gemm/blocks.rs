//! How products are cut into blocks for caches and threads, and the memory blocks are packed in.

use std::cell::RefCell;
use std::sync::OnceLock;

use crate::base::AlignedBytes;
use crate::device::cpu::isa::{Isa, Work};
use crate::device::cpu::share;
use crate::hardware::{Caches, Capabilities};

/// Multiplications and additions below which threads cost more than they give.
pub(super) const PARALLEL_FLOPS: f64 = 1.5e6;
/// Bytes that caches move together.
const LINE: usize = 64;
/// Columns finished together.
pub(super) const SEGMENT: usize = 256;

/// The caches that blocks are made for.
pub(super) fn caches() -> Caches {
    static CACHES: OnceLock<Caches> = OnceLock::new();
    *CACHES.get_or_init(|| {
        let found = crate::hardware::cpu::info(1).caches;
        Caches { l1d_bytes: found.l1d_bytes.max(16 << 10), l2_bytes: found.l2_bytes.max(256 << 10), ..found }
    })
}

/// Runs `f` on `bytes` bytes kept for this thread. `f` may come back here; it then gets new memory.
pub fn with_buffer<R>(
    cell: &'static std::thread::LocalKey<RefCell<AlignedBytes>>,
    bytes: usize,
    f: impl FnOnce(&mut [u8]) -> R,
) -> R {
    let mut buffer = cell.replace(AlignedBytes::zeroed(0));
    if buffer.len() < bytes {
        buffer = AlignedBytes::zeroed(bytes);
    }
    let result = f(&mut buffer[..bytes]);
    cell.replace(buffer);
    result
}

/// # Safety
/// The processor must have the instruction sets named.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn wide_avx512<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// # Safety
/// The processor must have the instruction sets named.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn wide_avx2<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Whether this processor has these instructions.
pub fn present(needs: Capabilities) -> bool {
    static FOUND: OnceLock<Capabilities> = OnceLock::new();
    FOUND.get_or_init(crate::hardware::cpu::capabilities).contains(needs)
}

/// Runs work compiled for the widest vectors of this processor. Long loops in closures are not always compiled for them by [`wide`].
pub fn wide_work<W: Work>(work: W) -> W::Out {
    if present(Capabilities::AVX512) {
        Isa::Avx512.run(work)
    } else if present(Capabilities::AVX2) {
        Isa::Avx2.run(work)
    } else {
        work.run()
    }
}

/// Bytes that are fetched to the second cache in steps, while other work leaves memory idle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead<'a> {
    bytes: &'a [u8],
    step: usize,
}

impl<'a> Ahead<'a> {
    /// In so many steps; of more bytes than a quarter of the cache only the first.
    pub fn new(bytes: &'a [u8], steps: usize) -> Self {
        let bytes = &bytes[..bytes.len().min(caches().l2_bytes / 4)];
        Ahead { bytes, step: bytes.len().div_ceil(steps.max(1)).next_multiple_of(LINE) }
    }

    /// Asks for the bytes of a step.
    #[inline]
    pub fn fetch(&self, step: usize) {
        let Some(rest) = self.bytes.get(step * self.step..) else { return };
        for line in rest[..rest.len().min(self.step)].chunks(LINE) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a hint, to which no address is wrong.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = line;
        }
    }
}

/// Runs plain loops compiled for the widest vectors of this processor.
pub fn wide<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        if present(Capabilities::AVX512) {
            // SAFETY: just seen.
            return unsafe { wide_avx512(f) };
        }
        if present(Capabilities::AVX2) {
            // SAFETY: just seen.
            return unsafe { wide_avx2(f) };
        }
    }
    f()
}

/// How a product is cut: rows of a block, panels of B of a part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub rows: usize,
    pub panels: usize,
}

/// Cuts `m` rows and `panels` panels among threads. `row_bytes` of A are kept in the second cache.
pub(super) fn cut(m: usize, panels: usize, tile_rows: usize, row_bytes: usize, flops: f64) -> Cut {
    let threads = if flops < PARALLEL_FLOPS { 1 } else { rayon::current_num_threads() };
    let fit = (caches().l2_bytes * 5 / 8 / row_bytes.max(1)).clamp(2 * tile_rows, 12 * tile_rows) / tile_rows * tile_rows;
    if m >= 4 * threads * tile_rows {
        // Every thread gets as many blocks, of about the same height.
        let blocks = m.div_ceil(fit).next_multiple_of(threads);
        return Cut { rows: m.div_ceil(blocks), panels: panels.max(1) };
    }
    Cut { rows: fit.min(m.max(1)), panels: panels.div_ceil(threads).max(1) }
}

/// The heights of the row panels that `rows` rows are cut into: as even as can be.
pub fn heights(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.div_ceil(most).max(1);
    let (base, more) = (rows / count, rows % count);
    (0..count).map(move |i| (i * base + i.min(more), base + usize::from(i < more))).filter(|&(_, h)| h > 0)
}

/// The same in multiples of `unit` rows, but for the last.
pub(super) fn heights_of(rows: usize, most: usize, unit: usize) -> impl Iterator<Item = (usize, usize)> {
    heights(rows.div_ceil(unit), most / unit).map(move |(first, h)| (first * unit, (h * unit).min(rows - first * unit)))
}

/// Runs `task(block of rows, part of panels)` over the cut, on all threads when there are several tasks.
pub(super) fn each_task(m: usize, panels: usize, cut: Cut, task: impl Fn(std::ops::Range<usize>, std::ops::Range<usize>) + Sync) {
    let (blocks, parts) = (m.div_ceil(cut.rows), panels.div_ceil(cut.panels));
    let run = |i: usize| {
        let (r, p) = (i / parts * cut.rows, i % parts * cut.panels);
        task(r..(r + cut.rows).min(m), p..(p + cut.panels).min(panels));
    };
    share::each(blocks * parts, 1, run);
}
