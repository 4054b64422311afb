//! The vector kernels against the reference.

use crate::base::{DType, Shape, Tensor};
use crate::device::cpu::{Call, kernels};
use crate::graph::problem::recurrent::*;
use crate::graph::problem::{Problem, RecurrentProblem};
use crate::hardware::cpu::capabilities;
use crate::kernel;

fn values(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % 2001) as f32 / 2500.0 - 0.4
    };
    (0..n).map(|_| next()).collect()
}

fn layer([seq_len, batch, input_size, hidden_size]: [usize; 4], reverse: &[bool]) -> RecurrentProblem {
    RecurrentProblem {
        cell: Cell::Lstm { input_forget: false },
        dtype: DType::F32,
        seq_len,
        batch,
        input_size,
        hidden_size,
        reverse: reverse.to_vec(),
        activations: [Activation::Sigmoid, Activation::Tanh, Activation::Tanh].repeat(reverse.len()),
        clip: None,
        batch_first: false,
        quantized: None,
    }
}

fn operands(p: &RecurrentProblem, full: bool) -> Vec<Option<Tensor>> {
    let (d, b, n, gates) = (p.directions(), p.batch, p.hidden_size, 4 * p.hidden_size);
    let float = |seed, n| Some(Tensor::vector(&values(seed, n)));
    let weight = |seed, n: usize| match p.quantized {
        Some(DType::I8) => Some(Tensor::vector(&values(seed, n).iter().map(|v| (v * 317.0) as i8).collect::<Vec<_>>())),
        Some(_) => Some(Tensor::vector(&values(seed, n).iter().map(|v| ((v + 0.4) * 318.0) as u8).collect::<Vec<_>>())),
        None => float(seed, n),
    };
    let mut all = vec![float(1, p.seq_len * b * p.input_size), weight(2, d * gates * p.input_size), weight(3, d * gates * n)];
    all.resize(12, None);
    if full {
        let lengths: Vec<i32> = (0..b).map(|b| (p.seq_len as i32 - b as i32).max(0)).collect();
        all[3] = float(4, d * 2 * gates);
        all[4] = Some(Tensor::vector(&lengths));
        all[5] = float(5, d * b * n);
        all[6] = float(6, d * b * n);
        all[7] = float(7, d * 3 * n);
    }
    if let Some(q) = p.quantized {
        let zero = |z: u8| Some(Tensor::from_raw(q, Shape::from([d]), &vec![z; d]).unwrap());
        let scales: Vec<f32> = values(8, d * gates).iter().map(|v| 0.004 + v.abs() * 0.01).collect();
        (all[8], all[10]) = (Some(Tensor::vector(&scales)), Some(Tensor::vector(&scales[..d])));
        (all[9], all[11]) = if q == DType::U8 { (zero(120), zero(131)) } else { (zero(3), zero(0)) };
    }
    all
}

fn run(name: &str, p: &RecurrentProblem, inputs: &[Option<Tensor>], packs: bool) -> Vec<Vec<f64>> {
    let problem = Problem::Recurrent(p.clone());
    let kernel = kernels().find(|k| k.name == name).unwrap();
    let packed = if packs { (kernel.pack)(&problem, inputs).unwrap() } else { None };
    let (state, steps) = (p.directions() * p.batch * p.hidden_size, p.seq_len);
    let mut out = [steps * state, state, state].map(|n| Tensor::zeros(DType::F32, Shape::from([n])).unwrap());
    let gone = packed.as_ref().map_or(&[][..], |(_, gone)| gone);
    let left = |(i, t): (usize, &Option<Tensor>)| if gone.contains(&i) { None } else { t.clone() };
    let left: Vec<Option<Tensor>> = inputs.iter().enumerate().map(left).collect();
    let views: Vec<_> = left.iter().map(|t| t.as_ref().map(Tensor::view)).collect();
    {
        let mut outputs: Vec<_> = out.iter_mut().map(|t| Some(t.view_mut())).collect();
        let packed = packed.as_ref().map(|(p, _)| p);
        (kernel.run)(&mut Call { problem: &problem, packed, inputs: &views, outputs: &mut outputs, scratch: &mut [] }).unwrap();
    }
    out.iter().map(Tensor::to_f64).collect()
}

fn agree(p: &RecurrentProblem, bound: f64) {
    for (full, packs) in [(false, true), (true, false), (true, true)] {
        let inputs = operands(p, full);
        let want = run("cpu-any-recurrent", p, &inputs, false);
        for kernel in kernel::recurrent::KERNELS.iter().skip(1).filter(|k| capabilities().contains(k.needs)) {
            let got = run(kernel.name, p, &inputs, packs);
            for (g, w) in got.iter().flatten().zip(want.iter().flatten()) {
                assert!((g - w).abs() < bound, "{}: {g} for {w} in {p:?}", kernel.name);
            }
        }
    }
}

#[test]
fn vector_lstm_agrees() {
    for sizes in [[3, 2, 5, 4], [1, 1, 1, 1], [4, 5, 33, 17], [2, 1, 0, 3], [0, 2, 3, 3], [2, 0, 3, 3], [6, 3, 40, 64]] {
        for reverse in [&[false][..], &[true], &[false, true]] {
            for batch_first in [false, true] {
                agree(&RecurrentProblem { batch_first, ..layer(sizes, reverse) }, 1e-5);
            }
        }
    }
}

#[test]
fn quantised_lstm_agrees() {
    for (sizes, dtype) in [([3, 2, 5, 4], DType::I8), ([4, 3, 33, 17], DType::U8), ([2, 1, 64, 32], DType::I8)] {
        // A state on the edge between two steps of its scale may fall to either side.
        agree(&RecurrentProblem { quantized: Some(dtype), ..layer(sizes, &[false, true]) }, 2e-2);
    }
}

#[test]
fn a_plain_cell_does_what_it_says() {
    let p = RecurrentProblem { cell: Cell::Rnn, activations: vec![Activation::Relu], ..layer([2, 1, 1, 1], &[false]) };
    let inputs: Vec<_> = [&[1f32, 2.0][..], &[3.0], &[0.5]].map(|v| Some(Tensor::vector(v))).into();
    assert_eq!(run("cpu-any-recurrent", &p, &inputs, false)[0], [3.0, 7.5]);
}
