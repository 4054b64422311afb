//! A matrix product.

use smallvec::SmallVec;

use super::EpilogueSpec;
use crate::base::{DType, Shape};

/// Columns that GPUs compute together at least where the largest results of each row alone are wanted: fewer are sorted as they are.
pub const STRIPE: usize = 1024;

/// Where a matrix lies in one of the kernel's inputs. All steps are in elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Index of the kernel's input.
    pub input: usize,
    /// Stored element type.
    pub dtype: DType,
    /// Step from row to row.
    pub row: usize,
    /// Step from column to column.
    pub col: usize,
    /// Step of each batch axis; 0 where it is broadcast.
    pub batch: SmallVec<[usize; 4]>,
}

/// A scale or zero point: one for all, or one for each row (of A) or column (of B).
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Index of the kernel's input.
    pub input: usize,
    /// Stored element type.
    pub dtype: DType,
    /// Step from row to row or column to column; 0 when there is one for all.
    pub step: usize,
    /// Step of each batch axis.
    pub batch: SmallVec<[usize; 4]>,
}

impl Param {
    /// Whether there is one value for all rows, columns and batches; 1 or 0 where it is left out.
    pub fn is_one(param: Option<&Param>) -> bool {
        param.is_none_or(|p| p.step == 0 && p.batch.iter().all(|&s| s == 0))
    }
}

/// How a float A is turned into integers while running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dynamic {
    /// u8 with one scale and zero point for the whole tensor (`DynamicQuantizeLinear`).
    TensorU8,
    /// s8 in [-127, 127] with a scale for each row, so that a row's answer does not depend on the others.
    RowI8,
    /// u8 with a scale and a zero point for each row, as `DynamicQuantizeLinear` has them for a tensor.
    RowU8,
}

/// Integer arithmetic: `sum (a - a_zero) * (b - b_zero)` in i32, exactly; then, when scales are given, one multiplication by
/// the product of the scales.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Quant {
    /// Set when A is stored as floats.
    pub dynamic: Option<Dynamic>,
    /// Scale of A.
    pub a_scale: Option<Param>,
    /// Zero point of A.
    pub a_zero: Option<Param>,
    /// Scale of B. When B is stored as floats, it is rounded to [-127, 127] with a scale for each column instead.
    pub b_scale: Option<Param>,
    /// Zero point of B.
    pub b_zero: Option<Param>,
    /// Scale of an integer output.
    pub out_scale: Option<Param>,
    /// Zero point of an integer output.
    pub out_zero: Option<Param>,
}

/// Which matrix of a stack B is, told while running (a grouped product).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// Index of the kernel's input: for each batch the number of its matrix, or -1 where its product is zero.
    pub input: usize,
    /// Stored type of the numbers, i32 or i64.
    pub dtype: DType,
    /// Matrices of the stack, one after the other.
    pub count: usize,
}

/// A sum over labelled axes that is no batched product of two matrices.
#[derive(Debug, Clone, PartialEq)]
pub struct Contraction {
    /// Sizes of the labels: those of the output in order, then the summed ones.
    pub sizes: Vec<usize>,
    /// How many labels the output has.
    pub kept: usize,
    /// For each operand the step of each label.
    pub steps: Vec<Vec<usize>>,
}

/// `out = epilogue(alpha * A x B + beta * C)`, for each matrix of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct GemmProblem {
    /// Batch axes of the output.
    pub batch: Shape,
    /// Rows of A and of the output.
    pub m: usize,
    /// Columns of B and of the output.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// Left operand, m x k.
    pub a: Matrix,
    /// Right operand, k x n.
    pub b: Matrix,
    /// The element type that B is rounded to before the product; B's own unless its precision is lowered.
    pub b_as: DType,
    /// B is a stack of matrices, of which each batch takes one.
    pub pick: Option<Pick>,
    /// B is one constant matrix, and of every four neighbours along K two at least are zero as they are multiplied (see [`crate::base::sparse`]).
    pub two_of_four: bool,
    /// Scale of a B of i8 whose product is of floats (without `quant`): `scale * b`, rounded to f32, is what is multiplied.
    pub b_scale: Option<Param>,
    /// Addend, m x n: of integers it goes into the integer sum, of floats it is added after scaling.
    pub c: Option<Matrix>,
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of the addend.
    pub beta: f32,
    /// Integer arithmetic, when asked for.
    pub quant: Option<Quant>,
    /// Of each row so many of the largest results alone are wanted, the largest first, the first of equal ones first: f32, and their columns as
    /// i64 in a second output. Results of f32 without an epilogue only.
    pub top: Option<usize>,
    /// Columns of each of several outputs, where one product gives them all: f32 without an epilogue only. B then is as many matrices, and `b`
    /// says how they would lie side by side. Empty for one output.
    pub widths: Vec<usize>,
    /// Set for sums that are no matrix product; the matrices are meaningless then.
    pub contraction: Option<Contraction>,
    /// Element type of the product before the epilogue.
    pub out: DType,
    /// The output's shape as the graph sees it: batch, m, n, without the axes that one-dimensional operands lack.
    pub shape: Shape,
    /// Number of the operator's inputs; the epilogue's operands come after.
    pub inputs: usize,
    /// Scalar work on each result before it is stored.
    pub epilogue: Option<EpilogueSpec>,
}

impl GemmProblem {
    /// Multiplications and additions.
    pub fn flops(&self) -> f64 {
        if let Some(c) = &self.contraction {
            return c.steps.len() as f64 * c.sizes.iter().map(|&s| s as f64).product::<f64>();
        }
        2.0 * self.batch.numel() as f64 * self.m as f64 * self.n as f64 * self.k as f64
    }

    /// The inputs that B's matrices are: one, or one for each output, those after the first behind all other inputs.
    pub fn b_inputs(&self) -> impl Iterator<Item = usize> {
        let more = self.widths.len().saturating_sub(1);
        std::iter::once(self.b.input).chain(self.inputs - more..self.inputs)
    }

    /// Element type stored.
    pub fn stored(&self) -> DType {
        self.epilogue.as_ref().map_or(self.out, |e| e.out)
    }

    /// First element of `matrix` in batch `i` (row-major over the batch axes).
    pub fn offset(&self, batch_steps: &[usize], i: usize) -> usize {
        let mut rest = i;
        let mut at = 0;
        for (axis, &step) in batch_steps.iter().enumerate().rev() {
            at += rest % self.batch[axis] * step;
            rest /= self.batch[axis];
        }
        at
    }

    /// Takes the batch axes into the rows when B and all else is the same for every batch and A's rows go on evenly.
    pub fn folded(mut self) -> Self {
        let still = |steps: &[usize]| steps.iter().all(|&s| s == 0);
        let q = self.quant.clone().unwrap_or_default();
        let params = [&q.a_scale, &q.a_zero, &q.b_scale, &q.b_zero, &self.b_scale];
        let even = params.iter().all(|p| p.as_ref().is_none_or(|p| still(&p.batch)))
            && [&q.a_scale, &q.a_zero].iter().all(|p| p.as_ref().is_none_or(|p| p.step == 0));
        let c_even = self.c.as_ref().is_none_or(|c| still(&c.batch) && c.row == 0);
        let mut want = self.a.row * self.m;
        let a_even = self.batch.iter().zip(&self.a.batch).rev().all(|(&dim, &step)| {
            let ok = dim == 1 || step == want;
            want *= dim;
            ok
        });
        if self.contraction.is_none() && self.pick.is_none() && still(&self.b.batch) && even && c_even && a_even {
            self.m *= self.batch.numel();
            self.batch = Shape::scalar();
            self.a.batch.clear();
            self.b.batch.clear();
            if let Some(c) = &mut self.c {
                c.batch.clear();
            }
            if let Some(scale) = &mut self.b_scale {
                scale.batch.clear();
            }
            if let Some(q) = &mut self.quant {
                for p in [&mut q.a_scale, &mut q.a_zero, &mut q.b_scale, &mut q.b_zero].into_iter().flatten() {
                    p.batch.clear();
                }
            }
        }
        self
    }
}
