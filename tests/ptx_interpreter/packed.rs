//! Arithmetic of f16 and bf16, alone or in pairs: exact in f64, rounded once.

use half::{bf16, f16};
use halfbyte::base::round::{to_bf16, to_f16};

use super::float::extreme;
use super::number::Ty;
use super::op::{Arith, Flags, Round};
use super::{Kind, Result, fault};

/// The value of 16 bits.
pub fn widen(brain: bool, bits: u64) -> f64 {
    if brain { bf16::from_bits(bits as u16).to_f64() } else { f16::from_bits(bits as u16).to_f64() }
}

/// The nearest value's 16 bits.
pub fn narrow(brain: bool, x: f64) -> u64 {
    let bits = if brain { to_bf16(x).to_bits() } else { to_f16(x).to_bits() };
    // The canonical NaN of the ISA.
    u64::from(if x.is_nan() { 0x7fff } else { bits })
}

/// The 16 bits of the value rounded as said.
pub fn round(brain: bool, x: f64, round: Round, finite: bool) -> u64 {
    let near = narrow(brain, x);
    let back = widen(brain, near);
    let largest = if brain { 0x7f7f } else { 0x7bff };
    let bits = match round {
        Round::Zero if back.abs() > x.abs() => near - 1,
        Round::Down if back > x => {
            if back > 0.0 {
                near - 1
            } else {
                near + 1
            }
        }
        Round::Up if back < x => {
            if back < 0.0 {
                near - 1
            } else {
                near + 1
            }
        }
        _ => near,
    };
    // From zero a step leads to the smallest subnormal of the other sign.
    let bits = match round {
        Round::Down if back == 0.0 && x < 0.0 => 0x8001,
        Round::Up if back == 0.0 && x > 0.0 => 1,
        _ => bits,
    };
    if finite && !x.is_nan() && bits & 0x7fff > largest { bits & 0x8000 | largest } else { bits }
}

/// The bits of the result.
pub fn compute(what: Arith, ty: Ty, flags: Flags, x: [u64; 4]) -> Result<u64> {
    let brain = matches!(ty, Ty::BF16 | Ty::BF16x2);
    let low = half(what, brain, flags, x.map(|b| b & 0xffff))?;
    if ty.bits() == 16 {
        return Ok(low);
    }
    Ok(half(what, brain, flags, x.map(|b| b >> 16 & 0xffff))? << 16 | low)
}

fn half(what: Arith, brain: bool, flags: Flags, bits: [u64; 4]) -> Result<u64> {
    use Arith::*;
    // Subnormals become zeros of their sign.
    let flushed = |b: u64| if flags.flush && b & if brain { 0x7f80 } else { 0x7c00 } == 0 { b & 0x8000 } else { b };
    let [a, b, c, _] = bits.map(|b| widen(brain, flushed(b)));
    let y = match what {
        Abs => return Ok(bits[0] & 0x7fff),
        Neg => return Ok(bits[0] ^ 0x8000),
        Add => sum(a, b),
        Sub => sum(a, -b),
        Mul => a * b,
        Fma => sum(a * b, c),
        Min | Max => extreme(what == Max, flags.nan, a, b),
        Exp2 => a.exp2(),
        Tanh => a.tanh(),
        _ => return fault(Kind::Syntax, format!("{what:?} of halves")),
    };
    let y = match y {
        y if flags.relu && y < 0.0 => 0.0,
        y if flags.saturate => extreme(false, false, extreme(true, false, y, 0.0), 1.0),
        y => y,
    };
    Ok(flushed(narrow(brain, y)))
}

/// The sum rounded to odd: the last bit is set where bits are lost, so that rounding again to fewer bits is right.
fn sum(a: f64, b: f64) -> f64 {
    let near = a + b;
    let lost = super::float::lost(a, b);
    if !near.is_finite() || lost == 0.0 || near.to_bits() & 1 == 1 {
        return near;
    }
    let away = (lost > 0.0) == (near > 0.0);
    f64::from_bits(if away { near.to_bits() + 1 } else { near.to_bits() - 1 })
}
