//! The vector kernels against the reference, and masks against what the specification says.

use crate::base::xorshift::Xorshift;
use crate::base::{DType, Shape, Tensor};
use crate::device::cpu::{Call, device::find};
use crate::graph::Type;
use crate::graph::problem::attend::*;
use crate::graph::problem::{AttendProblem, Problem};
use crate::hardware::cpu::capabilities;
use crate::kernel;

fn floats(seed: u64, n: usize) -> Vec<f32> {
    Xorshift::new(seed).reals(n, 2.0)
}

fn run(name: &str, p: &Attention, inputs: &[Option<Tensor>]) -> Vec<f64> {
    let problem = Problem::Attend(AttendProblem::Attention(p.clone()));
    let kernel = find(name).unwrap().code;
    let mut y = Tensor::zeros(p.dtype, Shape::from([p.batch * p.q_heads * p.q_len * p.v_head_size])).unwrap();
    let views: Vec<_> = inputs.iter().map(|t| t.as_ref().map(Tensor::view)).collect();
    {
        let outputs = &mut [Some(y.view_mut())];
        kernel.run(&mut Call { problem: &problem, packed: None, ahead: &[], inputs: &views, outputs, scratch: &mut [] }).unwrap();
    }
    y.to_f64()
}

fn attention([batch, q_heads, kv_heads, q_len, kv_len, head_size, v_head_size]: [usize; 7], layout: HeadLayout) -> Attention {
    Attention {
        dtype: DType::F32,
        layout,
        batch,
        q_heads,
        kv_heads,
        q_len,
        kv_len,
        past_len: 0,
        head_size,
        v_head_size,
        k_transposed: false,
        scale: 0.3,
        softcap: 0.0,
        causal: false,
        mask: None,
        mask_keys: kv_len,
        valid: false,
        scores: Scores::Raw,
    }
}

fn operands(p: &Attention) -> Vec<Option<Tensor>> {
    let (q, kv) = (p.batch * p.q_heads * p.q_len, p.batch * p.kv_heads * p.kv_len);
    let tensor = |seed, n| Some(Tensor::vector(&floats(seed, n)));
    let mut all = vec![tensor(3, q * p.head_size), tensor(5, kv * p.head_size), tensor(7, kv * p.v_head_size)];
    all.resize(7, None);
    if let Some(ty) = &p.mask {
        let values = floats(9, ty.shape.numel());
        all[3] = Some(match ty.dtype {
            DType::Bool => {
                let bits: Vec<u8> = values.iter().map(|&v| u8::from(v > 0.0)).collect();
                Tensor::from_raw(DType::Bool, ty.shape.clone(), &bits).unwrap()
            }
            _ => Tensor::new(ty.shape.clone(), &values).unwrap(),
        });
    }
    if p.valid {
        all[6] = Some(Tensor::vector(&(0..p.batch).map(|b| (b * 2) as i64).collect::<Vec<_>>()));
    }
    all
}

#[test]
fn masked_keys_count_for_nothing() {
    let p = Attention { mask: Some(Type::new(DType::Bool, [2, 3])), ..attention([1, 1, 1, 2, 3, 2, 2], HeadLayout::HeadsFirst) };
    let mut inputs = operands(&p);
    // The second query sees nothing, the first only key 1.
    inputs[3] = Some(Tensor::from_raw(DType::Bool, Shape::from([2, 3]), &[0, 1, 0, 0, 0, 0]).unwrap());
    let v = inputs[2].as_ref().unwrap().to_f64();
    for kernel in kernel::attend::KERNELS.iter().filter(|k| capabilities().contains(k.needs)) {
        assert_eq!(run(kernel.name, &p, &inputs), [v[2], v[3], 0.0, 0.0], "{}", kernel.name);
    }
}

#[test]
fn equal_scores_average_the_values() {
    let p = attention([1, 1, 1, 1, 4, 2, 1], HeadLayout::HeadsFirst);
    let inputs = [Tensor::vector(&[0f32; 2]), Tensor::vector(&floats(1, 8)), Tensor::vector(&[1f32, 2.0, 3.0, 6.0])].map(Some);
    assert_eq!(run("cpu-any-attend", &p, &inputs), [3.0]);
}
