//! Steps to WGSL: each is one `let`.

use super::convert::{loaded, stored, value_type};
use crate::base::DType;
use crate::error::{Error, Result};
use crate::scalar::steps::Step;
use crate::scalar::{Binary, Domain, Steps, Unary};

/// Whether a module with this formula needs 64-bit integers, and f64.
pub fn needs(steps: &Steps) -> (bool, bool) {
    let wide = |d: DType| matches!(d, DType::I64 | DType::U64);
    let integers = steps.domain == Domain::I64 || wide(steps.out) || steps.args.iter().any(|&d| wide(d));
    (integers, steps.domain == Domain::F64)
}

/// The formula as `fn name(a0: T, ..) -> T` of values of the domain's type: [`super::loaded`] gives the arguments,
/// [`super::stored`] takes the result. It calls [`super::support()`]. A product that goes into a sum is rounded by itself on every
/// device. Errors for what WGSL cannot compute well in that domain: functions of f64 and of integers that are not f32's.
pub fn function(name: &str, steps: &Steps) -> Result<String> {
    let emit = Emit::new(steps);
    let summed = summed(&steps.steps);
    let expression = |(i, &step): (usize, &Step)| {
        let expression = emit.step(step)?;
        let is_rounded = summed[i] && steps.domain == Domain::F32 && matches!(step, Step::Binary(Binary::Mul, ..));
        Ok(if is_rounded { format!("hb_exact({expression})") } else { expression })
    };
    Ok(defined(name, steps, steps.steps.iter().enumerate().map(expression).collect::<Result<_>>()?))
}

/// The same with the CPU's bits, for formulas of f32: every step is rounded by itself, also where that costs much more, as quotients do.
/// It calls [`super::support_exact`] too. Errors for functions that cost too much so, and for other types.
pub fn exact_function(name: &str, steps: &Steps) -> Result<String> {
    let emit = Emit::new(steps);
    Ok(defined(name, steps, steps.steps.iter().map(|&step| emit.exact(step)).collect::<Result<_>>()?))
}

/// The function whose steps are these expressions.
fn defined(name: &str, steps: &Steps, expressions: Vec<String>) -> String {
    let value = value_type(steps.domain);
    let args: Vec<String> = (0..steps.args.len()).map(|i| format!("a{i}: {value}")).collect();
    let lets: String = expressions.iter().enumerate().map(|(i, e)| format!("  let v{i} = {e};\n")).collect();
    let last = expressions.len().saturating_sub(1);
    format!("fn {name}({}) -> {value} {{\n{lets}  return v{last};\n}}\n", args.join(", "))
}

/// Of each step, whether it goes into a sum or difference, by itself or negated.
fn summed(steps: &[Step]) -> Vec<bool> {
    let mut summed = vec![false; steps.len()];
    for (i, step) in steps.iter().enumerate().rev() {
        match *step {
            Step::Binary(Binary::Add | Binary::Sub, a, b) => (summed[a], summed[b]) = (true, true),
            Step::Unary(Unary::Neg, a) if summed[i] => summed[a] = true,
            _ => {}
        }
    }
    summed
}

struct Emit {
    domain: Domain,
    /// Of the support functions for the domain's floats.
    suffix: &'static str,
}

impl Emit {
    fn new(steps: &Steps) -> Emit {
        Emit { domain: steps.domain, suffix: if steps.domain == Domain::F64 { "_f64" } else { "" } }
    }

    /// The step as the CPU rounds it.
    fn exact(&self, step: Step) -> Result<String> {
        use Unary::*;
        match step {
            _ if self.domain != Domain::F32 => Err(self.unsupported(&step)),
            Step::Binary(Binary::Add | Binary::Sub | Binary::Mul, ..) => Ok(format!("hb_exact({})", self.step(step)?)),
            Step::Binary(Binary::Div, a, b) => Ok(format!("hb_div(v{a}, v{b})")),
            Step::Unary(op @ (Exp | Log | Tanh | Erf), a) => Ok(format!("hb_cpu_{}(v{a})", format!("{op:?}").to_lowercase())),
            Step::Unary(Sqrt | Sin | Cos | Tan | Asin | Acos | Atan | Sinh | Cosh | Asinh | Acosh | Atanh, _)
            | Step::Binary(Binary::Pow, ..) => Err(self.unsupported(&step)),
            _ => self.step(step),
        }
    }

    fn step(&self, step: Step) -> Result<String> {
        Ok(match step {
            Step::Arg(i) => format!("a{i}"),
            Step::Constant(v) => self.literal(v),
            Step::Unary(op, a) => return self.unary(op, &format!("v{a}")),
            Step::Binary(op, a, b) => return self.binary(op, &format!("v{a}"), &format!("v{b}")),
            Step::Select(c, a, b) => format!("select(v{b}, v{a}, {})", self.truth(&format!("v{c}"))),
            Step::Cast(d, a) => self.cast(d, &format!("v{a}")),
        })
    }

    /// Whether a value counts as true.
    fn truth(&self, v: &str) -> String {
        if self.domain == Domain::I64 { format!("({v} != 0li)") } else { format!("hb_true{}({v})", self.suffix) }
    }

    /// 1 or 0.
    fn number(&self, truth: &str) -> String {
        format!("select({}, {}, {truth})", self.literal(0.0), self.literal(1.0))
    }

    /// WGSL refuses infinities and NaN as literals, and subnormal ones and -0 may lose what they are.
    fn literal(&self, v: f64) -> String {
        match self.domain {
            Domain::F32 if v as f32 == 0.0 && v.is_sign_positive() || (v as f32).is_normal() => format!("{:?}f", v as f32),
            Domain::F32 => format!("hb_float({}u)", (v as f32).to_bits()),
            Domain::F64 if v.is_finite() => format!("{v:?}lf"),
            Domain::F64 => format!("f64(hb_float({}u))", (v as f32).to_bits()),
            Domain::I64 if v as i64 == i64::MIN => "i64(1lu << 63u)".into(),
            Domain::I64 => format!("{}li", v as i64),
        }
    }

    /// What storing and loading gives. Where the domain is not i64, integers of 64 bits stay floats.
    fn cast(&self, to: DType, v: &str) -> String {
        let whole = |lo: f64, hi: f64| format!("hb_whole{}({v}, {}, {})", self.suffix, self.literal(lo), self.literal(hi));
        match (to, self.domain) {
            (DType::I64 | DType::U64 | DType::F32 | DType::F16 | DType::BF16 | DType::F64, Domain::I64)
            | (DType::F64, _)
            | (DType::F32, Domain::F32) => v.into(),
            (DType::I64, _) => whole(i64::MIN as f64, i64::MAX as f64),
            (DType::U64, _) => whole(0.0, u64::MAX as f64),
            _ => loaded(to, self.domain, &stored(to, self.domain, v)),
        }
    }

    fn unsupported(&self, op: &dyn std::fmt::Debug) -> Error {
        let why = format!("WGSL cannot compute it accurately in {}", value_type(self.domain));
        Error::Unsupported { at: format!("{op:?} as WGSL"), why }
    }

    fn unary(&self, op: Unary, v: &str) -> Result<String> {
        use Unary::*;
        let suffix = self.suffix;
        Ok(match (op, self.domain) {
            (Neg, Domain::I64) => format!("0li - {v}"),
            (Neg, _) => format!("-{v}"),
            (Abs, Domain::I64) => format!("select({v}, 0li - {v}, {v} < 0li)"),
            (Sign, Domain::I64) => format!("clamp({v}, -1li, 1li)"),
            (Floor | Ceil | Round | Trunc, Domain::I64) => v.into(),
            (IsNan | IsPosInf | IsNegInf, Domain::I64) => "0li".into(),
            (Not, _) => self.number(&format!("!{}", self.truth(v))),
            (BitNot, Domain::I64) => format!("~{v}"),
            (BitNot, _) => format!("hb_from_wide{suffix}(~hb_to_wide{suffix}({v}))"),
            (_, Domain::I64) => return Err(self.unsupported(&op)),
            // Half to even.
            (Abs | Floor | Ceil | Round | Trunc, _) => format!("{}({v})", format!("{op:?}").to_lowercase()),
            (Sign, _) => format!("hb_sign{suffix}({v})"),
            (IsNan, _) => self.number(&format!("hb_is_nan{suffix}({v})")),
            (IsPosInf, Domain::F32) => self.number(&format!("(bitcast<u32>({v}) == 0x7f800000u)")),
            (IsNegInf, Domain::F32) => self.number(&format!("(bitcast<u32>({v}) == 0xff800000u)")),
            (IsPosInf, Domain::F64) => self.number(&format!("({v} > {:?}lf)", f64::MAX)),
            (IsNegInf, Domain::F64) => self.number(&format!("({v} < {:?}lf)", f64::MIN)),
            (Sqrt, Domain::F64) => format!("sqrt({v})"),
            (_, Domain::F64) => return Err(self.unsupported(&op)),
            (_, Domain::F32) => format!("hb_{}({v})", format!("{op:?}").to_lowercase()),
        })
    }

    fn binary(&self, op: Binary, a: &str, b: &str) -> Result<String> {
        use Binary::*;
        let (suffix, name) = (self.suffix, format!("{op:?}").to_lowercase());
        let compare = |o: &str| match self.domain {
            Domain::I64 => self.number(&format!("({a} {o} {b})")),
            _ => self.number(&format!("({a} {o} {b} && hb_ordered{suffix}({a}, {b}))")),
        };
        let logic = |o: &str| self.number(&format!("({} {o} {})", self.truth(a), self.truth(b)));
        let wide = |v: &str| format!("hb_to_wide{suffix}({v})");
        let bits = |o: &str| match self.domain {
            Domain::I64 => format!("{a} {o} {b}"),
            _ => format!("hb_from_wide{suffix}({} {o} {})", wide(a), wide(b)),
        };
        let shift = |side: &str| match self.domain {
            Domain::I64 => format!("hb_shift_{side}_i64({a}, {b})"),
            _ => format!("hb_from_wide{suffix}(hb_shift_{side}({}, hb_count{suffix}({b})))", wide(a)),
        };
        Ok(match (op, self.domain) {
            (Add, _) => format!("{a} + {b}"),
            (Sub, _) => format!("{a} - {b}"),
            (Mul, _) => format!("{a} * {b}"),
            (Min | Max, Domain::I64) => format!("{name}({a}, {b})"),
            (Min | Max, _) => format!("hb_{name}{suffix}({a}, {b})"),
            (Div | Pow | Rem | Modulo, Domain::I64) => format!("hb_{name}_i64({a}, {b})"),
            (Div, _) => format!("{a} / {b}"),
            (Pow | Rem | Modulo, Domain::F64) => return Err(self.unsupported(&op)),
            (Pow | Rem | Modulo, Domain::F32) => format!("hb_{name}({a}, {b})"),
            (Less, _) => compare("<"),
            (LessEqual, _) => compare("<="),
            (Equal, _) => compare("=="),
            (And, _) => logic("&&"),
            (Or, _) => logic("||"),
            (Xor, _) => logic("!="),
            (BitAnd, _) => bits("&"),
            (BitOr, _) => bits("|"),
            (BitXor, _) => bits("^"),
            (ShiftLeft, _) => shift("left"),
            (ShiftRight, _) => shift("right"),
        })
    }
}
