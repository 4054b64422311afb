//! One problem, run by one kernel by itself: what measuring and tests need.

use std::sync::Arc;

use super::work::{Facts, Work};
use crate::base::xorshift::Xorshift;
use crate::base::{Tensor, TensorView, TensorViewMut};
use crate::device::Device;
use crate::device::api::{Bindings, Command, CommandList, Place, Slot};
use crate::error::Result;
use crate::graph::{Problem, Type};
use crate::kernel::KernelDef;

/// Launches of a measurement at least.
const ROUNDS: usize = 5;

/// A problem with its operands: constants as they are, others random.
#[derive(Debug, Clone)]
pub struct Trial {
    /// What to compute.
    pub problem: Arc<Problem>,
    /// Operands; the bool says whether it is a constant.
    inputs: Vec<Option<(Tensor, bool)>>,
    outputs: Vec<Option<Type>>,
}

/// What a kernel gave.
pub struct Answer {
    /// Its outputs.
    pub outputs: Vec<Tensor>,
    /// Microseconds of a launch: the median of some.
    pub median_us: f64,
}

impl Trial {
    /// Of a problem with aligned operands, each with whether it is a constant, and the types of its outputs.
    pub fn new(problem: Problem, inputs: Vec<Option<(Tensor, bool)>>, outputs: Vec<Option<Type>>) -> Trial {
        Trial { problem: Arc::new(problem), inputs, outputs }
    }

    /// Of planned work. Errors when there is no memory for its operands.
    pub fn of_work(work: &Work, facts: &Facts) -> Result<Trial> {
        let mut random = Xorshift::new(11);
        let mut input = |f: &Option<_>| -> Result<Option<(Tensor, bool)>> {
            let Some(f) = *f else { return Ok(None) };
            let fact = &facts[f];
            Ok(Some(match &fact.value {
                Some(constant) => (constant.aligned(), true),
                None => (random.fill(fact.ty.dtype, fact.ty.shape.clone())?, false),
            }))
        };
        let inputs = work.inputs.iter().map(&mut input).collect::<Result<_>>()?;
        let outputs = work.outputs.iter().map(|f| f.map(|f| facts[f].ty.clone())).collect();
        Ok(Trial::new(work.problem.clone(), inputs, outputs))
    }

    /// Runs a kernel of the device once: its outputs. Errors as its preparation, recording and launch do.
    pub fn once(&self, device: &dyn Device, kernel: &'static KernelDef) -> Result<Vec<Tensor>> {
        self.rounds(device, kernel, 1, false).map(|(outputs, _)| outputs)
    }

    /// Runs it a few times.
    pub fn run(&self, device: &dyn Device, kernel: &'static KernelDef) -> Result<Answer> {
        let (outputs, mut times) = self.rounds(device, kernel, 1 + ROUNDS, true)?;
        // The first one loads and warms.
        times.remove(0);
        times.sort_by(f64::total_cmp);
        Ok(Answer { outputs, median_us: times[ROUNDS / 2] })
    }

    /// Outputs of the last round, and microseconds of each where they are measured.
    fn rounds(
        &self,
        device: &dyn Device,
        kernel: &'static KernelDef,
        count: usize,
        profile: bool,
    ) -> Result<(Vec<Tensor>, Vec<f64>)> {
        let constants: Vec<Option<Tensor>> =
            self.inputs.iter().map(|i| i.as_ref().filter(|i| i.1).map(|i| i.0.clone())).collect();
        let prepared = device.prepare(kernel, &self.problem, &constants)?;
        let scratch = device.scratch_bytes(kernel, &self.problem)?;
        let input = |(i, operand): (usize, &Option<(Tensor, bool)>)| {
            let (tensor, is_constant) = operand.as_ref().filter(|_| !prepared.dropped.contains(&i))?;
            let place = if *is_constant { Place::Constant(tensor.clone()) } else { Place::Input(i) };
            Some(Slot { place, ty: Type::new(tensor.dtype(), tensor.shape().clone()) })
        };
        let output = |(i, ty): (usize, &Option<Type>)| Some(Slot { place: Place::Output(i), ty: ty.clone()? });
        let command = Command {
            kernel,
            problem: self.problem.clone(),
            inputs: self.inputs.iter().enumerate().map(input).collect(),
            outputs: self.outputs.iter().enumerate().map(output).collect(),
            prepared: Some(Arc::new(prepared)),
            scratch: (0, scratch),
            cost_us: 0.0,
        };
        let recorded = device.record(Arc::new(CommandList { commands: vec![command], arena_bytes: scratch }))?;
        let empty = Tensor::zeros(crate::base::DType::U8, [0])?;
        let views: Vec<TensorView> = self.inputs.iter().map(|i| i.as_ref().map_or(&empty, |i| &i.0).view()).collect();
        let zeros = |t: &Option<Type>| t.as_ref().map_or(Ok(empty.clone()), |t| Tensor::zeros(t.dtype, t.shape.clone()));
        let mut outputs = self.outputs.iter().map(zeros).collect::<Result<Vec<_>>>()?;
        let mut arena = device.reserve(recorded.arena_bytes)?;
        let mut round = || -> Result<f64> {
            let mut written: Vec<TensorViewMut> = outputs.iter_mut().map(Tensor::view_mut).collect();
            let bindings = Bindings { arena: &mut arena, inputs: &views, outputs: &mut written, profile };
            let timings = device.wait(device.submit(&recorded, bindings)?)?;
            Ok(timings.iter().map(|t| t.duration_us).sum())
        };
        let times: Result<Vec<f64>> = (0..count).map(|_| round()).collect();
        device.release(arena);
        device.forget(&recorded);
        times.map(|times| (outputs, times))
    }
}
