//! Models end to end on the interpreted device and on shaders, against the outputs kept with them.

use std::path::PathBuf;
use std::sync::Arc;

use halfbyte::cli::{npz, run};
use halfbyte::device::Device;
use halfbyte::{Model, Options, Precision, Session};

/// Runs a model on the interpreted GPU: largest error relative to the reference's range, and cosine, of the worst output.
fn compare(name: &str, gpu: &str, options: Options) -> (f64, f64) {
    let file = |kind: &str| PathBuf::from(format!("models/{name}.{kind}"));
    compare_files(name, [file("onnx"), file("in.npz"), file("out.npz")], gpu, options)
}

/// The same for the files of a model, its inputs and its outputs.
fn compare_files(name: &str, [model, inputs, outputs]: [PathBuf; 3], gpu: &str, options: Options) -> (f64, f64) {
    let (left, error, cosine) = on_device(name, [model, inputs, outputs], Arc::new(super::cuda::device(gpu, 3)), options);
    assert_eq!(left, 0, "{name} on {gpu}: commands left to the CPU");
    (error, cosine)
}

/// On any device: the number of commands that the CPU ran besides, then as above.
pub fn on_device(
    name: &str,
    [model, inputs, outputs]: [PathBuf; 3],
    device: Arc<dyn Device>,
    options: Options,
) -> (usize, f64, f64) {
    let info = device.info().clone();
    let model = Model::open(model).unwrap();
    let session = Session::with_device(&model, options, device).unwrap();
    let inputs = npz::read(&inputs).unwrap();
    let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    let began = std::time::Instant::now();
    let got = session.run(&named).unwrap();
    let report = session.report();
    let left: Vec<_> = report.nodes.iter().filter(|n| n.device != info.kind).map(|n| &n.op).collect();
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{name} {:?} on {}: {} commands, on the CPU {left:?}, {seconds:.1} s",
        report.precision,
        info.name,
        report.nodes.len()
    );
    let each = npz::read(&outputs).unwrap().into_iter().map(|(n, want)| {
        let got = got.tensor(&n).unwrap();
        assert_eq!(got.shape(), want.shape(), "{name} {n}");
        run::compare(&got.to_f64(), &want.to_f64())
    });
    each.fold((left.len(), 0.0, 1.0), |(n, e, c), (error, cosine)| (n, f64::max(e, error), f64::min(c, cosine)))
}

#[test]
fn floats_agree_with_the_reference() {
    for name in ["digits-mlp", "digits-cnn"] {
        for gpu in ["h200", "gtx-1060"] {
            let (error, _) = compare(name, gpu, Options::default());
            assert!(error <= 1e-3, "{name} on {gpu}: error {error}");
        }
    }
}

#[test]
fn a_convolutional_classifier_agrees_with_the_reference() {
    let (error, _) = compare("ppocr-cls", "h200", Options::default());
    assert!(error <= 1e-3, "error {error}");
    let (_, cosine) = compare("ppocr-cls", "a100", Options { precision: Precision::F16, ..Options::default() });
    assert!(cosine >= 0.999, "cosine {cosine} in f16");
}

#[test]
fn quantised_models_agree_with_the_reference() {
    for name in ["digits-cnn-qdq", "digits-cnn-qop"] {
        for gpu in ["h200", "t4"] {
            let (_, cosine) = compare(name, gpu, Options::default());
            assert!(cosine >= 0.999, "{name} on {gpu}: cosine {cosine}");
        }
    }
}

#[test]
fn reduced_precisions_stay_close() {
    for name in ["digits-mlp", "digits-cnn"] {
        for gpu in ["h200", "a100"] {
            let (_, f16) = compare(name, gpu, Options { precision: Precision::F16, ..Options::default() });
            let (_, int8) = compare(name, gpu, Options { precision: Precision::Int8, ..Options::default() });
            assert!(f16 >= 0.99999 && int8 >= 0.998, "{name} on {gpu}: cosine {f16} in f16, {int8} in int8");
        }
    }
}

/// Models of the zoo that take the interpreter seconds: a segmenter of words, a detector of voices, an encoder of sentences.
#[test]
fn models_of_the_zoo_agree_with_the_reference() {
    let Ok(suites) = std::env::var("HALFBYTE_SUITES") else {
        println!("SKIP models of the zoo on the interpreted device: HALFBYTE_SUITES is not set");
        return;
    };
    for (name, least) in
        [("attacut-c", 0.99999), ("silero-vad-ifless", 0.99999), ("minilm-l6-dynint8", 0.99), ("ddddocr-old-int8dyn", 0.99)]
    {
        let files =
            ["model.onnx", "case0.in.npz", "case0.out.npz"].map(|f| PathBuf::from(&suites).join("zoo").join(name).join(f));
        let (error, cosine) = compare_files(name, files, "h200", Options::default());
        println!("{name}: error {error:.1e}, cosine {cosine:.6}");
        assert!(cosine >= least, "{name}: cosine {cosine}");
    }
}
