//! A command list with modules loaded, constants on the device, and every address known but the arena's.

use std::cell::RefCell;
use std::sync::Arc;

use super::call::Call;
use super::check::check;
use super::device::{Constant, GpuDevice, failed};
use super::driver::{Driver, ResolvedMap, Value};
use super::kernels::find;
use super::launch::{Arg, Element, Launch, Module, Pointer};
use super::memory::Held;
use super::replay::Replays;
use crate::base::tensor::size_bytes;
use crate::base::{Tensor, TensorView, TensorViewMut};
use crate::device::api::{Bindings, Command, CommandList, Device, Place, Region, Slot};
use crate::device::cpu::CpuDevice;
use crate::error::Result;
use crate::graph::Type;
use crate::hardware::DeviceKind;

/// Bytes between inputs and outputs in the arena, which nothing writes.
const GAP: usize = 256;

/// An address: of its own, or in the arena.
#[derive(Debug, Clone, Copy)]
pub(super) enum Address {
    Arena(u64),
    Fixed(u64),
}

impl Address {
    fn resolve(self, arena: u64) -> u64 {
        match self {
            Address::Arena(at) => arena + at,
            Address::Fixed(at) => at,
        }
    }

    fn plus(self, bytes: u64) -> Address {
        match self {
            Address::Arena(at) => Address::Arena(at + bytes),
            Address::Fixed(at) => Address::Fixed(at + bytes),
        }
    }
}

/// An argument with its addresses.
pub(super) enum Bound {
    /// Bytes, and addresses to put at some of them.
    Bytes(Vec<u8>, Vec<(usize, u64)>),
    Map {
        base: Address,
        element: Element,
        dims: Vec<u64>,
        strides: Vec<u64>,
        extents: Vec<u32>,
        swizzle_bytes: u32,
    },
}

impl Bound {
    pub fn resolve(&self, arena: u64) -> Value {
        match self {
            Bound::Bytes(bytes, addresses) => {
                let mut bytes = bytes.clone();
                for &(at, offset) in addresses {
                    bytes[at..at + 8].copy_from_slice(&(arena + offset).to_le_bytes());
                }
                Value::Bytes(bytes)
            }
            Bound::Map { base, element, dims, strides, extents, swizzle_bytes } => Value::Map(ResolvedMap {
                address: base.resolve(arena),
                element: *element,
                dims: dims.clone(),
                strides: strides.clone(),
                extents: extents.clone(),
                swizzle_bytes: *swizzle_bytes,
            }),
        }
    }

    /// Appends an argument that is no tensor map.
    fn push(
        bytes: &mut Vec<u8>,
        addresses: &mut Vec<(usize, u64)>,
        arg: &Arg,
        bind: &dyn Fn(Pointer) -> Result<Address>,
    ) -> Result<()> {
        match arg {
            Arg::U32(v) => bytes.extend(v.to_le_bytes()),
            Arg::F32(v) => bytes.extend(v.to_le_bytes()),
            Arg::U64(v) => bytes.extend(v.to_le_bytes()),
            Arg::Pointer(p) => match bind(*p)? {
                Address::Fixed(at) => bytes.extend(at.to_le_bytes()),
                Address::Arena(at) => {
                    addresses.push((bytes.len(), at));
                    bytes.extend(0u64.to_le_bytes());
                }
            },
            Arg::Table(_) => return Err(failed("a table that was not placed")),
            Arg::Block(parts) => parts.iter().try_for_each(|p| Bound::push(bytes, addresses, p, bind))?,
            Arg::Map(_) => return Err(failed("a tensor map inside of another argument")),
        }
        Ok(())
    }

    fn new(arg: &Arg, bind: &dyn Fn(Pointer) -> Result<Address>) -> Result<Bound> {
        if let Arg::Map(m) = arg {
            let (dims, strides, extents) = (m.dims.clone(), m.strides.clone(), m.extents.clone());
            return Ok(Bound::Map {
                base: bind(m.base)?,
                element: m.element,
                dims,
                strides,
                extents,
                swizzle_bytes: m.swizzle_bytes,
            });
        }
        let (mut bytes, mut addresses) = (Vec::new(), Vec::new());
        Bound::push(&mut bytes, &mut addresses, arg, bind)?;
        Ok(Bound::Bytes(bytes, addresses))
    }
}

/// One thing to do.
pub(super) enum Step<F> {
    Launch { function: F, module: Module, grid: [u32; 3], args: Vec<Bound> },
    Host(Box<HostCommand>),
}

/// A command that the CPU runs on copies.
pub(super) struct HostCommand {
    list: Arc<CommandList>,
    inputs: Vec<(Address, Type)>,
    outputs: Vec<(Address, Type)>,
}

impl HostCommand {
    /// Inputs that are not constant become the inputs of a list of one command.
    fn new(command: &Command, layout: &Layout) -> Result<HostCommand> {
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        let mut own = command.clone();
        for slot in own.inputs.iter_mut().flatten().filter(|s| !matches!(s.place, Place::Constant(_))) {
            inputs.push((layout.address(&slot.place)?, slot.ty.clone()));
            slot.place = Place::Input(inputs.len() - 1);
        }
        for slot in own.outputs.iter_mut().flatten() {
            outputs.push((layout.address(&slot.place)?, slot.ty.clone()));
            slot.place = Place::Output(outputs.len() - 1);
        }
        own.scratch.0 = 0;
        let arena_bytes = own.scratch.1;
        Ok(HostCommand { list: Arc::new(CommandList { commands: vec![own], arena_bytes }), inputs, outputs })
    }

    pub fn run<D: Driver>(&self, driver: &D, host: &CpuDevice, arena: u64) -> Result<()> {
        let zeros = |(_, t): &(Address, Type)| Tensor::zeros(t.dtype, t.shape.clone());
        let mut inputs = self.inputs.iter().map(zeros).collect::<Result<Vec<_>>>()?;
        for (tensor, (at, _)) in inputs.iter_mut().zip(&self.inputs) {
            driver.read(at.resolve(arena), tensor.view_mut().bytes)?;
        }
        let mut outputs = self.outputs.iter().map(zeros).collect::<Result<Vec<_>>>()?;
        {
            let views: Vec<TensorView> = inputs.iter().map(Tensor::view).collect();
            let mut written: Vec<TensorViewMut> = outputs.iter_mut().map(Tensor::view_mut).collect();
            let mut scratch: Region = host.reserve(self.list.arena_bytes)?;
            let recorded = host.record(self.list.clone())?;
            let bindings = Bindings { arena: &mut scratch, inputs: &views, outputs: &mut written, profile: false };
            host.wait(host.submit(&recorded, bindings)?)?;
        }
        outputs.iter().zip(&self.outputs).try_for_each(|(t, (at, _))| driver.write(at.resolve(arena), t.bytes()))
    }
}

/// Where inputs and outputs of a run are kept: in the arena, after the commands' own part.
#[derive(Default)]
struct Layout {
    inputs: Vec<(usize, usize)>,
    outputs: Vec<(usize, usize)>,
    /// Of the commands' statuses, 4 bytes each.
    statuses: usize,
    bytes: usize,
}

impl Layout {
    fn new(list: &CommandList) -> Result<Layout> {
        let statuses = list.arena_bytes.next_multiple_of(GAP);
        let bytes = statuses + list.commands.len() * 4 + GAP;
        let mut layout = Layout { statuses, bytes, ..Layout::default() };
        for slot in list.commands.iter().flat_map(|c| c.inputs.iter().chain(&c.outputs).flatten()) {
            let bytes = size_bytes(slot.ty.dtype, &slot.ty.shape)?;
            let (places, i) = match slot.place {
                Place::Input(i) => (&mut layout.inputs, i),
                Place::Output(i) => (&mut layout.outputs, i),
                _ => continue,
            };
            places.resize(places.len().max(i + 1), (0, 0));
            places[i].1 = places[i].1.max(bytes);
        }
        for place in layout.inputs.iter_mut().chain(&mut layout.outputs) {
            place.0 = layout.bytes.next_multiple_of(GAP);
            layout.bytes = place.0 + place.1 + GAP;
        }
        Ok(layout)
    }

    /// Where the status of command `i` is in the arena.
    fn status(&self, i: usize) -> u64 {
        (self.statuses + i * 4) as u64
    }

    fn address(&self, place: &Place) -> Result<Address> {
        let at = match place {
            Place::Arena(at) => *at,
            Place::Input(i) => self.inputs[*i].0,
            Place::Output(i) => self.outputs[*i].0,
            Place::Constant(_) => return Err(failed("a constant has no place in the arena")),
        };
        Ok(Address::Arena(at as u64))
    }
}

/// A command list in the device's form.
pub(super) struct Recording<D: Driver> {
    /// Tables on the device.
    tables: Vec<Held<D>>,
    /// Constants on the device that its launches read.
    constants: Vec<Arc<Constant<D>>>,
    /// Commands that may say that something was wrong with their input, and their kernels.
    checked: Vec<(usize, &'static str)>,
    /// The steps of each command.
    pub commands: Vec<Vec<Step<D::Function>>>,
    /// Size of the arena with the inputs and outputs of a run.
    pub arena_bytes: usize,
    layout: Layout,
    /// How it has run so far.
    pub replays: Replays,
}

impl<D: Driver> Recording<D> {
    pub fn new(device: &GpuDevice<D>, list: &CommandList) -> Result<Recording<D>> {
        let layout = Layout::new(list)?;
        let mut recording = Recording {
            tables: vec![],
            constants: vec![],
            checked: vec![],
            commands: vec![],
            arena_bytes: layout.bytes,
            layout,
            replays: Replays::default(),
        };
        for (i, command) in list.commands.iter().enumerate() {
            let steps = steps(device, command, i, &mut recording)?;
            recording.commands.push(steps);
        }
        Ok(recording)
    }

    /// Copies the run's inputs to their places. Errors when one is missing or not of the planned size.
    pub fn upload(&self, driver: &D, arena: u64, inputs: &[TensorView]) -> Result<()> {
        for (i, &(at, bytes)) in self.layout.inputs.iter().enumerate().filter(|(_, p)| p.1 > 0) {
            let given = inputs.get(i).filter(|v| v.bytes.len() >= bytes);
            let given = given.ok_or_else(|| failed(format!("input {i} is missing or smaller than planned")))?;
            driver.write(arena + at as u64, &given.bytes[..bytes])?;
        }
        for (i, _) in &self.checked {
            driver.write(arena + self.layout.status(*i), &[0; 4])?;
        }
        Ok(())
    }

    /// Errors when a command has met input for which there is no result.
    pub fn check(&self, driver: &D, arena: u64) -> Result<()> {
        for (i, kernel) in &self.checked {
            let mut status = [0; 4];
            driver.read(arena + self.layout.status(*i), &mut status)?;
            if status != [0; 4] {
                return Err(failed(format!("command {i} ({kernel}): an index is outside its axis")));
            }
        }
        Ok(())
    }

    /// Whether a run ends with a copy to the host, and so with a wait for all of it.
    pub fn is_awaited(&self) -> bool {
        self.layout.outputs.iter().any(|o| o.1 > 0)
    }

    /// Copies the run's outputs from their places.
    pub fn download(&self, driver: &D, arena: u64, outputs: &mut [TensorViewMut]) -> Result<()> {
        for (i, &(at, bytes)) in self.layout.outputs.iter().enumerate().filter(|(_, p)| p.1 > 0) {
            let wanted = outputs.get_mut(i).filter(|v| v.bytes.len() >= bytes);
            let wanted = wanted.ok_or_else(|| failed(format!("output {i} is missing or smaller than planned")))?;
            driver.read(arena + at as u64, &mut wanted.bytes[..bytes])?;
        }
        Ok(())
    }
}

/// The steps of command `i`; what they need besides goes into the recording.
fn steps<D: Driver>(
    device: &GpuDevice<D>,
    command: &Command,
    i: usize,
    recording: &mut Recording<D>,
) -> Result<Vec<Step<D::Function>>> {
    let layout = &recording.layout;
    if command.kernel.device == DeviceKind::Cpu {
        return Ok(vec![Step::Host(Box::new(HostCommand::new(command, layout)?))]);
    }
    let dropped = command.prepared.as_ref().map_or(&[][..], |p| &p.dropped);
    let ty = |(i, s): (usize, &Option<Slot>)| s.as_ref().filter(|_| !dropped.contains(&i)).map(|s| s.ty.clone());
    let inputs: Vec<Option<Type>> = command.inputs.iter().enumerate().map(ty).collect();
    let outputs: Vec<Option<Type>> = command.outputs.iter().map(|s| s.as_ref().map(|s| s.ty.clone())).collect();
    let packed = command.prepared.as_ref().and_then(|p| p.packed.as_ref());
    let call = Call { problem: &command.problem, info: device.info(), packed, inputs: &inputs, outputs: &outputs };
    let mut launches = (find(command.kernel.name)?.launches)(&call)?;
    if device.info().kind == DeviceKind::Wgpu {
        launches.iter_mut().for_each(|l| l.module.constants = constants(&l.args, command));
    }
    for arg in launches.iter_mut().flat_map(|l| &mut l.args) {
        place_tables(device, arg, &mut recording.tables)?;
    }
    let checked = launches.iter().flat_map(|l| &l.args).any(|a| matches!(a, Arg::Pointer(Pointer::Status)));
    recording.checked.extend(checked.then_some((i, command.kernel.name)));
    let read = RefCell::new(Vec::new());
    let constant = |tensor: &Tensor| -> Result<Address> {
        let constant = device.constant(tensor)?;
        let at = constant.address();
        read.borrow_mut().push(constant);
        Ok(Address::Fixed(at))
    };
    let bind = |p: Pointer| match p {
        Pointer::Status => Ok(Address::Arena(layout.status(i))),
        p => bind(&constant, command, layout, p),
    };
    let step = |launch: Launch| {
        check(&launch, command, device.info())?;
        let args = launch.args.iter().map(|a| Bound::new(a, &bind)).collect::<Result<_>>()?;
        Ok(Step::Launch { function: device.function(&launch.module)?, module: launch.module, grid: launch.grid, args })
    };
    let steps = launches.into_iter().map(step).collect();
    recording.constants.append(&mut read.into_inner());
    steps
}

/// A bit for each pointer, set where it is to a constant.
fn constants(args: &[Arg], command: &Command) -> u64 {
    fn pointers(arg: &Arg, command: &Command, found: &mut Vec<bool>) {
        match arg {
            Arg::Pointer(Pointer::Input(i, _)) => {
                let slot = command.inputs.get(*i).and_then(Option::as_ref);
                found.push(slot.is_some_and(|s| matches!(s.place, Place::Constant(_))));
            }
            Arg::Pointer(p) => found.push(matches!(p, Pointer::Packed(..))),
            Arg::Table(_) => found.push(true),
            Arg::Block(parts) => parts.iter().for_each(|a| pointers(a, command, found)),
            Arg::U32(_) | Arg::F32(_) | Arg::U64(_) | Arg::Map(_) => {}
        }
    }
    let mut found = Vec::new();
    args.iter().for_each(|a| pointers(a, command, &mut found));
    (0..found.len().min(64)).filter(|&i| found[i]).map(|i| 1 << i).sum()
}

/// Puts a table's address in its place.
fn place_tables<D: Driver>(device: &GpuDevice<D>, arg: &mut Arg, tables: &mut Vec<Held<D>>) -> Result<()> {
    match arg {
        Arg::Block(parts) => parts.iter_mut().try_for_each(|a| place_tables(device, a, tables)),
        Arg::Table(table) => {
            let held = device.written(table)?;
            *arg = Arg::U64(held.address());
            tables.push(held);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn bind(constant: &dyn Fn(&Tensor) -> Result<Address>, command: &Command, layout: &Layout, pointer: Pointer) -> Result<Address> {
    let slot = |slots: &[Option<Slot>], i: usize| match slots.get(i).and_then(Option::as_ref).map(|s| &s.place) {
        Some(Place::Constant(t)) => constant(t),
        Some(place) => layout.address(place),
        None => Err(failed(format!("operand {i} of {} is missing", command.kernel.name))),
    };
    Ok(match pointer {
        Pointer::Input(i, at) => slot(&command.inputs, i)?.plus(at),
        Pointer::Output(i, at) => slot(&command.outputs, i)?.plus(at),
        Pointer::Scratch(at) => Address::Arena(command.scratch.0 as u64 + at),
        Pointer::Null | Pointer::Status => Address::Fixed(0),
        Pointer::Packed(i, at) => {
            let prepared: Option<&Arc<_>> = command.prepared.as_ref();
            let part = prepared.and_then(|p| p.packed.as_ref()?.parts.get(i));
            let part = part.ok_or_else(|| failed(format!("part {i} of {} was not prepared", command.kernel.name)))?;
            constant(part)?.plus(at)
        }
    })
}
