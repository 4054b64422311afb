//! Conversions between types.

use super::float::{flushed, to_f32};
use super::number::Ty;
use super::op::{Flags, Round};
use super::packed::{round, widen};
use super::{Kind, Result, fault};

/// Whether the ISA wants these modifiers of this conversion, and this interpreter has it.
pub fn check(to: Ty, from: Ty, flags: Flags) -> Result<()> {
    use Round::*;
    let whole = matches!(flags.round, IntegerNearest | IntegerZero | IntegerDown | IntegerUp);
    let float = matches!(flags.round, Nearest | Zero | Down | Up);
    let rounds = match (from.is_float(), to.is_float()) {
        (false, false) => flags.round == None,
        (false, true) => float,
        (true, false) => whole,
        (true, true) if to.bits() < from.bits() => float,
        (true, true) if to == from => whole || flags.round == None && flags.saturate,
        (true, true) => flags.round == None,
    };
    let halves = matches!(to, Ty::F16 | Ty::BF16) && from == Ty::F32;
    let rounds = rounds && (halves || !flags.relu && !flags.finite);
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
            (Ty::F32, _) => to_f32(odd(v), flags.round).to_bits().into(),
            (Ty::F64, _) => whole_to_f64(v, flags.round).to_bits(),
            (_, Some((lowest, highest))) if flags.saturate => to.low(v.clamp(lowest, highest) as u64),
            (_, Some(_)) => to.low(v as u64),
            // Integers of 64 bits lose some on the way to f64, all of them beyond f16's range, not beyond bf16's.
            _ => round(to == Ty::BF16, odd(v), flags.round, false),
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
            let bits = to_f32(whole, flags.round).to_bits();
            let unit = |v: f32| if v.is_nan() { 0.0 } else { v.clamp(0.0, 1.0) };
            let bits = if flags.saturate { unit(f32::from_bits(bits)).to_bits() } else { bits };
            u64::from(if flags.flush { flushed(bits) } else { bits })
        }
        _ => {
            let whole = if flags.saturate { if whole.is_nan() { 0.0 } else { whole.clamp(0.0, 1.0) } } else { whole };
            round(to == Ty::BF16, whole, flags.round, flags.finite)
        }
    }
}

fn whole_to_f64(v: i128, round: Round) -> f64 {
    let near = v as f64;
    let back = near as i128;
    match round {
        Round::Zero if back.abs() > v.abs() => f64::from_bits(near.to_bits() - 1),
        Round::Down if back > v => near.next_down(),
        Round::Up if back < v => near.next_up(),
        _ => near,
    }
}

/// The nearest of 10 bits of fraction, ties away from 0, or those bits, in f32.
pub fn to_tf32(bits: u64, flags: Flags) -> u64 {
    let x = bits as u32;
    if x & 0x7f80_0000 == 0x7f80_0000 {
        return u64::from(if x & 0x7f_ffff == 0 && !flags.finite {
            x
        } else if x & 0x7f_ffff == 0 {
            x & 1 << 31 | 0x7f7f_e000
        } else {
            0x7fff_ffff
        });
    }
    let x = if flags.relu && x >> 31 == 1 { 0 } else { x };
    let rounded = match flags.round {
        Round::Away => x + 0x1000,
        Round::Nearest => x + 0xfff + (x >> 13 & 1),
        _ => x,
    } & !0x1fff;
    let over = rounded & 0x7f80_0000 == 0x7f80_0000 && flags.finite;
    u64::from(if over { rounded & 1 << 31 | 0x7f7f_e000 } else { rounded })
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
        round(to == Ty::BF16x2, if flags.relu && x < 0.0 { 0.0 } else { x }, flags.round, flags.finite)
    };
    one(high) << 16 | one(low)
}
