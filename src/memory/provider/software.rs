//! Streams in software: work waits until a test, or a waiting host, lets it happen.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use super::{StreamId, Streams};
use crate::base::lock;
use crate::base::xorshift::Xorshift;
use crate::error::Result;

enum Work {
    Run(Box<dyn FnOnce() + Send>),
    Mark(u64),
    Wait(usize, u64),
}

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    marked: u64,
    completed: u64,
}

/// Streams that advance by [`SoftwareStreams::step`] alone, or at once when they are not delayed.
pub struct SoftwareStreams {
    delayed: bool,
    state: Mutex<(Vec<Queue>, Xorshift)>,
}

impl SoftwareStreams {
    /// Work is done when it is submitted.
    pub fn immediate() -> Self {
        SoftwareStreams { delayed: false, state: Mutex::new((Vec::new(), Xorshift::new(0))) }
    }

    /// Work waits; a seed gives the order in which a waiting host lets streams advance.
    pub fn delayed(seed: u64) -> Self {
        SoftwareStreams { delayed: true, state: Mutex::new((Vec::new(), Xorshift::new(seed))) }
    }

    fn push(&self, stream: StreamId, work: impl FnOnce(&mut Queue) -> Work) -> u64 {
        let mut state = lock(&self.state);
        let queue = queue(&mut state.0, stream.0.into());
        let work = work(queue);
        queue.work.push_back(work);
        let marked = queue.marked;
        while !self.delayed && advance(&mut state) {}
        marked
    }

    /// Submits work to `stream`.
    pub fn submit(&self, stream: StreamId, work: impl FnOnce() + Send + 'static) {
        self.push(stream, |_| Work::Run(Box::new(work)));
    }

    /// Lets one piece of work happen, of a stream that the seed chooses; false when none can.
    pub fn step(&self) -> bool {
        advance(&mut lock(&self.state))
    }
}

fn queue(all: &mut Vec<Queue>, stream: usize) -> &mut Queue {
    if all.len() <= stream {
        all.resize_with(stream + 1, Queue::default);
    }
    &mut all[stream]
}

fn advance((all, random): &mut (Vec<Queue>, Xorshift)) -> bool {
    let start = random.below(all.len());
    for i in (start..all.len()).chain(0..start) {
        match all[i].work.front() {
            None => continue,
            Some(&Work::Wait(other, seq)) if all[other].completed < seq => continue,
            Some(_) => {}
        }
        match all[i].work.pop_front() {
            Some(Work::Run(work)) => work(),
            Some(Work::Mark(seq)) => all[i].completed = seq,
            Some(Work::Wait(..)) | None => {}
        }
        return true;
    }
    false
}

impl Streams for SoftwareStreams {
    fn mark(&self, stream: StreamId) -> Result<u64> {
        Ok(self.push(stream, |queue| {
            queue.marked += 1;
            Work::Mark(queue.marked)
        }))
    }

    fn completed(&self, stream: StreamId) -> u64 {
        lock(&self.state).0.get(usize::from(stream.0)).map_or(0, |q| q.completed)
    }

    fn wait(&self, stream: StreamId, other: StreamId, seq: u64) -> Result<()> {
        queue(&mut lock(&self.state).0, other.0.into());
        self.push(stream, |_| Work::Wait(other.0.into(), seq));
        Ok(())
    }

    /// The bound is one of steps: 1000 for each millisecond.
    fn wait_host(&self, stream: StreamId, seq: u64, timeout: Duration) -> Result<bool> {
        let steps = timeout.as_micros();
        for _ in 0..steps {
            if self.completed(stream) >= seq || !self.step() {
                break;
            }
        }
        Ok(self.completed(stream) >= seq)
    }
}
