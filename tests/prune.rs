//! Pruned models keep their accuracy: trained ones beside the checkout where they are, and small ones of the repository always.
#![cfg(feature = "cli")]

use std::path::Path;

use halfbyte::base::xorshift::Xorshift;
use halfbyte::calibrate::reconstruct::Sparsity;
use halfbyte::cli::npz;
use halfbyte::graph::Dim;
use halfbyte::optimize::blocks::remove_blocks;
use halfbyte::optimize::channels::prune_channels;
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
