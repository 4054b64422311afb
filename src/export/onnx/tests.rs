//! What is written of graphs as passes leave them, read again.

use prost::Message;

use super::{to_bytes, write};
use crate::base::xorshift::Xorshift;
use crate::base::{DType, Shape, Tensor};
use crate::graph::proto::ModelProto;
use crate::graph::{Attr, Dim, Epilogue, Graph, Node, Port, ValueId, dump::dump};
use crate::load::onnx::from_bytes;
use crate::scalar::formula::arg;

/// A graph and what its next values are called.
struct Made {
    graph: Graph,
    names: Vec<&'static str>,
}

impl Made {
    fn new(names: &[&'static str]) -> Self {
        Made { graph: Graph::default(), names: names.to_vec() }
    }

    fn value(&mut self, constant: Option<Tensor>) -> ValueId {
        let name = if self.names.is_empty() { "" } else { self.names.remove(0) };
        self.graph.add_value(name, constant)
    }

    fn input(&mut self) -> ValueId {
        let value = self.value(None);
        self.graph.inputs.push(Port { value, dtype: Some(DType::F32), dims: Some(vec![Dim::Named("n".into()), Dim::Any]) });
        value
    }

    fn node(&mut self, op: &str, opset: i64, inputs: &[ValueId]) -> ValueId {
        let output = self.value(None);
        self.push(Node::new("", op, opset, inputs.iter().copied().map(Some).collect(), vec![Some(output)]));
        output
    }

    fn push(&mut self, node: Node) {
        self.graph.nodes.push(Node { name: format!("{}_{}", node.op, self.graph.nodes.len()), ..node });
    }

    fn output(mut self, value: ValueId) -> Graph {
        self.graph.outputs.push(Port { value, dtype: Some(DType::F32), dims: None });
        self.graph
    }
}

fn proto(graph: &Graph) -> ModelProto {
    ModelProto::decode(&to_bytes(graph, &[]).unwrap()[..]).unwrap()
}

fn refused(graph: &Graph) -> String {
    to_bytes(graph, &[]).unwrap_err().to_string()
}

/// x + w, negated; names in order of x, w, the sum and y.
fn sum(names: [&'static str; 4], opsets: [i64; 2]) -> Graph {
    let mut made = Made::new(&names);
    let x = made.input();
    let w = made.value(Some(Tensor::vector(&[1.0f32, 2.0])));
    let s = made.node("Add", opsets[0], &[x, w]);
    let y = made.node("Neg", opsets[1], &[s]);
    made.output(y)
}

#[test]
fn equal_and_empty_names_become_names_of_their_own() {
    for names in [["x", "", "", "y"], ["x", "y", "x", "y"], ["x", "y_1", "y", "y"], ["value", "", "value_1", "w"]] {
        let written = proto(&sum(names, [13, 13])).graph.unwrap();
        let name = |n: &Option<String>| n.clone().unwrap();
        assert_eq!((name(&written.input[0].name), name(&written.output[0].name)), (names[0].into(), names[3].into()));
        let mut all = [
            name(&written.input[0].name),
            name(&written.initializer[0].name),
            written.node[0].output[0].clone(),
            written.node[1].output[0].clone(),
        ];
        all.sort();
        assert!(all.windows(2).all(|w| w[0] != w[1]) && !all.contains(&String::new()), "{all:?}");
        let again = from_bytes(to_bytes(&sum(names, [13, 13]), &[]).unwrap().into()).unwrap().graph;
        assert_eq!(dump(&again).lines().count(), dump(&sum(names, [13, 13])).lines().count());
    }
    assert!(refused(&sum(["x", "w", "s", ""], [13, 13])).contains("names of their own"));
    assert!(refused(&sum(["x", "w", "s", "x"], [13, 13])).contains("names of their own"));
}

#[test]
fn random_names_never_join_what_is_apart() {
    let mut random = Xorshift::new(5);
    let pool = ["", "a", "a_1", "a_1_1", "value", "value_1", "b/c:0", "ä \"\n", "x", "y"];
    for _ in 0..200 {
        let mut made = Made::new(&["x"]);
        let x = made.input();
        made.names = (0..12).map(|_| pool[random.below(pool.len())]).collect();
        let mut values = vec![x];
        // Each node doubles or adds a number: what comes out tells whether every edge is where it was.
        for i in 0..12 {
            let left = values[random.below(values.len())];
            let right = if i % 3 == 0 { made.value(Some(Tensor::scalar(i as f32))) } else { values[random.below(values.len())] };
            values.push(made.node("Add", 14, &[left, right]));
        }
        made.names = vec!["y"];
        let y = made.node("Identity", 14, &[values[12]]);
        let graph = made.output(y);
        let again = from_bytes(to_bytes(&graph, &[]).unwrap().into()).unwrap().graph;
        assert_eq!(add_up(&again), add_up(&graph));
    }
}

/// What the last node gives for x = 1.
fn add_up(graph: &Graph) -> f64 {
    let mut known: Vec<f64> = graph.values.iter().map(|v| v.constant.as_ref().map_or(1.0, |t| t.to_f64()[0])).collect();
    for node in &graph.nodes {
        let sum = node.inputs.iter().flatten().map(|v| known[v.0]).sum();
        known[node.outputs[0].unwrap().0] = sum;
    }
    known[graph.outputs[0].value.0]
}

/// `If` whose branches both call a value of their own `own` and give the captured x at once.
fn branches() -> Graph {
    let mut made = Made::new(&["x", "own"]);
    let x = made.input();
    let own = made.node("Neg", 16, &[x]);
    let condition = made.value(Some(Tensor::new(Shape::scalar(), &[1u8]).unwrap()));
    let branch = |doubles: bool| {
        let mut inner = Made::new(&["own", "own"]);
        let (x, mut last) = (inner.value(None), None);
        inner.graph.captures.push((own, x));
        if doubles {
            last = Some(inner.node("Add", 16, &[x, x]));
        }
        Attr::Graph(Box::new(inner.output(last.unwrap_or(x))))
    };
    let y = made.graph.add_value("y", None);
    let mut node = Node::new("", "If", 16, vec![Some(condition)], vec![Some(y)]);
    node.attrs.insert("then_branch".into(), branch(true));
    node.attrs.insert("else_branch".into(), branch(false));
    made.push(node);
    made.output(y)
}

#[test]
fn subgraphs_capture_by_name_and_give_what_is_their_own() {
    let written = proto(&branches()).graph.unwrap();
    let inner = |name: &str| {
        let attrs = &written.node[1].attribute;
        attrs.iter().find(|a| a.name.as_deref() == Some(name)).unwrap().g.clone().unwrap()
    };
    let (then, other) = (inner("then_branch"), inner("else_branch"));
    assert_eq!(then.node[0].input, ["own", "own"]);
    assert_ne!(then.node[0].output[0], "own", "a name that is seen from outside");
    assert_eq!((other.node[0].op_type.as_deref(), &other.node[0].input[..]), (Some("Identity"), &["own".to_string()][..]));
    assert_eq!(other.output[0].name.as_ref(), other.node[0].output.first());
    let again = from_bytes(to_bytes(&branches(), &[]).unwrap().into()).unwrap().graph;
    assert!(dump(&again).contains("captured own"), "{}", dump(&again));
}

#[test]
fn one_version_of_the_operator_set_serves_all_nodes_or_is_refused() {
    let version = |graph: &Graph| proto(graph).opset_import[0].version;
    assert_eq!(version(&sum(["x", "w", "s", "y"], [11, 11])), Some(11));
    assert_eq!(version(&sum(["x", "w", "s", "y"], [11, 13])), Some(13), "an addition is one in both");
    let mut graph = sum(["x", "w", "s", "y"], [17, 17]);
    graph.nodes[1] = Node { op: "ReduceSum".into(), opset: 11, ..graph.nodes[1].clone() };
    assert!(refused(&graph).starts_with("node Neg_1 (ReduceSum)"), "{}", refused(&graph));
    assert_eq!(proto(&sum(["x", "w", "s", "y"], [21, 21])).ir_version, Some(10));
}

#[test]
fn what_is_not_standard_is_refused_by_the_name_of_its_node() {
    let change = |change: &dyn Fn(&mut Graph)| {
        let mut graph = sum(["x", "w", "s", "y"], [13, 13]);
        change(&mut graph);
        refused(&graph)
    };
    let own = change(&|g| g.nodes[0].domain = "halfbyte".into());
    let fused = change(&|g| g.nodes[0].epilogue = Some(Epilogue { formula: arg(0), inputs: Vec::new() }));
    let lowered = change(&|g| drop(g.nodes[0].attrs.insert("weight_precision".into(), Attr::Str("f16".into()))));
    let unread = change(&|g| drop(g.nodes[0].attrs.insert("unsupported".into(), Attr::Str("kind 13".into()))));
    for said in [own, fused, lowered, unread] {
        assert!(said.starts_with("node Add_0"), "{said}");
    }
    assert!(change(&|g| drop(g.nodes.remove(0))).contains("nothing makes"));
    assert!(change(&|g| g.inputs[0].dtype = None).contains("input \"x\""));
}

#[test]
fn types_sizes_attributes_and_optional_inputs_are_kept() {
    let mut graph = sum(["x", "w", "s", "y"], [13, 13]);
    graph.inputs[0].dims = Some(vec![Dim::Named("n".into()), Dim::Any, Dim::Known(2), Dim::Known(0)]);
    graph.optional_inputs.push(Port { value: ValueId(1), dtype: Some(DType::F32), dims: Some(vec![Dim::Known(2)]) });
    for (i, dtype) in DType::ALL.into_iter().enumerate() {
        let tensor = Tensor::from_raw(dtype, Shape::from([0, 3]), &[]).unwrap();
        graph.nodes[1].attrs.insert(format!("empty {dtype}"), Attr::Tensor(tensor));
        let bytes: Vec<u8> = (0..2 * dtype.size_bytes()).map(|b| (b + i) as u8 & 1).collect();
        graph.nodes[1]
            .attrs
            .insert(format!("two {dtype}"), Attr::Tensor(Tensor::from_raw(dtype, Shape::from([2]), &bytes).unwrap()));
    }
    let lists = [
        Attr::Ints(vec![]),
        Attr::Ints(vec![-1]),
        Attr::Floats(vec![0.5]),
        Attr::Strs(vec!["a".into(), "ü".into()]),
        Attr::Float(f32::MIN),
        Attr::Int(i64::MIN),
    ];
    for (i, attr) in lists.into_iter().enumerate() {
        graph.nodes[1].attrs.insert(format!("list {i}"), attr);
    }
    let loaded = from_bytes(to_bytes(&graph, &[("key".into(), "value".into())]).unwrap().into()).unwrap();
    let again = loaded.graph;
    assert_eq!(loaded.metadata, [("key".to_string(), "value".to_string())]);
    assert_eq!(again.inputs[0].dims, graph.inputs[0].dims);
    assert_eq!((again.optional_inputs.len(), again.inputs.len(), again.outputs[0].dims.clone()), (1, 1, None));
    for (name, attr) in &graph.nodes[1].attrs {
        match (attr, &again.nodes[1].attrs[name]) {
            (Attr::Tensor(a), Attr::Tensor(b)) => assert_eq!((a, a.bytes()), (b, b.bytes()), "{name}"),
            (a, b) => assert_eq!(format!("{a:?}"), format!("{b:?}"), "{name}"),
        }
    }
    assert!(write(&graph, &[], "/").is_err());
}
