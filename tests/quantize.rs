//! Quantised models: how close they are, that answers do not depend on the batch, and that ONNX Runtime gives the same ones.
#![cfg(feature = "cli")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use halfbyte::base::xorshift::Xorshift;
use halfbyte::cli::npz;
use halfbyte::export::onnx;
use halfbyte::graph::{Dim, Graph, Node, Port};
use halfbyte::hardware::DeviceKind;
use halfbyte::optimize::quantize::{Convolutions, Products, Quantized, prepared};
use halfbyte::optimize::{Best, Biases, QuantizeOptions, Rounding, Sample, Samples, Size, Smoothing, best_of, quantize};
use halfbyte::pass::quantize::{Bits, Scheme};
use halfbyte::{DType, Model, Options, Session, Tensor};

fn session(graph: &Graph) -> Session {
    let options = Options { device: Some(DeviceKind::Cpu), ..Options::default() };
    Session::new(&Model::from_graph(graph.clone()), options).unwrap()
}

fn run(session: &Session, sample: &Sample) -> Vec<f32> {
    let named: Vec<_> = sample.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    session.run(&named).unwrap().iter().next().unwrap().1.values::<f32>().unwrap().into_owned()
}

/// Answers to all samples, in batches.
fn answers(session: &Session, samples: &Samples, batch: usize) -> Vec<f32> {
    samples.batches(batch).flat_map(|s| run(session, &s.unwrap())).collect()
}

fn sqnr_db(exact: &[f32], rounded: &[f32]) -> f64 {
    let square = |v: f32| f64::from(v).powi(2);
    let noise: f64 = exact.iter().zip(rounded).map(|(a, b)| square(a - b)).sum();
    10.0 * (exact.iter().map(|&a| square(a)).sum::<f64>() / noise.max(1e-30)).log10()
}

fn made(model: &Path, options: &QuantizeOptions, samples: Option<&Samples>) -> (Model, Quantized) {
    let model = prepared(&Model::open(model).unwrap()).unwrap();
    let quantized = quantize(&model, options, samples, &mut |_, _| ()).unwrap();
    (model, quantized)
}

/// Smooth random images or rows for a model of models/.
fn random(model: &Path, count: usize) -> Samples {
    let model = Model::open(model).unwrap();
    let (name, port) = model.inputs().next().unwrap();
    let rest = port.dims.as_ref().unwrap()[1..].iter().map(|d| if let Dim::Known(n) = d { *n } else { 1 });
    let shape: Vec<usize> = std::iter::once(count).chain(rest).collect();
    let mut r = Xorshift::new(3);
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|_| r.real().abs() * 16.0).collect();
    let all = Tensor::new(&shape[..], &values).unwrap();
    Samples::new(&model, &[(name.to_string(), all)], &[]).unwrap()
}

#[test]
fn small_models_stay_close_and_run_on_integers() {
    for (file, nodes, least_db) in
        [("digits-mlp", &["LinearInt8"][..], 24.0), ("digits-cnn", &["ConvInteger", "LinearInt8"], 24.0)]
    {
        let path = PathBuf::from(format!("models/{file}.onnx"));
        let samples = random(&path, 64);
        for products in [Products::Rows, Products::RowsAsymmetric, Products::Static, Products::Weights] {
            let (model, done) = made(&path, &QuantizeOptions { products, ..QuantizeOptions::default() }, Some(&samples));
            assert!(done.layers.len() >= 3 && done.layers.iter().all(|l| l.scheme.is_some()), "{:?}", done.layers);
            let (exact, rounded) = (session(model.graph()), session(&done.graph));
            let db = sqnr_db(&answers(&exact, &samples, 64), &answers(&rounded, &samples, 64));
            println!("{file}, {products:?}: {db:.1} dB");
            assert!(db > least_db, "{file}, {products:?}: {db} dB");
            let ops: String = rounded.report().nodes.iter().map(|n| n.op.clone() + " ").collect();
            if matches!(products, Products::Rows | Products::RowsAsymmetric) {
                assert!(nodes.iter().all(|n| ops.contains(n)) && !ops.contains("ReduceMax"), "{ops}");
            }
            assert!(products != Products::Static || ops.contains("MatMulIntegerToFloat"), "{ops}");
        }
    }
}

#[test]
fn answers_do_not_depend_on_the_batch() {
    for file in ["digits-mlp", "digits-cnn"] {
        let path = PathBuf::from(format!("models/{file}.onnx"));
        let samples = random(&path, 23);
        for products in [Products::Rows, Products::RowsAsymmetric, Products::Static] {
            let (_, done) = made(&path, &QuantizeOptions { products, ..QuantizeOptions::default() }, Some(&samples));
            let session = session(&done.graph);
            let alone = answers(&session, &samples, 1);
            for batch in [2, 7, 23] {
                assert_eq!(answers(&session, &samples, batch), alone, "{file}, {products:?}, batches of {batch}");
            }
        }
    }
}

#[test]
fn without_samples_convolutions_stay_and_say_why() {
    let (_, done) = made(Path::new("models/digits-cnn.onnx"), &QuantizeOptions::default(), None);
    let stayed: Vec<_> = done.layers.iter().filter(|l| l.scheme.is_none()).collect();
    assert!(stayed.len() == 2 && stayed.iter().all(|l| l.reason.as_deref() == Some("ranges need samples")), "{stayed:?}");
    let model = prepared(&Model::open("models/digits-cnn.onnx").unwrap()).unwrap();
    let keep = vec!["nothing".to_string()];
    let error = quantize(&model, &QuantizeOptions { keep, ..QuantizeOptions::default() }, None, &mut |_, _| ()).unwrap_err();
    assert!(error.to_string().contains("no layer \"nothing\"") && error.to_string().contains(&done.layers[0].name), "{error}");
}

/// x MatMul W, of the sizes of x.
fn product(x: &[usize], rows: usize) -> Graph {
    let mut graph = Graph::default();
    let (k, value) = (x[x.len() - 1], graph.add_value("x", None));
    let dims = x.iter().map(|&n| Dim::Known(n)).collect();
    graph.inputs.push(Port { value, dtype: Some(DType::F32), dims: Some(dims) });
    let w = graph.add_value("w", Some(Tensor::new([k, rows], &Xorshift::new(4).reals(k * rows, 1.0)).unwrap()));
    let y = graph.add_value("y", None);
    let node = Node::new("", "MatMul", 17, vec![Some(value), Some(w)], vec![Some(y)]);
    graph.nodes.push(Node { name: "layer".into(), ..node });
    graph.outputs.push(Port { value: y, dtype: Some(DType::F32), dims: None });
    graph
}

#[test]
fn odd_products_keep_their_shape_or_stay_with_a_reason() {
    let quantized = |graph: Graph, products| {
        let model = prepared(&Model::from_graph(graph)).unwrap();
        quantize(&model, &QuantizeOptions { products, ..QuantizeOptions::default() }, None, &mut |_, _| ()).unwrap()
    };
    for products in [Products::Rows, Products::RowsAsymmetric] {
        // An input of one axis gives outputs of one, also operator by operator as other runtimes take the file.
        let done = quantized(product(&[32], 8), products);
        let x = Tensor::vector(&Xorshift::new(5).reals(32, 1.0));
        for no_optimize in [false, true] {
            let options = Options { device: Some(DeviceKind::Cpu), no_optimize, ..Options::default() };
            let session = Session::new(&Model::from_graph(done.graph.clone()), options).unwrap();
            let outputs = session.run(&[("x", x.view())]).unwrap();
            assert_eq!(outputs.iter().next().unwrap().1.shape()[..], [8], "{products:?}, {no_optimize}");
        }
        // The product of both scales in what was quantised already is no layer.
        let again = quantized(done.graph, products);
        assert!(again.layers.is_empty() && again.refused.iter().all(|r| r.why.contains("outer product")), "{again:?}");
        let long = quantized(product(&[1, 70_000], 1), products);
        assert!(long.layers[0].reason.as_deref().is_some_and(|why| why.contains("32 bits")), "{:?}", long.layers);
    }
}

#[test]
fn models_of_older_operator_sets_are_taken_to_newer_ones() {
    let old = Model::open("models/ppocr-cls.onnx").unwrap();
    assert!(old.graph().nodes.iter().any(|n| n.opset < 13));
    let new = prepared(&old).unwrap();
    assert!(new.graph().nodes.iter().all(|n| !n.domain.is_empty() || n.opset >= 13));
    let inputs = npz::read(Path::new("models/ppocr-cls.in.npz")).unwrap();
    let (a, b) = (run(&session(old.graph()), &inputs), run(&session(new.graph()), &inputs));
    assert!(sqnr_db(&a, &b) > 100.0, "{}", sqnr_db(&a, &b));
}

#[test]
fn smoothing_changes_no_answer_but_by_rounding() {
    let path = Path::new("models/digits-mlp.onnx");
    let samples = random(path, 32);
    let keep = |smooth| QuantizeOptions { products: Products::Keep, smooth, ..QuantizeOptions::default() };
    let half = |size| Some(Smoothing { strength: 0.5, size });
    let plain = prepared(&Model::open(path).unwrap()).unwrap();
    let a = answers(&session(plain.graph()), &samples, 32);
    for size in [Size::Largest, Size::Mean(2), Size::Mean(4)] {
        let (_, done) = made(path, &keep(half(size)), Some(&samples));
        let multiplied = done.graph.nodes.iter().filter(|n| n.name.ends_with("/Smooth")).count();
        assert_eq!(multiplied, 3, "one for each product's input");
        let b = answers(&session(&done.graph), &samples, 32);
        assert!(sqnr_db(&a, &b) > 100.0, "{}", sqnr_db(&a, &b));
    }
    let error = quantize(&plain, &keep(half(Size::Largest)), None, &mut |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("needs samples"), "{error}");
}

#[test]
fn of_several_ways_the_nearest_on_other_samples_wins() {
    let path = Path::new("models/digits-cnn.onnx");
    let (all, model) = (random(path, 48), prepared(&Model::open(path).unwrap()).unwrap());
    let base = QuantizeOptions::default();
    let mut steps = Vec::new();
    let some = all.clone().first(16);
    let mut told = |n, of| {
        steps.push((n, of));
        true
    };
    let Best { options: best, calibrated, tried } = best_of(&model, &base, Some(&all), &some, &mut told).unwrap();
    assert!(tried.len() > 4 && steps.iter().all(|(n, of)| n <= of), "{tried:?} {steps:?}");
    let found = |o: &QuantizeOptions| tried.iter().find(|t| t.options == *o).unwrap().sqnr_db;
    assert!(tried.iter().all(|t| t.sqnr_db <= found(&best)), "{tried:?}");
    // The figure is that of the model that was calibrated, and of the one that such options make.
    let done = quantize(&model, &best, Some(&all), &mut |_, _| ()).unwrap();
    let bytes = |graph: &Graph| onnx::to_bytes(graph, &[]).unwrap();
    assert!(bytes(&done.graph) == bytes(&calibrated.quantized(&[]).unwrap().graph));
    let db = sqnr_db(&answers(&session(model.graph()), &some, 16), &answers(&session(&done.graph), &some, 16));
    assert!((db - found(&best)).abs() < 1e-3, "{db} {}", found(&best));
    // What won stays, whatever is asked after it.
    let mut best_so_far = &tried[0];
    for t in &tried[1..] {
        let changed = |a: &QuantizeOptions, b: &QuantizeOptions| {
            let all = [a.biases != b.biases, a.calibrator != b.calibrator, a.smooth != b.smooth, a.rounding != b.rounding];
            all.into_iter().filter(|c| *c).count()
        };
        assert!(changed(&t.options, &best_so_far.options) <= 1, "{tried:?}");
        best_so_far = if t.sqnr_db > best_so_far.sqnr_db { t } else { best_so_far };
    }
    for (calibrate, goes_on) in [(None, true), (Some(&all), false)] {
        assert_eq!(best_of(&model, &base, calibrate, &some, &mut |_, _| goes_on).unwrap().tried.len(), 1);
    }
}

/// Answers of ONNX Runtime, its products exact; `None` where there is none.
fn in_onnx_runtime(model: &Path, input: &str, x: &Tensor) -> Option<Vec<f32>> {
    let Ok(suites) = std::env::var("HALFBYTE_SUITES") else {
        println!("SKIP ONNX Runtime: HALFBYTE_SUITES is not set, see scripts/test");
        return None;
    };
    let code = "import sys, numpy as np, onnxruntime as ort; o = ort.SessionOptions(); \
                o.add_session_config_entry('session.x64quantprecision', '1'); \
                o.add_session_config_entry('session.qdq_matmulnbits_accuracy_level', '1'); \
                x = np.frombuffer(sys.stdin.buffer.read(), np.float32).reshape([int(n) for n in sys.argv[3].split(',')]); \
                s = ort.InferenceSession(sys.argv[1], o, providers=['CPUExecutionProvider']); \
                sys.stdout.buffer.write(s.run(None, {sys.argv[2]: x})[0].tobytes())";
    let shape: Vec<String> = x.shape().iter().map(ToString::to_string).collect();
    let mut command = Command::new(format!("{suites}/venv/bin/python"));
    command.args(["-c", code]).arg(model).args([input, &shape.join(",")]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("invariant: the suite's Python runs");
    child.stdin.take().unwrap().write_all(x.bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "ONNX Runtime refuses {}", model.display());
    Some(bytemuck::pod_collect_to_vec(&done.stdout))
}

#[test]
fn products_of_quantised_rows_have_the_same_bits_in_onnx_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let path = Path::new("models/digits-mlp.onnx");
    let samples = random(path, 40);
    for products in [Products::Rows, Products::RowsAsymmetric] {
        let (_, mut done) = made(path, &QuantizeOptions { products, ..QuantizeOptions::default() }, None);
        without_softmax(&mut done.graph);
        let file = folder.path().join("q.onnx");
        onnx::write(&done.graph, &[], &file).unwrap();
        let read = Model::open(&file).unwrap();
        let ours = answers(&session(read.graph()), &samples, 40);
        let sample = samples.batches(40).next().unwrap().unwrap();
        let Some(theirs) = in_onnx_runtime(&file, &sample[0].0, &sample[0].1) else { return };
        let differ: Vec<_> = ours.iter().zip(&theirs).enumerate().filter(|(_, (a, b))| a.to_bits() != b.to_bits()).collect();
        assert!(
            differ.is_empty(),
            "{products:?}: {} of {} differ, e.g. {:?}",
            differ.len(),
            ours.len(),
            &differ[..5.min(differ.len())]
        );
    }
}

/// What goes into the softmax, whose own rounding is each engine's.
fn without_softmax(graph: &mut Graph) {
    let softmax = graph.nodes.iter().find(|n| n.op == "Softmax").unwrap().inputs[0].unwrap();
    graph.outputs[0] = Port { value: softmax, dtype: Some(DType::F32), dims: None };
}

#[test]
fn weights_of_4_and_16_bits_are_read_back_alike() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    for (file, bits, least_db) in [
        ("digits-mlp", Bits::Four(16), 12.0),
        ("digits-mlp", Bits::Eight, 35.0),
        ("digits-mlp", Bits::Sixteen, 80.0),
        ("digits-mlp", Bits::FourAsymmetric(16), 13.0),
        ("digits-cnn", Bits::Four(16), 12.0),
        ("digits-cnn", Bits::Sixteen, 80.0),
    ] {
        let path = PathBuf::from(format!("models/{file}.onnx"));
        let samples = random(&path, 40);
        let (products, convolutions) = (Products::Weights, Convolutions::Weights);
        let options = QuantizeOptions { products, convolutions, bits, ..QuantizeOptions::default() };
        let (mut exact, mut done) = made(&path, &options, None);
        without_softmax(&mut done.graph);
        let mut graph = exact.graph().clone();
        without_softmax(&mut graph);
        exact = Model::from_graph(graph);
        let written = folder.path().join("q.onnx");
        onnx::write(&done.graph, &[], &written).unwrap();
        let read = Model::open(&written).unwrap();
        assert_eq!(read.graph().constant_bytes(), done.graph.constant_bytes(), "4 bits stay 4 bits");
        bytes.push(std::fs::metadata(&written).unwrap().len());
        let ours = answers(&session(read.graph()), &samples, 40);
        assert_eq!(ours, answers(&session(&done.graph), &samples, 40));
        let db = sqnr_db(&answers(&session(exact.graph()), &samples, 40), &ours);
        println!("{file}, weights of {bits:?}: {db:.1} dB");
        assert!(db > least_db, "{file}, {bits:?}: {db} dB");
        let sample = samples.batches(40).next().unwrap().unwrap();
        if let Some(theirs) = in_onnx_runtime(&written, &sample[0].0, &sample[0].1) {
            assert!(sqnr_db(&theirs, &ours) > 100.0, "{file}, {bits:?}: {} dB apart", sqnr_db(&theirs, &ours));
        }
    }
    assert!(bytes[0] * 10 < bytes[1] * 8 && bytes[1] * 10 < bytes[2] * 7, "{bytes:?}");
    let options = QuantizeOptions { bits: Bits::Sixteen, ..QuantizeOptions::default() };
    let model = prepared(&Model::open("models/digits-mlp.onnx").unwrap()).unwrap();
    let error = quantize(&model, &options, None, &mut |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("8 bits alone"), "{error}");
}

#[test]
fn activations_of_16_bits_run_as_in_onnx_runtime() {
    let folder = tempfile::tempdir().unwrap();
    for (domain, opset, zero) in [
        ("", 21, Tensor::scalar(30000u16)),
        ("", 21, Tensor::scalar(-100i16)),
        ("com.microsoft", 1, Tensor::scalar(30000u16)),
        ("com.microsoft", 1, Tensor::scalar(-100i16)),
    ] {
        let mut g = Graph::default();
        let mut value = |name: &str, constant: Option<Tensor>| g.add_value(name, constant);
        let weights = Tensor::new([8, 4], &Xorshift::new(3).reals(32, 1.0)).unwrap();
        let (x, q, d, y) = (value("x", None), value("q", None), value("d", None), value("y", None));
        let (s, z, w) = (value("s", Some(Tensor::scalar(1e-4f32))), value("z", Some(zero.clone())), value("w", Some(weights)));
        let node = |domain: &str, op: &str, opset, inputs: &[_], output| {
            Node::new(domain, op, opset, inputs.iter().copied().map(Some).collect(), vec![Some(output)])
        };
        g.nodes.push(node(domain, "QuantizeLinear", opset, &[x, s, z], q));
        g.nodes.push(node(domain, "DequantizeLinear", opset, &[q, s, z], d));
        g.nodes.push(node("", "MatMul", 21, &[d, w], y));
        g.inputs.push(Port { value: x, dtype: Some(DType::F32), dims: Some(vec![Dim::Known(3), Dim::Known(8)]) });
        g.outputs.push(Port { value: y, dtype: Some(DType::F32), dims: Some(vec![Dim::Known(3), Dim::Known(4)]) });
        let path = folder.path().join("q16.onnx");
        onnx::write(&g, &[], &path).unwrap();
        // Beyond the range too: 65535 steps of 1e-4 around the zero point.
        let input = Tensor::new([3, 8], &Xorshift::new(4).reals(24, 4.0)).unwrap();
        let read = Model::open(&path).unwrap();
        let ours = run(&session(read.graph()), &vec![("x".to_string(), input.clone())]);
        let (low, high) = if zero.dtype() == DType::U16 { (0.0, 65535.0) } else { (-32768.0, 32767.0) };
        let zero = zero.to_f64()[0];
        let rounded = |v: f64| ((f64::from((v as f32 / 1e-4f32).round_ties_even()) + zero).clamp(low, high) - zero) * 1e-4;
        let (x, w) = (input.to_f64(), Xorshift::new(3).reals(32, 1.0).into_iter().map(f64::from).collect::<Vec<f64>>());
        for (at, got) in ours.iter().enumerate() {
            let want: f64 = (0..8).map(|k| rounded(x[at / 4 * 8 + k]) * w[k * 4 + at % 4]).sum();
            assert!((f64::from(*got) - want).abs() < 1e-4, "{domain:?} {zero}: {got} for {want}");
        }
        if let Some(theirs) = in_onnx_runtime(&path, "x", &input) {
            assert!(sqnr_db(&theirs, &ours) > 120.0, "{domain:?}: {} dB apart", sqnr_db(&theirs, &ours));
        }
    }
}

#[test]
fn rounding_by_what_goes_into_layers_is_nearer_on_it() {
    let path = Path::new("models/digits-mlp.onnx");
    let samples = random(path, 64);
    let error = |rounding, bits| {
        let products = Products::Weights;
        let options = QuantizeOptions { products, bits, rounding, ..QuantizeOptions::default() };
        let (exact, mut done) = made(path, &options, Some(&samples));
        let mut graph = exact.graph().clone();
        without_softmax(&mut done.graph);
        without_softmax(&mut graph);
        sqnr_db(&answers(&session(&graph), &samples, 64), &answers(&session(&done.graph), &samples, 64))
    };
    for bits in [Bits::Four(16), Bits::FourAsymmetric(16)] {
        let (nearest, gptq) = (error(Rounding::Nearest, bits), error(Rounding::Gptq, bits));
        println!("{bits:?}: {nearest:.1} dB to the nearest, {gptq:.1} dB by GPTQ");
        assert!(gptq > nearest + 1.0, "{nearest} {gptq}");
    }
    let model = prepared(&Model::open(path).unwrap()).unwrap();
    let options = QuantizeOptions { rounding: Rounding::Gptq, ..QuantizeOptions::default() };
    assert!(quantize(&model, &options, None, &mut |_, _| ()).unwrap_err().to_string().contains("needs samples"));
}

#[test]
fn corrected_biases_keep_the_mean_of_what_comes_out() {
    let path = Path::new("models/digits-cnn.onnx");
    // As many as means are taken over.
    let samples = random(path, 16);
    let means = |biases| {
        let options = QuantizeOptions { products: Products::Static, biases, ..QuantizeOptions::default() };
        let (exact, mut done) = made(path, &options, Some(&samples));
        let mut graph = exact.graph().clone();
        without_softmax(&mut done.graph);
        without_softmax(&mut graph);
        let mean = |graph: &Graph| {
            let all = answers(&session(graph), &samples, 16);
            (0..10).map(|i| all.iter().skip(i).step_by(10).sum::<f32>() / 16.0).collect::<Vec<f32>>()
        };
        sqnr_db(&mean(&graph), &mean(&done.graph))
    };
    let (plain, corrected) = (means(Biases::Keep), means(Biases::InOrder));
    println!("means of the last layer: {plain:.1} dB, {corrected:.1} dB with corrected biases");
    assert!(corrected > plain + 10.0 && corrected > 60.0, "{plain} {corrected}");
}

/// Name, the best exact 8-bit figure of ONNX Runtime (peers_ort.json), the least agreement.
const TRAINED: [(&str, f64, f64); 5] = [
    ("digits_mlp", 40.9, 0.998),
    ("digits_cnn", 40.8, 0.998),
    ("mnist_resnet", 36.9, 0.998),
    ("mnist_mbv2", 36.6, 0.998),
    ("mnist_vit", 39.2, 0.998),
];

/// Samples of a draw, of 256.
const DRAWN: usize = 224;

#[test]
fn trained_models_are_closer_than_onnx_runtimes() {
    let folder = Path::new("../shared/quant");
    if !folder.exists() {
        println!("SKIP trained models: ../shared/quant is absent");
        return;
    }
    let out = tempfile::tempdir().unwrap();
    for (name, peer_db, least_agreement) in TRAINED {
        let data = npz::read(&folder.join(name).join("data.npz")).unwrap();
        let path = folder.join(name).join("model.onnx");
        let model = Model::open(&path).unwrap();
        let input = model.inputs().next().unwrap().0.to_string();
        let of = |array: &str| Samples::new(&model, &data, &[(input.clone(), array.into())]).unwrap();
        let (calibration, test) = (of("calib"), of("test").first(600));
        // Three draws of the calibration.
        for draw in 0..3 {
            let drawn: Vec<Tensor> = calibration.batches(1).map(|s| s.unwrap().remove(0).1).collect();
            let mut r = Xorshift::new(draw + 1);
            let mut left: Vec<usize> = (0..drawn.len()).collect();
            let picked: Vec<usize> = (0..DRAWN).map(|_| left.swap_remove(r.below(left.len()))).collect();
            let picked: Vec<u8> = picked.into_iter().flat_map(|i| drawn[i].bytes().to_vec()).collect();
            let mut shape = drawn[0].shape().clone();
            shape[0] = DRAWN;
            let picked = Tensor::from_raw(DType::F32, shape, &picked).unwrap();
            let picked = Samples::new(&model, &[(input.clone(), picked)], &[]).unwrap();
            let (plain, done) = made(&path, &QuantizeOptions::default(), Some(&picked));
            let (a, b) = (answers(&session(plain.graph()), &test, 100), answers(&session(&done.graph), &test, 100));
            let top = |v: &[f32]| -> Vec<usize> {
                v.chunks(10).map(|row| (0..10).max_by(|&i, &j| row[i].total_cmp(&row[j])).unwrap()).collect()
            };
            let agreement = top(&a).iter().zip(top(&b)).filter(|(a, b)| **a == *b).count() as f64 / test.len() as f64;
            let db = sqnr_db(&a, &b);
            println!("{name}, draw {draw}: {db:.1} dB (ONNX Runtime {peer_db}), agreement {agreement:.4}");
            assert!(db >= peer_db && agreement >= least_agreement, "{name}: {db} dB, agreement {agreement}");
            assert!(done.layers.iter().all(|l| l.scheme.is_some_and(|s| s != Scheme::Weights)), "{:?}", done.layers);
            if draw == 0 {
                // It refuses layers that share a zero point by channel.
                let file = out.path().join("q.onnx");
                onnx::write(&done.graph, &[], &file).unwrap();
                let sample = test.batches(600).next().unwrap().unwrap().remove(0).1;
                let theirs = in_onnx_runtime(&file, &input, &sample);
                assert!(theirs.is_none_or(|theirs| sqnr_db(&theirs, &b) > 25.0), "{name}");
            }
        }
    }
}
