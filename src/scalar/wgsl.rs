//! A formula as WGSL text: `fn name(a0: f32, ...) -> f32`.

use super::steps::{Step, Steps};
use super::{Binary, Unary};

/// WGSL has no erf: Abramowitz and Stegun 7.1.26 with the Maclaurin series near 0.
pub const ERF: &str = "fn hb_erf(x: f32) -> f32 {
  let a = abs(x);
  let z = x * x;
  let small = x * (1.1283792 + z * (-0.3761264 + z * (0.11283792 + z * (-0.026866171 + z * (0.0052239776 - z * 0.0008548327)))));
  let t = 1.0 / (1.0 + 0.3275911 * a);
  let q = ((((1.0614054 * t - 1.453152) * t + 1.4214137) * t - 0.28449674) * t + 0.2548296) * t;
  return select(sign(x) * (1.0 - q * exp(-z)), small, a < 0.5);
}
";

/// The function `name` of f32 arguments, with what it calls in front. Integers and bools travel as f32.
pub fn function(name: &str, steps: &Steps) -> String {
    let args: Vec<String> = (0..steps.args.len()).map(|i| format!("a{i}: f32")).collect();
    let uses_erf = steps.steps.iter().any(|s| matches!(s, Step::Unary(Unary::Erf, _)));
    let mut text = String::from(if uses_erf { ERF } else { "" });
    text += &format!("fn {name}({}) -> f32 {{\n", args.join(", "));
    for (i, s) in steps.steps.iter().enumerate() {
        text += &format!("  let v{i}: f32 = {};\n", step(*s));
    }
    text += &format!("  return v{};\n}}\n", steps.steps.len().saturating_sub(1));
    text
}

fn step(step: Step) -> String {
    match step {
        Step::Arg(i) => format!("a{i}"),
        Step::Constant(v) => literal(v),
        Step::Unary(op, a) => unary(op, a),
        Step::Binary(op, a, b) => binary(op, a, b),
        Step::Select(c, a, b) => format!("select(v{b}, v{a}, v{c} != 0.0)"),
        Step::Cast(d, a) if d.is_float() => format!("v{a}"),
        Step::Cast(crate::base::DType::Bool, a) => format!("f32(v{a} != 0.0)"),
        Step::Cast(d, a) => {
            let (lo, hi) = d.int_range().unwrap_or((i64::MIN, i64::MAX));
            format!("clamp(trunc(v{a}), {}, {})", literal(lo as f64), literal(hi as f64))
        }
    }
}

/// WGSL refuses infinities and NaN as literals: they are made from bits at run time.
fn literal(v: f64) -> String {
    let v = v as f32;
    if v.is_finite() { format!("f32({v:?})") } else { format!("bitcast<f32>(vec2<u32>({}u, 0u).x)", v.to_bits()) }
}

fn unary(op: Unary, a: usize) -> String {
    let bits = format!("(bitcast<u32>(v{a}) & 0x7fffffffu)");
    let call = |f: &str| format!("{f}(v{a})");
    match op {
        Unary::Neg => format!("-v{a}"),
        Unary::Erf => call("hb_erf"),
        Unary::Ceil => call("ceil"),
        Unary::IsNan => format!("f32({bits} > 0x7f800000u)"),
        Unary::IsPosInf => format!("f32(bitcast<u32>(v{a}) == 0x7f800000u)"),
        Unary::IsNegInf => format!("f32(bitcast<u32>(v{a}) == 0xff800000u)"),
        Unary::Not => format!("f32(v{a} == 0.0)"),
        Unary::BitNot => format!("f32(~i32(v{a}))"),
        // round() in WGSL is half to even.
        other => call(&format!("{other:?}").to_lowercase()),
    }
}

fn binary(op: Binary, a: usize, b: usize) -> String {
    let infix = |o: &str| format!("v{a} {o} v{b}");
    let truth = |o: &str| format!("f32(v{a} {o} v{b})");
    let logic = |o: &str| format!("f32((v{a} != 0.0) {o} (v{b} != 0.0))");
    let integer = |o: &str| format!("f32(i32(v{a}) {o} i32(v{b}))");
    let shift = |o: &str| format!("f32(u32(v{a}) {o} (u32(v{b}) & 31u))");
    match op {
        Binary::Add => infix("+"),
        Binary::Sub => infix("-"),
        Binary::Mul => infix("*"),
        Binary::Div => infix("/"),
        Binary::Min => format!("min(v{a}, v{b})"),
        Binary::Max => format!("max(v{a}, v{b})"),
        Binary::Pow => format!("pow(v{a}, v{b})"),
        Binary::Rem => infix("%"),
        Binary::Modulo => format!("v{a} - v{b} * floor(v{a} / v{b})"),
        Binary::Less => truth("<"),
        Binary::LessEqual => truth("<="),
        Binary::Equal => truth("=="),
        Binary::And => logic("&&"),
        Binary::Or => logic("||"),
        Binary::Xor => logic("!="),
        Binary::BitAnd => integer("&"),
        Binary::BitOr => integer("|"),
        Binary::BitXor => integer("^"),
        Binary::ShiftLeft => shift("<<"),
        Binary::ShiftRight => shift(">>"),
    }
}
