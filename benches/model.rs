//! `cargo bench --bench model`: whole models in each precision.

use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use halfbyte::cli::npz;
use halfbyte::{Model, Options, Precision, Session};

fn models(c: &mut Criterion) {
    for name in ["digits-cnn", "digits-mlp", "ppocr-cls", "basic-pitch"] {
        let mut group = c.benchmark_group(name);
        let inputs = npz::read(Path::new(&format!("models/{name}.in.npz"))).expect("invariant: the models are kept here");
        let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
        let model = Model::open(format!("models/{name}.onnx")).expect("invariant: the models are kept here");
        for precision in [Precision::F32, Precision::F16, Precision::Int8] {
            let session = Session::new(&model, Options { precision, ..Options::default() }).expect("invariant: supported");
            group.bench_function(format!("{precision:?}"), |b| b.iter(|| session.run(&named)));
        }
        group.finish();
    }
}

criterion_group!(benches, models);
criterion_main!(benches);
