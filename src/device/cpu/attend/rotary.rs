//! Vector rotary embedding: heads of tokens are rows, shared between threads; f16 and bf16 are computed as f32.

use super::reference::angle;
use crate::device::cpu::Call;
use crate::device::cpu::isa::{Isa, Work};
use crate::device::cpu::rows::each;
use crate::device::cpu::widen::to_f32;
use crate::error::{Error, Result};
use crate::graph::problem::attend::{HeadLayout, Rotary};

pub(super) fn run(isa: Isa, p: &Rotary, call: &mut Call) -> Result<()> {
    let view = |i: usize| call.inputs.get(i).and_then(|v| v.as_ref());
    let given = |i: usize| view(i).ok_or_else(|| Error::BadInput(format!("rotary embedding without input {i}")));
    let table = |i: usize| given(i).map(|v| to_f32(v, 0, v.numel()));
    let (x, cos, sin) = (given(0)?, table(1)?, table(2)?);
    let ids = view(3).filter(|_| p.ids).map(|v| v.slice::<i64>());
    let angles = (0..p.batch * p.tokens).map(|n| angle(p, ids, n)).collect::<Result<Vec<_>>>()?;
    let Some(Some(y)) = call.outputs.first_mut() else { return Ok(()) };
    let (angles, cos, sin) = (&angles[..], &cos[..], &sin[..]);
    each(x, y, [p.head_size; 2], |first, x, y| isa.run(Rotate { p, first, x, y, angles, cos, sin }));
    Ok(())
}

/// Rows from `first` on.
struct Rotate<'a> {
    p: &'a Rotary,
    first: usize,
    x: &'a [f32],
    y: &'a mut [f32],
    /// First element of each token's angles.
    angles: &'a [usize],
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Work for Rotate<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let p = self.p;
        let rows = self.x.chunks_exact(p.head_size).zip(self.y.chunks_exact_mut(p.head_size));
        for (row, (x, y)) in (self.first..).zip(rows) {
            let token = match p.layout {
                HeadLayout::HeadsFirst => row / (p.heads * p.tokens) * p.tokens + row % p.tokens,
                HeadLayout::TokensFirst => row / p.heads,
            };
            let (at, half) = (self.angles[token], p.rotated / 2);
            let angles = self.cos[at..][..half].iter().zip(&self.sin[at..][..half]);
            let ((x, rest), (y, y_rest)) = (x.split_at(p.rotated), y.split_at_mut(p.rotated));
            y_rest.copy_from_slice(rest);
            if p.interleaved {
                let pairs = x.as_chunks::<2>().0.iter().zip(y.as_chunks_mut::<2>().0);
                pairs.zip(angles).for_each(|((&[a, b], y), (&c, &s))| *y = [c * a - s * b, s * a + c * b]);
            } else {
                let ((a, b), (y_a, y_b)) = (x.split_at(half), y.split_at_mut(half));
                let pairs = a.iter().zip(b).zip(y_a.iter_mut().zip(y_b));
                pairs.zip(angles).for_each(|(((a, b), y), (c, s))| (*y.0, *y.1) = (c * a - s * b, s * a + c * b));
            }
        }
    }
}
