//! What the device has no kernel for runs on the CPU, and the report says so.

use std::sync::Arc;

use halfbyte::graph::Attr;
use halfbyte::hardware::DeviceKind;
use halfbyte::{DType, Error, Model, Options, Session, Tensor, TensorView};

use super::draft::Draft;

/// relu(mean of 2 x along rows) with the mean in 64-bit integers, which no GPU kernel takes.
fn means() -> Model {
    let mut d = Draft::default();
    let x = d.input("x", DType::F32);
    let doubled = d.node("Add", &[x, x], &[]);
    let wide = d.node("Cast", &[doubled], &[("to", Attr::Int(7))]);
    let axes = d.constant(Tensor::new([1], &[1i64]).unwrap());
    let y = d.node("ReduceMean", &[wide, axes], &[]);
    let narrow = d.node("Cast", &[y], &[("to", Attr::Int(1))]);
    let soft = d.node("Relu", &[narrow], &[]);
    d.model(&[soft])
}

fn session(options: Options) -> Session {
    Session::with_device(&means(), options, Arc::new(super::cuda::device("h200", 1))).unwrap()
}

const X: [f32; 6] = [1.0, 2.0, 3.0, -1.0, 0.5, 2.0];

#[test]
fn a_mean_without_a_kernel_runs_on_the_cpu_between_launches() {
    let session = session(Options { no_optimize: true, ..Options::default() });
    let outputs = session.run(&[("x", TensorView::of([2, 3], &X))]).unwrap();
    let (_, got) = outputs.iter().next().unwrap();
    assert_eq!(got.to_f64(), [4.0, 1.0]);
    let report = session.report();
    let on_cpu: Vec<_> = report.nodes.iter().filter(|n| n.device == DeviceKind::Cpu).map(|n| n.op.as_str()).collect();
    assert_eq!((report.cpu_segments, &on_cpu[..]), (1, &["ReduceMean"][..]), "{report:?}");
    assert!(report.nodes.iter().filter(|n| n.device == DeviceKind::Cuda).count() >= 3);
    let note = report.notes.iter().find(|n| n.contains("run on the CPU")).expect("a note");
    assert!(note.starts_with("1 of") && note.contains("in 1 segment") && note.contains("ReduceMean"), "{note}");
}

#[test]
fn strict_refuses_to_leave_the_device() {
    let session = session(Options { strict: true, ..Options::default() });
    let error = session.run(&[("x", TensorView::of([2, 3], &X))]).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { at, .. } if at.contains("ReduceMean")), "{error}");
}
