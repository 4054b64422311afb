//! The scheduler: admission, choice of what runs next, and what it learns from what ran.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::bucket::Buckets;
use super::decide::{Decision, Question, left_s};
use super::fill::Filling;
use super::lane::{Lane, Order};
use super::model::Served;
use super::options::{Batching, Policy};
use super::queue::Entry;
use super::request::{Batch, Key, Rejection, Request, Step};
use super::share::Shares;
use super::slots::{Queued, Slots};
use super::statistics::Statistics;
use crate::serve::policy::Latency;

/// Requests that a decision looks at, as a multiple of the largest batch.
const SIGHT: usize = 4;

/// Decides what one device runs next. Times are since its start, which is the caller's to choose, and never go back.
#[derive(Debug)]
pub struct Scheduler {
    options: Batching,
    slots: Slots,
    buckets: Buckets,
    /// By model and kind.
    models: Vec<Served>,
    places: HashMap<(u32, u32), u32>,
    last_place: Option<((u32, u32), u32)>,
    /// Models' use of the device.
    shares: Shares,
    tenant_weights: BTreeMap<u32, f64>,
    draining: bool,
    last_finish_ns: u64,
    statistics: Statistics,
    order: Order,
    due_s: Vec<f64>,
    tried: Vec<u32>,
}

/// Nanoseconds since the start.
pub(super) fn ns(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

impl Scheduler {
    /// A scheduler with nothing queued.
    pub fn new(options: &Batching) -> Scheduler {
        Scheduler {
            options: options.clone(),
            slots: Slots::default(),
            buckets: Buckets::new(options.max_padding),
            models: Vec::new(),
            places: HashMap::new(),
            last_place: None,
            shares: Shares::new(usize::MAX),
            tenant_weights: BTreeMap::new(),
            draining: false,
            last_finish_ns: 0,
            statistics: Statistics::default(),
            order: Order::default(),
            due_s: Vec::new(),
            tried: Vec::new(),
        }
    }

    /// Changes the settings; what is queued stays queued.
    pub fn set(&mut self, options: &Batching) {
        let ranges_change = options.max_padding != self.options.max_padding;
        self.options = options.clone();
        if ranges_change {
            self.buckets = Buckets::new(options.max_padding);
            self.models.iter_mut().for_each(|model| model.lanes.clear());
            let queued: Vec<(Key, Queued)> = self.slots.iter().map(|(key, queued)| (key, *queued)).collect();
            queued.iter().for_each(|(key, queued)| {
                self.enqueue(*key, queued);
            });
        }
    }

    /// The settings.
    pub fn options(&self) -> &Batching {
        &self.options
    }

    /// A model's share of the device: one of weight 2 gets twice the time of one of weight 1 where both have more to do than there is
    /// time. 1 for models that are not named.
    pub fn weigh_model(&mut self, model: u32, weight: f64) {
        self.shares.weigh(model, weight);
    }

    /// A tenant's share of each model's rows, as [`Scheduler::weigh_model`] for models. Tenants of a model beyond 4096 share accounts.
    pub fn weigh_tenant(&mut self, tenant: u32, weight: f64) {
        self.tenant_weights.insert(tenant, weight);
        self.models.iter_mut().for_each(|served| served.tenants.weigh(tenant, weight));
    }

    /// What has been learned of a model's latency, for its first kind of requests; `None` for one without requests so far.
    pub fn latency(&self, model: u32) -> Option<&Latency> {
        self.models.iter().find(|m| m.id.0 == model).map(|m| &m.latency)
    }

    /// Where a kind of requests lies.
    fn model_at(&mut self, id: (u32, u32)) -> u32 {
        if let Some((_, at)) = self.last_place.filter(|(last, _)| *last == id) {
            return at;
        }
        let next = self.models.len() as u32;
        let at = *self.places.entry(id).or_insert(next);
        if at == next {
            let mut served = Served::new(id, self.shares.at(id.0));
            self.tenant_weights.iter().for_each(|(&tenant, &weight)| served.tenants.weigh(tenant, weight));
            self.models.push(served);
        }
        self.last_place = Some((id, at));
        at
    }

    /// Admits a request, or says why not.
    pub fn offer(&mut self, request: Request, now: Duration) -> Result<Key, Rejection> {
        self.statistics.offered += 1;
        let now_ns = ns(now);
        let refused = self.refuses(&request);
        if let Some(why) = refused {
            return Err(self.statistics.reject(why));
        }
        let model = self.model_at((request.model, request.kind));
        if let Some(why) = self.too_late(&request, model, now_ns) {
            return Err(self.statistics.reject(why));
        }
        self.statistics.admitted += 1;
        let served = &mut self.models[model as usize];
        let tenant = served.tenants.at(request.tenant);
        let queued = Queued { request, admitted_ns: now_ns, model, tenant };
        let key = self.slots.insert(queued);
        let lane = self.enqueue(key, &queued);
        lane.arrivals.add(now_ns as f64 * 1e-9, f64::from(request.rows));
        lane.target_s += (left_s(ns(request.deadline), now_ns).clamp(1e-6, 3600.0) - lane.target_s) / 256.0;
        let served = &mut self.models[model as usize];
        served.tenants.join(tenant);
        self.shares.join(served.account);
        Ok(key)
    }

    fn refuses(&self, request: &Request) -> Option<Rejection> {
        let (limit, max) = (self.options.queue_limit, self.options.max_batch.max(1));
        match request {
            _ if self.draining => Some(Rejection::Draining),
            Request { rows: 0, .. } => Some(Rejection::Empty),
            &Request { rows, .. } if rows as usize > max => Some(Rejection::TooLarge { rows, max }),
            _ if self.slots.len() >= limit => Some(Rejection::QueueFull { limit }),
            _ => None,
        }
    }

    /// Not even alone and at once would it be in time. Where nothing waits it may try, so that what was learned can be unlearned.
    fn too_late(&self, request: &Request, model: u32, now_ns: u64) -> Option<Rejection> {
        let deadline_ns = ns(request.deadline);
        let needed_s = self.models[model as usize].latency.expected_s(request.rows, request.length);
        let left_s = left_s(deadline_ns, now_ns);
        let hopeless = left_s < 0.0 || left_s < needed_s && self.slots.len() > 0;
        hopeless.then(|| Rejection::TooLate {
            needed: Duration::from_secs_f64(needed_s),
            left: Duration::from_secs_f64(left_s.max(0.0)),
        })
    }

    fn enqueue(&mut self, key: Key, queued: &Queued) -> &mut Lane {
        let request = &queued.request;
        let bucket = self.buckets.of(request.length);
        let target_s = self.options.target_p99.as_secs_f64();
        let lane = self.models[queued.model as usize].lane(request.priority, bucket, target_s);
        lane.length = if lane.requests == 0 { request.length } else { lane.length.max(request.length) };
        lane.insert(queued.tenant, Entry { deadline_ns: ns(request.deadline), key }, request.rows);
        lane
    }

    /// Takes a request out of all queues.
    fn dequeue(&mut self, key: Key) -> Option<Queued> {
        let queued = self.slots.remove(key)?;
        let bucket = self.buckets.of(queued.request.length);
        let entry = Entry { deadline_ns: ns(queued.request.deadline), key };
        let served = &mut self.models[queued.model as usize];
        let found = served.remove(&entry, &queued, bucket);
        debug_assert!(found, "a request with a slot is in its lane");
        self.shares.leave(served.account);
        Some(queued)
    }

    /// Takes a request out of the queue; false when it is not there: run, expelled or cancelled before.
    pub fn cancel(&mut self, key: Key) -> bool {
        let found = self.dequeue(key).is_some();
        self.statistics.cancelled += u64::from(found);
        found
    }

    /// What to do now that the device is free: fills `batch`, also with what is expelled.
    pub fn next(&mut self, now: Duration, batch: &mut Batch) -> Step {
        batch.clear();
        let now_ns = ns(now);
        let mut until = None;
        self.tried.clear();
        while let Some(model) = self.turn() {
            match self.decide(model, now_ns) {
                Decision::Wait(time) => {
                    until = Some(until.map_or(time, |u: u64| u.min(time)));
                    self.tried.push(model);
                }
                Decision::Take { give_up, run } => {
                    self.take(model, give_up, run, now_ns, batch);
                    if !batch.keys.is_empty() {
                        return Step::Run;
                    }
                }
            }
        }
        until.map_or(Step::Idle, |time| Step::Wait(Duration::from_nanos(time)))
    }

    /// The model whose turn it is, and the kind: of those that have had least, the one with the earliest deadline.
    fn turn(&self) -> Option<u32> {
        if self.models.len() == 1 {
            return (self.tried.is_empty() && self.slots.len() > 0).then_some(0);
        }
        let heads = (0..).zip(&self.models).filter(|(at, m)| self.shares.queued(m.account) > 0 && !self.tried.contains(at));
        let heads = heads.filter_map(|(at, m)| Some((self.shares.round(m.account), m.anchor()?.1.deadline_ns, at)));
        heads.min().map(|(_, _, at)| at)
    }

    /// What a model of which requests wait would do, with its order left in `self.order`.
    fn decide(&mut self, model: u32, now_ns: u64) -> Decision {
        let served = &mut self.models[model as usize];
        let (lane, _) = served.anchor().expect("invariant: the model has requests");
        let max = self.options.max_batch.max(1);
        let Served { lanes, tenants, latency, .. } = served;
        self.order.fill(&lanes[lane], SIGHT * max, (max / 8).max(1), |tenant| tenants.round(tenant));
        let rested = now_ns.saturating_sub(self.last_finish_ns) as f64 * 1e-9 > lanes[lane].target_s;
        let mut question = Question {
            options: &self.options,
            slots: &self.slots,
            lane: &mut lanes[lane],
            latency,
            order: &self.order,
            due_s: &mut self.due_s,
            now_ns,
            rested,
            draining: self.draining,
        };
        question.answer()
    }

    /// Carries a decision out: expels, and fills the batch.
    fn take(&mut self, model: u32, give_up: usize, run: usize, now_ns: u64, batch: &mut Batch) {
        let max = self.options.max_batch.max(1) as u32;
        let mut filling = Filling::new(max, self.options.max_padding);
        let order = std::mem::take(&mut self.order);
        for entry in &order.fixed {
            if entry.deadline_ns < now_ns {
                self.expel(entry, now_ns, batch);
            } else {
                self.run(entry, model, &mut filling, batch);
            }
        }
        order.open[..give_up].iter().for_each(|entry| self.expel(entry, now_ns, batch));
        order.open[give_up..give_up + run].iter().for_each(|entry| self.run(entry, model, &mut filling, batch));
        let all = give_up + run == order.open.len();
        self.order = order;
        if all && !batch.keys.is_empty() && self.options.policy != Policy::None {
            self.fill_up(model, now_ns, &mut filling, batch);
        }
        if !batch.keys.is_empty() {
            self.close(model, &filling, batch);
        }
    }

    fn expel(&mut self, entry: &Entry, now_ns: u64, batch: &mut Batch) {
        let Some(queued) = self.dequeue(entry.key) else { return };
        let latency = &self.models[queued.model as usize].latency;
        let needed_s = latency.expected_s(queued.request.rows, queued.request.length);
        let left_s = left_s(entry.deadline_ns, now_ns).max(0.0);
        let why = Rejection::TooLate { needed: Duration::from_secs_f64(needed_s), left: Duration::from_secs_f64(left_s) };
        batch.expelled.push((entry.key, self.statistics.reject(why)));
    }

    /// Moves a request from the queue into the batch, if there is room.
    fn run(&mut self, entry: &Entry, model: u32, filling: &mut Filling, batch: &mut Batch) {
        let Some(request) = self.slots.find(entry.key).map(|queued| queued.request) else { return };
        if !filling.takes(request.rows, request.length) {
            return;
        }
        filling.add(request.rows, request.length, entry.deadline_ns);
        let queued = self.dequeue(entry.key).expect("invariant: it was there");
        let quantum = self.options.max_batch.max(1) as f64;
        self.models[model as usize].tenants.charge(queued.tenant, f64::from(request.rows) / quantum);
        batch.keys.push(entry.key);
    }

    /// Takes other lanes' first requests along as far as rows, padding and the deadlines of those already in allow.
    fn fill_up(&mut self, model: u32, now_ns: u64, filling: &mut Filling, batch: &mut Batch) {
        for lane in 0..self.models[model as usize].lanes.len() {
            while let Some(head) = self.models[model as usize].lanes[lane].head() {
                let Some(Request { rows, length, .. }) = self.slots.find(head.key).map(|queued| queued.request) else { break };
                let latency = &self.models[model as usize].latency;
                if head.deadline_ns < now_ns || !filling.takes(rows, length) || !filling.in_time(rows, length, now_ns, latency) {
                    break;
                }
                self.run(&head, model, filling, batch);
            }
        }
    }

    /// Completes and counts a batch.
    fn close(&mut self, model: u32, filling: &Filling, batch: &mut Batch) {
        let served = &self.models[model as usize];
        (batch.model, batch.kind) = served.id;
        (batch.rows, batch.length) = (filling.rows, filling.longest);
        let expected_s = served.latency.expected_s(batch.rows, batch.length);
        batch.expected = Duration::from_secs_f64(expected_s);
        let quantum_s = 0.25 * self.options.target_p99.as_secs_f64().max(1e-6);
        self.shares.charge(served.account, expected_s.max(1e-9) / quantum_s);
        self.statistics.ran(batch, filling.elements);
    }

    /// Says that a batch has ended, well or not, and what it took: the latency model learns from it.
    pub fn finished(&mut self, batch: &Batch, took: Duration, now: Duration) {
        self.last_finish_ns = ns(now);
        if let Some(served) = self.models.iter_mut().find(|m| m.id == (batch.model, batch.kind)) {
            served.latency.learn(batch.rows, batch.length, took.as_secs_f64());
        }
    }

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
}
