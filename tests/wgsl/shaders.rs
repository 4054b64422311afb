//! Every shader, completed, is valid WGSL and can be written as SPIR-V, HLSL and MSL: no driver is needed to know.

use halfbyte::DType;
use halfbyte::device::gpu::{Complete, Finish, Module, Shader, Variant, complete, shaders};
use halfbyte::graph::Type;
use halfbyte::scalar::arg;

use crate::texts::text_of;
use crate::written;

/// The shader with its values stored as they are, and with all that it may read only as constants, or as other kernels' results.
fn completed(shader: &'static Shader, constants: u64) -> Complete {
    let finish = Module::plain(Variant::named(shader.name)).unwrap_or_else(|e| panic!("{}: {e}", shader.name)).finish;
    let whole = complete(text_of(shader), shader.threads, finish.as_deref(), constants);
    whole.unwrap_or_else(|e| panic!("{}: {e}", shader.name))
}

#[test]
fn every_shader_is_valid_everywhere() {
    for shader in shaders() {
        for constants in [0, u64::MAX] {
            let text = completed(shader, constants).text;
            written(shader.name, &text, (text.contains("i64"), text.contains("f64")));
        }
    }
}

/// Not every adapter has 64-bit types, or binds more than ten buffers.
#[test]
fn only_few_shaders_need_more_than_every_adapter_has() {
    // Their rows ask for it.
    let is_wide = |name: &str| name.contains("64") || ["gemm_any_", "pool_"].iter().any(|p| name.starts_with(p));
    let is_of_many = |name: &str| name.starts_with("conv_") && name.contains("int");
    for shader in shaders() {
        let Complete { text, bindings, .. } = completed(shader, 0);
        let wide = ["i64", "u64", "f64"].iter().any(|t| text.contains(t));
        assert!(!wide || is_wide(shader.name), "{} needs 64-bit types:\n{text}", shader.name);
        assert!(bindings.len() <= 10 || is_of_many(shader.name), "{} binds {} buffers", shader.name, bindings.len());
    }
}

#[test]
fn shaders_are_launched_as_the_ptx_of_their_name() {
    for shader in shaders() {
        let variant = Variant::named(shader.name);
        assert_eq!(variant.threads, shader.threads, "threads of {}", shader.name);
        let numbers = |all: &'static [(&str, u32)]| all.iter().copied().collect::<std::collections::BTreeMap<_, _>>();
        assert_eq!(numbers(variant.numbers), numbers(shader.numbers), "numbers of {}", shader.name);
        assert!(shader.text.trim_start().starts_with("//"), "{} begins with what it computes", shader.template);
    }
}

/// Not every adapter has integers of 64 bits; places of elements are stored in as many without.
#[test]
fn places_are_stored_in_64_bits_without_64_bit_integers() {
    let shader = Shader::named("arg_f32").unwrap();
    let finish = Finish::new(Some(DType::I32), &arg(0), &[], &Type::new(DType::I64, [3])).unwrap().reading(DType::F16);
    let text = complete(text_of(shader), shader.threads, Some(&finish), 0).unwrap().text;
    assert!(!text.contains("i64") && !text.contains("u64"), "{text}");
    written(shader.name, &text, (false, false));
}
