//! All that follows a product, as one formula of the kernel's value for its slot: alpha, beta and C, requantisation, and the
//! problem's epilogue.

use std::sync::Arc;

use super::super::call::Call;
use super::super::finish::Finish;
use super::super::launch::{Launch, Pointer};
use crate::base::{DType, Shape};
use crate::error::Result;
use crate::graph::Type;
use crate::graph::problem::gemm::{GemmProblem, Matrix};
use crate::scalar::{Formula, Unary, arg, constant};

/// A formula with what it is applied to.
#[derive(Debug, Clone)]
pub struct Epilogue {
    finish: Arc<Finish>,
    out: Pointer,
    operands: Vec<Pointer>,
}

impl Epilogue {
    /// What follows the product when the kernel's value is f32 (of quantised products: the scaled sum), or `value` in general. A
    /// value of another type is only converted, unless it is to be multiplied or added to.
    pub fn new(call: &Call, p: &GemmProblem, value: DType) -> Result<Epilogue> {
        let (shape, column) = output_shape(p);
        let (formula, types, operands) = Self::formula(p, &shape, column, 0);
        let out = Type::new(call.output(0)?.dtype, shape);
        let finish = Arc::new(Finish::new(Some(value), &formula, &types, &out)?);
        Ok(Epilogue { finish, out: Pointer::Output(0, 0), operands })
    }

    /// Appends results of a product whose first column is `first` of another's to lists of its rows, `words` words each from `at` on.
    pub fn listed(p: &GemmProblem, first: usize, at: Pointer, words: usize) -> Result<Epilogue> {
        let (formula, types, operands) = Self::formula(p, &Shape::from([p.m, p.n]), false, first);
        let finish = Arc::new(Finish::listed(&formula, &types, [p.m, p.n], words)?);
        Ok(Epilogue { finish, out: at, operands })
    }

    /// The formula, and its operands after the value. C is of the columns from `first` on.
    fn formula(p: &GemmProblem, shape: &Shape, column: bool, first: usize) -> (Formula, Vec<Type>, Vec<Pointer>) {
        let given = p.epilogue.as_ref();
        let mut types: Vec<Type> = given.map_or(Vec::new(), |e| e.operands.clone());
        if column {
            types.iter_mut().filter(|t| t.shape.rank() > 0).for_each(|t| t.shape.push(1));
        }
        let mut operands: Vec<Pointer> = (p.inputs..p.inputs + types.len()).map(|i| Pointer::Input(i, 0)).collect();
        let mut operand = |ty: Type, input: usize, from: usize| {
            operands.push(Pointer::Input(input, 0).after(from * ty.dtype.size_bytes()));
            types.push(ty);
            arg(types.len())
        };
        let mut v = arg(0);
        let int8 = p.quant.is_some();
        if !int8 && p.alpha != 1.0 {
            v = v * f64::from(p.alpha);
        }
        if let Some(c) = p.c.as_ref().filter(|c| !(int8 && c.dtype == DType::I32)) {
            let c = operand(Type::new(c.dtype, addend_shape(p, c, shape)), c.input, first * c.col);
            v = v + if p.beta == 1.0 { c } else { c * f64::from(p.beta) };
        }
        if let Some((lo, hi)) = p.out.int_range().filter(|_| int8 && p.out != DType::I32) {
            let zero = p.quant.as_ref().and_then(|q| q.out_zero.as_ref());
            let zero = zero.map_or(constant(0.0), |z| operand(Type::new(z.dtype, Shape::scalar()), z.input, 0));
            let rounded = v.clone().unary(Unary::IsNan).select(constant(0.0), v.round());
            v = (rounded + zero).clip(lo as f64, hi as f64);
        }
        let formula: Formula = given.map_or(v.clone(), |e| e.formula.compose(&[v]));
        (formula, types, operands)
    }

    /// Stores the kernel's values as they are at `at`: `parts` products after each other.
    pub fn plain(p: &GemmProblem, value: DType, parts: usize, at: Pointer) -> Result<Epilogue> {
        let shape = Shape::from([parts, p.batch.numel(), p.m, p.n]);
        let finish = Arc::new(Finish::new(Some(value), &arg(0), &[], &Type::new(value, shape))?);
        Ok(Epilogue { finish, out: at, operands: Vec::new() })
    }

    /// A launch with its slots filled and the argument `finish` appended.
    pub fn complete(&self, launch: Launch) -> Launch {
        launch.finished(&self.finish, self.out, &self.operands)
    }
}

/// The output with its columns innermost, and whether an axis had to be put there: a B of one dimension has none.
fn output_shape(p: &GemmProblem) -> (Shape, bool) {
    let mut shape = p.shape.clone();
    let column = p.contraction.is_none() && shape.last() != Some(&p.n);
    if column {
        shape.push(1);
    }
    (shape, column)
}

/// A shape that broadcasts to the output's as C does.
fn addend_shape(p: &GemmProblem, c: &Matrix, out: &Shape) -> Shape {
    if p.pick.is_some() {
        return out.clone(); // without gaps, as the output
    }
    let along = |step: usize, dim: usize| if step == 0 { 1 } else { dim };
    let columns = along(c.col, p.n);
    if c.row == 0 && c.batch.iter().all(|&s| s == 0) {
        return Shape::from([columns]);
    }
    let mut shape: Shape = p.batch.iter().zip(&c.batch).map(|(&dim, &step)| along(step, dim)).collect();
    if out.rank() == p.batch.rank() + 2 {
        shape.push(along(c.row, p.m));
    }
    shape.push(columns);
    shape
}
