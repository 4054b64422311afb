//! The frequent instructions on registers alone, with their operands looked up, over all lanes of a warp at once.

use super::Result;
use super::entry::{Entry, Preset};
use super::number::Ty;
use super::op::{Arith, Comparison, Flags, Logic, Op, Round};
use super::operand::{Base, Operand, literal_bits};
use super::warp::{Row, Warp, lanes};

/// What is computed of up to three rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Simple {
    Copy,
    /// The low 32 bits, or those extended by their sign.
    Low,
    Extend,
    Add,
    Sub,
    Mul,
    Mad,
    Add64,
    Sub64,
    MulWide(bool),
    MadWide(bool),
    Min(bool),
    Max(bool),
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight(bool),
    ShiftLeft64,
    Lop3(u8),
    /// Signs of the factors.
    Dot4(bool, bool),
    AddF,
    SubF,
    MulF,
    FmaF,
    MinF,
    MaxF,
    Select,
    Compare(Comparison, Compared, bool, Option<Logic>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compared {
    Unsigned,
    Signed32,
    Signed64,
    F32,
}

/// An instruction, where its result goes, and the registers of its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fast {
    what: Simple,
    to: usize,
    from: [usize; 3],
    count: usize,
    /// Where the first or third operand is a predicate to be negated.
    negated: bool,
}

/// The fast form of an instruction, if it has one.
pub fn compile(op: &Op, o: &[Operand], entry: &mut Entry) -> Option<Fast> {
    let Operand::Register(to) = *o.first()? else { return None };
    let (what, result, types) = simple(op, o)?;
    if entry.registers[to] != result.bits() {
        return None;
    }
    let mut fast = Fast { what, to, from: [0; 3], count: types.len(), negated: false };
    for (n, ty) in types.iter().enumerate() {
        fast.from[n] = match &o[n + 1] {
            Operand::Register(r) if entry.registers[*r] == ty.bits() || (*ty == Ty::Bits(64) && entry.registers[*r] > 1) => *r,
            Operand::Register(r) if entry.registers[*r] == 64 && entry.presets.len() + r >= entry.registers.len() => *r,
            Operand::Negated(r) if *ty == Ty::Pred => {
                fast.negated = true;
                *r
            }
            Operand::Literal(literal) if *ty != Ty::Pred => entry.preset(Preset::Constant(literal_bits(*literal, *ty).ok()?)),
            Operand::Symbol(Base::Shared(at) | Base::Param(at) | Base::Const(at), offset) => {
                entry.preset(Preset::Constant(at.wrapping_add_signed(*offset)))
            }
            _ => return None,
        };
    }
    Some(fast)
}

/// What it computes, of which type the result and the operands are.
fn simple(op: &Op, o: &[Operand]) -> Option<(Simple, Ty, Vec<Ty>)> {
    match *op {
        Op::Move(ty) if ty != Ty::Pred => Some((Simple::Copy, ty, vec![ty])),
        Op::Convert { to, from, flags } if flags == Flags::default() && to.is_integer() && from.is_integer() => {
            let what = match (from.bits(), to.bits(), from.is_signed()) {
                (32, 64, true) => Simple::Extend,
                (32, 64, false) | (64, 64, _) | (32, 32, _) => Simple::Copy,
                (64, 32, _) => Simple::Low,
                _ => return None,
            };
            Some((what, to, vec![from]))
        }
        Op::Compare { how, unordered, ty, with, flush: false } => {
            let compared = match ty {
                Ty::F32 => Compared::F32,
                Ty::Signed(32) => Compared::Signed32,
                Ty::Signed(64) => Compared::Signed64,
                Ty::Unsigned(32 | 64) | Ty::Bits(32 | 64) => Compared::Unsigned,
                _ => return None,
            };
            let mut types = vec![ty, ty];
            types.extend(with.map(|_| Ty::Pred));
            Some((Simple::Compare(how, compared, unordered, with), Ty::Pred, types))
        }
        Op::Arith(what, ty, flags) => arithmetic(what, ty, flags, o),
        _ => None,
    }
}

fn arithmetic(what: Arith, ty: Ty, flags: Flags, o: &[Operand]) -> Option<(Simple, Ty, Vec<Ty>)> {
    use Arith::*;
    let rounded = Flags { round: Round::None, ..flags };
    if rounded != Flags::default() || !matches!(flags.round, Round::None | Round::Nearest) {
        return None;
    }
    let signed = ty.is_signed();
    let (amount, wide) = (Ty::Unsigned(32), Ty::Bits(64));
    let whole = matches!(ty, Ty::Bits(32) | Ty::Unsigned(32) | Ty::Signed(32));
    let double = matches!(ty, Ty::Bits(64) | Ty::Unsigned(64) | Ty::Signed(64));
    let (simple, result, types) = match what {
        Select if ty != Ty::Pred => (Simple::Select, ty, vec![ty, ty, Ty::Pred]),
        And if ty != Ty::Pred => (Simple::And, ty, vec![ty; 2]),
        Or if ty != Ty::Pred => (Simple::Or, ty, vec![ty; 2]),
        Xor if ty != Ty::Pred => (Simple::Xor, ty, vec![ty; 2]),
        Add if whole => (Simple::Add, ty, vec![ty; 2]),
        Sub if whole => (Simple::Sub, ty, vec![ty; 2]),
        MulLow if whole => (Simple::Mul, ty, vec![ty; 2]),
        MadLow if whole => (Simple::Mad, ty, vec![ty; 3]),
        Min if whole => (Simple::Min(signed), ty, vec![ty; 2]),
        Max if whole => (Simple::Max(signed), ty, vec![ty; 2]),
        MulWide if whole => (Simple::MulWide(signed), wide, vec![ty; 2]),
        MadWide if whole => (Simple::MadWide(signed), wide, vec![ty, ty, wide]),
        ShiftLeft if whole => (Simple::ShiftLeft, ty, vec![ty, amount]),
        ShiftRight if whole => (Simple::ShiftRight(signed), ty, vec![ty, amount]),
        ShiftLeft if double => (Simple::ShiftLeft64, ty, vec![ty, amount]),
        Add if double => (Simple::Add64, ty, vec![ty; 2]),
        Sub if double => (Simple::Sub64, ty, vec![ty; 2]),
        Lop3 => (Simple::Lop3(super::operand::constant(o.get(4)?).ok()? as u8), ty, vec![ty; 3]),
        Dp4a(a, b) => (Simple::Dot4(a, b), ty, vec![Ty::Bits(32); 3]),
        Add if ty == Ty::F32 => (Simple::AddF, ty, vec![ty; 2]),
        Sub if ty == Ty::F32 => (Simple::SubF, ty, vec![ty; 2]),
        Mul if ty == Ty::F32 => (Simple::MulF, ty, vec![ty; 2]),
        Fma if ty == Ty::F32 => (Simple::FmaF, ty, vec![ty; 3]),
        Min if ty == Ty::F32 => (Simple::MinF, ty, vec![ty; 2]),
        Max if ty == Ty::F32 => (Simple::MaxF, ty, vec![ty; 2]),
        _ => return None,
    };
    Some((simple, result, types))
}

#[inline(always)]
fn write(warp: &mut Warp, to: usize, active: u32, f: impl Fn(usize) -> u64) {
    let row = &mut warp.registers[to];
    if active == u32::MAX {
        for (lane, v) in row.iter_mut().enumerate() {
            *v = f(lane);
        }
    } else {
        lanes(active).for_each(|lane| row[lane] = f(lane));
    }
}

#[inline(always)]
fn one(warp: &mut Warp, fast: &Fast, active: u32, f: impl Fn(u64) -> u64) {
    let x = warp.registers[fast.from[0]];
    write(warp, fast.to, active, |l| f(x[l]));
}

#[inline(always)]
fn two(warp: &mut Warp, fast: &Fast, active: u32, f: impl Fn(u64, u64) -> u64) {
    let (x, y) = (warp.registers[fast.from[0]], warp.registers[fast.from[1]]);
    write(warp, fast.to, active, |l| f(x[l], y[l]));
}

#[inline(always)]
fn three(warp: &mut Warp, fast: &Fast, active: u32, f: impl Fn(u64, u64, u64) -> u64) {
    let [x, y, z] = fast.from.map(|r| warp.registers[r]);
    write(warp, fast.to, active, |l| f(x[l], y[l], z[l]));
}

fn low(x: u32) -> u64 {
    x.into()
}

fn float(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

fn bits(x: f32) -> u64 {
    x.to_bits().into()
}

/// Runs it for the active lanes.
#[inline]
pub fn run(warp: &mut Warp, fast: &Fast, active: u32) -> Result<()> {
    for r in &fast.from[..fast.count] {
        warp.readable(*r, active)?;
    }
    warp.written(fast.to, active)?;
    use Simple::*;
    match fast.what {
        Copy => one(warp, fast, active, |x| x),
        Low => one(warp, fast, active, |x| low(x as u32)),
        Extend => one(warp, fast, active, |x| x as u32 as i32 as i64 as u64),
        Add => two(warp, fast, active, |x, y| low((x as u32).wrapping_add(y as u32))),
        Sub => two(warp, fast, active, |x, y| low((x as u32).wrapping_sub(y as u32))),
        Mul => two(warp, fast, active, |x, y| low((x as u32).wrapping_mul(y as u32))),
        Mad => three(warp, fast, active, |x, y, z| low((x as u32).wrapping_mul(y as u32).wrapping_add(z as u32))),
        Add64 => two(warp, fast, active, u64::wrapping_add),
        Sub64 => two(warp, fast, active, u64::wrapping_sub),
        MulWide(true) => two(warp, fast, active, |x, y| (i64::from(x as i32) * i64::from(y as i32)) as u64),
        MulWide(false) => two(warp, fast, active, |x, y| x * y),
        MadWide(true) => {
            three(warp, fast, active, |x, y, z| ((i64::from(x as i32) * i64::from(y as i32)) as u64).wrapping_add(z));
        }
        MadWide(false) => three(warp, fast, active, |x, y, z| (x * y).wrapping_add(z)),
        Min(true) => two(warp, fast, active, |x, y| low((x as i32).min(y as i32) as u32)),
        Max(true) => two(warp, fast, active, |x, y| low((x as i32).max(y as i32) as u32)),
        Min(false) => two(warp, fast, active, u64::min),
        Max(false) => two(warp, fast, active, u64::max),
        And => two(warp, fast, active, |x, y| x & y),
        Or => two(warp, fast, active, |x, y| x | y),
        Xor => two(warp, fast, active, |x, y| x ^ y),
        ShiftLeft => two(warp, fast, active, |x, n| if n > 31 { 0 } else { low((x as u32) << n) }),
        ShiftLeft64 => two(warp, fast, active, |x, n| if n > 63 { 0 } else { x << n }),
        ShiftRight(false) => two(warp, fast, active, |x, n| if n > 31 { 0 } else { x >> n }),
        ShiftRight(true) => two(warp, fast, active, |x, n| low((x as i32 >> n.min(31)) as u32)),
        Lop3(table) => three(warp, fast, active, |x, y, z| lop3(table, x as u32, y as u32, z as u32)),
        Dot4(a, b) => three(warp, fast, active, |x, y, z| dot4((a, b), x as u32, y as u32, z as u32)),
        AddF => two(warp, fast, active, |x, y| bits(float(x) + float(y))),
        SubF => two(warp, fast, active, |x, y| bits(float(x) - float(y))),
        MulF => two(warp, fast, active, |x, y| bits(float(x) * float(y))),
        FmaF => three(warp, fast, active, |x, y, z| bits(float(x).mul_add(float(y), float(z)))),
        MinF => two(warp, fast, active, |x, y| extreme(false, float(x), float(y))),
        MaxF => two(warp, fast, active, |x, y| extreme(true, float(x), float(y))),
        Select => {
            let chosen = warp.predicates[fast.from[2]] ^ if fast.negated { u32::MAX } else { 0 };
            let (x, y) = (warp.registers[fast.from[0]], warp.registers[fast.from[1]]);
            write(warp, fast.to, active, |l| if chosen >> l & 1 == 1 { x[l] } else { y[l] });
        }
        Compare(how, compared, unordered, with) => {
            let holds = compare(warp, fast, (how, compared, unordered));
            let other = if with.is_some() { warp.predicates[fast.from[2]] } else { 0 } ^ if fast.negated { u32::MAX } else { 0 };
            let all = match with {
                None => holds,
                Some(Logic::And) => holds & other,
                Some(Logic::Or) => holds | other,
                Some(Logic::Xor) => holds ^ other,
            };
            warp.predicates[fast.to] = warp.predicates[fast.to] & !active | all & active;
        }
    }
    Ok(())
}

/// The sum of four products of bytes and a third operand.
fn dot4((a, b): (bool, bool), x: u32, y: u32, z: u32) -> u64 {
    let byte = |v: u32, i: u32, signed: bool| if signed { (v >> (8 * i)) as i8 as i32 } else { (v >> (8 * i)) as u8 as i32 };
    low((0..4).fold(z, |sum, i| sum.wrapping_add((byte(x, i, a) * byte(y, i, b)) as u32)))
}

fn lop3(table: u8, x: u32, y: u32, z: u32) -> u64 {
    let mut all = 0;
    for (i, term) in [(0, !x & !y & !z), (1, !x & !y & z), (2, !x & y & !z), (3, !x & y & z)] {
        all |= if table >> i & 1 == 1 { term } else { 0 };
    }
    for (i, term) in [(4, x & !y & !z), (5, x & !y & z), (6, x & y & !z), (7, x & y & z)] {
        all |= if table >> i & 1 == 1 { term } else { 0 };
    }
    low(all)
}

/// The smaller or larger; -0 is below +0, and one NaN is passed over.
fn extreme(larger: bool, a: f32, b: f32) -> u64 {
    if a.is_nan() || b.is_nan() {
        return if a.is_nan() && b.is_nan() { 0x7fff_ffff } else { bits(if a.is_nan() { b } else { a }) };
    }
    let first = a < b || (a == b && a.is_sign_negative());
    bits(if first != larger { a } else { b })
}

#[inline(always)]
fn ballot(x: &Row, y: &Row, f: impl Fn(u64, u64) -> bool) -> u32 {
    let mut all = 0;
    for lane in 0..32 {
        all |= u32::from(f(x[lane], y[lane])) << lane;
    }
    all
}

/// A bit for each lane.
fn compare(warp: &Warp, fast: &Fast, (how, compared, unordered): (Comparison, Compared, bool)) -> u32 {
    use Comparison::*;
    let (x, y) = (&warp.registers[fast.from[0]], &warp.registers[fast.from[1]]);
    if compared == Compared::F32 {
        let none = ballot(x, y, |x, y| float(x).is_nan() || float(y).is_nan());
        let holds = match how {
            Equal => ballot(x, y, |x, y| float(x) == float(y)),
            NotEqual => ballot(x, y, |x, y| float(x) != float(y)) & !none,
            Less => ballot(x, y, |x, y| float(x) < float(y)),
            LessEqual => ballot(x, y, |x, y| float(x) <= float(y)),
            Greater => ballot(x, y, |x, y| float(x) > float(y)),
            GreaterEqual => ballot(x, y, |x, y| float(x) >= float(y)),
            Ordered => return !none,
            Unordered => return none,
        };
        return if unordered { holds | none } else { holds };
    }
    // The order of signed numbers is that of unsigned ones with the sign bit turned.
    let turn = match compared {
        Compared::Signed32 => 1 << 31,
        Compared::Signed64 => 1 << 63,
        _ => 0,
    };
    match how {
        Equal => ballot(x, y, |x, y| x == y),
        NotEqual => ballot(x, y, |x, y| x != y),
        Less => ballot(x, y, |x, y| x ^ turn < y ^ turn),
        LessEqual => ballot(x, y, |x, y| x ^ turn <= y ^ turn),
        Greater => ballot(x, y, |x, y| x ^ turn > y ^ turn),
        _ => ballot(x, y, |x, y| x ^ turn >= y ^ turn),
    }
}
