//! Recurrent networks: LSTM, GRU and the plain one.

use crate::base::DType;
use crate::scalar::Formula;

/// The recurrent cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Cell {
    /// Gates input, output, forget, cell. `input_forget` couples the forget gate to the input gate.
    Lstm {
        input_forget: bool,
    },
    /// Gates update, reset, hidden. `linear_before_reset`: the reset gate meets the product, not the state.
    Gru {
        linear_before_reset: bool,
    },
    Rnn,
}

impl Cell {
    /// Every cell.
    pub const ALL: [Cell; 5] = [
        Cell::Lstm { input_forget: false },
        Cell::Lstm { input_forget: true },
        Cell::Gru { linear_before_reset: false },
        Cell::Gru { linear_before_reset: true },
        Cell::Rnn,
    ];

    /// Rows of weights for each hidden unit.
    pub fn gates(self) -> usize {
        match self {
            Cell::Lstm { .. } => 4,
            Cell::Gru { .. } => 3,
            Cell::Rnn => 1,
        }
    }

    /// Activation functions of one direction.
    pub fn activations(self) -> usize {
        match self {
            Cell::Lstm { .. } => 3,
            Cell::Gru { .. } => 2,
            Cell::Rnn => 1,
        }
    }
}

/// A recurrent layer over a sequence.
///
/// Inputs: x, w, r, bias, sequence lengths (i32), initial h, initial c, peepholes; quantised ones then w scale, w zero point,
/// r scale, r zero point. w is `[directions, gates * hidden, input]`, r `[directions, gates * hidden, hidden]`;
/// quantised ones are transposed. Outputs: y, last h, last c.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct RecurrentProblem {
    pub cell: Cell,
    pub dtype: DType,
    pub seq_len: usize,
    pub batch: usize,
    pub input_size: usize,
    pub hidden_size: usize,
    /// For each direction, whether it runs backwards.
    pub reverse: Vec<bool>,
    /// [`Cell::activations`] formulas of one argument for each direction.
    pub activations: Vec<Formula>,
    /// Bound of the activations' arguments.
    pub clip: Option<f32>,
    /// Batch before sequence and directions in x, y and the states.
    pub batch_first: bool,
    /// Element type of w and r when they are quantised, with one scale for each column or for each direction:
    /// each row of x and h is quantised to u8 by itself.
    pub quantized: Option<DType>,
}

impl RecurrentProblem {
    /// Number of directions.
    pub fn directions(&self) -> usize {
        self.reverse.len()
    }

    /// Multiplications and additions.
    pub fn flops(&self) -> f64 {
        let rows = (self.directions() * self.seq_len * self.batch) as f64;
        2.0 * rows * (self.cell.gates() * self.hidden_size) as f64 * (self.input_size + self.hidden_size) as f64
    }
}
