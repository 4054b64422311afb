//! What is done with each value of a kernel before it is stored, and to which element of the output and of other operands it belongs.

use super::divide::magic;
use super::launch::{Arg, Pointer};
use crate::base::DType;
use crate::base::Shape;
use crate::error::{Error, Result};
use crate::graph::Type;
use crate::graph::problem::EpilogueSpec;
use crate::scalar::{Formula, Steps, arg};

/// Operands of one formula at most.
pub const OPERANDS: usize = 8;
/// Axes at most, after neighbouring ones that all operands run through evenly are taken together.
pub const AXES: usize = 6;
/// Where the operands' addresses, the axes and the steps lie in the kernel's parameter `finish`, after the output's address.
pub const OPERANDS_AT: usize = 8;
/// Size, multiplier and shift of each axis, innermost last.
pub const AXES_AT: usize = OPERANDS_AT + OPERANDS * 8;
/// Elements from one index of an axis to the next, for each operand.
pub const STEPS_AT: usize = AXES_AT + AXES * 12;
/// Size of the parameter: what kernels/render.rs declares.
pub const BYTES: usize = STEPS_AT + OPERANDS * AXES * 4;
const _: () = assert!(BYTES == 336);
/// Bytes that a thread loads or stores at once.
const RUN: usize = 16;
/// Steps of a formula over all elements of a vector at most: texts beyond that are slow to load.
const STEPS: usize = 256;

/// How an operand is indexed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Indexing {
    /// As the output.
    Same,
    /// It has one element.
    One,
    /// By coordinates: which axes it runs along.
    Axes(Vec<bool>),
}

impl Indexing {
    /// Whether the operand's elements follow each other along a vector; else it has one for all of it.
    pub fn runs(&self) -> bool {
        match self {
            Indexing::Same => true,
            Indexing::One => false,
            Indexing::Axes(along) => along.last().is_some_and(|&a| a),
        }
    }
}

/// A compiled formula over a kernel's value and operands that broadcast to the output.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// The formula; its first argument is the kernel's value if there is one.
    pub steps: Steps,
    /// Further functions of the same value, without operands, for slots that ask for one by number.
    pub more: Vec<Steps>,
    /// Whether the kernel gives a value.
    pub value: bool,
    /// How each operand is indexed.
    pub operands: Vec<Indexing>,
    /// Whether elements 2 i and 2 i + 1 of the output are both there or both not, so that `//@store2` may store them at once.
    pub pairs: bool,
    /// Elements that `//@vector` stores at once; 1 where the operands do not allow more.
    pub vector: usize,
    /// Type of the elements that `//@load` reads, as values of the kernel.
    pub reads: Option<DType>,
    /// Type of the kernel's value.
    pub value_type: DType,
    /// Whether results go to lists of their rows instead of to the output: see [`Finish::listed`].
    pub lists: bool,
    sizes: Vec<u32>,
    strides: Vec<Vec<u32>>,
    signature: String,
}

impl Finish {
    /// Stores `formula` of the kernel's value of type `value` (if it gives one) and the operands as elements of `out`.
    /// Errors when there are too many operands, axes or elements.
    pub fn new(value: Option<DType>, formula: &Formula, operands: &[Type], out: &Type) -> Result<Finish> {
        let refuse = |why: &str| Error::Device { device: "cuda".into(), why: why.into() };
        if operands.len() > OPERANDS || out.shape.numel() > i32::MAX as usize {
            return Err(refuse("a formula of more than 8 operands, or of 2^31 elements"));
        }
        let types: Vec<DType> = value.into_iter().chain(operands.iter().map(|t| t.dtype)).collect();
        Finish::with_steps(value, Steps::compile(formula, &types, out.dtype)?, operands, out, None)
    }

    /// Appends results `[rows, columns]` of f32 to lists instead of storing them: that of a row is `words` 32-bit words from the output's address on, as
    /// kernels/top_list.ptx.j2 describes it, and takes what reaches the row's bar.
    pub fn listed(formula: &Formula, operands: &[Type], results: [usize; 2], words: usize) -> Result<Finish> {
        let types: Vec<DType> = [DType::F32].into_iter().chain(operands.iter().map(|t| t.dtype)).collect();
        let steps = Steps::compile(formula, &types, DType::F32)?;
        Finish::with_steps(Some(DType::F32), steps, operands, &Type::new(DType::F32, results), Some(words))
    }

    fn with_steps(value: Option<DType>, steps: Steps, operands: &[Type], out: &Type, words: Option<usize>) -> Result<Finish> {
        let refuse = |why: &str| Error::Device { device: "cuda".into(), why: why.into() };
        let broadcast = |t: &Type| t.shape.broadcast_strides(&out.shape).map(|s| s.to_vec());
        let all = operands.iter().map(broadcast).collect::<Option<Vec<_>>>();
        let all = all.ok_or_else(|| refuse("an operand that does not broadcast"))?;
        let same = |t: &Type| t.shape.numel() == out.shape.numel();
        let mut apart: Vec<Vec<usize>> = all.iter().zip(operands).filter(|(_, t)| !same(t)).map(|(s, _)| s.clone()).collect();
        // Where a row's list begins, and a result's column.
        let lists: Vec<Vec<usize>> = words.iter().flat_map(|&words| [vec![words, 0], vec![0, 1]]).collect();
        apart.extend(lists.iter().cloned());
        let (sizes, _) = merge(&out.shape, &apart);
        if sizes.len() > AXES || operands.len() + lists.len() > OPERANDS {
            return Err(refuse("operands broadcast along too many axes, or too many of them"));
        }
        let strides: Vec<Vec<u32>> = all.iter().chain(&lists).map(|s| merged_strides(&out.shape, &apart, s)).collect();
        let indexing = |(t, s): (&Type, &Vec<u32>)| match () {
            _ if same(t) => Indexing::Same,
            _ if s.iter().all(|&s| s == 0) => Indexing::One,
            _ => Indexing::Axes(s.iter().map(|&s| s > 0).collect()),
        };
        let operands: Vec<Indexing> = operands.iter().zip(&strides).map(indexing).collect();
        let types: Vec<DType> = steps.args.iter().copied().chain([out.dtype]).collect();
        let vector = if value.is_some() { 1 } else { width(&sizes, &strides, &operands, &types, steps.steps.len()) };
        let pairs = out.shape.last().is_some_and(|n| n % 2 == 0);
        let (value, value_type) = (value.is_some(), value.unwrap_or(DType::F32));
        let (signature, reads, more, lists) = (String::new(), None, Vec::new(), words.is_some());
        let finish = Finish { steps, more, value, operands, pairs, vector, reads, value_type, lists, sizes, strides, signature };
        Ok(finish.signed())
    }

    fn signed(mut self) -> Finish {
        let Finish { steps, more, operands, value, pairs, vector, reads, value_type, lists, strides, .. } = &self;
        // What the text of a list has: the axes that count, which a side of one element lacks.
        let along: Vec<Vec<bool>> = strides.iter().filter(|_| *lists).map(|s| s.iter().map(|&s| s > 0).collect()).collect();
        self.signature = format!("{steps:?} {more:?} {operands:?} {value} {pairs} {vector} {reads:?} {value_type:?} {along:?}");
        self
    }

    /// With `//@load` reading elements of this type.
    pub fn reading(self, dtype: DType) -> Finish {
        Finish { reads: Some(dtype), ..self }.signed()
    }

    /// Functions of one f32 for slots that apply them by number.
    pub fn functions(formulas: &[Formula]) -> Result<Finish> {
        let out = Type::new(DType::F32, Shape::from([1]));
        let (first, more) = formulas.split_first().ok_or_else(|| Error::BadInput("no formula".into()))?;
        let mut finish = Finish::new(Some(DType::F32), first, &[], &out)?;
        finish.more = more.iter().map(|f| Steps::compile(f, &[DType::F32], DType::F32)).collect::<Result<_>>()?;
        Ok(finish.signed())
    }

    /// The epilogue of a family's kernel whose value is of type `value`, and of integers reaches the formula as f32; without one the value
    /// is converted and stored.
    pub fn epilogue(epilogue: Option<&EpilogueSpec>, value: DType, out: &Type) -> Result<Finish> {
        match epilogue {
            Some(e) if !value.is_float() => {
                let mut steps = e.steps()?;
                steps.args[0] = value;
                Finish::with_steps(Some(value), steps, &e.operands, out, None)
            }
            Some(e) => Finish::new(Some(value), &e.formula, &e.operands, out),
            None => Finish::new(Some(value), &arg(0), &[], out),
        }
    }

    /// Equal for equal texts.
    pub fn signature(&self) -> &str {
        &self.signature
    }

    /// Axes of the operands that are indexed by coordinates.
    pub fn axes(&self) -> usize {
        self.sizes.len()
    }

    /// Of results that go to lists: the number in the parameter's steps, and the axes, of the row's first word and of the column.
    pub fn places(&self) -> [(usize, Vec<bool>); 2] {
        [0, 1].map(|i| self.operands.len() + i).map(|i| (i, self.strides[i].iter().map(|&s| s > 0).collect()))
    }

    /// The kernel's parameter `finish`.
    pub fn argument(&self, out: Pointer, operands: &[Pointer]) -> Arg {
        let mut parts = vec![Arg::Pointer(out)];
        parts.extend((0..OPERANDS).map(|i| Arg::Pointer(operands.get(i).copied().unwrap_or(Pointer::Null))));
        for axis in 0..AXES {
            let size = self.sizes.get(axis).copied().unwrap_or(1);
            let (magic, shift) = magic(size);
            parts.extend([size, magic, shift].map(Arg::U32));
        }
        for operand in 0..OPERANDS {
            let step = |axis| self.strides.get(operand).and_then(|s: &Vec<u32>| s.get(axis)).copied().unwrap_or(0);
            parts.extend((0..AXES).map(|axis| Arg::U32(step(axis))));
        }
        Arg::Block(parts)
    }
}

/// The output's axes with neighbours taken together that every operand runs through evenly (or not at all): their sizes, and
/// which merged axis each axis belongs to. An axis of size 1 belongs to none.
pub(super) fn merge(shape: &Shape, operands: &[Vec<usize>]) -> (Vec<u32>, Vec<Option<usize>>) {
    let mut sizes: Vec<u32> = Vec::new();
    let mut belongs = vec![None; shape.rank()];
    let mut last = None;
    for axis in (0..shape.rank()).filter(|&a| shape[a] != 1) {
        let even = |l: usize| operands.iter().all(|s| s[l] == s[axis] * shape[axis]);
        match last {
            Some(l) if even(l) => *sizes.last_mut().expect("invariant: pushed with the axis before") *= shape[axis] as u32,
            _ => sizes.push(shape[axis] as u32),
        }
        belongs[axis] = Some(sizes.len() - 1);
        last = Some(axis);
    }
    (sizes, belongs)
}

/// An operand's step along each merged axis: that of the innermost axis it was made from.
pub(super) fn merged_strides(shape: &Shape, operands: &[Vec<usize>], strides: &[usize]) -> Vec<u32> {
    let (sizes, belongs) = merge(shape, operands);
    let mut merged = vec![0; sizes.len()];
    for (axis, to) in belongs.iter().enumerate() {
        if let Some(to) = to {
            merged[*to] = strides[axis] as u32;
        }
    }
    merged
}

/// Elements of a vector at most, where all operands allow it; 1 where they do not.
fn width(sizes: &[u32], strides: &[Vec<u32>], operands: &[Indexing], types: &[DType], steps: usize) -> usize {
    let widest = types.iter().map(|t| t.size_bytes()).max().unwrap_or(RUN);
    let allows = |count: usize, i: usize| match operands[i] {
        Indexing::Same | Indexing::One => true,
        Indexing::Axes(_) => {
            let inner = strides[i].last().copied().unwrap_or(0);
            inner <= 1 && sizes.last().is_some_and(|&n| (n as usize).is_multiple_of(count))
        }
    };
    let fits =
        |count: &usize| *count * widest <= RUN && *count * steps <= STEPS && (0..operands.len()).all(|i| allows(*count, i));
    [8, 4, 2].into_iter().find(fits).unwrap_or(1)
}
