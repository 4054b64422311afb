//! What an engine runs.

use std::sync::Arc;

use crate::base::TensorView;
use crate::error::Result;
use crate::graph::Graph;
use crate::hardware::DeviceKind;
use crate::session::{Outputs, Session};

/// Runs a model on inputs. An engine calls it from one thread at a time, not always the same; a panic is taken for an error of the inputs.
pub trait Runner: Send + Sync {
    /// Declares the inputs and outputs: what requests are checked against and how they are joined.
    fn graph(&self) -> &Graph;

    /// Runs the model on named inputs.
    fn run(&self, inputs: &[(&str, TensorView)]) -> Result<Outputs>;

    /// Numbers of rows to fill batches up to ([`super::Joining::row_steps`]) where the caller says nothing: none by default.
    fn row_steps(&self) -> Vec<usize> {
        Vec::new()
    }
}

/// Powers of two and halfway between: at most a third of a batch is filled up.
const STEPS: [usize; 16] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256];

impl Runner for Session {
    fn graph(&self) -> &Graph {
        self.model().graph()
    }

    fn run(&self, inputs: &[(&str, TensorView)]) -> Result<Outputs> {
        Session::run(self, inputs)
    }

    /// On GPUs steps: a few more rows of a tile cost little there, and a new shape is recorded anew. On the CPU none: a plan for MiniLM takes
    /// 2 ms of one core, once, and each row its full time.
    fn row_steps(&self) -> Vec<usize> {
        if self.report().device == DeviceKind::Cpu { Vec::new() } else { STEPS.to_vec() }
    }
}

impl<R: Runner + ?Sized> Runner for Arc<R> {
    fn graph(&self) -> &Graph {
        (**self).graph()
    }

    fn run(&self, inputs: &[(&str, TensorView)]) -> Result<Outputs> {
        (**self).run(inputs)
    }

    fn row_steps(&self) -> Vec<usize> {
        (**self).row_steps()
    }
}
