//! The slot `//@vector INDEX`: as many neighbouring elements at once as fill 16 bytes of the widest operand. Registers are those of
//! [`super::splice()`]; words of 32 bits hold what is loaded and stored.

use super::splice::{address, coordinates, load, load_of};
use crate::base::DType;
use crate::device::gpu::finish::{Finish, Indexing};
use crate::error::Result;
use crate::scalar::ptx::{body, register_type};

/// Elements INDEX, a multiple of the vector, to the vector's end.
pub(super) fn store(finish: &Finish, index: &str, sm: u32) -> Result<String> {
    let (out, count) = (finish.steps.out, finish.vector);
    let mut text = format!("{{\n.reg .b64 %hf_a, %hf_p;\n.reg .{} %hf_y<{count}>;\n", register_type(out));
    if finish.operands.iter().any(|o| matches!(o, Indexing::Axes(_))) {
        text += &coordinates(finish, index);
    }
    let runs: Vec<bool> = finish.operands.iter().map(Indexing::runs).collect();
    for (i, (indexing, &dtype)) in finish.operands.iter().zip(&finish.steps.args).enumerate() {
        let bytes = count * dtype.size_bytes();
        text += &match runs[i] {
            true => {
                let words = bytes.div_ceil(4);
                let address = address(i, indexing, index, finish.axes(), dtype.size_bytes());
                let (load, moved) = (load_of(finish, indexing), moved(bytes, &named(i, words), "%hf_a", true));
                format!(".reg .b32 %hf_w{i}_<{words}>;\n{address}{load}.{moved};\n")
            }
            false => load(finish, i, indexing, index, &format!("%hf_x{i}"), dtype),
        };
    }
    let inputs: Vec<String> = (0..runs.len()).map(|i| format!("%hf_x{i}")).collect();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    for e in 0..count {
        text += "{\n";
        for (i, &dtype) in finish.steps.args.iter().enumerate().filter(|(i, _)| runs[*i]) {
            text += &format!(".reg .{} %hf_x{i};\n{}", register_type(dtype), element(dtype, i, e));
        }
        text += &body(&finish.steps, &inputs, &format!("%hf_y{e}"), sm)?;
        text += "}\n";
    }
    let (pack, words) = packed(out, count);
    let bytes = out.size_bytes();
    let store = if bytes == 8 { "v2.b64 [%hf_p], {%hf_y0, %hf_y1}".into() } else { moved(count * bytes, &words, "%hf_p", false) };
    Ok(text
        + &format!("{pack}ld.param.u64 %hf_p, [finish];\nmad.wide.u32 %hf_p, {index}, {bytes}, %hf_p;\nst.global.{store};\n}}"))
}

/// Names of the words of operand `i`.
fn named(i: usize, count: usize) -> Vec<String> {
    (0..count).map(|w| format!("%hf_w{i}_{w}")).collect()
}

/// Type and operands of a load or store of so many bytes.
fn moved(bytes: usize, words: &[String], address: &str, is_load: bool) -> String {
    let (ty, registers) = match bytes {
        1 => ("u8", words[0].clone()),
        2 => ("u16", words[0].clone()),
        4 => ("b32", words[0].clone()),
        8 => ("v2.b32", format!("{{{}}}", words.join(", "))),
        _ => ("v4.b32", format!("{{{}}}", words.join(", "))),
    };
    if is_load { format!("{ty} {registers}, [{address}]") } else { format!("{ty} [{address}], {registers}") }
}

/// Element `e` of operand `i` from its words.
fn element(dtype: DType, i: usize, e: usize) -> String {
    let word = |w: usize| format!("%hf_w{i}_{w}");
    match (dtype, dtype.size_bytes()) {
        (_, 8) => format!("mov.b64 %hf_x{i}, {{{}, {}}};\n", word(2 * e), word(2 * e + 1)),
        (_, 4) => format!("mov.b32 %hf_x{i}, {};\n", word(e)),
        (DType::F16 | DType::BF16, _) => {
            let halves = if e.is_multiple_of(2) { format!("%hf_x{i}, %hf_h") } else { format!("%hf_h, %hf_x{i}") };
            format!("{{\n.reg .b16 %hf_h;\nmov.b32 {{{halves}}}, {};\n}}\n", word(e / 2))
        }
        (_, size) => {
            let sign = if dtype.int_range().is_some_and(|r| r.0 < 0) { "s32" } else { "u32" };
            format!("bfe.{sign} %hf_x{i}, {}, {}, {};\n", word(e * size / 4), e * size % 4 * 8, size * 8)
        }
    }
}

/// What makes words of the results, and their names.
fn packed(dtype: DType, count: usize) -> (String, Vec<String>) {
    let word = |w: usize| format!("%hf_o{w}");
    let y = |e: usize| format!("%hf_y{e}");
    let size = dtype.size_bytes();
    let words = (count * size).div_ceil(4);
    let mut text = format!(".reg .b32 %hf_o<{words}>, %hf_u;\n");
    for w in 0..words {
        text += &match (dtype, size) {
            (_, 4 | 8) => return (String::new(), (0..count).map(y).collect()),
            (DType::F16 | DType::BF16, _) => format!("mov.b32 {}, {{{}, {}}};\n", word(w), y(2 * w), y(2 * w + 1)),
            (_, 2) => format!("prmt.b32 {}, {}, {}, 0x5410;\n", word(w), y(2 * w), y(2 * w + 1)),
            _ if count == 2 => format!("prmt.b32 {}, %hf_y0, %hf_y1, 0x0040;\n", word(w)),
            _ => format!(
                "prmt.b32 {o}, {}, {}, 0x0040;\nprmt.b32 %hf_u, {}, {}, 0x0040;\nprmt.b32 {o}, {o}, %hf_u, 0x5410;\n",
                y(4 * w),
                y(4 * w + 1),
                y(4 * w + 2),
                y(4 * w + 3),
                o = word(w)
            ),
        };
    }
    (text, (0..words).map(word).collect())
}
