//! The formula builder: an expression over arguments, shared by every backend.

use std::sync::Arc;

use crate::base::DType;

/// An expression over arguments. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct Formula(pub(super) Arc<Expr>);

#[derive(Debug, PartialEq)]
pub(super) enum Expr {
    Arg(usize),
    Constant(f64),
    Unary(Unary, Formula),
    Binary(Binary, Formula, Formula),
    /// The second where the first is not 0, else the third.
    Select(Formula, Formula, Formula),
    Cast(DType, Formula),
}

/// Functions of one value. Truth is 1 and 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Unary {
    Neg,
    Abs,
    Exp,
    Log,
    Sqrt,
    Erf,
    Tanh,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Asinh,
    Acosh,
    Atanh,
    Floor,
    Ceil,
    /// Half to even.
    Round,
    Trunc,
    Sign,
    IsNan,
    /// 1 for positive infinity.
    IsPosInf,
    /// 1 for negative infinity.
    IsNegInf,
    /// Logical.
    Not,
    /// Of all 64 bits; the store or a cast keeps those of the type.
    BitNot,
}

/// Functions of two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    /// Of integers: toward zero, and 0 when the divisor is 0.
    Div,
    /// NaN if either is NaN.
    Min,
    /// NaN if either is NaN.
    Max,
    Pow,
    /// Remainder with the dividend's sign (C's fmod).
    Rem,
    /// Remainder with the divisor's sign (Python's %).
    Modulo,
    Less,
    LessEqual,
    Equal,
    And,
    Or,
    Xor,
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
}

/// Argument `i`.
pub fn arg(i: usize) -> Formula {
    Formula(Expr::Arg(i).into())
}

/// A literal.
pub fn constant(v: f64) -> Formula {
    Formula(Expr::Constant(v).into())
}

impl Formula {
    /// A function of one value.
    pub fn unary(self, op: Unary) -> Formula {
        Formula(Expr::Unary(op, self).into())
    }

    /// A function of two values.
    pub fn binary(self, op: Binary, other: Formula) -> Formula {
        Formula(Expr::Binary(op, self, other).into())
    }

    /// `a` where `self` is not 0, else `b`.
    pub fn select(self, a: Formula, b: Formula) -> Formula {
        Formula(Expr::Select(self, a, b).into())
    }

    /// The value that storing as `dtype` and loading again gives: floats round half to even, float to integer truncates and
    /// saturates, integers wrap, bool is "not 0".
    pub fn cast(self, dtype: DType) -> Formula {
        Formula(Expr::Cast(dtype, self).into())
    }

    /// `e^self`.
    pub fn exp(self) -> Formula {
        self.unary(Unary::Exp)
    }

    /// Natural logarithm.
    pub fn log(self) -> Formula {
        self.unary(Unary::Log)
    }

    /// Square root.
    pub fn sqrt(self) -> Formula {
        self.unary(Unary::Sqrt)
    }

    /// Hyperbolic tangent.
    pub fn tanh(self) -> Formula {
        self.unary(Unary::Tanh)
    }

    /// Error function.
    pub fn erf(self) -> Formula {
        self.unary(Unary::Erf)
    }

    /// Magnitude.
    pub fn abs(self) -> Formula {
        self.unary(Unary::Abs)
    }

    /// Nearest integer, half to even.
    pub fn round(self) -> Formula {
        self.unary(Unary::Round)
    }

    /// Larger of the two.
    pub fn max(self, other: Formula) -> Formula {
        self.binary(Binary::Max, other)
    }

    /// Smaller of the two.
    pub fn min(self, other: Formula) -> Formula {
        self.binary(Binary::Min, other)
    }

    /// `self^other`.
    pub fn pow(self, other: Formula) -> Formula {
        self.binary(Binary::Pow, other)
    }

    /// 1 when less, else 0.
    pub fn less(self, other: Formula) -> Formula {
        self.binary(Binary::Less, other)
    }

    /// 1 when equal, else 0.
    pub fn equal(self, other: Formula) -> Formula {
        self.binary(Binary::Equal, other)
    }

    /// `1 / (1 + e^-self)`.
    pub fn sigmoid(self) -> Formula {
        constant(1.0) / ((-self).exp() + 1.0)
    }

    /// Within `[lo, hi]`.
    pub fn clip(self, lo: f64, hi: f64) -> Formula {
        self.max(constant(lo)).min(constant(hi))
    }

    /// The formula with `args[i]` in place of `arg(i)`. Arguments beyond `args` stay.
    pub fn compose(&self, args: &[Formula]) -> Formula {
        let go = |f: &Formula| f.compose(args);
        match &*self.0 {
            Expr::Arg(i) => args.get(*i).unwrap_or(self).clone(),
            Expr::Constant(_) => self.clone(),
            Expr::Unary(op, a) => go(a).unary(*op),
            Expr::Binary(op, a, b) => go(a).binary(*op, go(b)),
            Expr::Select(c, a, b) => go(c).select(go(a), go(b)),
            Expr::Cast(d, a) => go(a).cast(*d),
        }
    }

    /// Number of operations, common ones counted as often as they are written.
    pub fn size(&self) -> usize {
        match &*self.0 {
            Expr::Arg(_) | Expr::Constant(_) => 0,
            Expr::Unary(_, a) | Expr::Cast(_, a) => 1 + a.size(),
            Expr::Binary(_, a, b) => 1 + a.size() + b.size(),
            Expr::Select(c, a, b) => 1 + c.size() + a.size() + b.size(),
        }
    }

    /// The largest magnitude of a constant in it, 0 without any.
    pub fn largest_constant(&self) -> f64 {
        match &*self.0 {
            Expr::Arg(_) => 0.0,
            Expr::Constant(v) => v.abs(),
            Expr::Unary(_, a) | Expr::Cast(_, a) => a.largest_constant(),
            Expr::Binary(_, a, b) => a.largest_constant().max(b.largest_constant()),
            Expr::Select(c, a, b) => [c, a, b].iter().map(|f| f.largest_constant()).fold(0.0, f64::max),
        }
    }

    /// One more than the highest argument.
    pub fn arity(&self) -> usize {
        match &*self.0 {
            Expr::Arg(i) => i + 1,
            Expr::Constant(_) => 0,
            Expr::Unary(_, a) | Expr::Cast(_, a) => a.arity(),
            Expr::Binary(_, a, b) => a.arity().max(b.arity()),
            Expr::Select(c, a, b) => c.arity().max(a.arity()).max(b.arity()),
        }
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $op:ident),*) => { $(
        impl std::ops::$trait for Formula {
            type Output = Formula;
            fn $method(self, other: Formula) -> Formula { self.binary(Binary::$op, other) }
        }
        impl std::ops::$trait<f64> for Formula {
            type Output = Formula;
            fn $method(self, other: f64) -> Formula { self.binary(Binary::$op, constant(other)) }
        }
    )* };
}
operators!(Add add Add, Sub sub Sub, Mul mul Mul, Div div Div);

impl std::ops::Neg for Formula {
    type Output = Formula;
    fn neg(self) -> Formula {
        self.unary(Unary::Neg)
    }
}
