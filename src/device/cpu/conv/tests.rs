//! Every kernel that this machine has against the plain definition, on random geometry.

use crate::base::{DType, Tensor};
use crate::device::cpu::{Call, device::find};
use crate::graph::problem::ConvProblem;
use crate::graph::problem::conv::ConvQuant;
use crate::graph::{Problem, Type, problem::EpilogueSpec};
use crate::kernel::candidates;
use crate::scalar::arg;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }

    fn tensor(&mut self, dtype: DType, shape: &[usize]) -> Tensor {
        let n = shape.iter().product();
        match dtype {
            DType::F32 => {
                Tensor::new(shape, &(0..n).map(|_| self.below(2001) as f32 / 1000.0 - 1.0).collect::<Vec<_>>()).unwrap()
            }
            // Extremes often: they are where sums overflow.
            DType::U8 => Tensor::new(
                shape,
                &(0..n).map(|_| if self.below(3) == 0 { 255 } else { self.below(256) as u8 }).collect::<Vec<_>>(),
            )
            .unwrap(),
            _ => Tensor::new(
                shape,
                &(0..n).map(|_| if self.below(3) == 0 { -128 } else { self.below(256) as u8 as i8 }).collect::<Vec<_>>(),
            )
            .unwrap(),
        }
    }
}

fn geometry(r: &mut Random, transposed: bool) -> ConvProblem {
    let rank = 1 + r.below(2);
    let groups = 1 + r.below(3);
    let depthwise = r.below(3) == 0;
    let (groups, cg, mg) = if depthwise { (1 + r.below(7), 1, 1) } else { (groups, 1 + r.below(20), 1 + r.below(30)) };
    let pick = |r: &mut Random, n: usize| (0..rank).map(|_| 1 + r.below(n)).collect::<Vec<_>>();
    let (kernel, strides, dilations) = (pick(r, 5), pick(r, 3), pick(r, 2));
    let input: Vec<usize> = (0..rank).map(|i| (kernel[i] - 1) * dilations[i] + 1 + r.below(40)).collect();
    let pads: Vec<i64> = (0..rank).map(|_| r.below(3) as i64).collect();
    let output = (0..rank).map(|i| {
        let extent = (kernel[i] - 1) * dilations[i] + 1;
        if transposed {
            ((input[i] - 1) * strides[i] + extent).saturating_sub(pads[i] as usize).max(1)
        } else {
            (input[i] + pads[i] as usize - extent) / strides[i] + 1
        }
    });
    let output = output.collect();
    ConvProblem {
        n: 1 + r.below(2),
        c: groups * cg,
        m: groups * mg,
        groups,
        input,
        output,
        kernel,
        strides,
        dilations,
        pads,
        transposed,
        x: DType::F32,
        w: DType::F32,
        y: DType::F32,
        x_at: 0,
        w_at: 1,
        b_at: Some(2),
        own_inputs: 3,
        quant: None,
        epilogue: None,
    }
}

fn inputs(r: &mut Random, p: &ConvProblem) -> Vec<Option<Tensor>> {
    let x: Vec<usize> = [p.n, p.c].into_iter().chain(p.input.iter().copied()).collect();
    let w = if p.transposed { [p.c, p.m / p.groups] } else { [p.m, p.c / p.groups] };
    let w: Vec<usize> = w.into_iter().chain(p.kernel.iter().copied()).collect();
    vec![Some(r.tensor(p.x, &x)), Some(r.tensor(p.w, &w)), Some(r.tensor(DType::F32, &[p.m]))]
}

fn run(name: &str, problem: &Problem, inputs: &[Option<Tensor>], out: DType, packed: bool) -> Tensor {
    let Problem::Conv(p) = problem else { panic!() };
    let kernel = find(name).unwrap();
    let pack = if packed { (kernel.pack)(problem, inputs).unwrap() } else { None };
    let mut result = Tensor::zeros(out, p.out_shape()).unwrap();
    {
        let views: Vec<_> = inputs.iter().map(|t| t.as_ref().map(Tensor::view)).collect();
        let mut outputs = [Some(result.view_mut())];
        let packed = pack.as_ref().map(|(p, _)| p);
        (kernel.run)(&mut Call { problem, packed, inputs: &views, outputs: &mut outputs, scratch: &mut [] }).unwrap();
    }
    result
}

fn each_kernel(problem: &Problem, mut test: impl FnMut(&str)) {
    let info = crate::hardware::cpu::info(2);
    for c in candidates(&info, problem, None).iter().filter(|c| c.verdict.is_ok() && c.kernel.name != "cpu-any-conv") {
        test(c.kernel.name);
    }
}

#[test]
fn float_kernels_agree_with_the_definition() {
    let mut r = Random(77);
    for round in 0..120 {
        let mut p = geometry(&mut r, round % 4 == 3);
        let mut tensors = inputs(&mut r, &p);
        if round % 2 == 0 {
            let shape = p.out_shape();
            tensors.push(Some(r.tensor(DType::F32, &shape)));
            tensors.push(Some(r.tensor(DType::F32, &std::iter::once(p.m).chain(p.output.iter().map(|_| 1)).collect::<Vec<_>>())));
            let operands = tensors[3..].iter().flatten().map(|t| Type::new(DType::F32, t.shape().clone())).collect();
            p.epilogue = Some(EpilogueSpec { formula: (arg(0) + arg(1)).tanh() * arg(2), operands, out: DType::F32 });
        }
        let bound = 1e-6 * (p.c / p.groups * p.kernel.iter().product::<usize>()) as f64 + 2e-6;
        let problem = Problem::Conv(p);
        let want = run("cpu-any-conv", &problem, &tensors, DType::F32, false).to_f64();
        each_kernel(&problem, |name| {
            for packed in [true, false] {
                let got = run(name, &problem, &tensors, DType::F32, packed).to_f64();
                let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(worst <= bound, "{name}, packed {packed}: off by {worst}: {problem:?}");
            }
        });
    }
}

#[test]
fn integer_kernels_are_exact_on_extreme_values() {
    let mut r = Random(5);
    for round in 0..60 {
        let mut p = geometry(&mut r, false);
        (p.x, p.w, p.y, p.b_at, p.own_inputs) =
            ([DType::U8, DType::I8][round % 2], [DType::I8, DType::U8][round / 2 % 2], DType::I32, None, 4);
        p.quant = Some(ConvQuant { x_zero: Some(2), w_zero: Some(3), requantize: None });
        let mut tensors = inputs(&mut r, &p);
        tensors[2] = Some(r.tensor(p.x, &[]));
        tensors.push(Some(r.tensor(p.w, &[p.m])));
        let problem = Problem::Conv(p);
        let want = run("cpu-any-conv", &problem, &tensors, DType::I32, false);
        each_kernel(&problem, |name| assert!(run(name, &problem, &tensors, DType::I32, true) == want, "{name}: {problem:?}"));
    }
}
