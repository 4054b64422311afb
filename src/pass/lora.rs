//! Adapters of low rank (LoRA; Hu and others, 2021) merged into the weights that they adapt.

use super::layer::{Layer, layers};
use crate::base::Tensor;
use crate::error::{Error, Result};
use crate::graph::Graph;

/// What is added to one layer's weights: `scale` B A.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// The adapted module, as the adapter's file calls it.
    pub target: String,
    /// A, [rank x k].
    pub a: Vec<f32>,
    /// B, [rows x rank].
    pub b: Vec<f32>,
    /// Inner size.
    pub rank: usize,
    /// alpha / rank.
    pub scale: f32,
}

/// The pairs of factors among tensors by name: `lora_A` with `lora_B`, or `lora_down` with `lora_up`. `alpha` is that of the whole adapter; a
/// tensor `alpha` beside a pair goes before it, and without any the scale is 1. Factors of integers come with the scale of each rank,
/// `lora_scale` `[rank]`, beside them, and may have zero points, `lora_zero` `[rank, 2]` of A and of B. Errors when one of a pair is missing or they
/// do not fit.
pub fn adapters(tensors: &[(String, Tensor)], alpha: Option<f32>) -> Result<Vec<Adapter>> {
    let mut all = Vec::new();
    for (name, a) in tensors {
        let Some((mark, other)) = [("lora_A", "lora_B"), ("lora_down", "lora_up")].into_iter().find(|(m, _)| name.contains(m))
        else {
            continue;
        };
        let tensor = |wanted: &str| tensors.iter().find(|(n, _)| n == wanted).map(|(_, t)| t);
        let target = name.split(mark).next().unwrap_or("").trim_end_matches('.').to_string();
        let bad = |why: String| Error::BadInput(format!("adapter of {target}: {why}"));
        let b = tensor(&name.replace(mark, other)).ok_or_else(|| bad(format!("{mark} without {other}")))?;
        let (rank, inner) = (a.shape().first().copied().unwrap_or(0), b.shape().get(1).copied().unwrap_or(0));
        if rank == 0 || rank != inner {
            return Err(bad(format!("factors of shapes {} and {}", a.shape(), b.shape())));
        }
        let own = tensor(&format!("{target}.alpha")).and_then(|t| t.to_f64().first().map(|&v| v as f32));
        let scale = own.or(alpha).map_or(1.0, |alpha| alpha / rank as f32);
        let [a, b] = match a.dtype().is_float() && b.dtype().is_float() {
            true => [a, b].map(reals),
            false => {
                let beside = |name: &str| tensor(&format!("{target}.{name}")).map(reals);
                let scales = beside("lora_scale").filter(|s| s.len() == rank);
                let scales = scales.ok_or_else(|| bad(format!("integers without lora_scale of {rank}")))?;
                let zeros = beside("lora_zero").unwrap_or(vec![0.0; 2 * rank]);
                if zeros.len() != 2 * rank {
                    return Err(bad(format!("lora_zero is not {rank} x 2")));
                }
                from_codes([a, b].map(reals), &scales, &zeros)
            }
        };
        if !scale.is_finite() || a.iter().chain(&b).any(|v| !v.is_finite()) {
            return Err(bad("its factors or its alpha hold NaN or infinities".into()));
        }
        all.push(Adapter { a, b, target, rank, scale });
    }
    if all.is_empty() { Err(Error::BadInput("no lora_A and lora_B, or lora_down and lora_up".into())) } else { Ok(all) }
}

fn reals(t: &Tensor) -> Vec<f32> {
    t.to_f64().into_iter().map(|v| v as f32).collect()
}

/// A [rank x k] and B [rows x rank] of codes with a scale for each rank, which goes into B, and zero points of A and B for each.
fn from_codes([mut a, mut b]: [Vec<f32>; 2], scales: &[f32], zeros: &[f32]) -> [Vec<f32>; 2] {
    let (rank, k) = (scales.len(), a.len() / scales.len());
    a.iter_mut().enumerate().for_each(|(i, a)| *a -= zeros[2 * (i / k)]);
    b.iter_mut().enumerate().for_each(|(i, b)| *b = scales[i % rank] * (*b - zeros[2 * (i % rank) + 1]));
    [a, b]
}

/// The layers that adapters belong to, by the names of their weights or of the modules that their nodes come from. Errors with those that
/// belong to none or to several, or do not fit.
pub fn targets(graph: &Graph, adapters: &[Adapter]) -> Result<Vec<Layer>> {
    let (all, _) = layers(graph);
    let one = |adapter: &Adapter| {
        let named = |l: &&Layer| names(graph, l).iter().any(|name| same(name, &adapter.target));
        let fitting: Vec<&Layer> = all.iter().filter(named).collect();
        let bad = |why: String| Err(Error::BadInput(format!("adapter of {}: {why}", adapter.target)));
        match fitting[..] {
            [l] if adapter.a.len() == adapter.rank * l.k && adapter.b.len() == adapter.rank * l.rows && l.groups == 1 => {
                Ok(l.clone())
            }
            [l] => bad(format!("{} has {} outputs of {} inputs in {} groups", l.name, l.rows, l.k, l.groups)),
            [] => bad("no layer of that name".into()),
            _ => bad(format!("{} layers of that name", fitting.len())),
        }
    };
    adapters.iter().map(one).collect()
}

/// What a layer may be called: by its weights, and by its node, whose name lists the modules around it as in `/encoder/layer.0/query/MatMul`.
fn names(graph: &Graph, layer: &Layer) -> [String; 2] {
    let weight = graph.values[layer.weight.0].name.trim_end_matches(".weight").to_string();
    let mut modules: Vec<&str> = Vec::new();
    let parts: Vec<&str> = layer.name.split('/').filter(|p| !p.is_empty()).collect();
    for part in &parts[..parts.len().saturating_sub(1)] {
        // A list of modules comes before its items: `b/b.1` is `b.1`.
        if modules.last().is_some_and(|last| part.strip_prefix(last).is_some_and(|rest| rest.starts_with('.'))) {
            modules.pop();
        }
        modules.push(part);
    }
    [weight, modules.join(".")]
}

/// Whether one name is the other, or its end behind a dot.
fn same(name: &str, target: &str) -> bool {
    let ends = |long: &str, short: &str| long.strip_suffix(short).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    !name.is_empty() && !target.is_empty() && (ends(target, name) || ends(name, target))
}

/// Adds `change` [rows x k] times `scale` to a layer's weights. Errors when it does not fit.
pub fn merge(graph: &mut Graph, layer: &Layer, change: &[f32], scale: f32) -> Result<()> {
    let mut weights = layer.weights(graph)?;
    weights.iter_mut().zip(change).for_each(|(w, c)| *w += scale * c);
    layer.set_weights(graph, &weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Node;

    fn graph() -> Graph {
        let mut graph = Graph::default();
        let x = graph.add_value("x", None);
        for (node, weight) in [("/encoder/layer/layer.0/query/MatMul", "onnx::MatMul_1"), ("", "layer.1.query.weight")] {
            let w = graph.add_value(weight, Some(Tensor::new([3, 2], &[0f32, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap()));
            let y = graph.add_value(format!("{weight} y"), None);
            let mut new = Node::new("", "MatMul", 17, vec![Some(x), Some(w)], vec![Some(y)]);
            new.name = node.into();
            graph.nodes.push(new);
        }
        graph
    }

    fn tensors(target: &str) -> Vec<(String, Tensor)> {
        let a = Tensor::new([1, 3], &[1f32, 10.0, 100.0]).unwrap();
        let b = Tensor::new([2, 1], &[1f32, -1.0]).unwrap();
        vec![(format!("{target}.lora_A.weight"), a), (format!("{target}.lora_B.weight"), b)]
    }

    #[test]
    fn adapters_find_their_layers_by_weight_or_by_module_and_are_added() {
        for (target, at) in [("base_model.model.encoder.layer.0.query", 0), ("layer.1.query", 1), ("encoder.layer.1.query", 1)] {
            let mut graph = graph();
            let adapters = adapters(&tensors(target), Some(2.0)).unwrap();
            let layers = targets(&graph, &adapters).unwrap();
            assert_eq!(layers[0].nodes, [at], "{target}");
            let change = [1.0, 10.0, 100.0, -1.0, -10.0, -100.0];
            merge(&mut graph, &layers[0], &change, adapters[0].scale).unwrap();
            let merged = graph.constant(layers[0].weight).unwrap().to_f64();
            assert_eq!(merged, [2.0, -1.0, 22.0, -17.0, 204.0, -195.0]);
        }
    }

    #[test]
    fn what_does_not_fit_says_why() {
        let error = |t: &[(String, Tensor)]| adapters(t, None).and_then(|a| targets(&graph(), &a)).unwrap_err().to_string();
        assert!(error(&tensors("layer.2.query")).contains("no layer") && error(&tensors("query")).contains("2 layers"));
        assert!(error(&tensors("layer.1.query")[..1]).contains("without lora_B") && error(&[]).contains("no lora_A"));
        let mut wrong = tensors("layer.1.query");
        wrong[0].1 = Tensor::new([1, 2], &[1f32, 2.0]).unwrap();
        assert!(error(&wrong).contains("2 outputs of 3 inputs"));
        wrong[1].1 = Tensor::new([1, 2], &[1f32, 2.0]).unwrap();
        assert!(error(&wrong).contains("factors of shapes"));
        let whole = tensors("layer.1.query");
        assert!(adapters(&whole, Some(f32::NAN)).unwrap_err().to_string().contains("NaN"));
    }

    #[test]
    fn integers_come_with_a_scale_for_each_rank() {
        let named = |name: &str, t: Tensor| (format!("layer.1.query.{name}"), t);
        let a = Tensor::new([2, 3], &[1i8, 2, 3, -4, 5, -128]).unwrap();
        let b = Tensor::new([2, 2], &[10i16, 300, -20, 400]).unwrap();
        let mut all = vec![named("lora_A.weight", a), named("lora_B.weight", b)];
        let error = |t: &[(String, Tensor)]| adapters(t, None).unwrap_err().to_string();
        assert!(error(&all).contains("without lora_scale of 2"));
        all.push(named("lora_scale", Tensor::vector(&[0.5f32, 0.25])));
        let found = adapters(&all, None).unwrap().remove(0);
        assert_eq!((found.a, found.b), (vec![1.0, 2.0, 3.0, -4.0, 5.0, -128.0], vec![5.0, 75.0, -10.0, 100.0]));
        all.push(named("lora_zero", Tensor::new([2, 2], &[1i8, 10, 0, -4]).unwrap()));
        let found = adapters(&all, None).unwrap().remove(0);
        assert_eq!((found.a, found.b), (vec![0.0, 1.0, 2.0, -4.0, 5.0, -128.0], vec![0.0, 76.0, -15.0, 101.0]));
        all[3].1 = Tensor::vector(&[1i8]);
        assert!(error(&all).contains("lora_zero"));
    }

    #[test]
    fn a_scale_beside_the_factors_goes_first() {
        let mut with = tensors("layer.1.query");
        with.push(("layer.1.query.alpha".into(), Tensor::scalar(8f32)));
        let scale = |t: &[(String, Tensor)], alpha| adapters(t, alpha).unwrap()[0].scale;
        assert_eq!((scale(&with, Some(2.0)), scale(&with[..2], Some(2.0)), scale(&with[..2], None)), (8.0, 2.0, 1.0));
    }
}
