//! The WGSL text of every scalar operator in the table is valid.

mod formulas;

use formulas::Case;
use halfbyte::DType;
use halfbyte::scalar::wgsl;

#[test]
fn every_scalar_operator_gives_valid_wgsl() {
    let mut checked = 0;
    formulas::each(|Case { name, steps }| {
        if steps.args.iter().any(|&d| d != DType::F32) && !name.starts_with("Where") {
            return;
        }
        let text = wgsl::function("f", &steps);
        let module =
            naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{name}: {}\n{text}", e.emit_to_string(&text)));
        let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
        validator.validate(&module).unwrap_or_else(|e| panic!("{name}: {e:?}\n{text}"));
        checked += 1;
    });
    assert!(checked >= 100, "only {checked} formulas");
}
