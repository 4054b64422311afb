//! A batch that ran, and each request's share of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::axes::PortAxes;
use super::join::{Extent, part};
use super::request::Queued;
use crate::base::Tensor;
use crate::error::Result;
use crate::session::Outputs;

/// When what happened to a request, and in what company.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// It was admitted to the queue.
    pub submitted: Instant,
    /// It was taken out of the queue into a batch.
    pub batched: Instant,
    /// The model began to run.
    pub started: Instant,
    /// The model had run.
    pub finished: Instant,
    /// The reply was given.
    pub replied: Instant,
    /// Requests of the batch.
    pub requests: usize,
    /// Rows of the batch that are requests' rows.
    pub rows: usize,
    /// Rows that it was filled up to ([`super::Joining::row_steps`]).
    pub filled_rows: usize,
}

impl Trace {
    /// From admission to the reply.
    pub fn latency(&self) -> Duration {
        self.replied - self.submitted
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// As [`crate::Session::run`] gives them, for the request's own rows.
    pub outputs: Outputs,
    /// When what happened.
    pub trace: Trace,
}

/// A batch that ran.
pub(super) struct Ran {
    pub outputs: Outputs,
    pub extent: Extent,
    pub requests: usize,
    pub batched: Instant,
    pub started: Instant,
    pub finished: Instant,
    pub replied: Instant,
}

/// A request's share of a batch. Its outputs are copied out by whoever takes the reply, so that who runs batches goes on, and an
/// answer that is kept keeps nothing of its batch. The request goes back with it: memory is given back where it was taken.
pub(super) struct Share {
    pub request: Queued,
    pub ran: Arc<Ran>,
    pub first_row: usize,
}

impl Share {
    /// The answer.
    pub fn reply(self) -> Result<Reply> {
        let Ran { requests, batched, started, finished, replied, ref extent, .. } = *self.ran;
        let Extent { rows, filled: filled_rows, .. } = *extent;
        let trace = Trace { submitted: self.request.submitted, batched, started, finished, replied, requests, rows, filled_rows };
        Ok(Reply { outputs: self.outputs()?, trace })
    }

    fn outputs(self) -> Result<Outputs> {
        let Share { request, ran, first_row } = self;
        let (rows, length) = (request.checked.rows, request.checked.length);
        let is_whole = ran.requests == 1 && length == ran.extent.length;
        let ran = match Arc::try_unwrap(ran) {
            Ok(ran) if is_whole => return Ok(ran.outputs),
            Ok(ran) => Arc::new(ran),
            Err(ran) => ran,
        };
        let own = |(at, (name, tensor)): (usize, (&str, &Tensor))| {
            let axes = request.model.axes.outputs.get(at).map_or(PortAxes::default(), |o| o.axes);
            Ok((name.to_string(), part(tensor, axes, &ran.extent, first_row, rows, length)?))
        };
        if is_whole { Ok(ran.outputs.clone()) } else { ran.outputs.iter().enumerate().map(own).collect() }
    }
}
