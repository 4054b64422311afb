//! Planning and running of small graphs made in memory: shapes that depend on data, control flow, caches, the null device.

use std::sync::Arc;

use halfbyte::base::xorshift::Xorshift;
use halfbyte::device::{Device, cpu::CpuDevice, null::NullDevice};
use halfbyte::export::onnx;
use halfbyte::graph::{Attr, Attrs, Graph, Node, Port, ValueId};
use halfbyte::hardware::DeviceKind;
use halfbyte::{DType, Model, Options, Precision, Session, Tensor, TensorView};

/// A graph under construction.
#[derive(Default)]
struct Draft(Graph);

impl Draft {
    fn input(&mut self, name: &str, dtype: DType) -> ValueId {
        let value = self.0.add_value(name, None);
        self.0.inputs.push(Port { value, dtype: Some(dtype), dims: None });
        value
    }

    fn constant(&mut self, tensor: Tensor) -> ValueId {
        let name = format!("c{}", self.0.values.len());
        self.0.add_value(name, Some(tensor))
    }

    fn node(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
        let name = format!("{op}{}", self.0.nodes.len());
        let out = self.0.add_value(format!("{name}.out"), None);
        let attrs: Attrs = attrs.iter().map(|(n, a)| (n.to_string(), a.clone())).collect();
        let inputs = inputs.iter().copied().map(Some).collect();
        self.0.nodes.push(Node { name, attrs, ..Node::new("", op, 18, inputs, vec![Some(out)]) });
        out
    }

    fn output(&mut self, value: ValueId) {
        self.0.outputs.push(Port { value, dtype: None, dims: None });
    }

    fn capture(&mut self, outer: ValueId, name: &str) -> ValueId {
        let own = self.0.add_value(name, None);
        self.0.captures.push((outer, own));
        own
    }

    fn session(self) -> Session {
        Session::new(&Model::from_graph(self.0), Options::default()).unwrap()
    }
}

fn first(session: &Session, inputs: &[(&str, TensorView)]) -> Vec<f64> {
    let outputs = session.run(inputs).unwrap();
    let (_, tensor) = outputs.iter().next().unwrap();
    tensor.to_f64()
}

/// relu(x), the positions of what is left, and x gathered there plus relu(x)'s sum: work before and after the unknown shape.
fn positives() -> Draft {
    let mut d = Draft::default();
    let x = d.input("x", DType::F32);
    let relu = d.node("Relu", &[x], &[]);
    let sum = d.node("ReduceSum", &[relu], &[("keepdims", Attr::Int(0))]);
    let places = d.node("NonZero", &[relu], &[]);
    let axes = d.constant(Tensor::vector(&[0i64]));
    let flat = d.node("Squeeze", &[places, axes], &[]);
    let kept = d.node("Gather", &[x, flat], &[]);
    let out = d.node("Add", &[kept, sum], &[]);
    d.output(out);
    d
}

#[test]
fn shapes_that_depend_on_data_are_planned_when_the_data_are_there() {
    let session = positives().session();
    for _ in 0..2 {
        assert_eq!(first(&session, &[("x", TensorView::of([4], &[1f32, -2.0, 3.0, -4.0]))]), [5.0, 7.0]);
        assert_eq!(first(&session, &[("x", TensorView::of([4], &[-1f32, -2.0, -3.0, 8.0]))]), [16.0]);
        assert!(first(&session, &[("x", TensorView::of([2], &[-1f32, -2.0]))]).is_empty());
    }
    // For each shape the plan up to the unknown, and for each set of values the rest.
    assert_eq!(session.report().plans, 5);
}

fn branch(capture: ValueId, op: &str) -> Attr {
    let mut d = Draft::default();
    let x = d.capture(capture, "x");
    let y = d.node(op, &[x], &[]);
    d.output(y);
    Attr::Graph(Box::new(d.0))
}

#[test]
fn if_takes_the_branch_that_the_data_say() {
    let mut d = Draft::default();
    let (x, c) = (d.input("x", DType::F32), d.input("c", DType::Bool));
    let y = d.node("Neg", &[x], &[]);
    let out = d.node("If", &[c], &[("then_branch", branch(y, "Abs")), ("else_branch", branch(y, "Exp"))]);
    d.output(out);
    let session = d.session();
    let run = |c: u8| {
        let condition = [c];
        let flag = TensorView::new(DType::Bool, [].into(), &condition);
        first(&session, &[("x", TensorView::of([1], &[3f32])), ("c", flag)])
    };
    assert_eq!(run(1), [3.0]);
    assert!((run(0)[0] - (-3f64).exp()).abs() < 1e-7);
}

#[test]
fn loops_carry_values_and_stack_what_they_scan() {
    let mut outer = Draft::default();
    let (trips, start) = (outer.input("trips", DType::I64), outer.input("start", DType::F32));
    let mut body = Draft::default();
    let _ = body.input("i", DType::I64);
    let going = body.input("going", DType::Bool);
    let state = body.input("state", DType::F32);
    let doubled = body.node("Add", &[state, state], &[]);
    body.output(going);
    body.output(doubled);
    body.output(state);
    let always = outer.constant(Tensor::from_raw(DType::Bool, [].into(), &[1]).unwrap());
    outer.node("Loop", &[trips, always, start], &[("body", Attr::Graph(Box::new(body.0)))]);
    let node = outer.0.nodes.pop().unwrap();
    let scan = outer.0.add_value("scan", None);
    let last = node.outputs[0];
    outer.0.nodes.push(Node { outputs: vec![last, Some(scan)], ..node });
    outer.output(last.unwrap());
    outer.output(scan);
    let session = outer.session();
    for n in [3i64, 0, 5] {
        let trips = [n];
        let outputs = session.run(&[("trips", TensorView::of([], &trips)), ("start", TensorView::of([1], &[1.5f32]))]).unwrap();
        let got: Vec<Vec<f64>> = outputs.iter().map(|(_, t)| t.to_f64()).collect();
        assert_eq!(got[0], [1.5 * f64::powi(2.0, n as i32)]);
        assert_eq!(got[1], (0..n).map(|i| 1.5 * f64::powi(2.0, i as i32)).collect::<Vec<_>>());
    }
}

/// tanh(bias - exp(x)) with a bias of the last axis, and the same times itself.
fn elementwise(shape: &[usize]) -> Draft {
    let mut d = Draft::default();
    let x = d.input("x", DType::F32);
    let bias: Vec<f32> = (0..shape[shape.len() - 1]).map(|i| i as f32 / 100.0).collect();
    let bias = d.constant(Tensor::vector(&bias));
    let exp = d.node("Exp", &[x], &[]);
    let sub = d.node("Sub", &[bias, exp], &[]);
    let tanh = d.node("Tanh", &[sub], &[]);
    let square = d.node("Mul", &[tanh, tanh], &[]);
    let out = d.node("Neg", &[square], &[]);
    d.output(out);
    d
}

#[test]
fn elementwise_operators_write_over_their_dying_operand() {
    for shape in [&[40usize, 3][..], &[5, 3000], &[100_000]] {
        let n: usize = shape.iter().product();
        let x: Vec<f32> = (0..n).map(|i| (i % 97) as f32 / 50.0 - 1.0).collect();
        let x = [("x", TensorView::of(shape, &x))];
        let model = Model::from_graph(elementwise(shape).0);
        let apart = Session::new(&model, Options { no_optimize: true, ..Options::default() }).unwrap();
        let fused = Session::new(&model, Options::default()).unwrap();
        let [got, want] = [&apart, &fused].map(|s| first(s, &x));
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 1e-6), "{shape:?}");
        // The square reads its operand twice, and so needs another place for its result.
        let report = apart.report();
        assert_eq!(report.nodes.len(), 5);
        assert_eq!(report.arena_bytes, 2 * (4 * n).next_multiple_of(64), "{shape:?}");
    }
}

#[test]
fn the_null_device_charges_what_the_chooser_predicts() {
    let model = Model::open("models/digits-mlp.onnx").unwrap();
    let device = Arc::new(NullDevice::new(halfbyte::hardware::cpu::info(1)).unwrap());
    let session = Session::with_device(&model, Options { profile: true, ..Options::default() }, device.clone()).unwrap();
    let image = [0f32; 64];
    for run in 1..=3 {
        session.run(&[("x", TensorView::of([1, 64], &image))]).unwrap();
        let predicted: f64 = session.report().nodes.iter().map(|n| n.predicted_us).sum();
        assert!((device.clock_us() - f64::from(run) * predicted).abs() < 1e-6);
    }
    assert_eq!(session.report().plans, 1);
    assert_eq!(device.reserved_bytes(), session.report().arena_bytes as u64, "one arena, used again");
}

#[test]
fn plans_share_an_arena_as_large_as_the_largest_and_the_end_gives_it_back() {
    let model = Model::open("models/digits-mlp.onnx").unwrap();
    let device = Arc::new(NullDevice::new(halfbyte::hardware::cpu::info(1)).unwrap());
    let session = Session::with_device(&model, Options::default(), device.clone()).unwrap();
    let images = vec![0f32; 100 * 64];
    let mut most = 0;
    for n in (1..=100).map(|i| 1 + i * 37 % 100) {
        session.run(&[("x", TensorView::of([n, 64], &images[..n * 64]))]).unwrap();
        most = most.max(session.report().arena_bytes as u64);
        assert_eq!(device.reserved_bytes(), most, "{n}");
    }
    assert!(session.report().plans < 100, "the cache is bounded");
    drop(session);
    assert_eq!(device.reserved_bytes(), 0);
}

#[test]
fn plans_give_up_idle_arenas_where_another_needs_the_room() {
    let model = Model::open("models/digits-mlp.onnx").unwrap();
    let images = vec![0f32; 2000 * 64];
    let run = |session: &Session, n: usize| session.run(&[("x", TensorView::of([n, 64], &images[..n * 64]))]).map(drop);
    let arena_bytes = {
        let session = Session::with_device(&model, Options::default(), Arc::new(CpuDevice::new(Some(1)).unwrap())).unwrap();
        run(&session, 2000).unwrap();
        session.report().arena_bytes as u64
    };
    // Room for one of them, not for two.
    let info = halfbyte::hardware::DeviceInfo { memory_bytes: arena_bytes * 3 / 2, ..halfbyte::hardware::cpu::info(1) };
    let device = Arc::new(NullDevice::new(info).unwrap());
    let session = Session::with_device(&model, Options::default(), device.clone()).unwrap();
    for n in [2000, 1999, 2000, 1998] {
        run(&session, n).unwrap();
    }
    assert!(device.reserved_bytes() <= arena_bytes);
    assert_eq!(device.pools()[0].check(), Ok(()));
}

#[test]
fn a_full_device_is_an_error_and_the_session_lives_on() {
    let model = Model::open("models/digits-cnn.onnx").unwrap();
    let info = halfbyte::hardware::DeviceInfo { memory_bytes: 256 << 10, ..halfbyte::hardware::cpu::info(1) };
    let device: Arc<dyn Device> = Arc::new(NullDevice::new(info).unwrap());
    let session = Session::with_device(&model, Options::default(), device).unwrap();
    let images = vec![0f32; 1024 * 64];
    let full = session.run(&[("x", TensorView::of([1024, 1, 8, 8], &images))]).unwrap_err();
    assert!(full.to_string().contains("out of memory"), "{full}");
    let one = session.run(&[("x", TensorView::of([1, 1, 8, 8], &images[..64]))]);
    assert!(one.is_ok(), "{:?}", one.err());
}

#[test]
fn everything_unsupported_is_named_at_once() {
    let mut d = Draft::default();
    let x = d.input("x", DType::F32);
    let y = d.node("NoSuchOperator", &[x], &[]);
    let z = d.node("NorThisOne", &[y], &[]);
    d.output(z);
    let error = Session::new(&Model::from_graph(d.0), Options::default()).err().unwrap();
    assert!(error.is_unsupported());
    assert!(error.to_string().contains("NoSuchOperator") && error.to_string().contains("NorThisOne"), "{error}");
}

#[test]
fn an_operator_of_several_parts_is_planned_as_one_node() {
    let mut d = Draft::default();
    let x = d.input("x", DType::F32);
    let y = d.node("LRN", &[x], &[("size", Attr::Int(4)), ("alpha", Attr::Float(0.5)), ("beta", Attr::Float(2.0))]);
    let doubled = d.node("Add", &[y, y], &[]);
    d.output(doubled);
    let session = d.session();
    let values: Vec<f32> = (0..30).map(|i| (i * 7 % 11) as f32 - 4.0).collect();
    let got = first(&session, &[("x", TensorView::of([2, 5, 3], &values))]);
    for (i, g) in got.iter().enumerate() {
        // The window of 4 begins one channel before and ends two after.
        let (image, channel, inner) = (i / 15, i / 3 % 5, i % 3);
        let at = |c: usize| f64::from(values[image * 15 + c * 3 + inner]);
        let squares: f64 = (channel.saturating_sub(1)..(channel + 3).min(5)).map(|c| at(c) * at(c)).sum();
        let want = 2.0 * at(channel) / (1.0 + 0.5 / 4.0 * squares).powi(2);
        assert!((g - want).abs() < 1e-5, "element {i}: {g} for {want}");
    }
}

fn dropout(x: &[f32], ratio: f32, attrs: &[(&str, Attr)]) -> halfbyte::Result<[Vec<f64>; 2]> {
    let mut d = Draft::default();
    let input = d.input("x", DType::F32);
    let ratio = d.constant(Tensor::scalar(ratio));
    let training = d.constant(Tensor::from_raw(DType::Bool, [].into(), &[1]).unwrap());
    let y = d.node("Dropout", &[input, ratio, training], attrs);
    let mask = d.0.add_value("mask", None);
    d.0.nodes[0].outputs.push(Some(mask));
    d.output(y);
    d.output(mask);
    let session = Session::new(&Model::from_graph(d.0), Options::default())?;
    let outputs = session.run(&[("x", TensorView::of([x.len()], x))])?;
    let all: Vec<_> = outputs.iter().map(|(_, t)| t.to_f64()).collect();
    Ok([all[0].clone(), all[1].clone()])
}

#[test]
fn seeded_dropout_draws_the_mask_of_the_reference_implementation() {
    let x = [1f32, -2.0, f32::INFINITY, 4.0, 5.0];
    let seed = [("seed", Attr::Int(0))];
    // RandomState(0).uniform gives 0.549, 0.715, 0.603, 0.545, 0.424.
    let [y, mask] = dropout(&x, 0.547, &seed).unwrap();
    assert_eq!(mask, [1.0, 1.0, 1.0, 0.0, 0.0]);
    let scale = f64::from((1.0 / (1.0 - f64::from(0.547f32))) as f32);
    assert_eq!(y[3..], [0.0, 0.0]);
    assert!((y[0] - scale).abs() < 1e-6 && (y[1] + 2.0 * scale).abs() < 1e-6 && y[2] == f64::INFINITY);
    let [y, mask] = dropout(&x, 0.0, &[]).unwrap();
    assert_eq!((y, mask), (x.map(f64::from).to_vec(), vec![1.0; 5]));
    let unseeded = dropout(&x, 0.5, &[]).unwrap_err();
    assert!(unseeded.is_unsupported() && unseeded.to_string().contains("seed"), "{unseeded}");
    assert!(dropout(&x, 1.0, &seed).is_err(), "a ratio of 1 leaves nothing to scale");
}

#[test]
fn a_cropped_region_is_extrapolated_beyond_the_input() {
    let resized = |mode: &str, values: &[f32], roi: [f32; 2]| {
        let mut d = Draft::default();
        let x = d.input("x", DType::F32);
        let (roi, scales) = (d.constant(Tensor::vector(&roi)), d.constant(Tensor::vector::<f32>(&[])));
        let sizes = d.constant(Tensor::vector(&[5i64]));
        let attrs = [
            ("coordinate_transformation_mode", Attr::Str("tf_crop_and_resize".into())),
            ("mode", Attr::Str(mode.into())),
            ("extrapolation_value", Attr::Float(-9.0)),
        ];
        let y = d.node("Resize", &[x, roi, scales, sizes], &attrs);
        d.output(y);
        first(&d.session(), &[("x", TensorView::of([values.len()], values))])
    };
    // Positions -1, 0.5, 2, 3.5, 5 of an axis of 4.
    let roi = [-1.0 / 3.0, 5.0 / 3.0];
    assert_eq!(resized("nearest", &[1.0, 2.0, 4.0, 8.0], roi), [-9.0, 1.0, 4.0, -9.0, -9.0]);
    let linear = resized("linear", &[1.0, 2.0, 4.0, 8.0], roi);
    let close = |v: f64, w: f64| (v - w).abs() < 1e-5;
    assert!(linear.iter().zip([-9.0, 1.5, 4.0, -9.0, -9.0]).all(|(&v, w)| close(v, w)), "{linear:?}");
    assert_eq!(resized("linear", &[1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 1.0]), [1.0, 2.0, 3.0, 4.0, 5.0]);
}

/// ConvInteger of u8 `x` [2, 3, 9, 7] to 5 channels, and the types that follow: `op` of f32 results, `stored` as bytes at the end.
fn integer_convolution(op: &str, residual: bool, stored: Option<DType>) -> Draft {
    let mut d = Draft::default();
    let x = d.input("x", DType::U8);
    let weights: Vec<i8> = (0..5 * 3 * 9).map(|i| (i * 37 % 255 - 127) as i8).collect();
    let w = d.constant(Tensor::new([5, 3, 3, 3], &weights).unwrap());
    let zero = d.constant(Tensor::scalar(131u8));
    let sums = d.node("ConvInteger", &[x, w, zero], &[("pads", Attr::Ints(vec![1; 4]))]);
    let mut y = d.node("Cast", &[sums], &[("to", Attr::Int(1))]);
    for (op, from) in [("Mul", 0.0003f32), ("Add", -0.7)] {
        let each: Vec<f32> = (0..5).map(|i| from + from * i as f32).collect();
        let each = d.constant(Tensor::new([5, 1, 1], &each).unwrap());
        y = d.node(op, &[y, each], &[]);
    }
    if residual {
        let r = d.input("r", DType::F32);
        y = d.node("Add", &[y, r], &[]);
    }
    let bounds = [-0.5f32, 6.0].map(|v| d.constant(Tensor::scalar(v)));
    let bounds = if op == "Clip" { &bounds[..] } else { &[] };
    y = d.node(op, &[&[y], bounds].concat(), &[]);
    if let Some(dtype) = stored {
        let scale = d.constant(Tensor::scalar(0.031f32));
        let zero = d.constant(if dtype == DType::I8 { Tensor::scalar(-100i8) } else { Tensor::scalar(17u8) });
        y = d.node("QuantizeLinear", &[y, scale, zero], &[]);
    }
    d.output(y);
    d
}

#[test]
fn integer_convolutions_take_what_follows_up_to_the_next_bytes() {
    let x: Vec<u8> = (0..2 * 3 * 9 * 7).map(|i| (i * 53 % 256) as u8).collect();
    let r: Vec<f32> = (0..2 * 5 * 9 * 7).map(|i| (i % 31) as f32 / 10.0 - 1.5).collect();
    for op in ["Relu", "HardSwish", "Clip", "Sigmoid"] {
        for (residual, stored) in [(false, None), (true, None), (false, Some(DType::I8)), (true, Some(DType::U8))] {
            let model = Model::from_graph(integer_convolution(op, residual, stored).0);
            let given = [("x", TensorView::of([2, 3, 9, 7], &x)), ("r", TensorView::of([2, 5, 9, 7], &r))];
            let given = &given[..1 + usize::from(residual)];
            let [apart, fused] = [true, false].map(|no_optimize| {
                Session::new(&model, Options { no_optimize, threads: Some(1), ..Options::default() }).unwrap()
            });
            let [want, got] = [&apart, &fused].map(|s| first(s, given));
            assert_eq!(got, want, "{op}, residual {residual}, stored as {stored:?}");
            let nodes = fused.report().nodes;
            assert_eq!(nodes.len(), 1, "{:?}", nodes.iter().map(|n| &n.op).collect::<Vec<_>>());
            assert!(nodes[0].op.starts_with("ConvInteger+Cast+Mul+Add+") && apart.report().nodes.len() >= 5);
        }
    }
}

#[test]
fn float_convolutions_take_what_follows_up_to_the_next_bytes() {
    let x: Vec<f32> = (0..2 * 6 * 9 * 40).map(|i| (i * 53 % 256) as f32 / 50.0 - 2.5).collect();
    let filled = |shape: &[usize]| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|i| (i * 37 % 255) as f32 / 300.0 - 0.4).collect();
        Tensor::new(shape, &values).unwrap()
    };
    // Depthwise, to a few pixels, and transposed, which adds to what it stores.
    for (op, weights, attrs, nodes) in [
        ("Conv", [6, 1, 3, 3], [("group", Attr::Int(6)), ("pads", Attr::Ints(vec![1; 4]))], 1),
        ("Conv", [11, 6, 9, 39], [("group", Attr::Int(1)), ("pads", Attr::Ints(vec![0; 4]))], 1),
        ("ConvTranspose", [6, 5, 2, 2], [("group", Attr::Int(1)), ("strides", Attr::Ints(vec![2; 2]))], 2),
    ] {
        for zero in [Tensor::scalar(-100i8), Tensor::scalar(17u8)] {
            let mut d = Draft::default();
            let x_in = d.input("x", DType::F32);
            let w = d.constant(filled(&weights));
            let y = d.node(op, &[x_in, w], &attrs);
            let y = d.node("HardSwish", &[y], &[]);
            let (scale, zero) = (d.constant(Tensor::scalar(0.031f32)), d.constant(zero.clone()));
            let y = d.node("QuantizeLinear", &[y, scale, zero], &[]);
            let y = d.node("Cast", &[y], &[("to", Attr::Int(7))]);
            let y = d.node("Neg", &[y], &[]);
            d.output(y);
            let model = Model::from_graph(d.0);
            let given = [("x", TensorView::of([2, 6, 9, 40], &x))];
            let [apart, fused] = [true, false].map(|no_optimize| {
                Session::new(&model, Options { no_optimize, threads: Some(1), ..Options::default() }).unwrap()
            });
            let [want, got] = [&apart, &fused].map(|s| first(s, &given));
            assert_eq!(got, want, "{op} {weights:?}");
            let ops: Vec<String> = fused.report().nodes.iter().map(|n| n.op.clone()).collect();
            // Integers are another formula's.
            assert_eq!(ops.len(), nodes + 1, "{ops:?}");
            assert!(want.iter().any(|&v| v != want[0]) && ops[nodes - 1].ends_with("HardSwish+QuantizeLinear"), "{ops:?}");
        }
    }
}

/// Floats saturate where they are stored as integers, integers wrap: what is fused does as its parts do.
#[test]
fn fused_formulas_compute_in_the_type_of_their_parts() {
    let chain = |ops: &[(&str, i64)]| {
        let mut d = Draft::default();
        let mut y = d.input("x", DType::I32);
        for &(op, to) in ops {
            y = d.node(op, &[y], if op == "Cast" { &[("to", Attr::Int(0))] } else { &[] });
            if let Some(Attr::Int(v)) = d.0.nodes.last_mut().unwrap().attrs.get_mut("to") {
                *v = to;
            }
        }
        d.output(y);
        d.session()
    };
    let x = [("x", TensorView::of([4], &[300i32, -5, 16_777_217, 77]))];
    // i32 to f32 to u8, and i32 to i8 to f32.
    assert_eq!(first(&chain(&[("Cast", 1), ("Relu", 0), ("Cast", 2)]), &x), [255.0, 0.0, 255.0, 77.0]);
    assert_eq!(first(&chain(&[("Cast", 3), ("Cast", 1), ("Neg", 0)]), &x), [-44.0, 5.0, -1.0, -77.0]);
    assert_eq!(first(&chain(&[("Neg", 0), ("Cast", 11), ("Neg", 0)]), &x), [300.0, -5.0, 16_777_217.0, 77.0]);
}

/// Two products with weights that are widened in the graph: of f16, and of i8 with scales by column.
#[test]
fn weights_stay_as_they_are_stored() {
    let mut d = Draft::default();
    let x = d.input("x", DType::F32);
    let halves: Vec<half::f16> = (0..64 * 96).map(|i| half::f16::from_f32((i % 251) as f32 / 300.0 - 0.4)).collect();
    let halves = d.constant(Tensor::new([64, 96], &halves).unwrap());
    let w = d.node("Cast", &[halves], &[("to", Attr::Int(1))]);
    let y = d.node("MatMul", &[x, w], &[]);
    let y = d.node("Relu", &[y], &[]);
    let bytes: Vec<i8> = (0..96 * 40).map(|i| (i * 91 % 255 - 127) as i8).collect();
    let scales: Vec<f32> = (0..40).map(|i| 0.001 + i as f32 * 1e-5).collect();
    let [bytes, scales, zeros] = [
        d.constant(Tensor::new([40, 96], &bytes).unwrap()),
        d.constant(Tensor::vector(&scales)),
        d.constant(Tensor::vector(&[0i8; 40])),
    ];
    let w = d.node("DequantizeLinear", &[bytes, scales, zeros], &[("axis", Attr::Int(0))]);
    let bias = d.constant(Tensor::vector(&[0.25f32; 40]));
    let y = d.node("Gemm", &[y, w, bias], &[("transB", Attr::Int(1))]);
    d.output(y);
    let model = Model::from_graph(d.0);
    for rows in [1, 7, 50] {
        let x: Vec<f32> = (0..rows * 64).map(|i| (i % 89) as f32 / 40.0 - 1.0).collect();
        let [apart, session] = [true, false].map(|no_optimize| {
            let session = Session::new(&model, Options { no_optimize, threads: Some(1), ..Options::default() }).unwrap();
            (first(&session, &[("x", TensorView::of([rows, 64], &x))]), session)
        });
        assert_eq!(session.0, apart.0, "{rows} rows");
        // The model's own, and panels of up to 32 columns; 80000 as f32.
        let report = session.1.report();
        assert!(report.weight_bytes <= 2 * (64 * 96 * 2) + 96 * 40 + 96 * 64 + 1000, "{}", report.weight_bytes);
    }
}

/// Rows of a table by number, times a matrix; of constants with names of `name_len` bytes, so that they lie elsewhere in a file.
fn embedding(name_len: usize, first: f32) -> Model {
    let mut random = Xorshift::new(3);
    let mut d = Draft::default();
    let ids = d.input("ids", DType::I64);
    let mut table = random.reals(64_000, 1.0);
    table[0] = first;
    let table = d.constant(Tensor::new([1000, 64], &table).unwrap());
    let w = d.constant(Tensor::new([64, 4096], &random.reals(64 * 4096, 1.0)).unwrap());
    d.0.values[table.0].name = "t".repeat(name_len);
    let rows = d.node("Gather", &[table, ids], &[]);
    let y = d.node("MatMul", &[rows, w], &[]);
    d.output(y);
    Model::from_graph(d.0)
}

/// KiB of a file that this process has in memory, as Linux says.
#[cfg(target_os = "linux")]
fn resident_kib(path: &std::path::Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let own = maps.lines().skip_while(|l| !l.ends_with(path.to_str().unwrap()));
    let rss = own.into_iter().find_map(|l| l.strip_prefix("Rss:")).unwrap();
    rss.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn constants_that_kernels_have_in_their_own_form_are_let_go_of() {
    let folder = tempfile::tempdir().unwrap();
    let (table_bytes, w_bytes) = (1000 * 64 * 4, 64 * 4096 * 4);
    for (name_len, precision) in [(1, Precision::F32), (2, Precision::F32), (3, Precision::F32), (4, Precision::F16)] {
        // A run in f16 that gives what is not finite is repeated in f32.
        let model = embedding(name_len, if precision == Precision::F16 { f32::INFINITY } else { 1.0 });
        let path = folder.path().join(format!("{name_len}.onnx"));
        onnx::write(model.graph(), &[], &path).unwrap();
        let opened = [Model::open(&path).unwrap(), Model::from_bytes(std::fs::read(&path).unwrap()).unwrap()];
        let options = || Options { device: Some(DeviceKind::Cpu), threads: Some(1), precision, ..Options::default() };
        let [mapped, held] = opened.map(|m| Session::new(&m, options()).unwrap());
        let plain = Session::new(&model, Options { precision: Precision::F32, ..options() }).unwrap();
        for rows in [1, 7, 50, 2] {
            let ids: Vec<i64> = (0..rows as i64).map(|i| i * 389 % 1000).collect();
            let [a, b, c] = [&mapped, &held, &plain].map(|s| first(s, &[("ids", TensorView::of([rows], &ids))]));
            assert!(a == b && a == c && a.len() == rows * 4096, "{rows} rows");
        }
        let [mapped, held] = [&mapped, &held].map(Session::report);
        assert_eq!(mapped.notes.iter().any(|n| n.starts_with("stepped down")), precision == Precision::F16);
        assert_eq!((mapped.mapped_bytes, held.mapped_bytes), (table_bytes, 0), "rows are read where they lie");
        assert_eq!(held.weight_bytes - mapped.weight_bytes, table_bytes + w_bytes);
        assert!(mapped.weight_bytes <= w_bytes + 4096, "{}", mapped.weight_bytes);
        #[cfg(target_os = "linux")]
        assert!(resident_kib(&path) < 512, "{} KiB", resident_kib(&path));
    }
}

#[test]
fn steps_with_the_same_weights_share_their_packed_form() {
    let steps = |count: usize| {
        let mut d = Draft::default();
        let x = d.input("x", DType::F32);
        let w = d.constant(Tensor::new([64, 64], &Xorshift::new(4).reals(64 * 64, 0.2)).unwrap());
        let mut y = x;
        for _ in 0..count {
            y = d.node("MatMul", &[y, w], &[]);
        }
        d.output(y);
        Model::from_graph(d.0)
    };
    let held = |count: usize| {
        let options = |no_optimize| Options { device: Some(DeviceKind::Cpu), no_optimize, ..Options::default() };
        let [session, apart] = [false, true].map(|plain| Session::new(&steps(count), options(plain)).unwrap());
        for rows in [1, 30] {
            let x = Xorshift::new(5).reals(rows * 64, 1.0);
            let [a, b] = [&session, &apart].map(|s| first(s, &[("x", TensorView::of([rows, 64], &x))]));
            assert_eq!(a, b);
        }
        session.report().weight_bytes
    };
    assert_eq!(held(8), held(1));
}
