//! Models that are written, read again, and compared: here, and in ONNX Runtime where there is one.
#![cfg(feature = "cli")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use halfbyte::base::xorshift::Xorshift;
use halfbyte::calibrate::compare::Difference;
use halfbyte::calibrate::low_rank::product;
use halfbyte::cli::npz;
use halfbyte::export::onnx;
use halfbyte::hardware::DeviceKind;
use halfbyte::optimize::halve_within;
use halfbyte::pass::adapted::attach;
use halfbyte::pass::lora::{Adapter, merge, targets};
use halfbyte::{DType, Model, Options, Precision, Session, Shape, Tensor};

/// A model with inputs.
struct Case {
    name: String,
    model: PathBuf,
    inputs: PathBuf,
}

/// Those of models/, and the zoo's where `HALFBYTE_SUITES` says where it is.
fn cases() -> Vec<Case> {
    let files = |folder: &Path| {
        let mut all: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
        all.sort();
        all
    };
    let here = files(Path::new("models")).into_iter().filter(|p| p.extension().is_some_and(|e| e == "onnx"));
    let mut all: Vec<Case> = here.map(|model| case(model.clone(), model.with_extension("in.npz"))).collect();
    let Ok(suites) = std::env::var("HALFBYTE_SUITES") else {
        println!("SKIP the zoo: HALFBYTE_SUITES is not set, see scripts/test");
        return all;
    };
    let zoo = files(&Path::new(&suites).join("zoo")).into_iter().filter(|f| f.join("model.onnx").exists());
    all.extend(zoo.map(|folder| case(folder.join("model.onnx"), folder.join("case0.in.npz"))));
    all
}

fn case(model: PathBuf, inputs: PathBuf) -> Case {
    Case { name: halfbyte::session::model_name(&model), model, inputs }
}

fn outputs(model: &Path, inputs: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    outputs_in(Precision::F32, model, inputs)
}

fn outputs_in(precision: Precision, model: &Path, inputs: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    let options = Options { device: Some(DeviceKind::Cpu), threads: Some(1), precision, strict: true, ..Options::default() };
    let session = Session::new(&Model::open(model).unwrap(), options).unwrap();
    let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    let done = session.run(&named).unwrap();
    done.iter().map(|(n, t)| (n.to_string(), t.clone())).collect()
}

/// The largest difference between each pair's outputs in ONNX Runtime; `None` where there is none.
fn in_onnx_runtime(pairs: &[(PathBuf, PathBuf, PathBuf)]) -> Option<Vec<String>> {
    let Ok(suites) = std::env::var("HALFBYTE_SUITES") else {
        println!("SKIP ONNX Runtime: HALFBYTE_SUITES is not set, see scripts/test");
        return None;
    };
    let mut command = Command::new(format!("{suites}/venv/bin/python"));
    command.args(["-c", include_str!("ort_same.py")]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("invariant: the suite's Python runs");
    let lines: String = pairs.iter().map(|(a, b, i)| format!("{}\t{}\t{}\n", a.display(), b.display(), i.display())).collect();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let said = child.wait_with_output().unwrap();
    assert!(said.status.success());
    let said: Vec<String> = String::from_utf8_lossy(&said.stdout).lines().map(str::to_string).collect();
    assert_eq!(said.len(), pairs.len());
    Some(said)
}

fn same(name: &str, a: &[(String, Tensor)], b: &[(String, Tensor)]) {
    assert_eq!(a.iter().map(|(n, _)| n).collect::<Vec<_>>(), b.iter().map(|(n, _)| n).collect::<Vec<_>>(), "{name}");
    a.iter().zip(b).for_each(|((n, a), (_, b))| assert!(a == b, "{name}: {n} differs"));
}

#[test]
fn every_model_answers_alike_after_writing() {
    let folder = tempfile::tempdir().unwrap();
    let mut pairs = Vec::new();
    for Case { name, model, inputs } in cases() {
        let loaded = Model::open(&model).unwrap();
        let written = folder.path().join(format!("{name}.onnx"));
        onnx::write(loaded.graph(), loaded.metadata(), &written).unwrap_or_else(|e| panic!("{name}: {e}"));
        let again = Model::open(&written).unwrap();
        assert_eq!(again.metadata(), loaded.metadata());
        assert_eq!(
            onnx::to_bytes(again.graph(), again.metadata()).unwrap(),
            std::fs::read(&written).unwrap(),
            "{name}: a fixed point"
        );
        let given = npz::read(&inputs).unwrap();
        same(&name, &outputs(&model, &given), &outputs(&written, &given));
        pairs.push((model, written, inputs));
    }
    let Some(differences) = in_onnx_runtime(&pairs) else { return };
    for ((model, ..), difference) in pairs.iter().zip(differences) {
        println!("{}: {difference}", model.display());
        assert!(difference.parse::<f64>().is_ok_and(|d| d <= 1e-6), "{}: {difference}", model.display());
    }
}

#[test]
fn weights_may_lie_beside_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let mut pairs = Vec::new();
    for name in ["digits-cnn", "digits-cnn-qdq", "ppocr-cls"] {
        let [model, inputs] = ["onnx", "in.npz"].map(|e| PathBuf::from(format!("models/{name}.{e}")));
        let written = folder.path().join(format!("{name}.onnx"));
        let loaded = Model::open(&model).unwrap();
        onnx::write_external(loaded.graph(), &[], &written).unwrap();
        let [main, beside] =
            ["onnx", "onnx.data"].map(|e| std::fs::metadata(folder.path().join(format!("{name}.{e}"))).unwrap().len());
        assert!(
            main < std::fs::metadata(&model).unwrap().len() && beside > main && beside.is_multiple_of(4096),
            "{main}, {beside}"
        );
        let given = npz::read(&inputs).unwrap();
        same(name, &outputs(&model, &given), &outputs(&written, &given));
        // Over itself, while its weights are mapped.
        let mapped = Model::open(&written).unwrap();
        onnx::write_external(mapped.graph(), &[], &written).unwrap();
        same(name, &outputs(&model, &given), &outputs(&written, &given));
        pairs.push((model, written, inputs));
    }
    for difference in in_onnx_runtime(&pairs).into_iter().flatten() {
        assert_eq!(difference, "0.0");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 6, "nothing is left aside");
}

#[test]
fn a_write_that_fails_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let model = Model::open("models/digits-mlp.onnx").unwrap();
    onnx::write(model.graph(), &[], &path).unwrap();
    let before = std::fs::read(&path).unwrap();
    let mut broken = model.graph().clone();
    broken.nodes.pop();
    assert!(onnx::write(&broken, &[], &path).is_err());
    assert!(onnx::write(model.graph(), &[], folder.path().join("no-such-folder/m.onnx")).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// Float models: those above, and the trained ones of ../shared/quant on 16 samples of their test data, which go to `folder`.
fn float_cases(folder: &Path) -> Vec<Case> {
    let mut all: Vec<Case> =
        cases().into_iter().filter(|c| !["qdq", "qop", "int8"].iter().any(|word| c.name.contains(word))).collect();
    for name in ["digits_cnn", "digits_mlp", "mnist_resnet", "mnist_mbv2", "mnist_vit"] {
        let trained = Path::new("../shared/quant").join(name);
        let Ok(arrays) = npz::read(&trained.join("data.npz")) else {
            println!("SKIP {}: not there", trained.display());
            continue;
        };
        let test = &arrays.iter().find(|(n, _)| n == "test").unwrap().1;
        let mut shape = test.shape().to_vec();
        let each = test.bytes().len() / shape[0];
        shape[0] = 16;
        let samples = Tensor::from_raw(test.dtype(), Shape::from(&shape[..]), &test.bytes()[..16 * each]).unwrap();
        let (model, inputs) = (trained.join("model.onnx"), folder.join(format!("{name}.npz")));
        let input = Model::open(&model).unwrap().inputs().next().unwrap().0.to_string();
        npz::write(&inputs, [(input.as_str(), &samples)].into_iter()).unwrap();
        all.push(case(model, inputs));
    }
    all
}

/// The worst output's largest difference over its range, and signal to noise.
fn difference(a: &[(String, Tensor)], b: &[(String, Tensor)]) -> (f64, f64) {
    let each = a.iter().zip(b).map(|((_, a), (_, b))| {
        let mut d = Difference::default();
        d.add(&a.to_f64(), &b.to_f64(), 0);
        (d.max_relative(), d.sqnr_db())
    });
    each.fold((0.0, f64::INFINITY), |(e, s), (error, sqnr)| (f64::max(e, error), f64::min(s, sqnr)))
}

#[test]
fn weights_of_half_the_size_give_the_same_answers_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    for (stored, most) in [(DType::F16, 1e-3), (DType::BF16, 2e-2)] {
        let (mut pairs, mut limits) = (Vec::new(), Vec::new());
        for Case { name, model, inputs } in float_cases(folder.path()) {
            // Maps of pixels that a steep sigmoid makes: those on edges jump.
            let most = if name.ends_with("det") { 0.1 } else { most };
            // bf16 moves large models so far that all weights would be tried one by one.
            if stored == DType::BF16 && !name.contains("digits") && !name.contains("mnist") {
                continue;
            }
            let (loaded, given) = (Model::open(&model).unwrap(), npz::read(&inputs).unwrap());
            let options = Options { device: Some(DeviceKind::Cpu), ..Options::default() };
            let within = halve_within(&loaded, stored, std::slice::from_ref(&given), most, &options, &mut |_, _| ()).unwrap();
            let (graph, done) = (within.graph, within.weights);
            let written = folder.path().join(format!("{name}-{stored}.onnx"));
            onnx::write(&graph, loaded.metadata(), &written).unwrap_or_else(|e| panic!("{name}: {e}"));
            let ratio = done.bytes_before as f64 / done.bytes_after as f64;
            let before = outputs(&model, &given);
            let (error, sqnr) = difference(&before, &outputs(&written, &given));
            let (all, subnormal, zeroed) = (done.converted.len() + done.kept.len(), done.subnormal, done.zeroed);
            println!(
                "{name} {stored}: {} of {all}, {ratio:.3} x smaller, {error:.1e} of the range, {sqnr:.1} dB, {subnormal} subnormal, {zeroed} 0",
                done.converted.len()
            );
            assert!(error <= most, "{name}: {error}");
            assert!(ratio >= 1.9 || !done.kept.is_empty(), "{name}: {done:?}");
            if stored == DType::F16 {
                let reduced = outputs_in(Precision::F16, &written, &given);
                let (error, _) = difference(&outputs_in(Precision::F16, &model, &given), &reduced);
                assert!(
                    error <= 10.0 * most,
                    "{name}: f16 weights rounded once more where factors are folded into them, {error}"
                );
            }
            pairs.push((model, written, inputs));
            limits.push(most);
        }
        for (((_, written, _), most), difference) in pairs.iter().zip(limits).zip(in_onnx_runtime(&pairs).into_iter().flatten()) {
            println!("ONNX Runtime, {}: {difference}", written.display());
            assert!(difference.parse::<f64>().is_ok_and(|d| d <= most), "{}: {difference}", written.display());
        }
    }
}

#[test]
fn adapters_beside_weights_are_standard_operators() {
    let folder = tempfile::tempdir().unwrap();
    let base = Model::open("models/digits-mlp.onnx").unwrap();
    let mut random = Xorshift::new(3);
    let mut adapter = |target: &str, k: usize, rows: usize, rank: usize| {
        let (a, b) = (random.reals(rank * k, 0.3), random.reals(rows * rank, 0.3));
        Adapter { target: target.into(), a, b, rank, scale: 2.0 }
    };
    let sets = [vec![adapter("W0", 64, 128, 4), adapter("W1", 128, 64, 2)], vec![adapter("W1", 128, 64, 7)]];
    let (mut merged, mut beside) = (base.graph().clone(), base.graph().clone());
    for (adapter, layer) in sets[1].iter().zip(targets(&merged, &sets[1]).unwrap()) {
        merge(&mut merged, &layer, &product(&adapter.a, &adapter.b, adapter.rank), adapter.scale).unwrap();
    }
    attach(&mut beside, &sets, "adapter").unwrap();
    let [base, merged, beside] = [("base", base.graph()), ("merged", &merged), ("beside", &beside)].map(|(name, graph)| {
        let file = folder.path().join(format!("{name}.onnx"));
        onnx::write(graph, &[], &file).unwrap();
        file
    });
    let x = npz::read(Path::new("models/digits-mlp.in.npz")).unwrap().remove(0).1;
    let pairs = [(base, -1i32), (merged, 1)].map(|(plain, number)| {
        let numbers = Tensor::vector(&vec![number; x.shape()[0]]);
        let inputs = folder.path().join(format!("{number}.npz"));
        npz::write(&inputs, [("x", &x), ("adapter", &numbers)].into_iter()).unwrap();
        (plain, beside.clone(), inputs)
    });
    for difference in in_onnx_runtime(&pairs).into_iter().flatten() {
        assert!(difference.parse::<f64>().is_ok_and(|d| d <= 1e-5), "{difference}");
    }
}
