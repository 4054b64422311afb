//! `cargo bench --bench model`: whole models in each precision, on all cores.

mod measure;

use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use halfbyte::cli::npz;
use halfbyte::hardware::DeviceKind;
use halfbyte::{Model, Options, Precision, Session};

fn models(c: &mut Criterion) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let peaks = measure::peaks(threads);
    for name in ["digits-cnn", "digits-mlp", "ppocr-cls", "basic-pitch"] {
        let mut group = c.benchmark_group(name);
        let inputs = npz::read(Path::new(&format!("models/{name}.in.npz"))).expect("invariant: the models are kept here");
        let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
        let model = Model::open(format!("models/{name}.onnx")).expect("invariant: the models are kept here");
        for precision in [Precision::F32, Precision::F16, Precision::Int8] {
            let options = Options { device: Some(DeviceKind::Cpu), precision, threads: Some(threads), ..Options::default() };
            let session = Session::new(&model, options).expect("invariant: the models are supported");
            measure::runs(&mut group, &format!("{precision:?}").to_lowercase(), &session, &named, &peaks);
        }
        group.finish();
    }
}

criterion_group! { name = benches; config = measure::brief(); targets = models }
criterion_main!(benches);
