//! LSTM, GRU and RNN.

use crate::graph::OpDef;

pub(super) static OPS: &[OpDef] = &[];
