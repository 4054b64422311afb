//! What a kernel is asked to compute: one plain struct for each family.

pub mod attend;
pub mod conv;
pub mod gemm;
pub mod movement;
pub mod pool;
pub mod recurrent;
pub mod reduce;
pub mod scalar;
pub mod select;
pub mod window;

use super::Type;
use crate::base::DType;
use crate::error::Result;
use crate::scalar::{Formula, Steps};

pub use attend::AttendProblem;
pub use conv::ConvProblem;
pub use gemm::GemmProblem;
pub use movement::MoveProblem;
pub use pool::PoolProblem;
pub use recurrent::RecurrentProblem;
pub use reduce::ReduceProblem;
pub use scalar::ScalarProblem;
pub use select::SelectProblem;
pub use window::Window;

/// A unit of work for one kernel launch.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum Problem {
    Scalar(ScalarProblem),
    Gemm(GemmProblem),
    Conv(ConvProblem),
    Pool(PoolProblem),
    Reduce(ReduceProblem),
    Attend(AttendProblem),
    Move(MoveProblem),
    Recurrent(RecurrentProblem),
    Select(SelectProblem),
}

/// The families, as keys of the kernel table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[allow(missing_docs)]
pub enum Family {
    Scalar,
    Gemm,
    Conv,
    Pool,
    Reduce,
    Attend,
    Move,
    Recurrent,
    Select,
}

/// Scalar work done on each element before a family's kernel stores it. Its operands are the kernel's inputs
/// after the family's own.
#[derive(Debug, Clone, PartialEq)]
pub struct EpilogueSpec {
    /// `arg(0)` is the family's result as f32, `arg(i)` is operand `i - 1`.
    pub formula: Formula,
    /// Types of the operands; each broadcasts to the output's shape.
    pub operands: Vec<Type>,
    /// Element type stored.
    pub out: DType,
}

impl EpilogueSpec {
    /// The formula compiled for its operands. Errors when it reads one that is not there.
    pub fn steps(&self) -> Result<Steps> {
        let types: Vec<DType> = std::iter::once(DType::F32).chain(self.operands.iter().map(|t| t.dtype)).collect();
        Steps::compile(&self.formula, &types, self.out)
    }
}

impl Problem {
    /// Which family solves it.
    pub fn family(&self) -> Family {
        match self {
            Problem::Scalar(_) => Family::Scalar,
            Problem::Gemm(_) => Family::Gemm,
            Problem::Conv(_) => Family::Conv,
            Problem::Pool(_) => Family::Pool,
            Problem::Reduce(_) => Family::Reduce,
            Problem::Attend(_) => Family::Attend,
            Problem::Move(_) => Family::Move,
            Problem::Recurrent(_) => Family::Recurrent,
            Problem::Select(_) => Family::Select,
        }
    }

    /// Multiplications and additions it takes, for rates and predictions.
    pub fn flops(&self) -> f64 {
        match self {
            Problem::Scalar(p) => p.flops(),
            Problem::Gemm(p) => p.flops(),
            Problem::Conv(p) => p.flops(),
            Problem::Pool(p) => p.flops(),
            Problem::Reduce(p) => p.flops(),
            Problem::Attend(p) => p.flops(),
            Problem::Move(_) | Problem::Select(_) => 0.0,
            Problem::Recurrent(p) => p.flops(),
        }
    }

    /// Gives the problem an epilogue, or hands it back when its family takes none.
    pub fn with_epilogue(&mut self, epilogue: EpilogueSpec) -> std::result::Result<(), EpilogueSpec> {
        match self {
            Problem::Gemm(p) if p.epilogue.is_none() && p.top.is_none() && p.widths.is_empty() => p.epilogue = Some(epilogue),
            Problem::Conv(p) if p.takes(&epilogue) => p.epilogue = Some(epilogue),
            _ => return Err(epilogue),
        }
        Ok(())
    }
}
