//! What a run would ask of an allocator if each of its buffers were allocated by itself instead of lying in the plan's arena: traces
//! for [`crate::memory::replay`] from real graphs.

use std::collections::{BTreeMap, HashMap};

use crate::base::tensor::size_bytes;
use crate::device::api::{CommandList, Place, Slot};
use crate::error::Result;
use crate::memory::replay::Recorder;

/// Where a buffer lies: of two commands that name the same place without a write between, both mean one buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    Arena(usize),
    Input(usize),
    Output(usize),
}

/// The last command that uses each written buffer, by the command and the place of the write.
type Ends = HashMap<(usize, At), usize>;

fn at(slot: &Slot) -> Option<At> {
    match slot.place {
        Place::Arena(offset) => Some(At::Arena(offset)),
        Place::Input(i) => Some(At::Input(i)),
        Place::Output(i) => Some(At::Output(i)),
        Place::Constant(_) => None,
    }
}

/// Appends a run of `list`: its inputs, then for each command its outputs and its scratch, each buffer freed after the last command
/// that uses it, and the run's outputs when it ends.
pub fn record(list: &CommandList, to: &mut Recorder) -> Result<()> {
    let (ends, input_ends) = last_uses(list);
    let mut freed_after: Vec<Vec<u32>> = vec![Vec::new(); list.commands.len()];
    let mut outputs = Vec::new();
    for (slot, end) in input_ends.values() {
        freed_after[*end].push(to.alloc(bytes(slot)?));
    }
    for (i, command) in list.commands.iter().enumerate() {
        for slot in command.outputs.iter().flatten() {
            let Some(&end) = at(slot).and_then(|place| ends.get(&(i, place))) else { continue };
            let buffer = to.alloc(bytes(slot)?);
            if matches!(slot.place, Place::Output(_)) { outputs.push(buffer) } else { freed_after[end].push(buffer) }
        }
        if command.scratch.1 > 0 {
            let scratch = to.alloc(command.scratch.1 as u64);
            to.free(scratch);
        }
        to.free_all(freed_after[i].drain(..));
    }
    to.free_all(outputs);
    Ok(())
}

fn bytes(slot: &Slot) -> Result<u64> {
    Ok(size_bytes(slot.ty.dtype, &slot.ty.shape)? as u64)
}

/// The last uses of what is written, and of each input with one of its slots. A command that writes where it reads goes on with the buffer.
fn last_uses(list: &CommandList) -> (Ends, BTreeMap<usize, (&Slot, usize)>) {
    let (mut ends, mut input_ends) = (HashMap::new(), BTreeMap::new());
    let mut reads: HashMap<At, usize> = HashMap::new();
    for (i, command) in list.commands.iter().enumerate().rev() {
        let read: Vec<(At, &Slot)> = command.inputs.iter().flatten().filter_map(|s| Some((at(s)?, s))).collect();
        let in_place = |place: &At| read.iter().any(|r| r.0 == *place);
        for place in command.outputs.iter().flatten().filter_map(at).filter(|p| !in_place(p)) {
            ends.insert((i, place), reads.remove(&place).unwrap_or(i));
        }
        for (place, slot) in read {
            let end = *reads.entry(place).or_insert(i);
            if let At::Input(input) = place {
                input_ends.insert(input, (slot, end));
            }
        }
    }
    (ends, input_ends)
}
