//! Removal of attention heads, with the layers that make and read them shrunk.

use super::Taps;
use super::channels::{Least, Narrowed, least_missed};
use super::prune::Pruning;
use super::samples::Samples;
use crate::base::Shape;
use crate::calibrate::reconstruct::portion;
use crate::error::{Error, Result};
use crate::pass::heads::{attentions, tidy};
use crate::pass::layer::{Refused, layers};
use crate::session::Model;

/// Removes a share of the heads of each attention that can be followed: those that the layer behind them misses least when the others make
/// up for them. One attention after the other, each on what the narrowed ones before give. Gives the model, what was narrowed and what was
/// not, and why. Errors when the model cannot run or no attention can be narrowed.
pub fn prune_heads(
    model: &Model,
    samples: &Samples,
    share: f64,
    how: &Pruning,
    mut progress: impl FnMut(usize, usize),
) -> Result<(Model, Vec<Narrowed>, Vec<Refused>)> {
    let mut graph = model.graph().clone();
    let (found, mut refused) = attentions(&graph, &layers(&graph).0);
    let ends = found.iter().flat_map(|a| a.ends(&graph)).collect::<Vec<_>>();
    let first = samples.batches(1).next().ok_or_else(|| Error::BadInput("no samples".into()))??;
    let seen = if ends.is_empty() { Vec::new() } else { Taps::new(model, &ends, how.options.clone())?.run(&first)? };
    let (mut shapes, mut narrowed) = (seen.iter().map(|t| t.shape()), Vec::new());
    let mut stream = how.stream(model, samples);
    for (i, attention) in found.iter().enumerate() {
        let (all, _) = layers(&graph);
        let shapes: Vec<&Shape> = shapes.by_ref().take(attention.ends(&graph).len()).collect();
        let kept_as = how.keep.iter().any(|text| attention.name.contains(text)).then(|| "kept as asked for".to_string());
        let heads = match kept_as.map_or_else(|| attention.heads(&all, &shapes), Err) {
            Ok(heads) => heads,
            Err(why) => {
                refused.push(Refused { node: attention.name.clone(), why });
                continue;
            }
        };
        stream.forward(&graph, attention.first(&all))?;
        let readers = [(attention.reader, heads.size)];
        let count = portion(heads.count, share);
        let Least { kept, mut weights, relative_error } = least_missed(&stream, &graph, &all, &readers, (heads.count, count))?;
        attention.shrink(&mut graph, &all, heads, &kept, weights.swap_remove(0))?;
        narrowed.push(Narrowed { layer: attention.name.clone(), before: heads.count, after: kept.len(), relative_error });
        progress(i + 1, found.len());
    }
    if narrowed.is_empty() {
        let why: Vec<String> = refused.iter().map(|r| format!("{}: {}", r.node, r.why)).collect();
        return Err(Error::BadInput(format!("no attention whose heads can be removed: {}", why.join("; "))));
    }
    tidy(&mut graph);
    Ok((model.with_graph(graph), narrowed, refused))
}
