//! Adapters of low rank that items of a batch choose among at run time.

use halfbyte::base::xorshift::Xorshift;
use halfbyte::calibrate::low_rank::product;
use halfbyte::graph::{Graph, Node, Port};
use halfbyte::pass::adapted::attach;
use halfbyte::pass::lora::{Adapter, merge, targets};
use halfbyte::{DType, Model, Options, Session, Tensor};

/// Adapters of layers of models/digits-mlp.onnx: (weights, inputs, outputs, rank).
fn set(random: &mut Xorshift, layers: &[(&str, usize, usize, usize)]) -> Vec<Adapter> {
    let one = |&(target, k, rows, rank): &(&str, usize, usize, usize)| Adapter {
        target: target.into(),
        a: random.reals(rank * k, 0.3),
        b: random.reals(rows * rank, 0.3),
        rank,
        scale: 0.5,
    };
    layers.iter().map(one).collect()
}

fn sets() -> Vec<Vec<Adapter>> {
    let random = &mut Xorshift::new(5);
    let (first, second, last) = (("W0", 64, 128), ("W1", 128, 64), ("W2", 64, 10));
    let with = |(target, k, rows): (&'static str, usize, usize), rank| (target, k, rows, rank);
    vec![
        set(random, &[with(first, 8), with(second, 1), with(last, 3)]),
        set(random, &[with(second, 40)]),
        set(random, &[with(first, 2), with(last, 16)]),
    ]
}

fn answers(model: &Model, options: Options, inputs: &[(&str, &Tensor)]) -> halfbyte::Result<Vec<f64>> {
    let views: Vec<_> = inputs.iter().map(|(name, t)| (*name, t.view())).collect();
    Ok(Session::new(model, options)?.run(&views)?.iter().next().unwrap().1.to_f64())
}

#[test]
fn each_item_gets_the_answer_of_the_model_with_its_adapter_merged() {
    let base = Model::open("models/digits-mlp.onnx").unwrap();
    let sets = sets();
    let merged: Vec<Model> = sets
        .iter()
        .map(|set| {
            let mut graph = base.graph().clone();
            for (adapter, layer) in set.iter().zip(targets(&graph, set).unwrap()) {
                merge(&mut graph, &layer, &product(&adapter.a, &adapter.b, adapter.rank), adapter.scale).unwrap();
            }
            base.with_graph(graph)
        })
        .collect();
    let mut graph = base.graph().clone();
    let attached = attach(&mut graph, &sets, "adapter").unwrap();
    let ranks: Vec<&[usize]> = attached.iter().map(|a| &a.ranks[..]).collect();
    assert_eq!(ranks, [&[8, 0, 2], &[1, 40, 0], &[3, 0, 16]]);
    let model = base.with_graph(graph);
    let numbers = [0, -1, 2, 1, 1, 0, -1i32];
    let x = Xorshift::new(6).fill(DType::F32, [7, 64]).unwrap();
    let inputs = [("x", &x), ("adapter", &Tensor::vector(&numbers))];
    let fused = answers(&model, Options::default(), &inputs).unwrap();
    let plain = answers(&model, Options { no_optimize: true, ..Options::default() }, &inputs).unwrap();
    for (row, &number) in numbers.iter().enumerate() {
        let want = answers(if number < 0 { &base } else { &merged[number as usize] }, Options::default(), &[("x", &x)]).unwrap();
        for at in row * 10..row * 10 + 10 {
            let close = |got: f64| (got - want[at]).abs() < 1e-5;
            assert!(close(fused[at]) && close(plain[at]), "{at}: {} and {}, not {}", fused[at], plain[at], want[at]);
        }
    }
    let session = Session::new(&model, Options::default()).unwrap();
    let report = format!("{:?}", session.report());
    assert!(report.contains("fuse adapters of low rank"), "{report}");
    for bad in [3, -2] {
        let numbers = Tensor::vector(&[0, 1, bad, 0, 0, 0, 0i32]);
        let error = answers(&model, Options::default(), &[("x", &x), ("adapter", &numbers)]).unwrap_err().to_string();
        assert!(error.contains(&format!("matrix {bad} of 3")), "{error}");
    }
    let fewer = answers(&model, Options::default(), &[("x", &x), ("adapter", &Tensor::vector(&[0, 1i32]))]);
    assert!(fewer.is_err(), "7 rows are not shared by 2 numbers");
}

#[test]
fn what_cannot_be_attached_says_why() {
    let base = Model::open("models/digits-mlp.onnx").unwrap();
    let error = |sets: &[Vec<Adapter>], name: &str| attach(&mut base.graph().clone(), sets, name).unwrap_err().to_string();
    let random = &mut Xorshift::new(1);
    let one = |random: &mut Xorshift| set(random, &[("W1", 128, 64, 2)]);
    assert!(error(&[one(random)], "x").contains("already"));
    let twice = [one(random), one(random)].concat();
    assert!(error(&[twice], "adapter").contains("two pairs"));
    assert!(error(&[set(random, &[("W1", 64, 64, 2)])], "adapter").contains("64 outputs of 128 inputs"));
    let conv = Model::open("models/digits-cnn.onnx").unwrap();
    let (layers, _) = halfbyte::pass::layer::layers(conv.graph());
    let layer = layers.iter().find(|l| l.op == "Conv").unwrap();
    let target = conv.graph().values[layer.weight.0].name.trim_end_matches(".weight").to_string();
    let set = set(random, &[(&target, layer.k, layer.rows, 1)]);
    let error = attach(&mut conv.graph().clone(), &[set], "adapter").unwrap_err().to_string();
    assert!(error.contains("merged adapters only"), "{error}");
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

/// Items of the first axis.
fn items(t: &Tensor, of: &[usize]) -> Tensor {
    let mut shape = t.shape().clone();
    let bytes = t.bytes().chunks_exact(t.bytes().len() / shape[0]);
    shape[0] = of.len();
    let all: Vec<&[u8]> = bytes.collect();
    Tensor::from_raw(t.dtype(), shape, &of.iter().flat_map(|&i| all[i]).copied().collect::<Vec<u8>>()).unwrap()
}

#[test]
fn an_answer_depends_on_its_own_item_and_adapter_alone_to_the_bit() {
    let mut random = Xorshift::new(9);
    for (rows, k, n, rank) in [(1, 24, 40, 8), (2, 130, 33, 3), (3, 7, 5, 1), (17, 64, 300, 40), (40, 384, 384, 16)] {
        for dtype in [DType::F32, DType::F16] {
            let [a, b] = [[3, k, rank], [3, rank, n]].map(|shape| random.fill(dtype, shape).unwrap());
            let model = operator(&a, &b);
            let [x, y] = [[6, rows, k], [6, rows, n]].map(|shape| random.fill(DType::F32, shape).unwrap());
            let numbers = [2, -1, 0, 0, 1, 2i32];
            let run = |kernel: &str, of: &[usize], numbers: &[i32]| {
                let options = Options { kernel: Some(kernel.into()), ..Options::default() };
                let (x, y) = (items(&x, of), items(&y, of));
                answers(&model, options, &[("x", &x), ("y", &y), ("number", &Tensor::vector(numbers))]).unwrap()
            };
            let order: Vec<usize> = (0..6).collect();
            let want = run("cpu-any-gemm-reference", &order, &numbers);
            for kernel in ["cpu-portable-float", "cpu-avx2-float", "cpu-avx512-float", "cpu-neon-float"] {
                let all = run(kernel, &order, &numbers);
                let close = |(got, want): (&f64, &f64)| (got - want).abs() <= 1e-4 * (1.0 + want.abs());
                assert!(all.iter().zip(&want).all(close), "{kernel} {rows} {k} {n} {rank} {dtype}");
                let size = rows * n;
                for (i, item) in all.chunks_exact(size).enumerate() {
                    assert_eq!(run(kernel, &[i], &numbers[i..=i]), item, "{kernel}: item {i} alone");
                    if numbers[i] < 0 {
                        assert_eq!(items(&y, &[i]).to_f64(), item, "none adds nothing");
                    }
                }
                // Others beside it, which take other adapters.
                let mixed = run(kernel, &[5, 0, 3, 3], &[2, 2, 0, -1]);
                assert_eq!(
                    (&mixed[..size], &mixed[size..2 * size], &mixed[2 * size..3 * size]),
                    (&all[5 * size..], &all[..size], &all[3 * size..4 * size])
                );
            }
        }
    }
}
