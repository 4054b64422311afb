//! The vector kernels against the reference, and the reference against what the specification says.

use crate::base::xorshift::Xorshift;
use crate::base::{DType, Shape, Tensor};
use crate::device::cpu::{Call, device::find};
use crate::graph::problem::reduce::*;
use crate::graph::{Problem, Type};
use crate::hardware::cpu::capabilities;
use crate::kernel;

fn run(name: &str, problem: &Problem, inputs: &[Tensor], outputs: &[Type]) -> Vec<Tensor> {
    let kernel = find(name).unwrap().code;
    let mut out: Vec<Tensor> = outputs.iter().map(|t| Tensor::zeros(t.dtype, t.shape.clone()).unwrap()).collect();
    let views: Vec<_> = inputs.iter().map(|t| Some(t.view())).collect();
    {
        let mut slots: Vec<_> = out.iter_mut().map(|t| Some(t.view_mut())).collect();
        kernel
            .run(&mut Call { problem, packed: None, ahead: &[], inputs: &views, outputs: &mut slots, scratch: &mut [] })
            .unwrap();
    }
    out
}

fn tensor(dtype: DType, shape: &Shape, values: &[f32]) -> Tensor {
    let bytes: Vec<u8> = match dtype {
        DType::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
        _ => bytemuck::cast_slice(values).to_vec(),
    };
    Tensor::from_raw(dtype, shape.clone(), &bytes).unwrap()
}

fn problem(x: &Tensor, kind: ReduceKind, outputs: &[Type]) -> Problem {
    let out = outputs.iter().map(|t| t.dtype).collect();
    let x = Type::new(x.dtype(), x.shape().clone());
    Problem::Reduce(crate::graph::problem::ReduceProblem { x, out, kind })
}

/// Every kernel that accepts the problem agrees with the reference within `bound` (relative to 1 and the value).
fn agree(kind: ReduceKind, inputs: &[Tensor], outputs: &[Type], bound: f64) -> usize {
    let problem = problem(&inputs[0], kind, outputs);
    let want = run("cpu-any-reduce", &problem, inputs, outputs);
    let taking =
        kernel::reduce::KERNELS.iter().skip(1).filter(|k| capabilities().contains(k.needs) && (k.accepts)(&problem).is_ok());
    let mut count = 0;
    for kernel in taking {
        count += 1;
        let got = run(kernel.name, &problem, inputs, outputs);
        for (g, w) in got.iter().zip(&want) {
            for (i, (g, w)) in g.to_f64().iter().zip(w.to_f64()).enumerate() {
                let same = g.to_bits() == w.to_bits() || (g.is_nan() && w.is_nan()) || (g - w).abs() <= bound * (1.0 + w.abs());
                assert!(same, "{} element {i}: {g} for {w} in {problem:?}", kernel.name);
            }
        }
    }
    count
}

fn bound(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2e-3,
        DType::BF16 => 1.6e-2,
        _ => 2e-5,
    }
}

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

#[test]
fn vector_normalisation_agrees() {
    let mut random = Xorshift::new(11);
    for (rows, len, affine) in [
        (5, 33, Affine { period: 1, per_row: 33, inner: 1, shape: Shape::from([33]) }),
        (6, 40, Affine { period: 3, per_row: 4, inner: 10, shape: Shape::from([12]) }),
        (64, 384, Affine { period: 1, per_row: 384, inner: 1, shape: Shape::from([384]) }),
        (0, 8, Affine { period: 1, per_row: 8, inner: 1, shape: Shape::from([8]) }),
    ] {
        for (dtype, center) in FLOATS.into_iter().flat_map(|d| [(d, true), (d, false)]) {
            let shape = Shape::from([rows, len]);
            let factors = Type::new(DType::F32, affine.shape.clone());
            let n = factors.shape.numel();
            let bias = center.then(|| Type::new(DType::F32, [1]));
            let kind = ReduceKind::Normalize(Normalize {
                rows,
                len,
                center,
                epsilon: 1e-5,
                scale: Some(factors.clone()),
                bias,
                affine: affine.clone(),
                skip: false,
            });
            let inputs = [
                tensor(dtype, &shape, &random.reals(rows * len, 5.0)),
                tensor(DType::F32, &factors.shape, &random.reals(n, 5.0)),
                tensor(DType::F32, &Shape::from([1]), &random.reals(1, 5.0)),
            ];
            assert!(agree(kind, &inputs, &[Type::new(dtype, shape)], bound(dtype)) > 0 || capabilities().is_empty());
        }
    }
}

#[test]
fn dynamic_quantisation_agrees_exactly() {
    let mut random = Xorshift::new(13);
    for n in [0, 1, 31, 32, 77, 5000] {
        let mut values = random.reals(n, 5.0);
        if let Some(v) = values.get_mut(20) {
            *v = f32::NAN;
        }
        let outputs = [Type::new(DType::U8, [n]), Type::new(DType::F32, []), Type::new(DType::U8, [])];
        agree(ReduceKind::DynamicQuantize, &[Tensor::vector(&values)], &outputs, 0.0);
    }
}

#[test]
fn integers_are_folded_exactly() {
    let x = Tensor::new([2, 3], &[i64::MAX, -1, 5, i64::MIN, 7, 2]).unwrap();
    let fold = |fold| {
        let out = [Type::new(DType::I64, [2, 1])];
        let kind = ReduceKind::Fold { fold, groups: Groups::new(x.shape(), &[1]) };
        run("cpu-any-reduce", &problem(&x, kind, &out), std::slice::from_ref(&x), &out)[0].to_i64().unwrap()
    };
    assert_eq!(fold(Fold::Max), [i64::MAX, 7]);
    assert_eq!(fold(Fold::Min), [-1, i64::MIN]);
    assert_eq!(fold(Fold::Sum), [i64::MAX.wrapping_add(4), i64::MIN.wrapping_add(9)]);
    assert_eq!(fold(Fold::Prod), [i64::MAX.wrapping_mul(-5), i64::MIN.wrapping_mul(14)]);
}

#[test]
fn vector_integers_are_the_references_to_the_bit() {
    let mut random = Xorshift::new(19);
    for (shape, axis) in [([3, 40], 1), ([40, 300], 0), ([1, 40_000], 1), ([300, 200], 1)] {
        let shape = Shape::from(shape);
        let values: Vec<i64> = (0..shape.numel()).map(|_| random.bits() as i64 >> random.below(60)).collect();
        let x = Tensor::new(shape.clone(), &values).unwrap();
        let folds = [Fold::Sum, Fold::Mean, Fold::Max, Fold::Min, Fold::Prod, Fold::L1, Fold::SumSquare];
        let mut kinds = folds.map(|fold| ReduceKind::Fold { fold, groups: Groups::new(&shape, &[axis]) }).to_vec();
        let mut sizes = vec![shape.numel() / shape[axis]; kinds.len()];
        kinds.push(ReduceKind::CumSum { rows: Rows::along(&shape, axis), exclusive: false, reverse: true });
        sizes.push(shape.numel());
        for (kind, n) in kinds.into_iter().zip(sizes) {
            let out = [Type::new(DType::I64, [n])];
            let problem = problem(&x, kind, &out);
            let of = |name| run(name, &problem, std::slice::from_ref(&x), &out)[0].to_i64();
            for kernel in kernel::reduce::KERNELS.iter().filter(|k| capabilities().contains(k.needs)) {
                if (kernel.accepts)(&problem).is_ok() {
                    assert_eq!(of(kernel.name), of("cpu-any-reduce"), "{} {problem:?}", kernel.name);
                }
            }
        }
    }
}

#[test]
fn empty_folds_give_the_neutral_element() {
    for (dtype, fold, want) in [
        (DType::F32, Fold::Max, f64::NEG_INFINITY),
        (DType::F32, Fold::Min, f64::INFINITY),
        (DType::F32, Fold::Sum, 0.0),
        (DType::F32, Fold::Prod, 1.0),
        (DType::F32, Fold::LogSum, f64::NEG_INFINITY),
        (DType::F32, Fold::LogSumExp, f64::NEG_INFINITY),
        (DType::I32, Fold::Max, f64::from(i32::MIN)),
        (DType::Bool, Fold::Min, 1.0),
        (DType::Bool, Fold::Max, 0.0),
    ] {
        let x = Tensor::zeros(dtype, Shape::from([2, 0])).unwrap();
        let out = [Type::new(dtype, [2])];
        let kind = ReduceKind::Fold { fold, groups: Groups::new(x.shape(), &[1]) };
        let got = run("cpu-any-reduce", &problem(&x, kind, &out), std::slice::from_ref(&x), &out);
        assert_eq!(got[0].to_f64(), [want; 2], "{dtype} {fold:?}");
    }
}

#[test]
fn arg_and_running_sums() {
    let x = Tensor::new([2, 4], &[1i32, 3, 3, 0, 5, 5, 2, 2]).unwrap();
    let rows = Rows::along(x.shape(), 1);
    let arg = |max, last| {
        let out = [Type::new(DType::I64, [2])];
        run("cpu-any-reduce", &problem(&x, ReduceKind::Arg { rows, max, last }, &out), std::slice::from_ref(&x), &out)[0]
            .to_i64()
            .unwrap()
    };
    assert_eq!((arg(true, false), arg(true, true)), (vec![1, 0], vec![2, 1]));
    assert_eq!((arg(false, false), arg(false, true)), (vec![3, 2], vec![3, 3]));
    let sums = |exclusive, reverse| {
        let out = [Type::new(DType::I32, [2, 4])];
        let kind = ReduceKind::CumSum { rows, exclusive, reverse };
        run("cpu-any-reduce", &problem(&x, kind, &out), std::slice::from_ref(&x), &out)[0].to_i64().unwrap()
    };
    assert_eq!(sums(false, false), [1, 4, 7, 7, 5, 10, 12, 14]);
    assert_eq!(sums(true, true), [6, 3, 0, 0, 9, 4, 2, 0]);
}

#[test]
fn a_skip_connection_is_normalised_with_the_input() {
    let mut random = Xorshift::new(17);
    let (rows, len) = (3, 8);
    let shape = Shape::from([rows, len]);
    let [x, skip] = [0; 2].map(|_| random.reals(rows * len, 5.0));
    let [scale, bias, own] = [0; 3].map(|_| random.reals(len, 5.0));
    let norm = |skip| {
        let factor = Some(Type::new(DType::F32, [len]));
        let affine = Affine { period: 1, per_row: len, inner: 1, shape: Shape::from([len]) };
        ReduceKind::Normalize(Normalize {
            rows,
            len,
            center: true,
            epsilon: 1e-5,
            scale: factor.clone(),
            bias: factor,
            affine,
            skip,
        })
    };
    let sum: Vec<f32> = (0..rows * len).map(|i| x[i] + skip[i] + own[i % len]).collect();
    let out = vec![Type::new(DType::F32, shape.clone()); 4];
    let full = |v: &[f32]| tensor(DType::F32, &shape, v);
    let inputs = [full(&x), full(&skip), Tensor::vector(&scale), Tensor::vector(&bias), Tensor::vector(&own)];
    let stats = Type::new(DType::F32, [rows]);
    let outputs = [out[0].clone(), stats.clone(), stats, out[3].clone()];
    let got = run("cpu-any-reduce", &problem(&inputs[0], norm(true), &outputs), &inputs, &outputs);
    let plain = [full(&sum), Tensor::vector(&scale), Tensor::vector(&bias)];
    let want = run("cpu-any-reduce", &problem(&plain[0], norm(false), &out[..1]), &plain, &out[..1]);
    for (g, w) in got[0].to_f64().iter().zip(want[0].to_f64()) {
        assert!((g - w).abs() < 1e-5, "{g} for {w}");
    }
    for (g, w) in got[3].to_f64().iter().zip(&sum) {
        assert!((g - f64::from(*w)).abs() < 1e-6, "{g} for {w}");
    }
}

#[test]
fn quantised_softmax_rounds_shares() {
    let x = Tensor::new([1, 4], &[10u8, 10, 10, 10]).unwrap();
    let inputs = [x, Tensor::scalar(0.1f32), Tensor::scalar(3u8), Tensor::scalar(1.0f32 / 256.0), Tensor::scalar(5u8)];
    let out = [Type::new(DType::U8, [1, 4])];
    let kind = ReduceKind::QuantizedSoftmax { rows: Rows { outer: 1, len: 4, inner: 1 } };
    assert_eq!(run("cpu-any-reduce", &problem(&inputs[0], kind, &out), &inputs, &out)[0].to_i64().unwrap(), [69; 4]);
}
