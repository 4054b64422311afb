//! A naive model of what work does to physical memory: who wrote each byte last.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// Ranges of physical memory by (handle, offset), with the end and the block whose work touched them last. Blocks are numbered
/// by their allocations.
type Ranges = BTreeMap<(u64, u64), (u64, u64)>;

/// Ranges, and what went wrong.
#[derive(Default)]
pub struct Shadow {
    state: Mutex<(Ranges, Vec<String>)>,
}

impl Shadow {
    /// Work of block `number` touches these pieces now: (handle, offset, bytes) each; `None` where any byte has none behind it.
    pub fn touch(&self, pieces: Option<Vec<(u64, u64, u64)>>, number: u64) {
        let (ranges, faults) = &mut *self.state.lock().unwrap();
        let Some(pieces) = pieces else {
            faults.push(format!("work of block {number} touches memory that is not mapped"));
            return;
        };
        for (handle, offset, length) in pieces {
            let end = offset + length;
            let first = ranges.range(..=(handle, offset)).next_back().filter(|(k, v)| k.0 == handle && v.0 > offset);
            let from = first.map_or((handle, offset), |(k, _)| *k);
            let met: Vec<_> = ranges.range(from..(handle, end)).map(|(k, v)| (*k, *v)).collect();
            for (key, (stop, other)) in met {
                if other > number {
                    faults.push(format!("work of block {number} after that of block {other}, which has its memory"));
                }
                ranges.remove(&key);
                if key.1 < offset {
                    ranges.insert(key, (offset, other));
                }
                if stop > end {
                    ranges.insert((handle, end), (stop, other));
                }
            }
            ranges.insert((handle, offset), (end, number));
        }
    }

    /// Notes something else that is wrong.
    pub fn fault(&self, what: String) {
        self.state.lock().unwrap().1.push(what);
    }

    /// The first thing that went wrong.
    pub fn first_fault(&self) -> Option<String> {
        self.state.lock().unwrap().1.first().cloned()
    }
}
