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
    /// As QuantizeLinear has it, `min(max(round(a / scale) + zero, low), high)`.
    Quantize([usize; 5]),
}

/// The loops of a formula in order, each with the step that it gives; steps inside of loops are given by none.
pub(super) fn joined(steps: &[Step]) -> Vec<(usize, Op)> {
    let mut reads = vec![0; steps.len()];
    for step in steps {
        match *step {
            Step::Arg(_) | Step::Constant(_) => {}
            Step::Unary(_, a) | Step::Cast(_, a) => reads[a] += 1,
            Step::Binary(_, a, b) => [a, b].into_iter().for_each(|i| reads[i] += 1),
            Step::Select(c, a, b) => [c, a, b].into_iter().for_each(|i| reads[i] += 1),
        }
    }
    let once = |i: usize| if reads[i] == 1 { Some(steps[i]) } else { None };
    let mut is_inside = vec![false; steps.len()];
    let mut loops = Vec::with_capacity(steps.len());
    for at in (0..steps.len()).rev() {
        if is_inside[at] {
            continue;
        }
        let (op, inside) = join(steps[at], &once);
        inside.iter().for_each(|&i| is_inside[i] = true);
        loops.push((at, op));
    }
    loops.reverse();
    loops
}

/// The loop that ends in a step, and the steps inside; `once` gives a step that is read once.
fn join(step: Step, once: &dyn Fn(usize) -> Option<Step>) -> (Op, Vec<usize>) {
    match step {
        Step::Binary(Binary::Add, i, j) => {
            for (product, c) in [(i, j), (j, i)] {
                if let Some(Step::Binary(Binary::Mul, a, b)) = once(product) {
                    return (Op::MulAdd([a, b, c]), vec![product]);
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

    #[test]
    fn loops_give_what_their_steps_give_one_by_one() {
        let scaled = arg(0) * arg(1) + arg(2);
        let swish = scaled.clone() * (scaled * 0.17 + constant(0.5)).clip(0.0, 1.0);
        let quantized = ((swish / arg(3)).round() + arg(4)).clip(-128.0, 127.0);
        let types = [DType::F32, DType::F32, DType::F32, DType::F32, DType::I8];
        let steps = Steps::compile(&quantized, &types, DType::I8).unwrap();
        let loops = joined(&steps.steps);
        let joins = loops.iter().filter(|(_, op)| !matches!(op, Op::One(_))).count();
        // Twice a product and a sum, a clip, and the quantisation; what is read twice is a loop's own.
        assert_eq!((joins, steps.steps.len() - loops.len()), (4, 2 + 1 + 4));
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
