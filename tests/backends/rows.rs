//! Reductions, softmax, normalisations, pooling, movements and elementwise work.

use halfbyte::base::xorshift::Xorshift;
use halfbyte::base::{DType, Shape, Tensor};
use halfbyte::graph::problem::pool::Pooling;
use halfbyte::graph::problem::reduce::{Affine, BatchNorm, Fold, Groups, Normalize, ReduceKind, Rows, SoftmaxKind};
use halfbyte::graph::problem::{PoolProblem, ReduceProblem, ScalarProblem, Window};
use halfbyte::graph::{Problem, Type};
use halfbyte::scalar::bounds::Range;
use halfbyte::scalar::{Formula, Steps, arg};

use super::check::*;
use super::device::{complete, reference};

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

fn reduce(x: &Type, kind: &ReduceKind, out: DType) -> Problem {
    Problem::Reduce(ReduceProblem { x: x.clone(), out: vec![out], kind: kind.clone() })
}

/// The reduction of f64 by the reference.
fn reduced(x: &Tensor, others: &[Option<Tensor>], kind: &ReduceKind, out: &Shape) -> Vec<f64> {
    let x = mapped(&Some(x.clone()), |v| v);
    let problem = reduce(&Type::new(DType::F64, x.as_ref().unwrap().shape().clone()), kind, DType::F64);
    let inputs: Vec<_> = [x].into_iter().chain(others.iter().cloned()).collect();
    reference(&problem, &inputs, &[Type::new(DType::F64, out.clone())])[0].to_f64()
}

/// The sum that a fold is made of, its terms' magnitudes, and the formula that ends it.
fn parts(fold: Fold, n: usize) -> (Fold, Fold, Formula) {
    match fold {
        Fold::Mean => (Fold::Sum, Fold::L1, arg(0) / n as f64),
        Fold::L2 => (Fold::SumSquare, Fold::SumSquare, arg(0).sqrt()),
        Fold::LogSum => (Fold::Sum, Fold::L1, arg(0).log()),
        Fold::Sum => (Fold::Sum, Fold::L1, arg(0)),
        other => (other, other, arg(0)),
    }
}

#[test]
fn folds() {
    let mut r = Xorshift::new(7);
    let folds = [Fold::Sum, Fold::Mean, Fold::Max, Fold::Min, Fold::L1, Fold::L2, Fold::LogSum, Fold::SumSquare];
    for (shape, axes) in [
        ([3, 5, 7], vec![2]),
        ([3, 70, 65], vec![1]),
        ([200, 3, 1], vec![0]),
        ([2, 40, 33], vec![1, 2]),
        ([2, 3, 4], vec![]),
        ([2, 0, 3], vec![1]),
        ([0, 4, 3], vec![1]),
        ([64, 2, 600], vec![2]),
        ([1, 3, 8192], vec![2]),
    ] {
        let shape = Shape::from(shape);
        let out: Shape = shape.iter().enumerate().map(|(i, &d)| if axes.contains(&i) { 1 } else { d }).collect();
        let n: usize = axes.iter().map(|&a| shape[a]).product();
        for (dtype, fold) in FLOATS.into_iter().flat_map(|d| folds.map(|f| (d, f))) {
            let mut x = random(&mut r, dtype, &shape);
            if fold == Fold::LogSum {
                x = tensor(dtype, &shape, &x.to_f64().iter().map(|v| v.abs()).collect::<Vec<_>>());
            }
            let kind = |fold| ReduceKind::Fold { fold, groups: Groups::new(&shape, &axes) };
            let (sum, terms, end) = parts(fold, n);
            let [values, magnitudes] = [sum, terms].map(|f| reduced(&x, &[], &kind(f), &out));
            let exact = matches!(fold, Fold::Max | Fold::Min);
            let ranges = if exact {
                values.iter().map(|&v| Range::point(v)).collect()
            } else {
                around(&values, |i| gamma(n + 1) * magnitudes[i])
            };
            let problem = reduce(&Type::new(dtype, shape.clone()), &kind(fold), dtype);
            each_kernel(&problem, &[Some(x)], &[], Type::new(dtype, out.clone()), &stored(&ranges, &end, &[], dtype));
        }
    }
}

#[test]
fn reductions_of_integers_and_running_sums_are_exact() {
    let mut r = Xorshift::new(37);
    let folds = [Fold::Sum, Fold::Mean, Fold::Max, Fold::Min, Fold::Prod, Fold::L1, Fold::SumSquare];
    let types = [DType::I8, DType::U8, DType::I16, DType::U16, DType::I32, DType::U32, DType::I64, DType::U64];
    let mut runs = 0;
    for (shape, axis) in [([3, 5, 7], 2), ([2, 70, 265], 1), ([200, 3, 1], 0), ([0, 4, 3], 1), ([1, 1, 9000], 2), ([2, 0, 3], 1)]
    {
        let shape = Shape::from(shape);
        let rows = Rows::along(&shape, axis);
        let folded: Shape = shape.iter().enumerate().map(|(i, &d)| if i == axis { 1 } else { d }).collect();
        let flags = [(false, false), (false, true), (true, false), (true, true)];
        let sums = flags.map(|(exclusive, reverse)| (ReduceKind::CumSum { rows, exclusive, reverse }, false, shape.clone()));
        let args = flags.map(|(max, last)| (ReduceKind::Arg { rows, max, last }, true, folded.clone()));
        let folds = folds.map(|fold| (ReduceKind::Fold { fold, groups: Groups::new(&shape, &[axis]) }, false, folded.clone()));
        let kinds =
            |dtype: DType| folds.iter().filter(move |_| dtype.is_int()).chain(&sums).chain(&args).map(move |k| (dtype, k));
        for (dtype, (kind, index, out)) in types.into_iter().chain(FLOATS).flat_map(kinds) {
            let x = random(&mut r, dtype, &shape);
            let out = Type::new(if *index { DType::I64 } else { dtype }, out.clone());
            let problem = reduce(&Type::new(dtype, shape.clone()), kind, out.dtype);
            // Of floats, f64 adds up the same terms in the same order everywhere.
            let want = reference(&problem, &[Some(x.clone())], std::slice::from_ref(&out))[0].to_f64();
            runs += each_kernel(&problem, &[Some(x)], &[], out, &want.into_iter().map(Range::point).collect::<Vec<_>>());
        }
    }
    assert!(runs >= 2 * 6 * types.len() * (folds.len() + 8) * complete().min(1));
}

/// What a softmax may give: `exp` is within 2 ulp of its rounded argument, and gives 0 below -87.3.
fn shares(x: &[f64], rows: Rows, kind: SoftmaxKind) -> Vec<Range> {
    let mut allowed = vec![Range::point(0.0); x.len()];
    for row in 0..rows.count() {
        let places: Vec<usize> = (0..rows.len).map(|i| rows.start(row) + i * rows.inner).collect();
        let most = places.iter().map(|&i| x[i]).fold(f64::NEG_INFINITY, f64::max);
        let below: Vec<f64> = places.iter().map(|&i| x[i] - most).collect();
        let sum: f64 = below.iter().map(|d| d.exp()).sum();
        // Of e^d: |d| u from the subtraction, 4 u from exp. Of the sum: the mean of that, and of n additions.
        let of = |d: f64| if d.is_infinite() { 0.0 } else { (d.abs() + 4.0) * U };
        let of_sum = below.iter().map(|&d| d.exp() / sum * of(d)).sum::<f64>() + gamma(rows.len) + rows.len as f64 * 1.3e-38;
        for (&i, &d) in places.iter().zip(&below) {
            let log = d - sum.ln();
            allowed[i] = match kind {
                _ if sum.is_nan() => Range::point(f64::NAN),
                SoftmaxKind::LogSoftmax => Range::around(log, 2.0 * (of(d) + of_sum) + 8.0 * U * (log.abs() + sum.ln())),
                _ => Range::around(d.exp() / sum, d.exp() / sum * 1.01 * (of(d) + of_sum + 2.0 * U) + 1.3e-38),
            };
        }
    }
    allowed
}

#[test]
fn softmax() {
    let mut r = Xorshift::new(9);
    for (shape, axis) in [([4, 9, 33], 2), ([2, 9, 70], 1), ([130, 3, 5], 0), ([3, 0, 2], 1), ([0, 2, 2], 2), ([3, 2, 8192], 2)] {
        let shape = Shape::from(shape);
        let rows = Rows::along(&shape, axis);
        for (dtype, spread, extreme) in FLOATS.into_iter().flat_map(|d| [(d, 1.0, false), (d, 40.0, false), (d, 1.0, true)]) {
            let mut values: Vec<f64> = random(&mut r, dtype, &shape).to_f64().iter().map(|v| v * spread).collect();
            for (i, v) in [f64::NEG_INFINITY, f64::INFINITY, f64::NAN].into_iter().enumerate().filter(|_| extreme) {
                if let Some(x) = values.get_mut(i * 67) {
                    *x = v;
                }
            }
            if extreme && values.len() > 400 {
                values[297..330].fill(f64::NEG_INFINITY);
            }
            let x = tensor(dtype, &shape, &values);
            for kind in [SoftmaxKind::Softmax, SoftmaxKind::LogSoftmax] {
                let allowed = rounded(&shares(&x.to_f64(), rows, kind), dtype);
                let problem = reduce(&Type::new(dtype, shape.clone()), &ReduceKind::Softmax { rows, kind }, dtype);
                each_kernel(&problem, &[Some(x.clone())], &[], Type::new(dtype, shape.clone()), &allowed);
            }
        }
    }
}

/// What a normalised row may hold, by the errors of mean, deviations, variance and factor in turn.
fn normalised(x: &[f64], center: bool, epsilon: f64, scale: &[f64], bias: &[f64]) -> Vec<Range> {
    let n = x.len() as f64;
    let mean = if center { x.iter().sum::<f64>() / n } else { 0.0 };
    let of_mean = if center { gamma(x.len() + 1) * x.iter().map(|v| v.abs()).sum::<f64>() / n } else { 0.0 };
    let d: Vec<f64> = x.iter().map(|v| v - mean).collect();
    let of_d: Vec<f64> = d.iter().map(|d| of_mean + U * (d.abs() + of_mean)).collect();
    let variance = d.iter().map(|d| d * d).sum::<f64>() / n;
    let of_squares = d.iter().zip(&of_d).map(|(d, e)| 2.0 * d.abs() * e + e * e).sum::<f64>() / n;
    let of_variance = of_squares + gamma(x.len() + 2) * (variance + of_squares) + U * (variance + epsilon);
    let inverse = 1.0 / (variance + epsilon).sqrt();
    let of_inverse = of_variance / (variance + epsilon) + 4.0 * U;
    let one = |j: usize| {
        let y = d[j] * inverse * scale[j];
        let off = of_d[j] * inverse * scale[j].abs() + y.abs() * of_inverse;
        Range::around(y + bias[j], 1.01 * off + 4.0 * U * (y.abs() + bias[j].abs()))
    };
    (0..x.len()).map(one).collect()
}

#[test]
fn normalisations() {
    let mut r = Xorshift::new(11);
    for (rows, len) in [(5, 33), (64, 384), (0, 8), (3, 8192), (7, 1)] {
        for (dtype, center) in FLOATS.into_iter().flat_map(|d| [(d, true), (d, false)]) {
            let shape = [rows, len];
            let factors = Type::new(DType::F32, [len]);
            let affine = Affine { period: 1, per_row: len, inner: 1, shape: Shape::from([len]) };
            let (epsilon, skip) = (1e-5, false);
            let (scale, bias) = (Some(factors.clone()), Some(factors));
            let kind = ReduceKind::Normalize(Normalize { rows, len, center, epsilon, scale, bias, affine, skip });
            let [x, scale, bias] =
                [(dtype, &shape[..]), (DType::F32, &[len]), (DType::F32, &[len])].map(|(d, s)| random(&mut r, d, s));
            let (values, s, b) = (x.to_f64(), scale.to_f64(), bias.to_f64());
            let ranges: Vec<Range> =
                values.chunks(len).flat_map(|row| normalised(row, center, f64::from(epsilon), &s, &b)).collect();
            let problem = reduce(&Type::new(dtype, shape), &kind, dtype);
            let inputs = [Some(x), Some(scale), Some(bias)];
            each_kernel(&problem, &inputs, &[], Type::new(dtype, shape), &rounded(&ranges, dtype));
        }
    }
}

/// What f32 may make of values computed in f64 from a few hundred terms of these magnitudes.
fn nearly(want: &Tensor, dtype: DType) -> Vec<Range> {
    let values = want.to_f64();
    rounded(&around(&values, |i| gamma(256) * (1.0 + values[i].abs())), dtype)
}

/// Runs a reduction of several inputs and outputs by every kernel, against the reference in f64.
fn against_reference(x: &Type, inputs: &[Option<Tensor>], kind: &ReduceKind, outputs: &[Type]) -> usize {
    let of = |dtype: fn(DType) -> DType| outputs.iter().map(|o| Type::new(dtype(o.dtype), o.shape.clone())).collect::<Vec<_>>();
    let problem = |x: DType, all: &[Type], shape: &Shape| {
        let out = all.iter().map(|o| o.dtype).collect();
        Problem::Reduce(ReduceProblem { x: Type::new(x, shape.clone()), out, kind: kind.clone() })
    };
    let [wide, _] = exact(inputs);
    let wanted = of(|_| DType::F64);
    let want = reference(&problem(DType::F64, &wanted, &x.shape), &wide, &wanted);
    let allowed: Vec<_> = outputs.iter().cloned().zip(want.iter().zip(outputs).map(|(w, o)| nearly(w, o.dtype))).collect();
    all_outputs(&problem(x.dtype, &of(|d| d), &x.shape), inputs, &[], &allowed)
}

#[test]
fn rarer_reductions() {
    let mut r = Xorshift::new(71);
    let shape = Shape::from([3, 4, 6, 10]);
    let groups = |axes: &[usize]| Groups::new(&shape, axes);
    let folds = [
        (Fold::LogSumExp, vec![3]),
        (Fold::LogSumExp, vec![1, 3]),
        (Fold::Prod, vec![2]),
        (Fold::Sum, vec![0, 2]),
        (Fold::Max, vec![1, 3]),
        (Fold::Min, vec![0, 2, 3]),
        (Fold::Mean, vec![0, 3]),
    ];
    let mut runs = 0;
    for dtype in FLOATS.into_iter().chain([DType::F64]) {
        let x = tensor(dtype, &shape, &(0..shape.numel()).map(|_| r.unit() * 3.0 - 1.5).collect::<Vec<_>>());
        let (of, inputs) = (Type::new(dtype, shape.clone()), [Some(x)]);
        for (fold, axes) in &folds {
            let out: Shape = shape.iter().enumerate().map(|(i, &d)| if axes.contains(&i) { 1 } else { d }).collect();
            let kind = ReduceKind::Fold { fold: *fold, groups: groups(axes) };
            runs += against_reference(&of, &inputs, &kind, &[Type::new(dtype, out)]);
        }
        for rows in [2, 3].map(|axis| Rows::along(&shape, axis)) {
            let kinds = [
                ReduceKind::Softmax { rows, kind: SoftmaxKind::Hardmax },
                ReduceKind::Softmax { rows, kind: SoftmaxKind::LogSoftmax },
            ];
            for kind in kinds.into_iter().chain([1, 2].map(|p| ReduceKind::LpNormalize { rows, p })) {
                runs += against_reference(&of, &inputs, &kind, std::slice::from_ref(&of));
            }
        }
        for axes in [&[0, 2, 3][..], &[2, 3]] {
            let kind = ReduceKind::Standardize { groups: groups(axes), epsilon: 1e-6 };
            runs += against_reference(&of, &inputs, &kind, std::slice::from_ref(&of));
        }
    }
    assert!(runs >= 4 * (7 + 8 + 2));
}

/// Folds of groups that are cut into parts.
#[test]
fn folds_of_long_groups() {
    let mut r = Xorshift::new(73);
    for (shape, axis) in [([2, 70_000], 1), ([2, 33_001], 1), ([5_000, 9], 0)] {
        let shape = Shape::from(shape);
        // Of one sign: sums that cancel would have a bound that says nothing.
        let values: Vec<f64> = random(&mut r, DType::F32, &shape).to_f64().iter().map(|v| v.abs() + 0.5).collect();
        let x = tensor(DType::F32, &shape, &values);
        let out: Shape = shape.iter().enumerate().map(|(i, &d)| if i == axis { 1 } else { d }).collect();
        for fold in [Fold::Mean, Fold::Min, Fold::L2] {
            let kind = |fold| ReduceKind::Fold { fold, groups: Groups::new(&shape, &[axis]) };
            let (sum, terms, end) = parts(fold, shape[axis]);
            let [values, magnitudes] = [sum, terms].map(|f| reduced(&x, &[], &kind(f), &out));
            let terms = if fold == Fold::Min { 0 } else { shape[axis] + 1 };
            let ranges = around(&values, |i| gamma(terms) * magnitudes[i]);
            let problem = reduce(&Type::new(DType::F32, shape.clone()), &kind(fold), DType::F32);
            let out = Type::new(DType::F32, out.clone());
            each_kernel(&problem, &[Some(x.clone())], &[], out, &stored(&ranges, &end, &[], DType::F32));
        }
    }
}

#[test]
fn normalisations_of_groups_with_skips_and_statistics() {
    let mut r = Xorshift::new(79);
    let mut of = |dtype: DType, shape: &[usize]| {
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| r.unit() * 2.0 - 0.7).collect();
        Some(tensor(dtype, shape, &values))
    };
    for dtype in FLOATS {
        // Groups of channels with a factor for each channel, in an image of 2 by 6 channels by 5 pixels.
        let affine = Affine { period: 3, per_row: 2, inner: 5, shape: Shape::from([6]) };
        let factors = Some(Type::new(dtype, [6]));
        let (scale, bias) = (factors.clone(), factors);
        let norm = Normalize { rows: 6, len: 10, center: true, epsilon: 1e-3, scale, bias, affine, skip: false };
        let x = Type::new(dtype, [2, 6, 5]);
        let inputs = [of(dtype, &[2, 6, 5]), of(dtype, &[6]), of(dtype, &[6])];
        against_reference(&x, &inputs, &ReduceKind::Normalize(norm), std::slice::from_ref(&x));
        // Rows of even and odd length with a skip connection and all four outputs.
        for (len, center) in [(24, true), (33, false)] {
            let affine = Affine { period: 1, per_row: len, inner: 1, shape: Shape::from([len]) };
            let (scale, bias) = (Some(Type::new(dtype, [len])), center.then(|| Type::new(dtype, [len])));
            let norm = Normalize { rows: 5, len, center, epsilon: 1e-3, scale, bias, affine, skip: true };
            let x = Type::new(dtype, [5, len]);
            let inputs = [
                of(dtype, &[5, len]),
                of(dtype, &[5, len]),
                of(dtype, &[len]),
                of(dtype, &[len]).filter(|_| center),
                of(dtype, &[len]),
            ];
            let statistics = Type::new(DType::F32, [5, 1]);
            let outputs = [x.clone(), statistics.clone(), statistics, x.clone()];
            against_reference(&x, &inputs, &ReduceKind::Normalize(norm), &outputs);
        }
        for training in [false, true] {
            let norm = BatchNorm { batch: 3, channels: 4, inner: 7, epsilon: 1e-3, momentum: 0.9, training };
            let x = Type::new(dtype, [3, 4, 7]);
            let variance =
                of(dtype, &[4]).map(|t| tensor(dtype, &[4], &t.to_f64().iter().map(|v| v.abs() + 0.1).collect::<Vec<_>>()));
            let inputs = [of(dtype, &[3, 4, 7]), of(dtype, &[4]), of(dtype, &[4]), of(dtype, &[4]), variance];
            let running = Type::new(dtype, [4]);
            let outputs = if training { vec![x.clone(), running.clone(), running] } else { vec![x.clone()] };
            against_reference(&x, &inputs, &ReduceKind::BatchNorm(norm), &outputs);
        }
    }
}

#[test]
fn quantisation_by_range_is_exact_and_quantised_softmax_one_step_off_at_most() {
    let mut r = Xorshift::new(83);
    for n in [0, 1, 7, 4099, 20_000] {
        let x = random(&mut r, DType::F32, &[n]);
        let types = [Type::new(DType::U8, [n]), Type::new(DType::F32, []), Type::new(DType::U8, [])];
        let problem = Problem::Reduce(ReduceProblem {
            x: Type::new(DType::F32, [n]),
            out: types.iter().map(|t| t.dtype).collect(),
            kind: ReduceKind::DynamicQuantize,
        });
        let want = reference(&problem, &[Some(x.clone())], &types);
        let exactly = |t: &Tensor| t.to_f64().into_iter().map(Range::point).collect::<Vec<_>>();
        let allowed: Vec<_> = types.into_iter().zip(want.iter().map(exactly)).collect();
        all_outputs(&problem, &[Some(x)], &[], &allowed);
    }
    for dtype in [DType::U8, DType::I8] {
        let shape = Shape::from([3, 20, 5]);
        let (out, rows) = (Type::new(dtype, shape.clone()), Rows::along(&shape, 1));
        let scale = |v: f32| Some(Tensor::vector(&[v]));
        let zero = |v: f64| Some(tensor(dtype, &[1], &[v]));
        let inputs = [Some(random(&mut r, dtype, &shape)), scale(0.02), zero(3.0), scale(1.0 / 256.0), zero(1.0)];
        let problem = reduce(&out, &ReduceKind::QuantizedSoftmax { rows }, dtype);
        let want = reference(&problem, &inputs, std::slice::from_ref(&out))[0].to_f64();
        let allowed: Vec<Range> = want.iter().map(|&v| Range::around(v, 1.0)).collect();
        each_kernel(&problem, &inputs, &[], out, &allowed);
    }
}

/// Each window's taps as positions of a plane, and how many there are counting padding.
fn windows(w: &Window) -> Vec<(Vec<usize>, usize)> {
    let mut all = Vec::new();
    for (oy, ox) in (0..w.output[0]).flat_map(|y| (0..w.output[1]).map(move |x| (y, x))) {
        let (mut taps, mut counted) = (Vec::new(), 0);
        for (ky, kx) in (0..w.kernel[0]).flat_map(|y| (0..w.kernel[1]).map(move |x| (y, x))) {
            let at = |o: usize, k: usize, a: usize| (o * w.strides[a] + k * w.dilations[a]) as i64 - w.pads[a];
            let (y, x) = (at(oy, ky, 0), at(ox, kx, 1));
            let within = |v: i64, a: usize, end: i64| v < w.input[a] as i64 + end;
            counted += usize::from(within(y, 0, w.pads_end[0]) && within(x, 1, w.pads_end[1]));
            if y >= 0 && x >= 0 && within(y, 0, 0) && within(x, 1, 0) {
                taps.push(y as usize * w.input[1] + x as usize);
            }
        }
        all.push((taps, counted));
    }
    all
}

#[test]
fn pools() {
    let mut r = Xorshift::new(21);
    for round in 0..40 {
        let mut pick = |n: usize| [1 + r.below(n), 1 + r.below(n)].to_vec();
        let (kernel, strides, dilations) = (pick(4), pick(3), pick(2));
        let input: Vec<usize> = (0..2).map(|a| (kernel[a] - 1) * dilations[a] + 1 + r.below(20)).collect();
        let pads: Vec<i64> = (0..2).map(|a| r.below(kernel[a]) as i64).collect();
        let extent = |a: usize| input[a] + 2 * pads[a] as usize - (kernel[a] - 1) * dilations[a] - 1;
        let output = (0..2).map(|a| extent(a) / strides[a] + 1).collect();
        let pooling = match round % 3 {
            0 => Pooling::Max { indices: false, column_major: false },
            1 => Pooling::Average { include_pad: false },
            _ => Pooling::Average { include_pad: true },
        };
        let (planes, dtype) = (r.below(5), FLOATS[round % 2]);
        let window = Window { input, output, kernel, strides, dilations, pads_end: pads.clone(), pads };
        let x = random(&mut r, dtype, &[planes, window.input[0], window.input[1]]);
        let mut allowed = Vec::new();
        for plane in x.to_f64().chunks(window.input[0] * window.input[1]) {
            for (taps, counted) in windows(&window) {
                let values = || taps.iter().map(|&t| plane[t]);
                allowed.push(match pooling {
                    Pooling::Max { .. } => Range::point(values().fold(f64::NEG_INFINITY, f64::max)),
                    _ => {
                        let n = if round % 3 == 2 { counted } else { taps.len() }.max(1) as f64;
                        let magnitude = values().map(f64::abs).sum::<f64>();
                        Range::around(values().sum::<f64>() / n, gamma(taps.len() + 2) * magnitude / n)
                    }
                });
            }
        }
        let out = Type::new(dtype, [planes, window.output[0], window.output[1]]);
        let p = PoolProblem { pooling, planes, window, dtype };
        each_kernel(&Problem::Pool(p), &[Some(x)], &[], out, &rounded(&allowed, dtype));
    }
}

#[test]
fn elementwise_formulas_over_broadcast_operands() {
    let mut r = Xorshift::new(29);
    let formulas = [
        arg(0) * arg(0).sigmoid() + arg(1),
        (arg(0) - arg(1)).abs().sqrt() / (arg(1).abs() + 1.0),
        arg(0).less(arg(1)).select(arg(0).exp(), arg(1).erf()),
        (arg(0) / arg(1)).round().clip(-128.0, 127.0),
    ];
    for (formula, (i, dtype)) in formulas.iter().flat_map(|f| FLOATS.into_iter().enumerate().map(move |d| (f, d))) {
        for shape in [[3, 1, 5], [0, 4, 4], [7, 33, 65]] {
            let out = [DType::F32, dtype, DType::I8][i];
            let b: Vec<usize> = vec![shape[1], 1];
            let inputs = [random(&mut r, dtype, &shape), random(&mut r, dtype, &b)];
            let [x, y] = [0, 1].map(|i| inputs[i].to_f64());
            let steps = Steps::compile(formula, &[dtype; 2], out).unwrap();
            let allowed: Vec<Range> =
                (0..x.len()).map(|i| enclosed(&steps, &[Range::point(x[i]), Range::point(y[i / shape[2] % shape[1]])])).collect();
            let operands = inputs.iter().map(|t| Type::new(dtype, t.shape().clone())).collect();
            let out = Type::new(out, shape);
            let problem = Problem::Scalar(ScalarProblem { formula: formula.clone(), operands, out: out.clone() });
            each_kernel(&problem, &inputs.map(Some), &[], out, &allowed);
        }
    }
}
