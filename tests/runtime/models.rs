//! Small models end to end on the interpreted device, against the outputs kept with them.

use std::sync::Arc;

use halfbyte::cli::{npz, run};
use halfbyte::hardware::DeviceKind;
use halfbyte::{Model, Options, Precision, Session};

/// Runs a model on the interpreted GPU: largest error relative to the reference's range, and cosine, of the worst output.
fn compare(name: &str, gpu: &str, options: Options) -> (f64, f64) {
    let device = Arc::new(super::cuda::device(gpu, 3));
    let model = Model::open(format!("models/{name}.onnx")).unwrap();
    let session = Session::with_device(&model, options, device).unwrap();
    let inputs = npz::read(format!("models/{name}.in.npz").as_ref()).unwrap();
    let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    let began = std::time::Instant::now();
    let outputs = session.run(&named).unwrap();
    let report = session.report();
    let there = report.nodes.iter().filter(|n| n.device == DeviceKind::Cuda).count();
    let seconds = began.elapsed().as_secs_f64();
    println!("{name} {:?} on {gpu}: {there} of {} commands there, {seconds:.1} s", report.precision, report.nodes.len());
    let each = npz::read(format!("models/{name}.out.npz").as_ref()).unwrap().into_iter().map(|(n, want)| {
        let got = outputs.tensor(&n).unwrap();
        assert_eq!(got.shape(), want.shape(), "{name} {n}");
        run::compare(&got.to_f64(), &want.to_f64())
    });
    each.fold((0.0, 1.0), |(e, c), (error, cosine)| (f64::max(e, error), f64::min(c, cosine)))
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
