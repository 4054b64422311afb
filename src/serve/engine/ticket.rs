//! The caller's end of a request.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::batch::{Reply, Share};
use super::desk::help;
use super::entry::Counted;
use super::shared::Shared;
use super::slot::Receiver;
use crate::error::Result;
use crate::serve::schedule::Key;

/// Stands for an answer. Dropping it cancels the request: it is not run if it still waits.
#[must_use = "dropping a ticket cancels its request"]
pub struct Ticket {
    receiver: Receiver<Result<Share>>,
    shared: Arc<Counted<Shared>>,
    key: Key,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static UNPARK: Waker = Waker::from(Arc::new(Unpark(thread::current())));
}

impl Ticket {
    pub(super) fn new(receiver: Receiver<Result<Share>>, shared: Arc<Counted<Shared>>, key: Key) -> Self {
        Ticket { receiver, shared, key }
    }

    /// Waits for the answer. Errors as the run did, or with why there was none. Where runs are short, this thread may run the batch that its
    /// request is in, and those before it.
    pub fn wait(mut self) -> Result<Reply> {
        loop {
            if !self.receiver.is_done() {
                help(&self.shared, || self.receiver.is_done());
            }
            match self.wait_until(None) {
                Ok(reply) => return reply,
                Err(ticket) => self = ticket,
            }
        }
    }

    /// Waits for at most so long; gives the ticket back when there is no answer yet.
    pub fn wait_timeout(self, time: Duration) -> std::result::Result<Result<Reply>, Ticket> {
        self.wait_until(Instant::now().checked_add(time))
    }

    /// The answer if it is there; gives the ticket back when it is not.
    pub fn try_take(mut self) -> std::result::Result<Result<Reply>, Ticket> {
        match self.receiver.take() {
            Some(share) => Ok(share.and_then(Share::reply)),
            None => Err(self),
        }
    }

    fn wait_until(mut self, end: Option<Instant>) -> std::result::Result<Result<Reply>, Ticket> {
        loop {
            if let Some(share) = UNPARK.with(|waker| self.receiver.poll(waker)) {
                return Ok(share.and_then(Share::reply));
            }
            let Some(end) = end else {
                thread::park();
                continue;
            };
            match end.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Err(self),
                left => thread::park_timeout(left),
            }
        }
    }
}

/// Needs no runtime: any executor's waker will do.
#[cfg(feature = "async")]
impl Future for Ticket {
    type Output = Result<Reply>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        match self.receiver.poll(context.waker()) {
            Some(share) => std::task::Poll::Ready(share.and_then(Share::reply)),
            None => std::task::Poll::Pending,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.receiver.is_done() {
            self.shared.cancel(self.key);
        }
    }
}
