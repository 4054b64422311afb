//! The loops that a formula's steps become.

use super::joined::Op;
use super::math::Quantizer;
use super::number::Number;
use super::program::{CHUNK, Lane, WHOLE, load};
use crate::base::DType;
use crate::scalar::steps::Step;
use crate::scalar::{Binary, Steps, Unary};

/// Elements `at..at + count` of a run, computed in `n` with those behind the last one, and the registers of the loops done.
pub(super) struct Chunk<'a, T> {
    pub steps: &'a Steps,
    pub args: &'a [Lane<'a>],
    pub at: usize,
    pub count: usize,
    pub n: usize,
    pub before: &'a [T],
    /// The argument of sums that a loop reads where they lie, if there is one.
    pub absorbed: Option<usize>,
    /// Whether a fused multiplication and addition is an instruction.
    pub is_fused: bool,
}

impl<'a, T: Number> Chunk<'a, T> {
    /// An argument's elements, where they are stored as they are computed with, and as many.
    #[inline(always)]
    fn stored(&self, arg: usize) -> Option<&'a [T]> {
        match self.args[arg] {
            Lane::Slice(bytes) if self.steps.args[arg] == T::DTYPE && self.count == self.n => {
                Some(&bytemuck::cast_slice(bytes)[self.at..self.at + self.n])
            }
            _ => None,
        }
    }

    /// What step `i` gave; its register is in `own` or before it.
    #[inline(always)]
    pub fn value<'s>(&'s self, i: usize, own: &'s [T]) -> &'s [T] {
        match self.steps.steps[i] {
            Step::Arg(a) => self.stored(a).unwrap_or(&own[..self.n]),
            _ => &own[..self.n],
        }
    }

    #[inline(always)]
    fn register(&self, i: usize) -> &[T] {
        self.value(i, &self.before[i * CHUNK..])
    }

    /// What steps gave that give the same for all elements.
    #[inline(always)]
    fn splats<const N: usize>(&self, steps: [usize; N]) -> Option<[T; N]> {
        let is_splat = |&i: &usize| is_splat(self.steps, self.args, i);
        steps.iter().all(is_splat).then(|| steps.map(|i| self.before[i * CHUNK]))
    }

    /// Sums that are read where they lie, with what is added to each.
    #[inline(always)]
    fn sums(&self, i: usize) -> Option<(&'a [i32], i32)> {
        match self.steps.steps[i] {
            Step::Arg(a) if self.absorbed == Some(a) && self.count == self.n => match self.args[a] {
                Lane::Sums(sums, add) => Some((&sums[self.at..self.at + self.n], add)),
                _ => None,
            },
            _ => None,
        }
    }

    /// A loop over what several steps gave. Numbers that are the same for all elements stay in registers of the processor.
    #[inline(always)]
    fn zip<const N: usize>(&self, first: usize, rest: [usize; N], out: &mut [T], f: impl Fn(T, [T; N]) -> T) {
        if let Some(splats) = self.splats(rest) {
            return match self.sums(first) {
                Some((sums, add)) => out.iter_mut().zip(sums).for_each(|(o, &s)| *o = f(sum(s, add), splats)),
                None => out.iter_mut().zip(self.register(first)).for_each(|(o, &x)| *o = f(x, splats)),
            };
        }
        // Whole vectors of a length that the compiler knows: it checks nothing within them and leaves none to a loop of single elements.
        let (first, rest) = (self.register(first).as_chunks::<WHOLE>().0, rest.map(|i| self.register(i).as_chunks::<WHOLE>().0));
        for (at, out) in out.as_chunks_mut::<WHOLE>().0.iter_mut().enumerate() {
            let (first, rest) = (&first[at], rest.map(|of| &of[at]));
            for i in 0..WHOLE {
                out[i] = f(first[i], rest.map(|of| of[i]));
            }
        }
    }

    /// The bytes of a quantisation to a type of one byte, where they are had without dividing: then `true`. Whole vectors that are more
    /// than `out` go to `room` first.
    #[inline(always)]
    pub fn bytes(&self, op: Op, room: &mut [u8], out: &mut [u8]) -> bool {
        let Op::Quantize([a, rest @ ..]) = op else { return false };
        let Some(quantizer) = self.quantizer(rest) else { return false };
        let is_whole = self.count == self.n;
        let to = if is_whole { &mut *out } else { &mut room[..self.n] };
        let from: &[f32] = bytemuck::cast_slice(self.register(a));
        apart(quantizer, from, to);
        if !is_whole {
            out.copy_from_slice(&room[..self.count]);
        }
        true
    }

    fn quantizer(&self, rest: [usize; 4]) -> Option<Quantizer> {
        let [scale, zero, low, high] = self.splats(rest).filter(|_| self.is_fused && T::DTYPE == DType::F32)?.map(T::to_f64);
        let range = match self.steps.out {
            DType::I8 => -128.0..=127.0,
            DType::U8 => 0.0..=255.0,
            _ => return None,
        };
        let is_inside = range.contains(&low) && range.contains(&high);
        Quantizer::new(scale as f32, zero, low, high).filter(|_| is_inside)
    }
}

/// Whether step `i` gives the same for all elements.
pub(super) fn is_splat(steps: &Steps, args: &[Lane], i: usize) -> bool {
    match steps.steps[i] {
        Step::Constant(_) => true,
        Step::Arg(a) => matches!(args[a], Lane::Splat(_)),
        _ => false,
    }
}

/// Whether `x + offset` between two bounds meets neither NaN in these nor a zero of another sign than theirs, so that [`between`] has the bits
/// of the largest and the smallest: a sum with what is not zero is no -0.
fn is_plain<T: Number>(offset: T, low: T, high: T) -> bool {
    let [offset, low, high] = [offset, low, high].map(T::to_f64);
    offset != 0.0 && !low.is_nan() && low.to_bits() != (-0.0f64).to_bits() && !high.is_nan() && high != 0.0
}

/// `min(max(x, low), high)`, NaN where `x` is: two instructions, which give their second operand where one is NaN.
#[inline(always)]
fn between<T: Number>(x: T, low: T, high: T) -> T {
    let least = if low > x { low } else { x };
    if high < least { high } else { least }
}

/// An integer sum as a number.
#[inline(always)]
pub(super) fn sum<T: Number>(sum: i32, add: i32) -> T {
    T::from_i64(sum.wrapping_add(add).into())
}

/// What a loop of its own does to each element. Implementations mark `of` `#[inline(always)]`, so that it is compiled within the
/// instruction set's function: closures were not always.
trait Each<A, B>: Copy {
    fn of(self, x: A) -> B;
}

/// Runs a loop as a function of its own, compiled for the widest vectors of this processor, which has the processor's registers to itself:
/// within `program::run_avx512`, among all other loops, more than half of a loop's instructions moved registers about.
fn apart<A: Copy, B>(each: impl Each<A, B>, x: &[A], out: &mut [B]) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") && is_x86_feature_detected!("avx512vl") {
            // SAFETY: the processor has these instruction sets.
            return unsafe { apart_avx512(each, x, out) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has these instruction sets.
            return unsafe { apart_avx2(each, x, out) };
        }
    }
    out.iter_mut().zip(x).for_each(|(o, &x)| *o = each.of(x));
}

/// # Safety
/// The processor must have the instruction sets named.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,fma")]
unsafe fn apart_avx512<A: Copy, B>(each: impl Each<A, B>, x: &[A], out: &mut [B]) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = each.of(x);
    }
}

/// # Safety
/// The processor must have the instruction sets named.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
unsafe fn apart_avx2<A: Copy, B>(each: impl Each<A, B>, x: &[A], out: &mut [B]) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = each.of(x);
    }
}

impl Each<f32, u8> for Quantizer {
    #[inline(always)]
    fn of(self, x: f32) -> u8 {
        self.integer(x) as u8
    }
}

/// `x * between(x * slope + offset, low, high)`.
#[derive(Clone, Copy)]
struct Gate<T>([T; 4]);

impl<T: Number> Each<T, T> for Gate<T> {
    #[inline(always)]
    fn of(self, x: T) -> T {
        let Gate([slope, offset, low, high]) = self;
        let line = T::binary(Binary::Add, T::binary(Binary::Mul, x, slope), offset);
        T::binary(Binary::Mul, x, between(line, low, high))
    }
}

/// `x * half * (erf(x * slope) + one)`.
#[derive(Clone, Copy)]
struct Gelu<T>([T; 3]);

impl<T: Number> Each<T, T> for Gelu<T> {
    #[inline(always)]
    fn of(self, x: T) -> T {
        let Gelu([half, slope, one]) = self;
        let share = T::binary(Binary::Add, T::unary(Unary::Erf, T::binary(Binary::Mul, x, slope)), one);
        T::binary(Binary::Mul, T::binary(Binary::Mul, x, half), share)
    }
}

/// Gives what a loop gives.
#[inline(always)]
pub(super) fn one_loop<T: Number>(chunk: &Chunk<T>, op: Op, out: &mut [T]) {
    use Binary::{Add, Div, Max, Min, Mul};
    let clip = |x, low, high| T::binary(Min, T::binary(Max, x, low), high);
    match op {
        Op::One(step) => one_step(chunk, step, out),
        Op::MulAdd([a, b, c]) => chunk.zip(a, [b, c], out, |a, [b, c]| T::binary(Add, T::binary(Mul, a, b), c)),
        Op::Clip([a, low, high]) => chunk.zip(a, [low, high], out, |a, [low, high]| clip(a, low, high)),
        Op::Gate([x, slope, offset, low, high]) => {
            let rest = [slope, offset, low, high];
            if let Some(rest) = chunk.splats(rest).filter(|&[_, offset, low, high]| is_plain(offset, low, high)) {
                return apart(Gate(rest), chunk.register(x), out);
            }
            chunk.zip(x, rest, out, |x, [slope, offset, low, high]| {
                let line = T::binary(Add, T::binary(Mul, x, slope), offset);
                T::binary(Mul, x, clip(line, low, high))
            })
        }
        Op::Gelu([x, rest @ ..]) => match chunk.splats(rest) {
            Some(rest) => apart(Gelu(rest), chunk.register(x), out),
            None => chunk.zip(x, rest, out, |x, rest| Gelu(rest).of(x)),
        },
        Op::Quantize([a, rest @ ..]) => chunk.zip(a, rest, out, |a, [scale, zero, low, high]| {
            clip(T::binary(Add, T::unary(Unary::Round, T::binary(Div, a, scale)), zero), low, high)
        }),
    }
}

#[inline(always)]
fn one_step<T: Number>(chunk: &Chunk<T>, step: Step, out: &mut [T]) {
    let register = |i: usize| chunk.register(i);
    match step {
        Step::Constant(_) => {}
        Step::Arg(a) => {
            let (dtype, all) = (chunk.steps.args[a], chunk.at..chunk.at + chunk.count);
            match chunk.args[a] {
                Lane::Slice(bytes) if chunk.stored(a).is_none() => {
                    let size = dtype.size_bytes();
                    load(dtype, &bytes[all.start * size..all.end * size], out);
                }
                Lane::Sums(sums, add) if chunk.absorbed != Some(a) || chunk.count < chunk.n => {
                    out.iter_mut().zip(&sums[all]).for_each(|(o, &s)| *o = sum(s, add));
                }
                _ => {}
            }
        }
        Step::Unary(op, a) => unary(op, register(a), out),
        Step::Binary(op, a, b) => binary(op, register(a), register(b), out),
        Step::Select(c, a, b) => {
            let (c, a, b) = (register(c), register(a), register(b));
            for (i, o) in out.iter_mut().enumerate() {
                *o = if c[i].is_true() { a[i] } else { b[i] };
            }
        }
        Step::Cast(d, a) => {
            for (o, &x) in out.iter_mut().zip(register(a)) {
                *o = T::cast(d, x);
            }
        }
    }
}

/// A loop for each operation, so that each becomes vector code of its own.
macro_rules! loops {
    ($op:expr, [$($name:path),*], $out:expr, |$o:ident, $i:ident| $value:expr) => {
        match $op {
            $($name => { let $o = $name; for $i in 0..$out.len() { $out[$i] = $value; } })*
            $o => for $i in 0..$out.len() { $out[$i] = $value; },
        }
    };
}

#[inline(always)]
fn unary<T: Number>(op: Unary, a: &[T], out: &mut [T]) {
    use Unary::*;
    let a = &a[..out.len()];
    loops!(op, [Neg, Abs, Exp, Log, Sqrt, Erf, Tanh, Floor, Ceil, Round, Trunc, Not], out, |op, i| T::unary(op, a[i]));
}

#[inline(always)]
fn binary<T: Number>(op: Binary, a: &[T], b: &[T], out: &mut [T]) {
    use Binary::*;
    let (a, b) = (&a[..out.len()], &b[..out.len()]);
    loops!(op, [Add, Sub, Mul, Div, Min, Max, Less, LessEqual, Equal, And, Or], out, |op, i| T::binary(op, a[i], b[i]));
}
