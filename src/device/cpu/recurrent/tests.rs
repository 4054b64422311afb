//! The vector kernels against the reference, and the reference against what the specification says.

use crate::base::xorshift::Xorshift;
use crate::base::{AlignedBytes, DType, Shape, Tensor};
use crate::device::cpu::{Call, device::find};
use crate::graph::problem::recurrent::*;
use crate::graph::problem::{Problem, RecurrentProblem};
use crate::hardware::cpu::{capabilities, info};
use crate::kernel;
use crate::scalar::{Formula, arg, constant};

struct Random(Xorshift);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0.below(n)
    }

    fn flip(&mut self) -> bool {
        self.below(2) == 0
    }

    fn values(&mut self, n: usize) -> Vec<f32> {
        self.0.reals(n, 0.4)
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }
}

fn sigmoid() -> Formula {
    arg(0).sigmoid()
}

fn tanh() -> Formula {
    arg(0).tanh()
}

fn usual(cell: Cell, directions: usize) -> Vec<Formula> {
    let all = if cell == Cell::Rnn { vec![tanh()] } else { vec![sigmoid(), tanh(), tanh()] };
    (0..directions).flat_map(|_| all[..cell.activations()].to_vec()).collect()
}

fn layer(cell: Cell, [seq_len, batch, input_size, hidden_size]: [usize; 4], reverse: &[bool]) -> RecurrentProblem {
    RecurrentProblem {
        cell,
        dtype: DType::F32,
        seq_len,
        batch,
        input_size,
        hidden_size,
        reverse: reverse.to_vec(),
        activations: usual(cell, reverse.len()),
        clip: None,
        batch_first: false,
        quantized: None,
    }
}

const DIRECTIONS: [&[bool]; 3] = [&[false], &[true], &[false, true]];

/// Floats stored as the layer's type.
fn floats(p: &RecurrentProblem, values: &[f32]) -> Tensor {
    let bytes: Vec<u8> = match p.dtype {
        DType::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
        DType::F64 => values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect(),
        _ => bytemuck::cast_slice(values).to_vec(),
    };
    Tensor::from_raw(p.dtype, Shape::from([values.len()]), &bytes).unwrap()
}

/// Required operands, and each of the optional ones for which `has(input)` holds.
fn operands(p: &RecurrentProblem, random: &mut Random, mut has: impl FnMut(usize, &mut Random) -> bool) -> Vec<Option<Tensor>> {
    let (d, b, n, gates) = (p.directions(), p.batch, p.hidden_size, p.cell.gates() * p.hidden_size);
    let weight = |random: &mut Random, n: usize| match (p.quantized, random.values(n)) {
        (Some(DType::I8), v) => Tensor::vector(&v.iter().map(|v| (v * 317.0) as i8).collect::<Vec<_>>()),
        (Some(_), v) => Tensor::vector(&v.iter().map(|v| ((v + 0.4) * 318.0) as u8).collect::<Vec<_>>()),
        (None, v) => floats(p, &v),
    };
    let mut all = vec![Some(floats(p, &random.values(p.seq_len * b * p.input_size)))];
    all.extend([d * gates * p.input_size, d * gates * n].map(|n| Some(weight(random, n))));
    all.resize(12, None);
    for (i, len) in [(3, d * 2 * gates), (4, b), (5, d * b * n), (6, d * b * n), (7, d * 3 * n)] {
        let lstm = matches!(p.cell, Cell::Lstm { .. });
        if !has(i, random) || (i > 5 && !lstm) {
            continue;
        }
        all[i] = Some(match i {
            4 => Tensor::vector(&(0..b).map(|_| random.below(p.seq_len + 1) as i32).collect::<Vec<_>>()),
            _ => floats(p, &random.values(len)),
        });
    }
    if let Some(q) = p.quantized {
        let zero = |z: u8| Some(Tensor::from_raw(q, Shape::from([d]), &vec![z; d]).unwrap());
        let scales: Vec<f32> = random.values(d * gates).iter().map(|v| 0.004 + v.abs() * 0.01).collect();
        (all[8], all[10]) = (Some(Tensor::vector(&scales)), Some(Tensor::vector(&scales[..d])));
        (all[9], all[11]) = if q == DType::U8 { (zero(120), zero(131)) } else { (zero(3), zero(0)) };
    }
    all
}

fn run(name: &str, p: &RecurrentProblem, inputs: &[Option<Tensor>], packs: bool) -> Vec<Vec<f64>> {
    let problem = Problem::Recurrent(p.clone());
    let kernel = find(name).unwrap().code;
    let packed = if packs { kernel.pack(&problem, inputs).unwrap() } else { None };
    let (state, steps) = (p.directions() * p.batch * p.hidden_size, p.seq_len);
    let size = p.dtype.size_bytes();
    // Neither outputs nor scratch are zeros when a kernel gets them.
    let mut out = [steps * state, state, state].map(|n| Tensor::from_raw(p.dtype, [n].into(), &vec![0xff; n * size]).unwrap());
    let mut scratch = AlignedBytes::zeroed(kernel.scratch_bytes(&problem, &info(1)));
    scratch.fill(0xff);
    let gone = packed.as_ref().map_or(&[][..], |(_, gone)| gone);
    let left = |(i, t): (usize, &Option<Tensor>)| if gone.contains(&i) { None } else { t.clone() };
    let left: Vec<Option<Tensor>> = inputs.iter().enumerate().map(left).collect();
    let views: Vec<_> = left.iter().map(|t| t.as_ref().map(Tensor::view)).collect();
    let wanted = if let Cell::Lstm { .. } = p.cell { 3 } else { 2 };
    {
        let mut outputs: Vec<_> = out.iter_mut().map(|t| Some(t.view_mut())).take(wanted).collect();
        let packed = packed.as_ref().map(|(p, _)| p);
        let mut call =
            Call { problem: &problem, packed, ahead: &[], inputs: &views, outputs: &mut outputs, scratch: &mut scratch };
        kernel.run(&mut call).unwrap();
    }
    out.iter().take(wanted).map(Tensor::to_f64).collect()
}

/// Every kernel that takes the layer agrees with the reference; gives how many did.
fn agree(p: &RecurrentProblem, inputs: &[Option<Tensor>], bound: f64) -> usize {
    let want = run("cpu-any-recurrent", p, inputs, false);
    let problem = Problem::Recurrent(p.clone());
    let taking = kernel::recurrent::KERNELS.iter().skip(1);
    let mut count = 0;
    for kernel in taking.filter(|k| capabilities().contains(k.needs) && (k.accepts)(&problem).is_ok()) {
        count += 1;
        for packs in [false, true] {
            let got = run(kernel.name, p, inputs, packs);
            for (i, (g, w)) in got.iter().flatten().zip(want.iter().flatten()).enumerate() {
                assert!((g - w).abs() < bound, "{} element {i}: {g} for {w} in {p:?}", kernel.name);
            }
        }
    }
    count
}

#[test]
fn every_cell_agrees_with_and_without_options() {
    let mut random = Random(Xorshift::new(5));
    for sizes in
        [[3, 2, 5, 4], [1, 1, 1, 1], [4, 5, 33, 17], [2, 1, 0, 3], [0, 2, 3, 3], [2, 0, 3, 3], [3, 2, 3, 0], [6, 3, 40, 64]]
    {
        for (cell, reverse) in Cell::ALL.into_iter().flat_map(|c| DIRECTIONS.map(|d| (c, d))) {
            for (batch_first, full) in [(false, false), (false, true), (true, true)] {
                let p = RecurrentProblem { batch_first, ..layer(cell, sizes, reverse) };
                let inputs = operands(&p, &mut random, |_, _| full);
                assert!(agree(&p, &inputs, 1e-5) > 0);
            }
        }
    }
}

#[test]
fn random_layers_agree() {
    let mut random = Random(Xorshift::new(77));
    let x = || arg(0);
    let activations = [
        sigmoid(),
        tanh(),
        x().max(constant(0.0)),
        x() / (x().abs() + 1.0),
        x() * 0.5 + 0.25,
        (x() * 0.2 + 0.5).clip(0.0, 1.0),
        constant(0.0).less(x()).select(x(), (x().exp() - 1.0) * 0.7),
    ];
    for _ in 0..120 {
        let sizes = [1 + random.below(7), 1 + random.below(9), 1 + random.below(50), 1 + random.below(70)];
        let mut p = layer(random.of(&Cell::ALL), sizes, random.of(&DIRECTIONS));
        p.batch_first = random.flip();
        p.clip = random.flip().then_some(0.3);
        p.dtype = random.of(&[DType::F32, DType::F32, DType::F16, DType::BF16]);
        if random.flip() {
            p.activations.iter_mut().for_each(|f| *f = random.of(&activations));
        }
        let inputs = operands(&p, &mut random, |_, r| r.flip());
        let bound = match p.dtype {
            DType::F16 => 4e-3,
            DType::BF16 => 3e-2,
            _ => 2e-5,
        };
        // Without clip, activations without bound let h grow, and with it the rounding of 16 bits.
        let bound = if p.clip.is_none() && p.activations != usual(p.cell, p.directions()) { 40.0 * bound } else { bound };
        assert!(agree(&p, &inputs, bound) > 0);
    }
}

#[test]
fn quantised_lstm_agrees() {
    let mut random = Random(Xorshift::new(3));
    let lstm = Cell::Lstm { input_forget: false };
    for (sizes, dtype) in [([3, 2, 5, 4], DType::I8), ([4, 3, 33, 17], DType::U8), ([2, 1, 64, 32], DType::I8)] {
        for full in [false, true] {
            let p = RecurrentProblem { quantized: Some(dtype), ..layer(lstm, sizes, &[false, true]) };
            let inputs = operands(&p, &mut random, |_, _| full);
            // A state on the edge between two steps of its scale may fall to either side.
            assert!(agree(&p, &inputs, 2e-2) > 0);
        }
    }
}

#[test]
fn sequences_end_where_their_lengths_say() {
    let p = layer(Cell::Rnn, [3, 2, 1, 1], &[false]);
    let p = RecurrentProblem { activations: vec![arg(0)], ..p };
    let mut inputs: Vec<_> = [&[1f32, 10.0, 2.0, 20.0, 3.0, 30.0][..], &[1.0], &[1.0]].map(|v| Some(Tensor::vector(v))).into();
    inputs.resize(12, None);
    inputs[4] = Some(Tensor::vector(&[3i32, 1]));
    for kernel in kernel::recurrent::KERNELS.iter().filter(|k| capabilities().contains(k.needs) && !k.name.contains("int8")) {
        let got = run(kernel.name, &p, &inputs, false);
        assert_eq!(got[0], [1.0, 10.0, 3.0, 0.0, 6.0, 0.0], "{}", kernel.name);
        assert_eq!(got[1], [6.0, 10.0], "{}", kernel.name);
    }
}

#[test]
fn a_gru_resets_before_or_after_the_product() {
    // Gates update and reset are sigmoid(0) = 1/2; the hidden gate sees h = 2 through the weight 3 and the bias 4.
    let gru = |linear_before_reset| {
        let p = layer(Cell::Gru { linear_before_reset }, [1, 1, 1, 1], &[false]);
        let p = RecurrentProblem { activations: vec![sigmoid(), arg(0)], ..p };
        let vectors = [&[0f32][..], &[0.0; 3], &[0.0, 0.0, 3.0], &[0.0, 0.0, 0.0, 0.0, 0.0, 4.0]];
        let mut inputs: Vec<_> = vectors.map(|v| Some(Tensor::vector(v))).into();
        inputs.resize(12, None);
        inputs[5] = Some(Tensor::vector(&[2f32]));
        run("cpu-any-recurrent", &p, &inputs, false)[1][0]
    };
    assert_eq!(gru(false), 0.5 * (3.0 * 1.0 + 4.0) + 0.5 * 2.0);
    assert_eq!(gru(true), 0.5 * (0.5 * (3.0 * 2.0 + 4.0)) + 0.5 * 2.0);
}

#[test]
fn a_coupled_forget_gate_keeps_what_the_input_gate_leaves() {
    let p = layer(Cell::Lstm { input_forget: true }, [1, 1, 1, 1], &[false]);
    let p = RecurrentProblem { activations: vec![arg(0), arg(0), arg(0)], ..p };
    // Sums of input, output, forget and cell are 1/4, 1, 9 and 8 for x = 1; c was 4.
    let mut inputs: Vec<_> = [&[1f32][..], &[0.25, 1.0, 9.0, 8.0], &[0.0; 4]].map(|v| Some(Tensor::vector(v))).into();
    inputs.resize(12, None);
    inputs[6] = Some(Tensor::vector(&[4f32]));
    assert_eq!(run("cpu-any-recurrent", &p, &inputs, false)[2], [0.75 * 4.0 + 0.25 * 8.0]);
}

#[test]
fn a_plain_cell_does_what_it_says() {
    let p = layer(Cell::Rnn, [2, 1, 1, 1], &[false]);
    let p = RecurrentProblem { activations: vec![arg(0).max(constant(0.0))], ..p };
    let inputs: Vec<_> = [&[1f32, 2.0][..], &[3.0], &[0.5]].map(|v| Some(Tensor::vector(v))).into();
    assert_eq!(run("cpu-any-recurrent", &p, &inputs, false)[0], [3.0, 7.5]);
}
