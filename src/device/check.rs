//! Checks a command list before a device may run it: what makes the devices' unchecked memory accesses sound.

use std::ops::Range;

use super::api::{Command, CommandList, Place, Slot};
use crate::base::tensor::size_bytes;
use crate::error::{Error, Result};

/// Every slot inside its arena and aligned, constants of their slot's size, and no output or scratch of a command overlapping
/// anything else that it touches, but an input where [`Command::in_place`] says so.
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
    let over = c.in_place();
    let apart = c.inputs.iter().enumerate().filter(|(i, _)| Some(*i) != over).filter_map(|(_, s)| s.as_ref());
    let reads = apart.map(arena_range).collect::<Result<Vec<_>, _>>()?;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::DType;
    use crate::graph::problem::ScalarProblem;
    use crate::graph::{Problem, Type};
    use crate::kernel;
    use crate::scalar::arg;

    /// A sum of operands of these types and places, written to byte 64 as 16 elements of f32.
    fn sum(kernel: &str, operands: &[(Type, usize)]) -> Result<()> {
        let out = Type::new(DType::F32, [16]);
        let slot = |ty: &Type, at| Some(Slot { place: Place::Arena(at), ty: ty.clone() });
        let types = operands.iter().map(|o| o.0.clone()).collect();
        let problem = ScalarProblem { formula: arg(0) + arg(1), operands: types, out: out.clone() };
        let command = Command {
            kernel: kernel::all().find(|k| k.name == kernel).unwrap(),
            problem: Arc::new(Problem::Scalar(problem)),
            prepared: None,
            inputs: operands.iter().map(|(ty, at)| slot(ty, *at)).collect(),
            outputs: vec![slot(&out, 64)],
            scratch: (0, 0),
            cost_us: 0.0,
        };
        check(&CommandList { commands: vec![command], arena_bytes: 256 })
    }

    #[test]
    fn only_one_operand_of_the_outputs_kind_may_be_written_over() {
        let ty = |dtype, n: usize| Type::new(dtype, [n]);
        let scalar = |a: (Type, usize), b: (Type, usize)| sum("cpu-any-scalar", &[a, b]);
        let f32s = || ty(DType::F32, 16);
        assert!(scalar((f32s(), 0), (f32s(), 128)).is_ok());
        assert!(scalar((f32s(), 64), (f32s(), 128)).is_ok());
        assert!(scalar((f32s(), 128), (ty(DType::I32, 16), 64)).is_ok());
        assert!(scalar((f32s(), 64), (f32s(), 64)).is_err(), "both operands");
        assert!(scalar((ty(DType::F32, 1), 64), (f32s(), 128)).is_err(), "a broadcast operand");
        assert!(scalar((ty(DType::F16, 16), 64), (f32s(), 128)).is_err(), "smaller elements");
        assert!(sum("cpu-any-reduce", &[(f32s(), 64), (f32s(), 128)]).is_err(), "another kernel");
    }
}
