//! Requests of one model, one class and one range of lengths: those that may share a batch, a queue for each tenant.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::queue::{Entry, Queue};
use crate::serve::policy::{Arrivals, Curve};

/// A tenant's queue in a lane.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub tenant: u32,
    pub queue: Queue,
}

/// Queues of the tenants, and what is known of the lane's arrivals.
#[derive(Debug)]
pub(super) struct Lane {
    pub class: u8,
    pub bucket: u32,
    /// Those with requests.
    pub flows: Vec<Flow>,
    spare: Vec<Flow>,
    /// Flow of each tenant, by index; `u32::MAX` when it has none.
    flow_of: Vec<u32>,
    pub rows: u64,
    pub requests: usize,
    pub arrivals: Arrivals,
    /// Mean seconds from arrival to deadline.
    pub target_s: f64,
    /// The length for which batches are planned: the longest of late.
    pub length: u32,
    pub curve: Curve,
}

impl Lane {
    pub fn new(class: u8, bucket: u32, target_s: f64) -> Lane {
        Lane {
            class,
            bucket,
            flows: Vec::new(),
            spare: Vec::new(),
            flow_of: Vec::new(),
            rows: 0,
            requests: 0,
            arrivals: Arrivals::new(target_s),
            target_s,
            length: 1,
            curve: Curve::default(),
        }
    }

    pub fn insert(&mut self, tenant: u32, entry: Entry, rows: u32) {
        let index = tenant as usize;
        if self.flow_of.len() <= index {
            self.flow_of.resize(index + 1, u32::MAX);
        }
        if self.flow_of[index] == u32::MAX {
            self.flow_of[index] = self.flows.len() as u32;
            let mut flow = self.spare.pop().unwrap_or_default();
            flow.tenant = tenant;
            self.flows.push(flow);
        }
        self.flows[self.flow_of[index] as usize].queue.insert(entry);
        self.rows += u64::from(rows);
        self.requests += 1;
    }

    /// Takes a request out; false when it is not here.
    pub fn remove(&mut self, tenant: u32, entry: &Entry, rows: u32) -> bool {
        let Some(&flow) = self.flow_of.get(tenant as usize).filter(|&&flow| flow != u32::MAX) else { return false };
        let flow = flow as usize;
        if !self.flows[flow].queue.remove(entry) {
            return false;
        }
        self.rows -= u64::from(rows);
        self.requests -= 1;
        if self.flows[flow].queue.front().is_none() {
            self.retire(flow);
        }
        true
    }

    /// Puts an empty flow aside.
    fn retire(&mut self, flow: usize) {
        let empty = self.flows.swap_remove(flow);
        self.flow_of[empty.tenant as usize] = u32::MAX;
        if let Some(moved) = self.flows.get(flow) {
            self.flow_of[moved.tenant as usize] = flow as u32;
        }
        self.spare.push(empty);
    }

    /// The earliest deadline.
    pub fn head(&self) -> Option<Entry> {
        let fronts = self.flows.iter().filter_map(|flow| flow.queue.front());
        fronts.min_by_key(|entry| entry.deadline_ns)
    }
}

/// The next request of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    deadline_ns: u64,
    flow: u32,
    /// Where it lies in the flow's queue.
    place: u32,
}

/// Reused memory for the order of a lane's requests.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Requests of tenants that have had less than their share and ask for little: they run whatever else does.
    pub fixed: Vec<Entry>,
    /// The requests from which the policy chooses.
    pub open: Vec<Entry>,
    heap: BinaryHeap<Reverse<Turn>>,
}

impl Order {
    /// The first `most` requests of a lane by deadline, of the tenants whose turn it is: rounds of deficit round robin (Shreedhar and Varghese, 1995).
    /// `round` tells a tenant's. Of tenants in earlier rounds than another, those with at most `little` requests are fixed.
    pub fn fill(&mut self, lane: &Lane, most: usize, little: usize, round: impl Fn(u32) -> i64) {
        self.fixed.clear();
        self.open.clear();
        if let [flow] = &lane.flows[..] {
            self.open.extend(flow.queue.iter().take(most));
            return;
        }
        let last = lane.flows.iter().map(|f| round(f.tenant)).max().unwrap_or(0);
        let light = |f: &Flow| round(f.tenant) < last && f.queue.at(little).is_none();
        let first = lane.flows.iter().filter(|f| !light(f)).map(|f| round(f.tenant)).min().unwrap_or(last);
        self.heap.clear();
        for (index, flow) in lane.flows.iter().enumerate() {
            if light(flow) {
                self.fixed.extend(flow.queue.iter());
            } else if round(flow.tenant) == first {
                self.push(lane, index as u32, 0);
            }
        }
        self.fixed.sort_unstable_by_key(|entry| entry.deadline_ns);
        while let Some(Reverse(turn)) = self.heap.pop().filter(|_| self.open.len() < most) {
            self.open.extend(lane.flows[turn.flow as usize].queue.at(turn.place as usize));
            self.push(lane, turn.flow, turn.place + 1);
        }
    }

    fn push(&mut self, lane: &Lane, flow: u32, place: u32) {
        if let Some(Entry { deadline_ns, .. }) = lane.flows[flow as usize].queue.at(place as usize) {
            self.heap.push(Reverse(Turn { deadline_ns, flow, place }));
        }
    }
}
