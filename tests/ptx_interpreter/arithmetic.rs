//! Arithmetic lane by lane: which instructions there are, and what those of integers compute.

use super::decode::{Decoded, flags};
use super::modifiers::Modifiers;
use super::number::{Ty, low, sign_extend};
use super::op::{Arith, Class, Flags, Op, Round};
use super::{Kind, Result, fault, float, packed};

/// The instruction, and how many operands it has.
pub fn decode(m: &mut Modifiers) -> Decoded {
    use Arith::*;
    let name = m.name;
    if name == "dp4a" || name == "dp2a" {
        let high = name == "dp2a" && m.one(&[("lo", false), ("hi", true)])?;
        let signs = [("s32", true), ("u32", false)];
        let (a, b) = (m.one(&signs)?, m.one(&signs)?);
        let ty = if a || b { Ty::Signed(32) } else { Ty::Unsigned(32) };
        let what = if name == "dp4a" { Dp4a(a, b) } else { Dp2a { signed: (a, b), high } };
        return Ok((Op::Arith(what, ty, Flags::default()), 4..=4));
    }
    if name == "shf" {
        let left = m.one(&[("l", true), ("r", false)])?;
        let wrap = m.one(&[("wrap", true), ("clamp", false)])?;
        let what = if left { FunnelLeft { wrap } } else { FunnelRight { wrap } };
        return Ok((Op::Arith(what, m.ty()?, Flags::default()), 4..=4));
    }
    if let Some(decoded) = rare(m)? {
        return Ok(decoded);
    }
    let ty = m.ty()?;
    let flags = flags(m);
    let part = m.choose(&[("lo", 0), ("hi", 1), ("wide", 2)]);
    let unary = |what| (what, 2);
    let (what, operands) = match (name, part) {
        ("add", None) => (Add, 3),
        ("sub", None) => (Sub, 3),
        ("mul", None) if ty.is_float() => (Mul, 3),
        ("mul", Some(p)) if ty.is_integer() => ([MulLow, MulHigh, MulWide][p], 3),
        ("mad", Some(p)) if ty.is_integer() => ([MadLow, MadHigh, MadWide][p], 4),
        ("fma" | "mad", None) if ty.is_float() => (Fma, 4),
        ("div", None) => (Div, 3),
        ("rem", None) => (Rem, 3),
        ("min", None) => (Min, 3),
        ("max", None) => (Max, 3),
        ("abs", None) => unary(Abs),
        ("neg", None) => unary(Neg),
        ("and", None) => (And, 3),
        ("or", None) => (Or, 3),
        ("xor", None) => (Xor, 3),
        ("not", None) => unary(Not),
        ("lop3", None) => (Lop3, 5),
        ("shl", None) => (ShiftLeft, 3),
        ("shr", None) => (ShiftRight, 3),
        ("popc", None) => unary(Population),
        ("clz", None) => unary(LeadingZeros),
        ("brev", None) => unary(ReverseBits),
        ("bfe", None) => (FieldExtract, 4),
        ("bfi", None) => (FieldInsert, 5),
        ("prmt", None) => (Permute, 4),
        ("rcp", None) => unary(Reciprocal),
        ("sqrt", None) => unary(SquareRoot),
        ("rsqrt", None) => unary(ReciprocalRoot),
        ("ex2", None) => unary(Exp2),
        ("lg2", None) => unary(Log2),
        ("sin", None) => unary(Sin),
        ("cos", None) => unary(Cos),
        ("tanh", None) => unary(Tanh),
        ("copysign", None) => (CopySign, 3),
        _ => return fault(Kind::Syntax, format!("the unknown instruction {name} of {ty:?}")),
    };
    check(what, ty, flags)?;
    Ok((Op::Arith(what, ty, flags), operands..=operands))
}

/// Instructions with modifiers of their own.
fn rare(m: &mut Modifiers) -> Result<Option<(Op, std::ops::RangeInclusive<usize>)>> {
    use Arith::*;
    let plain = |what, ty, n: usize| Ok(Some((Op::Arith(what, ty, Flags::default()), n..=n)));
    let whole = |m: &mut Modifiers, widths: &[u32]| match m.ty()? {
        ty @ (Ty::Signed(n) | Ty::Unsigned(n)) if widths.contains(&n) => Ok(ty),
        ty => fault(Kind::Syntax, format!("{} of {ty:?} does not exist", m.name)),
    };
    match m.name {
        "bfind" => {
            let distance = m.take("shiftamt");
            plain(HighestBit { distance }, whole(m, &[32, 64])?, 2)
        }
        "szext" => {
            let wrap = m.one(&[("wrap", true), ("clamp", false)])?;
            plain(Extend { wrap }, whole(m, &[32])?, 3)
        }
        "mul24" | "mad24" => {
            let high = m.one(&[("lo", false), ("hi", true)])?;
            let (what, n) = if m.name == "mul24" { (Mul24 { high }, 3) } else { (Mad24 { high }, 4) };
            plain(what, whole(m, &[32])?, n)
        }
        "sad" => plain(Distance, whole(m, &[16, 32, 64])?, 4),
        "slct" => {
            let by = m.ty()?;
            m.skip(&["ftz"]);
            match (m.ty()?, by) {
                (ty, Ty::F32 | Ty::Signed(32)) if ty.bits() >= 16 => plain(SelectBySign { real: by == Ty::F32 }, ty, 4),
                _ => fault(Kind::Syntax, "slct of these types does not exist"),
            }
        }
        "testp" => {
            use Class::*;
            let classes = [("finite", Finite), ("infinite", Infinite), ("number", Number), ("notanumber", NotANumber)];
            let class = m.choose(&classes);
            let class = class.map_or_else(|| m.one(&[("normal", Normal), ("subnormal", Subnormal)]), Ok)?;
            match m.ty()? {
                ty @ (Ty::F32 | Ty::F64) => plain(Test(class), ty, 2),
                ty => fault(Kind::Syntax, format!("testp of {ty:?} does not exist")),
            }
        }
        _ => Ok(None),
    }
}

/// Whether the ISA has the instruction with this type and these modifiers, and this interpreter too.
fn check(what: Arith, ty: Ty, flags: Flags) -> Result<()> {
    use Arith::*;
    let bits =
        matches!(what, And | Or | Xor | Not | Lop3 | ShiftLeft | Population | LeadingZeros | ReverseBits | FieldInsert | Permute);
    let float_only = matches!(what, Fma | Reciprocal | SquareRoot | ReciprocalRoot | Exp2 | Log2 | Sin | Cos | Tanh | CopySign);
    let inexact = matches!(what, Fma | Div | Reciprocal | SquareRoot);
    let fits = match ty {
        Ty::Pred => matches!(what, And | Or | Xor | Not),
        Ty::Bits(_) => bits || what == ShiftRight,
        Ty::Signed(_) | Ty::Unsigned(_) => !bits && !float_only && ty.bits() > 8,
        Ty::F32 | Ty::F64 => matches!(what, Add | Sub | Mul | Div | Min | Max | Abs | Neg) || float_only,
        _ => matches!(what, Add | Sub | Mul | Fma | Min | Max | Abs | Neg | Exp2 | Tanh),
    };
    let rounds = match flags.round {
        Round::None => !(ty.is_float() && inexact && !flags.approximate),
        Round::Nearest => ty.is_float(),
        Round::Zero | Round::Down | Round::Up => {
            let directed = matches!(what, Add | Sub | Mul | Div | Reciprocal | SquareRoot);
            matches!(ty, Ty::F32 | Ty::F64) && !flags.approximate && (directed || (what == Fma && ty == Ty::F32))
        }
        _ => false,
    };
    let saturates = !flags.saturate || matches!(ty, Ty::F32 | Ty::F16 | Ty::F16x2 | Ty::Signed(32));
    if fits && rounds && saturates {
        Ok(())
    } else {
        fault(Kind::Syntax, format!("{what:?} of {ty:?} does not exist with these modifiers"))
    }
}

/// The bits of the result. Operands are of the type, but amounts of shifts, positions and lengths, which are `u32`.
pub fn compute(what: Arith, ty: Ty, flags: Flags, x: [u64; 4]) -> Result<u64> {
    match ty {
        _ if what == Arith::Select => Ok(if x[2] != 0 { x[0] } else { x[1] }),
        _ if matches!(what, Arith::SelectBySign { .. }) => {
            let real = what == Arith::SelectBySign { real: true };
            let above = if real { f32::from_bits(x[2] as u32) >= 0.0 } else { x[2] as i32 >= 0 };
            Ok(if above { x[0] } else { x[1] })
        }
        Ty::F32 | Ty::F64 => float::compute(what, ty, flags, x),
        Ty::F16 | Ty::F16x2 | Ty::BF16 | Ty::BF16x2 => packed::compute(what, ty, flags, x),
        _ => integer(what, ty, flags, x),
    }
}

fn integer(what: Arith, ty: Ty, flags: Flags, x: [u64; 4]) -> Result<u64> {
    use Arith::*;
    let (width, signed) = (ty.bits(), ty.is_signed());
    let [a, b, c] = [ty.integer(x[0]), ty.integer(x[1]), ty.integer(x[2])];
    let keep = |v: i128| ty.low(v as u64);
    let clamp = |v: i128| match ty.limits() {
        Some((lowest, highest)) if flags.saturate => v.clamp(lowest, highest),
        _ => v,
    };
    let wide = Ty::Bits(64);
    Ok(match what {
        Add => keep(clamp(a + b)),
        Sub => keep(clamp(a - b)),
        MulLow => keep(a.wrapping_mul(b)),
        MulHigh => keep(a.wrapping_mul(b) >> width),
        MulWide => low((a * b) as u64, width * 2),
        MadLow => keep(a.wrapping_mul(b).wrapping_add(c)),
        MadHigh => keep(clamp((a.wrapping_mul(b) >> width) + c)),
        // The summand has twice the width.
        MadWide => low((a * b).wrapping_add(i128::from(wide.low(x[2]))) as u64, width * 2),
        Div | Rem if b == 0 => return fault(Kind::Misuse, "an integer is divided by 0"),
        Div => keep(a / b),
        Rem => keep(a % b),
        Min => keep(a.min(b)),
        Max => keep(a.max(b)),
        Abs => keep(a.abs()),
        Neg => keep(-a),
        And => x[0] & x[1],
        Or => x[0] | x[1],
        Xor => x[0] ^ x[1],
        Not => ty.low(!x[0]),
        Lop3 => (0..8).filter(|i| x[3] >> i & 1 == 1).fold(0, |all, i| {
            let pick = |bits: u64, on: bool| if on { bits } else { !bits };
            all | ty.low(pick(x[0], i & 4 != 0) & pick(x[1], i & 2 != 0) & pick(x[2], i & 1 != 0))
        }),
        ShiftLeft => ty.low(x[0].checked_shl(x[1] as u32).unwrap_or(0)),
        ShiftRight => keep(a >> (x[1] as u32).min(if signed { width - 1 } else { 127 })),
        FunnelLeft { wrap } | FunnelRight { wrap } => {
            let n = if wrap { x[2] & 31 } else { x[2].min(32) };
            let both = x[1] << 32 | x[0];
            low(if matches!(what, FunnelLeft { .. }) { both << n >> 32 } else { both >> n }, 32)
        }
        Population => x[0].count_ones().into(),
        LeadingZeros => (x[0].leading_zeros() - (64 - width)).into(),
        HighestBit { distance } => {
            let turned = if signed && a < 0 { !x[0] } else { x[0] };
            match ty.low(turned) {
                0 => u32::MAX.into(),
                v if distance => (width - 1 - v.ilog2()).into(),
                v => v.ilog2().into(),
            }
        }
        Extend { wrap } => {
            let n = if wrap { x[1] & 31 } else { x[1].min(32) } as u32;
            match n {
                0 => 0,
                n if signed => ty.low(sign_extend(low(x[0], n), n) as u64),
                n => low(x[0], n),
            }
        }
        Mul24 { high } | Mad24 { high } => {
            let factor = |v: u64| if signed { i128::from(sign_extend(low(v, 24), 24)) } else { i128::from(low(v, 24)) };
            let product = factor(x[0]) * factor(x[1]);
            keep((if high { product >> 16 } else { product }) + if matches!(what, Mad24 { .. }) { c } else { 0 })
        }
        Distance => keep(c + (a - b).abs()),
        ReverseBits => x[0].reverse_bits() >> (64 - width),
        FieldExtract => field(ty, x),
        FieldInsert => {
            let (at, length) = ((x[2] & 0xff) as u32, (x[3] & 0xff) as u32);
            let mask = low(u64::MAX, length).checked_shl(at).unwrap_or(0);
            ty.low(x[1] & !mask | x[0].checked_shl(at).unwrap_or(0) & mask)
        }
        Permute => (0..4).fold(0, |all, i| {
            let selector = x[2] >> (4 * i) & 15;
            let byte = (x[1] << 32 | x[0]) >> (8 * (selector & 7)) & 255;
            // Bit 3 repeats the byte's sign.
            all | if selector & 8 != 0 { (byte >> 7) * 255 } else { byte } << (8 * i)
        }),
        Dp4a(sa, sb) => {
            let part = |x: u64, i: u32, signed| if signed { sign_extend(x >> (8 * i), 8) } else { (x >> (8 * i) & 255) as i64 };
            keep(c + (0..4).map(|i| i128::from(part(x[0], i, sa) * part(x[1], i, sb))).sum::<i128>())
        }
        Dp2a { signed: (sa, sb), high } => {
            let part = |x: u64, at: u32, w: u32, signed| if signed { sign_extend(x >> at, w) } else { low(x >> at, w) as i64 };
            let base = if high { 16 } else { 0 };
            keep(c + (0..2).map(|i| i128::from(part(x[0], 16 * i, 16, sa) * part(x[1], base + 8 * i, 8, sb))).sum::<i128>())
        }
        _ => return fault(Kind::Syntax, format!("{what:?} of {ty:?}")),
    })
}

/// Bits from a position on, as many as the length says, filled up with the sign bit: the field's top one, or the operand's.
fn field(ty: Ty, x: [u64; 4]) -> u64 {
    let (at, length) = ((x[1] & 0xff) as u32, (x[2] & 0xff) as u32);
    let last = ty.bits() - 1;
    let sign = ty.is_signed() && length > 0 && x[0] >> (at + length).saturating_sub(1).min(last) & 1 == 1;
    (0..=last).fold(0, |all, i| {
        let inside = i < length && at + i <= last;
        let bit = if inside { x[0] >> (at + i) & 1 } else { sign.into() };
        all | bit << i
    })
}
