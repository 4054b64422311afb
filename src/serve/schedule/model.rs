//! A kind of a model's requests: its lanes, its tenants' shares and what is known of its latency.

use super::lane::Lane;
use super::queue::Entry;
use super::share::Shares;
use super::slots::Queued;
use crate::serve::policy::Latency;

/// Tenants that are told apart; those that come later share accounts.
const MOST_TENANTS: usize = 4096;

/// The queues of one kind of a model's requests.
#[derive(Debug)]
pub(super) struct Served {
    /// Model and kind.
    pub id: (u32, u32),
    /// Where its model's account lies.
    pub account: u32,
    /// By class, then by length.
    pub lanes: Vec<Lane>,
    pub tenants: Shares,
    pub latency: Latency,
    /// The lane that was used last.
    recent: usize,
}

impl Served {
    pub fn new(id: (u32, u32), account: u32) -> Served {
        Served { id, account, lanes: Vec::new(), tenants: Shares::new(MOST_TENANTS), latency: Latency::default(), recent: 0 }
    }

    /// The lane of a class and a range of lengths.
    pub fn lane(&mut self, class: u8, bucket: u32, target_s: f64) -> &mut Lane {
        let is = |lane: &Lane| lane.class == class && lane.bucket == bucket;
        if !self.lanes.get(self.recent).is_some_and(is) {
            self.recent = self.lanes.partition_point(|lane| (lane.class, lane.bucket) < (class, bucket));
            if !self.lanes.get(self.recent).is_some_and(is) {
                self.lanes.insert(self.recent, Lane::new(class, bucket, target_s));
            }
        }
        &mut self.lanes[self.recent]
    }

    /// Takes a request out of its lane.
    pub fn remove(&mut self, entry: &Entry, queued: &Queued, bucket: u32) -> bool {
        let request = &queued.request;
        self.tenants.leave(queued.tenant);
        self.lane(request.priority, bucket, 1.0).remove(queued.tenant, entry, request.rows)
    }

    /// The lane whose turn it is: of the first class that has requests the one with the earliest deadline.
    pub fn anchor(&self) -> Option<(usize, Entry)> {
        let heads = self.lanes.iter().enumerate().filter_map(|(i, lane)| Some((lane.class, lane.head()?, i)));
        heads.min_by_key(|(class, head, _)| (*class, head.deadline_ns)).map(|(_, head, i)| (i, head))
    }
}
