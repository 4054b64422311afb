//! Recurrent layers.

use halfbyte::base::xorshift::Xorshift;
use halfbyte::base::{DType, Tensor};
use halfbyte::device::api::Device;
use halfbyte::device::cpu::CpuDevice;
use halfbyte::graph::problem::RecurrentProblem;
use halfbyte::graph::problem::recurrent::Cell;
use halfbyte::graph::{Problem, Type};
use halfbyte::kernel::KernelDef;
use halfbyte::scalar::{Formula, arg};

use super::check::*;
use super::device::{kernels, launch, reference};

fn usual(cell: Cell, directions: usize) -> Vec<Formula> {
    let all = [arg(0).sigmoid(), arg(0).tanh(), arg(0).tanh()];
    let one = if cell == Cell::Rnn { &all[1..2] } else { &all[..cell.activations()] };
    (0..directions).flat_map(|_| one.to_vec()).collect()
}

/// Activations of an LSTM through quotients, exp, log and erf: hard sigmoid, softsign, softplus, and a normal distribution.
fn rarer(directions: usize) -> Vec<Formula> {
    let hard = (arg(0) * 0.2 + 0.5).clip(0.0, 1.0);
    let (soft, plus, normal) = (arg(0) / (arg(0).abs() + 1.0), (arg(0).exp() + 1.0).log(), (arg(0) * 0.5).erf());
    let all = [[hard, soft, plus], [normal.clone(), normal.clone(), normal]];
    all.into_iter().take(directions).flatten().collect()
}

/// Input, weights, and optional operands where `full`.
fn operands(r: &mut Xorshift, p: &RecurrentProblem, full: bool) -> Vec<Option<Tensor>> {
    let (d, n, gates) = (p.directions(), p.hidden_size, p.cell.gates() * p.hidden_size);
    let mut of = |shape: &[usize], most: f64| {
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| (r.unit() * 2.0 - 1.0) * most).collect();
        Some(tensor(p.dtype, shape, &values))
    };
    let mut all = vec![of(&[p.seq_len * p.batch * p.input_size], 1.0)];
    // Rows of r whose magnitudes add up to about 1: larger ones let rounding errors grow from step to step.
    all.push(of(&[d, gates, p.input_size], 4.0 / p.input_size.max(1) as f64));
    all.push(of(&[d, gates, n], 2.0 / n.max(1) as f64));
    all.resize(12, None);
    if full {
        all[3] = of(&[d, 2 * gates], 0.5);
        let state = [d, p.batch, n];
        all[5] = of(&state, 1.0);
        if let Cell::Lstm { .. } = p.cell {
            (all[6], all[7]) = (of(&state, 1.0), of(&[d, 3 * n], 0.5));
        }
        all[4] = Some(Tensor::vector(&(0..p.batch).map(|_| r.below(p.seq_len + 1) as i32).collect::<Vec<_>>()));
    }
    all
}

/// How far any output may be off, by running the recurrence on the largest magnitudes. `s` bounds the sum of a row of r, `m` the
/// terms of a gate's sum but those of r, `a` the error of an activation itself; sigmoid shrinks errors to a quarter, tanh lets
/// them pass, and gates are at most 1.
fn error(p: &RecurrentProblem, inputs: &[Option<Tensor>]) -> f64 {
    let values = |i: usize| inputs[i].as_ref().map(Tensor::to_f64).unwrap_or_default();
    let largest = |i: usize| values(i).into_iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    let row = |i: usize, len: usize| {
        let sums = values(i).chunks(len.max(1)).map(|row| row.iter().map(|v| v.abs()).sum::<f64>()).collect::<Vec<_>>();
        sums.into_iter().fold(0.0, f64::max)
    };
    let (s, bias, peep) = (row(2, p.hidden_size), 2.0 * largest(3), largest(7));
    let m = row(1, p.input_size) * largest(0) + bias;
    let (h, mut c) = (largest(5).max(1.0), largest(6));
    let (a, terms) = (16.0 * U, gamma(p.input_size + p.hidden_size + 6));
    let (mut of_h, mut of_c) = (0.0, 0.0);
    for _ in 0..p.seq_len {
        let sum = |of_c: f64, c: f64| terms * (m + s * h + peep * c) + s * of_h + peep * of_c;
        let gate = sum(of_c, c) / 4.0 + a;
        of_h = match p.cell {
            Cell::Lstm { .. } => {
                of_c += gate * (c + 1.0) + (sum(of_c, c) + a) + 4.0 * U * (c + 2.0);
                c += 1.0;
                sum(of_c, c) / 4.0 + a + of_c + a
            }
            // The reset gate's error meets what r makes of h, and its bias.
            Cell::Gru { .. } => {
                gate * (1.0 + h) + f64::max(of_h, sum(0.0, 0.0) + gate * (s * h + bias) + a) + 4.0 * U * (1.0 + h)
            }
            Cell::Rnn => sum(0.0, 0.0) + a,
        };
    }
    1.01 * of_h.max(of_c)
}

#[test]
fn recurrent_layers() {
    let mut r = Xorshift::new(53);
    let mut runs = 0;
    for [seq_len, batch, input_size, hidden_size] in
        [[1, 1, 1, 1], [3, 2, 5, 4], [2, 5, 33, 17], [2, 16, 40, 64], [0, 2, 3, 3], [2, 3, 0, 5]]
    {
        for (cell, reverse) in Cell::ALL.into_iter().flat_map(|c| [vec![false], vec![true], vec![false, true]].map(|d| (c, d))) {
            for (dtype, full) in [(DType::F32, false), (DType::F32, true), (DType::F16, true), (DType::BF16, false)] {
                let (activations, batch_first) = (usual(cell, reverse.len()), r.below(2) == 1);
                let (clip, quantized, reverse) = (None, None, reverse.clone());
                let p = RecurrentProblem {
                    cell,
                    dtype,
                    seq_len,
                    batch,
                    input_size,
                    hidden_size,
                    reverse,
                    activations,
                    clip,
                    batch_first,
                    quantized,
                };
                let inputs = operands(&mut r, &p, full);
                let state = p.directions() * batch * hidden_size;
                let sizes = [seq_len * state, state, state];
                let outputs = &sizes[..if let Cell::Lstm { .. } = cell { 3 } else { 2 }];
                let types = |dtype| outputs.iter().map(|&n| Type::new(dtype, [n])).collect::<Vec<_>>();
                let [mut wide, _] = exact(&inputs);
                wide[4] = inputs[4].clone();
                let problem = |dtype| Problem::Recurrent(RecurrentProblem { dtype, ..p.clone() });
                let want = reference(&problem(DType::F64), &wide, &types(DType::F64));
                let error = error(&p, &inputs);
                let ranges = |t: &Tensor| rounded(&around(&t.to_f64(), |_| error), dtype);
                let allowed: Vec<_> = types(dtype).into_iter().zip(want.iter().map(ranges)).collect();
                runs += all_outputs(&problem(dtype), &inputs, &[1, 2], &allowed);
            }
        }
    }
    println!("{runs} runs");
    assert!(runs >= 6 * Cell::ALL.len() * 3 * 4 * 2);
}

/// Bounds of the activations' arguments, and other activations in each direction.
#[test]
fn clipped_layers_with_activations_of_their_own() {
    let mut r = Xorshift::new(59);
    for (cell, batch_first) in Cell::ALL.into_iter().flat_map(|c| [(c, false), (c, true)]) {
        let soft = arg(0) / (arg(0).abs() + 1.0);
        let other: Vec<Formula> = (0..cell.activations()).map(|i| if i == 0 { arg(0).sigmoid() } else { soft.clone() }).collect();
        let activations = [usual(cell, 1), other].concat();
        let (clip, quantized, reverse) = (Some(0.3), None, vec![false, true]);
        let (seq_len, batch, input_size, hidden_size, dtype) = (3, 6, 7, 20, DType::F32);
        let p = RecurrentProblem {
            cell,
            dtype,
            seq_len,
            batch,
            input_size,
            hidden_size,
            reverse,
            activations,
            clip,
            batch_first,
            quantized,
        };
        let inputs = operands(&mut r, &p, true);
        let state = 2 * batch * hidden_size;
        let sizes = [seq_len * state, state, state];
        let outputs = &sizes[..if let Cell::Lstm { .. } = cell { 3 } else { 2 }];
        let types = |dtype| outputs.iter().map(|&n| Type::new(dtype, [n])).collect::<Vec<_>>();
        let [mut wide, _] = exact(&inputs);
        wide[4] = inputs[4].clone();
        let problem = |dtype| Problem::Recurrent(RecurrentProblem { dtype, ..p.clone() });
        let want = reference(&problem(DType::F64), &wide, &types(DType::F64));
        let error = error(&p, &inputs);
        let ranges = |t: &Tensor| rounded(&around(&t.to_f64(), |_| error), dtype);
        let allowed: Vec<_> = types(dtype).into_iter().zip(want.iter().map(ranges)).collect();
        assert!(all_outputs(&problem(dtype), &inputs, &[1, 2], &allowed) > 0);
    }
}

/// 8-bit weights in place of those of `operands`, with scales and zero points for each column where `each`, else for each direction.
fn quantised(r: &mut Xorshift, p: &RecurrentProblem, dtype: DType, each: bool) -> Vec<Option<Tensor>> {
    let (d, columns) = (p.directions(), p.cell.gates() * p.hidden_size);
    let full = r.below(2) == 1;
    let mut all = operands(r, p, full);
    let params = if each { d * columns } else { d };
    for (i, k) in [(1, p.input_size), (2, p.hidden_size)] {
        all[i] = Some(random(r, dtype, &[d, k, columns]));
        let most = 8.0 / (128.0 * k.max(1) as f64);
        all[6 + 2 * i] = Some(tensor(DType::F32, &[params], &(0..params).map(|_| r.unit() * most).collect::<Vec<_>>()));
        all[7 + 2 * i] = Some(random(r, dtype, &[params]));
    }
    all
}

/// Every device's kernel of 8-bit weights has the bits of the CPU's: sums are exact, and everything else is the same f32 arithmetic.
#[test]
fn quantised_layers_have_the_same_bits() {
    let mut r = Xorshift::new(61);
    let mut runs = 0;
    for [seq_len, batch, input_size, hidden_size] in [
        [1, 1, 1, 1],
        [3, 2, 5, 4],
        [2, 5, 33, 17],
        [3, 16, 40, 64],
        [2, 1, 20, 150],
        [0, 2, 3, 3],
        [2, 3, 0, 5],
        [1, 1, 16, 600],
    ] {
        for (i, reverse) in [vec![false], vec![true], vec![false, true]].into_iter().enumerate() {
            for dtype in [DType::I8, DType::U8] {
                let cell = Cell::Lstm { input_forget: r.below(2) == 1 };
                let (usual, other) = (usual(cell, reverse.len()), rarer(reverse.len()));
                let (activations, batch_first) = (if r.below(3) == 0 { other } else { usual }, r.below(2) == 1);
                let clip = (r.below(3) == 0).then_some(0.5);
                let p = RecurrentProblem {
                    cell,
                    dtype: DType::F32,
                    seq_len,
                    batch,
                    input_size,
                    hidden_size,
                    reverse: reverse.clone(),
                    activations,
                    clip,
                    batch_first,
                    quantized: Some(dtype),
                };
                let inputs = quantised(&mut r, &p, dtype, i != 1);
                runs += same_bits(&p, &inputs);
            }
        }
    }
    println!("{runs} runs");
    assert!(runs >= 8 * 3 * 2 * 2);
}

/// Compares every kernel but the reference, which sums in f64, with the CPU's portable one; gives the number of runs.
fn same_bits(p: &RecurrentProblem, inputs: &[Option<Tensor>]) -> usize {
    let state = p.directions() * p.batch * p.hidden_size;
    let types = [p.seq_len * state, state, state].map(|n| Type::new(DType::F32, [n]));
    let problem = Problem::Recurrent(p.clone());
    let all = super::device::all();
    let portable = |k: &&KernelDef| k.name == "cpu-portable-int8-recurrent";
    let cpu = CpuDevice::new(Some(1)).unwrap();
    let kernel = kernels(&cpu, &problem).into_iter().find(portable).expect("the CPU's kernel takes it");
    let want = launch(&cpu, kernel, &problem, inputs, &[1, 2], &types);
    let mut runs = 0;
    let each = |d: &'static dyn Device| kernels(d, &problem).into_iter().map(move |k| (d, k));
    let taking: Vec<_> = all.iter().flat_map(|d| each(&**d)).filter(|(_, k)| !k.name.starts_with("cpu-any")).collect();
    let takes = |d: &dyn Device| taking.iter().any(|(_, k)| k.device == d.info().kind);
    assert!(all.iter().all(|d| takes(&**d)), "every device takes {p:?}");
    for (device, kernel) in taking {
        for ahead in [&[][..], &[1, 2]] {
            let got = launch(device, kernel, &problem, inputs, ahead, &types);
            for (n, (got, want)) in got.iter().zip(&want).enumerate() {
                assert_eq!(got.to_f64(), want.to_f64(), "{} output {n} of {p:?}", kernel.name);
            }
            runs += 1;
        }
    }
    runs
}
