//! Output channels of a layer: who reads them, and what shrinks when some are removed.

use std::collections::HashMap;

use super::layer::Layer;
use super::pattern::int;
use crate::base::{DType, Shape, Tensor};
use crate::error::{Error, Result};
use crate::graph::{Attr, Graph, Lower, Node, NodeId, ValueId};

/// On which axis of a value the channels lie.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Axis {
    /// The second one, of an image of so many axes.
    Second(usize),
    Last,
    /// The last one, so many positions of a channel one after the other.
    Flat,
}

/// What reads and carries the output channels of a layer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Channels {
    /// How many there are.
    pub count: usize,
    /// Layers that multiply them, as places in the list of layers, and columns of their weights for each channel.
    pub readers: Vec<(usize, usize)>,
    /// Constants on the way, the layer's own bias among them: node, input, axis.
    constants: Vec<(NodeId, usize, usize)>,
    /// Convolutions of each channel by itself.
    depthwise: Vec<NodeId>,
}

/// Follows the output channels of layer `at` to the layers that read them. Errors with what stands in the way.
pub fn follow(graph: &Graph, layers: &[Layer], at: usize) -> Result<Channels, String> {
    let layer = &layers[at];
    let [producer] = layer.nodes[..] else { return Err("its weights are shared".into()) };
    if layer.groups != 1 {
        return Err("its channels are in groups".into());
    }
    let node = &graph.nodes[producer];
    let axis = if layer.op == "Conv" { Axis::Second(rank(graph, node)) } else { Axis::Last };
    let mut found = Channels { count: layer.rows, ..Channels::default() };
    if let Some(bias) = node.inputs.get(2).copied().flatten() {
        let last = own_constant(graph, bias)?.rank().saturating_sub(1);
        found.constant(graph, (producer, 2), bias, Some(last))?;
    }
    let output = node.outputs.first().copied().flatten().ok_or("it gives nothing")?;
    let mut carried = HashMap::from([(output, axis)]);
    for (at, node) in graph.nodes.iter().enumerate().skip(producer + 1) {
        let Some(axis) = node.uses().iter().find_map(|v| carried.get(v)).copied() else { continue };
        if let Some(axis) = found.pass(graph, layers, (at, node), axis, &carried)? {
            carried.extend(node.outputs.first().copied().flatten().map(|v| (v, axis)));
        }
    }
    if graph.outputs.iter().any(|p| carried.contains_key(&p.value)) {
        return Err("its channels are an output of the model".into());
    }
    if found.readers.is_empty() { Err("no layer reads its channels".into()) } else { Ok(found) }
}

fn rank(graph: &Graph, node: &Node) -> usize {
    node.inputs.get(1).copied().flatten().and_then(|w| graph.constant(w)).map_or(0, |t| t.shape().rank())
}

fn own_constant(graph: &Graph, value: ValueId) -> Result<&Shape, String> {
    let overridable = graph.optional_inputs.iter().any(|p| p.value == value);
    let constant = graph.constant(value).filter(|t| t.dtype() == DType::F32 && !overridable);
    constant.map(Tensor::shape).ok_or_else(|| format!("{} is no constant of f32", graph.values[value.0].name))
}

impl Channels {
    /// What a node makes of channels on `axis`: the axis on which it gives them on, or `None` where they end.
    fn pass(
        &mut self,
        graph: &Graph,
        layers: &[Layer],
        (at, node): (NodeId, &Node),
        axis: Axis,
        carried: &HashMap<ValueId, Axis>,
    ) -> Result<Option<Axis>, String> {
        let refuse = || Err(format!("{} {} reads its channels", node.full_op(), node.name));
        let first = node.inputs.first().copied().flatten().is_some_and(|v| carried.contains_key(&v));
        let others = node.uses().iter().filter(|v| carried.contains_key(v)).count() > usize::from(first);
        if let Some(reader) = layers.iter().position(|l| l.nodes.contains(&at)).filter(|_| first && !others) {
            return self.read(graph, (at, node), (reader, &layers[reader]), axis);
        }
        let plain = node.domain.is_empty() && node.epilogue.is_none();
        let alone = node.outputs.iter().flatten().count() == 1;
        match (node.op.as_str(), axis) {
            _ if !plain || !alone => refuse(),
            ("BatchNormalization", Axis::Second(_)) if first && !others => {
                (1..5).try_for_each(|i| match node.inputs.get(i).copied().flatten() {
                    Some(v) => self.constant(graph, (at, i), v, Some(0)),
                    None => Err("an incomplete BatchNormalization reads its channels".into()),
                })?;
                Ok(Some(axis))
            }
            ("MaxPool" | "AveragePool" | "LpPool" | "GlobalAveragePool" | "GlobalMaxPool", Axis::Second(_)) => Ok(Some(axis)),
            ("Identity" | "Dropout", _) => Ok(Some(axis)),
            ("Flatten", Axis::Second(_)) if int(node, "axis", 1) == 1 => Ok(Some(Axis::Flat)),
            ("Reshape", Axis::Second(_)) if flattens(graph, node) => Ok(Some(Axis::Flat)),
            _ if node.def.is_some_and(|d| matches!(d.lower, Lower::Scalar(_))) => {
                for (i, value) in node.inputs.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))) {
                    match carried.get(&value) {
                        Some(same) if *same == axis => {}
                        Some(_) => return refuse(),
                        None => {
                            let joins = |_| format!("{} {} joins its channels with others", node.op, node.name);
                            let shape = own_constant(graph, value).map_err(joins)?;
                            self.constant(graph, (at, i), value, own_axis(shape, axis))?
                        }
                    }
                }
                Ok(Some(axis))
            }
            _ => refuse(),
        }
    }

    /// A layer that multiplies the channels, or a convolution of each by itself.
    fn read(
        &mut self,
        graph: &Graph,
        (at, node): (NodeId, &Node),
        (reader, layer): (usize, &Layer),
        axis: Axis,
    ) -> Result<Option<Axis>, String> {
        let fits = layer.k.is_multiple_of(self.count) && (layer.k == self.count || axis != Axis::Last);
        match (layer.op == "Conv", axis) {
            _ if layer.nodes.len() > 1 => Err(format!("{} shares its weights", layer.name)),
            (true, Axis::Second(_)) if layer.groups == 1 && fits => {
                self.readers.push((reader, layer.k / self.count));
                Ok(None)
            }
            (true, Axis::Second(_)) if layer.groups == self.count && layer.rows == self.count => {
                self.depthwise.push(at);
                self.constants.push((at, 1, 0));
                if let Some(bias) = node.inputs.get(2).copied().flatten() {
                    self.constant(graph, (at, 2), bias, Some(0))?;
                }
                Ok(Some(axis))
            }
            (false, Axis::Last | Axis::Flat) if fits => {
                self.readers.push((reader, layer.k / self.count));
                Ok(None)
            }
            _ => Err(format!("{} {} reads its channels in groups or at other places", layer.op, layer.name)),
        }
    }

    /// Notes a constant that has the channels on an axis; one that has none there needs no change.
    fn constant(&mut self, graph: &Graph, place: (NodeId, usize), value: ValueId, axis: Option<usize>) -> Result<(), String> {
        let shape = own_constant(graph, value)?;
        let Some(axis) = axis.filter(|_| shape.numel() != 1) else { return Ok(()) };
        match shape.get(axis) {
            Some(&n) if n == self.count => self.constants.push((place.0, place.1, axis)),
            Some(1) => {}
            _ => return Err(format!("{} of shape {shape} does not fit its channels", graph.values[value.0].name)),
        }
        Ok(())
    }
}

/// The axis of a broadcast constant that meets the channels, if it has one there.
fn own_axis(shape: &Shape, axis: Axis) -> Option<usize> {
    match axis {
        Axis::Second(rank) => (shape.rank() + 1).checked_sub(rank),
        Axis::Last => shape.rank().checked_sub(1),
        // Its positions could not be told from channels: the error says that it does not fit.
        Axis::Flat => Some(usize::MAX),
    }
}

/// Whether a Reshape keeps the first axis and joins all others.
fn flattens(graph: &Graph, node: &Node) -> bool {
    let to = node.inputs.get(1).copied().flatten().and_then(|v| graph.constant(v)).and_then(Tensor::to_i64);
    to.is_some_and(|to| matches!(to[..], [0, -1]))
}

/// Keeps some of a layer's output channels. `weights` are those of each reader, [rows x k], of which the columns that are left are taken.
/// Errors when they do not fit.
pub fn shrink(graph: &mut Graph, layers: &[Layer], at: usize, of: &Channels, kept: &[usize], weights: &[Vec<f32>]) -> Result<()> {
    let layer = &layers[at];
    put(graph, layer.nodes[0], 1, |t| select(t, usize::from(layer.is_transposed()), kept))?;
    shrink_readers(graph, layers, &of.readers, kept, weights)?;
    for &(node, input, axis) in &of.constants {
        put(graph, node, input, |t| select(t, axis, kept))?;
    }
    for &node in &of.depthwise {
        graph.nodes[node].attrs.insert("group".into(), Attr::Int(kept.len() as i64));
    }
    Ok(())
}

/// Gives readers, with columns of each channel, other weights, of which the columns of the channels that are left are taken.
pub(super) fn shrink_readers(
    graph: &mut Graph,
    layers: &[Layer],
    readers: &[(usize, usize)],
    kept: &[usize],
    weights: &[Vec<f32>],
) -> Result<()> {
    for (&(reader, width), new) in readers.iter().zip(weights) {
        let reader = &layers[reader];
        reader.set_weights(graph, new)?;
        let each = if reader.op != "Conv" { width } else { 1 };
        let columns: Vec<usize> = kept.iter().flat_map(|c| c * each..(c + 1) * each).collect();
        put(graph, reader.nodes[0], 1, |t| select(t, usize::from(!reader.is_transposed()), &columns))?;
    }
    Ok(())
}

/// Gives a node another constant; other readers of the old one keep theirs.
pub(super) fn put(graph: &mut Graph, node: NodeId, input: usize, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
    let missing = || Error::BadInput(format!("input {input} of {} is no constant", graph.nodes[node].name));
    let old = graph.nodes[node].inputs.get(input).copied().flatten().ok_or_else(missing)?;
    let new = change(graph.constant(old).ok_or_else(missing)?)?;
    let others =
        graph.nodes.iter().enumerate().any(|(at, n)| n.uses().iter().filter(|v| **v == old).count() > usize::from(at == node));
    if others {
        let name = format!("{}/{}", graph.values[old.0].name, graph.nodes[node].name);
        graph.nodes[node].inputs[input] = Some(graph.add_value(name, Some(new)));
    } else {
        graph.values[old.0].constant = Some(new);
    }
    Ok(())
}

/// Some places along an axis, of a tensor of f32.
pub(super) fn select(t: &Tensor, axis: usize, places: &[usize]) -> Result<Tensor> {
    let mut shape = t.shape().clone();
    let (values, size) = (t.values::<f32>()?, shape.get(axis).copied().unwrap_or(0));
    let inner: usize = shape.iter().skip(axis + 1).product();
    let line = |part: &[f32], at: usize| part.get(at * inner..(at + 1) * inner).unwrap_or_default().to_vec();
    let taken: Vec<f32> =
        values.chunks((size * inner).max(1)).flat_map(|part| places.iter().flat_map(move |&at| line(part, at))).collect();
    if let Some(dim) = shape.get_mut(axis) {
        *dim = places.len();
    }
    Tensor::new(shape, &taken)
}

#[cfg(test)]
mod tests {
    use super::super::layer::layers;
    use super::*;
    use crate::graph::Port;

    struct Net(Graph);

    impl Net {
        fn weight(&mut self, shape: &[usize]) -> ValueId {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i| i as f32).collect();
            let name = format!("w{}", self.0.values.len());
            self.0.add_value(name, Some(Tensor::new(shape, &values).unwrap()))
        }

        fn add(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, i64)]) -> ValueId {
            let y = self.0.add_value(format!("y{}", self.0.values.len()), None);
            let mut node = Node::new("", op, 17, inputs.iter().map(|&v| Some(v)).collect(), vec![Some(y)]);
            node.attrs = attrs.iter().map(|(n, v)| (n.to_string(), Attr::Int(*v))).collect();
            node.name = format!("n{}", self.0.nodes.len());
            self.0.nodes.push(node);
            y
        }

        fn conv(&mut self, x: ValueId, shape: &[usize], group: i64) -> ValueId {
            let w = self.weight(shape);
            self.add("Conv", &[x, w], &[("group", group)])
        }

        fn shape(&self, node: usize, input: usize) -> &[usize] {
            self.0.constant(self.0.nodes[node].inputs[input].unwrap()).unwrap().shape()
        }
    }

    /// Conv -> BatchNormalization -> Relu -> depthwise Conv -> Mul -> MaxPool -> Conv -> Flatten -> Gemm.
    fn chain() -> Net {
        let mut net = Net(Graph::default());
        let x = net.0.add_value("x", None);
        let mut y = net.conv(x, &[4, 3, 3, 3], 1);
        let channel = net.weight(&[4]);
        y = net.add("BatchNormalization", &[y, channel, channel, channel, channel], &[]);
        y = net.add("Relu", &[y], &[]);
        y = net.conv(y, &[4, 1, 3, 3], 4);
        let factor = net.weight(&[4, 1, 1]);
        y = net.add("Mul", &[factor, y], &[]);
        y = net.add("MaxPool", &[y], &[]);
        y = net.conv(y, &[5, 4, 1, 1], 1);
        y = net.add("Flatten", &[y], &[]);
        let head = net.weight(&[20, 2]);
        y = net.add("Gemm", &[y, head], &[]);
        net.0.outputs.push(Port { value: y, dtype: None, dims: None });
        net
    }

    #[test]
    fn channels_are_followed_through_a_chain_and_all_of_it_shrinks() {
        let mut net = chain();
        let (found, _) = layers(&net.0);
        let channels = follow(&net.0, &found, 0).unwrap();
        assert_eq!((channels.count, &channels.readers[..]), (4, &[(2, 1)][..]));
        let weights = found[2].weights(&net.0).unwrap();
        shrink(&mut net.0, &found, 0, &channels, &[0, 3], &[weights]).unwrap();
        assert_eq!(
            (net.shape(0, 1), net.shape(3, 1), net.shape(6, 1)),
            (&[2, 3, 3, 3][..], &[2, 1, 3, 3][..], &[5, 2, 1, 1][..])
        );
        assert_eq!((net.shape(1, 1), net.shape(1, 4), net.shape(4, 0)), (&[2][..], &[2][..], &[2, 1, 1][..]));
        assert_eq!(int(&net.0.nodes[3], "group", 1), 2);
        let factor = net.0.constant(net.0.nodes[4].inputs[0].unwrap()).unwrap();
        assert_eq!(factor.values::<f32>().unwrap()[..], [0.0, 3.0]);

        let (found, _) = layers(&net.0);
        let channels = follow(&net.0, &found, 2).unwrap();
        assert_eq!(channels.readers, [(3, 4)], "four positions of each channel");
        let weights = found[3].weights(&net.0).unwrap();
        shrink(&mut net.0, &found, 2, &channels, &[1, 2, 4], &[weights]).unwrap();
        let head = net.0.constant(net.0.nodes[8].inputs[1].unwrap()).unwrap();
        assert_eq!((net.shape(6, 1), &head.shape()[..]), (&[3, 2, 1, 1][..], &[12, 2][..]));
        assert_eq!(head.values::<f32>().unwrap()[..3], [8.0, 9.0, 10.0]);
    }

    #[test]
    fn what_cannot_be_followed_says_why() {
        let net = chain();
        let (found, _) = layers(&net.0);
        assert!(follow(&net.0, &found, 3).unwrap_err().contains("output of the model"));
        assert!(follow(&net.0, &found, 1).unwrap_err().contains("groups"));
        let mut residual = Net(Graph::default());
        let x = residual.0.add_value("x", None);
        let y = residual.conv(x, &[3, 3, 3, 3], 1);
        let z = residual.add("Add", &[x, y], &[]);
        residual.conv(z, &[3, 3, 3, 3], 1);
        let (found, _) = layers(&residual.0);
        assert!(follow(&residual.0, &found, 0).unwrap_err().contains("joins"));
        residual.0.nodes[1] = Node::new("", "Softmax", 17, vec![Some(y)], vec![Some(z)]);
        assert!(follow(&residual.0, &found, 0).unwrap_err().contains("Softmax"));
    }
}
