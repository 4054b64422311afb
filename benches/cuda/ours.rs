//! This project's kernels as contestants: each one that takes the product, launched as a session launches it.

use std::sync::Arc;

use halfbyte::base::xorshift::Xorshift;
use halfbyte::base::{Shape, Tensor};
use halfbyte::cli::problems;
use halfbyte::device::api::{Bindings, Command, CommandList, Device, Place, Recorded, Region, Slot};
use halfbyte::device::cuda::Nvidia;
use halfbyte::device::gpu::{Driver, GpuDevice};
use halfbyte::graph::{Problem, Type};
use halfbyte::kernel::{KernelDef, candidates};
use halfbyte::{DType, Result};

/// One kernel at one product, with as many sets of operands as it takes to be past the caches.
pub struct Ours<'a> {
    device: &'a GpuDevice<Nvidia>,
    pub kernel: &'static KernelDef,
    recorded: Recorded,
    arena: Option<Region>,
    copies: usize,
}

/// Types of a product's operands and of its result.
pub type Types = (DType, DType, DType);

/// Every kernel of the device that takes the product.
pub fn kernels(device: &GpuDevice<Nvidia>, problem: &Problem) -> Vec<&'static KernelDef> {
    let all = candidates(device.info(), problem, None);
    all.into_iter().filter(|c| c.verdict.is_ok()).map(|c| c.kernel).collect()
}

/// The same with those for weights of which two in every four are zero, each with the problem that it is to solve.
pub fn contestants(device: &GpuDevice<Nvidia>, problem: &Problem) -> Vec<(&'static KernelDef, Problem)> {
    let (dense, sparse) = (kernels(device, problem), problems::two_of_four(problem.clone()));
    let only = kernels(device, &sparse).into_iter().filter(|k| dense.iter().all(|d| d.name != k.name));
    let only: Vec<_> = only.map(|k| (k, sparse.clone())).collect();
    dense.into_iter().map(|k| (k, problem.clone())).chain(only).collect()
}

fn is_sparse(problem: &Problem) -> bool {
    matches!(problem, Problem::Gemm(p) if p.two_of_four)
}

pub fn problem((a, b, _): Types, shape: [usize; 3]) -> Result<Problem> {
    problems::gemm((a, b), shape)
}

impl<'a> Ours<'a> {
    /// Random operands, weights made ready ahead.
    pub fn new(
        device: &'a GpuDevice<Nvidia>,
        kernel: &'static KernelDef,
        problem: &Problem,
        (a, b, out): Types,
        [m, n, k]: [usize; 3],
        copies: usize,
    ) -> Result<Ours<'a>> {
        let mut random = Xorshift::new(7);
        let activations = random.fill(a, Shape::from([m, k]))?;
        let scratch = device.scratch_bytes(kernel, problem)?;
        let (types, mut at) = ([Type::new(a, [m, k]), Type::new(b, [k, n]), Type::new(out, [m, n])], 0);
        let mut place = |bytes: usize| {
            let here = at;
            at += bytes.next_multiple_of(256);
            here
        };
        let (mut commands, mut inputs) = (Vec::new(), Vec::new());
        for _ in 0..copies {
            let weights = random.fill(b, Shape::from([k, n]))?;
            let weights = if is_sparse(problem) { problems::thinned(&weights)? } else { weights };
            let prepared = device.prepare(kernel, problem, &[None, Some(weights.clone())])?;
            let input = place(activations.bytes().len());
            inputs.push(input);
            let [ty_a, ty_b, ty_out] = types.clone();
            let output = place(ty_out.shape.numel() * out.size_bytes());
            commands.push(Command {
                kernel,
                problem: Arc::new(problem.clone()),
                inputs: vec![
                    Some(Slot { place: Place::Arena(input), ty: ty_a }),
                    Some(Slot { place: Place::Constant(weights), ty: ty_b }).filter(|_| !prepared.dropped.contains(&1)),
                ],
                outputs: vec![Some(Slot { place: Place::Arena(output), ty: ty_out })],
                scratch: (place(scratch), scratch),
                prepared: Some(Arc::new(prepared)),
                cost_us: 0.0,
            });
        }
        let recorded = device.record(Arc::new(CommandList { commands, arena_bytes: at }))?;
        let mut arena = device.reserve(recorded.arena_bytes)?;
        inputs.iter().try_for_each(|&i| device.upload(&mut arena, i, activations.bytes()))?;
        Ok(Ours { device, kernel, recorded, arena: Some(arena), copies })
    }

    /// Microseconds of one product: all copies in turn, as one graph from the second time on.
    pub fn time_us(&mut self) -> Result<f64> {
        let Some(arena) = &mut self.arena else { return Ok(f64::NAN) };
        let driver = self.device.driver();
        let began = driver.event()?;
        let bindings = Bindings { arena, inputs: &[], outputs: &mut [], profile: false };
        self.device.wait(self.device.submit(&self.recorded, bindings)?)?;
        let ended = driver.event()?;
        Ok(driver.elapsed_us(&began, &ended)? / self.copies as f64)
    }
}

impl Drop for Ours<'_> {
    fn drop(&mut self) {
        self.arena.take().into_iter().for_each(|a| self.device.release(a));
        self.device.forget(&self.recorded);
    }
}

/// Random bytes of operands for a peer.
pub fn operand(dtype: DType, rows: usize, columns: usize) -> Result<Tensor> {
    Xorshift::new(9).fill(dtype, Shape::from([rows, columns]))
}
