//! A request for a model on its way: out of the cache, out of an equal request's computation, or through the engine.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::oneshot;

use super::Failure;
use super::keys::Tenant;
use super::loaded::Loaded;
use crate::base::Tensor;
use crate::serve::cache::{self, Answer, Begin, Cache, Digest, Fetched, Lead};
use crate::serve::protocol::{InferReply, InferRequest};

/// A request for a model.
pub(super) struct Call<'c> {
    pub model: &'c Loaded,
    pub tenant: &'c Tenant,
    pub request: &'c InferRequest,
    pub began: Instant,
    /// When the answer is due.
    pub due: Instant,
    /// Whether the engine was asked: what came out of the cache says nothing about a version.
    pub is_computed: AtomicBool,
}

impl Call<'_> {
    /// Has the engine run it. Dropped before it runs, it never does.
    pub async fn compute(&self) -> Result<Answer, Failure> {
        self.is_computed.store(true, Ordering::Relaxed);
        let left = self.due.saturating_duration_since(Instant::now());
        let reply = self.model.run(self.request, self.tenant.number(), left).await?;
        let outputs: Vec<(String, Tensor)> =
            reply.outputs.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
        let outputs = InferReply::select(outputs, self.request)?;
        self.model.counts.succeeded(self.model.items(self.request), &reply.trace);
        Ok(outputs.into())
    }

    /// Looks in the cache first; equal requests are computed once. An error of the computation goes to all of them; one that is this
    /// request's own (its deadline, a full queue, a caller that went away) makes one of the others compute.
    pub async fn answer(&self, cache: &Cache<Failure>, key: Digest) -> Result<Answer, Failure> {
        loop {
            match cache.begin(key) {
                Begin::Hit(answer) => return Ok(self.hit(answer)),
                Begin::Follow(waiter) => match waiter.await {
                    Ok(answer) => return Ok(self.hit(answer)),
                    Err(cache::Failure::Failed(failure)) => return Err(failure),
                    Err(cache::Failure::Panicked(why)) => return Err(Failure::Panicked(why)),
                    Err(cache::Failure::Abandoned | cache::Failure::Late) => {}
                },
                Begin::Lead(lead) => match fetch(lead).await {
                    Some(Fetched::Hit(answer)) => return Ok(self.hit(answer)),
                    Some(Fetched::Lead(lead)) => return self.lead(lead).await,
                    None => {}
                },
            }
        }
    }

    async fn lead(&self, lead: Lead<Failure>) -> Result<Answer, Failure> {
        self.model.counts.missed(self.began.elapsed());
        match self.compute().await {
            Ok(answer) => Ok(lead.publish(answer)),
            Err(failure) => {
                if failure.is_own() {
                    lead.abandon();
                } else {
                    lead.fail(failure.clone());
                }
                Err(failure)
            }
        }
    }

    fn hit(&self, answer: Answer) -> Answer {
        self.model.counts.hit(self.model.items(self.request), self.began.elapsed());
        answer
    }
}

/// What the second level says; `None` if it never does.
async fn fetch(lead: Lead<Failure>) -> Option<Fetched<Failure>> {
    let (tell, told) = oneshot::channel();
    // Where nobody waits any more, the lead comes back and is given up.
    lead.fetch(move |fetched| drop(tell.send(fetched)));
    told.await.ok()
}
