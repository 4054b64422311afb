//! Renders the PTX kernels of kernels/ into `OUT_DIR/kernels.rs` and the WGSL ones of shaders/ into `OUT_DIR/shaders.rs`: needs
//! no CUDA tool. Where the environment's `PTXAS` names NVIDIA's assembler, PTX without slots for formulas is assembled for its own
//! target, and its machine code is embedded beside it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

#[path = "kernels/assemble.rs"]
mod assemble;
#[allow(dead_code)]
#[path = "kernels/render.rs"]
mod render;

use render::{Rendered, Row, ShaderRow};

fn main() {
    for read in ["kernels", "shaders", "build.rs"] {
        println!("cargo::rerun-if-changed={read}");
    }
    println!("cargo::rerun-if-env-changed=PTXAS");
    if let Err(why) = write_all() {
        println!("cargo::error={}", why.replace('\n', " "));
    }
}

fn write_all() -> Result<(), String> {
    let kernels = render::render::<Row>(Path::new("kernels"), |_| true)?;
    let shaders = render::render::<ShaderRow>(Path::new("shaders"), |_| true)?;
    write_kernels(&kernels)?;
    write_shaders(&shaders, &kernels)?;
    let mut hash = DefaultHasher::new();
    kernels.iter().map(|k| &k.text).chain(shaders.iter().map(|s| &s.text)).for_each(|text| text.hash(&mut hash));
    println!("cargo::rustc-env=HALFBYTE_TEXTS={:016x}", hash.finish());
    Ok(())
}

/// Those of a row's parameters that are numbers, as an array of pairs.
fn numbers(params: &BTreeMap<String, toml::Value>) -> String {
    params.iter().filter_map(|(k, v)| Some(format!("({k:?}, {}), ", v.as_integer()?))).collect()
}

fn write_kernels(kernels: &[Rendered<Row>]) -> Result<(), String> {
    let (ptxas, out) = (ptxas(), out()?);
    if let Some(ptxas) = &ptxas {
        assemble_all(ptxas, kernels, &out)?;
    }
    let mut code = String::from("&[\n");
    for kernel in kernels {
        let row = &kernel.row;
        let (threads, shared) = (row.threads, row.shared_bytes);
        let (target, text, params) = (&row.target, &kernel.text, numbers(&row.params));
        let value = row.params.get("value").and_then(toml::Value::as_str).unwrap_or("f32");
        let cubin = match ptxas.is_some() && is_complete(kernel) {
            true => format!("Some(include_bytes!({:?}))", out.join(format!("{}.cubin", row.name))),
            false => "None".into(),
        };
        let fields = format!("name: {:?}, template: {:?}, target: {target:?}, threads: {threads}", row.name, row.template);
        let rest = format!("numbers: &[{params}], value: {value:?}, text: {text:?}, cubin: {cubin}");
        writeln!(code, "Variant {{ {fields}, shared_bytes: {shared}, {rest} }},").map_err(|e| e.to_string())?;
    }
    write("kernels.rs", code)
}

/// The assembler, where one is named and the kernels are used.
fn ptxas() -> Option<String> {
    std::env::var("CARGO_FEATURE_CUDA").ok()?;
    std::env::var("PTXAS").ok().filter(|path| !path.is_empty())
}

/// Whether the text has no slots: the others' formulas arrive with the model.
fn is_complete(kernel: &Rendered<Row>) -> bool {
    !kernel.text.contains("//@")
}

/// The machine code of every complete text as `NAME.cubin`, by as many threads as cargo grants.
fn assemble_all(ptxas: &str, kernels: &[Rendered<Row>], out: &Path) -> Result<(), String> {
    let threads = std::env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let left = Mutex::new(kernels.iter().filter(|k| is_complete(k)));
    let next = || left.lock().ok()?.next();
    let work = || -> Result<(), String> {
        while let Some(kernel) = next() {
            assemble::assemble(ptxas, &kernel.text, &kernel.row.target, out, &kernel.row.name)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        all.into_iter().try_for_each(|t| t.join().map_err(|_| "a thread of the build ended early".to_string())?)
    })
}

fn write_shaders(shaders: &[Rendered<ShaderRow>], kernels: &[Rendered<Row>]) -> Result<(), String> {
    let (mut code, mut only) = (String::from("&[\n"), String::from("&[\n"));
    for shader in shaders {
        let row = &shader.row;
        let (threads, text, params) = (row.threads, &shader.text, numbers(&row.params));
        let fields = format!("name: {:?}, template: {:?}, threads: {threads}", row.name, row.template);
        writeln!(code, "Shader {{ {fields}, numbers: &[{params}], text: {text:?} }},").map_err(|e| e.to_string())?;
        if !kernels.iter().any(|k| k.row.name == row.name) {
            let value = row.params.get("value").and_then(toml::Value::as_str).unwrap_or("f32");
            let rest = format!("shared_bytes: 0, numbers: &[{params}], value: {value:?}, text: \"\", cubin: None");
            writeln!(only, "Variant {{ {fields}, target: \"wgsl\", {rest} }},").map_err(|e| e.to_string())?;
        }
    }
    write("wgsl_only.rs", only)?;
    write("shaders.rs", code)
}

fn out() -> Result<PathBuf, String> {
    std::env::var("OUT_DIR").map(PathBuf::from).map_err(|e| e.to_string())
}

fn write(name: &str, mut code: String) -> Result<(), String> {
    code += "]\n";
    std::fs::write(out()?.join(name), code).map_err(|e| e.to_string())
}
