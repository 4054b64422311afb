//! Memory of runs, kept from one to the next and shared by all plans of a graph.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::base::lock;
use crate::device::Device;
use crate::device::api::Region;
use crate::error::Result;

/// For how long nobody must have wanted an arena, or its size, until it is given back.
const IDLE: Duration = Duration::from_secs(10);

/// Arenas: as many as there were runs at the same time lately, none larger than a run needed lately. A device that replays launches
/// finds the same addresses again; one that does not shares all memory by its pool.
pub(super) struct Arenas {
    device: Arc<dyn Device>,
    state: Mutex<State>,
}

struct State {
    idle: Vec<Region>,
    since: Instant,
    /// The most bytes that a run needed since then.
    most_bytes: usize,
    /// Arenas that were idle all the time since then.
    spare: usize,
}

impl Arenas {
    /// None yet.
    pub fn new(device: Arc<dyn Device>) -> Self {
        let state = State { idle: Vec::new(), since: Instant::now(), most_bytes: 0, spare: 0 };
        Arenas { device, state: Mutex::new(state) }
    }

    /// At least `bytes`: the smallest idle arena that will do, else a new one in the place of the largest. No lock is held while memory is
    /// taken: a relief may want idle ones. Errors as the device does.
    pub fn take(&self, bytes: usize) -> Result<Region> {
        self.fitting(bytes).map_or_else(|| self.device.reserve(bytes), Ok)
    }

    fn fitting(&self, bytes: usize) -> Option<Region> {
        let mut state = lock(&self.state);
        state.most_bytes = state.most_bytes.max(bytes);
        let at = state.idle.partition_point(|region| region.bytes() < bytes);
        let found = (at < state.idle.len()).then(|| state.idle.remove(at));
        let too_small = if found.is_none() { state.idle.pop() } else { None };
        state.spare = state.spare.min(state.idle.len());
        drop(state);
        too_small.into_iter().for_each(|region| self.device.release(region));
        found
    }

    /// Keeps an arena for a later run where the device does better so, and gives back what was not wanted lately.
    pub fn put(&self, arena: Region) {
        if !self.device.keeps_arenas() {
            return self.device.release(arena);
        }
        let mut state = lock(&self.state);
        let at = state.idle.partition_point(|region| region.bytes() < arena.bytes());
        state.idle.insert(at, arena);
        let unwanted = if state.since.elapsed() < IDLE { Vec::new() } else { state.next_period() };
        drop(state);
        unwanted.into_iter().for_each(|region| self.device.release(region));
    }

    /// Gives all idle arenas back; whether there were any.
    pub fn give_back(&self) -> bool {
        let idle = std::mem::take(&mut lock(&self.state).idle);
        let any = !idle.is_empty();
        idle.into_iter().for_each(|region| self.device.release(region));
        any
    }
}

impl State {
    /// What nobody wanted in the period that ends here: arenas larger than any run's, and of the others as many of the smallest as were idle
    /// throughout.
    fn next_period(&mut self) -> Vec<Region> {
        let fit = self.idle.partition_point(|region| region.bytes() <= self.most_bytes);
        let mut unwanted = self.idle.split_off(fit);
        let spare = self.spare.saturating_sub(unwanted.len());
        unwanted.extend(self.idle.drain(..spare));
        (self.since, self.most_bytes, self.spare) = (Instant::now(), 0, self.idle.len());
        unwanted
    }
}

impl Drop for Arenas {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::null::NullDevice;
    use crate::hardware::{DeviceInfo, cpu};

    const UNIT: usize = 1 << 20;

    fn arenas(units: u64) -> (Arc<NullDevice>, Arenas) {
        let device = Arc::new(NullDevice::new(DeviceInfo { memory_bytes: units << 20, ..cpu::info(1) }).unwrap());
        (device.clone(), Arenas::new(device))
    }

    fn idle(arenas: &Arenas) -> Vec<usize> {
        lock(&arenas.state).idle.iter().map(|region| region.bytes() / UNIT).collect()
    }

    /// As if the period were over.
    fn age(arenas: &Arenas) {
        lock(&arenas.state).since -= IDLE;
    }

    #[test]
    fn there_are_as_many_as_runs_at_the_same_time_and_the_smallest_that_will_do_is_taken() {
        let (device, arenas) = arenas(0);
        let both = [10, 4].map(|units| arenas.take(units * UNIT).unwrap());
        both.into_iter().for_each(|arena| arenas.put(arena));
        for (wanted, left) in [(3, [10]), (4, [10]), (5, [4]), (11, [4])] {
            let arena = arenas.take(wanted * UNIT).unwrap();
            assert_eq!(idle(&arenas), left, "{wanted}");
            arenas.put(arena);
        }
        assert_eq!(idle(&arenas), [4, 11], "11 in the place of 10");
        drop(arenas);
        assert_eq!(device.reserved_bytes(), 0);
    }

    #[test]
    fn what_nobody_wanted_for_a_while_goes_back() {
        let (_, arenas) = arenas(0);
        let put = |all: &[usize]| {
            let all: Vec<_> = all.iter().map(|units| arenas.take(units * UNIT).unwrap()).collect();
            all.into_iter().for_each(|arena| arenas.put(arena));
            idle(&arenas)
        };
        assert_eq!(put(&[8, 2, 2]), [2, 2, 8]);
        age(&arenas);
        assert_eq!(put(&[2]), [2, 2, 8], "wanted in the period that ends");
        age(&arenas);
        assert_eq!(put(&[2]), [2], "neither the size of 8 nor a second one");
    }
}
