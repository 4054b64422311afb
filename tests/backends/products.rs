//! Matrix products and convolutions.

use halfbyte::base::xorshift::Xorshift;
use halfbyte::base::{DType, Shape, Tensor};
use halfbyte::graph::problem::conv::{ConvQuant, Requantize};
use halfbyte::graph::problem::{ConvProblem, EpilogueSpec, GemmProblem, Window};
use halfbyte::graph::{Attr, Lower, Node, Operand, Problem, Site, Type, find};
use halfbyte::scalar::bounds::Range;
use halfbyte::scalar::{arg, constant};

use super::check::*;
use super::device::{self, reference};

fn lower(op: &str, attrs: &[(&str, Attr)], inputs: &[Option<Tensor>]) -> Problem {
    lower_in("", op, attrs, inputs)
}

pub fn lower_in(domain: &str, op: &str, attrs: &[(&str, Attr)], inputs: &[Option<Tensor>]) -> Problem {
    lower_to(domain, op, attrs, inputs, &[])
}

/// The same of an operator whose problem depends on the types of its outputs.
pub fn lower_to(domain: &str, op: &str, attrs: &[(&str, Attr)], inputs: &[Option<Tensor>], outputs: &[Type]) -> Problem {
    let mut node = Node::new(domain, op, 17, vec![None; inputs.len()], vec![None]);
    node.attrs = attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
    let operand = |t: &Tensor| Operand { ty: Type::new(t.dtype(), t.shape().clone()), value: None };
    let operands: Vec<Option<Operand>> = inputs.iter().map(|t| t.as_ref().map(operand)).collect();
    let Lower::Family(lower) = find(domain, op).unwrap().lower else { panic!("{op} is of no family") };
    lower(&Site { node: &node, inputs: &operands }, outputs).unwrap()
}

pub fn gemm(problem: &Problem) -> &GemmProblem {
    let Problem::Gemm(p) = problem else { panic!("no matrix product: {problem:?}") };
    p
}

/// Every result as f64 and the sum of its terms' magnitudes, by the reference.
fn sums(op: &str, attrs: &[(&str, Attr)], inputs: &[Option<Tensor>]) -> [Vec<f64>; 2] {
    let positive: Vec<(&str, Attr)> =
        attrs.iter().map(|(name, v)| (*name, if let Attr::Float(v) = v { Attr::Float(v.abs()) } else { v.clone() })).collect();
    let [values, magnitudes] = exact(inputs);
    [(attrs, values), (&positive, magnitudes)].map(|(attrs, inputs)| {
        let problem = lower(op, attrs, &inputs);
        reference(&problem, &inputs, &[Type::new(DType::F64, gemm(&problem).shape.clone())])[0].to_f64()
    })
}

const EXTENTS: [usize; 14] = [0, 1, 2, 3, 7, 8, 13, 16, 29, 33, 65, 130, 257, 300];

fn product(r: &mut Xorshift, dtype: DType, [m, n, k]: [usize; 3]) -> usize {
    let inputs = [Some(random(r, dtype, &[m, k])), Some(random(r, dtype, &[k, n]))];
    let problem = lower("MatMul", &[], &inputs);
    let [values, magnitudes] = sums("MatMul", &[], &inputs);
    let allowed = rounded(&around(&values, |i| gamma(k + 1) * magnitudes[i]), dtype);
    each_kernel(&problem, &inputs, &[1], Type::new(dtype, [m, n]), &allowed)
}

#[test]
fn float_products() {
    let mut r = Xorshift::new(7);
    let mut runs = 0;
    for _ in 0..24 {
        let shape = std::array::from_fn(|_| EXTENTS[r.below(EXTENTS.len())]);
        runs += [DType::F32, DType::F16, DType::BF16].map(|d| product(&mut r, d, shape)).iter().sum::<usize>();
    }
    for shape in [[1, 40, 8192], [5, 33, 4096], [64, 64, 2500], [90, 130, 700]] {
        runs += product(&mut r, DType::F32, shape);
    }
    println!("{runs} runs");
    assert!(runs >= 24 * 3 * 2);
}

#[test]
fn transposed_scaled_products_with_addends() {
    let mut r = Xorshift::new(10);
    for i in 0..32 {
        let (ta, tb) = (i & 1, i >> 1 & 1);
        let [m, n, k] = std::array::from_fn(|_| 1 + r.below(40));
        let (a, b) = (if ta == 1 { [k, m] } else { [m, k] }, if tb == 1 { [n, k] } else { [k, n] });
        let c = &[vec![m, n], vec![n], vec![m, 1], vec![]][i % 4];
        let inputs = [&a[..], &b, c].map(|shape| Some(random(&mut r, DType::F32, shape)));
        let flag = |v: usize| Attr::Int(v as i64);
        let scale = |v: f32| Attr::Float(v);
        let beta = if i < 16 { 1.0 } else { -2.0 };
        let attrs = [("transA", flag(ta)), ("transB", flag(tb)), ("alpha", scale(0.3)), ("beta", scale(beta))];
        let [values, magnitudes] = sums("Gemm", &attrs, &inputs);
        let allowed = rounded(&around(&values, |i| gamma(k + 4) * magnitudes[i]), DType::F32);
        each_kernel(&lower("Gemm", &attrs, &inputs), &inputs, &[1], Type::new(DType::F32, [m, n]), &allowed);
    }
}

#[test]
fn epilogues_of_products() {
    let mut r = Xorshift::new(11);
    let sum = || arg(0) + arg(1);
    let formulas = [
        (arg(0) + arg(1)).max(constant(0.0)),
        sum(),
        (arg(0) * constant(2.0) - arg(1)).tanh(),
        sum().sigmoid() * arg(0),
        (sum() * 0.1).exp(),
        (sum() / 8.0).round().cast(DType::I8),
    ];
    for (i, formula) in formulas.iter().cycle().take(24).enumerate() {
        let out = if i % 6 == 5 { DType::I8 } else { [DType::F32, DType::F16][i / 6 % 2] };
        let [m, n, k] = std::array::from_fn(|_| 1 + r.below(200));
        let mut inputs = vec![Some(random(&mut r, DType::F32, &[m, k])), Some(random(&mut r, DType::F32, &[k, n]))];
        let [values, magnitudes] = sums("MatMul", &[], &inputs);
        let operand = random(&mut r, DType::F32, &[if i % 2 == 0 { 1 } else { m }, n]);
        let each = operand.to_f64();
        let each: Vec<f64> = (0..m * n).map(|at| each[at % each.len()]).collect();
        let mut problem = lower("MatMul", &[], &inputs);
        let operands = vec![Type::new(DType::F32, operand.shape().clone())];
        inputs.push(Some(operand));
        problem.with_epilogue(EpilogueSpec { formula: formula.clone(), operands, out }).unwrap();
        let sums = around(&values, |i| gamma(k + 1) * magnitudes[i]);
        let allowed = stored(&sums, formula, &[(DType::F32, each)], out);
        each_kernel(&problem, &inputs, &[1], Type::new(out, [m, n]), &allowed);
    }
}

/// `sum (a - a_zero) (b - b_zero)` in i64.
fn integer_product(inputs: &[Option<Tensor>], [m, n, k]: [usize; 3]) -> Vec<Range> {
    let ints = |i: usize| inputs[i].as_ref().map(|t| t.to_i64().unwrap());
    let (a, b) = (ints(0).unwrap(), ints(1).unwrap());
    let zero = |z: &Option<Vec<i64>>, i: usize| z.as_ref().map_or(0, |z| z[i % z.len()]);
    let (za, zb) = (ints(2), ints(3));
    let mut sums = Vec::new();
    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
        let (za, zb) = (zero(&za, i), zero(&zb, j));
        sums.push((0..k).map(|l| (a[i * k + l] - za) * (b[l * n + j] - zb)).sum::<i64>() as i32);
    }
    sums.into_iter().map(|s| Range::point(s.into())).collect()
}

#[test]
fn integer_products_are_exact() {
    let mut r = Xorshift::new(12);
    for i in 0..36 {
        let [m, n, k] = std::array::from_fn(|_| EXTENTS[r.below(EXTENTS.len())]);
        let [m, n, k] = if i % 9 == 0 { [m.min(17), n.min(40), 8192] } else { [m.min(130), n.min(130), k] };
        let (ta, tb) = ([DType::U8, DType::I8][i & 1], [DType::U8, DType::I8][i >> 1 & 1]);
        let (rows, columns) = if i >> 2 & 1 == 1 { (vec![m], vec![n]) } else { (vec![], vec![1]) };
        let inputs = [
            Some(random(&mut r, ta, &[m, k])),
            Some(random(&mut r, tb, &[k, n])),
            (i % 3 > 0).then(|| random(&mut r, ta, &rows)),
            (i % 5 > 0).then(|| random(&mut r, tb, &columns)),
        ];
        let want = integer_product(&inputs, [m, n, k]);
        let problem = lower("MatMulInteger", &[], &inputs);
        assert!(each_kernel(&problem, &inputs, &[1], Type::new(DType::I32, [m, n]), &want) >= 2);
    }
    // Sums that saturate where pairs are added in 16 bits.
    for (a, b) in [(255.0, -128.0), (255.0, 127.0), (0.0, -128.0)] {
        let shape = [15, 33, 1000];
        let inputs =
            [Some(tensor(DType::U8, &[15, 1000], &[a; 15_000])), Some(tensor(DType::I8, &[1000, 33], &[b; 33_000])), None, None];
        let want = integer_product(&inputs, shape);
        each_kernel(&lower("MatMulInteger", &[], &inputs), &inputs, &[1], Type::new(DType::I32, [15, 33]), &want);
    }
}

pub fn geometry(r: &mut Xorshift, transposed: bool) -> ConvProblem {
    let rank = 1 + r.below(2);
    geometry_of(r, rank, transposed)
}

fn geometry_of(r: &mut Xorshift, rank: usize, transposed: bool) -> ConvProblem {
    let depthwise = r.below(3) == 0;
    let [groups, cg, mg] = if depthwise { [1 + r.below(7), 1, 1] } else { [1 + r.below(3), 1 + r.below(20), 1 + r.below(30)] };
    let pick = |r: &mut Xorshift, n: usize| (0..rank).map(|_| 1 + r.below(n)).collect::<Vec<_>>();
    let (kernel, strides, dilations) = (pick(r, 5), pick(r, 3), pick(r, 2));
    let input: Vec<usize> = (0..rank).map(|i| (kernel[i] - 1) * dilations[i] + 1 + r.below(30)).collect();
    let pads: Vec<i64> = (0..rank).map(|_| r.below(3) as i64).collect();
    let output = (0..rank).map(|i| {
        let extent = (kernel[i] - 1) * dilations[i] + 1;
        if transposed {
            ((input[i] - 1) * strides[i] + extent).saturating_sub(pads[i] as usize).max(1)
        } else {
            (input[i] + pads[i] as usize - extent) / strides[i] + 1
        }
    });
    let output = output.collect();
    let pads_end = vec![0; rank];
    ConvProblem {
        n: r.below(3),
        c: groups * cg,
        m: groups * mg,
        groups,
        window: Window { input, output, kernel, strides, dilations, pads, pads_end },
        transposed,
        x: DType::F32,
        w: DType::F32,
        w_as: DType::F32,
        y: DType::F32,
        x_at: 0,
        w_at: 1,
        b_at: Some(2),
        own_inputs: 3,
        quant: None,
        epilogue: None,
    }
}

pub fn operands(r: &mut Xorshift, p: &ConvProblem) -> Vec<Option<Tensor>> {
    let x: Vec<usize> = [p.n, p.c].into_iter().chain(p.window.input.iter().copied()).collect();
    let w = if p.transposed { [p.c, p.m / p.groups] } else { [p.m, p.c / p.groups] };
    let w: Vec<usize> = w.into_iter().chain(p.window.kernel.iter().copied()).collect();
    vec![Some(random(r, p.x, &x)), Some(random(r, p.w, &w)), Some(random(r, DType::F32, &[p.m]))]
}

/// The same convolution of f64 by the reference.
fn convolved(p: &ConvProblem, inputs: &[Option<Tensor>]) -> Vec<f64> {
    let [x, w, y] = [DType::F64; 3];
    let wide = ConvProblem { x, w, y, w_as: w, quant: None, epilogue: None, ..p.clone() };
    reference(&Problem::Conv(wide), inputs, &[Type::new(DType::F64, p.out_shape())])[0].to_f64()
}

#[test]
fn float_convolutions() {
    let mut r = Xorshift::new(77);
    for round in 0..32 {
        let mut p = geometry(&mut r, round % 4 == 3);
        if round % 8 == 7 {
            // Taps that do not meet: transposed, each output pixel is one input pixel's.
            let w = &mut p.window;
            w.input[0] += round * 20;
            (w.strides, w.pads) = (w.kernel.clone(), vec![0; w.kernel.len()]);
            (w.dilations, w.output) = (vec![1; w.kernel.len()], w.input.iter().zip(&w.kernel).map(|(i, k)| i * k).collect());
        }
        let mut inputs = operands(&mut r, &p);
        let [values, magnitudes] = exact(&inputs).map(|i| convolved(&p, &i));
        let terms = p.c / p.groups * p.window.taps() + 1;
        let sums = around(&values, |i| gamma(terms + 1) * magnitudes[i]);
        let mut stored_as = DType::F32;
        let allowed = if round % 2 == 0 || round % 16 == 7 {
            let pixels = p.window.pixels();
            let by_channel: Vec<usize> = std::iter::once(p.m).chain(p.window.output.iter().map(|_| 1)).collect();
            let [full, channel] = [&p.out_shape()[..], &by_channel].map(|s| random(&mut r, DType::F32, s));
            let channels = channel.to_f64();
            let each: Vec<f64> = (0..sums.len()).map(|i| channels[i / pixels % p.m]).collect();
            let mut formula = (arg(0) + arg(1)).tanh() * arg(2);
            let mut given = vec![(DType::F32, full.to_f64()), (DType::F32, each)];
            let mut operands = [&full, &channel].map(|t| Type::new(DType::F32, t.shape().clone())).to_vec();
            inputs.extend([Some(full), Some(channel)]);
            if round % 4 == 0 {
                // As QuantizeLinear ends, with a zero point of one byte.
                stored_as = [DType::I8, DType::U8][round / 4 % 2];
                let (zero, (lo, hi)) = (random(&mut r, stored_as, &[]), stored_as.int_range().unwrap());
                formula = ((formula / 0.013).round() + arg(3)).clip(lo as f64, hi as f64);
                given.push((stored_as, vec![zero.to_f64()[0]; sums.len()]));
                operands.push(Type::new(stored_as, Shape::scalar()));
                inputs.push(Some(zero));
            }
            let spec = EpilogueSpec { formula: formula.clone(), operands, out: stored_as };
            Problem::Conv(p.clone()).with_epilogue(spec.clone()).unwrap();
            p.epilogue = Some(spec);
            stored(&sums, &formula, &given, stored_as)
        } else {
            rounded(&sums, DType::F32)
        };
        let out = Type::new(stored_as, p.out_shape());
        each_kernel(&Problem::Conv(p), &inputs, &[1, 2], out, &allowed);
    }
}

#[test]
fn convolutions_of_other_types_and_of_f16_weights() {
    let mut r = Xorshift::new(78);
    let mut runs = 0;
    for round in 0..16 {
        let mut p = geometry_of(&mut r, 1 + round % 3, round % 8 == 7);
        let dtype = [DType::F16, DType::BF16, DType::F32, DType::F64][round % 4];
        let lowered = dtype == DType::F32;
        (p.x, p.w, p.w_as, p.y) = (dtype, dtype, if lowered { DType::F16 } else { dtype }, dtype);
        if round % 5 == 4 {
            // Many output channels of few pixels.
            p.m = p.groups * (60 + r.below(100));
            p.n = p.n.min(1);
        }
        let mut inputs = operands(&mut r, &p);
        inputs[2] = Some(random(&mut r, dtype, &[p.m]));
        let mut known = inputs.clone();
        if lowered {
            // An image that f16 holds, since a kernel may round it as well.
            let half = |t: &Option<Tensor>| t.as_ref().map(|t| tensor(DType::F16, t.shape(), &t.to_f64()));
            inputs[0] = half(&inputs[0]).map(|t| tensor(DType::F32, t.shape(), &t.to_f64()));
            known = vec![inputs[0].clone(), half(&inputs[1]), inputs[2].clone()];
        }
        let [values, magnitudes] = exact(&known).map(|i| convolved(&p, &i));
        let terms = p.c / p.groups * p.window.taps() + 1;
        let sums = around(&values, |i| gamma(terms + 1) * magnitudes[i]);
        let out = Type::new(dtype, p.out_shape());
        runs += each_kernel(&Problem::Conv(p), &inputs, &[1, 2], out, &rounded(&sums, dtype));
    }
    println!("{runs} runs");
    // Each device's direct kernel, and of some types a faster one.
    assert!(runs >= 16 * 2 * device::complete());
}

/// `sum (x - x_zero) (w - w_zero)`, and a bias.
pub fn integer_sums(p: &ConvProblem, inputs: &[Option<Tensor>]) -> Vec<i32> {
    let values = |i: usize, m: usize| inputs[i].as_ref().map_or(0.0, |t| t.to_f64()[if t.numel() == 1 { 0 } else { m }]);
    let w = inputs[1].as_ref().unwrap();
    let own = w.numel() / p.m;
    let moved: Vec<f64> = w.to_f64().iter().enumerate().map(|(i, v)| v - values(3, i / own)).collect();
    // Padding is the zero point, which is 0 once it is taken off.
    let plain = [mapped(&inputs[0], |v| v - values(2, 0)), Some(tensor(DType::F64, w.shape(), &moved))];
    let pixels = p.window.pixels();
    let sums = convolved(&ConvProblem { b_at: None, ..p.clone() }, &plain);
    sums.iter().enumerate().map(|(i, s)| (s + values(4, i / pixels % p.m)) as i32).collect()
}

/// What is stored of exact sums.
fn requantized(p: &ConvProblem, sums: &[i32], inputs: &[Option<Tensor>]) -> Vec<Range> {
    let value = |i: usize, m: usize| inputs[i].as_ref().map_or(0.0, |t| t.to_f64()[m % t.numel()] as f32);
    let pixels = p.window.pixels();
    let (lo, hi) = p.y.int_range().unwrap();
    let one = |(i, &sum): (usize, &i32)| {
        let scale = value(5, 0) * value(6, i / pixels % p.m) / value(7, 0);
        let rounded = f64::from((sum as f32 * scale).round_ties_even()) + f64::from(value(8, 0));
        Range::point(rounded.clamp(lo as f64, hi as f64))
    };
    sums.iter().enumerate().map(one).collect()
}

/// Runs an integer convolution of every combination of types and zero points, by `round`, with i32 and 8-bit outputs.
fn integer_convolution(r: &mut Xorshift, round: usize, mut p: ConvProblem) {
    (p.x, p.w) = ([DType::U8, DType::I8][round % 2], [DType::I8, DType::U8][round / 2 % 2]);
    (p.b_at, p.own_inputs) = ((round % 5 > 1).then_some(4), 9);
    let mut inputs = operands(r, &p);
    inputs[2] = Some(random(r, p.x, &[]));
    // One for each channel, one for all, or none.
    let w_zero = [Some(vec![p.m]), Some(vec![]), None][round % 3].clone();
    inputs.push(w_zero.map(|shape| random(r, p.w, &shape)));
    let bias: Vec<f64> = (0..p.m).map(|_| (r.unit() * 2e5).round() - 1e5).collect();
    inputs.push(p.b_at.map(|_| tensor(DType::I32, &[p.m], &bias)));
    p.quant = Some(ConvQuant { x_zero: Some(2), w_zero: (round % 3 < 2).then_some(3), requantize: None });
    p.y = DType::I32;
    let sums = integer_sums(&p, &inputs);
    let want: Vec<Range> = sums.iter().map(|&s| Range::point(s.into())).collect();
    let out = Type::new(DType::I32, p.out_shape());
    assert!(each_kernel(&Problem::Conv(p.clone()), &inputs, &[1, 3], out, &want) >= 2 * device::complete());

    p.y = [DType::U8, DType::I8][round / 4 % 2];
    let scales: Vec<f64> = (0..p.m).map(|_| f64::from(0.001 + 0.01 * r.unit() as f32)).collect();
    let each = if round.is_multiple_of(2) { &scales[..] } else { &scales[..1] };
    let one = |v: f32| Some(tensor(DType::F32, &[], &[v.into()]));
    inputs.extend([one(0.02), Some(tensor(DType::F32, &[each.len()], each)), one(0.3), Some(random(r, p.y, &[]))]);
    p.quant.as_mut().unwrap().requantize = Some(Requantize { x_scale: 5, w_scale: 6, y_scale: 7, y_zero: Some(8) });
    let (want, out) = (requantized(&p, &sums, &inputs), Type::new(p.y, p.out_shape()));
    each_kernel(&Problem::Conv(p), &inputs, &[1, 3], out, &want);
}

#[test]
fn integer_convolutions_are_exact() {
    let mut r = Xorshift::new(5);
    for round in 0..24 {
        let p = geometry(&mut r, false);
        integer_convolution(&mut r, round, p);
    }
}

/// Windows and lines of many widths, without steps along the line.
#[test]
fn depthwise_integer_convolutions_are_exact() {
    let mut r = Xorshift::new(6);
    for (round, (wide, width)) in
        [(3, 80), (5, 80), (1, 31), (2, 1), (4, 129), (6, 300), (7, 7), (9, 64), (3, 5), (5, 17)].into_iter().enumerate()
    {
        let (high, step, pad) = (1 + r.below(5), 1 + r.below(2), r.below(wide));
        let input = [high + r.below(9), width.max(wide)];
        let window = Window {
            input: input.to_vec(),
            output: vec![(input[0] + 1 - high) / step + 1, input[1] + 2 * pad - wide + 1],
            kernel: vec![high, wide],
            strides: vec![step, 1],
            dilations: vec![1; 2],
            pads: vec![1, pad as i64],
            pads_end: vec![0, pad as i64],
        };
        let c = 1 + r.below(5);
        integer_convolution(&mut r, round, ConvProblem { n: 2, c, m: c, groups: c, window, ..plain_window() });
    }
}

#[test]
fn the_largest_sums_of_integer_convolutions_are_exact() {
    for (i, (x, w)) in [(255.0, -128.0), (255.0, 127.0), (0.0, -128.0), (-128.0, -128.0), (-128.0, 255.0)].into_iter().enumerate()
    {
        let types = [if x < 0.0 { DType::I8 } else { DType::U8 }, if w > 127.0 { DType::U8 } else { DType::I8 }];
        let mut p = ConvProblem { n: 1, c: 250, m: 17, groups: 1, x: types[0], w: types[1], y: DType::I32, ..plain_window() };
        p.quant = Some(ConvQuant { x_zero: Some(2), w_zero: None, requantize: None });
        let shapes = [vec![1, 250, 5, 9], vec![17, 250, 3, 3]];
        let full = |t: DType, shape: &[usize], v: f64| Some(tensor(t, shape, &vec![v; shape.iter().product()]));
        let zero = tensor(types[0], &[], &[[0.0, 0.0, 255.0, 127.0, 0.0][i]]);
        let inputs = [full(types[0], &shapes[0], x), full(types[1], &shapes[1], w), Some(zero), None, None];
        let want: Vec<Range> = integer_sums(&p, &inputs).into_iter().map(|s| Range::point(s.into())).collect();
        let out = Type::new(DType::I32, p.out_shape());
        each_kernel(&Problem::Conv(p), &inputs, &[1], out, &want);
    }
}

/// 3x3 over 5x9 pixels, padded by 1.
fn plain_window() -> ConvProblem {
    let (size, ones, pads) = (vec![5, 9], vec![1; 2], vec![1; 2]);
    let window = Window {
        input: size.clone(),
        output: size,
        kernel: vec![3, 3],
        strides: ones.clone(),
        dilations: ones,
        pads: pads.clone(),
        pads_end: pads,
    };
    ConvProblem { window, b_at: None, own_inputs: 5, ..geometry(&mut Xorshift::new(1), false) }
}
