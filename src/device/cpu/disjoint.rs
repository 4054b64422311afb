//! A slice written by several threads.

use std::marker::PhantomData;

/// A slice that several threads write disjoint parts of.
pub(super) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    of: PhantomData<&'a mut [T]>,
}

// SAFETY: the only way to the elements is `part`, whose callers keep parts disjoint.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}
// SAFETY: it stands for an exclusive borrow.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Takes over `slice`.
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Disjoint { start: slice.as_mut_ptr(), len: slice.len(), of: PhantomData }
    }

    /// Elements `at..at + len`.
    ///
    /// # Safety
    /// While the part is in use, no other part that overlaps it is.
    ///
    /// # Panics
    /// When the part does not lie in the slice.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn part(&self, at: usize, len: usize) -> &mut [T] {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len), "a part lies outside its slice");
        // SAFETY: in bounds of the exclusive borrow that `self` stands for; disjoint by the caller's contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}
