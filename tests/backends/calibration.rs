//! The interpreter against a GPU: the same kernels on the same inputs. What differs is printed, by the instructions that make it; integers
//! may not differ at all. Without a GPU there is nothing to compare.

use std::collections::BTreeMap;

use halfbyte::base::xorshift::Xorshift;
use halfbyte::base::{DType, Tensor};
use halfbyte::device::Device;
use halfbyte::graph::problem::ScalarProblem;
use halfbyte::graph::{Problem, Type};
use halfbyte::scalar::{Unary, arg};

use super::check::random;
use super::{cuda, device};

/// A problem with its inputs, its output, and what kind of arithmetic it is.
struct Case {
    class: String,
    problem: Problem,
    inputs: Vec<Tensor>,
    out: Type,
}

fn product(r: &mut Xorshift, a: DType, b: DType, out: DType, [m, n, k]: [usize; 3]) -> Case {
    let problem = halfbyte::cli::problems::gemm((a, b), [m, n, k]).unwrap();
    let inputs = vec![random(r, a, &[m, k]), random(r, b, &[k, n])];
    Case { class: format!("products of {a} and {b}"), problem, inputs, out: Type::new(out, [m, n]) }
}

fn function(r: &mut Xorshift, unary: Unary) -> Case {
    let ty = Type::new(DType::F32, [4096]);
    let formula = arg(0).unary(unary);
    let problem = Problem::Scalar(ScalarProblem { formula, operands: vec![ty.clone()], out: ty.clone() });
    Case { class: format!("{unary:?} of f32").to_lowercase(), problem, inputs: vec![random(r, DType::F32, &[4096])], out: ty }
}

fn cases() -> Vec<Case> {
    let mut r = Xorshift::new(11);
    let mut all = Vec::new();
    for shape in [[1, 64, 256], [64, 64, 64], [130, 70, 200]] {
        all.push(product(&mut r, DType::F32, DType::F32, DType::F32, shape));
        all.push(product(&mut r, DType::F16, DType::F16, DType::F16, shape));
        all.push(product(&mut r, DType::BF16, DType::BF16, DType::BF16, shape));
        all.push(product(&mut r, DType::I8, DType::I8, DType::I32, shape));
        all.push(product(&mut r, DType::U8, DType::I8, DType::I32, shape));
    }
    let functions = [Unary::Exp, Unary::Log, Unary::Sqrt, Unary::Tanh, Unary::Erf, Unary::Sin];
    all.extend(functions.map(|f| function(&mut r, f)));
    all
}

/// Elements that differ, and the largest difference relative to the largest magnitude.
fn difference(a: &Tensor, b: &Tensor) -> (usize, f64) {
    let (a, b) = (a.to_f64(), b.to_f64());
    let range = a.iter().filter(|v| v.is_finite()).fold(1e-30, |m: f64, v| m.max(v.abs()));
    let off = |(x, y): (&f64, &f64)| if x == y || (x.is_nan() && y.is_nan()) { 0.0 } else { (x - y).abs() / range };
    let all: Vec<f64> = a.iter().zip(&b).map(off).collect();
    (all.iter().filter(|d| **d != 0.0).count(), all.iter().fold(0.0, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(*d) }))
}

#[test]
fn the_interpreter_computes_what_the_gpu_does() {
    let Some(gpu) = device::gpu() else {
        println!("SKIP the interpreter's calibration: no usable GPU is here");
        return;
    };
    let interpreted = cuda::device("h200", 1);
    let mut worst: BTreeMap<String, (usize, f64)> = BTreeMap::new();
    for case in cases() {
        let inputs: Vec<Option<Tensor>> = case.inputs.iter().cloned().map(Some).collect();
        for kernel in device::kernels(&*gpu, &case.problem) {
            let outputs = std::slice::from_ref(&case.out);
            let [real, said] = [&*gpu, &interpreted as &dyn Device]
                .map(|on| device::launch(on, kernel, &case.problem, &inputs, &[], outputs).remove(0));
            let (differ, largest) = difference(&real, &said);
            println!("{}\t{}\t{differ} of {} differ\t{largest:.2e}", case.class, kernel.name, real.numel());
            let entry = worst.entry(case.class.clone()).or_default();
            *entry = (entry.0 + differ, entry.1.max(largest));
        }
    }
    println!("\ninstruction class\telements that differ\tlargest difference");
    worst.iter().for_each(|(class, (differ, largest))| println!("{class}\t{differ}\t{largest:.2e}"));
    let integers: Vec<_> = worst.iter().filter(|(class, w)| class.contains("i8") && w.0 > 0).collect();
    assert!(integers.is_empty(), "integers are exact: {integers:?}");
}
