//! The largest results of each row of a product, kept while it runs: those of the same kernel's whole product, bit for bit.

use halfbyte::base::xorshift::Xorshift;
use halfbyte::base::{DType, Tensor};
use halfbyte::graph::problem::GemmProblem;
use halfbyte::graph::{Attr, Problem, Type};
use halfbyte::kernel::KernelDef;

use super::check::tensor;
use super::device;
use super::products::{gemm, lower_in};

const F32: DType = DType::F32;

/// Columns and bits of a row's best results: by total order, the first of equal ones first.
fn best(row: &[f32], k: usize) -> (Vec<i64>, Vec<u32>) {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&i, &j| row[j].total_cmp(&row[i]).then(i.cmp(&j)));
    order[..k].iter().map(|&at| (at as i64, row[at].to_bits())).unzip()
}

/// A product and how many of its results are wanted.
struct Case {
    op: (&'static str, &'static str),
    attrs: Vec<(&'static str, Attr)>,
    inputs: Vec<Option<Tensor>>,
    k: usize,
}

impl Case {
    /// Runs every kernel that takes it and that `wanted` names, with `constant` inputs ahead; gives their names.
    fn check(&self, wanted: &dyn Fn(&KernelDef) -> bool, constant: &[usize]) -> Vec<&'static str> {
        let whole = lower_in(self.op.0, self.op.1, &self.attrs, &self.inputs);
        let p = gemm(&whole).clone();
        let (m, n, k) = (p.m, p.n, self.k);
        let problem = Problem::Gemm(GemmProblem { top: Some(k), ..p });
        let outputs = [Type::new(F32, [m, k]), Type::new(DType::I64, [m, k])];
        let mut ran = Vec::new();
        for device in device::all() {
            for kernel in device::kernels(&**device, &problem).into_iter().filter(|k| wanted(k)) {
                let run =
                    |problem: &Problem, types: &[Type]| device::launch(&**device, kernel, problem, &self.inputs, constant, types);
                let all = run(&whole, &[Type::new(F32, [m, n])]);
                let got = run(&problem, &outputs);
                let (values, places) = (got[0].values::<f32>().unwrap(), got[1].values::<i64>().unwrap());
                for (row, results) in all[0].values::<f32>().unwrap().chunks_exact(n).enumerate() {
                    let (columns, bits) = best(results, k);
                    let at = row * k..(row + 1) * k;
                    assert_eq!(places[at.clone()], columns, "{} row {row} of {m} x {n}, {k}", kernel.name);
                    let found: Vec<u32> = values[at].iter().map(|v| v.to_bits()).collect();
                    assert_eq!(found, bits, "{} row {row} of {m} x {n}, {k}", kernel.name);
                }
                ran.push(kernel.name);
            }
        }
        ran
    }
}

/// A of few different values, so that many results are equal, and a B of the same, as floats or as bytes with scales; C for every column.
fn case(r: &mut Xorshift, op: &'static str, [m, n, inner, k]: [usize; 4], c: Option<&dyn Fn(usize) -> f64>) -> Case {
    let mut whole = |dtype: DType, shape: [usize; 2]| {
        let values: Vec<f64> = (0..shape[0] * shape[1]).map(|_| r.below(5) as f64 - 2.0).collect();
        Some(tensor(dtype, &shape, &values))
    };
    let c = c.map(|c| tensor(F32, &[n], &(0..n).map(c).collect::<Vec<_>>()));
    let transposed = ("transB", Attr::Int(1));
    let (domain, op, attrs, inputs) = match op {
        "LinearInt8" => {
            let scales = tensor(F32, &[n], &(0..n).map(|j| 0.5 + (j % 3) as f64 * 0.25).collect::<Vec<_>>());
            let inputs = vec![whole(F32, [m, inner]), whole(DType::I8, [n, inner]), Some(scales), c];
            ("halfbyte", "LinearInt8", vec![transposed], inputs)
        }
        "f16" => {
            let lowered = ("weight_precision", Attr::Str("f16".into()));
            ("halfbyte", "Linear", vec![transposed, lowered], vec![whole(F32, [m, inner]), whole(F32, [n, inner]), c])
        }
        "MatMul" => ("", "MatMul", vec![], vec![whole(F32, [m, inner]), whole(F32, [inner, n])]),
        _ => ("", "Gemm", vec![transposed], vec![whole(F32, [m, inner]), whole(F32, [n, inner]), c]),
    };
    Case { op: (domain, op), attrs, inputs, k }
}

/// One kernel of each make, and the smallest of its tiles.
fn few(kernel: &KernelDef) -> bool {
    let large = ["128x128", "128x64", "128x256", "64x256"];
    !large.iter().any(|tile| kernel.name.ends_with(tile))
}

#[test]
fn every_kernel_keeps_the_largest_results_of_two_stripes() {
    let mut r = Xorshift::new(41);
    let mut ran = std::collections::BTreeSet::new();
    for op in ["MatMul", "f16", "LinearInt8"] {
        ran.extend(case(&mut r, op, [3, 1100, 20, 10], None).check(&|_| true, &[1]));
    }
    println!("{ran:?}");
    for device in device::all() {
        let of = |kind: &str| ran.iter().filter(|name| name.starts_with(kind)).count();
        match device.info().kind {
            halfbyte::hardware::DeviceKind::Cuda => assert!(of("cuda-") >= 18, "{ran:?}"),
            halfbyte::hardware::DeviceKind::Wgpu => assert!(of("wgpu-") >= 8, "{ran:?}"),
            _ => assert!(of("cpu-") >= 5, "{ran:?}"),
        }
    }
}

#[test]
fn rows_columns_and_numbers_of_results_of_any_extent() {
    let mut r = Xorshift::new(42);
    for (at, shape) in [
        [1, 2100, 24, 1],
        [1, 1, 3, 1],
        [3, 5, 0, 5],
        [2, 1030, 8, 1025],
        [5, 300, 7, 100],
        [64, 1060, 3, 10],
        [1, 8300, 4, 100],
        [9, 1, 4, 1],
        [2, 40, 4, 0],
    ]
    .into_iter()
    .enumerate()
    {
        case(&mut r, ["Gemm", "LinearInt8"][at % 2], shape, None)
            .check(&|k| few(k) && (shape[1] < 2048 || k.name.ends_with("gemv")), &[]);
    }
}

#[test]
fn equal_ascending_infinite_and_undefined_results() {
    let mut r = Xorshift::new(43);
    for op in ["Gemm", "LinearInt8"] {
        // Vectors that were removed have minus infinity, and a few others NaN and infinity.
        let odd = |j: usize| match j % 7 {
            0 => f64::NEG_INFINITY,
            1 if j.is_multiple_of(5) => f64::NAN,
            2 if j.is_multiple_of(11) => f64::INFINITY,
            3 => -0.0,
            _ => 0.0,
        };
        let ascending = |j: usize| 64.0 * j as f64;
        let nothing = |_: usize| f64::NEG_INFINITY;
        for c in [&odd as &dyn Fn(usize) -> f64, &ascending, &nothing] {
            case(&mut r, op, [2, 1090, 6, 10], Some(c)).check(&few, &[1]);
        }
    }
    // Zeros alone, of either sign.
    let (a, b) = (tensor(F32, &[2, 3], &[0.0, -0.0, 0.0, 0.0, 0.0, 0.0]), tensor(F32, &[3, 1090], &vec![-1.0; 3270]));
    Case { op: ("", "MatMul"), attrs: vec![], inputs: vec![Some(a), Some(b)], k: 100 }.check(&few, &[1]);
}
