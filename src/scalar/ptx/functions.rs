//! PTX of each operation: `$d` is the result's register, `$a` and `$b` the arguments', `$t` the type of values. See
//! [`super::text`] for lines that begin with `!`.

use crate::base::DType;
use crate::scalar::{Binary, Domain, Unary};

const SIGN: &str = "{ .reg .pred %p, %q; setp.gt.$t %p, $a, 0.0; setp.lt.$t %q, $a, 0.0;
selp.$t $d, 1.0, $a, %p; selp.$t $d, -1.0, $d, %q; }";

/// Division by 0 gives 0; that by -1 negates, since the smallest integer's quotient does not fit.
const DIV_S64: &str = "{ .reg .s64 %s, %q; .reg .pred %z, %m; setp.eq.s64 %z, $b, 0; setp.eq.s64 %m, $b, -1;
selp.s64 %s, 1, $b, %z; selp.s64 %s, 1, %s, %m; div.s64 %q, $a, %s; selp.s64 %q, 0, %q, %z; neg.s64 %s, $a;
selp.s64 $d, %s, %q, %m; }";

/// bf16 is the upper half of an f32.
pub const WIDEN_BF16: &str = "{ .reg .b32 %u; cvt.u32.u16 %u, $a; shl.b32 %u, %u, 16; mov.b32 $d, %u; }\n";

/// Half to even; NaN keeps a bit of its mantissa. From sm_80 on there is an instruction.
const NARROW_BF16: &str = "{ .reg .b32 %u, %o; .reg .pred %p; mov.b32 %u, $a; shr.u32 %o, %u, 16; and.b32 %o, %o, 1;
add.u32 %o, %o, 0x7fff; add.u32 %u, %u, %o; shr.u32 %u, %u, 16; setp.nan.f32 %p, $a, $a; selp.b32 %u, 0x7fff, %u, %p;
cvt.u16.u32 $d, %u; }";

/// Rounds an f64 to odd as f32, so that rounding it again is as if it were done once.
const ODD: &str = "{ .reg .f64 %e; .reg .b32 %i; .reg .pred %p; cvt.rz.f32.f64 %c, $a; cvt.f64.f32 %e, %c; mov.b32 %i, %c;
setp.neu.f64 %p, %e, $a; @%p or.b32 %i, %i, 1; mov.b32 %c, %i; }
";

/// The function's text for values of the domain.
pub fn unary(op: Unary, domain: Domain) -> String {
    let direct = match op {
        Unary::Neg => "neg.$t $d, $a;",
        Unary::Abs => "abs.$t $d, $a;",
        Unary::BitNot if domain == Domain::I64 => "not.b64 $d, $a;",
        Unary::BitNot => return in_integers("not.b64 $d, $a;"),
        _ if domain == Domain::I64 => return of_integers(op),
        Unary::Sqrt => "sqrt.rn.$t $d, $a;",
        Unary::Floor => "cvt.rmi.$t.$t $d, $a;",
        Unary::Ceil => "cvt.rpi.$t.$t $d, $a;",
        Unary::Round => "cvt.rni.$t.$t $d, $a;",
        Unary::Trunc => "cvt.rzi.$t.$t $d, $a;",
        Unary::Sign => SIGN,
        Unary::IsNan => "setp.nan.$t $d, $a, $a;",
        Unary::IsPosInf if domain == Domain::F32 => "setp.eq.f32 $d, $a, 0f7F800000;",
        Unary::IsNegInf if domain == Domain::F32 => "setp.eq.f32 $d, $a, 0fFF800000;",
        Unary::IsPosInf => "setp.eq.f64 $d, $a, 0d7FF0000000000000;",
        Unary::IsNegInf => "setp.eq.f64 $d, $a, 0dFFF0000000000000;",
        Unary::Exp | Unary::Log | Unary::Tanh | Unary::Erf if domain == Domain::F32 => {
            return format!("!{}32 $d, $a;", format!("{op:?}").to_lowercase());
        }
        _ if domain == Domain::F32 => return in_doubles(op),
        _ => return format!("!{}64 $d, $a;", format!("{op:?}").to_lowercase()),
    };
    direct.into()
}

/// f32 by way of f64, rounded once.
fn in_doubles(op: Unary) -> String {
    let name = format!("{op:?}").to_lowercase();
    format!("{{ .reg .f64 %w; cvt.f64.f32 %w, $a;\n!{name}64 %w, %w;\ncvt.rn.f32.f64 $d, %w; }}")
}

/// Functions of integers: what is left after the point is cut off.
fn of_integers(op: Unary) -> String {
    match op {
        Unary::Floor | Unary::Ceil | Unary::Round | Unary::Trunc => "mov.s64 $d, $a;".into(),
        Unary::IsNan | Unary::IsPosInf | Unary::IsNegInf => "setp.ne.s64 $d, $a, $a;".into(),
        Unary::Sign => "{ .reg .s64 %w; max.s64 %w, $a, -1; min.s64 $d, %w, 1; }".into(),
        Unary::Sqrt => format!("{{ .reg .f64 %w; cvt.rn.f64.s64 %w, $a; sqrt.rn.f64 %w, %w;\n{} }}", to_s64("f64", "$d", "%w")),
        _ => {
            let name = format!("{op:?}").to_lowercase();
            format!("{{ .reg .f64 %w; cvt.rn.f64.s64 %w, $a;\n!{name}64 %w, %w;\n{} }}", to_s64("f64", "$d", "%w"))
        }
    }
}

/// To i64, truncated and saturated, 0 for NaN: cvt itself gives the smallest integer for NaN.
fn to_s64(from: &str, d: &str, a: &str) -> String {
    format!("{{ .reg .pred %n; cvt.rzi.s64.{from} {d}, {a}; setp.nan.{from} %n, {a}, {a}; selp.s64 {d}, 0, {d}, %n; }}")
}

/// An operation on all 64 bits of floats made integers.
fn in_integers(operation: &str) -> String {
    let operation = operation.replace("$d", "%i").replace("$a", "%i").replace("$b", "%j");
    let second = if operation.contains("%j") { to_s64("$t", "%j", "$b") } else { String::new() };
    format!("{{ .reg .s64 %i, %j;\n{}\n{second}\n{operation}\ncvt.rn.$t.s64 $d, %i; }}", to_s64("$t", "%i", "$a"))
}

/// The function's text for values of the domain.
pub fn binary(op: Binary, domain: Domain, sm: u32) -> String {
    let integer = domain == Domain::I64;
    let text = match op {
        Binary::Add if integer => "add.s64 $d, $a, $b;",
        Binary::Sub if integer => "sub.s64 $d, $a, $b;",
        Binary::Mul if integer => "mul.lo.s64 $d, $a, $b;",
        Binary::Add => "add.rn.$t $d, $a, $b;",
        Binary::Sub => "sub.rn.$t $d, $a, $b;",
        Binary::Mul => "mul.rn.$t $d, $a, $b;",
        Binary::Div if integer => DIV_S64,
        Binary::Div => "div.rn.$t $d, $a, $b;",
        Binary::Min if integer => "min.s64 $d, $a, $b;",
        Binary::Max if integer => "max.s64 $d, $a, $b;",
        Binary::Min if domain == Domain::F32 && sm >= 80 => "min.NaN.f32 $d, $a, $b;",
        Binary::Max if domain == Domain::F32 && sm >= 80 => "max.NaN.f32 $d, $a, $b;",
        Binary::Min => "{ .reg .pred %p; setp.nan.$t %p, $a, $a; setp.lt.or.$t %p, $a, $b, %p; selp.$t $d, $a, $b, %p; }",
        Binary::Max => "{ .reg .pred %p; setp.nan.$t %p, $a, $a; setp.gt.or.$t %p, $a, $b, %p; selp.$t $d, $a, $b, %p; }",
        Binary::Less => "setp.lt.$t $d, $a, $b;",
        Binary::LessEqual => "setp.le.$t $d, $a, $b;",
        Binary::Equal => "setp.eq.$t $d, $a, $b;",
        Binary::Pow | Binary::Rem | Binary::Modulo => return rare(op, domain),
        Binary::BitAnd => "and.b64 $d, $a, $b;",
        Binary::BitOr => "or.b64 $d, $a, $b;",
        Binary::BitXor => "xor.b64 $d, $a, $b;",
        Binary::ShiftLeft => SHIFT_LEFT,
        Binary::ShiftRight => SHIFT_RIGHT,
        Binary::And | Binary::Or | Binary::Xor => unreachable!("an operation on predicates"),
    };
    match op {
        _ if integer => text.into(),
        Binary::BitAnd | Binary::BitOr | Binary::BitXor | Binary::ShiftLeft | Binary::ShiftRight => in_integers(text),
        _ => text.into(),
    }
}

/// 0 when all bits are shifted out.
const SHIFT_LEFT: &str = "{ .reg .pred %q; .reg .b32 %s; .reg .s64 %w; setp.lt.u64 %q, $b, 64; cvt.u32.u64 %s, $b;
shl.b64 %w, $a, %s; selp.b64 $d, %w, 0, %q; }";
const SHIFT_RIGHT: &str = "{ .reg .pred %q; .reg .b32 %s; .reg .s64 %w; setp.lt.u64 %q, $b, 64; cvt.u32.u64 %s, $b;
shr.u64 %w, $a, %s; selp.b64 $d, %w, 0, %q; }";

fn rare(op: Binary, domain: Domain) -> String {
    let name = if op == Binary::Pow { "pow" } else { "rem" };
    let text = match domain {
        Domain::F64 => format!("!{name}64 $d, $a, $b;"),
        Domain::F32 => format!(
            "{{ .reg .f64 %wa, %wb; cvt.f64.f32 %wa, $a; cvt.f64.f32 %wb, $b;\n!{name}64 %wa, %wa, %wb;\ncvt.rn.f32.f64 $d, %wa; }}"
        ),
        Domain::I64 => format!("!{name}s64 $d, $a, $b;"),
    };
    if op != Binary::Modulo {
        return text;
    }
    // With the divisor's sign: a remainder of the other sign is one divisor too far.
    let (add, zero) = if domain == Domain::I64 { ("add.s64", "0") } else { ("add.rn.$t", "0.0") };
    format!(
        "{{ .reg .$t %r, %o; .reg .pred %p, %q;\n{}\nsetp.lt.$t %p, $b, {zero}; setp.lt.xor.$t %p, %r, {zero}, %p;\n\
         setp.ne.and.$t %q, %r, {zero}, %p; {add} %o, %r, $b; selp.$t $d, %o, %r, %q; }}",
        text.replace("$d", "%r")
    )
}

/// The text of a cast inside the formula.
pub fn cast(to: DType, domain: Domain) -> String {
    match (to, domain) {
        (DType::F64, _) | (DType::F32, Domain::F32) => "mov.$t $d, $a;".into(),
        (DType::I64 | DType::U64, Domain::I64) | (DType::F32 | DType::F16 | DType::BF16, Domain::I64) => "mov.s64 $d, $a;".into(),
        (_, Domain::I64) => format!("cvt.s64.{} $d, $a;", super::memory_type(to)),
        (DType::F32, _) => "{ .reg .f32 %c; cvt.rn.f32.f64 %c, $a; cvt.f64.f32 $d, %c; }".into(),
        (DType::F16, _) => "{ .reg .b16 %c; cvt.rn.f16.$t %c, $a; cvt.$t.f16 $d, %c; }".into(),
        (DType::BF16, Domain::F32) => {
            let (narrow, widen) = (NARROW_BF16.replace("$d", "%h"), WIDEN_BF16.replace("$a", "%h"));
            format!("{{ .reg .b16 %h;\n{narrow}\n{widen}}}")
        }
        (DType::BF16, _) => {
            let narrow = NARROW_BF16.replace("$a", "%c").replace("$d", "%h");
            let widen = WIDEN_BF16.replace("$a", "%h").replace("$d", "%c");
            format!("{{ .reg .f32 %c; .reg .b16 %h;\n{ODD}{narrow}\n{widen}cvt.f64.f32 $d, %c; }}")
        }
        (DType::I64, _) => format!("{{ .reg .s64 %c; {} cvt.rn.$t.s64 $d, %c; }}", to_s64("$t", "%c", "$a")),
        (DType::U64, _) => {
            format!("{{ .reg .u64 %c; {} cvt.rn.$t.u64 $d, %c; }}", to_s64("$t", "%c", "$a").replace(".s64", ".u64"))
        }
        (_, Domain::F64) => {
            let ty = super::memory_type(to);
            format!("{{ .reg .b32 %c; {} cvt.rn.f64.{ty} $d, %c; }}", to_narrow(ty, "f64", "%c"))
        }
        (_, _) => {
            let ty = super::memory_type(to);
            format!("{{ .reg .b32 %c; cvt.rzi.{ty}.f32 %c, $a; cvt.rn.f32.{ty} $d, %c; }}")
        }
    }
}

/// To an integer of at most 32 bits, truncated and saturated; from f64 NaN has to be made 0.
fn to_narrow(ty: &str, from: &str, d: &str) -> String {
    if from == "f32" {
        return format!("cvt.rzi.{ty}.f32 {d}, $a;");
    }
    format!("{{ .reg .pred %n; cvt.rzi.{ty}.f64 {d}, $a; setp.nan.f64 %n, $a, $a; selp.b32 {d}, 0, {d}, %n; }}")
}

/// The text of the conversion to the stored type.
pub fn store(to: DType, domain: Domain, sm: u32) -> String {
    let ty = super::memory_type(to);
    match (to, domain) {
        (DType::F64, _) | (DType::F32, Domain::F32) | (DType::I64 | DType::U64, Domain::I64) => "mov.$t $d, $a;".into(),
        (_, Domain::I64) => format!("cvt.{ty}.s64 $d, $a;"),
        (DType::F32, _) => "cvt.rn.f32.f64 $d, $a;".into(),
        (DType::F16, _) => "cvt.rn.f16.$t $d, $a;".into(),
        (DType::BF16, Domain::F64) => format!("{{ .reg .f32 %c;\n{ODD}{} }}", NARROW_BF16.replace("$a", "%c")),
        (DType::BF16, _) if sm >= 80 => "cvt.rn.bf16.f32 $d, $a;".into(),
        (DType::BF16, _) => NARROW_BF16.into(),
        (DType::I64 | DType::U64, _) => to_s64("$t", "$d", "$a").replace("s64", ty),
        (_, Domain::F64) => to_narrow(ty, "f64", "$d"),
        _ => to_narrow(ty, "f32", "$d"),
    }
}
