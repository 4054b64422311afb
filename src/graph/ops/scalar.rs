//! Elementwise operators: each is a formula.

use crate::base::{DType, Shape};
use crate::error::Result;
use crate::graph::{Lower, OpDef, Refusal, Site, Type};
use crate::scalar::{Binary, Formula, Unary, arg, constant};

/// A row: name, rule for the output's type, formula.
const fn row(name: &'static str, infer: fn(&Site) -> Result<Vec<Type>, Refusal>, formula: fn(&Site) -> Result<Formula>) -> OpDef {
    OpDef { domain: "", name, infer, lower: Lower::Scalar(formula) }
}

const fn ms(name: &'static str, infer: fn(&Site) -> Result<Vec<Type>, Refusal>, formula: fn(&Site) -> Result<Formula>) -> OpDef {
    OpDef { domain: "com.microsoft", name, infer, lower: Lower::Scalar(formula) }
}

pub(super) static OPS: &[OpDef] = &[
    row("Abs", same, |_| Ok(arg(0).abs())),
    row("Add", same, |_| Ok(arg(0) + arg(1))),
    row("Sub", same, |_| Ok(arg(0) - arg(1))),
    row("Mul", same, |_| Ok(arg(0) * arg(1))),
    row("Div", same, |_| Ok(arg(0) / arg(1))),
    row("Neg", same, |_| Ok(-arg(0))),
    row("Exp", same, |_| Ok(arg(0).exp())),
    row("Log", same, |_| Ok(arg(0).log())),
    row("Sqrt", same, |_| Ok(arg(0).sqrt())),
    row("Erf", same, |_| Ok(arg(0).erf())),
    row("Tanh", same, |_| Ok(arg(0).tanh())),
    row("Sin", same, |_| Ok(arg(0).unary(Unary::Sin))),
    row("Cos", same, |_| Ok(arg(0).unary(Unary::Cos))),
    row("Tan", same, |_| Ok(arg(0).unary(Unary::Tan))),
    row("Asin", same, |_| Ok(arg(0).unary(Unary::Asin))),
    row("Acos", same, |_| Ok(arg(0).unary(Unary::Acos))),
    row("Atan", same, |_| Ok(arg(0).unary(Unary::Atan))),
    row("Sinh", same, |_| Ok(arg(0).unary(Unary::Sinh))),
    row("Cosh", same, |_| Ok(arg(0).unary(Unary::Cosh))),
    row("Asinh", same, |_| Ok(arg(0).unary(Unary::Asinh))),
    row("Acosh", same, |_| Ok(arg(0).unary(Unary::Acosh))),
    row("Atanh", same, |_| Ok(arg(0).unary(Unary::Atanh))),
    row("Floor", same, |_| Ok(arg(0).unary(Unary::Floor))),
    row("Ceil", same, |_| Ok(arg(0).unary(Unary::Ceil))),
    row("Round", same, |_| Ok(arg(0).round())),
    row("Sign", same, |_| Ok(arg(0).unary(Unary::Sign))),
    row("Reciprocal", same, |_| Ok(constant(1.0) / arg(0))),
    row("Relu", same, |_| Ok(relu())),
    row("Sigmoid", same, |_| Ok(arg(0).sigmoid())),
    row("Softplus", same, |_| Ok(softplus())),
    row("Softsign", same, |_| Ok(softsign())),
    row("Mish", same, |_| Ok(arg(0) * softplus().tanh())),
    row("HardSwish", same, |_| Ok(arg(0) * hard_sigmoid(1.0 / 6.0, 0.5))),
    row("HardSigmoid", same, |s| Ok(hard_sigmoid(f(s, "alpha", 0.2), f(s, "beta", 0.5)))),
    row("LeakyRelu", same, |s| Ok(leaky_relu(f(s, "alpha", 0.01)))),
    row("ThresholdedRelu", same, |s| Ok(thresholded_relu(f(s, "alpha", 1.0)))),
    row("Elu", same, |s| Ok(elu(f(s, "alpha", 1.0)))),
    row("Celu", same, celu),
    row("Selu", same, selu),
    row("Shrink", same, shrink),
    row("PRelu", same, |_| Ok(positive(arg(0), arg(0) * arg(1)))),
    row("Swish", same, |s| Ok(arg(0) * (arg(0) * f(s, "alpha", 1.0)).sigmoid())),
    row("Gelu", same, gelu),
    row("Clip", first, clip),
    row("Max", same, |s| Ok(fold(s, Binary::Max))),
    row("Min", same, |s| Ok(fold(s, Binary::Min))),
    row("Sum", same, |s| Ok(fold(s, Binary::Add))),
    row("Mean", same, |s| Ok(fold(s, Binary::Add) / s.inputs.len() as f64)),
    row("Pow", same, |_| Ok(arg(0).pow(arg(1)))),
    row("Mod", same, |s| Ok(arg(0).binary(if s.int("fmod", 0) != 0 { Binary::Rem } else { Binary::Modulo }, arg(1)))),
    row("Equal", truth, |_| Ok(arg(0).equal(arg(1)))),
    row("Less", truth, |_| Ok(arg(0).less(arg(1)))),
    row("LessOrEqual", truth, |_| Ok(arg(0).binary(Binary::LessEqual, arg(1)))),
    row("Greater", truth, |_| Ok(arg(1).less(arg(0)))),
    row("GreaterOrEqual", truth, |_| Ok(arg(1).binary(Binary::LessEqual, arg(0)))),
    row("And", truth, |_| Ok(arg(0).binary(Binary::And, arg(1)))),
    row("Or", truth, |_| Ok(arg(0).binary(Binary::Or, arg(1)))),
    row("Xor", truth, |_| Ok(arg(0).binary(Binary::Xor, arg(1)))),
    row("Not", truth, |_| Ok(arg(0).unary(Unary::Not))),
    row("IsNaN", truth, |_| Ok(arg(0).unary(Unary::IsNan))),
    row("IsInf", truth, is_inf),
    row("BitwiseAnd", same, |_| Ok(arg(0).binary(Binary::BitAnd, arg(1)))),
    row("BitwiseOr", same, |_| Ok(arg(0).binary(Binary::BitOr, arg(1)))),
    row("BitwiseXor", same, |_| Ok(arg(0).binary(Binary::BitXor, arg(1)))),
    row("BitwiseNot", same, |_| Ok(arg(0).unary(Unary::BitNot))),
    row("BitShift", same, bit_shift),
    row("Where", choice, |_| Ok(arg(0).select(arg(1), arg(2)))),
    row("Cast", cast, cast_formula),
    row("CastLike", |s| Ok(vec![Type::new(s.ty(1)?.dtype, s.ty(0)?.shape.clone())]), |s| Ok(arg(0).cast(s.ty(1)?.dtype))),
    ms("QuickGelu", same, |s| Ok(arg(0) * (arg(0) * f(s, "alpha", 1.702)).sigmoid())),
    ms("FastGelu", same, |s| {
        let x = if s.input(1).is_some() { arg(0) + arg(1) } else { arg(0) };
        Ok(tanh_gelu(x))
    }),
    ms("BiasGelu", same, |_| Ok(erf_gelu(arg(0) + arg(1)))),
    ms("Gelu", same, |_| Ok(erf_gelu(arg(0)))),
    OpDef { domain: "halfbyte", name: "Formula", infer: same, lower: Lower::Scalar(attached) },
];

fn f(site: &Site, name: &str, default: f32) -> f64 {
    site.float(name, default).into()
}

pub(super) fn relu() -> Formula {
    arg(0).max(constant(0.0))
}

/// `log(1 + e^x)`.
pub(super) fn softplus() -> Formula {
    relu() + ((-arg(0).abs()).exp() + 1.0).log()
}

pub(super) fn softsign() -> Formula {
    arg(0) / (arg(0).abs() + 1.0)
}

pub(super) fn hard_sigmoid(alpha: f64, beta: f64) -> Formula {
    (arg(0) * alpha + beta).clip(0.0, 1.0)
}

pub(super) fn leaky_relu(alpha: f64) -> Formula {
    positive(arg(0), arg(0) * alpha)
}

pub(super) fn thresholded_relu(alpha: f64) -> Formula {
    constant(alpha).less(arg(0)).select(arg(0), constant(0.0))
}

pub(super) fn elu(alpha: f64) -> Formula {
    positive(arg(0), (arg(0).exp() - 1.0) * alpha)
}

/// `x` where it is above 0, else `other`.
fn positive(x: Formula, other: Formula) -> Formula {
    constant(0.0).less(x.clone()).select(x, other)
}

fn broadcast(site: &Site) -> Result<Shape> {
    site.inputs.iter().flatten().try_fold(Shape::scalar(), |shape, o| {
        shape.broadcast(&o.ty.shape).ok_or_else(|| site.error(format!("shapes {shape} and {} do not broadcast", o.ty.shape)))
    })
}

/// The first input's element type over all inputs' common shape.
fn same(site: &Site) -> Result<Vec<Type>, Refusal> {
    Ok(vec![Type::new(site.ty(0)?.dtype, broadcast(site)?)])
}

/// The first input's type.
fn first(site: &Site) -> Result<Vec<Type>, Refusal> {
    Ok(vec![site.ty(0)?.clone()])
}

fn truth(site: &Site) -> Result<Vec<Type>, Refusal> {
    Ok(vec![Type::new(DType::Bool, broadcast(site)?)])
}

fn choice(site: &Site) -> Result<Vec<Type>, Refusal> {
    Ok(vec![Type::new(site.ty(1)?.dtype, broadcast(site)?)])
}

/// All inputs joined by one function.
fn fold(site: &Site, op: Binary) -> Formula {
    (1..site.inputs.len()).fold(arg(0), |sum, i| sum.binary(op, arg(i)))
}

fn celu(site: &Site) -> Result<Formula> {
    let alpha = f(site, "alpha", 1.0);
    Ok(arg(0).max(constant(0.0)) + (((arg(0) / alpha).exp() - 1.0) * alpha).min(constant(0.0)))
}

fn selu(site: &Site) -> Result<Formula> {
    let (alpha, gamma) = (f(site, "alpha", 1.673_263_2), f(site, "gamma", 1.050_701));
    Ok(positive(arg(0), arg(0).exp() * alpha - alpha) * gamma)
}

fn shrink(site: &Site) -> Result<Formula> {
    let (lambd, bias) = (f(site, "lambd", 0.5), f(site, "bias", 0.0));
    let high = constant(lambd).less(arg(0)).select(arg(0) - bias, constant(0.0));
    Ok(arg(0).less(constant(-lambd)).select(arg(0) + bias, high))
}

/// `x/2 (1 + erf(x / sqrt 2))`.
fn erf_gelu(x: Formula) -> Formula {
    x.clone() * 0.5 * ((x * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0)
}

/// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
fn tanh_gelu(x: Formula) -> Formula {
    let cubed = x.clone() * x.clone() * x.clone() * 0.044715;
    let inner = (x.clone() + cubed) * (2.0 / std::f64::consts::PI).sqrt();
    x * 0.5 * (inner.tanh() + 1.0)
}

fn gelu(site: &Site) -> Result<Formula> {
    match site.str("approximate", "none") {
        "tanh" => Ok(tanh_gelu(arg(0))),
        _ => Ok(erf_gelu(arg(0))),
    }
}

/// Bounds are attributes below opset 11, inputs since.
fn clip(site: &Site) -> Result<Formula> {
    let mut x = arg(0);
    let mut next = 1;
    for (name, i, op) in [("min", 1, Binary::Max), ("max", 2, Binary::Min)] {
        if let Some(crate::graph::Attr::Float(v)) = site.attr(name) {
            x = x.binary(op, constant((*v).into()));
        } else if site.input(i).is_some() {
            // Inputs left out do not count as arguments.
            let bound = site.input(i).and_then(|o| o.value.as_ref()).map(|t| t.to_f64());
            x = x.binary(
                op,
                match bound.as_deref() {
                    Some([v]) if site.ty(0)?.dtype.is_float() => constant(*v),
                    _ => arg(next),
                },
            );
            next += 1;
        }
    }
    Ok(x)
}

fn is_inf(site: &Site) -> Result<Formula> {
    let part = |name: &str, op: Unary| if site.int(name, 1) != 0 { arg(0).unary(op) } else { constant(0.0) };
    Ok(part("detect_positive", Unary::IsPosInf).binary(Binary::Or, part("detect_negative", Unary::IsNegInf)))
}

fn bit_shift(site: &Site) -> Result<Formula> {
    let op = if site.str("direction", "LEFT") == "LEFT" { Binary::ShiftLeft } else { Binary::ShiftRight };
    Ok(arg(0).binary(op, arg(1)))
}

/// The element type that a number of onnx.proto stands for.
pub(super) fn onnx_dtype(site: &Site, number: i64) -> Result<DType> {
    let dtype = i32::try_from(number).ok().and_then(DType::from_onnx);
    dtype.ok_or_else(|| site.unsupported(format!("element type {number} of onnx.proto")))
}

fn cast(site: &Site) -> Result<Vec<Type>, Refusal> {
    Ok(vec![Type::new(onnx_dtype(site, site.int("to", 1))?, site.ty(0)?.shape.clone())])
}

fn cast_formula(site: &Site) -> Result<Formula> {
    let to = onnx_dtype(site, site.int("to", 1))?;
    let from = site.ty(0)?.dtype;
    // Storing does the rounding; a formula is only needed where the two domains differ.
    Ok(if to == DType::Bool || (from.is_float() && to.is_int()) { arg(0).cast(to) } else { arg(0) })
}

fn attached(site: &Site) -> Result<Formula> {
    match site.attr("formula") {
        Some(crate::graph::Attr::Formula(f)) => Ok(f.clone()),
        _ => Err(site.error("the formula is missing")),
    }
}
