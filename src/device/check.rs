//! Checks a command list before a device may run it: what makes the devices' unchecked memory accesses sound.

use std::ops::Range;

use super::api::{Command, CommandList, Place, Slot};
use crate::base::tensor::size_bytes;
use crate::error::{Error, Result};

/// Every slot inside its arena and aligned, constants of their slot's size, and no output or scratch of a command overlapping
/// anything else that it touches.
pub fn check(list: &CommandList) -> Result<()> {
    list.commands.iter().try_for_each(|c| {
        command(c, list.arena_bytes)
            .map_err(|why| Error::Device { device: "planner".into(), why: format!("{}: {why}", c.kernel.name) })
    })
}

fn command(c: &Command, arena_bytes: usize) -> Result<(), String> {
    let read: Vec<&Slot> = c.inputs.iter().flatten().collect();
    let written: Vec<&Slot> = c.outputs.iter().flatten().collect();
    let mut writes: Vec<Range<usize>> = Vec::new();
    if c.scratch.1 > 0 {
        writes.push(c.scratch.0..c.scratch.0 + c.scratch.1);
    }
    for slot in &written {
        if matches!(slot.place, Place::Constant(_) | Place::Input(_)) {
            return Err("writes a constant or an input".into());
        }
        writes.extend(arena_range(slot)?);
    }
    let reads = read.iter().map(|s| arena_range(s)).collect::<Result<Vec<_>, _>>()?;
    let reads: Vec<Range<usize>> = reads.into_iter().flatten().collect();
    for (i, w) in writes.iter().enumerate() {
        if w.end > arena_bytes || w.start % 64 != 0 {
            return Err(format!("bytes {w:?} are outside the arena of {arena_bytes} or misaligned"));
        }
        let others = writes[..i].iter().chain(&reads);
        if let Some(o) = others.clone().find(|o| o.start < w.end && w.start < o.end) {
            return Err(format!("bytes {w:?} are written while {o:?} are in use"));
        }
    }
    if let Some(r) = reads.iter().find(|r| r.end > arena_bytes || r.start % 64 != 0) {
        return Err(format!("bytes {r:?} are outside the arena of {arena_bytes} or misaligned"));
    }
    let output = |s: &&&Slot| matches!(s.place, Place::Output(_));
    let outputs_of = |s: &Slot| if let Place::Output(i) = s.place { i } else { usize::MAX };
    for (i, w) in written.iter().enumerate().filter(|(_, s)| output(s)) {
        let clash = written[..i].iter().chain(&read).filter(output).any(|o| outputs_of(o) == outputs_of(w));
        if clash {
            return Err("an output is read or written twice by one command".into());
        }
    }
    read.iter().try_for_each(|s| constant_size(s))
}

fn arena_range(slot: &Slot) -> Result<Option<Range<usize>>, String> {
    let bytes = size_bytes(slot.ty.dtype, &slot.ty.shape).map_err(|e| e.to_string())?;
    Ok(match slot.place {
        Place::Arena(at) if bytes > 0 => Some(at..at.checked_add(bytes).ok_or("overflow")?),
        _ => None,
    })
}

fn constant_size(slot: &Slot) -> Result<(), String> {
    let bytes = size_bytes(slot.ty.dtype, &slot.ty.shape).map_err(|e| e.to_string())?;
    match &slot.place {
        Place::Constant(t) if t.bytes().len() != bytes => Err("a constant's size is not its slot's".into()),
        _ => Ok(()),
    }
}
