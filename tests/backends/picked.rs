//! Grouped products: each item of a batch says which matrix of a stack it takes.

use std::sync::Arc;

use halfbyte::base::xorshift::Xorshift;
use halfbyte::base::{DType, Tensor};
use halfbyte::device::Device;
use halfbyte::graph::{Graph, Lower, Node, Operand, Port, Problem, Site, Type, find};
use halfbyte::hardware::DeviceKind;
use halfbyte::pass::adapted::attach;
use halfbyte::pass::lora::Adapter;
use halfbyte::{Model, Options, Session};

use super::check::*;
use super::device;
use super::products::gemm;

/// Numbers of this type.
fn numbers(dtype: DType, of: &[i64]) -> Tensor {
    let each: Vec<f64> = of.iter().map(|&n| n as f64).collect();
    tensor(dtype, &[of.len()], &each)
}

/// The two products of `halfbyte:LoRA`: x, y, numbers, A and B to (x A) and y + inner B.
pub fn lower(inputs: &[Tensor; 5]) -> [Problem; 2] {
    let operand = |t: &Tensor| Some(Operand { ty: Type::new(t.dtype(), t.shape().clone()), value: None });
    let operands: Vec<_> = inputs.iter().map(operand).collect();
    let node = Node::new("halfbyte", "LoRA", 1, vec![None; 5], vec![None]);
    let Lower::Parts(lower) = find("halfbyte", "LoRA").unwrap().lower else { panic!("two parts") };
    let out = Type::new(DType::F32, inputs[1].shape().clone());
    let parts = lower(&Site { node: &node, inputs: &operands }, &[out]).unwrap();
    <[_; 2]>::try_from(parts.parts).unwrap_or_else(|_| panic!("two parts")).map(|part| part.problem)
}

/// Batch, rows, k, n, rank.
const SHAPES: [[usize; 5]; 9] = [
    [5, 1, 24, 40, 8],
    [1, 1, 300, 33, 3],
    [4, 3, 7, 5, 1],
    [3, 19, 70, 270, 40],
    [2, 8, 261, 16, 64],
    [0, 2, 8, 8, 4],
    [3, 0, 8, 8, 4],
    [3, 2, 8, 8, 0],
    [2, 9, 1, 1, 17],
];

#[test]
fn grouped_products() {
    let (mut r, mut runs) = (Xorshift::new(51), 0);
    for (i, [batch, rows, k, n, rank]) in SHAPES.into_iter().enumerate() {
        let (dtype, wide) = ([DType::F32, DType::F16, DType::BF16][i % 3], [DType::I32, DType::I64][i % 2]);
        let of: Vec<i64> = [2, -1, 0, 2, 1].into_iter().cycle().skip(i).take(batch).collect();
        let mut random = |dtype, shape: &[usize]| random(&mut r, dtype, shape);
        let (x, y, inner) = (
            random(DType::F32, &[batch, rows, k]),
            random(DType::F32, &[batch, rows, n]),
            random(DType::F32, &[batch, rows, rank]),
        );
        let (a, b) = (random(dtype, &[3, k, rank]), random(dtype, &[3, rank, n]));
        let pick = numbers(wide, &of);
        let [down, up] = lower(&[x.clone(), y.clone(), pick.clone(), a.clone(), b.clone()]);
        runs += each_product(&down, [&x, &a, &pick], None, &of);
        runs += each_product(&up, [&inner, &b, &pick], Some(&y), &of);
    }
    println!("{runs} runs");
    assert!(runs >= SHAPES.len() * 2 * device::all().len());
}

/// Every kernel of every device on one of the products, beside sums in f64.
fn each_product(problem: &Problem, [x, stack, pick]: [&Tensor; 3], c: Option<&Tensor>, of: &[i64]) -> usize {
    let p = gemm(problem);
    let (xs, stacks, cs) = (x.to_f64(), stack.to_f64(), c.map(Tensor::to_f64));
    let at = |i: usize, map: fn(f64) -> f64| -> f64 {
        let (item, row, column) = (i / (p.m * p.n), i / p.n, i % p.n);
        let term = |matrix: i64, l: usize| map(xs[row * p.k + l] * stacks[(matrix as usize * p.k + l) * p.n + column]);
        let sum = if of[item] < 0 { 0.0 } else { (0..p.k).map(|l| term(of[item], l)).sum::<f64>() };
        sum + cs.as_ref().map_or(0.0, |c| map(c[i]))
    };
    let all = |map: fn(f64) -> f64| (0..p.shape.numel()).map(|i| at(i, map)).collect::<Vec<f64>>();
    let (values, magnitudes) = (all(|v| v), all(f64::abs));
    let allowed = rounded(&around(&values, |i| gamma(p.k + 2) * magnitudes[i]), DType::F32);
    let inputs: Vec<_> = [x, stack, pick].into_iter().chain(c).map(|t| Some(t.clone())).collect();
    each_kernel(problem, &inputs, &[1], Type::new(DType::F32, p.shape.clone()), &allowed)
}

/// GPUs of this machine that sessions can have for themselves, the interpreted one among them.
fn gpus() -> Vec<Arc<dyn Device>> {
    let all: &[Option<Arc<dyn Device>>] = &[
        #[cfg(feature = "cuda")]
        Some(Arc::new(super::cuda::device("h200", 5))),
        #[cfg(feature = "wgpu")]
        super::shaders::open(super::shaders::text_of).map(|(_, device)| Arc::new(device) as Arc<dyn Device>),
    ];
    all.iter().flatten().filter(|d| device::is_wanted(&***d)).cloned().collect()
}

/// The operator alone, over adapters that are constants.
fn operator(a: &Tensor, b: &Tensor) -> Model {
    let mut graph = Graph::default();
    let inputs = ["x", "y", "number"].map(|name| graph.add_value(name, None));
    let stacks = [("a", a), ("b", b)].map(|(name, t)| graph.add_value(name, Some(t.clone())));
    let out = graph.add_value("out", None);
    graph.inputs = inputs.map(|value| Port { value, dtype: None, dims: None }).into();
    graph.outputs = vec![Port { value: out, dtype: None, dims: None }];
    let read = inputs.into_iter().chain(stacks).map(Some).collect();
    graph.nodes.push(Node::new("halfbyte", "LoRA", 1, read, vec![Some(out)]));
    Model::from_graph(graph)
}

fn answers(session: &Session, inputs: &[(&str, &Tensor)]) -> halfbyte::Result<Vec<f64>> {
    let views: Vec<_> = inputs.iter().map(|(name, t)| (*name, t.view())).collect();
    Ok(session.run(&views)?.iter().next().unwrap().1.to_f64())
}

/// Items of the first axis.
fn items(t: &Tensor, of: &[usize]) -> Tensor {
    let (all, each) = (t.to_f64(), t.shape()[1..].iter().product::<usize>());
    let shape: Vec<usize> = [of.len()].into_iter().chain(t.shape()[1..].iter().copied()).collect();
    tensor(t.dtype(), &shape, &of.iter().flat_map(|&i| all[i * each..(i + 1) * each].to_vec()).collect::<Vec<f64>>())
}

#[test]
fn an_items_answer_has_the_same_bits_alone_and_in_any_batch() {
    let mut r = Xorshift::new(53);
    // y has axes of its own, as in models: an item's rows are all that lie before the last.
    for (rows, k, n, rank) in [(vec![], 130, 33, 3), (vec![3, 4], 40, 70, 16)] {
        let shape = |batch: usize, width: usize| [vec![batch], rows.clone(), vec![width]].concat();
        let [a, b] = [[3, k, rank], [3, rank, n]].map(|s| random(&mut r, DType::F32, &s));
        let [x, y] = [k, n].map(|width| random(&mut r, DType::F32, &shape(5, width)));
        let of = [2, -1, 0, 0, 1i64];
        let cpu = Session::new(&operator(&a, &b), Options { device: Some(DeviceKind::Cpu), ..Options::default() }).unwrap();
        for gpu in gpus() {
            let kind = gpu.info().kind;
            let session = Session::with_device(&operator(&a, &b), Options { strict: true, ..Options::default() }, gpu).unwrap();
            let run = |session: &Session, at: &[usize], dtype| {
                let number = numbers(dtype, &at.iter().map(|&i| of[i]).collect::<Vec<_>>());
                answers(session, &[("x", &items(&x, at)), ("y", &items(&y, at)), ("number", &number)]).unwrap()
            };
            let order = [0, 1, 2, 3, 4];
            let all = run(&session, &order, DType::I32);
            assert!(session.report().nodes.iter().all(|n| n.device == kind), "on {kind:?} alone");
            let most = all.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
            let want = run(&cpu, &order, DType::I32);
            assert!(all.iter().zip(&want).all(|(g, w)| (g - w).abs() <= 1e-5 * most), "{kind:?}");
            let size = all.len() / 5;
            for i in order {
                let one = &all[i * size..(i + 1) * size];
                assert_eq!(run(&session, &[i], DType::I64), one, "{kind:?}: item {i} alone");
                let mixed = run(&session, &[(i + 2) % 5, i, i], DType::I32);
                assert_eq!((&mixed[size..2 * size], &mixed[2 * size..]), (one, one), "{kind:?}: item {i} among others");
            }
            assert_eq!(items(&y, &[1]).to_f64(), &all[size..2 * size], "none adds nothing");
            for (bad, dtype) in [(3, DType::I32), (-2, DType::I32), (3, DType::I64), (1 << 32, DType::I64)] {
                let inputs = (items(&x, &[0, 1]), items(&y, &[0, 1]), numbers(dtype, &[0, bad]));
                let error = answers(&session, &[("x", &inputs.0), ("y", &inputs.1), ("number", &inputs.2)]);
                let error = error.expect_err("no adapter of this number").to_string();
                assert!(error.contains("outside its axis"), "{kind:?}: {error}");
            }
        }
    }
}

#[test]
fn adapters_beside_weights_are_fused_on_gpus_too() {
    let base = Model::open("models/digits-mlp.onnx").unwrap();
    let mut r = Xorshift::new(5);
    let mut one = |target: &str, k: usize, n: usize, rank: usize| Adapter {
        target: target.into(),
        a: r.reals(rank * k, 0.3),
        b: r.reals(n * rank, 0.3),
        rank,
        scale: 0.5,
    };
    let sets = [vec![one("W0", 64, 128, 8), one("W2", 64, 10, 3)], vec![one("W1", 128, 64, 20)]];
    let mut graph = base.graph().clone();
    attach(&mut graph, &sets, "adapter").unwrap();
    let model = base.with_graph(graph);
    let x = Xorshift::new(6).fill(DType::F32, [4, 64]).unwrap();
    let inputs = [("x", &x), ("adapter", &Tensor::vector(&[1, -1, 0, 1i32]))];
    let plain = Options { no_optimize: true, device: Some(DeviceKind::Cpu), ..Options::default() };
    let want = answers(&Session::new(&model, plain).unwrap(), &inputs).unwrap();
    for gpu in gpus() {
        let session = Session::with_device(&model, Options { strict: true, ..Options::default() }, gpu).unwrap();
        let got = answers(&session, &inputs).unwrap();
        let report = format!("{:?}", session.report());
        assert!(report.contains("fuse adapters of low rank") && report.contains("float-picked"), "{report}");
        assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() < 1e-5), "{got:?}, not {want:?}");
    }
}
