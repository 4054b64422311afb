//! The three number types that formulas compute in.

use super::math;
use crate::base::DType;
use crate::scalar::{Binary, Unary};

/// f32, f64 or i64 with every function of formulas.
pub(super) trait Number: bytemuck::Pod + PartialOrd {
    /// Its type in memory.
    const DTYPE: DType;
    fn from_f64(x: f64) -> Self;
    fn from_i64(x: i64) -> Self;
    /// Wrapping in i64.
    fn from_u64(x: u64) -> Self;
    fn to_f64(self) -> f64;
    /// Saturating toward i64, truncating.
    fn to_i64(self) -> i64;
    /// Truncating and saturating toward a range of at most 2^22; of NaN, 0.
    fn to_i32_in(self, low: i32, high: i32) -> i32;
    fn truth(t: bool) -> Self;
    fn unary(op: Unary, x: Self) -> Self;
    fn binary(op: Binary, a: Self, b: Self) -> Self;
    fn is_true(self) -> bool;
    fn cast(dtype: DType, x: Self) -> Self;
}

macro_rules! float_number {
    ($t:ty, $dtype:expr, $exp:expr, $log:expr, $tanh:expr, $erf:expr) => {
        impl Number for $t {
            const DTYPE: DType = $dtype;
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn from_i64(x: i64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn from_u64(x: u64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn to_i64(self) -> i64 {
                self as i64
            }
            #[inline(always)]
            fn to_i32_in(self, low: i32, high: i32) -> i32 {
                math::to_i32(self.clamp(low as $t, high as $t).trunc() as f32)
            }
            #[inline(always)]
            fn truth(t: bool) -> Self {
                if t { 1.0 } else { 0.0 }
            }
            #[inline(always)]
            fn is_true(self) -> bool {
                self != 0.0
            }
            #[inline(always)]
            fn cast(dtype: DType, x: Self) -> Self {
                match dtype {
                    DType::I8 => x.to_i32_in(i8::MIN.into(), i8::MAX.into()) as $t,
                    DType::U8 => x.to_i32_in(u8::MIN.into(), u8::MAX.into()) as $t,
                    _ => crate::scalar::steps::cast(dtype, x as f64) as $t,
                }
            }
            #[inline(always)]
            fn unary(op: Unary, x: Self) -> Self {
                match op {
                    Unary::Exp => $exp(x),
                    Unary::Log => $log(x),
                    Unary::Tanh => $tanh(x),
                    Unary::Erf => $erf(x),
                    Unary::Neg => -x,
                    Unary::Abs => x.abs(),
                    Unary::Sqrt => x.sqrt(),
                    Unary::Floor => x.floor(),
                    Unary::Ceil => x.ceil(),
                    Unary::Round => x.round_ties_even(),
                    Unary::Trunc => x.trunc(),
                    other => float_unary(other, x as f64) as $t,
                }
            }
            #[inline(always)]
            fn binary(op: Binary, a: Self, b: Self) -> Self {
                float_binary!(op, a, b, $t)
            }
        }
    };
}

macro_rules! float_binary {
    ($op:expr, $a:expr, $b:expr, $t:ty) => {{
        let (a, b): ($t, $t) = ($a, $b);
        match $op {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Min => {
                if a < b || a.is_nan() {
                    a
                } else {
                    b
                }
            }
            Binary::Max => {
                if a > b || a.is_nan() {
                    a
                } else {
                    b
                }
            }
            Binary::Pow => a.powf(b),
            Binary::Rem => a % b,
            Binary::Modulo => {
                let r = a % b;
                if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r }
            }
            Binary::Less => Self::truth(a < b),
            Binary::LessEqual => Self::truth(a <= b),
            Binary::Equal => Self::truth(a == b),
            Binary::And => Self::truth(a != 0.0 && b != 0.0),
            Binary::Or => Self::truth(a != 0.0 || b != 0.0),
            Binary::Xor => Self::truth((a != 0.0) != (b != 0.0)),
            bits => i64::binary(bits, a as i64, b as i64) as $t,
        }
    }};
}

float_number!(f32, DType::F32, math::exp, math::log, math::tanh, math::erf);
float_number!(f64, DType::F64, f64::exp, f64::ln, f64::tanh, crate::scalar::steps::erf);

fn float_unary(op: Unary, x: f64) -> f64 {
    match op {
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
        Unary::Sign if x == 0.0 || x.is_nan() => x,
        Unary::Sign => x.signum(),
        Unary::IsNan => x.is_nan().into(),
        Unary::IsPosInf => (x == f64::INFINITY).into(),
        Unary::IsNegInf => (x == f64::NEG_INFINITY).into(),
        Unary::Not => (x == 0.0).into(),
        Unary::BitNot => !(x as i64) as f64,
        direct => unreachable!("{direct:?} is computed directly"),
    }
}

impl Number for i64 {
    const DTYPE: DType = DType::I64;
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x as i64
    }
    #[inline(always)]
    fn from_i64(x: i64) -> Self {
        x
    }
    #[inline(always)]
    fn from_u64(x: u64) -> Self {
        x as i64
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self as f64
    }
    #[inline(always)]
    fn to_i64(self) -> i64 {
        self
    }
    #[inline(always)]
    fn to_i32_in(self, low: i32, high: i32) -> i32 {
        self.clamp(low.into(), high.into()) as i32
    }
    #[inline(always)]
    fn truth(t: bool) -> Self {
        t.into()
    }
    #[inline(always)]
    fn is_true(self) -> bool {
        self != 0
    }
    #[inline(always)]
    fn cast(dtype: DType, x: Self) -> Self {
        match dtype {
            DType::Bool => (x != 0).into(),
            DType::I8 => (x as i8).into(),
            DType::U8 => (x as u8).into(),
            DType::I16 => (x as i16).into(),
            DType::U16 => (x as u16).into(),
            DType::I32 => (x as i32).into(),
            DType::U32 => (x as u32).into(),
            _ => x,
        }
    }
    #[inline(always)]
    fn unary(op: Unary, x: Self) -> Self {
        match op {
            Unary::Neg => x.wrapping_neg(),
            Unary::Abs => x.wrapping_abs(),
            Unary::Sign => x.signum(),
            Unary::Not => (x == 0).into(),
            Unary::BitNot => !x,
            Unary::Floor | Unary::Ceil | Unary::Round | Unary::Trunc => x,
            Unary::IsNan | Unary::IsPosInf | Unary::IsNegInf => 0,
            Unary::Exp => (x as f64).exp() as i64,
            Unary::Log => (x as f64).ln() as i64,
            Unary::Sqrt => (x as f64).sqrt() as i64,
            Unary::Tanh => (x as f64).tanh() as i64,
            Unary::Erf => crate::scalar::steps::erf(x as f64) as i64,
            other => float_unary(other, x as f64) as i64,
        }
    }
    #[inline(always)]
    fn binary(op: Binary, a: Self, b: Self) -> Self {
        match op {
            Binary::Add => a.wrapping_add(b),
            Binary::Sub => a.wrapping_sub(b),
            Binary::Mul => a.wrapping_mul(b),
            Binary::Div => {
                if b == 0 {
                    0
                } else {
                    a.wrapping_div(b)
                }
            }
            Binary::Min => a.min(b),
            Binary::Max => a.max(b),
            Binary::Pow => {
                if (0..64).contains(&b) {
                    a.wrapping_pow(b as u32)
                } else {
                    (a as f64).powf(b as f64) as i64
                }
            }
            Binary::Rem => {
                if b == 0 {
                    0
                } else {
                    a.wrapping_rem(b)
                }
            }
            Binary::Modulo => {
                if b == 0 {
                    0
                } else {
                    let r = a.wrapping_rem(b);
                    if r != 0 && (r < 0) != (b < 0) { r + b } else { r }
                }
            }
            Binary::Less => (a < b).into(),
            Binary::LessEqual => (a <= b).into(),
            Binary::Equal => (a == b).into(),
            Binary::And => (a != 0 && b != 0).into(),
            Binary::Or => (a != 0 || b != 0).into(),
            Binary::Xor => ((a != 0) != (b != 0)).into(),
            Binary::BitAnd => a & b,
            Binary::BitOr => a | b,
            Binary::BitXor => a ^ b,
            Binary::ShiftLeft => {
                if (0..64).contains(&b) {
                    a << b
                } else {
                    0
                }
            }
            Binary::ShiftRight => {
                if (0..64).contains(&b) {
                    (a as u64 >> b) as i64
                } else {
                    0
                }
            }
        }
    }
}
