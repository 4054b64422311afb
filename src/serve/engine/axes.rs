//! How requests of a model are put together: which axes of its inputs and outputs are the batch, and which may be padded.

use super::runner::Runner;
use crate::base::Shape;
use crate::error::{Error, Result};
use crate::graph::{Dim, Port};

/// An axis that inputs and outputs of a model share.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Axis {
    /// The dimension of this name, wherever it stands.
    Named(String),
    /// This axis of each of these inputs and outputs; the others have none.
    At(Vec<(String, usize)>),
}

/// The batch of a model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum BatchAxis {
    /// The first dimension of the first input, if it has a name that every output has once: see [`Joining::batch`].
    #[default]
    Found,
    /// The caller's word.
    Given(Axis),
    /// None: requests run one by one.
    Absent,
}

/// Rows of unequal length in one batch: the shorter are padded at their end, and outputs are cut back to each request's length.
/// For models whose answer for a row does not depend on what its mask leaves out. The bits are then those of the padded row by itself.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Padding {
    /// The axis of the length.
    pub axis: Axis,
    /// What each input that has the axis is padded with, by name.
    pub values: Vec<(String, f64)>,
    /// Batches are padded to a multiple of this length, so that there are fewer shapes to plan for; 0 and 1 pad to the longest row.
    pub multiple: usize,
}

/// How requests of a model are put together.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Joining {
    /// The batch. Inputs without it must be equal in all requests of a batch; every output must have it.
    pub batch: BatchAxis,
    /// Rows of unequal length together; `None` joins only equal shapes.
    pub padding: Option<Padding>,
    /// Batches are filled up to the next of these numbers of rows by repeating rows, so that there are fewer shapes to plan for; above the
    /// last, and where there are none, they are left as they are. A request that runs alone is never filled up. `None` asks the
    /// runner ([`super::Runner::row_steps`]).
    pub row_steps: Option<Vec<usize>>,
}

/// The axes of one input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PortAxes {
    pub batch: Option<usize>,
    pub length: Option<usize>,
}

/// What an input or output is called and declared to be.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub name: String,
    pub port: Port,
    pub axes: PortAxes,
    /// What it is padded with.
    pub pad: f64,
}

/// The axes of a whole model.
#[derive(Debug, Clone)]
pub(super) struct Axes {
    /// Required inputs, then optional ones.
    pub inputs: Vec<Named>,
    pub required: usize,
    pub outputs: Vec<Named>,
    /// Requests may be put together.
    pub is_batched: bool,
    pub multiple: usize,
    pub row_steps: Vec<usize>,
}

impl Axes {
    /// Errors where `joining` names what the model does not have.
    pub fn new(runner: &dyn Runner, joining: &Joining) -> Result<Axes> {
        let graph = runner.graph();
        let named = |port: &Port| {
            let name = graph.values[port.value.0].name.clone();
            Named { name, port: port.clone(), axes: PortAxes::default(), pad: 0.0 }
        };
        let mut inputs: Vec<Named> = graph.inputs.iter().chain(&graph.optional_inputs).map(named).collect();
        let mut outputs: Vec<Named> = graph.outputs.iter().map(named).collect();
        let batch = match &joining.batch {
            BatchAxis::Absent => None,
            BatchAxis::Given(axis) => Some(axis.clone()),
            BatchAxis::Found => found(&inputs[..graph.inputs.len()], &outputs).map(Axis::Named),
        };
        let is_batched = batch.is_some();
        for (axis, is_length) in [(batch.as_ref(), false), (joining.padding.as_ref().map(|p| &p.axis), true)] {
            let Some(axis) = axis else { continue };
            let ports = || inputs.iter().chain(&outputs);
            known(axis, ports())?;
            for port in inputs.iter_mut().chain(&mut outputs) {
                let at = position(axis, port)?;
                *(if is_length { &mut port.axes.length } else { &mut port.axes.batch }) = at;
            }
        }
        if let Some(without) = outputs.iter().find(|o| is_batched && o.axes.batch.is_none()) {
            let why = "has no batch axis, so its rows cannot be told apart: name it in Joining::batch, or say BatchAxis::Absent";
            return Err(Error::BadInput(format!("output {:?} {why}", without.name)));
        }
        pad_values(&mut inputs, joining)?;
        let mut row_steps = joining.row_steps.clone().unwrap_or_else(|| runner.row_steps());
        row_steps.sort_unstable();
        let multiple = joining.padding.as_ref().map_or(1, |p| p.multiple.max(1));
        Ok(Axes { inputs, required: graph.inputs.len(), outputs, is_batched, multiple, row_steps })
    }

    /// Rows that a batch of so many is filled up to.
    pub fn filled(&self, rows: usize) -> usize {
        self.row_steps.iter().copied().find(|&step| step >= rows).unwrap_or(rows)
    }
}

/// Which axis `axis` is here. Errors where its name stands twice or the axis is beyond the declared rank.
fn position(axis: &Axis, port: &Named) -> Result<Option<usize>> {
    let wrong = |why: String| Err(Error::BadInput(format!("{:?}: {why}", port.name)));
    let dims = port.port.dims.as_deref();
    match axis {
        Axis::Named(name) => {
            let is = |dim: &Dim| matches!(dim, Dim::Named(n) if n == name);
            let mut at = dims.unwrap_or_default().iter().enumerate().filter(|(_, dim)| is(dim)).map(|(at, _)| at);
            match (at.next(), at.next()) {
                (Some(_), Some(_)) => wrong(format!("dimension {name:?} stands in it twice; give the axes with Axis::At")),
                (at, _) => Ok(at),
            }
        }
        Axis::At(all) => match all.iter().find(|(name, _)| *name == port.name) {
            Some((_, at)) if dims.is_some_and(|d| *at >= d.len()) => wrong(format!("it has no axis {at}")),
            at => Ok(at.map(|(_, at)| *at)),
        },
    }
}

/// Errors where an axis names nothing of the model.
fn known<'a>(axis: &Axis, mut ports: impl Iterator<Item = &'a Named> + Clone) -> Result<()> {
    let missing = match axis {
        Axis::Named(name) => {
            let has = |port: &Named| position(axis, port).map_or(true, |at| at.is_some());
            (!ports.any(has)).then_some(name)
        }
        Axis::At(all) => all.iter().map(|(name, _)| name).find(|name| !ports.clone().any(|p| p.name == **name)),
    };
    missing.map_or(Ok(()), |name| Err(Error::BadInput(format!("Joining names {name:?}, which the model does not have"))))
}

/// The name of the batch: the first dimension of the first input that has any, which every output has, once, as every input at most once.
fn found(inputs: &[Named], outputs: &[Named]) -> Option<String> {
    let first = inputs.iter().find_map(|i| i.port.dims.as_ref()?.first())?;
    let Dim::Named(name) = first else { return None };
    let axis = Axis::Named(name.clone());
    let once =
        outputs.iter().all(|o| matches!(position(&axis, o), Ok(Some(_)))) && inputs.iter().all(|i| position(&axis, i).is_ok());
    // An input that says nothing of its shape may hold rows that nobody would join.
    let said = inputs.iter().all(|i| i.port.dims.is_some());
    (once && said && !outputs.is_empty()).then(|| name.clone())
}

fn pad_values(inputs: &mut [Named], joining: &Joining) -> Result<()> {
    let Some(padding) = &joining.padding else { return Ok(()) };
    for input in inputs.iter_mut().filter(|i| i.axes.length.is_some()) {
        let value = padding.values.iter().find(|(name, _)| *name == input.name).map(|(_, value)| *value);
        let why = || {
            format!("input {:?} has the axis of the length but no value to be padded with; add it to Padding::values", input.name)
        };
        input.pad = value.ok_or_else(|| Error::BadInput(why()))?;
    }
    Ok(())
}

/// A size of `shape`, if it has the axis.
pub(super) fn size(shape: &Shape, axis: Option<usize>) -> Option<usize> {
    axis.and_then(|axis| shape.get(axis).copied())
}
