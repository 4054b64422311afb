//! Shaders' texts: as built in, or with `HALFBYTE_RENDER=1` as shaders/ has them now, so that a changed shader needs no build. Changed
//! arguments and new names do. And the device that runs them.
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

/// This machine's first adapter of Vulkan, Metal or DX12, a software one too, whose shaders' texts are `texts`, with all of the shaders'
/// indexes checked or, with `HALFBYTE_SHADER_CHECKS=0`, none. No adapter is an error where `HALFBYTE_REQUIRE_WGPU` is set.
#[cfg(feature = "wgpu")]
pub fn open(
    texts: halfbyte::device::wgpu::Texts,
) -> Option<(halfbyte::device::wgpu::Wgpu, impl halfbyte::device::Device + 'static)> {
    use halfbyte::device::gpu::GpuDevice;
    use halfbyte::device::wgpu::{Checks, Settings, Wgpu};
    use halfbyte::hardware::wgpu::{described, opened};
    let adapters = match opened() {
        Ok(found) => found,
        Err(why) => {
            assert!(std::env::var_os("HALFBYTE_REQUIRE_WGPU").is_none(), "{why}");
            println!("SKIP the wgpu device: {why}");
            return None;
        }
    };
    let checks = if std::env::var("HALFBYTE_SHADER_CHECKS").is_ok_and(|v| v == "0") { Checks::None } else { Checks::Bounds };
    let settings = Settings { checks, texts, compiled: None };
    let driver = Wgpu::open(&adapters[0], settings).expect("an adapter that is offered opens");
    let device = GpuDevice::new(described(&adapters[0]).info(), driver.clone()).unwrap();
    Some((driver, device))
}
