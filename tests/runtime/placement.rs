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

#[test]
fn elementwise_operators_write_over_their_dying_operand() {
    let mut d = Draft::default();
    let x = d.input("x", DType::F32);
    let row = d.constant(Tensor::vector(&[0.5f32, -1.0, 2.0]));
    let sum = d.node("Add", &[x, row], &[]);
    let exp = d.node("Exp", &[sum], &[]);
    let least = d.node("Sub", &[row, exp], &[]);
    let y = d.node("Tanh", &[least], &[]);
    let model = d.model(&[y]);
    let options = || Options { no_optimize: true, ..Options::default() };
    for rows in [1usize, 37, 1000] {
        let values: Vec<f32> = (0..rows * 3).map(|i| (i % 97) as f32 / 50.0 - 1.0).collect();
        let x = [("x", TensorView::of([rows, 3], &values))];
        let want = Session::new(&model, options()).unwrap().run(&x).unwrap();
        let session = Session::with_device(&model, options(), Arc::new(super::cuda::device("h200", 1))).unwrap();
        let got = session.run(&x).unwrap();
        let [got, want] = [got, want].map(|o| o.iter().next().unwrap().1.to_f64());
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 1e-6), "{rows}");
        let one = (rows * 12).next_multiple_of(64);
        assert_eq!(session.report().arena_bound_bytes, one, "{rows}: all three in one place");
    }
}
