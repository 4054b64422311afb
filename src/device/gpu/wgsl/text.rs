//! A shader's text, complete.

use super::element::accessors;
use super::interface::{Binding, HEADER_WORDS, Interface, Kind, Param};
use super::store::{argument, functions, store_row};
use crate::device::gpu::finish::Finish;
use crate::error::Result;
use crate::scalar::wgsl::{support, support_exact, support_f64, support64};

/// A shader that can be compiled.
pub struct Complete {
    /// The module; its entry is `main`.
    pub text: String,
    /// Words of the uniform block of binding 0.
    pub words: usize,
    /// The storage bindings from 1 on.
    pub bindings: Vec<Binding>,
}

/// Completes a template's text for a formula, and for pointers of which those whose bit is set in `constants` are never written.
/// Errors when the text declares something unknown, or has slots that `finish` does not fill.
pub fn complete(text: &str, threads: u32, finish: Option<&Finish>, constants: u64) -> Result<Complete> {
    let interface = Interface::read(text, finish)?;
    let text = &without_comments(text);
    let words = interface.words().next_multiple_of(4);
    let mut own: String = interface.params.iter().map(parameter).collect();
    if let Some(finish) = finish {
        own += &functions(finish, interface.params.iter().find(|p| p.kind == Kind::Finish), text)?;
        if text.contains("store_row(") {
            own += &store_row(finish, threads);
        }
    }
    own += text;
    // Some adapters bind few buffers: what a variant does not use is none of them.
    let mut bindings = interface.bindings(finish, constants);
    bindings.retain(|b| own.contains(&format!("{}_", b.name)));
    for (number, binding) in bindings.iter().enumerate() {
        own += &accessors(binding, number + 1);
    }
    let mut module = String::new();
    let is_cooperative = text.contains("coop_mat");
    if is_cooperative {
        module += "enable f16;\nenable wgpu_cooperative_matrix;\nvar<private> subgroup: u32;\n";
    }
    module += &format!("@group(0) @binding(0) var<uniform> hb_args: array<vec4<u32>, {}>;\n", words / 4);
    module += "var<private> block: vec3<u32>;\nvar<private> grid: vec3<u32>;\nvar<private> thread: u32;\n";
    module += "fn hb_exact(x: f32) -> f32 { return bitcast<f32>(bitcast<u32>(x) ^ hb_args[1].x); }\n";
    module += support();
    if text.contains("exact_1(") {
        module += support_exact();
    }
    if own.contains("i64") || own.contains("u64") {
        module += support64();
    }
    if own.contains("f64") {
        module += support_f64();
    }
    module += &own;
    module += &entry(threads, is_cooperative);
    Ok(Complete { text: module, words, bindings })
}

/// Comments name types that the code may lack.
fn without_comments(text: &str) -> String {
    text.lines().filter(|l| !l.trim_start().starts_with("//")).flat_map(|l| [l, "\n"]).collect()
}

/// `NAME()` gives a number, `NAME(i)` word `i` of a block.
fn parameter(param: &Param) -> String {
    let Param { name, kind, word } = param;
    let at = argument(*word);
    match kind {
        Kind::U32 => format!("fn {name}() -> u32 {{ return {at}; }}\n"),
        Kind::F32 => format!("fn {name}() -> f32 {{ return bitcast<f32>({at}); }}\n"),
        Kind::U64 => format!("fn {name}() -> vec2<u32> {{ return vec2<u32>({at}, {}); }}\n", argument(word + 1)),
        Kind::Block(_) => format!("fn {name}(i: u32) -> u32 {{ let w = {word}u + i; return hb_args[w >> 2u][w & 3u]; }}\n"),
        Kind::Pointer(..) | Kind::Finish => String::new(),
    }
}

/// Grids of more blocks along x than a device takes are folded into y and z, and unfolded here.
fn entry(threads: u32, by_subgroup: bool) -> String {
    const { assert!(HEADER_WORDS == 8) };
    let (given, kept) = if by_subgroup { (", @builtin(subgroup_id) s: u32", "  subgroup = s;\n") } else { ("", "") };
    format!(
        "@compute @workgroup_size({threads})
fn main(@builtin(workgroup_id) w: vec3<u32>, @builtin(num_workgroups) c: vec3<u32>, @builtin(local_invocation_index) t: u32{given}) {{
{kept}  grid = hb_args[0].xyz;
  thread = t;
  block = w;
  if (hb_args[0].w != 0u) {{
    let n = w.x + w.y * c.x;
    block = vec3<u32>(n % grid.x, (n / grid.x) % grid.y, n / (grid.x * grid.y));
  }}
  if (block.z < grid.z) {{ kernel(); }}
}}
"
    )
}
