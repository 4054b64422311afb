//! Arithmetic of f32 and f64, rounded to nearest. `.approx` gives the f64 function rounded once.

use super::number::Ty;
use super::op::{Arith, Class, Flags, Round};
use super::{Kind, Result, fault};

/// The bits of the result.
pub fn compute(what: Arith, ty: Ty, flags: Flags, x: [u64; 4]) -> Result<u64> {
    use Arith::{Abs, CopySign, Neg};
    if let Arith::Test(class) = what {
        let x = if ty == Ty::F64 { f64::from_bits(x[0]) } else { f32::from_bits(x[0] as u32).into() };
        let normal = if ty == Ty::F64 { x.is_normal() } else { (x as f32).is_normal() };
        return Ok(u64::from(match class {
            Class::Finite => x.is_finite(),
            Class::Infinite => x.is_infinite(),
            Class::Number => !x.is_nan(),
            Class::NotANumber => x.is_nan(),
            // ISA 9.7.3: zeros count as normal.
            Class::Normal => normal || x == 0.0,
            Class::Subnormal => x.is_finite() && x != 0.0 && !normal,
        }));
    }
    if ty == Ty::F64 {
        let sign = 1u64 << 63;
        return Ok(match what {
            Abs => x[0] & !sign,
            Neg => x[0] ^ sign,
            // The first operand's sign on the second.
            CopySign => x[0] & sign | x[1] & !sign,
            _ => double(what, flags, x.map(f64::from_bits))?.to_bits(),
        });
    }
    let sign = 1u32 << 31;
    let bits = x.map(|b| if flags.flush { flushed(b as u32) } else { b as u32 });
    let y = match what {
        Abs => bits[0] & !sign,
        Neg => bits[0] ^ sign,
        CopySign => bits[0] & sign | bits[1] & !sign,
        _ => single(what, flags, bits.map(f32::from_bits))?.to_bits(),
    };
    let y = if flags.flush { flushed(y) } else { y };
    let clamped = |v: f32| if v.is_nan() { 0.0 } else { v.clamp(0.0, 1.0) + 0.0 };
    Ok(if flags.saturate { clamped(f32::from_bits(y)).to_bits() } else { y }.into())
}

/// A denormal becomes the zero of its sign.
pub fn flushed(bits: u32) -> u32 {
    if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits }
}

/// The exact result rounded as said, of an f64 that is exact or has its last bit set (see [`odd`]).
pub fn to_f32(x: f64, round: Round) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    match round {
        Round::Zero if back.abs() > x.abs() => f32::from_bits(near.to_bits() - 1),
        Round::Down if back > x => near.next_down(),
        Round::Up if back < x => near.next_up(),
        _ => near,
    }
}

/// `near` rounded to odd instead: its last bit is set where the exact value is `lost` away, of which the sign counts.
fn odd(near: f64, lost: f64) -> f64 {
    if !near.is_finite() || lost == 0.0 || lost.is_nan() || near.to_bits() & 1 == 1 {
        return near;
    }
    if lost > 0.0 { near.next_up() } else { near.next_down() }
}

/// `near`, or the next value in the direction, if the exact one is `lost` away.
fn directed(near: f64, lost: f64, round: Round) -> f64 {
    let toward_zero = lost != 0.0 && (lost < 0.0) == (near > 0.0);
    match round {
        Round::Zero if toward_zero => f64::from_bits(near.to_bits() - 1),
        Round::Down if lost < 0.0 => near.next_down(),
        Round::Up if lost > 0.0 => near.next_up(),
        _ => near,
    }
}

/// A result of f32 operands in f64, and what it lost.
fn exact(what: Arith, [a, b, c]: [f64; 3]) -> Option<(f64, f64)> {
    use Arith::*;
    let quotient = |a: f64, b: f64| (a / b, (-(a / b)).mul_add(b, a) * b.signum());
    Some(match what {
        Add => (a + b, lost(a, b)),
        Sub => (a - b, lost(a, -b)),
        Mul => (a * b, a.mul_add(b, -(a * b))),
        Fma => (a * b + c, lost(a * b, c)),
        Div => quotient(a, b),
        Reciprocal => quotient(1.0, a),
        SquareRoot => (a.sqrt(), (-a.sqrt()).mul_add(a.sqrt(), a)),
        _ => return None,
    })
}

/// What the rounding of a sum loses.
pub fn lost(a: f64, b: f64) -> f64 {
    let near = a + b;
    let part = near - a;
    (a - (near - part)) + (b - part)
}

fn single(what: Arith, flags: Flags, [a, b, c, _]: [f32; 4]) -> Result<f32> {
    use Arith::*;
    if matches!(flags.round, Round::Zero | Round::Down | Round::Up)
        && let Some((near, lost)) = exact(what, [a, b, c].map(f64::from))
    {
        // A sum that is exactly 0 of numbers of other signs is -0 when rounding down.
        let minus = match what {
            Add => a.is_sign_negative() || b.is_sign_negative(),
            Sub => a.is_sign_negative() || b.is_sign_positive(),
            Fma => (a.is_sign_negative() != b.is_sign_negative()) || c.is_sign_negative(),
            _ => false,
        };
        let zero = near == 0.0 && lost == 0.0 && minus && flags.round == Round::Down;
        return Ok(if zero { -0.0 } else { to_f32(odd(near, lost), flags.round) });
    }
    let approximate = |f: fn(f64) -> f64| f(f64::from(a)) as f32;
    Ok(match what {
        Add => a + b,
        Sub => a - b,
        Mul => a * b,
        Fma => a.mul_add(b, c),
        Div => a / b,
        Reciprocal => 1.0 / a,
        SquareRoot => a.sqrt(),
        Min | Max => f64_to_f32(extreme(what == Max, flags.nan, f64::from(a), f64::from(b))),
        ReciprocalRoot => approximate(|x| 1.0 / x.sqrt()),
        Exp2 => approximate(f64::exp2),
        Log2 => approximate(f64::log2),
        Sin => approximate(f64::sin),
        Cos => approximate(f64::cos),
        Tanh => approximate(f64::tanh),
        _ => return fault(Kind::Syntax, format!("{what:?} of f32")),
    })
}

fn f64_to_f32(x: f64) -> f32 {
    // The canonical NaN of the ISA.
    if x.is_nan() { f32::from_bits(0x7fff_ffff) } else { x as f32 }
}

/// The smaller or larger; -0 is below +0. One NaN is passed over unless `nan`.
pub fn extreme(larger: bool, nan: bool, a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        let both = a.is_nan() && b.is_nan();
        return if nan || both {
            f64::NAN
        } else if a.is_nan() {
            b
        } else {
            a
        };
    }
    let first = a < b || (a == b && a.is_sign_negative());
    if first != larger { a } else { b }
}

fn double(what: Arith, flags: Flags, [a, b, c, _]: [f64; 4]) -> Result<f64> {
    use Arith::*;
    if matches!(flags.round, Round::Zero | Round::Down | Round::Up)
        && let Some((near, lost)) = exact(what, [a, b, c])
    {
        let over = near.is_infinite() && [a, b].iter().all(|x| x.is_finite()) && !(what == Div && b == 0.0);
        let over = over && !(what == Reciprocal && a == 0.0);
        return Ok(directed(near, if over { -near } else { lost }, flags.round));
    }
    Ok(match what {
        Add => a + b,
        Sub => a - b,
        Mul => a * b,
        Fma => a.mul_add(b, c),
        Div => a / b,
        Reciprocal => 1.0 / a,
        SquareRoot => a.sqrt(),
        Min | Max => extreme(what == Max, flags.nan, a, b),
        _ => return fault(Kind::Syntax, format!("{what:?} of f64")),
    })
}
