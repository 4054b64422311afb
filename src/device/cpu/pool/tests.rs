//! The vector kernels against the plain definition, and that against what the specification says.

use crate::base::xorshift::Xorshift;
use crate::base::{DType, Tensor};
use crate::device::cpu::{Call, device::find};
use crate::graph::Problem;
use crate::graph::problem::pool::Pooling;
use crate::graph::problem::{PoolProblem, Window};
use crate::hardware::cpu::capabilities;
use crate::kernel;

const MAX: Pooling = Pooling::Max { indices: false, column_major: false };
const POOLINGS: [Pooling; 3] = [MAX, Pooling::Average { include_pad: false }, Pooling::Average { include_pad: true }];

fn run(name: &str, p: &PoolProblem, x: &Tensor) -> Tensor {
    let shape: Vec<usize> = [&[p.planes], &p.window.output[..]].concat();
    let mut y = Tensor::zeros(p.dtype, &shape[..]).unwrap();
    let problem = Problem::Pool(p.clone());
    let (inputs, mut outputs) = ([Some(x.view())], [Some(y.view_mut())]);
    let mut call = Call { problem: &problem, packed: None, ahead: &[], inputs: &inputs, outputs: &mut outputs, scratch: &mut [] };
    find(name).unwrap().code.run(&mut call).unwrap();
    y
}

/// Every vector kernel of this machine gives what the reference gives; tells how many there are.
fn agree(p: &PoolProblem, x: &Tensor) -> usize {
    let want = run("cpu-any-pool", p, x).to_f64();
    let problem = Problem::Pool(p.clone());
    let taking = kernel::pool::KERNELS.iter().skip(1).filter(|k| capabilities().contains(k.needs));
    let taking = taking.filter(|k| (k.accepts)(&problem).is_ok());
    let check = |k: &kernel::KernelDef| {
        for (i, (got, want)) in run(k.name, p, x).to_f64().iter().zip(&want).enumerate() {
            let exact = matches!(p.pooling, Pooling::Max { .. });
            let bound = match p.dtype {
                _ if exact => 0.0,
                DType::F16 => 1e-3,
                DType::BF16 => 8e-3,
                _ => 2e-6,
            };
            let same = got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= bound;
            assert!(same, "{} element {i}: {got} for {want} in {p:?}", k.name);
        }
    };
    taking.map(check).count()
}

/// A window of 1 to 3 axes anywhere near an image; the last of its positions may stick out as under `ceil_mode`.
fn any_problem(r: &mut Xorshift, pooling: Pooling) -> PoolProblem {
    let rank = 1 + r.below(3);
    let largest = [70, 33, 9][rank - 1];
    let mut pick = |n: usize| (0..rank).map(|_| 1 + r.below(n)).collect::<Vec<_>>();
    let (kernel, strides, dilations) = (pick(5), pick(5), pick(3));
    let input: Vec<usize> = (0..rank).map(|a| (kernel[a] - 1) * dilations[a] + r.below(largest) + 1).collect();
    let [pads, pads_end] = [0; 2].map(|_| kernel.iter().map(|&k| r.below(k) as i64).collect::<Vec<_>>());
    let ceil = r.below(2) == 1;
    let output = (0..rank).map(|a| {
        let room = input[a] + (pads[a] + pads_end[a]) as usize - (kernel[a] - 1) * dilations[a] - 1;
        let out = room / strides[a] + 1;
        out + usize::from(ceil && !room.is_multiple_of(strides[a]) && out * strides[a] < input[a] + pads[a] as usize)
    });
    let output = output.collect();
    let window = Window { input, output, kernel, strides, dilations, pads, pads_end };
    PoolProblem { pooling, planes: r.below(5), window, dtype: DType::F32 }
}

#[test]
fn vector_kernels_agree_with_the_definition() {
    let mut r = Xorshift::new(5);
    for round in 0..600 {
        let dtypes = [DType::F32, DType::F16, DType::BF16, DType::U8, DType::I8];
        // Averages of integers are no operator.
        let (pooling, dtypes) = (POOLINGS[round % 3], if round % 3 == 0 { &dtypes[..] } else { &dtypes[..3] });
        let p = PoolProblem { dtype: dtypes[r.below(dtypes.len())], ..any_problem(&mut r, pooling) };
        let x = r.tensor(p.dtype, &[&[p.planes], &p.window.input[..]].concat());
        let found = agree(&p, &x);
        assert_eq!(found, kernel::pool::KERNELS.iter().skip(1).filter(|k| capabilities().contains(k.needs)).count());
    }
}

fn square(pooling: Pooling, input: [usize; 2], kernel: [usize; 2], pads: [i64; 2], stride: usize) -> PoolProblem {
    let output = (0..2).map(|a| (input[a] + 2 * pads[a] as usize - kernel[a]) / stride + 1).collect();
    let window = Window {
        input: input.to_vec(),
        output,
        kernel: kernel.to_vec(),
        strides: vec![stride; 2],
        dilations: vec![1; 2],
        pads: pads.to_vec(),
        pads_end: pads.to_vec(),
    };
    PoolProblem { pooling, planes: 3, window, dtype: DType::F32 }
}

#[test]
fn whole_planes_and_whole_rows_agree() {
    let mut r = Xorshift::new(6);
    for (input, kernel) in [([7, 9], [7, 9]), ([96, 192], [96, 192]), ([5, 80], [1, 80]), ([40, 6], [40, 1]), ([1, 1], [1, 1])] {
        for (pooling, stride) in POOLINGS.into_iter().flat_map(|p| [(p, 1), (p, 90)]) {
            let p = square(pooling, input, kernel, [0, 0], stride);
            agree(&p, &r.tensor(DType::F32, &[3, input[0], input[1]]));
        }
    }
}

#[test]
fn a_window_as_large_as_the_plane_may_still_stick_out_of_it() {
    // The window starts one before the plane and covers two of its three elements.
    let mut p = square(POOLINGS[1], [1, 3], [1, 3], [0, 1], 3);
    p.window.pads_end = vec![0, 0];
    let x = Tensor::new([3, 1, 3], &[1f32, 2.0, 90.0, 3.0, 5.0, 90.0, -1.0, 1.0, 90.0]).unwrap();
    assert_eq!(run("cpu-any-pool", &p, &x).to_f64(), [1.5, 4.0, 0.0]);
    agree(&p, &x);
}

#[test]
fn nan_and_infinities_go_where_the_definition_puts_them() {
    let mut r = Xorshift::new(7);
    for stride in 1..5 {
        let p = square(MAX, [13, 41], [3, 3], [1, 1], stride);
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = r.reals(3 * 13 * 41, 1.0);
            (0..60).for_each(|_| values[r.below(3 * 13 * 41)] = value);
            let x = Tensor::new([3, 13, 41], &values).unwrap();
            agree(&p, &x);
            agree(&PoolProblem { pooling: POOLINGS[1], ..p.clone() }, &x);
            let one = square(MAX, [13, 41], [13, 41], [0, 0], 1);
            agree(&one, &x);
        }
    }
    let nan = Tensor::new([3, 1, 2], &[f32::NAN, 1.0, 1.0, f32::NAN, 1.0, 2.0]).unwrap();
    let y = run("cpu-any-pool", &square(MAX, [1, 2], [1, 2], [0, 0], 1), &nan).to_f64();
    assert!(y[0].is_nan() && y[1].is_nan() && y[2] == 2.0);
}

#[test]
fn windows_far_from_the_image_are_left_to_the_definition() {
    let far = vec![0, 1 << 40];
    let mut p = square(MAX, [1, 3], [1, 1], [0, 0], 1);
    p.window = Window { output: vec![1, 3], strides: vec![1, 1 << 40], pads: far.clone(), pads_end: far, ..p.window };
    for k in kernel::pool::KERNELS.iter().skip(1) {
        assert!((k.accepts)(&Problem::Pool(p.clone())).is_err(), "{}", k.name);
    }
    let x = Tensor::new([3, 1, 3], &[1f32; 9]).unwrap();
    assert_eq!(run("cpu-any-pool", &p, &x).to_f64()[..3], [f64::NEG_INFINITY, 1.0, f64::NEG_INFINITY]);
}
