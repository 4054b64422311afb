//! What each thread of a cluster knows to have happened, as vector clocks: of every actor (a thread, a barrier that copies
//! complete on, a warpgroup's products) the last moment that is ordered before now.

/// Moments by actor; those beyond the end are 0.
pub type Clock = Vec<u32>;

fn join(into: &mut Clock, from: &[u32]) {
    if into.len() < from.len() {
        into.resize(from.len(), 0);
    }
    into.iter_mut().zip(from).for_each(|(a, b)| *a = (*a).max(*b));
}

/// What is passed on by a synchronisation.
#[derive(Clone, Debug, Default)]
pub struct Stamp {
    pub seen: Clock,
    /// The part that a proxy fence has made visible to asynchronous accesses.
    pub proxied: Clock,
}

impl Stamp {
    pub fn join(&mut self, other: &Stamp) {
        join(&mut self.seen, &other.seen);
        join(&mut self.proxied, &other.proxied);
    }

    /// The actor's moment is seen.
    pub fn sees(&mut self, actor: usize, moment: u32) {
        if self.seen.len() <= actor {
            self.seen.resize(actor + 1, 0);
        }
        self.seen[actor] = self.seen[actor].max(moment);
    }
}

/// The moment of an actor in a clock.
pub fn moment(clock: &[u32], actor: usize) -> u32 {
    clock.get(actor).copied().unwrap_or(0)
}

/// The clocks of a cluster's threads.
#[derive(Clone, Debug)]
pub struct Clocks {
    threads: Vec<Stamp>,
    actors: usize,
}

impl Clocks {
    pub fn new(threads: usize) -> Clocks {
        let one = |t| Stamp { seen: (0..threads).map(|u| u32::from(u == t)).collect(), proxied: Vec::new() };
        Clocks { threads: (0..threads).map(one).collect(), actors: threads }
    }

    /// Another actor.
    pub fn actor(&mut self) -> usize {
        self.actors += 1;
        self.actors - 1
    }

    pub fn stamp(&self, thread: usize) -> &Stamp {
        &self.threads[thread]
    }

    /// The thread's own moment.
    pub fn now(&self, thread: usize) -> u32 {
        self.threads[thread].seen[thread]
    }

    /// Adds to the stamp what the thread knows; what it does from here on is later.
    pub fn release(&mut self, thread: usize, into: &mut Stamp) {
        into.join(&self.threads[thread]);
        self.threads[thread].seen[thread] += 1;
    }

    pub fn acquire(&mut self, thread: usize, from: &Stamp) {
        self.threads[thread].join(from);
    }

    pub fn sees(&mut self, thread: usize, actor: usize, moment: u32) {
        self.threads[thread].sees(actor, moment);
    }

    /// All that the thread knows becomes visible to asynchronous accesses.
    pub fn fence_proxy(&mut self, thread: usize) {
        let stamp = &mut self.threads[thread];
        stamp.proxied.clone_from(&stamp.seen);
        stamp.seen[thread] += 1;
    }
}
