//! Fills a kernel's slots for formulas. A slot is a line of the text:
//!
//! - `//@store VALUE INDEX [PREDICATE]` stores the formula of register VALUE (f32, or s32 where the kernel's value is one; `-`
//!   where it gives none) as element INDEX (`.u32`, row-major) of the output, where the predicate holds;
//! - `//@store2 VALUE0 VALUE1 INDEX PREDICATE0 PREDICATE1` stores elements INDEX, an even number, and INDEX + 1 (both of these append to lists of
//!   rows where [`Finish::lists`] is set);
//! - `//@vector INDEX` stores as many elements from INDEX on as [`Finish::vector`] says, of kernels that give no value;
//! - `//@load RESULT BASE INDEX` reads element INDEX (`.u32`) of the tensor at BASE (`.u64`), of the type of [`Finish::reads`], into
//!   RESULT, a register of the type of the kernel's value (f32 or f64);
//! - `//@apply VALUE INDEX RESULT [N]` leaves the formula in RESULT, of the output's register type, and stores nothing: formula N of
//!   several (the first where there is but one);
//! - `//@apply2 VALUE0 VALUE1 INDEX RESULT` leaves elements INDEX and INDEX + 1, of 2 bytes each, in the low and high half of
//!   RESULT, a register of 32 bits.
//!
//! Registers and labels of what a slot becomes are its own. The entry has a last parameter `finish`.

use super::vector;
use crate::base::DType;
use crate::device::gpu::finish::{self, AXES_AT, Finish, Indexing, OPERANDS_AT, STEPS_AT};
use crate::error::{Error, Result};
use crate::scalar::ptx::{body, memory_type, register_type};
use crate::scalar::{Steps, arg};

const REGISTERS: [&str; 9] = ["%hf_v", "%hf_x0", "%hf_x1", "%hf_x2", "%hf_x3", "%hf_x4", "%hf_x5", "%hf_x6", "%hf_x7"];

/// The text with its slots filled, for architecture `sm`.
pub fn splice(text: &str, finish: Option<&Finish>, sm: u32) -> Result<String> {
    let mut filled = String::with_capacity(text.len());
    for line in text.lines() {
        match line.trim_start().strip_prefix("//@") {
            None => filled += line,
            Some(slot) => filled += &fill(slot, finish, sm)?,
        }
        filled.push('\n');
    }
    Ok(filled)
}

fn fill(slot: &str, finish: Option<&Finish>, sm: u32) -> Result<String> {
    let broken = || Error::Device { device: "cuda".into(), why: format!("a kernel's slot `{slot}` cannot be filled") };
    let finish = finish.ok_or_else(broken)?;
    let words: Vec<&str> = slot.split_whitespace().collect();
    match words[..] {
        ["store", value, index] => store(finish, value, index, None, sm),
        ["store", value, index, predicate] => store(finish, value, index, Some(predicate), sm),
        ["store2", v0, v1, index, p0, p1] => store2(finish, [v0, v1], index, [p0, p1], sm),
        ["vector", index] => vector::store(finish, index, sm),
        ["load", result, base, index] => read(finish, result, base, index, sm),
        ["apply", value, index, result] => Ok(format!("{{\n{}}}", apply(finish, value, index, result, sm)?)),
        ["apply2", v0, v1, index, result] if finish.steps.out.size_bytes() == 2 => apply2(finish, [v0, v1], index, result, sm),
        ["apply", value, index, result, number] => match number.parse::<usize>().map_err(|_| broken())?.checked_sub(1) {
            Some(n) if n < finish.more.len() => body(&finish.more[n], &[value], result, sm),
            _ => Ok(format!("{{\n{}}}", apply(finish, value, index, result, sm)?)),
        },
        _ => Err(broken()),
    }
}

/// The formula of `value` and of the operands' elements that belong to `index`, into `result`.
fn apply(finish: &Finish, value: &str, index: &str, result: &str, sm: u32) -> Result<String> {
    let own = usize::from(finish.value);
    let mut inputs: Vec<&str> = if finish.value { vec![value] } else { Vec::new() };
    let mut text = String::from(".reg .b64 %hf_a;\n");
    if finish.operands.iter().any(|o| matches!(o, Indexing::Axes(_))) {
        text += &coordinates(finish, index);
    }
    for (i, indexing) in finish.operands.iter().enumerate() {
        let x = REGISTERS[i + 1];
        text += &load(finish, i, indexing, index, x, finish.steps.args[own + i]);
        inputs.push(x);
    }
    // Registers of the block itself are declared by whoever opens it; the result may be one of them.
    text += &body(&finish.steps, &inputs, result, sm)?;
    Ok(text)
}

fn apply2(finish: &Finish, values: [&str; 2], index: &str, result: &str, sm: u32) -> Result<String> {
    let register = register_type(finish.steps.out);
    let first = apply(finish, values[0], index, "%hf_y", sm)?;
    let second = apply(finish, values[1], "%hf_j", "%hf_z", sm)?;
    Ok(format!(
        "{{\n.reg .{register} %hf_y, %hf_z;\n.reg .b32 %hf_j;\nadd.u32 %hf_j, {index}, 1;\n{{\n{first}}}\n{{\n{second}}}\n\
         mov.b32 {result}, {{%hf_y, %hf_z}};\n}}"
    ))
}

/// An element of the kernel's own input as its value's type.
fn read(finish: &Finish, result: &str, base: &str, index: &str, sm: u32) -> Result<String> {
    let dtype =
        finish.reads.ok_or_else(|| Error::Device { device: "cuda".into(), why: "a kernel reads no known type".into() })?;
    let steps = Steps::compile(&arg(0), &[dtype], finish.value_type)?;
    let (register, memory, bytes) = (register_type(dtype), memory_type(dtype), dtype.size_bytes());
    let (value, convert) = (register_type(finish.value_type), body(&steps, &["%hf_x"], "%hf_r", sm)?);
    Ok(format!(
        "{{\n.reg .b64 %hf_a;\n.reg .{register} %hf_x;\n.reg .{value} %hf_r;\nmad.wide.u32 %hf_a, {index}, {bytes}, {base};\n\
         ld.global.nc.{memory} %hf_x, [%hf_a];\n{convert}mov.{value} {result}, %hf_r;\n}}"
    ))
}

/// `%hf_c0 ..`: the coordinates of element `index`, outermost first.
pub(super) fn coordinates(finish: &Finish, index: &str) -> String {
    let axes = finish.axes();
    let mut text = format!(".reg .b32 %hf_c<{axes}>, %hf_n, %hf_q, %hf_k;\nmov.b32 %hf_n, {index};\n");
    for axis in (1..axes).rev() {
        let at = AXES_AT + axis * 12;
        text += &format!(
            "ld.param.u32 %hf_k, [finish+{}];\nmul.hi.u32 %hf_q, %hf_n, %hf_k;\nadd.u32 %hf_q, %hf_q, %hf_n;\n\
             ld.param.u32 %hf_k, [finish+{}];\nshr.u32 %hf_q, %hf_q, %hf_k;\nld.param.u32 %hf_k, [finish+{at}];\n\
             mul.lo.u32 %hf_k, %hf_q, %hf_k;\nsub.u32 %hf_c{axis}, %hf_n, %hf_k;\nmov.b32 %hf_n, %hf_q;\n",
            at + 4,
            at + 8
        );
    }
    text + "mov.b32 %hf_c0, %hf_n;\n"
}

/// Operand `i`'s element that belongs to `index`, into a register that this declares.
pub(super) fn load(finish: &Finish, i: usize, indexing: &Indexing, index: &str, to: &str, dtype: DType) -> String {
    let (register, memory) = (register_type(dtype), memory_type(dtype));
    let address = address(i, indexing, index, finish.axes(), dtype.size_bytes());
    format!(".reg .{register} {to};\n{address}{}.{memory} {to}, [%hf_a];\n", load_of(finish, indexing))
}

/// How an operand is loaded. Elementwise work may store its output over one (`kernel::scalar::in_place`), which so is no data that the kernel
/// only reads (PTX ISA 9.7.9.9, ld.global.nc).
pub(super) fn load_of(finish: &Finish, indexing: &Indexing) -> &'static str {
    if !finish.value && *indexing == Indexing::Same { "ld.global" } else { "ld.global.nc" }
}

/// `%hf_a`: the address of operand `i`'s element that belongs to `index`.
pub(super) fn address(i: usize, indexing: &Indexing, index: &str, axes: usize, bytes: usize) -> String {
    let mut text = format!("ld.param.u64 %hf_a, [finish+{}];\n", OPERANDS_AT + 8 * i);
    match indexing {
        Indexing::Same => text += &format!("mad.wide.u32 %hf_a, {index}, {bytes}, %hf_a;\n"),
        Indexing::One => {}
        Indexing::Axes(along) => {
            text += &format!("{{\n.reg .b32 %hf_o, %hf_s;\n{}", offset(i, &along[..axes], "%hf_o"));
            text += &format!("mad.wide.u32 %hf_a, %hf_o, {bytes}, %hf_a;\n}}\n");
        }
    }
    text
}

/// The number of operand `i`'s element into `to`, by way of `%hf_s`.
fn offset(i: usize, along: &[bool], to: &str) -> String {
    let mut text = format!("mov.b32 {to}, 0;\n");
    for axis in (0..along.len()).filter(|&a| along[a]) {
        let at = STEPS_AT + (i * finish::AXES + axis) * 4;
        text += &format!("ld.param.u32 %hf_s, [finish+{at}];\nmad.lo.u32 {to}, %hf_c{axis}, %hf_s, {to};\n");
    }
    text
}

/// Appends `%hf_y` to its row's list where it reaches the bar, from which `$hf_skip` leads away.
fn append(finish: &Finish, index: &str) -> String {
    let [(list, rows), (column, columns)] = finish.places();
    let coordinates = if finish.axes() > 0 { coordinates(finish, index) } else { String::new() };
    format!(
        "{{\n.reg .b32 %hf_s, %hf_row, %hf_column, %hf_key, %hf_bar;\n.reg .pred %hf_below;\n{coordinates}{}{}\
         ld.param.u64 %hf_p, [finish];\nmad.wide.u32 %hf_p, %hf_row, 4, %hf_p;\n\
         mov.b32 %hf_key, %hf_y;\nshr.s32 %hf_s, %hf_key, 31;\nnot.b32 %hf_s, %hf_s;\n\
         and.b32 %hf_s, %hf_s, 0x7FFFFFFF;\nxor.b32 %hf_key, %hf_key, %hf_s;\n\
         ld.global.u32 %hf_bar, [%hf_p];\nsetp.gt.u32 %hf_below, %hf_key, %hf_bar;\n@%hf_below bra $hf_skip;\n\
         atom.global.add.u32 %hf_s, [%hf_p+4], 1;\nmad.wide.u32 %hf_p, %hf_s, 8, %hf_p;\n\
         st.global.v2.b32 [%hf_p+32], {{%hf_column, %hf_key}};\n}}\n",
        offset(list, &rows, "%hf_row"),
        offset(column, &columns, "%hf_column"),
    )
}

fn store(finish: &Finish, value: &str, index: &str, predicate: Option<&str>, sm: u32) -> Result<String> {
    let out = finish.steps.out;
    let (register, memory, bytes) = (register_type(out), memory_type(out), out.size_bytes());
    let skip = predicate.map_or(String::new(), |p| format!("@!{p} bra $hf_skip;\n"));
    let label = if predicate.is_some() || finish.lists { "$hf_skip:\n" } else { "" };
    let formula = apply(finish, value, index, "%hf_y", sm)?;
    let put = match finish.lists {
        true => append(finish, index),
        false => format!(
            "ld.param.u64 %hf_p, [finish];\nmad.wide.u32 %hf_p, {index}, {bytes}, %hf_p;\nst.global.{memory} [%hf_p], %hf_y;\n"
        ),
    };
    Ok(format!("{{\n.reg .{register} %hf_y;\n.reg .b64 %hf_p;\n{skip}{{\n{formula}}}\n{put}{label}}}"))
}

fn store2(finish: &Finish, values: [&str; 2], index: &str, predicates: [&str; 2], sm: u32) -> Result<String> {
    let out = finish.steps.out;
    let (register, memory, bytes) = (register_type(out), memory_type(out), out.size_bytes());
    let next = format!("{{\n.reg .b32 %hf_j;\nadd.u32 %hf_j, {index}, 1;\n");
    if !finish.pairs || finish.lists {
        let first = store(finish, values[0], index, Some(predicates[0]), sm)?;
        let second = store(finish, values[1], "%hf_j", Some(predicates[1]), sm)?;
        return Ok(format!("{first}\n{next}{second}\n}}"));
    }
    let first = apply(finish, values[0], index, "%hf_y", sm)?;
    let second = apply(finish, values[1], "%hf_j", "%hf_z", sm)?;
    Ok(format!(
        "{{\n.reg .{register} %hf_y, %hf_z;\n.reg .b64 %hf_p;\n@!{} bra $hf_skip;\n{{\n{first}}}\n{next}{second}}}\n\
         ld.param.u64 %hf_p, [finish];\nmad.wide.u32 %hf_p, {index}, {bytes}, %hf_p;\n\
         st.global.v2.{memory} [%hf_p], {{%hf_y, %hf_z}};\n$hf_skip:\n}}",
        predicates[0]
    ))
}
