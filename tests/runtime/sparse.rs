//! Pruned models on the interpreted GPU: products leave zeros out, and the report says why where they do not.

use std::sync::Arc;

use halfbyte::base::xorshift::Xorshift;
use halfbyte::calibrate::reconstruct::Sparsity;
use halfbyte::cli::bench_gemm::product;
use halfbyte::optimize::Samples;
use halfbyte::optimize::prune::{Pruning, prune};
use halfbyte::session::Report;
use halfbyte::{DType, Model, Options, Precision, Session, Tensor};

/// The outputs of a run on a GPU, and what was said of it.
fn run(model: &Model, inputs: &[(&str, &Tensor)], gpu: &str, options: Options) -> (Vec<u8>, Vec<f64>, Report) {
    let session = Session::with_device(model, options, Arc::new(super::cuda::device(gpu, 3))).unwrap();
    let views: Vec<_> = inputs.iter().map(|(name, t)| (*name, t.view())).collect();
    let outputs = session.run(&views).unwrap();
    let first = outputs.iter().next().unwrap().1;
    (first.bytes().to_vec(), first.to_f64(), session.report())
}

/// The kernels of the products.
fn products(report: &Report) -> Vec<&str> {
    report.nodes.iter().filter(|n| n.op.contains("Linear") || n.op.contains("Gemm")).map(|n| &n.kernel[..]).collect()
}

fn options(precision: Precision, kernel: Option<&str>) -> Options {
    Options { precision, kernel: kernel.map(String::from), ..Options::default() }
}

#[test]
fn a_pruned_model_leaves_zeros_out() {
    let model = Model::open("models/digits-mlp.onnx").unwrap();
    let name = model.inputs().next().unwrap().0.to_string();
    let x = Xorshift::new(1).fill(DType::F32, [24, 64]).unwrap();
    let samples = Samples::new(&model, &[(name.clone(), x.clone())], &[]).unwrap();
    let how = Pruning { sparsity: Sparsity::TwoOfFour, ends: true, ..Pruning::default() };
    let pruned = prune(&model, &samples, &how, |_, _| {}).unwrap().model;
    let inputs = [(&name[..], &x)];
    for (precision, dense) in [(Precision::F16, "cuda-sm80-half"), (Precision::Int8, "cuda-sm80-int8")] {
        let (bytes, values, report) = run(&pruned, &inputs, "a100", options(precision, None));
        let kernels = products(&report);
        println!("{precision:?}: {kernels:?}");
        assert!(kernels.len() >= 2 && kernels.iter().all(|k| k.contains("-sparse-")), "{kernels:?}");
        assert!(report.nodes.iter().all(|n| n.dense.is_none()) && !report.notes.iter().any(|n| n.contains("zero")));

        let (dense_bytes, dense_values, report) = run(&pruned, &inputs, "a100", options(precision, Some(dense)));
        assert!(products(&report).iter().all(|k| k.contains(dense)), "{:?}", products(&report));
        let why: Vec<&str> = report.nodes.iter().filter_map(|n| n.dense.as_deref()).collect();
        assert!(why.len() == kernels.len() && why.iter().all(|w| w.contains("another kernel was asked for")), "{why:?}");
        let most = dense_values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        let error = values.iter().zip(&dense_values).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
        assert!(error <= 1e-3 * most, "{precision:?}: {error} of {most}");
        assert!(precision != Precision::Int8 || bytes == dense_bytes, "integer sums are exact");

        let (_, old, report) = run(&pruned, &inputs, "t4", options(precision, None));
        assert!(
            report.notes.iter().any(|n| n.contains("two in every four are zero") && n.contains("mma-sp")),
            "{:?}",
            report.notes
        );
        assert!(old.iter().zip(&dense_values).all(|(a, b)| (a - b).abs() <= 0.02 * most));
        // The model as it was has nothing to leave out, and nothing to be said.
        let (_, _, report) = run(&model, &inputs, "a100", options(precision, None));
        assert!(products(&report).iter().all(|k| !k.contains("-sparse-")) && report.nodes.iter().all(|n| n.dense.is_none()));
    }
}

/// 9/16 of the bytes of f16, 5/8 of those of int8, beside a few blocks more and the sums of columns.
#[test]
fn sparse_weights_take_little_more_than_half() {
    for (types, share) in [((DType::F16, DType::F16), 9.0 / 16.0), ((DType::I8, DType::I8), 5.0 / 8.0)] {
        let (model, a) = product(types, [2, 512, 2048], true).unwrap();
        let held = |kernel: &str| {
            let (_, values, report) = run(&model, &[("a", &a)], "a100", options(Precision::F32, Some(kernel)));
            assert!(report.nodes[0].kernel.contains(kernel), "{}", report.nodes[0].kernel);
            // Without the file's own.
            (report.weight_bytes - 512 * 2048 * types.1.size_bytes(), values)
        };
        let ((sparse, got), (dense, want)) = (held("-sparse-"), held(if types.0.is_float() { "sm80-half" } else { "sm80-int8" }));
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 1e-2 * b.abs().max(1.0)));
        let found = sparse as f64 / dense as f64;
        assert!((found - share).abs() < 0.02, "{types:?}: {found:.3} of the dense bytes");
    }
}
