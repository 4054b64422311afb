//! What each instruction of the subset computes. Source: PTX ISA 7.0, chapter 9.

use half::f16;

/// The bits that the instruction writes; `read(i, type)` gives the bits of operand `i`.
pub fn compute(opcode: &[String], read: &dyn Fn(usize, &str) -> u64) -> u64 {
    let parts: Vec<&str> = opcode.iter().map(String::as_str).collect();
    let ty = parts[parts.len() - 1];
    let arg = |i| read(i, ty);
    match (parts[0], ty) {
        ("mov", _) => arg(1),
        ("cvt", from) => {
            let to = parts[parts.len() - 2];
            convert(&parts[1..parts.len() - 2], to, from, arg(1))
        }
        ("setp", _) => compare(&parts, [arg(1), arg(2)], &|| read(3, "pred")).into(),
        ("selp", _) => arg(if read(3, "pred") != 0 { 1 } else { 2 }),
        ("and", _) => arg(1) & arg(2),
        ("or", _) => arg(1) | arg(2),
        ("xor", _) => arg(1) ^ arg(2),
        ("not", "pred") => (arg(1) == 0).into(),
        ("not", "b64") => !arg(1),
        ("shl", "b32") => (arg(1) as u32).checked_shl(read(2, "u32") as u32).unwrap_or(0).into(),
        ("shl", "b64") => arg(1).checked_shl(read(2, "u32") as u32).unwrap_or(0),
        ("shr", "u32") => (arg(1) as u32).checked_shr(read(2, "u32") as u32).unwrap_or(0).into(),
        ("shr", "s32") => ((arg(1) as i32) >> (read(2, "u32") as u32).min(31)) as u32 as u64,
        ("shr", "u64") => arg(1).checked_shr(read(2, "u32") as u32).unwrap_or(0),
        ("shr", "s64") => ((arg(1) as i64) >> (read(2, "u32") as u32).min(63)) as u64,
        (name, "f32") => {
            let x = |i| f32::from_bits(arg(i) as u32);
            let y = match (name, parts[1]) {
                ("abs", _) => return u64::from(arg(1) as u32 & 0x7fff_ffff),
                ("neg", _) => return u64::from(arg(1) as u32 ^ 0x8000_0000),
                ("add", "rn") => x(1) + x(2),
                ("sub", "rn") => x(1) - x(2),
                ("mul", "rn") => x(1) * x(2),
                ("div", "rn") => x(1) / x(2),
                ("sqrt", "rn") => x(1).sqrt(),
                ("min", "NaN") => {
                    if x(1).is_nan() || x(2).is_nan() {
                        f32::NAN
                    } else {
                        x(1).min(x(2))
                    }
                }
                ("max", "NaN") => {
                    if x(1).is_nan() || x(2).is_nan() {
                        f32::NAN
                    } else {
                        x(1).max(x(2))
                    }
                }
                _ => panic!("{parts:?}"),
            };
            y.to_bits().into()
        }
        (name, "f64") => float64(name, parts[1], &|i| f64::from_bits(arg(i))).to_bits(),
        (name, "s64") => integer(name, parts[1], &|i| arg(i) as i64) as u64,
        (name, "s32" | "u32") => {
            let (a, b) = (arg(1) as u32, arg(2) as u32);
            match name {
                "add" => a.wrapping_add(b).into(),
                "sub" => a.wrapping_sub(b).into(),
                _ => panic!("{parts:?}"),
            }
        }
        _ => panic!("{parts:?}"),
    }
}

fn float64(name: &str, rounding: &str, x: &dyn Fn(usize) -> f64) -> f64 {
    match (name, rounding) {
        ("abs", _) => x(1).abs(),
        ("neg", _) => -x(1),
        ("add", "rn") => x(1) + x(2),
        ("sub", "rn") => x(1) - x(2),
        ("mul", "rn") => x(1) * x(2),
        ("div", "rn") => x(1) / x(2),
        ("div", "rz") => {
            let (a, b) = (x(1), x(2));
            let q = a / b;
            // One too far from 0 when the remainder has the other sign.
            let past = (q.is_infinite() && a.is_finite() && b != 0.0) || q.mul_add(-b, a) * a.signum() < 0.0;
            if past { f64::from_bits(q.to_bits() - 1) } else { q }
        }
        ("rcp", "rn") => 1.0 / x(1),
        ("sqrt", "rn") => x(1).sqrt(),
        ("fma", "rn") => x(1).mul_add(x(2), x(3)),
        // The first operand's sign on the second.
        ("copysign", _) => x(2).copysign(x(1)),
        _ => panic!("{name}.{rounding}.f64"),
    }
}

fn integer(name: &str, part: &str, x: &dyn Fn(usize) -> i64) -> i64 {
    match (name, part) {
        ("add", _) => x(1).wrapping_add(x(2)),
        ("sub", _) => x(1).wrapping_sub(x(2)),
        ("mul", "lo") => x(1).wrapping_mul(x(2)),
        ("neg", _) => x(1).wrapping_neg(),
        ("abs", _) => x(1).wrapping_abs(),
        ("min", _) => x(1).min(x(2)),
        ("max", _) => x(1).max(x(2)),
        // Undefined on a device where these panic.
        ("div", _) => x(1).checked_div(x(2)).expect("a defined quotient"),
        ("rem", _) => x(1).checked_rem(x(2)).expect("a defined remainder"),
        _ => panic!("{name}.{part}.s64"),
    }
}

fn compare(parts: &[&str], [a, b]: [u64; 2], other: &dyn Fn() -> u64) -> bool {
    let ty = parts[parts.len() - 1];
    let order = match ty {
        "f32" => f32::from_bits(a as u32).partial_cmp(&f32::from_bits(b as u32)),
        "f64" => f64::from_bits(a).partial_cmp(&f64::from_bits(b)),
        "s64" => Some((a as i64).cmp(&(b as i64))),
        "u64" => Some(a.cmp(&b)),
        "u32" => Some((a as u32).cmp(&(b as u32))),
        _ => panic!("setp of {ty}"),
    };
    use std::cmp::Ordering::*;
    let (name, unordered) = match parts[1].strip_suffix('u') {
        Some(name) if ty.starts_with('f') => (name, true),
        _ => (parts[1], false),
    };
    let holds = match (name, order) {
        ("nan", o) => o.is_none(),
        (_, None) => unordered,
        ("lt", Some(o)) => o == Less,
        ("le", Some(o)) => o != Greater,
        ("gt", Some(o)) => o == Greater,
        ("ge", Some(o)) => o != Less,
        ("eq", Some(o)) => o == Equal,
        ("ne", Some(o)) => o != Equal,
        _ => panic!("{parts:?}"),
    };
    match parts[2] {
        "or" => holds | (other() != 0),
        "and" => holds & (other() != 0),
        "xor" => holds ^ (other() != 0),
        _ => holds,
    }
}

/// Smallest and largest value of an integer type.
fn limits(ty: &str) -> Option<(i128, i128)> {
    let bits: u32 = ty.get(1..)?.parse().ok()?;
    match &ty[..1] {
        "s" => Some((-(1 << (bits - 1)), (1 << (bits - 1)) - 1)),
        "u" => Some((0, (1 << bits) - 1)),
        _ => None,
    }
}

fn convert(modifiers: &[&str], to: &str, from: &str, bits: u64) -> u64 {
    let rounding = modifiers.first().copied().unwrap_or("");
    if let Some((lo, _)) = limits(from) {
        let width: u32 = from[1..].parse().unwrap();
        let low = i128::from(bits) & ((1 << width) - 1);
        let value = if lo < 0 && low >> (width - 1) & 1 == 1 { low - (1 << width) } else { low };
        return match to {
            "f32" => u64::from((value as f32).to_bits()),
            "f64" => (value as f64).to_bits(),
            // Wraps, then is extended to the register by its sign.
            _ => {
                let (lo, hi) = limits(to).unwrap();
                let wrapped = value & (hi - lo);
                (if wrapped > hi { wrapped - (hi - lo + 1) } else { wrapped }) as u64
            }
        };
    }
    let x = match from {
        "f16" => f16::from_bits(bits as u16).to_f64(),
        "f32" => f32::from_bits(bits as u32).into(),
        "f64" => f64::from_bits(bits),
        _ => panic!("cvt from {from}"),
    };
    let whole = match rounding {
        "rni" => x.round_ties_even(),
        "rzi" => x.trunc(),
        "rmi" => x.floor(),
        "rpi" => x.ceil(),
        _ => x,
    };
    match (to, limits(to)) {
        // NaN gives 0, but from f64 or to 64 bits the smallest integer, or 2^63.
        (_, Some(_)) if x.is_nan() && from == "f32" && !to.ends_with("64") => 0,
        (_, Some(_)) if x.is_nan() => 1 << (to[1..].parse::<u32>().unwrap() - 1),
        (_, Some((lo, hi))) => (whole as i128).clamp(lo, hi) as u64,
        ("f16", _) => {
            assert!(rounding == "rn");
            halfbyte::base::round::to_f16(x).to_bits().into()
        }
        ("bf16", _) => half::bf16::from_f32(x as f32).to_bits().into(),
        ("f32", _) if rounding == "rz" => {
            let near = x as f32;
            let past = f64::from(near).abs() > x.abs();
            u64::from(near.to_bits() - u32::from(past))
        }
        ("f32", _) => u64::from((whole as f32).to_bits()),
        ("f64", _) => whole.to_bits(),
        _ => panic!("cvt to {to}"),
    }
}
