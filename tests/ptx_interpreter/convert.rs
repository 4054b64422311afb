//! Conversions between types.

use super::float::flushed;
use super::number::Ty;
use super::op::{Flags, Round};
use super::packed::{narrow, widen};
use super::{Kind, Result, fault};

/// Whether the ISA wants these modifiers of this conversion, and this interpreter has it.
pub fn check(to: Ty, from: Ty, flags: Flags) -> Result<()> {
    use Round::*;
    let whole = matches!(flags.round, IntegerNearest | IntegerZero | IntegerDown | IntegerUp);
    let rounds = match (from.is_float(), to.is_float()) {
        (false, false) => flags.round == None,
        (false, true) => flags.round == Nearest,
        (true, false) => whole,
        (true, true) if to.bits() < from.bits() => flags.round == Nearest || (flags.round == Zero && to == Ty::F32),
        (true, true) if to == from => whole,
        (true, true) => flags.round == None,
    };
    let plain = |ty: Ty| !matches!(ty, Ty::Pred | Ty::Bits(_) | Ty::F16x2 | Ty::BF16x2);
    if rounds && plain(to) && plain(from) && !flags.approximate && !flags.nan {
        Ok(())
    } else {
        fault(Kind::Syntax, format!("cvt to {to:?} from {from:?} does not exist with these modifiers"))
    }
}

fn value(from: Ty, flush: bool, bits: u64) -> f64 {
    match from {
        Ty::F64 => f64::from_bits(bits),
        Ty::F32 => f32::from_bits(if flush { flushed(bits as u32) } else { bits as u32 }).into(),
        other => widen(other == Ty::BF16, bits),
    }
}

/// The bits of the type `to`.
pub fn convert(to: Ty, from: Ty, flags: Flags, bits: u64) -> u64 {
    if from.is_integer() {
        let v = from.integer(bits);
        return match (to, to.limits()) {
            (Ty::F32, _) => (v as f32).to_bits().into(),
            (Ty::F64, _) => (v as f64).to_bits(),
            (_, Some((lowest, highest))) if flags.saturate => to.low(v.clamp(lowest, highest) as u64),
            (_, Some(_)) => to.low(v as u64),
            // Integers of 64 bits lose some on the way to f64, all of them beyond f16's range, not beyond bf16's.
            _ => narrow(to == Ty::BF16, odd(v)),
        };
    }
    let x = value(from, flags.flush, bits);
    let whole = match flags.round {
        Round::IntegerNearest => x.round_ties_even(),
        Round::IntegerZero => x.trunc(),
        Round::IntegerDown => x.floor(),
        Round::IntegerUp => x.ceil(),
        _ => x,
    };
    let whole = if flags.relu && whole < 0.0 { 0.0 } else { whole };
    match (to, to.limits()) {
        // NaN gives 0, but from f64 or to 64 bits the smallest integer, or 2^63.
        (_, Some(_)) if x.is_nan() && from != Ty::F64 && to.bits() < 64 => 0,
        (_, Some(_)) if x.is_nan() => 1 << (to.bits() - 1),
        (_, Some((lowest, highest))) => to.low((whole as i128).clamp(lowest, highest) as u64),
        (Ty::F64, _) => whole.to_bits(),
        (Ty::F32, _) => {
            let near = whole as f32;
            let past = flags.round == Round::Zero && f64::from(near).abs() > x.abs();
            let bits = near.to_bits() - u32::from(past);
            let unit = |v: f32| if v.is_nan() { 0.0 } else { v.clamp(0.0, 1.0) };
            let bits = if flags.saturate { unit(f32::from_bits(bits)).to_bits() } else { bits };
            u64::from(if flags.flush { flushed(bits) } else { bits })
        }
        _ => narrow(to == Ty::BF16, whole),
    }
}

/// The integer in f64, its last bit set where bits are lost.
fn odd(v: i128) -> f64 {
    let near = v as f64;
    let back = near as i128;
    if back == v || near.to_bits() & 1 == 1 {
        return near;
    }
    let away = (v.abs() > back.abs()) as i64 * 2 - 1;
    f64::from_bits(near.to_bits().wrapping_add_signed(away))
}

/// Two f32 as halves, the first above.
pub fn pair(to: Ty, flags: Flags, high: u64, low: u64) -> u64 {
    let one = |bits: u64| {
        let x = f64::from(f32::from_bits(bits as u32));
        narrow(to == Ty::BF16x2, if flags.relu && x < 0.0 { 0.0 } else { x })
    };
    one(high) << 16 | one(low)
}
