//! Arithmetic of f32 and f64, rounded to nearest. `.approx` gives the f64 function rounded once.

use super::number::Ty;
use super::op::{Arith, Flags, Round};
use super::{Kind, Result, fault};

/// The bits of the result.
pub fn compute(what: Arith, ty: Ty, flags: Flags, x: [u64; 4]) -> Result<u64> {
    use Arith::{Abs, CopySign, Neg};
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

fn single(what: Arith, flags: Flags, [a, b, c, _]: [f32; 4]) -> Result<f32> {
    use Arith::*;
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
    Ok(match what {
        Add => a + b,
        Sub => a - b,
        Mul => a * b,
        Fma => a.mul_add(b, c),
        Div if flags.round == Round::Zero => {
            let q = a / b;
            // One too far from 0 when the remainder has the other sign.
            let past = (q.is_infinite() && a.is_finite() && b != 0.0) || q.mul_add(-b, a) * a.signum() < 0.0;
            if past { f64::from_bits(q.to_bits() - 1) } else { q }
        }
        Div => a / b,
        Reciprocal => 1.0 / a,
        SquareRoot => a.sqrt(),
        Min | Max => extreme(what == Max, flags.nan, a, b),
        _ => return fault(Kind::Syntax, format!("{what:?} of f64")),
    })
}
