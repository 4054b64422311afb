//! A formula as a list of steps without repeats, and the f64 oracle.

use super::formula::{Binary, Expr, Formula, Unary};
use crate::base::{DType, round};

/// What a formula computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Domain {
    F32,
    F64,
    I64,
}

impl Domain {
    /// f64 if any type is, else f32 if any is a float, else i64.
    pub fn of(types: impl IntoIterator<Item = DType>) -> Domain {
        types.into_iter().fold(Domain::I64, |d, t| match (d, t) {
            (Domain::F64, _) | (_, DType::F64) => Domain::F64,
            (_, t) if t.is_float() => Domain::F32,
            (d, _) => d,
        })
    }

    /// The type of its values.
    pub fn dtype(self) -> DType {
        match self {
            Domain::F32 => DType::F32,
            Domain::F64 => DType::F64,
            Domain::I64 => DType::I64,
        }
    }
}

/// One operation on earlier steps.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum Step {
    Arg(usize),
    Constant(f64),
    Unary(Unary, usize),
    Binary(Binary, usize, usize),
    Select(usize, usize, usize),
    Cast(DType, usize),
}

/// A formula in static single assignment; the last step is the result.
#[derive(Debug, Clone, PartialEq)]
pub struct Steps {
    /// What it computes in.
    pub domain: Domain,
    /// Types of the arguments.
    pub args: Vec<DType>,
    /// Type stored.
    pub out: DType,
    /// The steps.
    pub steps: Vec<Step>,
}

impl Steps {
    /// Compiles `formula` for arguments of the given types. Errors when it reads an argument that is not there.
    pub fn compile(formula: &Formula, args: &[DType], out: DType) -> crate::Result<Steps> {
        if formula.arity() > args.len() {
            let why = format!("a formula of {} arguments is given {}", formula.arity(), args.len());
            return Err(crate::Error::BadInput(why));
        }
        let domain = Domain::of(args.iter().copied().chain([out]));
        let mut steps = Steps { domain, args: args.to_vec(), out, steps: Vec::new() };
        let last = steps.add(formula);
        // A formula that ends in a step it already had (x with x computed before) reads it as the result.
        steps.steps.truncate(last + 1);
        Ok(steps)
    }

    fn add(&mut self, formula: &Formula) -> usize {
        let step = match &*formula.0 {
            Expr::Arg(i) => Step::Arg(*i),
            Expr::Constant(v) => Step::Constant(*v),
            Expr::Unary(op, a) => Step::Unary(*op, self.add(a)),
            // The one power that models are full of.
            Expr::Binary(Binary::Pow, a, b) if *b.0 == Expr::Constant(2.0) => {
                let a = self.add(a);
                Step::Binary(Binary::Mul, a, a)
            }
            Expr::Binary(op, a, b) => Step::Binary(*op, self.add(a), self.add(b)),
            Expr::Select(c, a, b) => Step::Select(self.add(c), self.add(a), self.add(b)),
            // What is computed in a type is of that type already.
            Expr::Cast(d, a) if *d == self.domain.dtype() => return self.add(a),
            Expr::Cast(d, a) => Step::Cast(*d, self.add(a)),
        };
        let same = |s: &Step| match (s, &step) {
            (Step::Constant(a), Step::Constant(b)) => a.to_bits() == b.to_bits(),
            (a, b) => a == b,
        };
        self.steps.iter().position(same).unwrap_or_else(|| {
            self.steps.push(step);
            self.steps.len() - 1
        })
    }

    /// The formula in f64: what every backend is measured against.
    pub fn eval(&self, args: &[f64]) -> f64 {
        let mut values: Vec<f64> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            values.push(match *step {
                Step::Arg(i) => args[i],
                Step::Constant(v) => v,
                Step::Unary(op, a) => self.unary(op, values[a]),
                Step::Binary(op, a, b) => self.binary(op, values[a], values[b]),
                Step::Select(c, a, b) => values[if values[c] != 0.0 { a } else { b }],
                Step::Cast(d, a) => self.cast(d, values[a]),
            });
        }
        values.last().copied().unwrap_or(f64::NAN)
    }

    /// What storing `x` as `dtype` and loading it again gives in this domain: from integers, integers wrap; from floats,
    /// they truncate and saturate. Exact for integers below 2^53.
    pub fn cast(&self, dtype: DType, x: f64) -> f64 {
        match (self.domain, dtype) {
            (Domain::I64, DType::I8) => (x as i64 as i8).into(),
            (Domain::I64, DType::U8) => (x as i64 as u8).into(),
            (Domain::I64, DType::I16) => (x as i64 as i16).into(),
            (Domain::I64, DType::U16) => (x as i64 as u16).into(),
            (Domain::I64, DType::I32) => (x as i64 as i32).into(),
            (Domain::I64, DType::U32) => (x as i64 as u32).into(),
            (Domain::I64, d) if d != DType::Bool => x,
            _ => cast(dtype, x),
        }
    }

    /// What storing the result keeps.
    pub fn stored(&self, x: f64) -> f64 {
        match (self.domain, self.out) {
            (Domain::I64, DType::U64) => (x as i64 as u64) as f64,
            _ => self.cast(self.out, x),
        }
    }

    /// Of integers: truncated.
    pub(super) fn unary(&self, op: Unary, x: f64) -> f64 {
        let y = unary(op, x);
        if self.domain == Domain::I64 { y.trunc() } else { y }
    }

    pub(super) fn binary(&self, op: Binary, a: f64, b: f64) -> f64 {
        let truth = |t: bool| t.into();
        match op {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div if self.domain == Domain::I64 => {
                if b == 0.0 {
                    0.0
                } else {
                    (a / b).trunc()
                }
            }
            Binary::Div => a / b,
            Binary::Min => {
                if a.is_nan() || b.is_nan() {
                    f64::NAN
                } else {
                    a.min(b)
                }
            }
            Binary::Max => {
                if a.is_nan() || b.is_nan() {
                    f64::NAN
                } else {
                    a.max(b)
                }
            }
            Binary::Pow if self.domain == Domain::I64 => a.powf(b).trunc(),
            Binary::Pow => a.powf(b),
            Binary::Rem => {
                if b == 0.0 && self.domain == Domain::I64 {
                    0.0
                } else {
                    a % b
                }
            }
            Binary::Modulo => {
                if b == 0.0 && self.domain == Domain::I64 {
                    0.0
                } else {
                    let r = a % b;
                    if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r }
                }
            }
            Binary::Less => truth(a < b),
            Binary::LessEqual => truth(a <= b),
            Binary::Equal => truth(a == b),
            Binary::And => truth(a != 0.0 && b != 0.0),
            Binary::Or => truth(a != 0.0 || b != 0.0),
            Binary::Xor => truth((a != 0.0) != (b != 0.0)),
            Binary::BitAnd => (a as i64 & b as i64) as f64,
            Binary::BitOr => (a as i64 | b as i64) as f64,
            Binary::BitXor => (a as i64 ^ b as i64) as f64,
            Binary::ShiftLeft => shift(a, b, u64::checked_shl),
            Binary::ShiftRight => shift(a, b, u64::checked_shr),
        }
    }
}

/// Of all 64 bits; 0 when they are shifted out.
fn shift(a: f64, b: f64, by: fn(u64, u32) -> Option<u64>) -> f64 {
    u32::try_from(b as i64).ok().and_then(|b| by(a as i64 as u64, b)).unwrap_or(0) as i64 as f64
}

fn unary(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Erf => erf(x),
        Unary::Tanh => x.tanh(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tan => x.tan(),
        Unary::Asin => x.asin(),
        Unary::Acos => x.acos(),
        Unary::Atan => x.atan(),
        Unary::Sinh => x.sinh(),
        Unary::Cosh => x.cosh(),
        Unary::Asinh => x.asinh(),
        Unary::Acosh => x.acosh(),
        Unary::Atanh => x.atanh(),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round_ties_even(),
        Unary::Trunc => x.trunc(),
        Unary::Sign => {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x
            }
        }
        Unary::IsNan => x.is_nan().into(),
        Unary::IsPosInf => (x == f64::INFINITY).into(),
        Unary::IsNegInf => (x == f64::NEG_INFINITY).into(),
        Unary::Not => (x == 0.0).into(),
        Unary::BitNot => !(x as i64) as f64,
    }
}

/// What storing `x` as `dtype` keeps: floats round, integers truncate and saturate, bool is "not 0".
#[inline(always)]
pub(super) fn cast(dtype: DType, x: f64) -> f64 {
    match dtype {
        DType::F64 => x,
        DType::F32 => x as f32 as f64,
        DType::F16 => round::to_f16(x).to_f64(),
        DType::BF16 => round::to_bf16(x).to_f64(),
        DType::Bool => (x != 0.0).into(),
        DType::I8 => x as i8 as f64,
        DType::U8 => x as u8 as f64,
        DType::I16 => x as i16 as f64,
        DType::U16 => x as u16 as f64,
        DType::I32 => x as i32 as f64,
        DType::U32 => x as u32 as f64,
        DType::I64 => x as i64 as f64,
        DType::U64 => x as u64 as f64,
    }
}

/// Error function by its Maclaurin series below 3 and its continued fraction above (Abramowitz and Stegun 7.1.6, 7.1.14).
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return x;
    }
    let magnitude = if a < 3.0 {
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term.abs() > 1e-17 * sum.abs() {
            n += 1.0;
            term *= 2.0 * a * a / (2.0 * n + 1.0);
            sum += term;
        }
        sum * (-a * a).exp() * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let fraction = (1..=60).rev().fold(a, |f, k| a + f64::from(k) / 2.0 / f);
        1.0 - (-a * a).exp() / (fraction * std::f64::consts::PI.sqrt())
    };
    magnitude.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::super::{arg, constant};
    use super::*;

    #[test]
    fn common_subexpressions_are_one_step() {
        let s = arg(0).sigmoid() * arg(0).sigmoid();
        let steps = Steps::compile(&s, &[DType::F32], DType::F32).unwrap();
        assert_eq!(steps.steps.len(), 7, "{steps:?}");
        assert!((steps.eval(&[0.0]) - 0.25).abs() < 1e-15);
    }

    #[test]
    fn the_oracle_knows_erf() {
        for (x, want) in
            [(0.5, 0.5204998778130465), (1.0, 0.8427007929497149), (3.5, 0.9999992569016276), (-2.0, -0.9953222650189527)]
        {
            assert!((erf(x) - want).abs() < 1e-15, "erf({x}) = {}", erf(x));
        }
    }

    #[test]
    fn arguments_that_are_missing_are_an_error() {
        assert!(Steps::compile(&(arg(1) + constant(1.0)), &[DType::F32], DType::F32).is_err());
    }
}
