//! A request on its way: checked, queued, answered.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::axes::{Axes, Named, PortAxes, size};
use super::batch::{Ran, Share};
use super::entry::Counted;
use super::model::Served;
use super::slot::Sender;
use crate::base::{Shape, Tensor};
use crate::error::{Error, Result};
use crate::session::fits;

/// Inputs that fit their model.
pub(super) struct Checked {
    /// In the model's order: the required ones, then the optional ones.
    pub inputs: Vec<Option<Tensor>>,
    pub rows: usize,
    pub length: usize,
    /// Requests of different kinds are never joined.
    pub kind: u64,
}

/// A request that waits for its batch or runs in one. Whatever happens to it, there is a reply.
pub(super) struct Pending {
    pub model: Arc<Counted<Served>>,
    pub checked: Checked,
    pub submitted: Instant,
    /// When its answer is due; never where that is too far away to be told.
    pub due: Option<Instant>,
    sender: Option<Sender<Result<Share>>>,
}

/// One that stays where it is until its reply is taken.
pub(super) type Queued = Box<Pending>;

impl Pending {
    pub fn new(
        model: Arc<Counted<Served>>,
        checked: Checked,
        submitted: Instant,
        due: Option<Instant>,
        sender: Sender<Result<Share>>,
    ) -> Queued {
        Box::new(Pending { model, checked, submitted, due, sender: Some(sender) })
    }

    /// Answers with an error.
    pub fn fail(mut self, error: Error) {
        self.send(Err(error)).into_iter().for_each(wake);
    }

    /// Answers with its share of a batch; who waits for it, and is to be woken.
    pub fn answer(mut self: Box<Self>, ran: Arc<Ran>, first_row: usize) -> Option<Waker> {
        let sender = self.sender.take()?;
        sender.send(Ok(Share { request: self, ran, first_row }))
    }

    fn send(&mut self, reply: Result<Share>) -> Option<Waker> {
        self.sender.take().and_then(|sender| sender.send(reply))
    }
}

/// Wakes who waits for an answer. The waker is the caller's: its panic is none of the engine's, nor of others' in the batch.
pub(super) fn wake(waker: Waker) {
    drop(catch_unwind(AssertUnwindSafe(|| waker.wake())));
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.sender.as_ref().is_some_and(|sender| !sender.is_unwanted()) {
            let why = "the engine's own thread ended before it answered".into();
            self.send(Err(Error::Panicked { why })).into_iter().for_each(wake);
        }
    }
}

/// Puts the caller's tensors in the model's order. Errors with what does not fit.
pub(super) fn check(axes: &Axes, model: u32, given: &[(&str, Tensor)]) -> Result<Checked> {
    if let Some((name, _)) = given.iter().find(|(name, _)| axes.inputs.iter().all(|i| i.name != *name)) {
        let known: Vec<&str> = axes.inputs.iter().map(|i| i.name.as_str()).collect();
        return Err(Error::BadInput(format!("the model has no input {name:?}; it takes {}", known.join(", "))));
    }
    let mut inputs: Vec<Option<Tensor>> = Vec::with_capacity(axes.inputs.len());
    for (i, wanted) in axes.inputs.iter().enumerate() {
        let found = given.iter().find(|(name, _)| *name == wanted.name).map(|(_, tensor)| tensor);
        match found {
            Some(tensor) => fits(&wanted.name, &wanted.port, &tensor.view())?,
            None if i < axes.required => return Err(Error::BadInput(format!("input {:?} is missing", wanted.name))),
            None => {}
        }
        inputs.push(found.cloned());
    }
    if inputs.iter().flatten().count() != given.len() {
        return Err(Error::BadInput("an input is given twice".into()));
    }
    let of = |axis: fn(&PortAxes) -> Option<usize>, what: &str| same(axes, &inputs, axis, what);
    let rows = of(|a| a.batch, "rows of the batch")?.unwrap_or(1);
    let length = of(|a| a.length, "the length that is padded")?.unwrap_or(1);
    if axes.is_batched && rows == 0 {
        return Err(Error::BadInput("a request of no rows has no answer; send at least one".into()));
    }
    let kind = kind(axes, model, &inputs);
    Ok(Checked { inputs, rows, length, kind })
}

/// The size of an axis, in which all inputs that have it must agree.
fn same(axes: &Axes, inputs: &[Option<Tensor>], axis: fn(&PortAxes) -> Option<usize>, what: &str) -> Result<Option<usize>> {
    let mut agreed: Option<(usize, &str)> = None;
    for (named, tensor) in axes.inputs.iter().zip(inputs) {
        let Some(tensor) = tensor else { continue };
        let Some(n) = size(tensor.shape(), axis(&named.axes)) else { continue };
        match agreed {
            Some((m, other)) if m != n => {
                let why = format!("{what}: input {other:?} has {m}, input {:?} has {n}; give all the same", named.name);
                return Err(Error::BadInput(why));
            }
            _ => agreed = Some((n, &named.name)),
        }
    }
    Ok(agreed.map(|(n, _)| n))
}

/// The sizes that requests of a batch must share: all but those of the batch and of the length.
fn fixed<'a>(named: &'a Named, shape: &'a Shape) -> impl Iterator<Item = usize> + 'a {
    let PortAxes { batch, length } = named.axes;
    shape.iter().enumerate().filter(move |(i, _)| Some(*i) != batch && Some(*i) != length).map(|(_, &n)| n)
}

/// Told apart by what [`alike`] compares.
fn kind(axes: &Axes, model: u32, inputs: &[Option<Tensor>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    model.hash(&mut hasher);
    for (named, tensor) in axes.inputs.iter().zip(inputs) {
        let Some(tensor) = tensor else {
            hasher.write_u8(0);
            continue;
        };
        hasher.write_usize(tensor.shape().rank());
        fixed(named, tensor.shape()).for_each(|n| hasher.write_usize(n));
        if axes.is_batched && named.axes.batch.is_none() {
            hasher.write(tensor.bytes());
        }
    }
    hasher.finish()
}

/// Whether two requests of one model may be rows of one batch.
pub(super) fn alike(axes: &Axes, a: &Checked, b: &Checked) -> bool {
    let pairs = axes.inputs.iter().zip(a.inputs.iter().zip(&b.inputs));
    let equal = |(named, pair): (&Named, (&Option<Tensor>, &Option<Tensor>))| match pair {
        (Some(x), Some(y)) => {
            let shapes = x.shape().rank() == y.shape().rank() && fixed(named, x.shape()).eq(fixed(named, y.shape()));
            x.dtype() == y.dtype() && shapes && (named.axes.batch.is_some() || x.bytes() == y.bytes())
        }
        (x, y) => x.is_none() && y.is_none(),
    };
    axes.is_batched && a.kind == b.kind && pairs.into_iter().all(equal)
}
