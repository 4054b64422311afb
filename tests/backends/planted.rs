//! Planted errors in the texts of CUDA kernels: each row changes one place of one kernel, and the interpreter or a result that is not
//! the CPU's must show it.

use halfbyte::Tensor;
use halfbyte::base::xorshift::Xorshift;
use halfbyte::device::gpu::Variant;
use halfbyte::graph::{Problem, Type};

use super::check::tensor;
use super::cuda::{self, Seen, text_of};
use super::device::{self, reference};
use super::ptx_interpreter::{Fault, Kind, Statistics, caught};
use halfbyte::DType;
use halfbyte::kernel;

/// A kernel's name, a text in it, what stands for it, and the kinds of error that show it: none where a wrong result does.
pub type Plant = (&'static str, &'static str, &'static str, &'static [Kind]);

/// Barriers and waits that are missing or too few.
pub const EARLY: &[Kind] = &[Kind::Race, Kind::Unfinished, Kind::Uninitialised];
/// Reads and writes of what is not the kernel's.
pub const OUTSIDE: &[Kind] = &[Kind::Bounds, Kind::Uninitialised, Kind::Race];
/// Results that nothing stores.
pub const UNSTORED: &[Kind] = &[Kind::Uninitialised];

/// A problem and the row of the kernel table that solves it.
pub struct Case {
    pub kernel: &'static str,
    pub problem: Problem,
    pub inputs: Vec<Option<Tensor>>,
    /// Inputs that are made ready ahead.
    pub constant: &'static [usize],
    pub outputs: Vec<Type>,
    /// How far a result may be off, relative to the largest one.
    pub tolerance: f64,
}

impl Case {
    /// Of exact results, without constants.
    pub fn new(kernel: &'static str, problem: Problem, inputs: Vec<Option<Tensor>>, outputs: Vec<Type>) -> Case {
        Case { kernel, problem, inputs, constant: &[], outputs, tolerance: 0.0 }
    }

    /// What the row gives with another text of one of its kernels, and what happened on the device.
    fn launch(&self, name: &'static str, text: &str, seed: u64) -> (halfbyte::Result<Vec<Tensor>>, Seen) {
        let row = kernel::all().find(|k| k.name == self.kernel).expect("a row of the kernel table");
        let device = cuda::device_with("h200", seed, name, text.into());
        let got = device::attempt(&device, row, &self.problem, &self.inputs, self.constant, &self.outputs);
        let seen = std::mem::take(&mut *device.driver().seen());
        (got, seen)
    }

    /// What the launch of one of its kernels counted.
    pub fn counts(&self, name: &'static str) -> Statistics {
        let (got, seen) = self.launch(name, text(name), 0);
        got.unwrap_or_else(|e| panic!("{name}: {e}"));
        seen.launches.into_iter().find(|l| l.0 == name).unwrap_or_else(|| panic!("{} does not run {name}", self.kernel)).1
    }

    /// Whether that is the CPU's result.
    fn run(&self, want: &[Vec<f64>], name: &'static str, text: &str, seed: u64) -> Result<bool, Fault> {
        let (got, seen) = self.launch(name, text, seed);
        if let Some(fault) = seen.fault {
            return Err(fault);
        }
        // An index that is taken for one outside of its axis is an error of the device without a fault.
        let Ok(got) = got else { return Ok(false) };
        assert!(seen.launches.iter().any(|l| l.0 == name), "{} does not run {name}: {:?}", self.kernel, self.problem);
        Ok(got.iter().zip(want).all(|(got, want)| {
            let most = want.iter().filter(|v| v.is_finite()).fold(0.0, |m: f64, v| m.max(v.abs()));
            let near = |(g, w): (&f64, &f64)| g == w || (g - w).abs() <= self.tolerance * most || (g.is_nan() && w.is_nan());
            got.to_f64().iter().zip(want).all(near)
        }))
    }

    /// The texts as they ship are right, and each row is caught.
    pub fn catches(&self, plants: &[Plant]) {
        let want: Vec<Vec<f64>> = reference(&self.problem, &self.inputs, &self.outputs).iter().map(Tensor::to_f64).collect();
        for rows in plants.chunk_by(|a, b| a.0 == b.0) {
            let name = rows[0].0;
            let text = text(name);
            let run = |text: &str, seed| self.run(&want, name, text, seed);
            assert!(run(text, 1).unwrap_or_else(|f| panic!("{name}: {f}")), "{name}: another result");
            caught(text, &run, &rows.iter().map(|&(_, from, to, kinds)| (from, to, kinds)).collect::<Vec<_>>());
        }
    }
}

/// A kernel's text, not filled yet.
fn text(name: &str) -> &'static str {
    text_of(name).unwrap_or(Variant::named(name).text)
}

/// Small integers, whose sums every type here holds; of u8, with their highest bit.
pub fn small(r: &mut Xorshift, dtype: DType, shape: &[usize]) -> Option<Tensor> {
    let low = if dtype.int_range().is_some_and(|(low, _)| low == 0) { 130.0 } else { -3.0 };
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| low + r.below(7) as f64).collect();
    Some(tensor(dtype, shape, &values))
}
