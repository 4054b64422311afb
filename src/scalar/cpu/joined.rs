//! Steps joined into one loop: what stays in a vector register need not be written and read again.

use crate::scalar::steps::Step;
use crate::scalar::{Binary, Unary};

/// What one loop computes, of earlier steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Op {
    /// A step alone.
    One(Step),
    /// `a * b + c`, rounded twice.
    MulAdd([usize; 3]),
    /// `min(max(a, low), high)`.
    Clip([usize; 3]),
    /// `x * min(max(x * slope + offset, low), high)`, as HardSwish is.
    Gate([usize; 5]),
    /// `x * half * (erf(x * slope) + one)`, as Gelu is.
    Gelu([usize; 4]),
    /// As QuantizeLinear has it, `min(max(round(a / scale) + zero, low), high)`.
    Quantize([usize; 5]),
}

impl Op {
    /// The steps that it reads element by element, and those only if one of them is not the same for all elements.
    pub fn operands(&self) -> [Vec<usize>; 2] {
        let first = |of: &[usize]| [of[..1].to_vec(), of[1..].to_vec()];
        match self {
            Op::One(step) => [reads(*step), Vec::new()],
            Op::MulAdd(of) | Op::Clip(of) => first(of),
            Op::Gelu(of) => first(of),
            Op::Gate(of) | Op::Quantize(of) => first(of),
        }
    }
}

/// The steps that a step reads.
fn reads(step: Step) -> Vec<usize> {
    match step {
        Step::Arg(_) | Step::Constant(_) => vec![],
        Step::Unary(_, a) | Step::Cast(_, a) => vec![a],
        Step::Binary(_, a, b) => vec![a, b],
        Step::Select(c, a, b) => vec![c, a, b],
    }
}

/// The loops of a formula in order, each with the step that it gives, and how often each step is read; steps inside of loops are given by
/// none.
pub(super) fn joined(steps: &[Step]) -> (Vec<(usize, Op)>, Vec<usize>) {
    let mut count = vec![0; steps.len()];
    steps.iter().flat_map(|&step| reads(step)).for_each(|i| count[i] += 1);
    let once = |i: usize| if count[i] == 1 { Some(steps[i]) } else { None };
    let mut is_inside = vec![false; steps.len()];
    let mut loops = Vec::with_capacity(steps.len());
    for at in (0..steps.len()).rev() {
        if is_inside[at] {
            continue;
        }
        let (op, inside) = join(steps, at, &once);
        inside.iter().for_each(|&i| is_inside[i] = true);
        loops.push((at, op));
    }
    loops.reverse();
    (loops, count)
}

/// The loop that ends in step `at`, and the steps inside; `once` gives a step that is read once.
fn join(steps: &[Step], at: usize, once: &dyn Fn(usize) -> Option<Step>) -> (Op, Vec<usize>) {
    // What differs from element to element comes first: not constants, and of arguments hardly those after the first one.
    let is_one = |i: usize| matches!(steps[i], Step::Constant(_) | Step::Arg(1..));
    let step = steps[at];
    match step {
        Step::Binary(Binary::Add, i, j) => {
            for (product, c) in [(i, j), (j, i)] {
                if let Some(Step::Binary(Binary::Mul, a, b)) = once(product) {
                    let [a, b] = if is_one(a) && !is_one(b) { [b, a] } else { [a, b] };
                    return (Op::MulAdd([a, b, c]), vec![product]);
                }
            }
        }
        Step::Binary(Binary::Mul, i, j) => {
            for (x, gate) in [(i, j), (j, i)] {
                if let Some((op, inside)) = gated(x, gate, once).or_else(|| gelu(x, gate, once)) {
                    return (op, inside.to_vec());
                }
            }
        }
        Step::Binary(Binary::Min, larger, high) => {
            if let Some(Step::Binary(Binary::Max, a, low)) = once(larger) {
                return quantized(a, [low, high], once)
                    .map_or((Op::Clip([a, low, high]), vec![larger]), |(op, inside)| (op, [&inside[..], &[larger]].concat()));
            }
        }
        _ => {}
    }
    (Op::One(step), Vec::new())
}

fn gated(x: usize, gate: usize, once: &dyn Fn(usize) -> Option<Step>) -> Option<(Op, [usize; 4])> {
    let Some(Step::Binary(Binary::Min, larger, high)) = once(gate) else { return None };
    let Some(Step::Binary(Binary::Max, line, low)) = once(larger) else { return None };
    let Some(Step::Binary(Binary::Add, product, offset)) = once(line) else { return None };
    let Some(Step::Binary(Binary::Mul, own, slope)) = once(product) else { return None };
    (own == x).then_some((Op::Gate([x, slope, offset, low, high]), [gate, larger, line, product]))
}

fn gelu(halved: usize, gate: usize, once: &dyn Fn(usize) -> Option<Step>) -> Option<(Op, [usize; 4])> {
    let Some(Step::Binary(Binary::Mul, x, half)) = once(halved) else { return None };
    let Some(Step::Binary(Binary::Add, function, one)) = once(gate) else { return None };
    let Some(Step::Unary(Unary::Erf, product)) = once(function) else { return None };
    let Some(Step::Binary(Binary::Mul, own, slope)) = once(product) else { return None };
    (own == x).then_some((Op::Gelu([x, half, slope, one]), [halved, gate, function, product]))
}

fn quantized(shifted: usize, [low, high]: [usize; 2], once: &dyn Fn(usize) -> Option<Step>) -> Option<(Op, [usize; 3])> {
    let Some(Step::Binary(Binary::Add, rounded, zero)) = once(shifted) else { return None };
    let Some(Step::Unary(Unary::Round, quotient)) = once(rounded) else { return None };
    let Some(Step::Binary(Binary::Div, a, scale)) = once(quotient) else { return None };
    Some((Op::Quantize([a, scale, zero, low, high]), [shifted, rounded, quotient]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::DType;
    use crate::scalar::cpu::{Lane, Program};
    use crate::scalar::{Steps, arg, constant};

    /// Zeros of both signs, NaN, and bounds that are met, with bounds and offsets that are zeros or NaN themselves.
    #[test]
    fn a_gate_has_the_bits_of_its_steps() {
        let x: Vec<f32> = [0.0f32, -0.0, f32::NAN, f32::INFINITY, -f32::INFINITY, -3.0, 3.0, 1e-45, f32::MAX]
            .into_iter()
            .chain((0..1500).map(|i| (i as f32 - 750.0) / 125.0))
            .collect();
        let all = [0.5f32, 0.0, -0.0, 1.0, -1.0, f32::NAN];
        for i in 0..all.len().pow(3) {
            let [offset, low, high] = [all[i / 36], all[i / 6 % 6], all[i % 6]];
            let gate = (arg(0) * (1.0 / 6.0) + arg(1)).max(arg(2)).min(arg(3));
            let steps = Steps::compile(&(arg(0) * gate), &[DType::F32; 4], DType::F32).unwrap();
            assert!(matches!(joined(&steps.steps).0.last(), Some((_, Op::Gate(_)))));
            let rest = [offset, low, high];
            let [a, b, c] = [0, 1, 2].map(|i| Lane::Splat(bytemuck::cast_slice(&rest[i..=i])));
            let mut out = vec![0f32; x.len()];
            Program::new(steps).run(&[Lane::Slice(bytemuck::cast_slice(&x)), a, b, c], bytemuck::cast_slice_mut(&mut out));
            for (x, got) in x.iter().zip(out) {
                let line = x * (1.0 / 6.0) + offset;
                let most = if line > low || line.is_nan() { line } else { low };
                let want = x * if most < high || most.is_nan() { most } else { high };
                let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
                assert!(same, "{x} with {offset}, {low}, {high}: {got} for {want}");
            }
        }
    }

    #[test]
    fn a_gelu_has_the_bits_of_its_steps() {
        let x: Vec<f32> = [0.0f32, -0.0, f32::NAN, f32::INFINITY, -f32::INFINITY, 1e-45, f32::MAX, f32::MIN]
            .into_iter()
            .chain((0..1500).map(|i| (i as f32 - 750.0) / 125.0))
            .collect();
        let slopes: Vec<f32> = (0..x.len()).map(|i| i as f32 / 900.0).collect();
        for own in [false, true] {
            let formula = arg(0) * 0.5 * ((arg(0) * arg(1)).erf() + 1.0);
            let steps = Steps::compile(&formula, &[DType::F32; 2], DType::F32).unwrap();
            assert!(matches!(joined(&steps.steps).0.last(), Some((_, Op::Gelu(_)))));
            let slope = if own {
                Lane::Slice(bytemuck::cast_slice(&slopes))
            } else {
                Lane::Splat(bytemuck::cast_slice(&slopes[636..637]))
            };
            let mut out = vec![0f32; x.len()];
            Program::new(steps).run(&[Lane::Slice(bytemuck::cast_slice(&x)), slope], bytemuck::cast_slice_mut(&mut out));
            for (i, (x, got)) in x.iter().zip(out).enumerate() {
                let want = x * 0.5 * (crate::scalar::cpu::math::erf(x * slopes[if own { i } else { 636 }]) + 1.0);
                let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
                assert!(same, "{x}: {got} for {want}");
            }
        }
    }

    #[test]
    fn loops_give_what_their_steps_give_one_by_one() {
        let scaled = arg(0) * arg(1) + arg(2);
        let swish = scaled.clone() * (scaled * 0.17 + constant(0.5)).clip(0.0, 1.0);
        let quantized = ((swish / arg(3)).round() + arg(4)).clip(-128.0, 127.0);
        let types = [DType::F32, DType::F32, DType::F32, DType::F32, DType::I8];
        let steps = Steps::compile(&quantized, &types, DType::I8).unwrap();
        let (loops, _) = joined(&steps.steps);
        let joins = loops.iter().filter(|(_, op)| !matches!(op, Op::One(_))).count();
        // A product and a sum, the gate, and the quantisation; what is read twice is a loop's own.
        assert_eq!((joins, steps.steps.len() - loops.len()), (3, 1 + 4 + 4));
        let x: Vec<f32> = (0..700).map(|i| (i as f32 - 350.0) * 1.37).chain([f32::NAN, f32::INFINITY, -f32::INFINITY]).collect();
        let [scale, bias, step, zero] = [0.013f32, -0.4, 0.021, 5.0];
        let mut out = vec![0i8; x.len()];
        let each = |v: &'static [f32; 3], i: usize| Lane::Splat(bytemuck::cast_slice(&v[i..=i]));
        const SPLATS: [f32; 3] = [0.013, -0.4, 0.021];
        let lanes =
            [Lane::Slice(bytemuck::cast_slice(&x)), each(&SPLATS, 0), each(&SPLATS, 1), each(&SPLATS, 2), Lane::Splat(&[5])];
        Program::new(steps).run(&lanes, bytemuck::cast_slice_mut(&mut out));
        for (x, got) in x.iter().zip(out) {
            let y = x * scale + bias;
            let t = y * 0.17 + 0.5;
            let swish = y * if t.is_nan() { t } else { t.clamp(0.0, 1.0) };
            let want = ((swish / step).round_ties_even() + zero).clamp(-128.0, 127.0) as i8;
            assert_eq!(got, want, "{x}");
        }
    }
}
