//! How a shader reads and writes the elements of a storage buffer: arrays of 32-bit words hold narrower elements, which are cut out
//! of a word when read and put into it by atomic operations when written one by one, since neighbours may be another thread's.

use super::interface::{Binding, Mode};
use super::store::{argument, plain};
use crate::base::DType;
use crate::device::gpu::finish::Finish;
use crate::scalar::Domain;
use crate::scalar::wgsl::{loaded, stored};

/// An element's width and what its bits mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element {
    /// 8, 16, 32, 64 or 128.
    pub bits: u32,
    meaning: Meaning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Bits,
    Signed,
    Unsigned,
    Float,
    Brain,
    /// Signed, for atomic operations.
    Atomic,
    /// Of the first type, and a value of the second for the shader.
    As(DType, DType),
    /// Of a type that the shader learns when it runs.
    Any,
}

impl Element {
    /// As a declaration names it.
    pub fn named(name: &str) -> Option<Element> {
        if name == "any" {
            return Some(Element { bits: 8, meaning: Meaning::Any });
        }
        let (letter, bits) = name.split_at(name.find(|c: char| c.is_ascii_digit())?);
        let meaning = match letter {
            "b" => Meaning::Bits,
            "s" => Meaning::Signed,
            "u" => Meaning::Unsigned,
            "f" => Meaning::Float,
            "bf" => Meaning::Brain,
            "a" => Meaning::Atomic,
            _ => return None,
        };
        let bits = match bits {
            "32x4" => 128,
            n => n.parse().ok().filter(|n| [8, 16, 32, 64, 128].contains(n))?,
        };
        Some(Element { bits, meaning })
    }

    /// Raw bits of a type, as [`loaded`] and [`stored`] have them.
    pub fn of(dtype: DType) -> Element {
        let meaning = match dtype {
            DType::F64 => Meaning::Float,
            DType::I64 => Meaning::Signed,
            DType::U64 => Meaning::Unsigned,
            _ => Meaning::Bits,
        };
        Element { bits: 8 * dtype.size_bytes() as u32, meaning }
    }

    /// What a formula's results are stored as.
    pub fn stored_by(finish: &Finish) -> Element {
        match plain(finish) {
            _ if finish.lists => Element { bits: 32, meaning: Meaning::Atomic },
            Some(_) => Element { bits: 8 * finish.steps.out.size_bytes() as u32, meaning: Meaning::Bits },
            None => Element::of(finish.steps.out),
        }
    }

    /// A kernel's values of this type.
    pub fn natural(dtype: DType) -> Element {
        let meaning = if dtype.is_float() { Meaning::Float } else { Meaning::Signed };
        Element { bits: 8 * dtype.size_bytes() as u32, meaning }
    }

    /// Elements of type `from` as a kernel's values of type `to`, and back.
    pub fn converted(from: DType, to: DType) -> Element {
        if from == to {
            return Element::natural(to);
        }
        Element { bits: 8 * from.size_bytes() as u32, meaning: Meaning::As(from, to) }
    }

    /// The element type of numbers of this width and meaning.
    pub fn dtype(self) -> Option<DType> {
        Some(match (self.bits, self.meaning) {
            (32, Meaning::Float) => DType::F32,
            (64, Meaning::Float) => DType::F64,
            (32, Meaning::Signed) => DType::I32,
            (64, Meaning::Signed) => DType::I64,
            _ => return None,
        })
    }

    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        u64::from(self.bits / 8)
    }

    /// Elements of a word of the array, where they are narrower.
    fn each(self) -> u32 {
        (32 / self.bits).max(1)
    }

    /// Type of the array's elements.
    fn array(self) -> &'static str {
        match (self.bits, self.meaning) {
            (64, Meaning::Bits) => "vec2<u32>",
            (64, Meaning::Signed | Meaning::As(DType::I64, _)) => "i64",
            (64, Meaning::Unsigned | Meaning::As(DType::U64, _)) => "u64",
            (64, _) => "f64",
            (128, Meaning::Float) => "vec4<f32>",
            (128, _) => "vec4<u32>",
            _ => "u32",
        }
    }

    /// Type of a value.
    pub fn value(self) -> &'static str {
        match (self.bits, self.meaning) {
            (_, Meaning::As(_, to)) => Element::natural(to).value(),
            (64 | 128, _) => self.array(),
            (_, Meaning::Signed) => "i32",
            (_, Meaning::Float | Meaning::Brain) => "f32",
            _ => "u32",
        }
    }

    /// The value of raw bits.
    fn read(self, raw: &str) -> String {
        match (self.bits, self.meaning) {
            (_, Meaning::As(DType::F64, DType::F32)) => format!("f32({raw})"),
            (_, Meaning::As(from, DType::I32)) => format!("i32({})", loaded(from, Domain::I64, raw)),
            (_, Meaning::As(from, to)) => loaded(from, Domain::of([to]), raw),
            (8 | 16, Meaning::Signed) => format!("bitcast<i32>(({raw}) << {0}u) >> {0}u", 32 - self.bits),
            (32, Meaning::Signed) => format!("bitcast<i32>({raw})"),
            (16, Meaning::Float) => loaded(DType::F16, Domain::F32, raw),
            (16, Meaning::Brain) => loaded(DType::BF16, Domain::F32, raw),
            (32, Meaning::Float) => format!("bitcast<f32>({raw})"),
            _ => raw.into(),
        }
    }

    /// The bits of a value.
    fn write(self, value: &str) -> String {
        match (self.bits, self.meaning) {
            (_, Meaning::As(from, to)) => stored(from, Domain::of([to]), value),
            (16, Meaning::Float) => stored(DType::F16, Domain::F32, value),
            (16, Meaning::Brain) => stored(DType::BF16, Domain::F32, value),
            (32, Meaning::Float | Meaning::Signed) => format!("bitcast<u32>({value})"),
            (8, Meaning::Signed) => format!("(bitcast<u32>({value}) & 0xffu)"),
            (16, Meaning::Signed) => format!("(bitcast<u32>({value}) & 0xffffu)"),
            _ => value.into(),
        }
    }
}

/// The declaration of a binding and its accessors: `NAME_given()` says whether it is there; `NAME_at(i)` gives element `i`; of what is
/// written, `NAME_put(i, value)` stores it and, where elements are narrower than a word, `NAME_put_word(w, bits)` stores word `w`,
/// counted from the first element, which must begin a word, and `NAME_put_run(i, bits)` as many elements as a word holds, from any `i`
/// on. Of f32 in 16 or 32 bits, `NAME_pair_at(i)` and `NAME_put_pair(i, values)` take elements `i`, an even number, and `i + 1`, the
/// first of which must begin a word. Atomic elements have `NAME_load(i)`, and `NAME_exchange(i, value)`, `NAME_max(i, value)` and
/// `NAME_add(i, value)`, which give the old value, instead; for elements of any type see [`bytes()`].
pub fn accessors(binding: &Binding, number: usize) -> String {
    let Binding { name, element, mode, .. } = binding;
    if element.meaning == Meaning::Atomic {
        return atomic(binding, number);
    }
    let (array, each, bits) = (element.array(), element.each(), element.bits);
    let is_atomic = *mode != Mode::In && each > 1;
    let access = if binding.is_constant { "read" } else { "read_write" };
    let held = if is_atomic { format!("atomic<{array}>") } else { array.into() };
    let base = argument(binding.word);
    let mut text = format!("@group(0) @binding({number}) var<storage, {access}> hb_m_{name}: array<{held}>;\n");
    text += &format!("fn {name}_given() -> bool {{ return {} == 0u; }}\n", argument(binding.word + 1));
    let word = |at: &str| if is_atomic { format!("atomicLoad(&hb_m_{name}[{at}])") } else { format!("hb_m_{name}[{at}]") };
    if element.meaning == Meaning::Any {
        return text + &bytes(name, *mode, &base, &word("b >> 2u"));
    }
    if *mode != Mode::Out {
        let raw = match each {
            1 => word("e"),
            _ => format!(
                "({} >> ((e & {}u) * {bits}u)) & {:#x}u",
                word(&format!("e >> {}u", each.ilog2())),
                each - 1,
                (1u64 << bits) - 1
            ),
        };
        let value = element.read(&raw);
        let ty = element.value();
        text += &format!("fn {name}_at(i: u32) -> {ty} {{ let e = {base} + i; return {value}; }}\n");
        text += &match (bits, ty) {
            (16, "f32") => {
                let (low, high) = (element.read("(w & 0xffffu)"), element.read("(w >> 16u)"));
                let pair = word(&format!("({base} + i) >> 1u"));
                format!("fn {name}_pair_at(i: u32) -> vec2<f32> {{ let w = {pair}; return vec2<f32>({low}, {high}); }}\n")
            }
            (32, "f32") => {
                format!("fn {name}_pair_at(i: u32) -> vec2<f32> {{ return vec2<f32>({name}_at(i), {name}_at(i + 1u)); }}\n")
            }
            _ => String::new(),
        };
    }
    if *mode != Mode::In {
        let value = element.write("v");
        let ty = element.value();
        text += &match each {
            1 => format!("fn {name}_put(i: u32, v: {ty}) {{ hb_m_{name}[{base} + i] = {value}; }}\n"),
            _ => format!(
                "fn {name}_put(i: u32, v: {ty}) {{ let e = {base} + i; let w = e >> {}u; let s = (e & {}u) * {bits}u; \
                 atomicAnd(&hb_m_{name}[w], ~({:#x}u << s)); atomicOr(&hb_m_{name}[w], ({value}) << s); }}\n\
                 fn {name}_put_word(w: u32, bits: u32) {{ atomicStore(&hb_m_{name}[({base} >> {}u) + w], bits); }}\n",
                each.ilog2(),
                each - 1,
                (1u64 << bits) - 1,
                each.ilog2()
            ),
        };
        if each > 1 {
            text += &put_run(name, &base, bits);
        }
        text += &match (bits, ty) {
            (16, "f32") => {
                let both = format!("({}) | (({}) << 16u)", element.write("v.x"), element.write("v.y"));
                format!("fn {name}_put_pair(i: u32, v: vec2<f32>) {{ {name}_put_word(i >> 1u, {both}); }}\n")
            }
            (32, "f32") => {
                format!("fn {name}_put_pair(i: u32, v: vec2<f32>) {{ {name}_put(i, v.x); {name}_put(i + 1u, v.y); }}\n")
            }
            _ => String::new(),
        };
    }
    text
}

/// Of a run that begins within a word, parts of two words are stored.
fn put_run(name: &str, base: &str, bits: u32) -> String {
    let each = 32 / bits;
    format!(
        "fn {name}_put_run(i: u32, bits: u32) {{ let e = {base} + i; let w = e >> {}u; let s = (e & {}u) * {bits}u; \
         if (s == 0u) {{ atomicStore(&hb_m_{name}[w], bits); return; }} \
         atomicAnd(&hb_m_{name}[w], (1u << s) - 1u); atomicOr(&hb_m_{name}[w], bits << s); \
         atomicAnd(&hb_m_{name}[w + 1u], ~((1u << s) - 1u)); atomicOr(&hb_m_{name}[w + 1u], bits >> (32u - s)); }}\n",
        each.ilog2(),
        each - 1,
    )
}

fn atomic(binding: &Binding, number: usize) -> String {
    let (name, base) = (&binding.name, argument(binding.word));
    let mut text = format!("@group(0) @binding({number}) var<storage, read_write> hb_m_{name}: array<atomic<i32>>;\n");
    text += &format!("fn {name}_load(i: u32) -> i32 {{ return atomicLoad(&hb_m_{name}[{base} + i]); }}\n");
    for (what, function) in [("exchange", "atomicExchange"), ("max", "atomicMax"), ("add", "atomicAdd")] {
        text += &format!("fn {name}_{what}(i: u32, v: i32) -> i32 {{ return {function}(&hb_m_{name}[{base} + i], v); }}\n");
    }
    text
}

/// Access to elements of a type that the shader learns when it runs, at a multiple of their size in bytes: `NAME_bits(byte)` gives
/// the element's bits with others above them, `NAME_put_bits(byte, mask, bits)` stores the bits that `mask` covers from 0 on.
fn bytes(name: &str, mode: Mode, base: &str, word: &str) -> String {
    let mut text = String::new();
    if mode != Mode::Out {
        text += &format!("fn {name}_bits(byte: u32) -> u32 {{ let b = {base} + byte; return {word} >> ((b & 3u) * 8u); }}\n");
    }
    if mode != Mode::In {
        text += &format!(
            "fn {name}_put_bits(byte: u32, mask: u32, bits: u32) {{ let b = {base} + byte; let s = (b & 3u) * 8u; \
             if (mask == 0xffffffffu) {{ atomicStore(&hb_m_{name}[b >> 2u], bits); return; }} \
             atomicAnd(&hb_m_{name}[b >> 2u], ~(mask << s)); atomicOr(&hb_m_{name}[b >> 2u], (bits & mask) << s); }}\n"
        );
    }
    text
}
