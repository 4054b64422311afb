//! Owned bytes aligned for every vector load.

/// Where the bytes begin.
const ALIGNMENT: usize = 64;

/// Zero-initialised bytes that start on a 64-byte boundary.
///
/// The boundary is looked for in memory of the allocator's own alignment: asked for 64, allocators leave their fast paths, and those of
/// C libraries set zeros where the system's pages have them already.
pub struct AlignedBytes {
    words: Vec<u128>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let word = size_of::<u128>();
        let lines = len.div_ceil(ALIGNMENT) * ALIGNMENT;
        let words: Vec<u128> = bytemuck::zeroed_vec(if len == 0 { 0 } else { (lines + ALIGNMENT) / word - 1 });
        let start = words.as_ptr().addr().wrapping_neg() % ALIGNMENT;
        AlignedBytes { start: if len == 0 { 0 } else { start }, words, len }
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut new = Self::zeroed(bytes.len());
        new.copy_from_slice(bytes);
        new
    }
}

impl Clone for AlignedBytes {
    fn clone(&self) -> Self {
        Self::copy_of(self)
    }
}

impl std::ops::Deref for AlignedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[self.start..][..self.len]
    }
}

impl std::ops::DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_begin_on_a_boundary_wherever_the_allocator_puts_them() {
        let kept: Vec<AlignedBytes> = (0..300).map(AlignedBytes::zeroed).collect();
        for (len, bytes) in kept.iter().enumerate() {
            assert!(bytes.len() == len && bytes.iter().all(|&b| b == 0));
            assert!(len == 0 || bytes.as_ptr().addr().is_multiple_of(ALIGNMENT));
        }
        let mut one = AlignedBytes::copy_of(&[1, 2, 3]);
        let other = one.clone();
        one[2] = 4;
        assert_eq!((&one[..], &other[..]), (&[1, 2, 4][..], &[1, 2, 3][..]));
        assert!(other.as_ptr().addr().is_multiple_of(ALIGNMENT));
    }
}
