//! The engine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::desk::work;
use super::entry::{Counted, Entries};
use super::model::{Served, Serving};
use super::request::{Pending, check};
use super::runner::Runner;
use super::shared::Shared;
use super::slot::slot;
use super::statistics::Statistics;
use super::ticket::Ticket;
use crate::base::{Tensor, lock};
use crate::error::{Error, Result};
use crate::serve::schedule::{Batching, Rejection, Request};

/// What may be said of a request beside its inputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Submit {
    /// Which model: 0 is the first, then as [`Engine::add`] says.
    pub model: u32,
    /// On whose behalf: tenants share a model's batches.
    pub tenant: u32,
    /// Its class: 0 goes first.
    pub priority: u8,
    /// How soon the answer is due, from now: a request that cannot make it is rejected. `None` takes [`Batching::target_p99`].
    pub deadline: Option<Duration>,
}

/// Runs the requests of many callers in batches, on a thread of its own. Shared freely between threads. Dropping it ends the batch that runs
/// and rejects what waits; [`Engine::drain`] first answers everything.
pub struct Engine {
    shared: Arc<Shared>,
    entries: Entries,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// An engine with one model, usually a [`crate::Session`]. Errors when no thread can be started.
    pub fn new(runner: impl Runner + 'static, batching: Batching) -> Result<Engine> {
        Self::with_models(vec![Serving::new("model", runner)], batching)
    }

    /// An engine with these models, numbered from 0; they share the device by their weights.
    pub fn with_models(models: Vec<Serving>, batching: Batching) -> Result<Engine> {
        let shared = Arc::new(Shared::new(&batching));
        let worker = shared.clone();
        let run = move || {
            let ended = catch_unwind(AssertUnwindSafe(|| work(&worker)));
            let why = "the engine's own thread panicked".into();
            worker.stop(&ended.map_or(Error::Panicked { why }, |()| Rejection::Draining.into()));
        };
        let failed = |e: std::io::Error| Error::Device { device: "engine".into(), why: format!("no thread: {e}") };
        let thread = thread::Builder::new().name("halfbyte-engine".into()).spawn(run).map_err(failed)?;
        let engine = Engine { entries: Entries::new(&shared), shared, thread: Some(thread) };
        models.into_iter().try_for_each(|model| engine.add(model).map(drop))?;
        Ok(engine)
    }

    /// Serves another model from now on; its number. Errors where its [`super::Joining`] does not fit it.
    pub fn add(&self, model: Serving) -> Result<u32> {
        self.entries.add(|id| Served::new(id, model))
    }

    /// Takes no more requests for a model; what is queued still runs, and then the model goes. False when it is not there.
    pub fn remove(&self, model: u32) -> bool {
        self.entries.remove(model)
    }

    /// Queues a request for the first model: named inputs, as [`crate::Session::run`] takes them, of one row or several.
    ///
    /// Errors at once with [`Error::BadInput`] for what does not fit the model and with [`Error::Rejected`] for what cannot be run in time.
    pub fn submit(&self, inputs: &[(&str, Tensor)]) -> Result<Ticket> {
        self.submit_with(inputs, &Submit::default())
    }

    /// As [`Engine::submit`], for any model, tenant, priority and deadline.
    pub fn submit_with(&self, inputs: &[(&str, Tensor)], submit: &Submit) -> Result<Ticket> {
        let shared = self.entries.shared();
        let model = self.model(submit.model)?;
        let checked = check(&model.axes, model.id, inputs)?;
        let (sender, receiver) = slot();
        let submitted = Instant::now();
        let mut state = shared.state.lock();
        state.admits()?;
        let now = state.now(shared);
        let deadline = submit.deadline.unwrap_or(state.scheduler.options().target_p99);
        let request = Request {
            model: model.id,
            kind: state.kind(checked.kind, &model),
            tenant: submit.tenant,
            priority: submit.priority,
            deadline: now.saturating_add(deadline),
            rows: checked.rows.try_into().unwrap_or(u32::MAX),
            length: checked.length.try_into().unwrap_or(u32::MAX),
        };
        let key = state.scheduler.offer(request, now)?;
        state.keep(key, Pending::new(model, checked, submitted, submitted.checked_add(deadline), sender));
        shared.state.offered(state);
        Ok(Ticket::new(receiver, shared.clone(), key))
    }

    fn model(&self, id: u32) -> Result<Arc<Counted<Served>>> {
        let missing = |served| Error::BadInput(format!("the engine has no model {id}; it has served {served} so far"));
        self.entries.model(id).map_err(missing)
    }

    /// Changes the settings; what is queued stays queued.
    pub fn set(&self, batching: &Batching) {
        let mut state = self.shared.state.lock();
        state.scheduler.set(batching);
        self.shared.state.wake(state);
    }

    /// Shares of a model's batches: a tenant of weight 2 gets twice what one of weight 1 gets, where both ask for more.
    pub fn weigh_tenant(&self, tenant: u32, weight: f64) {
        self.shared.state.lock().scheduler.weigh_tenant(tenant, weight);
    }

    /// Takes nothing more, and waits until everything that is queued has its answer.
    pub fn drain(&self) {
        let mut state = self.shared.state.lock();
        state.scheduler.drain();
        self.shared.state.wake(state);
        let mut state = self.shared.state.lock();
        while !state.is_idle() {
            state = self.shared.state.wait_idle(state);
        }
    }

    /// What was done so far.
    pub fn statistics(&self) -> Statistics {
        let asked = Instant::now();
        let state = self.shared.state.lock();
        let (queued, running, requests) = (state.scheduler.depth(), state.running, *state.scheduler.statistics());
        drop(state);
        let models = self.entries.models().iter().map(|served| lock(&served.recorder).statistics(asked)).collect();
        Statistics { queued, running, requests, models }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.stop(&Rejection::Draining.into());
        // A caller's waker may drop the engine on the engine's own thread, which cannot wait for itself.
        let me = thread::current().id();
        let other = self.thread.take().filter(|own| own.thread().id() != me);
        // A panic of the thread was answered by itself.
        drop(other.map(JoinHandle::join));
        // A caller may run a batch still, this one too: by a waker of it.
        let mut state = self.shared.state.lock();
        while state.worker.is_some_and(|worker| worker != me) {
            state = self.shared.state.wait_idle(state);
        }
    }
}
