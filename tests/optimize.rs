//! Optimising within a budget: which layers stay in floats, what is refused, and what the report says.
#![cfg(feature = "cli")]

use std::path::Path;
use std::process::{Command, Output};

use halfbyte::base::xorshift::Xorshift;
use halfbyte::calibrate::Metric;
use halfbyte::cli::npz;
use halfbyte::export::onnx;
use halfbyte::graph::Graph;
use halfbyte::hardware::DeviceKind;
use halfbyte::optimize::budget::{Budget, Found, within_budget};
use halfbyte::optimize::quantize::prepared;
use halfbyte::optimize::{Calibrated, Exam, Labels, QuantizeOptions, Samples};
use halfbyte::{DType, Model, Options, Tensor};

const MLP: &str = "models/digits-mlp.onnx";

/// Random rows with a first value of 0, as digits have it.
fn rows(count: usize) -> Tensor {
    let mut r = Xorshift::new(5);
    let row = |_| std::iter::once(0.0).chain(r.reals(63, 16.0).into_iter().map(f32::abs)).collect::<Vec<f32>>();
    Tensor::new([count, 64], &(0..count).flat_map(row).collect::<Vec<f32>>()).unwrap()
}

fn samples(model: &Model, count: usize) -> Samples {
    let name = model.inputs().next().unwrap().0.to_string();
    Samples::new(model, &[(name, rows(count))], &[]).unwrap()
}

fn cpu() -> Options {
    Options { device: Some(DeviceKind::Cpu), ..Options::default() }
}

/// The model with the weights of the first input, which is always 0, at `weight`: the answers are the same, but a layer whose scales are
/// that large has no digits left for the others. And the layer's name.
fn spoiled(weight: f32) -> (Model, String) {
    let model = prepared(&Model::open(MLP).unwrap()).unwrap();
    let mut graph: Graph = model.graph().clone();
    let node = graph.nodes.iter().find(|n| matches!(n.op.as_str(), "Gemm" | "MatMul")).unwrap().clone();
    let at = node.inputs[1].unwrap();
    let weights = graph.constant(at).unwrap().clone();
    let by_rows = weights.shape()[0] == 64;
    let outputs = weights.numel() / 64;
    let mut values = weights.values::<f32>().unwrap().into_owned();
    (0..outputs).for_each(|m| values[if by_rows { m } else { m * 64 }] = weight);
    graph.values[at.0].constant = Some(Tensor::new(weights.shape().clone(), &values).unwrap());
    (Model::from_graph(graph), node.name)
}

fn found(model: &Model, budget: f64) -> Found {
    let samples = samples(model, 600);
    let exam = Exam::new(model, &samples, Metric::Agreement, None, &cpu()).unwrap();
    let calibrated = Calibrated::new(model, &QuantizeOptions::default(), None, &mut |_, _| ()).unwrap();
    within_budget(&calibrated, &exam, Budget { drop: budget, is_proven: true }, &mut |_, _, _| true).unwrap()
}

#[test]
fn the_layer_that_cannot_be_quantised_is_the_one_that_stays() {
    for (weight, halved) in [(2e4, true), (2e6, false)] {
        let (model, layer) = spoiled(weight);
        let found = found(&model, 0.1);
        assert!(!found.attempts[0].is_within && found.attempts[found.chosen].is_within, "{:?}", found.attempts);
        assert_eq!(found.sensitivities[0].layer, layer, "{:?}", found.sensitivities);
        assert_eq!(found.attempts[found.chosen].kept, std::slice::from_ref(&layer));
        for l in &found.quantized.layers {
            assert_eq!(l.scheme.is_none(), l.name == layer, "{l:?}");
        }
        // What is beyond the largest f16 stays as it is.
        assert_eq!(found.halved, if halved { vec![layer] } else { Vec::new() });
        let stored = |dtype| found.quantized.graph.values.iter().filter_map(|v| v.constant.as_ref()).any(|t| t.dtype() == dtype);
        assert_eq!((stored(DType::F16), stored(DType::I8)), (halved, true));
    }
}

#[test]
fn what_is_asked_to_stop_gives_what_it_has() {
    let (model, _) = spoiled(2e4);
    let samples = samples(&model, 200);
    let exam = Exam::new(&model, &samples, Metric::Agreement, None, &cpu()).unwrap();
    let calibrated = Calibrated::new(&model, &QuantizeOptions::default(), None, &mut |_, _| ()).unwrap();
    let mut left = 3;
    let mut step = |_: &'static str, _, _| {
        left -= 1;
        left > 0
    };
    let found = within_budget(&calibrated, &exam, Budget { drop: 0.1, is_proven: true }, &mut step).unwrap();
    assert!(found.is_stopped && found.sensitivities.len() < found.quantized.layers.len());
    assert_eq!(found.attempts.len(), 1);
}

#[test]
fn labels_follow_their_samples_wherever_those_go() {
    let model = Model::open(MLP).unwrap();
    let all = samples(&model, 101);
    // The model's own answers, out of an exam that takes them for right, are labels of which nothing is wrong.
    let exam = Exam::new(&model, &all, Metric::Agreement, None, &cpu()).unwrap();
    let outputs = exam.outputs(model.graph(), 101).unwrap();
    let top = |row: &[f64]| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap() as i64;
    let classes: Vec<i64> = outputs.iter().flat_map(|t| t.to_f64().chunks(10).map(top).collect::<Vec<_>>()).collect();
    let labels = Labels::new(&Tensor::vector(&classes), 101).unwrap();
    for half in all.halves(9) {
        let exam = Exam::new(&model, &half, Metric::Accuracy, Some(&labels), &cpu()).unwrap();
        assert_eq!(exam.take(model.graph()).unwrap().scores(), [1.0, 1.0]);
        let wrong: Vec<i64> = classes.iter().map(|c| (c + 1) % 10).collect();
        let wrong = Labels::new(&Tensor::vector(&wrong), 101).unwrap();
        let exam = Exam::new(&model, &half, Metric::Accuracy, Some(&wrong), &cpu()).unwrap();
        assert_eq!(exam.take(model.graph()).unwrap().scores(), [0.0, 0.0]);
    }
    assert!(Labels::new(&Tensor::vector(&classes), 100).is_err());
    assert!(Exam::new(&model, &all, Metric::Accuracy, None, &cpu()).is_err());
}

fn optimize(folder: &Path, model: &Path, more: &str) -> Output {
    let [data, out, report] = ["data.npz", "out.onnx", "report.json"].map(|f| folder.join(f).display().to_string());
    let _ = std::fs::remove_file(&out);
    // What is timed differs from call to call.
    let smallest = if more.contains("--timed-batch") { "" } else { "--smallest" };
    let call = format!(
        "optimize {} --calibrate {data} --samples 64 --select {data} --report {report} -o {out} --runs 2 --device cpu {smallest} {more}",
        model.display()
    );
    Command::new(env!("CARGO_BIN_EXE_halfbyte")).args(call.split_whitespace()).output().unwrap()
}

#[test]
fn the_command_writes_the_model_and_a_report_that_says_where_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::open(MLP).unwrap();
    let input = model.inputs().next().unwrap().0.to_string();
    npz::write(&folder.path().join("data.npz"), [(input.as_str(), &rows(900))].into_iter()).unwrap();
    let done = optimize(folder.path(), Path::new(MLP), "--budget 5% --json");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let written = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap()["verdict"], report["verdict"]);
    assert_eq!((&report["is_within"], &report["metric"]), (&true.into(), &"agreement".into()));
    let [choosing, showing] = [1, 2].map(|i| report["data"][i]["samples"].as_u64().unwrap());
    assert_eq!((choosing, showing), (450, 450), "halves of --select");
    assert!(report["test"]["interval95"][1].as_f64().unwrap() <= 0.05);
    assert!(report["after"]["file_bytes"].as_u64() < report["before"]["file_bytes"].as_u64());
    assert!(report["layers"].as_array().unwrap().iter().all(|l| l["stored"] == "i8" && l["multiplications"].as_u64() > Some(0)));
    assert_eq!(report["int8_work"].as_f64(), Some(1.0));
    assert!(report["ways_tried"].as_array().unwrap().len() > 1 && !report["not_run"].as_array().unwrap().is_empty());
    // Of no byte but these.
    let hash = |v: &serde_json::Value| v["sha256"].as_str().unwrap().to_string();
    assert!(hash(&report["model"]) != hash(&report["output"]) && hash(&report["data"][1]) == hash(&report["data"][2]));
    let small = Model::open(folder.path().join("out.onnx")).unwrap();
    let said = small.metadata().iter().find(|(name, _)| name == "halfbyte.source_sha256").unwrap();
    assert_eq!(said.1, hash(&report["model"]));
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains(report["verdict"].as_str().unwrap()) && page.contains(&hash(&report["model"])));
    assert_eq!(page.matches("<svg").count(), 1, "before and after; one choice of layers is no chart");
}

#[test]
fn layers_that_floats_are_faster_for_are_told_and_stay_within_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let input = Model::open(MLP).unwrap().inputs().next().unwrap().0.to_string();
    npz::write(&folder.path().join("data.npz"), [(input.as_str(), &rows(900))].into_iter()).unwrap();
    let done = optimize(folder.path(), Path::new(MLP), "--budget 5% --json --timed-batch 4");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let (tried, layers) = (report["reversions"].as_array().unwrap(), report["layers"].as_array().unwrap());
    assert_eq!(tried[0]["layers"].as_array().unwrap().len(), layers.len(), "all of them first");
    let kept = tried.iter().filter(|t| t["is_kept"] == true);
    let kept: Vec<&serde_json::Value> = kept.flat_map(|t| t["layers"].as_array().unwrap()).collect();
    for l in layers {
        assert_eq!(kept.contains(&&l["name"]), l["stored"] != "i8", "{l}");
        assert_eq!(l["reason"].as_str(), (l["stored"] != "i8").then_some("8 bits are not faster here"), "{l}");
    }
    assert!(report["attempts"].as_array().unwrap().len() <= 2 && report["timed_batch"] == 4);
}

#[test]
fn what_samples_cannot_show_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (model, layer) = spoiled(2e4);
    let input = model.inputs().next().unwrap().0.to_string();
    npz::write(&folder.path().join("data.npz"), [(input.as_str(), &rows(120))].into_iter()).unwrap();
    let file = folder.path().join("spoiled.onnx");
    onnx::write(model.graph(), &[], &file).unwrap();
    // Sixty of each cannot show a point, whatever they answer.
    let few = optimize(folder.path(), &file, "--budget 1%");
    let said = String::from_utf8_lossy(&few.stderr).into_owned();
    assert!(!few.status.success() && said.contains("60 samples") && said.contains("--unproven"), "{said}");
    let none = optimize(folder.path(), &file, "--budget 30% --metric accuracy");
    assert!(String::from_utf8_lossy(&none.stderr).contains("labels"));
    // By the drop alone they suffice, and the report says what that is worth.
    let unproven = optimize(folder.path(), &file, "--budget 1% --unproven");
    let said = String::from_utf8_lossy(&unproven.stdout).into_owned();
    assert!(unproven.status.success() && said.contains("NOT PROVEN"), "{said}");
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 3, "before and after, choices of layers, and layers one by one");
    assert!(folder.path().join("out.onnx").exists() && page.contains(&layer));
}
