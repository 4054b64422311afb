//! Folds, numbers of extreme elements, running sums.

use std::sync::Arc;

use super::walk::{Number, Walk, grouped};
use crate::base::{DType, Shape};
use crate::device::gpu::call::Call;
use crate::device::gpu::finish::Finish;
use crate::device::gpu::launch::{Arg, Launch, Pointer};
use crate::device::gpu::variant::Variant;
use crate::error::Result;
use crate::graph::Type;
use crate::graph::problem::reduce::{Fold, Groups, Rows};
use crate::scalar::{Formula, arg};

/// Elements of a group that one block folds at most, where they lie side by side and where they do not.
const PART: [usize; 2] = [16384, 2048];
const SIGN: u64 = 1 << 63;

/// What kernels/fold.ptx.j2 is told of a fold.
struct Rule {
    number: Number,
    /// 0 adds, 1 takes the largest, 2 multiplies; 8 for magnitudes, 16 for squares.
    op: u32,
    /// Bits of the value that a group begins with, and those that are turned over before and after.
    start: Arg,
    flip: u64,
    mean: bool,
    end: Formula,
}

fn rule(fold: Fold, dtype: DType) -> Rule {
    let inexact = dtype.is_float() || matches!(fold, Fold::L2 | Fold::LogSum);
    let number = if inexact { Number::of_floats(dtype) } else { Number::S64 };
    let unsigned = matches!(dtype, DType::U8 | DType::U16 | DType::U32 | DType::U64 | DType::Bool);
    let op = match fold {
        Fold::Max | Fold::Min => 1,
        Fold::Prod => 2,
        Fold::L1 if unsigned => 0,
        Fold::L1 => 8,
        Fold::L2 | Fold::SumSquare => 16,
        _ => 0,
    };
    let least = fold == Fold::Min;
    let flip = if op == 1 { order(number, dtype, least) } else { 0 };
    let start = match fold {
        Fold::Max | Fold::Min if number == Number::S64 => Arg::U64(limits(dtype)[usize::from(least)]),
        Fold::Max => number.argument(f64::NEG_INFINITY),
        Fold::Min => number.argument(f64::INFINITY),
        Fold::Prod => number.argument(1.0),
        _ => number.argument(0.0),
    };
    let end = match fold {
        Fold::L2 => arg(0).sqrt(),
        Fold::LogSum => arg(0).log(),
        _ => arg(0),
    };
    Rule { number, op, start, flip, mean: fold == Fold::Mean, end }
}

/// Bits to turn over so that the larger number is the one that is asked for: signs of floats, all bits of integers, and the top one
/// of those without a sign.
fn order(number: Number, dtype: DType, least: bool) -> u64 {
    match (number, least) {
        (Number::S64, least) => (if dtype == DType::U64 { SIGN } else { 0 }) ^ (if least { u64::MAX } else { 0 }),
        (_, true) => SIGN,
        (_, false) => 0,
    }
}

/// The smallest and the largest integer, what a group without elements gives.
fn limits(dtype: DType) -> [u64; 2] {
    match dtype {
        DType::U64 => [0, u64::MAX],
        DType::Bool => [0, 1],
        _ => dtype.int_range().map_or([0; 2], |(lo, hi)| [lo as u64, hi as u64]),
    }
}

/// How the groups of a fold are walked through, and the parts that a group is cut into: by its own length alone.
fn parts(groups: &Groups, dtype: DType) -> (Walk, usize, usize) {
    let walk = Walk::new(groups, matches!(dtype, DType::F32 | DType::F16 | DType::BF16), 8);
    let part = PART[usize::from(!walk.contiguous)];
    let part = if walk.units() > 2 * part { part } else { walk.units().max(1) };
    let count = walk.units().div_ceil(part).max(1);
    (walk, part, count)
}

/// Scratch bytes of a fold: a value for each part.
pub fn fold_scratch_bytes(groups: &Groups, dtype: DType) -> usize {
    let (walk, _, count) = parts(groups, dtype);
    if count > 1 { walk.count * count * 8 } else { 0 }
}

/// The launches of a fold over input 0.
pub fn fold(call: &Call, fold: Fold, groups: &Groups) -> Result<Vec<Launch>> {
    let (x, out) = (call.input(0)?, call.output(0)?);
    let rule = rule(fold, x.dtype);
    let (walk, part, count) = parts(groups, if rule.number == Number::F32 { x.dtype } else { DType::F64 });
    if walk.count == 0 {
        return Ok(Vec::new());
    }
    let divisor = if rule.mean { walk.len as f64 } else { 1.0 };
    let divisor = if rule.number == Number::S64 { divisor.max(1.0) } else { divisor };
    let finish = Finish::new(Some(rule.number.dtype()), &rule.end, &[], out)?;
    let reading = |finish: Finish, dtype| Arc::new(finish.reading(dtype));
    if count == 1 {
        let launch = one(&walk, [part, 1], rule.op, &rule, divisor, Pointer::Input(0, 0), x.dtype);
        return Ok(vec![launch.finished(&reading(finish, x.dtype), Pointer::Output(0, 0), &[])]);
    }
    let between = Type::new(rule.number.dtype(), Shape::from([walk.count, count]));
    let partial = Finish::new(Some(between.dtype), &arg(0), &[], &between)?;
    let first = one(&walk, [part, count], rule.op, &rule, 1.0, Pointer::Input(0, 0), x.dtype);
    let again = Walk::new(&Groups(vec![(walk.count, false), (count, true)]), rule.number == Number::F32, 8);
    let units = again.units();
    let second = one(&again, [units, 1], rule.op & 3, &rule, divisor, Pointer::Scratch(0), between.dtype);
    let first = first.finished(&reading(partial, x.dtype), Pointer::Scratch(0), &[]);
    Ok(vec![first, second.finished(&reading(finish, between.dtype), Pointer::Output(0, 0), &[])])
}

/// One launch of kernels/fold.ptx.j2 over `[units of a part, parts]`.
fn one(walk: &Walk, [part, count]: [usize; 2], op: u32, rule: &Rule, divisor: f64, x: Pointer, dtype: DType) -> Launch {
    let mut args = walk.arguments(x, dtype);
    args.extend([Arg::U32(walk.pairs.into()), Arg::U32(part as u32), Arg::U32(op), rule.start.clone()]);
    args.extend([rule.number.argument(divisor), rule.number.bits(rule.flip)]);
    Launch::new(Variant::named(&format!("fold_{}", rule.number.name())), [walk.blocks(), count as u32, 1], args)
}

/// The launch that finds extreme elements of the rows of input 0.
pub fn extreme(call: &Call, rows: Rows, max: bool, last: bool) -> Result<Vec<Launch>> {
    let (x, out) = (call.input(0)?, call.output(0)?);
    let walk = Walk::new(&grouped(rows), false, 8);
    if walk.count == 0 {
        return Ok(Vec::new());
    }
    let number = if x.dtype.is_float() { Number::of_floats(x.dtype) } else { Number::S64 };
    let flip = order(number, x.dtype, !max);
    let mut args = walk.arguments(Pointer::Input(0, 0), x.dtype);
    args.extend([Arg::U32(last.into()), number.bits(flip)]);
    let launch = Launch::new(Variant::named(&format!("arg_{}", number.name())), [walk.blocks(), 1, 1], args);
    let finish = Finish::new(Some(DType::I32), &arg(0), &[], out)?.reading(x.dtype);
    Ok(vec![launch.finished(&Arc::new(finish), Pointer::Output(0, 0), &[])])
}

/// The launch of running sums over the rows of input 0.
pub fn running_sums(call: &Call, rows: Rows, exclusive: bool, reverse: bool) -> Result<Vec<Launch>> {
    let (x, out) = (call.input(0)?, call.output(0)?);
    let walk = Walk::new(&grouped(rows), false, 2);
    if walk.count == 0 || walk.len == 0 {
        return Ok(Vec::new());
    }
    let number = if x.dtype.is_float() { Number::F64 } else { Number::S64 };
    let mut args = walk.arguments(Pointer::Input(0, 0), x.dtype);
    args.extend([exclusive, reverse].map(|b| Arg::U32(b.into())));
    let launch = Launch::new(Variant::named(&format!("scan_{}", number.name())), [walk.blocks(), 1, 1], args);
    let finish = Finish::new(Some(number.dtype()), &arg(0), &[], out)?.reading(x.dtype);
    Ok(vec![launch.finished(&Arc::new(finish), Pointer::Output(0, 0), &[])])
}
