//! What is to be placed, and whether an answer is right.

/// A buffer that lives from step `first` to step `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lifetime {
    /// Step that writes it.
    pub first: usize,
    /// Last step that reads it.
    pub last: usize,
    /// Size.
    pub bytes: usize,
}

impl Lifetime {
    /// Whether both are alive at some step.
    pub fn meets(&self, other: &Lifetime) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Whether `offsets` are a placement of `lifetimes`: every buffer on a multiple of `align` and within `bytes`, and no two that are
/// alive together over each other. Knows nothing of how the placement was found; quadratic.
pub fn check(lifetimes: &[Lifetime], offsets: &[usize], align: usize, bytes: usize) -> Result<(), String> {
    if lifetimes.len() != offsets.len() {
        return Err(format!("{} offsets for {} buffers", offsets.len(), lifetimes.len()));
    }
    let end = |i: usize| offsets[i].checked_add(lifetimes[i].bytes);
    for (i, own) in lifetimes.iter().enumerate() {
        if !offsets[i].is_multiple_of(align) || end(i).is_none_or(|end| end > bytes) {
            return Err(format!("buffer {i} at {} is misaligned or outside of {bytes} bytes", offsets[i]));
        }
        let over = |j: &usize| own.meets(&lifetimes[*j]) && end(*j) > Some(offsets[i]) && end(i) > Some(offsets[*j]);
        if let Some(j) = (0..i).filter(|&j| own.bytes > 0 && lifetimes[j].bytes > 0).find(over) {
            return Err(format!("buffers {j} and {i} overlap"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checker_refuses_overlap_misalignment_and_what_lies_outside() {
        let life = |bytes, first, last| Lifetime { bytes, first, last };
        let all = [life(64, 0, 1), life(64, 1, 2), life(64, 2, 3)];
        assert_eq!(check(&all, &[0, 64, 0], 64, 128), Ok(()));
        assert!(check(&all, &[0, 0, 64], 64, 128).is_err_and(|e| e.contains("overlap")));
        assert!(check(&all, &[0, 32, 128], 64, 256).is_err());
        assert!(check(&all, &[0, 64, 128], 64, 128).is_err());
        assert!(check(&all, &[0, 64, usize::MAX - 63], 64, 128).is_err());
        assert!(check(&all, &[0, 64], 64, 128).is_err());
    }
}
