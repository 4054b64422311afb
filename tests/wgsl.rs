//! The WGSL text of every scalar operator in the table is valid.

use halfbyte::DType;
use halfbyte::graph::{Lower, Node, Operand, Site, Type, ops};
use halfbyte::scalar::{Steps, wgsl};

/// The operator's formula on so many f32 inputs, if it takes them.
fn formula(def: &halfbyte::graph::OpDef, inputs: usize) -> Option<halfbyte::scalar::Formula> {
    let Lower::Scalar(formula) = def.lower else { return None };
    let node = Node::new(def.domain, def.name, 20, vec![None; inputs], vec![None]);
    let operands = vec![Some(Operand { ty: Type::new(DType::F32, [2]), value: None }); inputs];
    formula(&Site { node: &node, inputs: &operands }).ok().filter(|f| f.arity() <= inputs)
}

#[test]
fn every_scalar_operator_gives_valid_wgsl() {
    let mut checked = 0;
    for def in ops::all().filter(|d| matches!(d.lower, Lower::Scalar(_)) && d.domain != "halfbyte") {
        let Some((formula, inputs)) = (1..=3).find_map(|n| Some((formula(def, n)?, n))) else {
            panic!("{def:?} has a formula for no number of inputs");
        };
        let steps = Steps::compile(&formula, &vec![DType::F32; inputs], DType::F32).unwrap();
        let text = wgsl::function("f", &steps);
        let module =
            naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{def:?}: {}\n{text}", e.emit_to_string(&text)));
        let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
        validator.validate(&module).unwrap_or_else(|e| panic!("{def:?}: {e:?}\n{text}"));
        checked += 1;
    }
    assert!(checked >= 70, "only {checked} operators");
}
