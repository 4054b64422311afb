//! Movements, pooling and choices of elements: every kernel gives the reference's bytes, for every width of elements, under
//! several schedules of the interpreted device.

use halfbyte::base::layout::Layout;
use halfbyte::base::xorshift::Xorshift;
use halfbyte::base::{DType, Shape, Tensor};
use halfbyte::device::Device;
use halfbyte::graph::problem::movement::{Movement, Piece, Reduction, Taps};
use halfbyte::graph::problem::pool::Pooling;
use halfbyte::graph::problem::select::Selection;
use halfbyte::graph::problem::{MoveProblem, PoolProblem, ScalarProblem, SelectProblem, Window};
use halfbyte::graph::{Problem, Type};
use halfbyte::hardware::DeviceKind;
use halfbyte::scalar::{arg, constant};

use super::check::{random, tensor};
use super::device::{self, reference};

/// A type of each width.
const WIDTHS: [DType; 4] = [DType::I8, DType::F16, DType::F32, DType::I64];

/// The devices of every test, and interpreted ones that take warps in other orders.
fn devices() -> Vec<&'static dyn Device> {
    #[cfg(feature = "cuda")]
    thread_local! {
        static OTHERS: &'static [Box<dyn Device>] =
            Box::leak(Box::new([0, 7].map(|seed| Box::new(super::cuda::device("h200", seed)) as Box<dyn Device>)));
    }
    let all = device::all().iter();
    #[cfg(feature = "cuda")]
    let all = all.chain(OTHERS.with(|o| *o));
    all.map(|d| &**d).filter(|d| device::is_wanted(*d)).collect()
}

fn ty(t: &Tensor) -> Type {
    Type::new(t.dtype(), t.shape().clone())
}

pub fn moved(movement: Movement, inputs: &[Option<Tensor>], outputs: &[Type]) -> Problem {
    let inputs = inputs.iter().map(|t| t.as_ref().map(ty)).collect();
    Problem::Move(MoveProblem { movement, inputs, outputs: outputs.to_vec() })
}

/// Every kernel's bytes are the reference's. Gives the number of kernels that ran besides it.
fn same(problem: &Problem, inputs: &[Option<Tensor>], outputs: &[Type]) -> usize {
    let want = reference(problem, inputs, outputs);
    let mut runs = 0;
    for device in devices() {
        for kernel in device::kernels(device, problem).into_iter().filter(|k| !k.name.starts_with("cpu-any")) {
            let got = device::launch(device, kernel, problem, inputs, &[], outputs);
            for (n, (got, want)) in got.iter().zip(&want).enumerate() {
                let size = want.dtype().size_bytes().max(1);
                let off = got.bytes().chunks(size).zip(want.bytes().chunks(size)).position(|(g, w)| g != w);
                let off = off.map(|i| (i, &got.bytes()[i * size..][..size], &want.bytes()[i * size..][..size]));
                assert!(off.is_none(), "{} output {n}: {off:?} (got, expected) in {problem:?}", kernel.name);
            }
            runs += 1;
        }
    }
    runs
}

/// Each device of CUDA has taken part; an adapter may lack the types that a problem needs.
fn ran(runs: usize, problems: usize) {
    let devices = devices().iter().filter(|d| d.info().kind == DeviceKind::Cuda).count();
    assert!(runs >= devices * problems, "{runs} runs of {problems} problems");
}

fn move_one(movement: Movement, inputs: Vec<Option<Tensor>>, out: Type) -> usize {
    same(&moved(movement, &inputs, std::slice::from_ref(&out)), &inputs, std::slice::from_ref(&out))
}

/// A part of a tensor of random shape: permuted, with steps in either direction, repeated along axes.
fn part(r: &mut Xorshift, shape: &Shape) -> Layout {
    let whole = Layout::contiguous(shape.clone());
    let mut order: Vec<usize> = (0..shape.rank()).collect();
    (1..order.len()).for_each(|i| order.swap(i, r.below(i + 1)));
    let mut from = Layout { shape: Shape::default(), strides: Default::default(), offset: 0 };
    for a in order {
        let (start, step) = (r.below(shape[a]), [1, 1, 1, 2, 3][r.below(5)]);
        let count = (shape[a] - start).div_ceil(step);
        let back = r.below(4) == 0;
        from.offset += (if back { start + (count - 1) * step } else { start }) * whole.strides[a] as usize;
        from.shape.push(count);
        from.strides.push(whole.strides[a] * step as isize * if back { -1 } else { 1 });
        if r.below(5) == 0 {
            from.shape.push(1 + r.below(3));
            from.strides.push(0);
        }
    }
    from
}

#[test]
fn copies_of_parts() {
    let mut r = Xorshift::new(23);
    let mut runs = 0;
    for round in 0..60 {
        let dtype = WIDTHS[round % 4];
        let rank = 1 + r.below(4);
        let shape: Shape = (0..rank).map(|_| 1 + r.below([20, 12, 8, 6][rank - 1])).collect();
        let from = part(&mut r, &shape);
        // The part lands inside of a larger tensor.
        let margins: Vec<[usize; 2]> = from.shape.iter().map(|_| [r.below(3), r.below(3)]).collect();
        let out: Shape = from.shape.iter().zip(&margins).map(|(n, m)| n + m[0] + m[1]).collect();
        let mut to = Layout::contiguous(out.clone());
        to.offset = margins.iter().zip(&to.strides).map(|(m, &s)| m[0] * s as usize).sum();
        to.shape = from.shape.clone();
        let inputs = vec![Some(random(&mut r, dtype, &shape)), Some(random(&mut r, dtype, &[1]))];
        let fill = Some([None, Some(1)][r.below(2)]);
        let pieces = vec![Piece { input: 0, from, output: 0, to }];
        runs += move_one(Movement::Copy { pieces, fill }, inputs, Type::new(dtype, out));
    }
    ran(runs, 60);
}

#[test]
fn transposes_and_whole_copies() {
    let mut r = Xorshift::new(24);
    let mut runs = 0;
    let cases: [(&[usize], &[usize]); 7] = [
        (&[70, 65], &[1, 0]),
        (&[3, 33, 40], &[0, 2, 1]),
        (&[9, 3, 34], &[2, 1, 0]),
        (&[2, 8, 3, 16], &[0, 3, 1, 2]),
        (&[130, 8], &[1, 0]),
        (&[5, 6, 8], &[1, 0, 2]),
        (&[64, 64], &[0, 1]),
    ];
    for (dtype, (shape, order)) in WIDTHS.into_iter().flat_map(|d| cases.map(|c| (d, c))) {
        let whole = Layout::contiguous(Shape::from(shape));
        let shape: Shape = order.iter().map(|&a| whole.shape[a]).collect();
        let from = Layout { shape: shape.clone(), strides: order.iter().map(|&a| whole.strides[a]).collect(), offset: 0 };
        let pieces = vec![Piece { input: 0, from, output: 0, to: Layout::contiguous(shape.clone()) }];
        let inputs = vec![Some(random(&mut r, dtype, &whole.shape))];
        runs += move_one(Movement::Copy { pieces, fill: None }, inputs, Type::new(dtype, shape));
    }
    ran(runs, 28);
}

#[test]
fn choices_along_axes() {
    let mut r = Xorshift::new(25);
    let mut runs = 0;
    for round in 0..40 {
        let dtype = WIDTHS[round % 4];
        let shape: Shape = (0..1 + r.below(4)).map(|_| 1 + r.below(9)).collect();
        let map = |&n: &usize| match r.below(4) {
            0 => None,
            1 => Some((0..2 * n).map(|i| i / 2).collect::<Vec<_>>()),
            _ => Some((0..1 + r.below(12)).map(|_| r.below(n)).collect()),
        };
        let maps: Vec<Option<Vec<usize>>> = shape.iter().map(map).collect();
        let out: Shape = shape.iter().zip(&maps).map(|(&n, m)| m.as_ref().map_or(n, Vec::len)).collect();
        runs += move_one(Movement::Axes(maps), vec![Some(random(&mut r, dtype, &shape))], Type::new(dtype, out));
    }
    ran(runs, 40);
}

/// Indices of either type within axes of these sizes, a third of them negative; the sizes take turns.
fn indices(r: &mut Xorshift, shape: &[usize], sizes: &[usize]) -> Tensor {
    let dtype = [DType::I32, DType::I64][r.below(2)];
    let one = |(i, r): (usize, &mut Xorshift)| {
        let size = sizes[i % sizes.len()];
        r.below(size) as f64 - if r.below(3) == 0 { size as f64 } else { 0.0 }
    };
    let values: Vec<f64> = (0..shape.iter().product()).map(|i| one((i, r))).collect();
    tensor(dtype, shape, &values)
}

#[test]
fn gathers() {
    let mut r = Xorshift::new(26);
    let mut runs = 0;
    for round in 0..48 {
        let dtype = WIDTHS[round % 4];
        let rank = 1 + r.below(4);
        let shape: Shape = (0..rank).map(|_| 1 + r.below(8)).collect();
        let axis = r.below(rank);
        let x = random(&mut r, dtype, &shape);
        let at: Vec<usize> = (0..r.below(3)).map(|_| 1 + r.below(6)).collect();
        let at = indices(&mut r, &at, &[shape[axis]]);
        let out: Shape = shape[..axis].iter().chain(at.shape().iter()).chain(&shape[axis + 1..]).copied().collect();
        runs += move_one(Movement::Gather { axis }, vec![Some(x.clone()), Some(at)], Type::new(dtype, out));

        let smaller: Vec<usize> = (0..rank).map(|a| if a == axis { 1 + r.below(9) } else { 1 + r.below(shape[a]) }).collect();
        let at = indices(&mut r, &smaller, &[shape[axis]]);
        runs += move_one(Movement::GatherElements { axis }, vec![Some(x.clone()), Some(at)], Type::new(dtype, &smaller[..]));

        let batch_dims = r.below(rank);
        let depth = 1 + r.below(rank - batch_dims);
        let lead: Vec<usize> = shape[..batch_dims].iter().copied().chain([1 + r.below(5)]).collect();
        let at = indices(&mut r, &[&lead[..], &[depth]].concat(), &shape[batch_dims..batch_dims + depth]);
        let out = Type::new(dtype, &[&lead[..], &shape[batch_dims + depth..]].concat()[..]);
        runs += move_one(Movement::GatherNd { batch_dims }, vec![Some(x), Some(at)], out);
    }
    ran(runs, 3 * 48);
}

#[test]
fn scatters_join_updates_in_their_order() {
    let mut r = Xorshift::new(27);
    let reductions = [Reduction::None, Reduction::Add, Reduction::Mul, Reduction::Max, Reduction::Min];
    let folds = [DType::F32, DType::F64, DType::I32, DType::I64];
    let mut runs = 0;
    for round in 0..80 {
        let reduction = reductions[round % 5];
        let dtype = if reduction == Reduction::None { WIDTHS[round / 5 % 4] } else { folds[round / 5 % 4] };
        let rank = 1 + r.below(3);
        let shape: Shape = (0..rank).map(|_| 1 + r.below(6)).collect();
        let small = |r: &mut Xorshift, shape: &[usize]| {
            let values: Vec<f64> = (0..shape.iter().product()).map(|_| (r.unit() * 6.0 - 3.0) as f32 as f64).collect();
            tensor(dtype, shape, &values)
        };
        let (x, axis) = (small(&mut r, &shape), r.below(rank));
        // More updates than places, so that many meet.
        let at: Vec<usize> = (0..rank).map(|a| if a == axis { 1 + r.below(20) } else { 1 + r.below(shape[a]) }).collect();
        let inputs = vec![Some(x.clone()), Some(indices(&mut r, &at, &[shape[axis]])), Some(small(&mut r, &at))];
        runs += move_one(Movement::ScatterElements { axis, reduction }, inputs, Type::new(dtype, shape.clone()));

        let (depth, count) = (1 + r.below(rank), 1 + r.below(30));
        let at = indices(&mut r, &[count, depth], &shape[..depth]);
        let updates = small(&mut r, &[&[count][..], &shape[depth..]].concat());
        let inputs = vec![Some(x), Some(at), Some(updates)];
        runs += move_one(Movement::ScatterNd { reduction }, inputs, Type::new(dtype, shape));
    }
    // Bytes wrap around nowhere here, but are joined as bytes.
    for (dtype, reduction) in [DType::U8, DType::I8].into_iter().flat_map(|d| reductions.map(|r| (d, r))) {
        let [x, updates] = [[4, 2, 9], [3, 5, 2]].map(|v| tensor(dtype, &[3], &v.map(f64::from)));
        let inputs = vec![Some(x), Some(Tensor::vector(&[2i64, -3, 2])), Some(updates)];
        runs += move_one(Movement::ScatterElements { axis: 0, reduction }, inputs, Type::new(dtype, [3]));
    }
    ran(runs, 170);
}

#[test]
fn triangles_one_hot_vectors_and_reversed_sequences() {
    let mut r = Xorshift::new(28);
    let mut runs = 0;
    for round in 0..40 {
        let dtype = WIDTHS[round % 4];
        let shape = Shape::from([1 + r.below(3), 1 + r.below(9), 1 + r.below(9)]);
        let x = random(&mut r, dtype, &shape);
        let k = [r.below(12) as i64 - 6, i64::MAX, i64::MIN / 2][usize::from(r.below(6) == 0) * (1 + r.below(2))];
        let movement = Movement::Trilu { upper: r.below(2) == 0, k };
        runs += move_one(movement, vec![Some(x.clone())], Type::new(dtype, shape.clone()));

        let (batch_axis, time_axis) = [(0, 1), (1, 0), (2, 0), (1, 2)][r.below(4)];
        let lengths: Vec<i64> = (0..shape[batch_axis]).map(|_| r.below(shape[time_axis] + 2) as i64).collect();
        let movement = Movement::ReverseSequence { batch_axis, time_axis };
        runs += move_one(movement, vec![Some(x), Some(Tensor::vector(&lengths))], Type::new(dtype, shape));

        let (depth, at) = (1 + r.below(6), [1 + r.below(4), 1 + r.below(5)]);
        let kind = [DType::I32, DType::I64, DType::F32, DType::I8][r.below(4)];
        let values: Vec<f64> = (0..at[0] * at[1]).map(|_| r.below(3 * depth) as f64 - depth as f64).collect();
        let (at, axis) = (tensor(kind, &at, &values), r.below(3));
        let mut out: Vec<usize> = at.shape().to_vec();
        out.insert(axis, depth);
        let inputs = vec![Some(at), Some(Tensor::scalar(depth as i64)), Some(random(&mut r, dtype, &[2]))];
        runs += move_one(Movement::OneHot { axis, depth }, inputs, Type::new(dtype, &out[..]));
    }
    ran(runs, 120);
}

#[test]
fn interpolations_have_the_same_bits() {
    let mut r = Xorshift::new(29);
    let mut runs = 0;
    for round in 0..36 {
        let dtype = [DType::F32, DType::F16, DType::U8, DType::BF16, DType::I32, DType::F64][round % 6];
        let shape: Shape = (0..1 + r.below(4)).map(|_| 1 + r.below(7)).collect();
        let mut filter = |&n: &usize| {
            let mut taps = |_| {
                let count = if r.below(12) == 0 { 0 } else { 1 + r.below(4) };
                Taps { taps: (0..count).map(|_| (r.below(n), (r.unit() * 2.0 - 0.7) as f32)).collect() }
            };
            let taps: Vec<Taps> = (0..7).map(&mut taps).collect();
            (r.below(3) > 0).then_some(taps)
        };
        let axes: Vec<_> = shape.iter().map(&mut filter).collect();
        let out: Shape = shape.iter().zip(&axes).map(|(&n, a)| a.as_ref().map_or(n, Vec::len)).collect();
        let values: Vec<f64> = (0..shape.numel()).map(|_| (r.unit() * 100.0).floor() + 1.0).collect();
        let movement = Movement::Interpolate { axes, outside: 0.5 };
        runs += move_one(movement, vec![Some(tensor(dtype, &shape, &values))], Type::new(dtype, out));
    }
    ran(runs, 36);
}

#[test]
fn an_index_outside_its_axis_is_an_error() {
    let x = tensor(DType::F32, &[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let cases = [
        (Movement::Gather { axis: 0 }, vec![2], vec![2, 2], vec![]),
        (Movement::GatherElements { axis: 0 }, vec![1, 2], vec![1, 2], vec![]),
        (Movement::GatherNd { batch_dims: 0 }, vec![1, 2], vec![1], vec![]),
        (Movement::ScatterElements { axis: 0, reduction: Reduction::Add }, vec![1, 2], vec![3, 2], vec![1, 2]),
        (Movement::ScatterNd { reduction: Reduction::None }, vec![2, 1], vec![3, 2], vec![2, 2]),
    ];
    for (movement, at, out, updates) in cases {
        let far = 1i64 << 32;
        let outside = [[-3, -1], [0, 7], [-4, 0], [far, 0], [0, far + 1], [-far, 0]].map(|v| (v, false));
        for (values, fine) in [([0i64, 1], true)].into_iter().chain(outside) {
            // Of the tuple, the second index is of an axis of 2.
            let fine = fine || (values == [-3, -1]);
            let at = Tensor::new(Shape::from(&at[..]), &values).unwrap();
            let updates = (!updates.is_empty()).then(|| tensor(DType::F32, &updates, &vec![1.0; updates.iter().product()]));
            let inputs: Vec<Option<Tensor>> = [Some(x.clone()), Some(at)].into_iter().chain(updates.map(Some)).collect();
            let outputs = [Type::new(DType::F32, Shape::from(&out[..]))];
            let problem = moved(movement.clone(), &inputs, &outputs);
            for device in devices() {
                for kernel in device::kernels(device, &problem) {
                    let got = device::attempt(device, kernel, &problem, &inputs, &[], &outputs);
                    assert_eq!(got.is_ok(), fine, "{}: {values:?} in {problem:?}", kernel.name);
                }
            }
        }
    }
}

/// A window of any rank, over padding, with distances between taps, and beyond the end as `ceil_mode` lets it.
fn window(r: &mut Xorshift, rank: usize) -> Window {
    let mut pick = |n: usize| -> Vec<usize> { (0..rank).map(|_| 1 + r.below(n)).collect() };
    let (kernel, strides, dilations, more) = (pick(3), pick(3), pick(2), pick([16, 8, 5, 3, 2, 2][rank - 1]));
    let input: Vec<usize> = (0..rank).map(|a| (kernel[a] - 1) * dilations[a] + more[a]).collect();
    let pads: Vec<i64> = kernel.iter().map(|&k| r.below(k) as i64).collect();
    let extent = |a: usize| input[a] + 2 * pads[a] as usize - (kernel[a] - 1) * dilations[a] - 1;
    let ceil = r.below(2) == 1;
    let output = (0..rank).map(|a| if ceil { extent(a).div_ceil(strides[a]) } else { extent(a) / strides[a] } + 1);
    let output =
        output.enumerate().map(|(a, n)| if (n - 1) * strides[a] >= input[a] + pads[a] as usize { n - 1 } else { n }).collect();
    Window { input, output, kernel, strides, dilations, pads_end: pads.clone(), pads }
}

#[test]
fn pools_of_every_kind_and_rank() {
    let mut r = Xorshift::new(30);
    let types = [DType::F32, DType::F16, DType::BF16, DType::I8, DType::U8, DType::F64, DType::I32];
    let mut runs = 0;
    for round in 0..84 {
        let dtype = types[round % 7];
        let window = match round % 12 {
            // The window is the plane.
            11 => {
                let input = vec![1 + r.below(15), 1 + r.below(15)];
                let (kernel, one, pads) = (input.clone(), vec![1; 2], vec![0; 2]);
                let [output, strides, dilations] = [one.clone(), one.clone(), one];
                Window { kernel, input, output, strides, dilations, pads_end: pads.clone(), pads }
            }
            n => window(&mut r, 1 + n % 4),
        };
        let planes = 1 + r.below(4);
        let shape: Vec<usize> = [planes].into_iter().chain(window.input.iter().copied()).collect();
        // Small integers: sums are exact in any order and any of the types.
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| r.below(16) as f64).collect();
        let x = tensor(dtype, &shape, &values);
        let out: Vec<usize> = [planes].into_iter().chain(window.output.iter().copied()).collect();
        let poolings = [
            Pooling::Max { indices: false, column_major: false },
            Pooling::Max { indices: true, column_major: round % 2 == 0 },
            Pooling::Average { include_pad: false },
            Pooling::Average { include_pad: true },
            Pooling::Lp { p: 1 },
            Pooling::Lp { p: 2 },
        ];
        for pooling in poolings {
            let mut outputs = vec![Type::new(dtype, &out[..])];
            if matches!(pooling, Pooling::Max { indices: true, .. }) {
                outputs.push(Type::new(DType::I64, &out[..]));
            }
            let p = PoolProblem { pooling, planes, window: window.clone(), dtype };
            runs += same(&Problem::Pool(p), &[Some(x.clone())], &outputs);
        }
    }
    ran(runs, 84 * 6);
}

#[test]
fn the_first_elements_of_lines() {
    let mut r = Xorshift::new(31);
    let types = [DType::F32, DType::F16, DType::BF16, DType::I8, DType::U8, DType::I16, DType::I32, DType::U32, DType::U16];
    let mut runs = 0;
    for round in 0..27 {
        let dtype = types[round % 9];
        let shape = [1 + r.below(3), if round == 0 { 2500 } else { 1 + r.below(90) }, 1 + r.below(3)];
        let axis = if round == 0 { 1 } else { r.below(3) };
        let mut values = random(&mut r, dtype, &shape).to_f64();
        if dtype.is_float() && round >= 9 {
            values.iter_mut().step_by(5).for_each(|v| *v = [f64::NAN, f64::INFINITY, -0.0, 0.0][r.below(4)]);
        }
        let k = 1 + r.below(shape[axis].min(40));
        let mut out = shape;
        out[axis] = k;
        let x = tensor(dtype, &shape, &values);
        let outputs = vec![Type::new(dtype, out), Type::new(DType::I64, out)];
        let selection = Selection::TopK { axis, k, largest: r.below(2) == 0 };
        let problem = Problem::Select(SelectProblem { selection, x: ty(&x), outputs: outputs.clone() });
        runs += same(&problem, &[Some(x)], &outputs);
    }
    ran(runs, 27);
}

#[test]
fn formulas_in_vectors() {
    let mut r = Xorshift::new(32);
    let mut runs = 0;
    let shapes: [[&[usize]; 3]; 6] = [
        [&[4, 6, 8], &[4, 6, 8], &[]],
        [&[4, 6, 8], &[6, 8], &[4, 1, 1]],
        [&[3, 5, 7], &[3, 5, 7], &[1]],
        [&[3, 16], &[16], &[3, 1]],
        [&[2, 3, 4, 2], &[3, 1, 1], &[2, 1, 4, 2]],
        [&[515], &[515], &[]],
    ];
    for dtype in DType::ALL {
        for (i, shapes) in shapes.iter().enumerate() {
            let small = |r: &mut Xorshift, shape: &[usize]| {
                let values: Vec<f64> = (0..shape.iter().product()).map(|_| r.below(12) as f64).collect();
                tensor(dtype, shape, &values)
            };
            let inputs: Vec<Tensor> = shapes.iter().map(|s| small(&mut r, s)).collect();
            let formula = if dtype == DType::Bool {
                arg(0).equal(arg(1)).select(arg(2), arg(0))
            } else {
                (arg(0) * arg(1) - arg(2)).max(arg(1)) + constant(1.0)
            };
            let kinds = [dtype, DType::F32, DType::F16, DType::I64, DType::U8, DType::I16];
            let out = Type::new(kinds[i], shapes[0]);
            let operands = inputs.iter().map(ty).collect();
            let problem = Problem::Scalar(ScalarProblem { formula, operands, out: out.clone() });
            let inputs: Vec<_> = inputs.into_iter().map(Some).collect();
            runs += same(&problem, &inputs, &[out]);
        }
    }
    ran(runs, DType::ALL.len() * 6);
}
