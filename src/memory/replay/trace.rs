//! A trace: allocations and frees in the order in which they were asked for, on one stream.

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Asks for so many bytes, more than 0, for a buffer that has not been seen yet.
    Alloc {
        /// The buffer.
        buffer: u32,
        /// As asked for: not rounded.
        bytes: u64,
    },
    /// Gives a live buffer back.
    Free {
        /// The buffer.
        buffer: u32,
    },
}

/// Requests in order. Buffers are numbered from 0 by their allocations; each is allocated once and freed at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// For people.
    pub name: String,
    events: Vec<Event>,
    buffers: usize,
}

impl Trace {
    /// The requests.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// How many buffers are allocated.
    pub fn buffers(&self) -> usize {
        self.buffers
    }

    /// The most bytes that live at once, as asked for, and the request (its index) that reaches them first.
    pub fn live_peak(&self) -> (u64, usize) {
        let mut sizes = vec![0; self.buffers];
        let (mut live, mut peak) = (0u64, (0, 0));
        for (at, event) in self.events.iter().enumerate() {
            match *event {
                Event::Alloc { buffer, bytes } => {
                    sizes[buffer as usize] = bytes;
                    live += bytes;
                }
                Event::Free { buffer } => live -= sizes[buffer as usize],
            }
            if live > peak.0 {
                peak = (live, at);
            }
        }
        peak
    }
}

/// Writes a trace down, request by request.
#[derive(Debug, Default)]
pub struct Recorder {
    events: Vec<Event>,
    buffers: u32,
}

impl Recorder {
    /// Allocates a buffer and gives its number. Empty ones are given one byte, as allocators do.
    pub fn alloc(&mut self, bytes: u64) -> u32 {
        let buffer = self.buffers;
        self.buffers += 1;
        self.events.push(Event::Alloc { buffer, bytes: bytes.max(1) });
        buffer
    }

    /// Frees a live buffer.
    pub fn free(&mut self, buffer: u32) {
        self.events.push(Event::Free { buffer });
    }

    /// Frees several, in order.
    pub fn free_all(&mut self, buffers: impl IntoIterator<Item = u32>) {
        buffers.into_iter().for_each(|b| self.free(b));
    }

    /// The trace so far.
    pub fn finish(self, name: impl Into<String>) -> Trace {
        Trace { name: name.into(), events: self.events, buffers: self.buffers as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_where_most_bytes_live() {
        let mut recorder = Recorder::default();
        let a = recorder.alloc(100);
        let b = recorder.alloc(50);
        recorder.free(a);
        let c = recorder.alloc(120);
        recorder.free_all([b, c]);
        let trace = recorder.finish("t");
        assert_eq!((trace.live_peak(), trace.buffers(), trace.events().len()), ((170, 3), 3, 6));
    }
}
