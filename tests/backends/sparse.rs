//! Products with weights of which two in every four neighbours are zero, by the kernels that leave the zeros out.

use halfbyte::base::xorshift::Xorshift;
use halfbyte::base::{DType, Tensor};
use halfbyte::graph::problem::EpilogueSpec;
use halfbyte::graph::{Attr, Problem, Type};
use halfbyte::scalar::bounds::Range;
use halfbyte::scalar::{arg, constant};

use super::check::*;
use super::device::{self, reference};
use super::products::{gemm, lower_in};

/// Two elements or fewer in every four along `axis` of a matrix of any others.
pub fn thinned(r: &mut Xorshift, full: &Tensor, axis: usize, zero: f64) -> Tensor {
    let (shape, mut values) = (full.shape().clone(), full.to_f64());
    let (k, others) = (shape[axis], shape[1 - axis]);
    let step = if axis == 0 { [1, others] } else { [k, 1] };
    for (n, four) in (0..others).flat_map(|n| (0..k.div_ceil(4)).map(move |four| (n, four))) {
        let kept = [r.below(4), r.below(4)];
        (0..4)
            .filter(|i| !kept.contains(i) && 4 * four + i < k)
            .for_each(|i| values[n * step[0] + (4 * four + i) * step[1]] = zero);
    }
    tensor(full.dtype(), &shape, &values)
}

fn sparse(mut problem: Problem) -> Problem {
    if let Problem::Gemm(p) = &mut problem {
        p.two_of_four = true;
    }
    problem
}

/// Runs every sparse kernel that takes the problem. Gives the number of runs.
fn each_sparse(problem: Problem, inputs: &[Option<Tensor>], weights: usize, allowed: &[Range]) -> usize {
    let (problem, mut runs) = (sparse(problem), 0);
    let p = gemm(&problem);
    let out = Type::new(p.stored(), p.shape.clone());
    for device in device::all() {
        for kernel in device::kernels(&**device, &problem).into_iter().filter(|k| k.name.contains("-sparse-")) {
            let got = device::launch(&**device, kernel, &problem, inputs, &[weights], std::slice::from_ref(&out));
            for (i, (got, range)) in got[0].to_f64().into_iter().zip(allowed).enumerate() {
                assert!(range.holds(got), "{} element {i}: {got}, allowed {range:?}, in {problem:?}", kernel.name);
            }
            runs += 1;
        }
    }
    runs
}

/// The reference's results, bit for bit.
fn exactly(problem: Problem, inputs: &[Option<Tensor>], weights: usize) -> usize {
    let p = gemm(&problem);
    let want = reference(&problem, inputs, &[Type::new(p.stored(), p.shape.clone())])[0].to_f64();
    let want: Vec<Range> = want.into_iter().map(Range::point).collect();
    each_sparse(problem, inputs, weights, &want)
}

/// Ragged, with one and several tiles, parts of K (from 512 on, of bytes from 1024), more of it than any ring holds, and sums shorter than a stage.
const SHAPES: [[usize; 3]; 8] =
    [[1, 1, 32], [1, 40, 1100], [5, 130, 100], [17, 16, 129], [33, 65, 64], [70, 136, 260], [130, 129, 70], [257, 48, 40]];

#[test]
fn float_products_of_sparse_weights() {
    let (mut r, mut runs) = (Xorshift::new(41), 0);
    for (i, [m, n, k]) in SHAPES.into_iter().enumerate() {
        let dtype = [DType::F16, DType::BF16][i % 2];
        let full = random(&mut r, dtype, &[k, n]);
        let b = thinned(&mut r, &full, 0, 0.0);
        let mut inputs = vec![Some(random(&mut r, dtype, &[m, k])), Some(b)];
        let lowered = lower_in("", "MatMul", &[], &inputs);
        let [values, magnitudes] = exact(&inputs).map(|inputs| {
            let problem = lower_in("", "MatMul", &[], &inputs);
            reference(&problem, &inputs, &[Type::new(DType::F64, [m, n])])[0].to_f64()
        });
        let sums = around(&values, |i| gamma(k + 1) * magnitudes[i]);
        runs += each_sparse(lowered.clone(), &inputs, 1, &rounded(&sums, dtype));
        // With a bias by column and an activation.
        let bias = random(&mut r, DType::F32, &[1, n]);
        let each: Vec<f64> = (0..m * n).map(|at| bias.to_f64()[at % n]).collect();
        let formula = (arg(0) + arg(1)).max(constant(0.0)).tanh();
        let operands = vec![Type::new(DType::F32, [1, n])];
        let mut fused = lowered;
        fused.with_epilogue(EpilogueSpec { formula: formula.clone(), operands, out: DType::F32 }).unwrap();
        inputs.push(Some(bias));
        runs += each_sparse(fused, &inputs, 1, &stored(&sums, &formula, &[(DType::F32, each)], DType::F32));
    }
    println!("{runs} runs");
    assert!(device::all().len() < 2 || runs >= SHAPES.len() * 2 * 3);
}

#[test]
fn transposed_f32_weights_are_rounded_to_f16() {
    let mut r = Xorshift::new(42);
    let (m, n, k) = (19, 35, 150);
    // What f16 holds, with signs on zeros.
    let half = |t: Tensor| tensor(DType::F32, t.shape(), &tensor(DType::F16, t.shape(), &t.to_f64()).to_f64());
    let full = half(random(&mut r, DType::F32, &[n, k]));
    let b = thinned(&mut r, &full, 1, -0.0);
    let c = random(&mut r, DType::F32, &[n]);
    let inputs = [Some(half(random(&mut r, DType::F32, &[m, k]))), Some(b), Some(c)];
    let attrs = [("transB", Attr::Int(1))];
    let [values, magnitudes] = exact(&inputs)
        .map(|inputs| reference(&lower_in("", "Gemm", &attrs, &inputs), &inputs, &[Type::new(DType::F64, [m, n])])[0].to_f64());
    let mut problem = lower_in("", "Gemm", &attrs, &inputs);
    let Problem::Gemm(p) = &mut problem else { panic!("a product") };
    p.b_as = DType::F16;
    let allowed = rounded(&around(&values, |i| gamma(k + 2) * magnitudes[i]), DType::F32);
    let runs = each_sparse(problem, &inputs, 1, &allowed);
    assert!(device::all().len() < 2 || runs >= 3);
}

#[test]
fn integer_products_of_sparse_weights_are_exact() {
    let (mut r, mut runs) = (Xorshift::new(43), 0);
    for (i, [m, n, k]) in SHAPES.into_iter().enumerate() {
        let (ta, tb) = ([DType::U8, DType::I8][i & 1], [DType::I8, DType::U8][i >> 1 & 1]);
        let zero = if tb == DType::U8 { 128.0 } else { 0.0 };
        let full = random(&mut r, tb, &[k, n]);
        let b = Some(thinned(&mut r, &full, 0, zero));
        let (za, zb) = (random(&mut r, ta, &[]), random(&mut r, tb, &[n]));
        let inputs = [Some(random(&mut r, ta, &[m, k])), b, Some(za).filter(|_| i % 3 > 0), Some(zb).filter(|_| i % 2 > 0)];
        runs += exactly(lower_in("", "MatMulInteger", &[], &inputs), &inputs, 1);
    }
    println!("{runs} runs");
    assert!(device::all().len() < 2 || runs >= SHAPES.len() * 3);
}

#[test]
fn quantised_layers_of_sparse_weights_have_the_dense_bits() {
    let (mut r, mut runs) = (Xorshift::new(44), 0);
    for i in 0..8 {
        let [m, n, k] = SHAPES[i];
        let full = random(&mut r, DType::I8, &[n, k]);
        let b = Some(thinned(&mut r, &full, 1, 0.0));
        let scales: Vec<f64> = (0..n).map(|_| 0.001 + 0.02 * r.unit()).collect();
        let bias = Some(random(&mut r, DType::F32, &[n])).filter(|_| i % 2 == 0);
        let inputs = [Some(random(&mut r, DType::F32, &[m, k])), b, Some(tensor(DType::F32, &[n], &scales)), bias];
        let rows = ["symmetric", "asymmetric"][i / 2 % 2];
        let attrs = [("transB", Attr::Int(1)), ("rows", Attr::Str(rows.into()))];
        runs += exactly(lower_in("halfbyte", "LinearInt8", &attrs, &inputs), &inputs, 1);
    }
    println!("{runs} runs");
    assert!(device::all().len() < 2 || runs >= 24);
}

/// By prediction on an H200.
#[cfg(feature = "cuda")]
#[test]
fn large_products_take_the_kernels_of_hopper_and_few_rows_others() {
    let info = halfbyte::hardware::nvidia::model("h200").unwrap();
    for (dtype, op, kind) in [(DType::F16, "MatMul", "half"), (DType::I8, "MatMulInteger", "int8")] {
        let chosen = |m: usize| {
            let given = [[m, 4096], [4096, 4096]].map(|s| Some(Tensor::zeros(dtype, s).unwrap()));
            halfbyte::kernel::choose(&info, &sparse(lower_in("", op, &[], &given)), None).unwrap().kernel.name
        };
        assert_eq!(chosen(4096), format!("cuda-sm90-sparse-{kind}-256x128"));
        assert!(chosen(16).starts_with(&format!("cuda-sm80-sparse-{kind}-")), "{}", chosen(16));
    }
}

/// On few SMs each block of the kernels of Hopper has several tiles to do, and the ring runs on from one to the next.
#[cfg(feature = "cuda")]
#[test]
fn blocks_go_on_from_tile_to_tile() {
    use halfbyte::device::gpu::GpuDevice;
    use halfbyte::hardware::{DeviceInfo, nvidia};

    let mut r = Xorshift::new(46);
    let [m, n, k] = [260, 130, 400];
    let mut runs = 0;
    for (dtype, op, out) in [(DType::F16, "MatMul", DType::F16), (DType::I8, "MatMulInteger", DType::I32)] {
        let mut small = |shape: [usize; 2]| {
            let values: Vec<f64> = (0..shape[0] * shape[1]).map(|_| r.below(7) as f64 - 3.0).collect();
            tensor(dtype, &shape, &values)
        };
        let (a, full) = (small([m, k]), small([k, n]));
        let inputs = [Some(a), Some(thinned(&mut r, &full, 0, 0.0))];
        let problem = sparse(lower_in("", op, &[], &inputs));
        let out = [Type::new(out, [m, n])];
        let want = reference(&problem, &inputs, &out)[0].to_f64();
        for seed in 0..2 {
            let info = DeviceInfo { cores: 2, ..nvidia::model("h200").unwrap() };
            let device = GpuDevice::new(info, super::cuda::Interpreted::new(seed)).unwrap();
            for kernel in device::kernels(&device, &problem).into_iter().filter(|k| k.name.contains("sm90-sparse-")) {
                assert!(
                    device::launch(&device, kernel, &problem, &inputs, &[1], &out)[0].to_f64() == want,
                    "{} {seed}",
                    kernel.name
                );
                runs += 1;
            }
        }
    }
    assert_eq!(runs, 8);
}

/// A row's answer has the same bits whatever the other rows are, by every kernel.
#[test]
fn rows_do_not_depend_on_each_other() {
    let mut r = Xorshift::new(45);
    let (m, n, k) = (20, 40, 200);
    let full = random(&mut r, DType::F16, &[k, n]);
    let b = thinned(&mut r, &full, 0, 0.0);
    let first = random(&mut r, DType::F16, &[1, k]);
    let results = [0, 1].map(|_| {
        let others = random(&mut r, DType::F16, &[m - 1, k]).to_f64();
        let a = tensor(DType::F16, &[m, k], &[first.to_f64(), others].concat());
        let inputs = [Some(a), Some(b.clone())];
        let problem = sparse(lower_in("", "MatMul", &[], &inputs));
        let out = [Type::new(DType::F16, [m, n])];
        let mut rows = Vec::new();
        for device in device::all() {
            for kernel in device::kernels(&**device, &problem).into_iter().filter(|k| k.name.contains("-sparse-")) {
                let got = device::launch(&**device, kernel, &problem, &inputs, &[1], &out);
                rows.push((kernel.name, got[0].bytes()[..2 * n].to_vec()));
            }
        }
        rows
    });
    assert_eq!(results[0], results[1]);
}
