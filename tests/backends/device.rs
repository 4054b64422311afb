//! The machine's devices, and one kernel of one device run on one problem.

use halfbyte::base::Tensor;
use halfbyte::device::api::Device;
use halfbyte::device::cpu::CpuDevice;
use halfbyte::graph::{Problem, Type};
use halfbyte::hardware::{Capabilities, DeviceKind};
use halfbyte::kernel::{self, KernelDef};
use halfbyte::plan::Trial;

/// Every device that runs kernels here, made once for each thread. Another backend joins by a row. The interpreted GPU has
/// every instruction set that kernels ask for.
pub fn all() -> &'static [Box<dyn Device>] {
    thread_local! {
        static ALL: &'static [Box<dyn Device>] = Box::leak([
            Box::new(CpuDevice::new(Some(2)).unwrap()) as Box<dyn Device>,
            #[cfg(feature = "cuda")]
            Box::new(super::cuda::device("h200", seed())),
        ].into_iter().chain(gpu()).chain(adapter()).filter(|d| is_wanted(&**d)).collect::<Vec<_>>().into_boxed_slice());
    }
    ALL.with(|all| *all)
}

/// How many of them lack nothing that a kernel asks for: these run every problem.
pub fn complete() -> usize {
    let asked = Capabilities::SHADER_INT64 | Capabilities::SHADER_F64 | Capabilities::BUFFERS_20;
    all().iter().map(|d| d.info()).filter(|i| i.kind != DeviceKind::Wgpu || i.capabilities.contains(asked)).count()
}

/// `HALFBYTE_DEVICE` restricts the tests to one kind while a kernel is being written.
pub fn is_wanted(device: &dyn Device) -> bool {
    let kind = format!("{:?}", device.info().kind).to_lowercase();
    std::env::var("HALFBYTE_DEVICE").map_or(true, |wanted| wanted == kind)
}

/// This machine's GPU, if it has a usable one.
#[cfg(feature = "cuda")]
pub fn gpu() -> Option<Box<dyn Device>> {
    use halfbyte::device::cuda::Nvidia;
    use halfbyte::device::gpu::GpuDevice;
    let info = halfbyte::hardware::cuda::devices().ok()?.first()?.info();
    let driver = Nvidia::open(0).expect("the driver opens the device that it names");
    Some(Box::new(GpuDevice::new(info, driver).unwrap()))
}

#[cfg(not(feature = "cuda"))]
pub fn gpu() -> Option<Box<dyn Device>> {
    None
}

/// This machine's first adapter of Vulkan, Metal or DX12.
#[cfg(feature = "wgpu")]
pub fn adapter() -> Option<Box<dyn Device>> {
    let (_, device) = super::shaders::open(super::shaders::text_of)?;
    Some(Box::new(device))
}

#[cfg(not(feature = "wgpu"))]
pub fn adapter() -> Option<Box<dyn Device>> {
    None
}

/// The order in which interpreted warps run: `HALFBYTE_SEED`, or 1.
#[cfg(feature = "cuda")]
fn seed() -> u64 {
    std::env::var("HALFBYTE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1)
}

/// The device's kernels that take the problem, chosen by name: also those that the chooser would not pick.
pub fn kernels(device: &dyn Device, problem: &Problem) -> Vec<&'static KernelDef> {
    let here = device.info();
    kernel::all()
        .filter(|k| k.family == problem.family() && k.device == here.kind && here.capabilities.contains(k.needs))
        .filter(|k| (k.accepts)(problem).is_ok())
        .collect()
}

/// One launch. Inputs whose number is in `constant` are made ready ahead.
pub fn launch(
    device: &dyn Device,
    kernel: &'static KernelDef,
    problem: &Problem,
    inputs: &[Option<Tensor>],
    constant: &[usize],
    outputs: &[Type],
) -> Vec<Tensor> {
    attempt(device, kernel, problem, inputs, constant, outputs).unwrap_or_else(|e| panic!("{}: {e} for {problem:?}", kernel.name))
}

/// The same, or why there is no result.
pub fn attempt(
    device: &dyn Device,
    kernel: &'static KernelDef,
    problem: &Problem,
    inputs: &[Option<Tensor>],
    constant: &[usize],
    outputs: &[Type],
) -> halfbyte::Result<Vec<Tensor>> {
    let operand = |(i, t): (usize, &Option<Tensor>)| Some((t.as_ref()?.aligned(), constant.contains(&i)));
    let inputs = inputs.iter().enumerate().map(operand).collect();
    Trial::new(problem.clone(), inputs, outputs.iter().cloned().map(Some).collect()).once(device, kernel)
}

/// The plain reference's outputs: exact up to f64's own rounding when the problem's types are f64.
pub fn reference(problem: &Problem, inputs: &[Option<Tensor>], outputs: &[Type]) -> Vec<Tensor> {
    let cpu = CpuDevice::new(Some(1)).unwrap();
    let plain = kernels(&cpu, problem).into_iter().find(|k| k.name.starts_with("cpu-any")).expect("each family has one");
    launch(&cpu, plain, problem, inputs, &[], outputs)
}
