//! Formulas after the sums of integer convolutions: the same bits from every kernel.

use halfbyte::base::xorshift::Xorshift;
use halfbyte::base::{DType, Shape, Tensor};
use halfbyte::graph::problem::conv::ConvQuant;
use halfbyte::graph::problem::{ConvProblem, EpilogueSpec};
use halfbyte::graph::{Problem, Type};
use halfbyte::scalar::bounds::Range;
use halfbyte::scalar::cpu::{Lane, Program};
use halfbyte::scalar::{Formula, arg, constant};

use super::check::*;
use super::device;
use super::formulas::decode;
use super::products::{geometry, integer_sums, operands};

/// One element for all, one for each channel, or one for each of the output.
#[derive(Clone, Copy)]
enum Extent {
    One,
    Channel,
    Full,
}

/// A formula of the sum with its operands and what is stored.
struct Case {
    formula: Formula,
    operands: Vec<(DType, Extent)>,
    out: DType,
}

/// `sum * scale + bias`, with operands 1 and 2 by channel.
fn scaled() -> Formula {
    arg(0) * arg(1) + arg(2)
}

fn cases() -> Vec<Case> {
    use Extent::{Channel, Full, One};
    let by_channel = [(DType::F32, Channel), (DType::F32, Channel)];
    let case = |formula, more: &[(DType, Extent)], out| Case { formula, operands: [&by_channel[..], more].concat(), out };
    let swish = |x: Formula| x.clone() * (x * 0.125 + constant(0.5)).clip(0.0, 1.0);
    // QuantizeLinear: scale and zero point.
    let quantised = |x: Formula, lo: f64, hi: f64| ((x / arg(3)).round() + arg(4)).clip(lo, hi);
    let residual = (scaled() + (arg(3) - arg(4)) * 0.37).max(constant(0.0));
    vec![
        case(scaled().max(constant(0.0)), &[], DType::F32),
        case(swish(scaled() + arg(3)), &[(DType::F32, Full)], DType::F32),
        case(quantised(scaled(), -128.0, 127.0), &[(DType::F32, One), (DType::I8, One)], DType::I8),
        case(quantised(swish(scaled()), 0.0, 255.0), &[(DType::F32, One), (DType::U8, One)], DType::U8),
        case(residual.clone(), &[(DType::I8, Full), (DType::I8, One)], DType::F32),
        case(residual.round(), &[(DType::U8, Full), (DType::U8, Channel)], DType::U8),
        // Fractions, although no operand is a float; and a store that saturates.
        Case { formula: (arg(0) * 0.011).round(), operands: vec![], out: DType::I8 },
        Case { formula: arg(0), operands: vec![], out: DType::U8 },
    ]
}

/// Each element as the CPU's evaluator of formulas has it.
fn finished(p: &ConvProblem, spec: &EpilogueSpec, sums: &[i32], operands: &[Tensor]) -> Vec<f64> {
    let sums: Vec<f32> = sums.iter().map(|&s| s as f32).collect();
    let pixels = p.window.pixels();
    let spread = |t: &Tensor| -> Vec<u8> {
        let size = t.dtype().size_bytes();
        let at = |i: usize| match t.numel() {
            1 => 0,
            n if n == sums.len() => i,
            _ => i / pixels % p.m,
        };
        (0..sums.len()).flat_map(|i| t.bytes()[at(i) * size..][..size].to_vec()).collect()
    };
    let all: Vec<Tensor> =
        operands.iter().map(|t| Tensor::from_raw(t.dtype(), [sums.len()].into(), &spread(t)).unwrap()).collect();
    let mut lanes = vec![Lane::Slice(bytemuck::cast_slice(&sums))];
    lanes.extend(all.iter().map(|t| Lane::Slice(t.bytes())));
    let mut out = Tensor::zeros(spec.out, [sums.len()]).unwrap().bytes().to_vec();
    Program::new(spec.steps().unwrap()).run(&lanes, &mut out);
    decode(spec.out, &out)
}

fn operand(r: &mut Xorshift, p: &ConvProblem, dtype: DType, extent: Extent) -> Tensor {
    let ones = vec![1; p.window.rank()];
    let shape: Shape = match extent {
        Extent::One => Shape::scalar(),
        Extent::Channel => [p.m].into_iter().chain(ones).collect(),
        Extent::Full => p.out_shape(),
    };
    if dtype != DType::F32 {
        return random(r, dtype, &shape);
    }
    // Such that sums neither vanish nor all saturate; one of them divides.
    let small: Vec<f64> = (0..shape.numel()).map(|_| f64::from((0.001 + 0.004 * r.unit()) as f32)).collect();
    tensor(dtype, &shape, &small)
}

#[test]
fn sums_of_integer_convolutions_are_finished_in_f32() {
    let mut r = Xorshift::new(91);
    let cases = cases();
    for round in 0..3 * cases.len() {
        let case = &cases[round % cases.len()];
        let mut p = geometry(&mut r, false);
        (p.n, p.y, p.b_at, p.own_inputs) = (p.n.max(1), DType::I32, None, 5);
        (p.x, p.w) = ([DType::U8, DType::I8][round / 2 % 2], [DType::I8, DType::U8][round / 4 % 2]);
        let mut inputs = operands(&mut r, &p);
        inputs[2] = Some(random(&mut r, p.x, &[]));
        let w_zero = [None, Some(vec![]), Some(vec![p.m])][round % 3].clone();
        inputs.extend([w_zero.map(|shape| random(&mut r, p.w, &shape)), None]);
        p.quant = Some(ConvQuant { x_zero: Some(2), w_zero: (round % 3 > 0).then_some(3), requantize: None });
        let sums = integer_sums(&p, &inputs);

        let given: Vec<Tensor> = case.operands.iter().map(|&(dtype, extent)| operand(&mut r, &p, dtype, extent)).collect();
        let types = given.iter().map(|t| Type::new(t.dtype(), t.shape().clone())).collect();
        let spec = EpilogueSpec { formula: case.formula.clone(), operands: types, out: case.out };
        let want: Vec<Range> = finished(&p, &spec, &sums, &given).into_iter().map(Range::point).collect();
        let mut problem = Problem::Conv(p.clone());
        problem.with_epilogue(spec).unwrap();
        inputs.extend(given.into_iter().map(Some));
        let out = Type::new(case.out, p.out_shape());
        assert!(each_kernel(&problem, &inputs, &[1, 3], out, &want) >= 2 * device::complete());
    }
}
