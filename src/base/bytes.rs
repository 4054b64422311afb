//! Owned bytes aligned for every vector load.

/// One 64-byte line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

// SAFETY: 64 bytes with an alignment of 64: no padding, and every bit pattern (all zeros too) is valid.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above, and `Copy + 'static`.
unsafe impl bytemuck::Pod for Line {}

/// Zero-initialised bytes that start on a 64-byte boundary.
#[derive(Clone)]
pub struct AlignedBytes {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedBytes {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        AlignedBytes { lines: bytemuck::zeroed_vec(len.div_ceil(64)), len }
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut new = Self::zeroed(bytes.len());
        new.copy_from_slice(bytes);
        new
    }
}

impl std::ops::Deref for AlignedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl std::ops::DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}
