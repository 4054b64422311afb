//! Each pass on a graph built by hand: exactly what changed.

use super::pipeline::{PassOptions, WeightPrecision, optimize};
use crate::base::{DType, Tensor};
use crate::graph::{Attr, Dim, Graph, Node, Port, ValueId};

/// A graph being written down.
struct Net(Graph);

impl Net {
    fn new() -> Self {
        Net(Graph::default())
    }

    fn input(&mut self) -> ValueId {
        let value = self.0.add_value(format!("in{}", self.0.inputs.len()), None);
        self.0.inputs.push(Port { value, dtype: Some(DType::F32), dims: None });
        value
    }

    fn port4(&mut self, dims: [usize; 4]) -> ValueId {
        let value = self.input();
        self.0.inputs.last_mut().unwrap().dims = Some(dims.into_iter().map(Dim::Known).collect());
        value
    }

    fn constant(&mut self, t: Tensor) -> ValueId {
        let name = format!("c{}", self.0.values.len());
        self.0.add_value(name, Some(t))
    }

    fn number(&mut self, v: f32) -> ValueId {
        self.constant(Tensor::scalar(v))
    }

    fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.op_with(op, inputs, &[])
    }

    fn op_with(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
        let out = self.0.add_value(format!("v{}", self.0.values.len()), None);
        let mut node = Node::new("", op, 13, inputs.iter().copied().map(Some).collect(), vec![Some(out)]);
        node.name = format!("{op}{}", self.0.nodes.len());
        node.attrs = attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
        self.0.nodes.push(node);
        out
    }

    fn optimized(mut self, out: ValueId) -> Graph {
        self.0.outputs.push(Port { value: out, dtype: None, dims: None });
        optimize(self.0, &PassOptions::default()).0
    }
}

fn ops(graph: &Graph) -> Vec<String> {
    graph.nodes.iter().map(|n| n.full_op()).collect()
}

#[test]
fn no_ops_go_and_the_output_keeps_its_name() {
    let mut net = Net::new();
    let x = net.input();
    let one = net.number(1.0);
    let a = net.op("Identity", &[x]);
    let b = net.op("Dropout", &[a]);
    let c = net.op_with("Cast", &[b], &[("to", Attr::Int(10))]);
    let d = net.op_with("Cast", &[c], &[("to", Attr::Int(10))]);
    let e = net.op_with("Transpose", &[d], &[("perm", Attr::Ints(vec![0, 1, 2]))]);
    let f = net.op("Mul", &[e, one]);
    let y = net.op("Identity", &[f]);
    let graph = net.optimized(y);
    assert_eq!(ops(&graph), ["Cast", "Identity"]);
    assert_eq!((graph.nodes[0].inputs[0], graph.nodes[1].inputs[0]), (Some(x), Some(c)));
    assert_eq!(graph.outputs[0].value, y);
}

#[test]
fn equal_nodes_and_constants_are_shared_but_random_ones_are_not() {
    let mut net = Net::new();
    let x = net.input();
    let (c1, c2) = (net.number(2.0), net.number(2.0));
    let a = net.op("Add", &[x, c1]);
    let b = net.op("Add", &[x, c2]);
    let r = net.op("RandomNormalLike", &[a]);
    let s = net.op("RandomNormalLike", &[b]);
    let t = net.op("Sub", &[r, s]);
    let graph = net.optimized(t);
    assert_eq!(ops(&graph), ["Add", "RandomNormalLike", "RandomNormalLike", "Sub"]);
    assert_eq!(graph.nodes[2].inputs[0], Some(a));
    assert!(graph.values[c2.0].constant.is_none());
}

#[test]
fn zero_points_by_channel_stay_their_layers_own() {
    let mut net = Net::new();
    let x = net.input();
    let [a, b] = [0, 1].map(|_| net.constant(Tensor::vector(&[0i8, 0])));
    let first = net.op("Add", &[x, a]);
    let y = net.op("Add", &[first, b]);
    let graph = net.optimized(y);
    assert_eq!((graph.nodes[0].inputs[1], graph.nodes[1].inputs[1]), (Some(a), Some(b)));
}

#[test]
fn attributes_set_nodes_apart() {
    let mut net = Net::new();
    let x = net.input();
    let a = net.op_with("Elu", &[x], &[("alpha", Attr::Float(1.0))]);
    let b = net.op_with("Elu", &[x], &[("alpha", Attr::Float(2.0))]);
    let y = net.op("Add", &[a, b]);
    assert_eq!(net.optimized(y).nodes.len(), 3);
}

#[test]
fn unused_nodes_are_dropped() {
    let mut net = Net::new();
    let x = net.input();
    let a = net.op("Exp", &[x]);
    net.op("Log", &[a]);
    let y = net.op("Neg", &[x]);
    assert_eq!(ops(&net.optimized(y)), ["Neg"]);
}

fn erf_gelu(net: &mut Net, x: ValueId, root2: f32) -> ValueId {
    let (c, one, half) = (net.number(root2), net.number(1.0), net.number(0.5));
    let d = net.op("Div", &[x, c]);
    let e = net.op("Erf", &[d]);
    let f = net.op("Add", &[one, e]);
    let g = net.op("Mul", &[x, f]);
    net.op("Mul", &[g, half])
}

#[test]
fn erf_gelu_is_one_node() {
    let mut net = Net::new();
    let x = net.input();
    let y = erf_gelu(&mut net, x, std::f32::consts::SQRT_2);
    let graph = net.optimized(y);
    assert_eq!(ops(&graph), ["Gelu"]);
    assert_eq!((graph.nodes[0].inputs[0], graph.nodes[0].outputs[0]), (Some(x), Some(y)));
    assert!(graph.nodes[0].attrs.is_empty());
}

#[test]
fn another_constant_or_a_reader_from_outside_prevents_fusion() {
    let mut net = Net::new();
    let x = net.input();
    let y = erf_gelu(&mut net, x, 1.5);
    assert_eq!(net.optimized(y).nodes.len(), 5);
    let mut net = Net::new();
    let x = net.input();
    let y = erf_gelu(&mut net, x, std::f32::consts::SQRT_2);
    let inside = net.0.nodes[2].outputs[0].unwrap();
    let z = net.op("Sub", &[y, inside]);
    assert_eq!(net.optimized(z).nodes.len(), 6);
}

#[test]
fn tanh_gelu_is_one_node() {
    let mut net = Net::new();
    let x = net.input();
    let three = net.number(3.0);
    let (a, c) = (net.number(0.044715), net.number(0.797_884_6));
    let (one, half) = (net.number(1.0), net.number(0.5));
    let cube = net.op("Pow", &[x, three]);
    let cube = net.op("Mul", &[a, cube]);
    let sum = net.op("Add", &[x, cube]);
    let inner = net.op("Mul", &[sum, c]);
    let t = net.op("Tanh", &[inner]);
    let t = net.op("Add", &[t, one]);
    let h = net.op("Mul", &[half, x]);
    let y = net.op("Mul", &[h, t]);
    let graph = net.optimized(y);
    assert_eq!(ops(&graph), ["Gelu"]);
    assert!(matches!(&graph.nodes[0].attrs["approximate"], Attr::Str(s) if s == "tanh"));
}

#[test]
fn sigmoid_products_become_swish() {
    for alpha in [1.0f32, 1.702] {
        let mut net = Net::new();
        let x = net.input();
        let c = net.number(alpha);
        let inner = if alpha == 1.0 { x } else { net.op("Mul", &[c, x]) };
        let s = net.op("Sigmoid", &[inner]);
        let y = net.op("Mul", &[s, x]);
        let graph = net.optimized(y);
        assert_eq!(ops(&graph), ["Swish"]);
        assert!(matches!(graph.nodes[0].attrs["alpha"], Attr::Float(a) if a == alpha));
    }
}

#[test]
fn hard_swish_in_both_forms() {
    let mut net = Net::new();
    let x = net.input();
    let (zero, three, six) = (net.number(0.0), net.number(3.0), net.number(6.0));
    let a = net.op("Add", &[x, three]);
    let b = net.op("Clip", &[a, zero, six]);
    let c = net.op("Mul", &[x, b]);
    let y = net.op("Div", &[c, six]);
    assert_eq!(ops(&net.optimized(y)), ["HardSwish"]);
    let mut net = Net::new();
    let x = net.input();
    let s = net.op_with("HardSigmoid", &[x], &[("alpha", Attr::Float(1.0 / 6.0))]);
    let y = net.op("Mul", &[x, s]);
    assert_eq!(ops(&net.optimized(y)), ["HardSwish"]);
    let mut net = Net::new();
    let x = net.input();
    let s = net.op("HardSigmoid", &[x]);
    let y = net.op("Mul", &[x, s]);
    assert_eq!(net.optimized(y).nodes.len(), 2, "the default slope is 0.2");
}

fn layer_norm(axis: i64, beta: bool) -> Graph {
    let mut net = Net::new();
    let x = net.input();
    let mean = [("axes", Attr::Ints(vec![axis]))];
    let (two, eps) = (net.number(2.0), net.number(1e-6));
    let gamma = net.constant(Tensor::vector(&[1.0f32, 2.0, 3.0]));
    let shift = net.constant(Tensor::vector(&[4.0f32, 5.0, 6.0]));
    let m = net.op_with("ReduceMean", &[x], &mean);
    let d = net.op("Sub", &[x, m]);
    // As older exporters do: the difference once more.
    let d2 = net.op("Sub", &[x, m]);
    let sq = net.op("Pow", &[d2, two]);
    let v = net.op_with("ReduceMean", &[sq], &mean);
    let v = net.op("Add", &[v, eps]);
    let v = net.op("Sqrt", &[v]);
    let n = net.op("Div", &[d, v]);
    let mut y = net.op("Mul", &[n, gamma]);
    if beta {
        y = net.op("Add", &[y, shift]);
    }
    net.optimized(y)
}

#[test]
fn layer_normalisation_is_one_node() {
    for beta in [false, true] {
        let graph = layer_norm(-1, beta);
        assert_eq!(ops(&graph), ["LayerNormalization"]);
        let node = &graph.nodes[0];
        assert_eq!((node.opset, node.inputs.len()), (17, if beta { 3 } else { 2 }));
        assert!(matches!(node.attrs["epsilon"], Attr::Float(e) if (e - 1e-6).abs() < 1e-12));
        assert_eq!(graph.constant(node.inputs[1].unwrap()), Some(&Tensor::vector(&[1.0f32, 2.0, 3.0])));
    }
    assert!(!ops(&layer_norm(1, true)).contains(&"LayerNormalization".to_string()), "axis 1 may not be the last");
}

#[test]
fn batch_norm_and_channel_factors_fold_into_the_convolution() {
    let mut net = Net::new();
    let x = net.input();
    let w = net.constant(Tensor::new([2, 1, 1, 1], &[3.0f32, 5.0]).unwrap());
    let conv = net.op("Conv", &[x, w]);
    let parts = [[2.0f32, 4.0], [1.0, 1.0], [10.0, 20.0], [3.0, 15.0]].map(|p| net.constant(Tensor::vector(&p)));
    let inputs = [&[conv][..], &parts].concat();
    let bn = net.op_with("BatchNormalization", &inputs, &[("epsilon", Attr::Float(1.0))]);
    let factor = net.constant(Tensor::new([1, 2, 1, 1], &[2.0f32, 3.0]).unwrap());
    let offset = net.constant(Tensor::new([2, 1, 1], &[0.5f32, 0.25]).unwrap());
    let y = net.op("Mul", &[factor, bn]);
    let y = net.op("Add", &[y, offset]);
    let graph = net.optimized(y);
    assert_eq!(ops(&graph), ["Conv"]);
    let constant = |i: usize| graph.constant(graph.nodes[0].inputs[i].unwrap()).unwrap().to_f64();
    // BatchNormalization: factors 2/2 and 4/4, offsets 1 - 10 and 1 - 20.
    assert_eq!(constant(1), [6.0, 15.0]);
    assert_eq!(constant(2), [-17.5, -56.75]);
    assert_eq!(graph.nodes[0].outputs, [Some(y)]);
}

/// Weights of ConvTranspose are `[input channel][output channel of the group]`: of 4 and 3 in two groups here.
#[test]
fn channel_factors_fold_into_a_transposed_convolution() {
    let mut net = Net::new();
    let x = net.input();
    let weights: Vec<f32> = (1..=12).map(|v| v as f32).collect();
    let w = net.constant(Tensor::new([4, 3, 1, 1], &weights).unwrap());
    let conv = net.op_with("ConvTranspose", &[x, w], &[("group", Attr::Int(2))]);
    let offset = net.constant(Tensor::new([1, 6, 1, 1], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap());
    let factor = net.constant(Tensor::new([6, 1, 1], &[1.0f32, 10.0, 100.0, 2.0, 20.0, 200.0]).unwrap());
    let y = net.op("Add", &[conv, offset]);
    let y = net.op("Mul", &[y, factor]);
    let graph = net.optimized(y);
    assert_eq!(ops(&graph), ["ConvTranspose"]);
    let constant = |i: usize| graph.constant(graph.nodes[0].inputs[i].unwrap()).unwrap().to_f64();
    assert_eq!(constant(1), [1.0, 20.0, 300.0, 4.0, 50.0, 600.0, 14.0, 160.0, 1800.0, 20.0, 220.0, 2400.0]);
    assert_eq!(constant(2), [1.0, 20.0, 300.0, 8.0, 100.0, 1200.0]);
}

#[test]
fn a_convolution_that_others_read_or_a_spatial_factor_is_left_alone() {
    let mut net = Net::new();
    let x = net.input();
    let w = net.constant(Tensor::new([2, 1, 1, 1], &[3.0f32, 5.0]).unwrap());
    let conv = net.op("Conv", &[x, w]);
    let factor = net.number(2.0);
    let scaled = net.op("Mul", &[conv, factor]);
    let y = net.op("Sub", &[scaled, conv]);
    assert_eq!(ops(&net.optimized(y)), ["Conv", "Mul", "Sub"]);
    let mut net = Net::new();
    let x = net.input();
    let w = net.constant(Tensor::new([2, 1, 1, 1], &[3.0f32, 5.0]).unwrap());
    let conv = net.op("Conv", &[x, w]);
    let along_width = net.constant(Tensor::vector(&[1.0f32, 2.0]));
    let y = net.op("Mul", &[conv, along_width]);
    assert_eq!(ops(&net.optimized(y)), ["Conv", "Mul"]);
}

#[test]
fn weights_are_lowered_where_they_fit() {
    for precision in [WeightPrecision::F16, WeightPrecision::Int8] {
        let mut net = Net::new();
        let x = net.input();
        let small = net.constant(Tensor::new([2, 2], &[1.0f32, 2.0, 3.0, 4.0]).unwrap());
        let large = net.constant(Tensor::new([2, 2], &[1.0f32, 2.0, 3.0, 1e5]).unwrap());
        let a = net.op("MatMul", &[x, small]);
        let b = net.op_with("Gemm", &[a, large], &[("transB", Attr::Int(1))]);
        let y = net.op("MatMul", &[b, x]);
        net.0.outputs.push(Port { value: y, dtype: None, dims: None });
        if crate::graph::find("halfbyte", "Linear").is_none() {
            return;
        }
        let (graph, counts) = optimize(net.0, &PassOptions { weights: Some(precision) });
        let f16 = precision == WeightPrecision::F16;
        let second = if f16 { "Gemm" } else { "halfbyte:Linear" };
        assert_eq!(ops(&graph), ["halfbyte:Linear", second, "MatMul"]);
        let name = if f16 { "f16" } else { "int8" };
        assert!(matches!(&graph.nodes[0].attrs["weight_precision"], Attr::Str(s) if s == name));
        assert!(f16 || matches!(graph.nodes[1].attrs["transB"], Attr::Int(1)));
        let kept = counts.iter().any(|(what, n)| what.starts_with("weights outside") && *n == 1);
        assert_eq!(kept, f16);
    }
}

#[test]
fn weights_of_convolutions_become_f16_where_they_fit() {
    for precision in [WeightPrecision::F16, WeightPrecision::Int8] {
        let mut net = Net::new();
        let x = net.input();
        let [small, large] = [2.0, 1e5].map(|v| net.constant(Tensor::new([1, 1, 1, 1], &[v as f32]).unwrap()));
        let a = net.op("Conv", &[x, small]);
        let b = net.op("ConvTranspose", &[a, large]);
        net.0.outputs.push(Port { value: b, dtype: None, dims: None });
        let (graph, _) = optimize(net.0, &PassOptions { weights: Some(precision) });
        let lowered: Vec<bool> = graph.nodes.iter().map(|n| n.attrs.contains_key("weight_precision")).collect();
        assert_eq!(lowered, [precision == WeightPrecision::F16, false]);
    }
}

#[test]
fn constants_that_the_caller_may_override_are_not_used() {
    let mut net = Net::new();
    let x = net.input();
    let w = net.constant(Tensor::new([1, 1, 1, 1], &[3.0f32]).unwrap());
    net.0.optional_inputs.push(Port { value: w, dtype: None, dims: None });
    let conv = net.op("Conv", &[x, w]);
    let two = net.number(2.0);
    let y = net.op("Mul", &[conv, two]);
    let graph = net.optimized(y);
    assert_eq!(ops(&graph), ["Conv", "Mul"]);
    assert!(graph.constant(w).is_some());
}

#[test]
fn subgraphs_are_rewritten_and_their_captures_follow() {
    let mut inner = Net::new();
    let own = inner.0.add_value("x", None);
    let a = inner.op("Identity", &[own]);
    let y = inner.op("Neg", &[a]);
    inner.0.outputs.push(Port { value: y, dtype: None, dims: None });
    let mut net = Net::new();
    let (cond, x) = (net.input(), net.input());
    let outside = net.op("Identity", &[x]);
    inner.0.captures.push((outside, own));
    let branch = Attr::Graph(Box::new(inner.0));
    let y = net.op_with("If", &[cond], &[("then_branch", branch.clone()), ("else_branch", branch)]);
    let graph = net.optimized(y);
    assert_eq!(ops(&graph), ["If"]);
    for attr in graph.nodes[0].attrs.values() {
        let Attr::Graph(inner) = attr else { panic!("no branch") };
        assert_eq!((ops(inner), &inner.captures[..]), (vec!["Neg".to_string()], &[(x, own)][..]));
    }
}

fn attention(k: [usize; 4], masked: bool, axis: i64) -> (Graph, [ValueId; 4], ValueId) {
    let mut net = Net::new();
    let [q, k, v, mask] = [[2, 3, 5, 4], k, [2, 3, 7, 6], [2, 1, 1, 7]].map(|d| net.port4(d));
    let root = net.number(2.0);
    let mut s = net.op("MatMul", &[q, k]);
    s = net.op("Div", &[s, root]);
    if masked {
        s = net.op("Add", &[s, mask]);
    }
    let p = net.op_with("Softmax", &[s], &[("axis", Attr::Int(axis))]);
    let y = net.op("MatMul", &[p, v]);
    (net.optimized(y), [q, k, v, mask], y)
}

#[test]
fn attention_is_one_node() {
    for masked in [false, true] {
        let (graph, operands, y) = attention([2, 3, 4, 7], masked, -1);
        assert_eq!(ops(&graph), ["halfbyte:Attention"]);
        let node = &graph.nodes[0];
        let given: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
        assert_eq!((&given[..], &node.outputs[..]), (&operands[..if masked { 4 } else { 3 }], &[Some(y)][..]));
        assert!(matches!(node.attrs["scale"], Attr::Float(0.5)));
        assert!(matches!(node.attrs["k_transposed"], Attr::Int(1)));
    }
}

#[test]
fn attention_over_stretched_heads_or_another_axis_stays_apart() {
    for (k, axis) in [([2, 1, 4, 7], -1), ([1, 3, 4, 7], -1), ([2, 3, 4, 7], 2)] {
        assert_eq!(attention(k, true, axis).0.nodes.len(), 5);
    }
}

#[test]
fn heads_split_from_one_value_make_attention() {
    for other in [false, true] {
        let mut net = Net::new();
        let (x, y) = (net.input(), net.input());
        let split = net.constant(Tensor::vector(&[0i64, 0, 2, 3]));
        let mut head = |from: ValueId, perm: [i64; 4]| {
            let w = net.constant(Tensor::zeros(DType::F32, [6, 6]).unwrap());
            let bias = net.constant(Tensor::vector(&[net.0.nodes.len() as f32; 6]));
            let h = net.op("MatMul", &[from, w]);
            let h = net.op("Add", &[h, bias]);
            let h = net.op("Reshape", &[h, split]);
            net.op_with("Transpose", &[h], &[("perm", Attr::Ints(perm.to_vec()))])
        };
        let q = head(if other { y } else { x }, [0, 2, 1, 3]);
        let (k, v) = (head(x, [0, 2, 3, 1]), head(x, [0, 2, 1, 3]));
        let s = net.op("MatMul", &[q, k]);
        let p = net.op("Softmax", &[s]);
        let out = net.op("MatMul", &[p, v]);
        let graph = net.optimized(out);
        // Another source may have another batch, which a matrix product would stretch.
        assert_eq!(ops(&graph).contains(&"halfbyte:Attention".to_string()), !other);
    }
}

#[test]
fn attention_reads_heads_where_they_lie() {
    for (order, seen) in [([0, 2, 1, 3], 0), ([0, 2, 1, 3], 1), ([0, 1, 2, 3], 0)] {
        let mut net = Net::new();
        let [q, k, v] = [5, 7, 7].map(|tokens| net.port4([2, tokens, 3, 4]));
        let mut turned = |x, perm: [i64; 4]| net.op_with("Transpose", &[x], &[("perm", Attr::Ints(perm.to_vec()))]);
        let [q_heads, k_heads, v_heads] = [(q, [0, 2, 1, 3]), (k, [0, 2, 3, 1]), (v, [0, 2, 1, 3])].map(|(x, p)| turned(x, p));
        let s = net.op("MatMul", &[q_heads, k_heads]);
        let p = net.op("Softmax", &[s]);
        let y = net.op("MatMul", &[p, v_heads]);
        let mut out = net.op_with("Transpose", &[y], &[("perm", Attr::Ints(order.to_vec()))]);
        if seen == 1 {
            let other = net.op("Abs", &[y]);
            let other = net.op_with("Transpose", &[other], &[("perm", Attr::Ints(vec![0, 2, 1, 3]))]);
            out = net.op("Mul", &[out, other]);
        }
        let graph = net.optimized(out);
        let node = graph.nodes.iter().find(|n| n.op == "Attention").unwrap();
        let given: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
        if seen == 0 && order == [0, 2, 1, 3] {
            assert_eq!(
                (ops(&graph), given, &node.outputs[..]),
                (vec!["halfbyte:Attention".into()], vec![q, k, v], &[Some(out)][..])
            );
        } else {
            // The result is wanted by heads, or in another order.
            assert!(!node.attrs.contains_key("tokens_first") && ops(&graph).contains(&"Transpose".to_string()));
        }
    }
}
