//! Renders the PTX kernels of kernels/ into `OUT_DIR/kernels.rs` and the WGSL ones of shaders/ into `OUT_DIR/shaders.rs`: needs
//! no CUDA tool.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

#[allow(dead_code)]
#[path = "kernels/render.rs"]
mod render;

use render::{Row, ShaderRow};

fn main() {
    for read in ["kernels", "shaders", "build.rs"] {
        println!("cargo::rerun-if-changed={read}");
    }
    if let Err(why) = write_kernels().and_then(|()| write_shaders()) {
        println!("cargo::error={}", why.replace('\n', " "));
    }
}

/// Those of a row's parameters that are numbers, as an array of pairs.
fn numbers(params: &BTreeMap<String, toml::Value>) -> String {
    params.iter().filter_map(|(k, v)| Some(format!("({k:?}, {}), ", v.as_integer()?))).collect()
}

fn write_kernels() -> Result<(), String> {
    let mut code = String::from("&[\n");
    for kernel in render::render::<Row>(Path::new("kernels"), |_| true)? {
        let row = &kernel.row;
        let (threads, shared) = (row.threads, row.shared_bytes);
        let (target, text, params) = (&row.target, &kernel.text, numbers(&row.params));
        let value = row.params.get("value").and_then(toml::Value::as_str).unwrap_or("f32");
        let fields = format!("name: {:?}, template: {:?}, target: {target:?}, threads: {threads}", row.name, row.template);
        writeln!(code, "Variant {{ {fields}, shared_bytes: {shared}, numbers: &[{params}], value: {value:?}, text: {text:?} }},")
            .map_err(|e| e.to_string())?;
    }
    write("kernels.rs", code)
}

fn write_shaders() -> Result<(), String> {
    let (mut code, mut only) = (String::from("&[\n"), String::from("&[\n"));
    let kernels: Vec<String> = render::rows::<Row>(Path::new("kernels"))?.into_iter().map(|r| r.name).collect();
    for shader in render::render::<ShaderRow>(Path::new("shaders"), |_| true)? {
        let row = &shader.row;
        let (threads, text, params) = (row.threads, &shader.text, numbers(&row.params));
        let fields = format!("name: {:?}, template: {:?}, threads: {threads}", row.name, row.template);
        writeln!(code, "Shader {{ {fields}, numbers: &[{params}], text: {text:?} }},").map_err(|e| e.to_string())?;
        if !kernels.contains(&row.name) {
            let value = row.params.get("value").and_then(toml::Value::as_str).unwrap_or("f32");
            let rest = format!("target: \"wgsl\", shared_bytes: 0, numbers: &[{params}], value: {value:?}, text: \"\"");
            writeln!(only, "Variant {{ {fields}, {rest} }},").map_err(|e| e.to_string())?;
        }
    }
    write("wgsl_only.rs", only)?;
    write("shaders.rs", code)
}

fn write(name: &str, mut code: String) -> Result<(), String> {
    let out = std::env::var("OUT_DIR").map_err(|e| e.to_string())?;
    code += "]\n";
    std::fs::write(Path::new(&out).join(name), code).map_err(|e| e.to_string())
}
