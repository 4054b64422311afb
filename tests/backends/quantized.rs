//! Quantised products with every kind of scale, zero point, addend and output: the same bits from every kernel. Batches,
//! weights of fewer bits, and contractions.

use halfbyte::base::xorshift::Xorshift;
use halfbyte::base::{DType, Tensor};
use halfbyte::graph::{Attr, Problem, Type};
use halfbyte::scalar::bounds::Range;
use halfbyte::scalar::{arg, constant};

use super::check::*;
use super::device::{launch, reference};
use super::products::{gemm, lower_in};

const MS: &str = "com.microsoft";

/// Compares every kernel with the reference, bit for bit.
fn exactly(problem: &Problem, inputs: &[Option<Tensor>], constant: &[usize]) -> usize {
    let p = gemm(problem);
    let out = Type::new(p.stored(), p.shape.clone());
    let want = reference(problem, inputs, std::slice::from_ref(&out))[0].to_f64();
    let want: Vec<Range> = want.into_iter().map(Range::point).collect();
    each_kernel(problem, inputs, constant, out, &want)
}

/// Positive scales: one, or `count` of them.
fn scales(r: &mut Xorshift, count: Option<usize>) -> Option<Tensor> {
    let shape: Vec<usize> = count.into_iter().collect();
    let values: Vec<f64> = (0..count.unwrap_or(1)).map(|_| f64::from(0.001 + 0.02 * r.unit() as f32)).collect();
    Some(tensor(DType::F32, &shape, &values))
}

fn shape(r: &mut Xorshift) -> [usize; 3] {
    const M: [usize; 9] = [1, 2, 5, 8, 9, 17, 40, 70, 130];
    const N: [usize; 7] = [1, 3, 8, 33, 66, 100, 130];
    const K: [usize; 9] = [1, 4, 16, 31, 64, 100, 129, 256, 700];
    [M[r.below(M.len())], N[r.below(N.len())], K[r.below(K.len())]]
}

const BYTES: [DType; 2] = [DType::U8, DType::I8];

#[test]
fn requantised_products_have_the_same_bits_everywhere() {
    let mut r = Xorshift::new(31);
    let mut runs = 0;
    for i in 0..16 {
        let [m, n, k] = shape(&mut r);
        let (ta, tb, out) = (BYTES[i & 1], BYTES[i >> 1 & 1], BYTES[i >> 2 & 1]);
        // One side may differ by row or column; the output's scale divides.
        let (rows, columns) = [(None, None), (None, Some(n)), (Some(m), None)][i % 3];
        let zero = |r: &mut Xorshift, t, count: Option<usize>| Some(random(r, t, &count.into_iter().collect::<Vec<_>>()));
        let a = Some(random(&mut r, ta, &[m, k]));
        let b = Some(random(&mut r, tb, &[k, n]));
        let (sa, za) = (scales(&mut r, rows), zero(&mut r, ta, rows));
        let (sb, zb) = (scales(&mut r, columns), zero(&mut r, tb, columns));
        let (so, zo) = (Some(tensor(DType::F32, &[], &[k as f64 * 0.5])), zero(&mut r, out, None));
        let inputs = [a, sa, za, b, sb, zb, so, zo];
        runs += exactly(&lower_in("", "QLinearMatMul", &[], &inputs), &inputs, &[3]);
    }
    println!("{runs} runs");
}

#[test]
fn products_to_floats_with_addends_have_the_same_bits_everywhere() {
    let mut r = Xorshift::new(32);
    for i in 0..12 {
        let [m, n, k] = shape(&mut r);
        let (ta, tb) = (BYTES[i & 1], BYTES[i >> 1 & 1]);
        let a = Some(random(&mut r, ta, &[m, k]));
        let b = Some(random(&mut r, tb, &[k, n]));
        let (rows, columns) = ((i % 3 == 1).then_some(m), (i % 2 == 1).then_some(n));
        let inputs = if i % 2 == 0 {
            // QGemm: i32 addends, alpha, transposed B.
            let b = Some(random(&mut r, tb, &[n, k]));
            let c = Some(random(&mut r, DType::I32, &[n])).filter(|_| i % 4 == 0);
            vec![a, scales(&mut r, rows), None, b, scales(&mut r, columns), Some(random(&mut r, tb, &[])), c]
        } else {
            let (za, zb) = (random(&mut r, ta, &[]), random(&mut r, tb, &[n]));
            let c = Some(random(&mut r, DType::F32, &[n])).filter(|_| i % 4 == 1);
            vec![a, b, scales(&mut r, rows), scales(&mut r, columns), Some(za), Some(zb), c]
        };
        let (op, attrs, b_at) = match i % 2 {
            0 => ("QGemm", vec![("alpha", Attr::Float(0.7)), ("transB", Attr::Int(1))], 3),
            _ => ("MatMulIntegerToFloat", vec![], 1),
        };
        exactly(&lower_in(MS, op, &attrs, &inputs), &inputs, &[b_at]);
    }
}

#[test]
fn dynamically_quantised_products_have_the_same_bits_everywhere() {
    let mut r = Xorshift::new(33);
    for i in 0..12 {
        let [m, n, k] = shape(&mut r);
        let a = Some(random(&mut r, DType::F32, &[m, k]));
        if i % 2 == 0 {
            let b = Some(random(&mut r, DType::F32, &[k, n]));
            let c = Some(random(&mut r, DType::F32, &[n])).filter(|_| i % 4 == 0);
            let inputs = [a, b, c];
            let attrs = [("weight_precision", Attr::Str("int8".into()))];
            exactly(&lower_in("halfbyte", "Linear", &attrs, &inputs), &inputs, &[1]);
        } else {
            let b = Some(random(&mut r, BYTES[i >> 1 & 1], &[k, n]));
            let zero = Some(random(&mut r, BYTES[i >> 1 & 1], &[])).filter(|_| i % 4 == 1);
            let inputs = [a, b, scales(&mut r, (i % 3 == 0).then_some(n)), zero];
            exactly(&lower_in(MS, "DynamicQuantizeMatMul", &[], &inputs), &inputs, &[1]);
        }
    }
}

#[test]
fn products_of_rows_quantised_one_by_one_have_the_same_bits_everywhere() {
    let mut r = Xorshift::new(35);
    for i in 0..12 {
        let [m, n, k] = shape(&mut r);
        let a = random(&mut r, DType::F32, &[m, k]);
        // Ranges on one side of zero, and far from symmetric.
        let moved: Vec<f32> = a.values::<f32>().unwrap().iter().map(|v| v + [0.0, 3.0, -0.7][i % 3]).collect();
        let a = Some(Tensor::new([m, k], &moved).unwrap());
        let c = Some(random(&mut r, DType::F32, &[n])).filter(|_| i % 4 == 0);
        let inputs = [a, Some(random(&mut r, DType::I8, &[k, n])), scales(&mut r, (i % 5 > 0).then_some(n)), c];
        let attrs = [("rows", Attr::Str(["symmetric", "asymmetric"][i % 2].into()))];
        exactly(&lower_in("halfbyte", "LinearInt8", &attrs, &inputs), &inputs, &[1, 2]);
    }
}

#[test]
fn weights_of_16_bits() {
    let mut r = Xorshift::new(34);
    for _ in 0..8 {
        let [m, n, k] = shape(&mut r);
        let inputs = [Some(random(&mut r, DType::F32, &[m, k])), Some(random(&mut r, DType::F32, &[k, n])), None];
        let problem = lower_in("halfbyte", "Linear", &[("weight_precision", Attr::Str("f16".into()))], &inputs);
        let wide = [&inputs[..2], &[None]].concat();
        let [values, magnitudes] = exact(&wide).map(|inputs| {
            let plain = lower_in("", "MatMul", &[], &inputs[..2]);
            reference(&plain, &inputs[..2], &[Type::new(DType::F64, gemm(&problem).shape.clone())])[0].to_f64()
        });
        // A kernel may round A too; halves below 2^-14 keep fewer bits.
        let each = |i: usize| (2.0 * 2f64.powi(-11) + gamma(k + 2)) * 1.01 * magnitudes[i] + k as f64 * 1e3 * 2f64.powi(-24);
        let allowed = rounded(&around(&values, each), DType::F32);
        each_kernel(&problem, &inputs, &[1], Type::new(DType::F32, [m, n]), &allowed);
    }
}

/// f16, bf16, and i8 with scales: the bits of a product of the widened weights. On the CPU, which alone is given such problems: elsewhere
/// kernels may round A as well.
#[test]
fn weights_as_they_are_stored() {
    let mut r = Xorshift::new(38);
    for i in 0..18 {
        let [m, n, k] = shape(&mut r);
        let (dtype, transposed) = ([DType::F16, DType::BF16, DType::I8][i % 3], i / 3 % 2 == 1);
        let a = Some(random(&mut r, DType::F32, &[m, k]));
        let b = random(&mut r, dtype, &if transposed { [n, k] } else { [k, n] });
        let scale = (dtype == DType::I8).then(|| scales(&mut r, (i > 5).then_some(n)).unwrap());
        let c = Some(random(&mut r, DType::F32, &[n])).filter(|_| i % 4 == 0);
        let factor = |at: usize| {
            let column = if transposed { at / k } else { at % n };
            scale.as_ref().map_or(1.0, |s| s.to_f64()[if s.numel() == 1 { 0 } else { column }])
        };
        let wide: Vec<f64> = b.to_f64().iter().enumerate().map(|(at, v)| f64::from((v * factor(at)) as f32)).collect();
        let wide = tensor(DType::F32, b.shape(), &wide);
        let attrs = [("transB", Attr::Int(transposed.into()))];
        let inputs = [a.clone(), Some(b), scale, c.clone()];
        let problem = lower_in("halfbyte", "LinearStored", &attrs, &inputs);

        let widened = [a, Some(wide), c];
        let plain = lower_in("halfbyte", "Linear", &attrs, &widened);
        let out = Type::new(DType::F32, gemm(&plain).shape.clone());
        let cpu = halfbyte::device::cpu::CpuDevice::new(Some(2)).unwrap();
        for kernel in super::device::kernels(&cpu, &problem) {
            let run =
                |p: &Problem, inputs: &[Option<Tensor>]| launch(&cpu, kernel, p, inputs, &[1, 2], std::slice::from_ref(&out));
            assert_eq!(run(&problem, &inputs)[0].bytes(), run(&plain, &widened)[0].bytes(), "{} of {dtype}", kernel.name);
        }
    }
}

#[test]
fn batches_broadcast_on_every_kernel() {
    let mut r = Xorshift::new(35);
    let cases: [(&[usize], &[usize]); 8] = [
        (&[2, 3, 20, 24], &[3, 24, 18]),
        (&[2, 1, 4, 16], &[3, 16, 34]),
        (&[9, 40], &[2, 2, 40, 6]),
        (&[3, 1, 4, 5], &[3, 2, 5, 1]),
        (&[32], &[2, 32, 6]),
        (&[2, 4, 48], &[48]),
        (&[65], &[65]),
        (&[0, 4, 5], &[5, 6]),
    ];
    for (a, b) in cases {
        for dtype in [DType::F32, DType::F16, DType::I8] {
            let inputs = [Some(random(&mut r, dtype, a)), Some(random(&mut r, dtype, b))];
            let k = *a.last().unwrap();
            if dtype == DType::I8 {
                exactly(&lower_in("", "MatMulInteger", &[], &inputs), &inputs, &[1]);
                continue;
            }
            let problem = lower_in("", "MatMul", &[], &inputs);
            let shape = gemm(&problem).shape.clone();
            let [values, magnitudes] = exact(&inputs).map(|inputs| {
                reference(&lower_in("", "MatMul", &[], &inputs), &inputs, &[Type::new(DType::F64, shape.clone())])[0].to_f64()
            });
            let allowed = rounded(&around(&values, |i| gamma(k + 1) * magnitudes[i]), dtype);
            each_kernel(&problem, &inputs, &[1], Type::new(dtype, shape), &allowed);
        }
    }
}

#[test]
fn products_and_contractions_of_every_type() {
    let mut r = Xorshift::new(36);
    let types = DType::ALL.into_iter().filter(|&d| d != DType::Bool && !matches!(d, DType::F16 | DType::BF16));
    for dtype in types {
        let equations: [(&str, &[&[usize]]); 4] = [
            ("ij,jk->ik", &[&[3, 5], &[5, 4]]),
            ("ii->i", &[&[4, 4]]),
            ("abc,c,ba->ab", &[&[2, 3, 4], &[4], &[3, 2]]),
            ("ab->", &[&[3, 4]]),
        ];
        for (equation, shapes) in equations {
            let inputs: Vec<_> = shapes.iter().map(|s| Some(random(&mut r, dtype, s))).collect();
            let problem = lower_in("", "Einsum", &[("equation", Attr::Str(equation.into()))], &inputs);
            let p = gemm(&problem);
            let out = Type::new(dtype, p.shape.clone());
            if !dtype.is_float() {
                exactly(&problem, &inputs, &[]);
                continue;
            }
            let [values, magnitudes] = exact(&inputs).map(|inputs| {
                let wide = lower_in("", "Einsum", &[("equation", Attr::Str(equation.into()))], &inputs);
                reference(&wide, &inputs, &[Type::new(DType::F64, p.shape.clone())])[0].to_f64()
            });
            let allowed = rounded(&around(&values, |i| gamma(20) * magnitudes[i]), dtype);
            each_kernel(&problem, &inputs, &[], out, &allowed);
        }
    }
    // Of integers, an epilogue in f32.
    let inputs = [Some(random(&mut r, DType::I32, &[3, 5])), Some(random(&mut r, DType::I32, &[5, 4]))];
    let mut problem = lower_in("", "MatMul", &[], &inputs);
    let epilogue =
        halfbyte::graph::problem::EpilogueSpec { formula: arg(0).max(constant(0.0)), operands: vec![], out: DType::F32 };
    problem.with_epilogue(epilogue).unwrap();
    exactly(&problem, &inputs, &[]);
}

/// Warps in other orders, copies that arrive later: the same bits, of exact sums and of floats, in parts of K and whole.
#[cfg(feature = "cuda")]
#[test]
fn schedules_do_not_change_products() {
    use halfbyte::hardware::DeviceKind;

    use super::device::{all, kernels};
    let mut r = Xorshift::new(37);
    for (dtype, [m, n, k]) in [(DType::F16, [70, 35, 330]), (DType::I8, [33, 130, 700]), (DType::BF16, [5, 70, 600])] {
        let inputs = [Some(random(&mut r, dtype, &[m, k])), Some(random(&mut r, dtype, &[k, n]))];
        let op = if dtype == DType::I8 { "MatMulInteger" } else { "MatMul" };
        let problem = lower_in("", op, &[], &inputs);
        let out = [Type::new(gemm(&problem).stored(), gemm(&problem).shape.clone())];
        let Some(here) = all().iter().find(|d| d.info().kind == DeviceKind::Cuda) else { return };
        let here = &**here;
        for kernel in kernels(here, &problem) {
            let want = launch(here, kernel, &problem, &inputs, &[1], &out);
            for seed in [0, 2, 3, 4] {
                let device = super::cuda::device("h200", seed);
                let got = launch(&device, kernel, &problem, &inputs, &[1], &out);
                assert_eq!(got[0].bytes(), want[0].bytes(), "{} with seed {seed}", kernel.name);
            }
        }
    }
}

/// Which kernel each tier takes for products of a kind.
#[cfg(feature = "cuda")]
#[test]
fn tiers_choose_their_tiles() {
    let chosen = |model: &str, dtype: DType, [m, n, k]: [usize; 3]| {
        let given = [[m, k], [k, n]].map(|s| Some(Tensor::zeros(dtype, s).unwrap()));
        let problem = lower_in("", if dtype == DType::I8 { "MatMulInteger" } else { "MatMul" }, &[], &given);
        let info = halfbyte::hardware::nvidia::model(model).unwrap();
        halfbyte::kernel::choose(&info, &problem, None).unwrap().kernel.name
    };
    let square = [1024; 3];
    assert_eq!(chosen("a100", DType::F16, [2048; 3]), "cuda-sm80-half-128x128");
    assert_eq!(chosen("a100", DType::BF16, [512; 3]), "cuda-sm80-half-64x64");
    assert_eq!(chosen("a100", DType::I8, [2048; 3]), "cuda-sm80-int8-128x128");
    assert_eq!(chosen("a100", DType::F16, [1, 4096, 1024]), "cuda-sm61-float-gemv");
    assert_eq!(chosen("t4", DType::F16, square), "cuda-sm75-f16-128x128");
    assert_eq!(chosen("t4", DType::I8, square), "cuda-sm75-int8-128x64");
    assert_eq!(chosen("gtx-1060", DType::F16, square), "cuda-sm61-float-128x64");
    assert_eq!(chosen("gtx-1060", DType::I8, [8, 1024, 1024]), "cuda-sm61-int8-gemv");
    assert_eq!(chosen("a100", DType::I64, [64; 3]), "cuda-any-gemm");
    // `mma` gives 62 % of Hopper's peak, and a kernel that has few bytes on their way not its memory's rate.
    for size in [2048, 4096, 8192] {
        assert!(chosen("h200", DType::F16, [size; 3]).starts_with("cuda-sm90-half-128x256"));
        assert!(chosen("h200", DType::I8, [size; 3]).starts_with("cuda-sm90-int8-128x"));
    }
    for dtype in [DType::F16, DType::I8] {
        let kernel = chosen("h200", dtype, [16, 4096, 4096]);
        assert!(["-few", "-16x128", "-64x64"].iter().any(|end| kernel.ends_with(end)) && !kernel.contains("sm75"), "{kernel}");
    }
}
