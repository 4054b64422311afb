//! Renders the PTX kernels of kernels/ into `OUT_DIR/kernels.rs`: needs no CUDA tool.

use std::fmt::Write;
use std::path::Path;

#[allow(dead_code)]
#[path = "kernels/render.rs"]
mod render;

fn main() {
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(why) = write_kernels() {
        println!("cargo::error={}", why.replace('\n', " "));
    }
}

fn write_kernels() -> Result<(), String> {
    let out = std::env::var("OUT_DIR").map_err(|e| e.to_string())?;
    let mut code = String::from("&[\n");
    for kernel in render::render(Path::new("kernels"), |_| true)? {
        let row = &kernel.row;
        let number = |(k, v): (&String, &toml::Value)| Some(format!("({k:?}, {}), ", v.as_integer()?));
        let params: String = row.params.iter().filter_map(number).collect();
        let (threads, shared) = (row.threads, row.shared_bytes);
        let target = &row.target;
        let text = &kernel.text;
        let value = row.params.get("value").and_then(toml::Value::as_str).unwrap_or("f32");
        let fields = format!("name: {:?}, template: {:?}, target: {target:?}, threads: {threads}", row.name, row.template);
        writeln!(code, "Variant {{ {fields}, shared_bytes: {shared}, numbers: &[{params}], value: {value:?}, text: {text:?} }},")
            .map_err(|e| e.to_string())?;
    }
    code += "]\n";
    std::fs::write(Path::new(&out).join("kernels.rs"), code).map_err(|e| e.to_string())
}
