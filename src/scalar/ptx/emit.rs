//! Steps to PTX: each is an instruction, or a short text with its own scope.

use super::{functions, text};
use crate::base::DType;
use crate::error::{Error, Result};
use crate::scalar::steps::Step;
use crate::scalar::{Binary, Domain, Steps, Unary};

/// The type of the register that an element travels in: `.b16` for f16 and bf16 (their bits), `.b64` for types of 8 bytes, else
/// `.b32`; narrow integers and bool are extended to it.
pub fn register_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 | DType::BF16 => "b16",
        DType::F64 | DType::I64 | DType::U64 => "b64",
        _ => "b32",
    }
}

/// The type of `ld` and `st` of an element to and from such a register.
pub fn memory_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::F64 => "f64",
        DType::F16 | DType::BF16 => "b16",
        DType::I8 => "s8",
        DType::U8 | DType::Bool => "u8",
        DType::I16 => "s16",
        DType::U16 => "u16",
        DType::I32 => "s32",
        DType::U32 => "u32",
        DType::I64 => "s64",
        DType::U64 => "u64",
    }
}

/// The formula as a block `{ .. }` for a kernel of `.target sm_<sm>`, 60 or above, and `.version` 7.0 or above: it reads the
/// registers `inputs`, one for each argument, and writes `output`, all of the argument's and result's [`register_type`].
/// Registers and labels of the block are its own, so that it may be pasted anywhere, any number of times; the kernel's own
/// names must not start with `%hb`. Nothing is contracted: f32 arithmetic, exp, log, tanh and erf give the CPU's bits.
/// Errors when an argument has no register, or the target is too old.
pub fn body(steps: &Steps, inputs: &[&str], output: &str, sm: u32) -> Result<String> {
    if inputs.len() < steps.args.len() || sm < 60 {
        let why = format!("{} registers for {} arguments on sm_{sm}, at least 60", inputs.len(), steps.args.len());
        return Err(Error::BadInput(why));
    }
    let number = match steps.domain {
        Domain::F32 => "f32",
        Domain::F64 => "f64",
        Domain::I64 => "s64",
    };
    let mut emit = Emit { steps, number, sm, inputs, text: String::new(), truths: Vec::new() };
    for (i, step) in steps.steps.iter().enumerate() {
        emit.step(i, *step);
    }
    let last = steps.steps.len().saturating_sub(1);
    emit.store(last, output);
    let count = steps.steps.len();
    let head = format!("{{\n.reg .{number} %hb_v<{count}>;\n.reg .pred %hb_t<{count}>;\n");
    Ok(head + &emit.text + "}\n")
}

struct Emit<'a> {
    steps: &'a Steps,
    /// Type of values.
    number: &'static str,
    sm: u32,
    inputs: &'a [&'a str],
    text: String,
    /// Of each step: whether it is known as the predicate `%hb_t`, and whether as the number `%hb_v`.
    truths: Vec<(bool, bool)>,
}

impl Emit<'_> {
    fn line(&mut self, template: &str, d: &str, a: &str, b: &str) {
        self.text += &text::expand(template, self.number, [d, a, b]);
    }

    /// The step as a number.
    fn value(&mut self, i: usize) -> String {
        if !self.truths[i].1 {
            self.truths[i].1 = true;
            let template = if self.number == "s64" { "selp.s64 $d, 1, 0, $a;" } else { "selp.$t $d, 1.0, 0.0, $a;" };
            self.line(template, &format!("%hb_v{i}"), &format!("%hb_t{i}"), "");
        }
        format!("%hb_v{i}")
    }

    /// The step as a predicate: not 0, or NaN.
    fn truth(&mut self, i: usize) -> String {
        if !self.truths[i].0 {
            self.truths[i].0 = true;
            let template = if self.number == "s64" { "setp.ne.s64 $d, $a, 0;" } else { "setp.neu.$t $d, $a, 0.0;" };
            self.line(template, &format!("%hb_t{i}"), &format!("%hb_v{i}"), "");
        }
        format!("%hb_t{i}")
    }

    fn step(&mut self, i: usize, step: Step) {
        let (v, t) = (format!("%hb_v{i}"), format!("%hb_t{i}"));
        let mut is_truth = false;
        match step {
            Step::Arg(a) => self.load(a, &v),
            Step::Constant(c) => self.line("mov.$t $d, $a;", &v, &self.literal(c), ""),
            Step::Unary(Unary::Not, a) => {
                is_truth = true;
                let a = self.truth(a);
                self.line("not.pred $d, $a;", &t, &a, "");
            }
            Step::Unary(op, a) => {
                let a = self.value(a);
                let template = functions::unary(op, self.steps.domain);
                is_truth = matches!(op, Unary::IsNan | Unary::IsPosInf | Unary::IsNegInf);
                self.line(&template, if is_truth { &t } else { &v }, &a, "");
            }
            Step::Binary(op @ (Binary::And | Binary::Or | Binary::Xor), a, b) => {
                is_truth = true;
                let (a, b) = (self.truth(a), self.truth(b));
                self.line(&format!("{}.pred $d, $a, $b;", format!("{op:?}").to_lowercase()), &t, &a, &b);
            }
            Step::Binary(op, a, b) => {
                let (a, b) = (self.value(a), self.value(b));
                is_truth = matches!(op, Binary::Less | Binary::LessEqual | Binary::Equal);
                let template = functions::binary(op, self.steps.domain, self.sm);
                self.line(&template, if is_truth { &t } else { &v }, &a, &b);
            }
            Step::Select(c, a, b) => {
                let (c, a, b) = (self.truth(c), self.value(a), self.value(b));
                self.line(&format!("selp.$t $d, $a, $b, {c};"), &v, &a, &b);
            }
            Step::Cast(DType::Bool, a) => {
                is_truth = true;
                let a = self.truth(a);
                self.line("not.pred $d, $a; not.pred $d, $d;", &t, &a, "");
            }
            Step::Cast(d, a) => {
                let a = self.value(a);
                self.line(&functions::cast(d, self.steps.domain), &v, &a, "");
            }
        }
        self.truths.push((is_truth, !is_truth));
    }

    /// A literal of the domain's type. Integers saturate.
    fn literal(&self, v: f64) -> String {
        match self.steps.domain {
            Domain::F32 => text::f32_literal(v as f32),
            Domain::F64 => text::f64_literal(v),
            Domain::I64 => format!("{}", v as i64),
        }
    }

    fn load(&mut self, i: usize, to: &str) {
        let from = self.steps.args[i];
        let template = match (from, self.steps.domain) {
            (DType::F32, Domain::F32) | (DType::F64, _) | (DType::I64 | DType::U64, Domain::I64) => "mov.$t $d, $a;".into(),
            (DType::BF16, Domain::F32) => functions::WIDEN_BF16.into(),
            (DType::BF16, _) => format!("{{ .reg .f32 %w;\n{}cvt.f64.f32 $d, %w; }}", functions::WIDEN_BF16.replace("$d", "%w")),
            (_, Domain::I64) => "cvt.s64.$f $d, $a;".into(),
            (DType::F16 | DType::F32, _) => "cvt.$t.$f $d, $a;".into(),
            _ => "cvt.rn.$t.$f $d, $a;".into(),
        };
        let arithmetic = match from {
            DType::F16 => "f16",
            DType::Bool => "u32",
            other => memory_type(other),
        };
        // Bool counts as true whatever its bits are.
        let template: String = if from == DType::Bool {
            format!(
                "{{ .reg .pred %p; .reg .b32 %w; setp.ne.u32 %p, $a, 0; selp.u32 %w, 1, 0, %p; {} }}",
                template.replace("$a", "%w")
            )
        } else {
            template
        };
        self.line(&template.replace("$f", arithmetic), to, self.inputs[i], "");
    }

    fn store(&mut self, i: usize, to: &str) {
        if self.steps.out == DType::Bool {
            let t = self.truth(i);
            return self.line("selp.u32 $d, 1, 0, $a;", to, &t, "");
        }
        let v = self.value(i);
        self.line(&functions::store(self.steps.out, self.steps.domain, self.sm), to, &v, "");
    }
}
