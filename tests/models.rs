//! The models kept in models/ against ONNX Runtime's outputs, in every way of running them.
#![cfg(feature = "cli")]

use halfbyte::cli::{npz, run};
use halfbyte::device::null::NullDevice;
use halfbyte::graph::{Dim, Port};
use halfbyte::{Model, Options, Precision, Session, Shape, Tensor, TensorView};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MODELS: [&str; 6] = ["digits-cnn", "digits-cnn-qdq", "digits-cnn-qop", "digits-mlp", "ppocr-cls", "basic-pitch"];

fn arrays(name: &str, what: &str) -> Vec<(String, Tensor)> {
    npz::read(Path::new(&format!("models/{name}.{what}.npz"))).unwrap()
}

fn session(name: &str, options: Options) -> Session {
    Session::new(&Model::open(format!("models/{name}.onnx")).unwrap(), options).unwrap()
}

/// Largest difference over the reference's range, and cosine similarity, of the worst output.
fn compare(name: &str, options: Options) -> (f64, f64) {
    let session = session(name, options);
    let inputs = arrays(name, "in");
    let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    let outputs = session.run(&named).unwrap();
    let each = arrays(name, "out").into_iter().map(|(n, want)| {
        let got = outputs.tensor(&n).unwrap();
        assert_eq!(got.shape(), want.shape(), "{name} {n}");
        run::compare(&got.to_f64(), &want.to_f64())
    });
    each.fold((0.0, 1.0), |(e, c), (error, cosine)| (f64::max(e, error), f64::min(c, cosine)))
}

#[test]
fn outputs_agree_with_the_reference_fused_or_not() {
    for name in MODELS {
        for no_optimize in [false, true] {
            let (error, cosine) = compare(name, Options { no_optimize, ..Options::default() });
            let good = if name.contains("-q") { cosine >= 0.999 } else { error <= 1e-3 };
            assert!(good, "{name}, no_optimize {no_optimize}: error {error}, cosine {cosine}");
        }
    }
}

#[test]
fn reduced_precisions_stay_close() {
    for name in ["digits-cnn", "digits-mlp", "ppocr-cls"] {
        let (_, f16) = compare(name, Options { precision: Precision::F16, ..Options::default() });
        let (_, int8) = compare(name, Options { precision: Precision::Int8, ..Options::default() });
        assert!(f16 >= 0.99999 && int8 >= 0.998, "{name}: cosine {f16} in f16, {int8} in int8");
    }
}

#[test]
fn the_report_says_what_a_precision_does_not_cover() {
    let session = session("digits-cnn", Options { precision: Precision::Int8, ..Options::default() });
    let inputs = arrays("digits-cnn", "in");
    session.run(&[("x", inputs[0].1.view())]).unwrap();
    let notes = session.report().notes.join("; ");
    assert!(notes.contains("2 heavy nodes stay"), "{notes}");
}

#[test]
fn answers_do_not_depend_on_the_batch() {
    for precision in [Precision::F32, Precision::Int8] {
        let session = session("digits-mlp", Options { precision, ..Options::default() });
        let rows: Vec<f32> = (0..3 * 64).map(|i| ((i * 7) % 17) as f32 * if i < 64 { 100.0 } else { 0.3 }).collect();
        let run = |n: usize, x: &[f32]| {
            let outputs = session.run(&[("x", TensorView::of([n, 64], x))]).unwrap();
            outputs.values::<f32>("prob").unwrap().into_owned()
        };
        let all = run(3, &rows);
        for (row, want) in rows.chunks(64).zip(all.chunks(10)) {
            assert_eq!(run(1, row), want, "{precision:?}");
        }
    }
}

#[test]
fn a_session_is_shared_between_threads() {
    let session = session("digits-cnn", Options::default());
    let want = arrays("digits-cnn", "out").remove(0).1.to_f64();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let inputs = arrays("digits-cnn", "in");
                    let outputs = session.run(&[("x", inputs[0].1.view())]).unwrap();
                    assert!(run::compare(&outputs.tensor("prob").unwrap().to_f64(), &want).0 < 1e-3);
                }
            });
        }
    });
    assert_eq!(session.report().runs, 80);
}

#[test]
fn wrong_inputs_are_errors_that_say_what_is_wanted() {
    let session = session("digits-mlp", Options::default());
    let image = vec![0f32; 64];
    let say = |name: &str, view| session.run(&[(name, view)]).unwrap_err().to_string();
    assert!(say("y", TensorView::of([1, 64], &image)).contains("it takes x"));
    assert!(say("x", TensorView::of([64], &image)).contains("[batch, 64]"));
    assert!(say("x", TensorView::of([1, 64], &[0i64; 64])).contains("takes f32"));
    assert!(say("x", TensorView::of([2, 64], &image)).contains("bytes"));
    assert!(session.run(&[]).unwrap_err().to_string().contains("missing"));
}

/// Models with an example of their inputs: ours, and those of the zoo beside the repository.
fn examples() -> Vec<(PathBuf, PathBuf)> {
    let own = MODELS.map(|m| (format!("models/{m}.onnx").into(), format!("models/{m}.in.npz").into()));
    let suites = std::env::var("HALFBYTE_SUITES").map(|d| Path::new(&d).join("zoo"));
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/zoo");
    let zoo = suites.ok().into_iter().chain([beside]).find_map(|d| std::fs::read_dir(d).ok());
    if zoo.is_none() {
        println!("SKIP the zoo: neither HALFBYTE_SUITES nor ../shared/zoo has it");
    }
    let of_zoo = zoo.into_iter().flatten().map(|e| e.unwrap().path()).map(|d| (d.join("model.onnx"), d.join("case0.in.npz")));
    own.into_iter().chain(of_zoo.filter(|(model, input)| model.exists() && input.exists())).collect()
}

#[test]
fn no_arena_is_larger_than_what_is_alive_at_one_time() {
    for (model, input) in examples() {
        let at = model.display();
        let model = Model::open(&model).unwrap();
        let inputs = npz::read(&input).unwrap();
        let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
        for no_optimize in [false, true] {
            let device = Arc::new(NullDevice::new(halfbyte::hardware::cpu::info(2)).unwrap());
            let session = Session::with_device(&model, Options { no_optimize, ..Options::default() }, device).unwrap();
            session.run(&named).unwrap();
            let report = session.report();
            println!("{at}: {} bytes, no_optimize {no_optimize}", report.arena_bytes);
            assert_eq!(report.arena_bytes, report.arena_bound_bytes, "{at}, no_optimize {no_optimize}");
        }
    }
}

/// Every model whose batch is open gives each of seven equal requests, run together, the bits that it gives one alone.
#[test]
fn bits_do_not_depend_on_the_batch() {
    const TOGETHER: usize = 7;
    let mut seen = 0;
    for (file, input) in examples() {
        let at = file.display();
        let model = Model::open(&file).unwrap();
        let alone = npz::read(&input).unwrap();
        let is_open = |(_, port): (&str, &Port)| matches!(port.dims.as_ref().and_then(|d| d.first()), Some(Dim::Known(_)) | None);
        let rows = alone.first().and_then(|(_, t)| t.shape().first().copied());
        if model.inputs().any(is_open) || alone.iter().any(|(_, t)| t.shape().first().copied() != rows) {
            println!("{at}: its batch is not open");
            continue;
        }
        let repeated = |t: &Tensor, axis: usize| {
            let mut shape = t.shape().to_vec();
            let piece = t.bytes().len() / shape[..axis].iter().product::<usize>();
            shape[axis] *= TOGETHER;
            let bytes: Vec<u8> = t.bytes().chunks(piece).flat_map(|piece| piece.repeat(TOGETHER)).collect();
            Tensor::from_raw(t.dtype(), Shape::from(&shape[..]), &bytes).unwrap()
        };
        let together: Vec<(String, Tensor)> = alone.iter().map(|(n, t)| (n.clone(), repeated(t, 0))).collect();
        let session = Session::new(&model, Options::default()).unwrap();
        let run = |inputs: &[(String, Tensor)]| {
            let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
            session.run(&named)
        };
        let (one, Ok(many)) = (run(&alone).unwrap(), run(&together)) else {
            println!("{at}: it does not run in batches");
            continue;
        };
        for ((name, one), (_, many)) in one.iter().zip(many.iter()) {
            let axis = one.shape().iter().zip(&many.shape()[..]).position(|(one, many)| one != many);
            let want = axis.map_or(one.clone(), |axis| repeated(one, axis));
            assert!(want == *many, "{at}: {name} depends on the batch");
        }
        println!("{at}: alike");
        seen += 1;
    }
    assert!(seen >= 4, "{seen} models have an open batch");
}
