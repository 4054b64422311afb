//! Shaders' texts: as built in, or with `HALFBYTE_RENDER=1` as shaders/ has them now, so that a changed shader needs no build. Changed
//! arguments and new names do.
#![allow(dead_code)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use halfbyte::device::gpu::Shader;

#[path = "../../kernels/render.rs"]
#[allow(clippy::duplicate_mod)]
pub mod render;

/// The text of a row of shaders/variants.toml.
pub fn text_of(shader: &'static Shader) -> &'static str {
    static NOW: OnceLock<HashMap<String, String>> = OnceLock::new();
    if std::env::var("HALFBYTE_RENDER").is_err() {
        return shader.text;
    }
    let render = || {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders"));
        let all = render::render(folder, |_: &render::ShaderRow| true).unwrap_or_else(|e| panic!("{e}"));
        all.into_iter().map(|r| (r.row.name, r.text)).collect()
    };
    NOW.get_or_init(render).get(shader.name).unwrap_or_else(|| panic!("no shader {}", shader.name))
}
