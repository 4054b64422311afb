//! Every kernel that this machine can run against the reference.

use half::{bf16, f16};

use crate::base::xorshift::Xorshift;
use crate::base::{AlignedBytes, DType, Tensor, TensorViewMut};
use crate::device::cpu::{Call, device};
use crate::graph::op::{Lower, Operand};
use crate::graph::problem::Family;
use crate::graph::{Attr, Node, Problem, Site, Type, find};
use crate::hardware::cpu::info;
use crate::hardware::{Capabilities, DeviceInfo};
use crate::kernel::choose::verdict;
use crate::kernel::{KernelDef, Proof, all, choose};

fn lower(domain: &str, op: &str, attrs: &[(&str, Attr)], inputs: &[Option<Tensor>]) -> crate::Result<Problem> {
    let mut node = Node::new(domain, op, 17, vec![None; inputs.len()], vec![None]);
    node.attrs = attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
    let operands: Vec<Option<Operand>> =
        inputs.iter().map(|t| t.as_ref().map(|t| Operand { ty: Type::new(t.dtype(), t.shape().clone()), value: None })).collect();
    let site = Site { node: &node, inputs: &operands };
    let Lower::Family(lower) = find(domain, op).unwrap().lower else { panic!("no family") };
    lower(&site, &[])
}

fn gemm(problem: &Problem) -> &crate::graph::problem::GemmProblem {
    let Problem::Gemm(p) = problem else { panic!("no gemm") };
    p
}

/// Runs a kernel, with B packed ahead or not.
fn run(name: &str, problem: &Problem, inputs: &[Option<Tensor>], ahead: bool) -> Tensor {
    let p = gemm(problem);
    let mut out = [Tensor::zeros(p.stored(), p.shape.clone()).unwrap()];
    run_into(name, problem, inputs, ahead, &mut out);
    let [out] = out;
    out
}

fn run_into(name: &str, problem: &Problem, inputs: &[Option<Tensor>], ahead: bool, out: &mut [Tensor]) {
    let code = device::find(name).unwrap().code;
    let p = gemm(problem);
    let mut given = inputs.to_vec();
    let mut packed = None;
    if ahead {
        let mut constants = vec![None; inputs.len()];
        p.b_inputs().for_each(|i| constants[i] = inputs[i].clone());
        if let Some((made, dropped)) = code.pack(problem, &constants).unwrap() {
            dropped.into_iter().for_each(|i| given[i] = None);
            packed = Some(made);
        }
    }
    let mut scratch = AlignedBytes::zeroed(code.scratch_bytes(problem, &info(2)));
    scratch.fill(0xa5);
    let views: Vec<_> = given.iter().map(|t| t.as_ref().map(|t| t.view())).collect();
    let mut outputs: Vec<Option<TensorViewMut>> = out.iter_mut().map(|t| Some(t.view_mut())).collect();
    let mut call = Call {
        problem,
        packed: packed.as_ref(),
        ahead: &[7; 1000],
        inputs: &views,
        outputs: &mut outputs,
        scratch: &mut scratch,
    };
    code.run(&mut call).unwrap();
}

fn usable(problem: &Problem) -> Vec<&'static KernelDef> {
    let here = info(2).capabilities;
    all()
        .filter(|k| k.family == Family::Gemm && here.contains(k.needs) && k.name != "cpu-any-gemm-reference")
        .filter(|k| k.device == crate::hardware::DeviceKind::Cpu && (k.accepts)(problem).is_ok())
        .collect()
}

/// Compares every kernel with the reference; `bound` is absolute, 0 for exact equality. Gives the number of kernels.
fn compare(problem: &Problem, inputs: &[Option<Tensor>], bound: f64) -> usize {
    let want = run("cpu-any-gemm-reference", problem, inputs, false);
    let found = usable(problem);
    for kernel in &found {
        for ahead in [false, true] {
            let got = run(kernel.name, problem, inputs, ahead);
            for (i, (g, w)) in got.to_f64().into_iter().zip(want.to_f64()).enumerate() {
                assert!((g - w).abs() <= bound, "{} ahead {ahead} element {i}: {g} against {w}: {problem:?}", kernel.name);
            }
        }
    }
    found.len()
}

/// Bound of a float sum of `k` products of values up to 1, then stored as `out`.
fn bound(k: usize, out: DType) -> f64 {
    let store = match out {
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        _ => 0.0,
    };
    let k = k as f64;
    (k + 4.0) * k.max(1.0) * 2f64.powi(-24) + 1e-6 + store * (k + 1.0)
}

#[test]
fn batches_broadcast_and_vectors_lose_their_axes() {
    let mut random = Xorshift::new(9);
    let cases: [(&[usize], &[usize], &[usize]); 9] = [
        (&[2, 3, 4, 5], &[3, 5, 6], &[2, 3, 4, 6]),
        (&[2, 1, 4, 5], &[3, 5, 6], &[2, 3, 4, 6]),
        (&[4, 5], &[2, 3, 5, 6], &[2, 3, 4, 6]),
        (&[3, 1, 4, 5], &[3, 2, 5, 1], &[3, 2, 4, 1]),
        (&[5], &[5, 6], &[6]),
        (&[2, 4, 5], &[5], &[2, 4]),
        (&[5], &[5], &[]),
        (&[5], &[7, 5, 6], &[7, 6]),
        (&[0, 4, 5], &[5, 6], &[0, 4, 6]),
    ];
    for (a, b, out) in cases {
        for dtype in [DType::F32, DType::I64, DType::F64] {
            let inputs = [Some(random.tensor(dtype, a)), Some(random.tensor(dtype, b))];
            let problem = lower("", "MatMul", &[], &inputs).unwrap();
            assert_eq!(&gemm(&problem).shape[..], out);
            compare(&problem, &inputs, 1e-5);
        }
    }
    let inputs = [Some(random.tensor(DType::F32, &[2, 3])), Some(random.tensor(DType::F32, &[4, 2]))];
    assert!(lower("", "MatMul", &[], &inputs).is_err());
}

#[test]
fn the_reference_knows_a_small_product() {
    let inputs =
        [Some(Tensor::new([2, 2], &[1f32, 2.0, 3.0, 4.0]).unwrap()), Some(Tensor::new([2, 2], &[5f32, 6.0, 7.0, 8.0]).unwrap())];
    let problem = lower("", "MatMul", &[], &inputs).unwrap();
    let out = run("cpu-any-gemm-reference", &problem, &inputs, false);
    assert_eq!(out.to_f64(), [19.0, 22.0, 43.0, 50.0]);
    let ints = [Some(Tensor::new([1, 2], &[255u8, 255]).unwrap()), Some(Tensor::new([2, 1], &[-128i8, -128]).unwrap())];
    let problem = lower("", "MatMulInteger", &[], &ints).unwrap();
    assert_eq!(run("cpu-any-gemm-reference", &problem, &ints, false).to_i64(), Some(vec![-65280]));
}

/// The int8 kernel chosen on a processor with these instruction sets.
fn chosen(capabilities: Capabilities, wanted: Option<&str>) -> &'static str {
    let inputs = [Tensor::new([64, 64], &[1u8; 4096]).ok(), Tensor::new([64, 64], &[1i8; 4096]).ok()];
    let problem = lower("", "MatMulInteger", &[], &inputs).unwrap();
    choose(&DeviceInfo { capabilities, ..info(1) }, &problem, wanted).unwrap().kernel.name
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_best_instruction_set_is_chosen() {
    let (avx2, vnni) = (Capabilities::AVX2, Capabilities::AVX512 | Capabilities::AVX512_VNNI);
    assert_eq!(chosen(avx2, Some("avxvnni")), "cpu-avx2-int8-6x16");
    assert_eq!(chosen(avx2 | Capabilities::AVX_VNNI, None), "cpu-avxvnni-int8-6x16");
    let both = avx2 | Capabilities::AVX_VNNI | vnni;
    // What a process without the permission to use AMX has.
    assert_eq!(chosen(both, None), "cpu-avx512vnni-int8-14x32");
    assert_eq!(chosen(both | Capabilities::AMX_INT8, None), "cpu-amx-int8-32x32");
    assert_eq!(chosen(both | Capabilities::AMX_INT8, Some("avx512vnni")), "cpu-avx512vnni-int8-14x32");
}

#[test]
#[cfg(target_arch = "aarch64")]
fn the_best_instruction_set_is_chosen() {
    let (neon, dotprod) = (Capabilities::NEON, Capabilities::DOTPROD);
    assert_eq!(chosen(neon | dotprod | Capabilities::I8MM, None), "cpu-i8mm-int8-6x16");
    assert_eq!(chosen(neon | dotprod | Capabilities::I8MM, Some("dotprod")), "cpu-dotprod-int8-6x16");
    assert_eq!(chosen(neon | dotprod, None), "cpu-dotprod-int8-6x16");
    assert_eq!(chosen(neon, None), "cpu-neon-int8-6x16");
}

fn scale(x: f32) -> Option<Tensor> {
    Some(Tensor::scalar(x))
}

#[test]
fn quantised_operators_agree_bit_for_bit() {
    let mut random = Xorshift::new(13);
    for i in 0..24 {
        let [m, n, k] = std::array::from_fn(|_| 1 + random.below(70));
        let (ta, tb) = ([DType::U8, DType::I8][i & 1], [DType::U8, DType::I8][i >> 1 & 1]);
        let scales: Vec<f32> = (0..n).map(|_| random.real().abs() * 0.01 + 1e-3).collect();
        let a = Some(random.tensor(ta, &[m, k]));
        let b = Some(random.tensor(tb, &[k, n]));
        let b_scale = if i % 4 < 2 { scale(0.02) } else { Some(Tensor::vector(&scales)) };
        let (za, zb) = (Some(random.tensor(ta, &[])), Some(random.tensor(tb, &[])));
        let f = Some(random.tensor(DType::F32, &[2, m, k]));
        let bias = Some(random.tensor(DType::F32, &[n]));
        let sum = Some(random.tensor(DType::I32, &[n]));
        let inputs = [a.clone(), scale(0.03), za.clone(), b.clone(), b_scale.clone(), zb.clone(), scale(0.9), za.clone()];
        compare(&lower("", "QLinearMatMul", &[], &inputs).unwrap(), &inputs, 0.0);
        let inputs = [a.clone(), scale(0.03), za.clone(), b.clone(), b_scale.clone(), zb.clone(), sum, scale(0.9), za.clone()];
        compare(&lower("com.microsoft", "QGemm", &[("alpha", Attr::Float(1.5))], &inputs).unwrap(), &inputs, 0.0);
        let inputs = [f.clone(), b.clone(), b_scale.clone(), zb.clone(), bias.clone()];
        compare(&lower("com.microsoft", "DynamicQuantizeMatMul", &[], &inputs).unwrap(), &inputs, 0.0);
        let inputs = [a, b, scale(0.03), b_scale, za, zb, bias.clone()];
        compare(&lower("com.microsoft", "MatMulIntegerToFloat", &[], &inputs).unwrap(), &inputs, 0.0);
        let inputs = [f, Some(random.tensor(DType::F32, &[n, k])), bias];
        let int8 = [("weight_precision", Attr::Str("int8".into())), ("transB", Attr::Int(1))];
        compare(&lower("halfbyte", "Linear", &int8, &inputs).unwrap(), &inputs, 0.0);
        let half = [("weight_precision", Attr::Str("f16".into())), ("transB", Attr::Int(1))];
        compare(&lower("halfbyte", "Linear", &half, &inputs).unwrap(), &inputs, bound(k, DType::F32));
    }
}

#[test]
fn a_kernel_never_run_is_chosen_by_name_only() {
    let inputs = [Tensor::new([2, 2], &[1f32; 4]).ok(), Tensor::new([2, 2], &[1f32; 4]).ok()];
    let problem = lower("", "MatMul", &[], &inputs).unwrap();
    let run = all().find(|k| k.name == "cpu-any-gemm-reference").unwrap();
    let compiled = KernelDef { proof: Proof::Compiled, ..*run };
    assert!(verdict(run, &info(1), &problem, false).is_ok());
    assert!(verdict(&compiled, &info(1), &problem, false).is_err_and(|why| why.contains("by name")));
    assert!(verdict(&compiled, &info(1), &problem, true).is_ok());
}

/// Sizes around those of tiles, segments and pieces of K, with values at the ends of their ranges.
#[test]
fn integer_products_of_ragged_sizes_are_exact() {
    let mut random = Xorshift::new(41);
    let sizes = [(4, 1, 1), (5, 33, 3), (16, 31, 63), (17, 32, 64), (31, 65, 65), (32, 257, 130), (33, 300, 127), (100, 40, 192)];
    for (i, (m, n, k)) in sizes.into_iter().enumerate() {
        let types = [DType::U8, DType::I8];
        for (ta, tb) in types.into_iter().flat_map(|a| types.map(|b| (a, b))) {
            let mut zero = |t: DType, count: usize| Some(random.tensor(t, &[count][..i % 2]));
            let (za, zb) = (zero(ta, m), zero(tb, n));
            let inputs = [Some(random.tensor(ta, &[m, k])), Some(random.tensor(tb, &[k, n])), za, zb];
            assert!(compare(&lower("", "MatMulInteger", &[], &inputs).unwrap(), &inputs, 0.0) >= 2);
            let widest = |t: DType, shape: [usize; 2]| {
                let mut all = Tensor::zeros(t, shape).unwrap();
                all.view_mut().bytes.fill(if t == DType::U8 { 255 } else { 128 });
                Some(all)
            };
            let inputs = [widest(ta, [m, k]), widest(tb, [k, n])];
            compare(&lower("", "MatMulInteger", &[], &inputs).unwrap(), &inputs, 0.0);
        }
    }
}

#[test]
fn a_rows_answer_does_not_depend_on_its_neighbours() {
    let mut random = Xorshift::new(14);
    let (a, w) = (random.tensor(DType::F32, &[9, 64]), random.tensor(DType::F32, &[64, 40]));
    let attrs = [("weight_precision", Attr::Str("int8".into()))];
    let all = [Some(a.clone()), Some(w.clone())];
    let problem = lower("halfbyte", "Linear", &attrs, &all).unwrap();
    let one = [Some(Tensor::new([1, 64], &a.values::<f32>().unwrap()[64..128]).unwrap()), Some(w)];
    let alone = lower("halfbyte", "Linear", &attrs, &one).unwrap();
    for kernel in usable(&problem) {
        let (many, single) = (run(kernel.name, &problem, &all, true), run(kernel.name, &alone, &one, true));
        assert_eq!(many.values::<f32>().unwrap()[40..80], single.values::<f32>().unwrap()[..], "{}", kernel.name);
    }
}

/// The largest results of each row are those of the whole product by the same kernel, the first of equal ones first.
#[test]
fn the_largest_results_of_rows_are_those_of_the_product() {
    let mut random = Xorshift::new(31);
    let mut kernels = std::collections::BTreeSet::new();
    for (m, n, k, top) in [(1, 1000, 24, 10), (3, 257, 5, 257), (40, 700, 64, 1), (2, 5, 3, 0)] {
        // Few different values, so that many results are equal; rows of i8 with scales, too.
        let mut whole = |shape: [usize; 2]| {
            Tensor::new(shape, &(0..shape[0] * shape[1]).map(|_| random.below(3) as f32 - 1.0).collect::<Vec<_>>()).unwrap()
        };
        let (a, b) = (whole([m, k]), whole([k, n]));
        let bytes: Vec<i8> = b.values::<f32>().unwrap().iter().map(|&v| v as i8).collect();
        let cases: [(&str, &str, Vec<Option<Tensor>>); 2] = [
            ("", "MatMul", vec![Some(a.clone()), Some(b)]),
            ("halfbyte", "LinearInt8", vec![Some(a), Some(Tensor::new([k, n], &bytes).unwrap()), Some(Tensor::scalar(0.5f32))]),
        ];
        for (domain, op, inputs) in cases {
            let product = lower(domain, op, &[], &inputs).unwrap();
            let largest = Problem::Gemm(crate::graph::problem::GemmProblem { top: Some(top), ..gemm(&product).clone() });
            for name in usable(&largest).iter().map(|k| k.name).chain(["cpu-any-gemm-reference"]) {
                let mut out = [Tensor::zeros(DType::F32, [m, top]).unwrap(), Tensor::zeros(DType::I64, [m, top]).unwrap()];
                run_into(name, &largest, &inputs, name != "cpu-any-gemm-reference", &mut out);
                let all = run(name, &product, &inputs, false);
                let (numbers, columns) = (out[0].values::<f32>().unwrap(), out[1].values::<i64>().unwrap());
                for (row, results) in all.values::<f32>().unwrap().chunks_exact(n).enumerate() {
                    let mut order: Vec<usize> = (0..n).collect();
                    order.sort_by(|&i, &j| results[j].total_cmp(&results[i]).then(i.cmp(&j)));
                    for (rank, &column) in order[..top].iter().enumerate() {
                        let got = (numbers[row * top + rank], columns[row * top + rank]);
                        assert_eq!(got, (results[column], column as i64), "{name} {op} row {row} rank {rank}");
                    }
                }
                kernels.insert(name);
            }
        }
    }
    assert!(kernels.len() >= 5, "{kernels:?}");
}

/// Columns that go to outputs of their own are those of the whole product by the same kernel.
#[test]
fn columns_of_several_outputs_are_those_of_one() {
    let mut random = Xorshift::new(53);
    for (m, k, widths) in [(1, 24, vec![5, 1, 300]), (40, 70, vec![256, 31, 33]), (3, 5, vec![2, 0, 7])] {
        let n: usize = widths.iter().sum();
        let b: Vec<i8> = (0..k * n).map(|_| random.below(256) as u8 as i8).collect();
        let [a, scales, c] = [[m, k], [1, n], [1, n]].map(|shape| Some(random.tensor(DType::F32, &shape)));
        let matrix = |b: &[i8]| Some(Tensor::new([k, b.len() / k], b).unwrap());
        let inputs = [a, matrix(&b), scales, c];
        let mut ends = widths.iter().scan(0, |end, w| {
            *end += w;
            Some((*end - w, *end))
        });
        let mut several = ends
            .by_ref()
            .map(|(from, to)| matrix(&b.chunks_exact(n).flat_map(|row| &row[from..to]).copied().collect::<Vec<_>>()));
        let first = several.next().unwrap();
        let apart: Vec<_> = [inputs[0].clone(), first, inputs[2].clone(), inputs[3].clone()].into_iter().chain(several).collect();
        for rows in ["symmetric", "asymmetric"] {
            let rows = ("rows", Attr::Str(rows.into()));
            let sizes = ("widths", Attr::Ints(widths.iter().map(|&w| w as i64).collect()));
            let whole = lower("halfbyte", "LinearInt8", std::slice::from_ref(&rows), &inputs).unwrap();
            let parts = lower("halfbyte", "LinearInt8", &[rows, sizes], &apart).unwrap();
            for name in usable(&parts).iter().map(|k| k.name).chain(["cpu-any-gemm-reference"]) {
                let is_packed = name != "cpu-any-gemm-reference";
                let all = run(name, &whole, &inputs, is_packed);
                let mut out: Vec<Tensor> = widths.iter().map(|&w| Tensor::zeros(DType::F32, [m, w]).unwrap()).collect();
                run_into(name, &parts, &apart, is_packed, &mut out);
                let mut from = 0;
                for (part, out) in out.iter().enumerate() {
                    let rows = all.values::<f32>().unwrap();
                    let want: Vec<f32> = rows.chunks_exact(n).flat_map(|row| &row[from..from + widths[part]]).copied().collect();
                    assert_eq!(out.values::<f32>().unwrap()[..], want, "{name} output {part} of {m} rows");
                    from += widths[part];
                }
            }
        }
    }
    let inputs = [[2, 3], [3, 4], [1, 4]].map(|shape| Some(random.tensor(DType::F32, &shape)));
    for wrong in [vec![1, 2], vec![5, -1]] {
        assert!(lower("halfbyte", "LinearInt8", &[("widths", Attr::Ints(wrong))], &inputs).is_err());
    }
}

#[test]
fn einsum_equations() {
    let mut random = Xorshift::new(15);
    let t = |r: &mut Xorshift, s: &[usize]| Some(r.tensor(DType::F32, s));
    let x = t(&mut random, &[2, 3, 4]);
    let y = t(&mut random, &[2, 4, 5]);
    let s = t(&mut random, &[3, 3]);
    #[allow(clippy::type_complexity)]
    let cases: Vec<(&str, Vec<Option<Tensor>>, &[usize], bool)> = vec![
        ("bij,bjk->bik", vec![x.clone(), y.clone()], &[2, 3, 5], true),
        ("...ij, ...jk", vec![x.clone(), y.clone()], &[2, 3, 5], true),
        ("bij,bjk->bki", vec![x.clone(), y.clone()], &[2, 5, 3], true),
        ("bij,bjk->ik", vec![x.clone(), y.clone()], &[3, 5], false),
        ("bij->bji", vec![x.clone()], &[2, 4, 3], false),
        ("ii->i", vec![s.clone()], &[3], false),
        ("ii", vec![s.clone()], &[], false),
        ("ij,jk,kl->il", vec![s.clone(), s.clone(), s.clone()], &[3, 3], false),
        ("ij,kl->ijkl", vec![s.clone(), s.clone()], &[3, 3, 3, 3], false),
    ];
    for (equation, inputs, out, fast) in cases {
        let problem = lower("", "Einsum", &[("equation", Attr::Str(equation.into()))], &inputs).unwrap();
        assert_eq!(&gemm(&problem).shape[..], out, "{equation}");
        assert_eq!(gemm(&problem).contraction.is_none(), fast, "{equation}");
        compare(&problem, &inputs, 1e-4);
    }
    let diagonal = run(
        "cpu-any-gemm-reference",
        &lower("", "Einsum", &[("equation", Attr::Str("ii->i".into()))], std::slice::from_ref(&s)).unwrap(),
        std::slice::from_ref(&s),
        false,
    );
    let s = s.unwrap().to_f64();
    assert_eq!(diagonal.to_f64(), [s[0], s[4], s[8]]);
    assert!(
        lower("", "Einsum", &[("equation", Attr::Str("ijk->i".into()))], &[Some(random.tensor(DType::F32, &[2, 2]))]).is_err()
    );
}

#[test]
fn widening_is_exact_for_every_16_bit_float() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let mut out = vec![0f32; all.len()];
    for dtype in [DType::F16, DType::BF16] {
        super::stored::widen(dtype, &all, &mut out);
        for (&bits, &got) in all.iter().zip(&out) {
            let want = if dtype == DType::F16 { f16::from_bits(bits).to_f32() } else { bf16::from_bits(bits).to_f32() };
            assert!(
                got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
                "{dtype:?} {bits:#06x}: {got} for {want}"
            );
        }
    }
}

/// Whatever rows are beside it, however many there are and however B lies: a sum has the bits of one chain over K.
#[test]
fn each_float_sum_is_one_chain_over_k() {
    let mut random = Xorshift::new(77);
    let (k, n) = (700, 263);
    for m in (1..=9).chain([14, 15, 29, 40]) {
        let inputs = [Some(random.tensor(DType::F32, &[m, k])), Some(random.tensor(DType::F32, &[k, n]))];
        let problem = lower("", "MatMul", &[], &inputs).unwrap();
        let [a, b] = inputs.each_ref().map(|t| t.as_ref().unwrap().values::<f32>().unwrap());
        for kernel in usable(&problem) {
            // Plain Rust has no fused instruction to rely on.
            let is_fused = !kernel.name.contains("portable");
            let step = |sum: f32, x: f32, y: f32| if is_fused { x.mul_add(y, sum) } else { x * y + sum };
            let chain = |i: usize, j: usize| (0..k).fold(0.0, |sum, at| step(sum, a[i * k + at], b[at * n + j]));
            for ahead in [false, true] {
                let got = run(kernel.name, &problem, &inputs, ahead);
                let got = got.values::<f32>().unwrap();
                for (i, j) in (0..m).flat_map(|i| (0..n).step_by(7).map(move |j| (i, j))) {
                    assert_eq!(
                        got[i * n + j].to_bits(),
                        chain(i, j).to_bits(),
                        "{} ahead {ahead}: {i}, {j} of {m} rows",
                        kernel.name
                    );
                }
            }
        }
    }
}
