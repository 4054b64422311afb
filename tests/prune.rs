//! Pruned models keep their accuracy: trained ones beside the checkout where they are, and small ones of the repository always.
#![cfg(feature = "cli")]

use std::path::Path;

use halfbyte::base::xorshift::Xorshift;
use halfbyte::calibrate::reconstruct::Sparsity;
use halfbyte::cli::npz;
use halfbyte::graph::{Attr, Dim, Graph, Node, Port, ValueId};
use halfbyte::optimize::blocks::remove_blocks;
use halfbyte::optimize::channels::prune_channels;
use halfbyte::optimize::heads::prune_heads;
use halfbyte::optimize::prune::{Pruning, prune};
use halfbyte::optimize::{Samples, run};
use halfbyte::{DType, Model, Options, Session, Tensor};

/// A trained model with samples to calibrate by, others to judge by, and their classes.
struct Trained {
    model: Model,
    calibration: Samples,
    test: Samples,
    classes: Vec<i64>,
}

fn trained(name: &str) -> Option<Trained> {
    let folder = Path::new("../shared/quant").join(name);
    if !folder.is_dir() {
        println!("SKIP {name}: {} is not there", folder.display());
        return None;
    }
    let model = Model::open(folder.join("model.onnx")).unwrap();
    let arrays = npz::read(&folder.join("data.npz")).unwrap();
    let samples = |array: &str| Samples::new(&model, &arrays, &[("input".into(), array.into())]).unwrap();
    let classes = arrays.iter().find(|(n, _)| n == "test_y").unwrap().1.to_i64().unwrap();
    Some(Trained { calibration: samples("calib").first(128), test: samples("test"), model, classes })
}

impl Trained {
    /// Percent of the test samples whose class the model finds.
    fn top1(&self, model: &Model) -> f64 {
        let session = Session::new(model, Options::default()).unwrap();
        let outputs: Vec<Tensor> = self.test.batches(100).map(|s| run(&session, &s.unwrap()).unwrap().remove(0)).collect();
        let scores: Vec<f64> = outputs.iter().flat_map(|t| t.to_f64()).collect();
        let best = |row: &[f64]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i as i64).unwrap();
        let found = scores.chunks(scores.len() / self.classes.len()).zip(&self.classes).filter(|(row, c)| best(row) == **c);
        100.0 * found.count() as f64 / self.classes.len() as f64
    }

    /// Top-1 after pruning by the calibration's samples, and by magnitude.
    fn pruned(&self, name: &str, sparsity: Sparsity) -> [f64; 2] {
        let own = [false, true].map(|magnitude| {
            let how = Pruning { sparsity, magnitude, ..Pruning::default() };
            self.top1(&prune(&self.model, &self.calibration, &how, |_, _| {}).unwrap().model)
        });
        println!("{name} {sparsity:?}: top-1 {:.2} %, by magnitude {:.2} %", own[0], own[1]);
        own
    }
}

/// Drops of at most one point where the smallest weights alone lose far more.
#[test]
fn half_of_the_weights_are_not_missed() {
    for name in ["digits_mlp", "digits_cnn", "mnist_vit", "mnist_resnet"] {
        let Some(trained) = trained(name) else { continue };
        let full = trained.top1(&trained.model);
        println!("{name}: top-1 {full:.2} %");
        for sparsity in [Sparsity::TwoOfFour, Sparsity::Share(0.5)] {
            let [own, magnitude] = trained.pruned(name, sparsity);
            assert!(full - own <= 1.0, "{name} {sparsity:?}: {own:.2} of {full:.2}");
            assert!(own >= magnitude - 0.5, "{name} {sparsity:?}: {own:.2}, by magnitude {magnitude:.2}");
        }
    }
}

/// One of six blocks, for at most 1.2 points.
#[test]
fn a_block_that_changes_little_is_not_missed() {
    let Some(trained) = trained("mnist_vit") else { return };
    let run = (32, &Options::default());
    let (model, influences) = remove_blocks(&trained.model, &trained.calibration, 1, run, |_, _| {}).unwrap();
    influences.iter().for_each(|i| println!("{}: {:.3}", i.block, i.influence));
    assert_eq!(influences.len(), 6);
    assert!(influences[0].removed && influences[1..].iter().all(|i| !i.removed && i.influence >= influences[0].influence));
    assert!(model.graph().nodes.len() < trained.model.graph().nodes.len() * 6 / 7);
    let (full, less) = (trained.top1(&trained.model), trained.top1(&model));
    println!("mnist_vit without {}: top-1 {less:.2} %, of {full:.2} %", influences[0].block);
    assert!(full - less <= 1.2, "{less:.2} of {full:.2}");
}

/// A quarter of the channels, with shapes that are smaller.
#[test]
fn channels_are_removed_for_good() {
    for (name, most) in [("digits_mlp", 1.0), ("digits_cnn", 1.0), ("mnist_resnet", 2.0), ("mnist_mbv2", 2.0), ("mnist_vit", 1.0)]
    {
        let Some(trained) = trained(name) else { continue };
        let how = Pruning::default();
        let (model, narrowed, refused) = prune_channels(&trained.model, &trained.calibration, 0.25, &how, |_, _| {}).unwrap();
        refused.iter().for_each(|r| println!("{name} refused {}: {}", r.node, r.why));
        let bytes =
            |m: &Model| m.graph().values.iter().filter_map(|v| v.constant.as_ref()).map(|t| t.bytes().len()).sum::<usize>();
        assert!(narrowed.iter().all(|n| n.after == n.before - (n.before as f64 / 4.0).round() as usize));
        let (full, less) = (trained.top1(&trained.model), trained.top1(&model));
        let share = bytes(&model) as f64 / bytes(&trained.model) as f64;
        println!("{name}: {} layers narrowed, {share:.2} of the bytes, top-1 {less:.2} % of {full:.2} %", narrowed.len());
        assert!(share < 0.95 && full - less <= most, "{name}: {share:.2}, {less:.2} of {full:.2}");
    }
}

/// Models of the repository on made-up inputs: as many zeros as asked for, and outputs nearer to the model's than by magnitude.
#[test]
fn small_models_keep_their_outputs() {
    for name in ["digits-mlp", "digits-cnn"] {
        let model = Model::open(format!("models/{name}.onnx")).unwrap();
        let (input, port) = model.inputs().next().unwrap();
        let sizes = port.dims.iter().flatten().skip(1).map(|d| if let Dim::Known(n) = d { *n } else { 1 });
        let shape: Vec<usize> = [64].into_iter().chain(sizes).collect();
        let x = Xorshift::new(1).fill(DType::F32, shape.as_slice()).unwrap();
        let samples = Samples::new(&model, &[(input.into(), x)], &[]).unwrap();
        let outputs = |model: &Model| -> Vec<f64> {
            let session = Session::new(model, Options::default()).unwrap();
            samples.batches(64).flat_map(|s| run(&session, &s.unwrap()).unwrap().remove(0).to_f64()).collect()
        };
        let full = outputs(&model);
        for (sparsity, steps) in [(Sparsity::TwoOfFour, 1), (Sparsity::Share(0.6), 1), (Sparsity::Share(0.6), 3)] {
            let [own, magnitude] = [false, true].map(|magnitude| {
                let how = Pruning { sparsity, magnitude, steps, ends: true, ..Pruning::default() };
                let mut calls = 0;
                let pruned = prune(&model, &samples, &how, |done, all| calls += usize::from(done <= all)).unwrap();
                let wanted = if let Sparsity::Share(share) = sparsity { share } else { 0.5 };
                // Groups of four along nine taps leave a last one that is not whole.
                assert!(pruned.layers.iter().all(|l| (l.zeros - wanted).abs() < 0.01 || l.weights % 4 != 0 || l.op == "Conv"));
                assert_eq!(calls, pruned.layers.len() * if magnitude { 1 } else { steps });
                outputs(&pruned.model).iter().zip(&full).map(|(a, b)| (a - b).powi(2)).sum::<f64>()
            });
            println!("{name} {sparsity:?} in {steps} steps: {:.3} of the error by magnitude", (own / magnitude).sqrt());
            assert!(own < 0.8 * magnitude, "{name} {sparsity:?}: {own} and {magnitude}");
        }
        let how = Pruning { keep: vec![String::new()], ..Pruning::default() };
        assert!(prune(&model, &samples, &how, |_, _| {}).is_err(), "nothing is left to prune");
        let narrow = prune_channels(&model, &samples, 0.5, &Pruning { ends: true, ..Pruning::default() }, |_, _| {});
        let (narrow, narrowed, _) = narrow.unwrap();
        assert!(narrowed.iter().all(|n| n.after * 2 == n.before) && outputs(&narrow).len() == full.len());
        assert!(remove_blocks(&model, &samples, 1, (32, &Options::default()), |_, _| {}).is_err(), "no residual blocks");
    }
}

/// Nodes after one another in a graph.
struct Net(Graph);

impl Net {
    fn constant(&mut self, t: Tensor) -> ValueId {
        let name = format!("c{}", self.0.values.len());
        self.0.add_value(name, Some(t))
    }

    fn op(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
        let many = if op == "Split" { 3 } else { 1 };
        let outputs: Vec<_> = (0..many).map(|i| self.0.add_value(format!("{op}{}/{i}", self.0.nodes.len()), None)).collect();
        let mut node =
            Node::new("", op, 17, inputs.iter().copied().map(Some).collect(), outputs.iter().copied().map(Some).collect());
        node.name = format!("{op}{}", self.0.nodes.len());
        node.attrs = attrs.iter().map(|(n, a)| (n.to_string(), a.clone())).collect();
        self.0.nodes.push(node);
        outputs[0]
    }

    /// x times weights [k x n] plus a bias.
    fn linear(&mut self, x: ValueId, weights: &[f32], n: usize) -> ValueId {
        let w = self.constant(Tensor::new([weights.len() / n, n], weights).unwrap());
        let bias: Vec<f32> = weights[..n].iter().map(|w| w * 0.1).collect();
        let bias = self.constant(Tensor::vector(&bias));
        let y = self.op("MatMul", &[x, w], &[]);
        self.op("Add", &[bias, y], &[])
    }

    fn reshape(&mut self, x: ValueId, to: &[i64]) -> ValueId {
        let shape = self.constant(Tensor::vector(to));
        self.op("Reshape", &[x, shape], &[])
    }
}

/// Attention of four heads of two, of which the output's layer reads only those not in `idle`; by one layer for queries, keys and values, or three.
fn attention(together: bool, idle: &[usize]) -> Model {
    let mut net = Net(Graph::default());
    let x = net.0.add_value("x", None);
    let dims = Some(vec![Dim::Named("n".into()), Dim::Known(5), Dim::Known(8)]);
    net.0.inputs.push(Port { value: x, dtype: Some(DType::F32), dims });
    let mut random = Xorshift::new(3);
    let perm = |p: &[i64]| Attr::Ints(p.to_vec());
    let [q, k, v] = if together {
        let all = net.linear(x, &random.reals(8 * 24, 1.0), 24);
        let split = net.reshape(all, &[0, 5, 3, 4, 2]);
        let turned = net.op("Transpose", &[split], &[("perm", perm(&[2, 0, 3, 1, 4]))]);
        let first = net.op("Split", &[turned], &[("axis", Attr::Int(0))]);
        let axes = net.constant(Tensor::vector(&[0i64]));
        let [q, k, v] = [0, 1, 2].map(|i| net.op("Squeeze", &[ValueId(first.0 + i), axes], &[]));
        [q, net.op("Transpose", &[k], &[("perm", perm(&[0, 1, 3, 2]))]), v]
    } else {
        [[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]].map(|order| {
            let y = net.linear(x, &random.reals(64, 1.0), 8);
            let split = net.reshape(y, &[-1, 5, 4, 2]);
            net.op("Transpose", &[split], &[("perm", perm(&order))])
        })
    };
    let scores = net.op("MatMul", &[q, k], &[]);
    let scale = net.constant(Tensor::scalar(0.7f32));
    let scaled = net.op("Mul", &[scores, scale], &[]);
    let weights = net.op("Softmax", &[scaled], &[("axis", Attr::Int(-1))]);
    let heads = net.op("MatMul", &[weights, v], &[]);
    let turned = net.op("Transpose", &[heads], &[("perm", perm(&[0, 2, 1, 3]))]);
    let joined = net.reshape(turned, &[-1, 5, 8]);
    let mut read = random.reals(8 * 6, 1.0);
    idle.iter().for_each(|h| read[h * 12..][..12].fill(0.0));
    let out = net.linear(joined, &read, 6);
    net.0.outputs.push(Port { value: out, dtype: None, dims: None });
    Model::from_graph(net.0)
}

#[test]
fn heads_that_nothing_reads_go_without_a_trace() {
    for together in [false, true] {
        let model = attention(together, &[1, 2]);
        let x = Xorshift::new(4).fill(DType::F32, [40, 5, 8]).unwrap();
        let samples = Samples::new(&model, &[("x".into(), x)], &[]).unwrap();
        let outputs = |model: &Model| -> Vec<f64> {
            let session = Session::new(model, Options::default()).unwrap();
            samples.batches(16).flat_map(|s| run(&session, &s.unwrap()).unwrap().remove(0).to_f64()).collect()
        };
        let (less, narrowed, refused) = prune_heads(&model, &samples, 0.5, &Pruning::default(), |_, _| {}).unwrap();
        assert!(refused.is_empty() && narrowed.len() == 1, "{refused:?}");
        assert_eq!((narrowed[0].before, narrowed[0].after), (4, 2));
        assert!(narrowed[0].relative_error < 1e-4, "{}", narrowed[0].relative_error);
        let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-4;
        assert!(outputs(&less).iter().zip(&outputs(&model)).all(close));
        let parameters = |m: &Model| {
            m.graph()
                .values
                .iter()
                .filter_map(|v| v.constant.as_ref())
                .filter(|t| t.dtype() == DType::F32)
                .map(Tensor::numel)
                .sum::<usize>()
        };
        // Of 8 x 24 and 24, and of 8 x 6, a half each.
        assert_eq!(parameters(&model) - parameters(&less), (8 * 24 + 24 + 8 * 6) / 2);
        // One that is read costs something, and others make up for a part of it.
        let (fewer, narrowed, _) = prune_heads(&model, &samples, 0.75, &Pruning::default(), |_, _| {}).unwrap();
        assert!(narrowed[0].after == 1 && narrowed[0].relative_error > 0.01 && outputs(&fewer).len() == outputs(&model).len());
    }
}

#[test]
fn heads_that_cannot_be_followed_are_refused() {
    let x = Xorshift::new(4).fill(DType::F32, [4, 5, 8]).unwrap();
    let refused = |change: &dyn Fn(&mut Graph)| {
        let mut graph = attention(false, &[]).graph().clone();
        change(&mut graph);
        let model = Model::from_graph(graph);
        let samples = Samples::new(&model, &[("x".into(), x.clone())], &[]).unwrap();
        prune_heads(&model, &samples, 0.5, &Pruning::default(), |_, _| {}).map(|_| ()).unwrap_err().to_string()
    };
    let at = |graph: &Graph, op: &str| graph.nodes.iter().position(|n| n.op == op).unwrap();
    let masked = refused(&|graph| {
        // A bias for each head.
        let bias = graph.add_value("bias", Some(Tensor::zeros(DType::F32, [4, 5, 5]).unwrap()));
        let mul = at(graph, "Mul");
        let (scores, sum) = (graph.nodes[mul].inputs[0], graph.nodes[mul].outputs.clone());
        graph.nodes[mul] = Node::new("", "Add", 17, vec![scores, Some(bias)], sum);
    });
    assert!(masked.contains("no product"), "{masked}");
    let read = refused(&|graph| {
        let split = at(graph, "Reshape");
        let value = graph.nodes[split].outputs[0].unwrap();
        graph.outputs.push(Port { value, dtype: None, dims: None });
    });
    assert!(read.contains("something else reads"), "{read}");
}

/// Of four heads in each of six blocks one, and then a half of them, go.
#[test]
fn attention_heads_are_removed_for_good() {
    let Some(trained) = trained("mnist_vit") else { return };
    let full = trained.top1(&trained.model);
    for (share, most) in [(0.25, 1.5), (0.5, 6.0)] {
        let how = Pruning::default();
        let (model, narrowed, refused) = prune_heads(&trained.model, &trained.calibration, share, &how, |_, _| {}).unwrap();
        assert!(refused.is_empty() && narrowed.len() == 6, "{refused:?}");
        let less = trained.top1(&model);
        println!("mnist_vit without {share} of its heads: top-1 {less:.2} % of {full:.2} %");
        narrowed.iter().for_each(|n| println!("{}: {} of {}, error {:.3}", n.layer, n.after, n.before, n.relative_error));
        assert!(full - less <= most, "{less:.2} of {full:.2}");
    }
}
