//! The functions that a shader's slots are in WGSL, out of a [`Finish`]:
//!
//! - `store(i, value)` stores the formula as element `i` of the output (`store(i)` where the kernel gives no value), or appends it to its row's
//!   list where [`Finish::lists`] is set;
//! - `store2(i, a, b, has_a, has_b)` stores elements `i`, an even number, and `i + 1`, each if it is there;
//! - `store4(i, values)` stores elements `i`, a multiple of 4, to `i + 3`, of kernels whose values have 32 bits;
//! - `store_row(i, value, has)`, once in uniform control flow by all threads of a workgroup, whose elements follow each other from a
//!   multiple of 4 on, those that are there first: narrow ones join to words in shared memory;
//! - `store_run(i)`, of kernels that give no value: as many elements from `i` on as [`Finish::vector`] says;
//! - `apply(i, value)` gives the formula and stores nothing; `apply_n(value)` gives formula N of several, of one f32 each;
//! - `exact_n(value)` gives it with the CPU's bits; `hb_mul` and `hb_add` come with it.

use super::interface::Param;
use crate::base::DType;
use crate::device::gpu::finish::{AXES, AXES_AT, Finish, Indexing, STEPS_AT};
use crate::error::Result;
use crate::scalar::Domain;
use crate::scalar::steps::Step;
use crate::scalar::wgsl::{exact_function, function, loaded, stored, value_type, word_type};

use super::element::Element;

/// Functions of one f32 that a kernel calls, at most.
const FUNCTIONS: usize = 3;

/// The functions that `kernel` calls. `param` is the parameter `finish`, where there is one.
pub fn functions(finish: &Finish, param: Option<&Param>, kernel: &str) -> Result<String> {
    if let (Some(bits), true) = (plain(finish), param.is_some()) {
        let ty = Element::stored_by(finish).value();
        let word = format!("fn hb_word(i: u32, v: i32) -> {ty} {{ return {bits}; }}\n");
        return Ok(word
            + "fn store(i: u32, v: i32) { hb_out_put(i, hb_word(i, v)); }\n"
            + &store2(finish, "i32")
            + &store4(finish, "i32"));
    }
    let mut text = function("hb_formula", &finish.steps)? + &several(finish, kernel)?;
    if param.is_none() || !(kernel.contains("store") || kernel.contains("apply(")) {
        return Ok(text);
    }
    let word = param.map_or(0, |p| p.word);
    let domain = finish.steps.domain;
    let value = Element::natural(finish.value_type).value();
    let own = usize::from(finish.value);
    let (declared, passed) = if finish.value { (format!(", v: {value}"), ", v") } else { (String::new(), "") };
    text += &format!("fn apply(i: u32{declared}) -> {} {{\n", value_type(domain));
    if finish.operands.iter().any(|o| matches!(o, Indexing::Axes(_))) {
        text += &coordinates(finish.axes(), word);
    }
    let mut args: Vec<String> = finish.value.then(|| of_value(finish)).into_iter().collect();
    for (k, indexing) in finish.operands.iter().enumerate() {
        let raw = format!("hb_x{k}_at({})", index(k, indexing, word));
        args.push(loaded(finish.steps.args[own + k], domain, &raw));
    }
    text += &format!("  return hb_formula({});\n}}\n", args.join(", "));
    let out = finish.steps.out;
    let bits = |applied: &str| stored(out, domain, applied);
    text += &format!("fn hb_word(i: u32{declared}) -> {} {{ return {}; }}\n", word_type(out), bits(&format!("apply(i{passed})")));
    text += &match finish.lists {
        true => append(finish, word),
        false => format!("fn store(i: u32{declared}) {{ hb_out_put(i, hb_word(i{passed})); }}\n"),
    };
    text += &if finish.value { store2(finish, value) + &store4(finish, value) } else { store_run(finish) };
    Ok(text)
}

/// The bits of a 32-bit integer that is stored as it is: formulas of integers are computed in 64 bits, which not every adapter has.
pub fn plain(finish: &Finish) -> Option<&'static str> {
    match finish.steps.out {
        _ if !finish.value || finish.value_type != DType::I32 || finish.steps.steps != [Step::Arg(0)] => None,
        // Floats saturate where integers wrap.
        _ if finish.steps.domain != Domain::I64 => None,
        DType::I32 | DType::U32 => Some("bitcast<u32>(v)"),
        DType::I16 | DType::U16 => Some("bitcast<u32>(v) & 0xffffu"),
        DType::I8 | DType::U8 => Some("bitcast<u32>(v) & 0xffu"),
        DType::I64 | DType::U64 => Some("vec2<u32>(bitcast<u32>(v), select(0u, 0xffffffffu, v < 0))"),
        _ => None,
    }
}

/// The kernel's value in the formula's domain.
fn of_value(finish: &Finish) -> String {
    match finish.value_type {
        DType::I32 => loaded(DType::I32, finish.steps.domain, "bitcast<u32>(v)"),
        DType::F32 => loaded(DType::F32, finish.steps.domain, "bitcast<u32>(v)"),
        other => loaded(other, finish.steps.domain, "v"),
    }
}

/// `apply_1`, `apply_2`, ..., `exact_1`, ... as far as `kernel` calls them: functions of one f32, all the first where there is but one.
fn several(finish: &Finish, kernel: &str) -> Result<String> {
    let mut text = String::new();
    for (n, is_exact) in (1..=FUNCTIONS).flat_map(|n| [(n, false), (n, true)]) {
        let name = format!("{}_{n}", if is_exact { "exact" } else { "apply" });
        if kernel.contains(&format!("{name}(")) {
            let steps = n.checked_sub(2).and_then(|n| finish.more.get(n)).unwrap_or(&finish.steps);
            text += &if is_exact { exact_function(&name, steps)? } else { function(&name, steps)? };
        }
    }
    Ok(text)
}

/// `c0 ..`: the coordinates of element `i`, outermost first.
fn coordinates(axes: usize, word: usize) -> String {
    let mut text = String::from("  var n = i;\n");
    for axis in (1..axes).rev() {
        let size = argument(word + AXES_AT / 4 + 3 * axis);
        text += &format!("  let c{axis} = n % {size};\n  n = n / {size};\n");
    }
    text + "  let c0 = n;\n"
}

/// The number of operand `k`'s element that belongs to element `i`.
fn index(k: usize, indexing: &Indexing, word: usize) -> String {
    match indexing {
        Indexing::Same => "i".into(),
        Indexing::One => "0u".into(),
        Indexing::Axes(along) => offset(k, along, word),
    }
}

fn offset(k: usize, along: &[bool], word: usize) -> String {
    let step = |axis: usize| argument(word + STEPS_AT / 4 + k * AXES + axis);
    let terms: Vec<String> = (0..along.len()).filter(|&a| along[a]).map(|a| format!("c{a} * {}", step(a))).collect();
    if terms.is_empty() { "0u".into() } else { terms.join(" + ") }
}

/// `store` that appends the result to its row's list where it reaches the bar.
fn append(finish: &Finish, word: usize) -> String {
    let [(list, rows), (column, columns)] = finish.places();
    format!(
        "fn store(i: u32, v: f32) {{\n{}  let row = {};\n  let bits = hb_word(i, v);\n  \
         let key = bits ^ (~bitcast<u32>(bitcast<i32>(bits) >> 31u) & 0x7fffffffu);\n  \
         if (key > bitcast<u32>(hb_out_load(row))) {{ return; }}\n  \
         let at = row + 8u + 2u * u32(hb_out_add(row + 1u, 1));\n  hb_out_exchange(at, bitcast<i32>({}));\n  \
         hb_out_exchange(at + 1u, bitcast<i32>(key));\n}}\n",
        coordinates(finish.axes(), word),
        offset(list, &rows, word),
        offset(column, &columns, word),
    )
}

/// A word of the uniform block.
pub fn argument(word: usize) -> String {
    format!("hb_args[{}].{}", word / 4, ["x", "y", "z", "w"][word % 4])
}

/// The words of `count` neighbouring elements of `bytes` bytes from their bits, packed.
fn packed(bytes: usize, elements: &[String]) -> String {
    let shifted = |(e, bits): (usize, &String)| if e == 0 { bits.clone() } else { format!("{bits} << {}u", 8 * bytes * e) };
    elements.iter().enumerate().map(shifted).collect::<Vec<_>>().join(" | ")
}

fn store2(finish: &Finish, value: &str) -> String {
    let one_by_one = "if (has_a) { store(i, a); } if (has_b) { store(i + 1u, b); }";
    let body = match finish.steps.out.size_bytes() {
        2 if finish.pairs => {
            let word = packed(2, &["hb_word(i, a)".into(), "hb_word(i + 1u, b)".into()]);
            format!("if (has_a) {{ hb_out_put_word(i >> 1u, {word}); }}")
        }
        _ => one_by_one.into(),
    };
    format!("fn store2(i: u32, a: {value}, b: {value}, has_a: bool, has_b: bool) {{ {body} }}\n")
}

fn store4(finish: &Finish, value: &str) -> String {
    if finish.value_type.size_bytes() != 4 {
        return String::new();
    }
    format!("fn store4(i: u32, v: vec4<{value}>) {{\n{}}}\n", store_each(finish, 4, |e| format!(", v[{e}]")))
}

fn store_run(finish: &Finish) -> String {
    format!("fn store_run(i: u32) {{\n{}}}\n", store_each(finish, finish.vector, |_| String::new()))
}

/// Stores elements `i`, a multiple of `count`, to `i + count - 1`, whose values are the arguments `value(e)`: narrow ones as words.
fn store_each(finish: &Finish, count: usize, value: impl Fn(usize) -> String) -> String {
    let bytes = finish.steps.out.size_bytes();
    let each = (4 / bytes).max(1);
    let mut text = String::new();
    for first in (0..count).step_by(each) {
        let all = first..count.min(first + each);
        text += &match each > 1 && all.len() == each {
            true => {
                let bits: Vec<String> = all.map(|e| format!("hb_word(i + {e}u{})", value(e))).collect();
                format!("  hb_out_put_word((i >> {}u) + {}u, {});\n", each.ilog2(), first / each, packed(bytes, &bits))
            }
            false => all.map(|e| format!("  store(i + {e}u{});\n", value(e))).collect(),
        };
    }
    text
}

/// `store_row` of a workgroup of so many threads. The last word's bits beyond the tensor are 0: tensors begin at multiples of 16 bytes.
pub fn store_row(finish: &Finish, threads: u32) -> String {
    let (bytes, value) = (finish.steps.out.size_bytes(), Element::natural(finish.value_type).value());
    let head = format!("fn store_row(i: u32, v: {value}, has: bool) {{\n");
    if bytes >= 4 {
        return head + "  if (has) { store(i, v); }\n}\n";
    }
    let each = 4 / bytes;
    let words: Vec<String> = (0..each).map(|e| format!("hb_row[thread + {e}u]")).collect();
    format!(
        "var<workgroup> hb_row: array<u32, {threads}>;\n{head}  var bits = 0u;\n  if (has) {{ bits = hb_word(i, v); }}\n  \
         hb_row[thread] = bits;\n  workgroupBarrier();\n  \
         if (has && i % {each}u == 0u) {{ hb_out_put_word(i / {each}u, {}); }}\n}}\n",
        packed(bytes, &words)
    )
}
