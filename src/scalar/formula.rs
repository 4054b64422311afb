//! The formula builder.

/// An expression over arguments. Placeholder of the type's shape until the layer is filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Formula(std::sync::Arc<Expr>);

#[derive(Debug, PartialEq)]
enum Expr {
    Arg(usize),
    Constant(f64),
}

/// Argument `i`.
pub fn arg(i: usize) -> Formula {
    Formula(Expr::Arg(i).into())
}

/// A literal.
pub fn constant(v: f64) -> Formula {
    Formula(Expr::Constant(v).into())
}

impl Formula {
    /// Number of operations.
    pub fn size(&self) -> usize {
        1
    }
}
