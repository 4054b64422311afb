//! The WGSL of every scalar operator, for every element type: valid, taken by the writers of every platform's language, and, on
//! a software adapter, within its bound.

mod formulas;
#[cfg(feature = "wgpu")]
#[path = "wgsl/run.rs"]
mod run;
#[cfg(feature = "gpu")]
#[path = "wgsl/shaders.rs"]
mod shaders;
#[cfg(feature = "gpu")]
#[path = "shaders/mod.rs"]
mod texts;

use formulas::Case;
use halfbyte::scalar::{Domain, Steps, wgsl};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

/// What a module needs besides its functions. `hb_exact` hides its argument's bits behind a zero that nobody can know.
fn prelude((integers, doubles): (bool, bool)) -> String {
    let mut text = String::from(
        "var<private> hb_zero: u32;\nfn hb_exact(x: f32) -> f32 {\n  return bitcast<f32>(bitcast<u32>(x) ^ hb_zero);\n}\n",
    );
    text += wgsl::support();
    text += wgsl::support_exact();
    if integers {
        text += wgsl::support64();
    }
    text + if doubles { wgsl::support_f64() } else { "" }
}

/// How a formula becomes a function: [`wgsl::function`] or [`wgsl::exact_function`].
type Make = fn(&str, &Steps) -> halfbyte::Result<String>;

/// A function of words that loads, computes and stores.
fn on_words(name: &str, steps: &Steps, make: Make) -> halfbyte::Result<String> {
    let inner = make(&format!("{name}_f"), steps)?;
    let (mut parameters, mut arguments) = (Vec::new(), Vec::new());
    for (i, &d) in steps.args.iter().enumerate() {
        parameters.push(format!("w{i}: {}", wgsl::word_type(d)));
        arguments.push(wgsl::loaded(d, steps.domain, &format!("w{i}")));
    }
    let value = wgsl::stored(steps.out, steps.domain, &format!("{name}_f({})", arguments.join(", ")));
    let head = format!("fn {name}({}) -> {} {{\n", parameters.join(", "), wgsl::word_type(steps.out));
    Ok(format!("{inner}{head}  return {value};\n}}\n"))
}

/// With 64-bit integers and f64 where it needs them alone.
fn validate(name: &str, text: &str, (integers, doubles): (bool, bool)) -> (naga::Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(text).unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(text)));
    let mut capabilities = Capabilities::all();
    capabilities.set(Capabilities::SHADER_INT64, integers);
    capabilities.set(Capabilities::FLOAT64, doubles);
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
    let info = info.unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(text)));
    (module, info)
}

/// The text in SPIR-V, HLSL and MSL, which has no f64.
fn written(name: &str, text: &str, needs: (bool, bool)) {
    let (module, info) = validate(name, text, needs);
    let spirv = naga::back::spv::Options { capabilities: None, ..Default::default() };
    naga::back::spv::write_vec(&module, &info, &spirv, None).unwrap_or_else(|e| panic!("{name} as SPIR-V: {e}"));
    // HLSL has no cooperative matrices.
    if !text.contains("coop_mat") {
        let options = naga::back::hlsl::Options { shader_model: naga::back::hlsl::ShaderModel::V6_0, ..Default::default() };
        let (mut out, pipeline) = (String::new(), naga::back::hlsl::PipelineOptions::default());
        let hlsl = naga::back::hlsl::Writer::new(&mut out, &options, &pipeline).write(&module, &info, None);
        hlsl.unwrap_or_else(|e| panic!("{name} as HLSL: {e}"));
    }
    if !needs.1 {
        let options = naga::back::msl::Options { lang_version: (2, 4), ..Default::default() };
        let msl = naga::back::msl::write_string(&module, &info, &options, &naga::back::msl::PipelineOptions::default());
        msl.unwrap_or_else(|e| panic!("{name} as MSL: {e}"));
    }
}

#[test]
fn every_scalar_operator_is_valid_everywhere() {
    let (mut modules, mut refused) = (std::collections::BTreeMap::new(), Vec::new());
    let mut cases = 0;
    formulas::each(|Case { name, steps }| match on_words(&format!("case{cases}"), &steps, wgsl::function) {
        Ok(text) => {
            cases += 1;
            // A module for each 64 formulas, to keep what is said of one short.
            let needs = wgsl::needs(&steps);
            let module = modules.entry((needs, cases / 64)).or_insert_with(|| prelude(needs));
            *module += &format!("// {name}\n{text}");
        }
        Err(e) => {
            assert!(e.is_unsupported() && steps.domain != Domain::F32, "{name}: {e}");
            refused.push(name);
        }
    });
    for ((needs, i), text) in &modules {
        let entry = format!("{text}@compute @workgroup_size(1) fn main() {{ hb_zero = 0u; }}\n");
        written(&format!("module {i} of {needs:?}"), &entry, *needs);
    }
    println!("{cases} formulas in {} modules, {} refused", modules.len(), refused.len());
    assert!(cases > 1000, "only {cases} formulas; refused: {refused:?}");
}

#[test]
fn support_needs_only_what_it_says() {
    let check = |text: &str, capabilities| {
        let module = naga::front::wgsl::parse_str(text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(text)));
        Validator::new(ValidationFlags::all(), capabilities).validate(&module).map(|_| ()).map_err(|e| e.to_string())
    };
    check(&prelude((false, false)), Capabilities::empty()).unwrap();
    check(&prelude((true, false)), Capabilities::SHADER_INT64).unwrap();
    check(&prelude((false, true)), Capabilities::FLOAT64).unwrap();
    check(&prelude((true, false)), Capabilities::empty()).unwrap_err();
}
