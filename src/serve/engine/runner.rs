//! What an engine runs.

use std::sync::Arc;

use crate::base::TensorView;
use crate::error::Result;
use crate::graph::Graph;
use crate::session::{Outputs, Session};

/// Runs a model on inputs. An engine calls it from one thread at a time; a panic is taken for an error of the inputs.
pub trait Runner: Send + Sync {
    /// Declares the inputs and outputs: what requests are checked against and how they are joined.
    fn graph(&self) -> &Graph;

    /// Runs the model on named inputs.
    fn run(&self, inputs: &[(&str, TensorView)]) -> Result<Outputs>;
}

impl Runner for Session {
    fn graph(&self) -> &Graph {
        self.model().graph()
    }

    fn run(&self, inputs: &[(&str, TensorView)]) -> Result<Outputs> {
        Session::run(self, inputs)
    }
}

impl<R: Runner + ?Sized> Runner for Arc<R> {
    fn graph(&self) -> &Graph {
        (**self).graph()
    }

    fn run(&self, inputs: &[(&str, TensorView)]) -> Result<Outputs> {
        (**self).run(inputs)
    }
}
