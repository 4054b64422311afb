//! Checks a launch when it is recorded: its arguments inside their operands and of the entry's types, and all of it within what
//! the device can launch.

use super::device::failed;
use super::launch::{Arg, Launch, Pointer, TensorMap};
use super::variant::Variant;
use super::wgsl::{Interface, Shader};
use crate::base::tensor::size_bytes;
use crate::device::api::{Command, Slot};
use crate::error::Result;
use crate::hardware::{DeviceInfo, DeviceKind};

/// Blocks along x at most, plus one. Source: CUDA C++ Programming Guide, technical specifications by compute capability.
const GRID_X: u32 = 1 << 31;
/// Blocks along y and z at most, plus one.
const GRID_YZ: u32 = 1 << 16;
/// Threads of a block at most.
const THREADS: u32 = 1024;

/// Errors with the first thing that is wrong.
pub(super) fn check(launch: &Launch, command: &Command, info: &DeviceInfo) -> Result<()> {
    let variant = launch.module.variant;
    let wrong = |why: String| failed(format!("launch of {} by {}: {why}", variant.name, command.kernel.name));
    limits(launch, info).map_err(wrong)?;
    let declared = match info.kind {
        DeviceKind::Wgpu => {
            let shader = Shader::named(variant.name).ok_or_else(|| wrong("there is no WGSL text of it".into()))?;
            Interface::read(shader.text, launch.module.finish.as_deref())?.bytes()
        }
        _ => parameters(variant),
    };
    let given: Vec<u64> = launch.args.iter().map(bytes).collect();
    if declared != given {
        return Err(wrong(format!("arguments of {given:?} bytes for parameters of {declared:?}")));
    }
    launch.args.iter().try_for_each(|a| argument(a, command).map_err(wrong))
}

fn limits(launch: &Launch, info: &DeviceInfo) -> Result<(), String> {
    let (variant, [x, y, z]) = (launch.module.variant, launch.grid);
    if x == 0 || y == 0 || z == 0 || x >= GRID_X || y >= GRID_YZ || z >= GRID_YZ {
        return Err(format!("a grid of {x} x {y} x {z} blocks"));
    }
    if variant.threads == 0 || variant.threads > THREADS {
        return Err(format!("{} threads", variant.threads));
    }
    if info.kind == DeviceKind::Wgpu {
        // Shared memory stands in the shader's text, and the table asks for what it needs.
        return Ok(());
    }
    if variant.shared_bytes as usize > info.shared_bytes {
        return Err(format!("{} bytes of shared memory, the device has {}", variant.shared_bytes, info.shared_bytes));
    }
    match variant.needs() {
        Some(needs) if info.capabilities.contains(needs) => Ok(()),
        _ => Err(format!("text for {}, the device runs {}", variant.target, info.capabilities)),
    }
}

/// Bytes of the entry's parameters, in order. Source: PTX ISA, kernel function parameters.
fn parameters(variant: &Variant) -> Vec<u64> {
    let entry = format!(".entry {}(", variant.name);
    let list = variant.text.split_once(&entry).and_then(|(_, rest)| rest.split_once(')')).map_or("", |(list, _)| list);
    let size = |param: &str| {
        let count = param.split_once('[').and_then(|(_, n)| n.trim_end().trim_end_matches(']').trim().parse().ok()).unwrap_or(1);
        let bits = |word: &str| word.trim_start_matches(['.', 'b', 'u', 's', 'f']).parse().unwrap_or(0u64);
        let ty = param.split_whitespace().find(|w| [".b", ".u", ".s", ".f"].iter().any(|p| w.starts_with(p)));
        ty.map_or(0, bits) / 8 * count
    };
    list.split(',').map(str::trim).filter(|p| !p.is_empty()).map(size).collect()
}

fn bytes(arg: &Arg) -> u64 {
    match arg {
        Arg::U32(_) | Arg::F32(_) => 4,
        Arg::U64(_) | Arg::Pointer(_) | Arg::Table(_) => 8,
        Arg::Map(_) => 128,
        Arg::Block(parts) => parts.iter().map(bytes).sum(),
    }
}

fn argument(arg: &Arg, command: &Command) -> Result<(), String> {
    match arg {
        Arg::U32(_) | Arg::F32(_) | Arg::U64(_) | Arg::Table(_) => Ok(()),
        Arg::Pointer(p) => rest(*p, command).map(drop),
        Arg::Map(m) => map(m, rest(m.base, command)?),
        Arg::Block(parts) => parts.iter().try_for_each(|a| argument(a, command)),
    }
}

/// Bytes from the pointer to its operand's end.
fn rest(pointer: Pointer, command: &Command) -> Result<u64, String> {
    let slot = |slots: &[Option<Slot>], i: usize| {
        let ty = slots.get(i).and_then(Option::as_ref).map(|s| &s.ty).ok_or(format!("operand {i} is missing"))?;
        size_bytes(ty.dtype, &ty.shape).map_err(|e| e.to_string())
    };
    let (size, at) = match pointer {
        Pointer::Null | Pointer::Status => return Ok(0),
        Pointer::Input(i, at) => (slot(&command.inputs, i)?, at),
        Pointer::Output(i, at) => (slot(&command.outputs, i)?, at),
        Pointer::Scratch(at) => (command.scratch.1, at),
        Pointer::Packed(i, at) => {
            let part = command.prepared.as_ref().and_then(|p| p.packed.as_ref()?.parts.get(i));
            (part.ok_or(format!("part {i} was not prepared"))?.bytes().len(), at)
        }
    };
    (size as u64).checked_sub(at).ok_or(format!("{pointer:?} is beyond its {size} bytes"))
}

/// What cuTensorMapEncodeTiled asks for, and that the tensor ends before its operand does.
fn map(m: &TensorMap, rest: u64) -> Result<(), String> {
    let rank = m.dims.len();
    if !(1..=5).contains(&rank) || m.strides.len() != rank - 1 || m.extents.len() != rank {
        return Err(format!("a tensor map of {rank} dimensions, {} strides, {} extents", m.strides.len(), m.extents.len()));
    }
    let row = u64::from(m.extents[0]) * m.element.bytes() as u64;
    let span_fits = m.swizzle_bytes == 0 || (row <= m.swizzle_bytes.into() && [32, 64, 128].contains(&m.swizzle_bytes));
    let sizes = m.dims.iter().all(|d| (1..=1 << 32).contains(d)) && m.extents.iter().all(|e| (1..=256).contains(e));
    let base = match m.base {
        Pointer::Input(_, at) | Pointer::Output(_, at) | Pointer::Packed(_, at) | Pointer::Scratch(at) => at,
        Pointer::Null | Pointer::Status => return Err("a tensor map of no operand".into()),
    };
    let aligned = [row, base].iter().chain(&m.strides).all(|n| n.is_multiple_of(16)) && m.strides.iter().all(|s| *s < 1 << 40);
    if !span_fits || !sizes || !aligned {
        return Err(format!("no tensor map can be {m:?}"));
    }
    let steps: u64 = m.dims[1..].iter().zip(&m.strides).map(|(d, s)| (d - 1) * s).sum();
    let end = steps + m.dims[0] * m.element.bytes() as u64;
    if end > rest { Err(format!("{m:?} spans {end} bytes of {rest}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{DType, Tensor};
    use crate::device::api::{Place, Prepared};
    use crate::device::cpu::Packed;
    use crate::device::gpu::{Element, variants};
    use crate::graph::Type;
    use crate::graph::problem::ScalarProblem;
    use crate::hardware::nvidia;
    use crate::scalar::arg;
    use std::sync::Arc;

    /// A command with one input of 6 floats, one output of 6, 64 bytes of scratch and a packed part of 8 bytes.
    fn command() -> Command {
        let ty = Type::new(DType::F32, [6]);
        let problem = ScalarProblem { formula: arg(0), operands: vec![ty.clone()], out: ty.clone() };
        let slot = |place| Some(crate::device::api::Slot { place, ty: ty.clone() });
        let packed = Packed { parts: vec![Tensor::vector(&[1f32, 2.0])] };
        Command {
            kernel: crate::kernel::all().find(|k| k.name == "cuda-any-scalar").unwrap(),
            problem: Arc::new(crate::graph::Problem::Scalar(problem)),
            prepared: Some(Arc::new(Prepared { packed: Some(packed), ..Prepared::default() })),
            inputs: vec![slot(Place::Input(0))],
            outputs: vec![slot(Place::Output(0))],
            scratch: (0, 64),
            cost_us: 0.0,
        }
    }

    #[test]
    fn pointers_stay_inside_their_operands() {
        let c = command();
        let pointer = |p| argument(&Arg::Block(vec![Arg::U32(0), Arg::Pointer(p)]), &c);
        for inside in [Pointer::Input(0, 24), Pointer::Output(0, 0), Pointer::Scratch(64), Pointer::Packed(0, 8), Pointer::Null] {
            assert_eq!(pointer(inside), Ok(()));
        }
        for outside in
            [Pointer::Input(0, 25), Pointer::Input(1, 0), Pointer::Scratch(65), Pointer::Packed(0, 9), Pointer::Packed(1, 0)]
        {
            assert!(pointer(outside).is_err(), "{outside:?}");
        }
    }

    #[test]
    fn tensor_maps_obey_the_driver_and_end_with_their_operand() {
        let good = TensorMap {
            base: Pointer::Input(0, 0),
            element: Element::F16,
            dims: vec![8, 4],
            strides: vec![16],
            extents: vec![8, 4],
            swizzle_bytes: 32,
        };
        assert_eq!(map(&good, 64), Ok(()));
        assert!(map(&good, 63).is_err(), "the last row ends beyond the operand");
        let bad = [
            TensorMap { strides: vec![24], ..good.clone() },
            TensorMap { extents: vec![8, 257], ..good.clone() },
            TensorMap { extents: vec![24, 4], ..good.clone() },
            TensorMap { dims: vec![8, 0], ..good.clone() },
            TensorMap { dims: vec![8], ..good.clone() },
            TensorMap { base: Pointer::Input(0, 8), ..good.clone() },
            TensorMap { swizzle_bytes: 48, ..good.clone() },
        ];
        for m in bad {
            assert!(map(&m, 1 << 20).is_err(), "{m:?}");
        }
    }

    #[test]
    fn grids_and_tiers_have_their_limits() {
        let (old, h200) = (nvidia::model("gtx-1060").unwrap(), nvidia::model("h200").unwrap());
        let scalar = Variant::named("scalar");
        let launch = |grid| limits(&Launch::new(scalar, grid, vec![]), &old);
        assert_eq!(launch([GRID_X - 1, GRID_YZ - 1, 1]), Ok(()));
        for grid in [[0, 1, 1], [GRID_X, 1, 1], [1, GRID_YZ, 1], [1, 1, GRID_YZ]] {
            assert!(launch(grid).is_err(), "{grid:?}");
        }
        for variant in variants() {
            let launch = Launch::new(variant, [1; 3], vec![]);
            let fits = variant.target == "sm_61" && variant.shared_bytes <= 48 << 10;
            assert_eq!(limits(&launch, &old).is_ok(), fits, "{}", variant.name);
            assert_eq!(limits(&launch, &h200), Ok(()), "{}", variant.name);
        }
    }

    #[test]
    fn an_entrys_parameters_are_read_off_its_text() {
        assert_eq!(parameters(Variant::named("scalar")), [4, 336]);
        let mut launch = Launch::new(Variant::named("scalar"), [1; 3], vec![Arg::U64(0)]);
        let h200 = nvidia::model("h200").unwrap();
        let error = check(&launch, &command(), &h200).unwrap_err().to_string();
        assert!(error.contains("[8] bytes for parameters of [4, 336]"), "{error}");
        launch.args = vec![Arg::U32(6), Arg::Block(vec![Arg::U64(0); 42])];
        assert!(check(&launch, &command(), &h200).is_ok());
    }
}
