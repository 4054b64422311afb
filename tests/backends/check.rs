//! Results against exact values and the errors that the arithmetic may make.

use halfbyte::base::xorshift::Xorshift;
use halfbyte::base::{DType, Shape, Tensor};
use halfbyte::graph::{Problem, Type};
use halfbyte::scalar::bounds::{Arithmetic, Range, enclose_in};
use halfbyte::scalar::{Formula, Steps, arg};

use super::device;
use super::formulas::{decode, encode};

/// The unit roundoff of f32.
pub const U: f64 = f32::EPSILON as f64 / 2.0;

/// Of a sum of `n` rounded terms in any order, relative to the sum of their magnitudes: `n u / (1 - n u)`.
/// Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 3.1.
pub fn gamma(n: usize) -> f64 {
    let n = n as f64 * U;
    n / (1.0 - n)
}

/// Each value, at most its error off.
pub fn around(values: &[f64], errors: impl Fn(usize) -> f64) -> Vec<Range> {
    values.iter().enumerate().map(|(i, &v)| Range::around(v, errors(i) + f64::from(f32::from_bits(64)))).collect()
}

/// What may be stored for arguments in these ranges: by IEEE 754, or, with `HALFBYTE_ARITHMETIC=wgsl`, by all that WGSL allows, for
/// adapters that make use of it.
pub fn enclosed(steps: &Steps, given: &[Range]) -> Range {
    let is_wgsl = std::env::var("HALFBYTE_ARITHMETIC").is_ok_and(|a| a == "wgsl");
    enclose_in(if is_wgsl { Arithmetic::Wgsl } else { Arithmetic::Ieee }, steps, given)
}

/// What may be stored of f32 values in these ranges after a formula whose other operands are `operands`, of the output's size.
pub fn stored(ranges: &[Range], formula: &Formula, operands: &[(DType, Vec<f64>)], out: DType) -> Vec<Range> {
    let types: Vec<DType> = [DType::F32].into_iter().chain(operands.iter().map(|o| o.0)).collect();
    let steps = Steps::compile(formula, &types, out).unwrap();
    let given =
        |i: usize| -> Vec<Range> { [ranges[i]].into_iter().chain(operands.iter().map(|o| Range::point(o.1[i]))).collect() };
    (0..ranges.len()).map(|i| enclosed(&steps, &given(i))).collect()
}

/// The same without a formula.
pub fn rounded(ranges: &[Range], out: DType) -> Vec<Range> {
    stored(ranges, &arg(0), &[], out)
}

/// Runs the problem by every kernel of every device, with `constant` inputs ahead and not, and compares output 0. Gives the number of runs.
pub fn each_kernel(problem: &Problem, inputs: &[Option<Tensor>], constant: &[usize], out: Type, allowed: &[Range]) -> usize {
    all_outputs(problem, inputs, constant, &[(out, allowed.to_vec())])
}

/// The same for several outputs, each with what it may be.
pub fn all_outputs(problem: &Problem, inputs: &[Option<Tensor>], constant: &[usize], outputs: &[(Type, Vec<Range>)]) -> usize {
    let types: Vec<Type> = outputs.iter().map(|o| o.0.clone()).collect();
    let mut runs = 0;
    for device in device::all() {
        for kernel in device::kernels(&**device, problem) {
            for ahead in [&[][..], constant] {
                let all = device::launch(&**device, kernel, problem, inputs, ahead, &types);
                for (n, (got, (out, allowed))) in all.iter().zip(outputs).enumerate() {
                    let got = decode(out.dtype, got.bytes());
                    assert_eq!(got.len(), allowed.len(), "output {n} of {problem:?}");
                    for (i, (&g, range)) in got.iter().zip(allowed).enumerate() {
                        let at = format_args!("{} output {n} element {i}", kernel.name);
                        assert!(range.holds(g), "{at}: {g}, allowed {range:?}, in {problem:?}");
                    }
                    refuses_planted_errors(&got, allowed, problem);
                }
                runs += 1;
            }
        }
    }
    runs
}

/// A bound that lets an error of a 64th of the largest result pass says nothing. Where sums cancel it may; those are few.
fn refuses_planted_errors(got: &[f64], allowed: &[Range], problem: &Problem) {
    let finite: Vec<_> = got.iter().zip(allowed).filter(|(g, _)| g.is_finite()).collect();
    let off = finite.iter().fold(0.0, |m: f64, (g, _)| m.max(g.abs())) / 64.0;
    let passes = |(g, range): &&(&f64, &Range)| off > 1e-32 && (range.holds(*g + off) || range.holds(*g - off));
    let wide = finite.iter().filter(passes).count();
    assert!(wide <= 1 + finite.len() / 64, "{wide} of {} elements may be {off} off in {problem:?}", finite.len());
}

pub fn tensor(dtype: DType, shape: &[usize], values: &[f64]) -> Tensor {
    Tensor::from_raw(dtype, Shape::from(shape), &encode(dtype, values)).unwrap()
}

/// In [-2, 2] with a few magnitudes from 1e-3 to 1e3; of integers, any, a third of them extreme.
pub fn random(r: &mut Xorshift, dtype: DType, shape: &[usize]) -> Tensor {
    let one = |r: &mut Xorshift| match dtype.int_range() {
        _ if dtype == DType::Bool => r.below(2) as f64,
        Some((lo, hi)) => match r.below(3) {
            0 => [lo as f64, hi as f64, 0.0][r.below(3)],
            _ => (lo as f64 + r.unit() * (hi as f64 - lo as f64)).round(),
        },
        None if r.below(16) == 0 => (r.unit() - 0.5) * 10f64.powi(r.below(7) as i32 - 3),
        None => r.unit() * 4.0 - 2.0,
    };
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| one(r)).collect();
    tensor(dtype, shape, &values)
}

/// The tensor's elements under a function, as f64.
pub fn mapped(t: &Option<Tensor>, f: impl Fn(f64) -> f64) -> Option<Tensor> {
    t.as_ref().map(|t| tensor(DType::F64, t.shape(), &t.to_f64().into_iter().map(f).collect::<Vec<_>>()))
}

/// All tensors as f64, and their magnitudes.
pub fn exact(inputs: &[Option<Tensor>]) -> [Vec<Option<Tensor>>; 2] {
    let all = |f: fn(f64) -> f64| inputs.iter().map(|t| mapped(t, f)).collect();
    [all(|v| v), all(f64::abs)]
}
