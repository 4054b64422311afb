//! Models written by the test, damaged in every way, and real ones where they are at hand.

use bytes::Bytes;
use prost::Message;

use super::{Loaded, from_bytes, open};
use crate::base::xorshift::Xorshift;
use crate::base::{DType, Tensor};
use crate::error::{Error, Result};
use crate::graph::proto::*;
use crate::graph::{Attr, Dim, check};

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |n: &[&str]| n.iter().map(|s| s.to_string()).collect();
    NodeProto { op_type: Some(op.into()), input: names(inputs), output: names(outputs), ..Default::default() }
}

fn info(name: &str, dims: &[DimensionProto]) -> ValueInfoProto {
    let shape = Some(TensorShapeProto { dim: dims.to_vec() });
    let tensor_type = Some(TensorTypeProto { elem_type: Some(1), shape });
    ValueInfoProto { name: Some(name.into()), r#type: Some(TypeProto { tensor_type }) }
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(1),
        raw_data: Some(raw.into()),
        ..Default::default()
    }
}

fn model(graph: GraphProto) -> ModelProto {
    let opset = |domain: &str, version| OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) };
    ModelProto {
        ir_version: Some(9),
        graph: Some(graph),
        opset_import: vec![opset("ai.onnx", 17), opset("com.microsoft", 1)],
        ..Default::default()
    }
}

fn load(model: &ModelProto) -> Result<Loaded> {
    from_bytes(Bytes::from(model.encode_to_vec()))
}

/// x [n, -1] * w + x, with the nodes out of order.
fn small() -> GraphProto {
    let named = DimensionProto { dim_param: Some("n".into()), dim_value: None };
    let any = DimensionProto { dim_value: Some(-1), dim_param: None };
    GraphProto {
        name: Some("small".into()),
        node: vec![node("Add", &["h", "x"], &["y"]), node("Mul", &["x", "w"], &["h"])],
        initializer: vec![floats("w", &[2], &[1.5, -2.0])],
        input: vec![info("x", &[named, any])],
        output: vec![info("y", &[])],
        ..Default::default()
    }
}

fn why(loaded: Result<Loaded>) -> String {
    match loaded {
        Err(e @ Error::BadModel { .. }) => e.to_string(),
        other => panic!("expected a bad model, found {other:?}"),
    }
}

#[test]
fn nodes_are_sorted_and_dims_kept() {
    let graph = load(&model(small())).unwrap().graph;
    assert_eq!(graph.nodes.iter().map(|n| (&n.op[..], n.opset)).collect::<Vec<_>>(), [("Mul", 17), ("Add", 17)]);
    assert_eq!(graph.inputs[0].dims, Some(vec![Dim::Named("n".into()), Dim::Any]));
    let w = graph.nodes[0].inputs[1].unwrap();
    assert_eq!(graph.constant(w), Some(&Tensor::vector(&[1.5f32, -2.0])));
}

#[test]
fn an_initialiser_that_is_an_input_is_optional() {
    let mut graph = small();
    graph.input.push(info("w", &[]));
    let graph = load(&model(graph)).unwrap().graph;
    assert_eq!((graph.inputs.len(), graph.optional_inputs.len()), (1, 1));
    assert!(graph.constant(graph.optional_inputs[0].value).is_some());
}

#[test]
fn broken_graphs_say_what_is_wrong() {
    let change = |f: &dyn Fn(&mut GraphProto)| {
        let mut graph = small();
        f(&mut graph);
        why(load(&model(graph)))
    };
    assert!(change(&|g| g.node[1].input[0] = "y".into()).contains("cycle"));
    assert!(change(&|g| g.node[0].input[0] = "lost".into()).contains("\"lost\""));
    assert!(change(&|g| g.node[1].output[0] = "y".into()).contains("\"y\""));
    assert!(change(&|g| g.initializer[0].dims = vec![3]).contains("tensor w"));
    assert!(change(&|g| g.initializer[0].dims = vec![-2]).contains("negative"));
    assert!(change(&|g| g.initializer[0].dims = vec![i64::MAX, 4]).contains("overflows"));
    assert!(change(&|g| g.initializer[0].dims = vec![1 << 40]).contains("tensor w"));
    assert!(change(&|g| g.output[0].name = Some("lost".into())).contains("\"lost\""));
}

#[test]
fn files_that_are_no_models_are_refused() {
    for bytes in [&b""[..], b"hello, this is text", &[0xff; 64]] {
        why(from_bytes(Bytes::copy_from_slice(bytes)));
    }
    assert!(matches!(open(std::path::Path::new("no such file.onnx")), Err(Error::File { .. })));
}

#[test]
fn every_typed_encoding_gives_the_same_elements() {
    let typed = |data_type: i32, ints: &[i32]| {
        let t = TensorProto {
            data_type: Some(data_type),
            dims: vec![ints.len() as i64],
            int32_data: ints.to_vec(),
            ..Default::default()
        };
        super::tensor::tensor(&t, &super::external::Files::beside(None)).unwrap()
    };
    assert_eq!(typed(2, &[255, 0]), Tensor::vector(&[255u8, 0]));
    assert_eq!(typed(3, &[-1, 7]), Tensor::vector(&[-1i8, 7]));
    assert_eq!(typed(5, &[-300]), Tensor::vector(&[-300i16]));
    assert_eq!(typed(10, &[0x3c00]), Tensor::vector(&[half::f16::from_f32(1.0)]));
    assert_eq!(typed(16, &[0x3f80]), Tensor::vector(&[half::bf16::from_f32(1.0)]));
    assert_eq!(typed(9, &[1, 0]).dtype(), DType::Bool);
}

#[test]
fn subgraphs_capture_values_from_outside() {
    let branch =
        |op: &str| GraphProto { node: vec![node(op, &["x", "w"], &["b"])], output: vec![info("b", &[])], ..Default::default() };
    let mut graph = small();
    let mut choose = node("If", &["c"], &["z"]);
    for (name, op) in [("then_branch", "Add"), ("else_branch", "Sub")] {
        let (name, g) = (Some(name.to_string()), Some(branch(op)));
        choose.attribute.push(AttributeProto { name, g, r#type: Some(5), ..Default::default() });
    }
    graph.input.push(info("c", &[]));
    graph.node.push(choose);
    graph.output.push(info("z", &[]));
    let graph = load(&model(graph)).unwrap().graph;
    let choose = graph.nodes.iter().find(|n| n.op == "If").unwrap();
    let Attr::Graph(inner) = &choose.attrs["else_branch"] else { panic!("no branch") };
    let outer: Vec<&str> = inner.captures.iter().map(|(o, _)| &graph.values[o.0].name[..]).collect();
    assert_eq!((outer, &inner.nodes[0].op[..]), (vec!["x", "w"], "Sub"));
}

fn doubling_function() -> FunctionProto {
    FunctionProto {
        name: Some("Twice".into()),
        domain: Some("mine".into()),
        input: vec!["a".into()],
        output: vec!["b".into()],
        node: vec![node("Neg", &["a"], &["t"]), node("Sub", &["a", "t"], &["b"])],
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(13) }],
        ..Default::default()
    }
}

#[test]
fn functions_are_inlined_and_endless_ones_refused() {
    let mut graph = small();
    graph.node[1] = NodeProto { domain: Some("mine".into()), ..node("Twice", &["x"], &["h"]) };
    let mut m = model(graph);
    m.functions.push(doubling_function());
    let graph = load(&m).unwrap().graph;
    assert_eq!(graph.nodes.iter().map(|n| &n.op[..]).collect::<Vec<_>>(), ["Neg", "Sub", "Add"]);
    assert_eq!(graph.nodes[0].opset, 13);
    m.functions[0].node[1].output[0] = "c".into();
    assert!(why(load(&m)).contains("\"h\""), "the function does not make its output");
    m.functions[0].node[0] = NodeProto { domain: Some("mine".into()), ..node("Twice", &["a"], &["t"]) };
    assert!(why(load(&m)).contains("deep"));
    // Each level calls the next twice: small in the file, endless when inlined.
    m.functions = (0..40)
        .map(|i| {
            let call = |x: &str, y: &str| NodeProto { domain: Some("mine".into()), ..node(&format!("F{}", i + 1), &[x], &[y]) };
            FunctionProto { name: Some(format!("F{i}")), node: vec![call("a", "t"), call("t", "b")], ..doubling_function() }
        })
        .collect();
    m.graph.as_mut().unwrap().node[1] = NodeProto { domain: Some("mine".into()), ..node("F0", &["x"], &["h"]) };
    why(load(&m));
}

#[test]
fn external_data_stays_in_the_models_folder() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("models");
    std::fs::create_dir(&inside).unwrap();
    let bytes: Vec<u8> = [0.0f32, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(inside.join("weights"), &bytes).unwrap();
    std::fs::write(folder.path().join("secret"), &bytes).unwrap();
    let loaded = |location: &str, offset: &str, length: &str| {
        let entry = |k: &str, v: &str| StringStringEntryProto { key: Some(k.into()), value: Some(v.into()) };
        let mut graph = small();
        graph.initializer[0].raw_data = None;
        graph.initializer[0].data_location = Some(1);
        graph.initializer[0].external_data = vec![entry("location", location), entry("offset", offset), entry("length", length)];
        std::fs::write(inside.join("m.onnx"), model(graph).encode_to_vec()).unwrap();
        open(&inside.join("m.onnx"))
    };
    let graph = loaded("weights", "4", "8").unwrap().graph;
    let w = graph.nodes[0].inputs[1].unwrap();
    assert_eq!(graph.constant(w), Some(&Tensor::vector(&[3.0f32, 4.0])));
    why(loaded("weights", "8", "8"));
    why(loaded("weights", "18446744073709551615", "8"));
    why(loaded("weights", "-1", "8"));
    assert!(why(loaded("../secret", "4", "8")).contains("outside"));
    assert!(why(loaded(&folder.path().join("secret").display().to_string(), "4", "8")).contains("outside"));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.path().join("secret"), inside.join("link")).unwrap();
        assert!(why(loaded("link", "4", "8")).contains("outside"));
    }
}

#[test]
fn tensors_of_other_types_are_reported_not_fatal() {
    let mut graph = small();
    graph.initializer.push(TensorProto { name: Some("s".into()), data_type: Some(8), dims: vec![1], ..Default::default() });
    graph.node[1].input[1] = "s".into();
    let found = check::unsupported(&load(&model(graph)).unwrap().graph);
    assert!(matches!(&found[..], [m] if m.node == "s" && m.why.contains("type 8")), "{found:?}");
}

#[test]
fn constant_nodes_are_values() {
    let mut graph = small();
    graph.initializer.clear();
    let floats = vec![1.0, 2.0];
    let attribute = vec![AttributeProto { name: Some("value_floats".into()), r#type: Some(6), floats, ..Default::default() }];
    graph.node.push(NodeProto { attribute, ..node("Constant", &[], &["w"]) });
    let graph = load(&model(graph)).unwrap().graph;
    assert_eq!(graph.nodes.len(), 2);
    assert_eq!(graph.constant(graph.nodes[0].inputs[1].unwrap()), Some(&Tensor::vector(&[1.0f32, 2.0])));
}

fn damaged(bytes: &[u8], random: &mut Xorshift) -> Vec<u8> {
    let mut new = bytes.to_vec();
    match random.below(4) {
        0 => new.truncate(random.below(bytes.len())),
        1 => {
            let (from, to, n) = (random.below(bytes.len()), random.below(bytes.len()), random.below(64));
            let piece = bytes[from..(from + n).min(bytes.len())].to_vec();
            new.splice(to..to, piece);
        }
        2 => {
            let (from, n) = (random.below(bytes.len()), random.below(16));
            new.drain(from..(from + n).min(bytes.len()));
        }
        _ => {
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                new[at] ^= 1 << random.below(8);
            }
        }
    }
    new
}

/// What loads must also stand the passes.
fn survives(bytes: Vec<u8>) -> bool {
    let Ok(loaded) = from_bytes(Bytes::from(bytes)) else { return false };
    check::unsupported(&loaded.graph);
    let (graph, _) = crate::pass::optimize(loaded.graph, &crate::pass::PassOptions::default());
    check::unsupported(&graph);
    true
}

#[test]
fn damaged_models_never_panic() {
    let mut m = model(small());
    m.functions.push(doubling_function());
    let mut seeds = vec![m.encode_to_vec()];
    for name in ["digits-mlp", "digits-cnn", "digits-cnn-qdq"] {
        seeds.push(std::fs::read(format!("models/{name}.onnx")).unwrap());
    }
    let mut random = Xorshift::new(1);
    let mut loaded = 0;
    for seed in &seeds {
        let rounds = if seed.len() < 4096 { 6000 } else { 1000 };
        loaded += (0..rounds).filter(|_| survives(damaged(seed, &mut random))).count();
    }
    assert!(loaded > 100, "only {loaded} damaged models still load: the damage is too coarse to test anything");
}

/// `HALFBYTE_MODELS` names folders of models, apart by `:`.
#[test]
#[ignore = "needs HALFBYTE_MODELS"]
fn real_models_load() {
    let folders = std::env::var("HALFBYTE_MODELS").expect("HALFBYTE_MODELS is set");
    for folder in folders.split(':') {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path().join("model.onnx");
            if !path.exists() {
                continue;
            }
            let name = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
            match open(&path) {
                Err(e) => println!("{name}: {e}"),
                Ok(loaded) => {
                    let mut missing: Vec<String> = check::unsupported(&loaded.graph).into_iter().map(|m| m.op).collect();
                    missing.sort();
                    missing.dedup();
                    let nodes = loaded.graph.nodes.len();
                    let (graph, counts) = crate::pass::optimize(loaded.graph, &crate::pass::PassOptions::default());
                    println!("{name}: {nodes} nodes, {} after passes {counts:?}, unsupported {missing:?}", graph.nodes.len());
                }
            }
        }
    }
}
