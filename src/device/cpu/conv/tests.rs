//! Integer convolutions by every kernel that this machine can run, against the reference.

use crate::base::xorshift::Xorshift;
use crate::base::{DType, Tensor, TensorViewMut};
use crate::device::cpu::{Call, device};
use crate::graph::Problem;
use crate::graph::problem::conv::ConvQuant;
use crate::graph::problem::{ConvProblem, Family, Window};
use crate::hardware::DeviceKind;
use crate::hardware::cpu::info;
use crate::kernel::all;

/// Runs a kernel, with weights packed ahead or not.
fn run(name: &str, problem: &Problem, inputs: &[Option<Tensor>], ahead: bool) -> Vec<i32> {
    let Problem::Conv(p) = problem else { panic!("no convolution") };
    let code = device::find(name).unwrap().code;
    let constants = [None, inputs[1].clone(), None, None];
    let packed = if ahead { code.pack(problem, &constants).unwrap().map(|(made, _)| made) } else { None };
    let mut out = Tensor::zeros(DType::I32, p.out_shape()).unwrap();
    let views: Vec<_> = inputs.iter().map(|t| t.as_ref().map(|t| t.view())).collect();
    let mut outputs: Vec<Option<TensorViewMut>> = vec![Some(out.view_mut())];
    let mut call = Call { problem, packed: packed.as_ref(), ahead: &[], inputs: &views, outputs: &mut outputs, scratch: &mut [] };
    code.run(&mut call).unwrap();
    out.values::<i32>().unwrap().to_vec()
}

/// Channels that fill registers of matrices, once and more often, with some left over; groups, steps, taps that share units.
#[test]
fn integer_convolutions_of_many_channels_are_exact() {
    let mut random = Xorshift::new(5);
    let cases = [
        ([100, 24, 1], [3, 3], [1, 1], [9, 14]),
        ([68, 40, 1], [1, 1], [1, 1], [7, 9]),
        ([24, 66, 1], [1, 1], [1, 1], [5, 33]),
        ([140, 70, 2], [2, 3], [2, 1], [6, 11]),
        ([3, 33, 1], [5, 5], [2, 2], [12, 13]),
        ([16, 16, 1], [3, 1], [1, 1], [8, 40]),
    ];
    let types = [DType::U8, DType::I8];
    for (([c, m, groups], kernel, strides, input), (x, w)) in
        cases.into_iter().flat_map(|case| types.into_iter().flat_map(move |x| types.map(move |w| (case, (x, w)))))
    {
        let output = [0, 1].map(|a| (input[a] + 1 - kernel[a]) / strides[a] + 1).to_vec();
        let window = Window {
            input: input.to_vec(),
            output,
            kernel: kernel.to_vec(),
            strides: strides.to_vec(),
            dilations: vec![1, 1],
            pads: vec![1, 1],
            pads_end: vec![0, 0],
        };
        let quant = Some(ConvQuant { x_zero: Some(2), w_zero: Some(3), requantize: None });
        let p = ConvProblem {
            n: 2,
            c,
            m,
            groups,
            window,
            transposed: false,
            x,
            w,
            w_as: w,
            y: DType::I32,
            x_at: 0,
            w_at: 1,
            b_at: None,
            own_inputs: 4,
            quant,
            epilogue: None,
        };
        let inputs = [
            Some(random.tensor(x, &[2, c, input[0], input[1]])),
            Some(random.tensor(w, &[m, c / groups, kernel[0], kernel[1]])),
            Some(random.tensor(x, &[])),
            Some(random.tensor(w, &[m])),
        ];
        let problem = Problem::Conv(p);
        let want = run("cpu-any-conv", &problem, &inputs, false);
        let here = info(2).capabilities;
        let mut kernels = 0;
        for kernel in all().filter(|k| k.device == DeviceKind::Cpu && k.family == Family::Conv && here.contains(k.needs)) {
            if (kernel.accepts)(&problem).is_ok() {
                kernels += 1;
                for ahead in [false, true] {
                    assert!(run(kernel.name, &problem, &inputs, ahead) == want, "{} ahead {ahead}: {problem:?}", kernel.name);
                }
            }
        }
        assert!(kernels >= 2, "the reference and another");
    }
}
