//! Dropout.

use super::movement::known;
use crate::base::random::Mt19937;
use crate::base::{DType, Shape, Tensor};
use crate::error::Result;
use crate::graph::problem::ScalarProblem;
use crate::graph::{Feed, Lower, OpDef, Parts, Problem, Refusal, Site, Type};
use crate::scalar::{arg, constant};

pub(super) static OPS: &[OpDef] = &[OpDef { domain: "", name: "Dropout", infer, lower: Lower::Parts(lower) }];

/// The share of elements that are dropped: 0 but in training.
fn ratio(site: &Site) -> Result<f64, Refusal> {
    if site.int_values(2)?.and_then(|v| v.first().copied()).unwrap_or(0) == 0 {
        return Ok(0.0);
    }
    let ratio = site.float_values(1)?.and_then(|v| v.first().copied()).unwrap_or(0.5);
    match (0.0..1.0).contains(&ratio) {
        true if ratio == 0.0 || site.attr("seed").is_some() => Ok(ratio),
        true => Err(site.unsupported("random dropout without a seed, whose answers could not be had again").into()),
        false => Err(site.error(format!("the ratio {ratio} is outside [0, 1)")).into()),
    }
}

fn infer(site: &Site) -> Result<Vec<Type>, Refusal> {
    ratio(site)?;
    let ty = site.ty(0)?.clone();
    let mask = if site.opset() >= 10 { DType::Bool } else { ty.dtype };
    let mask = Type::new(mask, ty.shape.clone());
    Ok([ty, mask].into_iter().take(site.output_count()).collect())
}

/// `x` in inference; in training `x / (1 - ratio)` where the seeded mask is set, else 0. The mask is the one that ONNX's reference
/// implementation draws.
fn lower(site: &Site, out: &[Type]) -> Result<Parts> {
    let ratio = known(site, ratio(site))?;
    let mut parts = Parts { parts: Vec::new(), outputs: vec![Feed::Input(0)] };
    if ratio > 0.0 {
        let mask = Feed::Known(drawn(site, &out[0].shape, ratio)?);
        let formula = arg(1).select(arg(0) * (1.0 / (1.0 - ratio)), constant(0.0));
        let operands = vec![out[0].clone(), Type::new(DType::Bool, out[0].shape.clone())];
        let problem = Problem::Scalar(ScalarProblem { formula, operands, out: out[0].clone() });
        let y = parts.add(problem, vec![Some(Feed::Input(0)), Some(mask.clone())], vec![out[0].clone()]);
        parts.outputs = vec![y, mask];
    } else if site.wants(1) {
        let ones = Problem::Scalar(ScalarProblem { formula: constant(1.0), operands: Vec::new(), out: out[1].clone() });
        let mask = parts.add(ones, Vec::new(), vec![out[1].clone()]);
        parts.outputs.push(mask);
    }
    Ok(parts)
}

fn drawn(site: &Site, shape: &Shape, ratio: f64) -> Result<Tensor> {
    let seed = u32::try_from(site.int("seed", 0)).map_err(|_| site.error("the seed is outside [0, 2^32)"))?;
    let mut random = Mt19937::new(seed);
    let mask: Vec<u8> = (0..shape.numel()).map(|_| u8::from(random.uniform() >= ratio)).collect();
    Tensor::from_raw(DType::Bool, shape.clone(), &mask)
}
