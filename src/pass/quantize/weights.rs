//! Weights as integers.

use super::layers::Kind;
use crate::base::quant::{quantize, symmetric_scale};
use crate::base::{Shape, Tensor};
use crate::error::{Error, Result};

/// Weights in [-127, 127], with a symmetric scale for each output channel (of a table: each row).
#[derive(Debug, Clone)]
pub struct Stored {
    /// i8; of products `[k, n]`, else in the shape of the weights.
    pub values: Tensor,
    /// f32, one for each channel.
    pub scales: Tensor,
}

impl Stored {
    /// Rounds rows, each by its largest magnitude; `transpose` stores them as columns.
    fn of_rows(shape: Shape, rows: &[Vec<f32>], transpose: bool) -> Result<Stored> {
        let largest = |row: &Vec<f32>| row.iter().fold(0f32, |m, w| m.max(w.abs()));
        let scales: Vec<f32> = rows.iter().map(|row| symmetric_scale(largest(row))).collect();
        let round = |row: usize, i: usize| quantize(rows[row][i], scales[row], 0, -127, 127) as i8;
        let length = rows.first().map_or(0, Vec::len);
        let values: Vec<i8> = if transpose {
            (0..length).flat_map(|i| (0..rows.len()).map(move |row| (row, i))).map(|(row, i)| round(row, i)).collect()
        } else {
            (0..rows.len()).flat_map(|row| (0..length).map(move |i| (row, i))).map(|(row, i)| round(row, i)).collect()
        };
        Ok(Stored { values: Tensor::new(shape, &values)?, scales: Tensor::vector(&scales) })
    }

    /// The weights that the integers stand for, in the shape of the integers.
    pub fn dequantised(&self, kind: Kind) -> Result<Tensor> {
        let (values, scales) = (self.values.values::<i8>()?, self.scales.values::<f32>()?);
        let each = values.len() / scales.len().max(1);
        let scale = |i: usize| if kind.is_product() { scales[i % scales.len()] } else { scales[i / each] };
        let all: Vec<f32> = values.iter().enumerate().map(|(i, &v)| f32::from(v) * scale(i)).collect();
        Tensor::new(self.values.shape().clone(), &all)
    }
}

impl Kind {
    /// Whether it is a matrix product.
    pub fn is_product(self) -> bool {
        matches!(self, Kind::Product | Kind::TransposedProduct)
    }
}

/// Rounds the weights of a layer to the nearest integers. Errors when they are not f32.
pub fn round_weights(kind: Kind, weights: &Tensor) -> Result<Stored> {
    let (values, shape) = (weights.values::<f32>()?, weights.shape());
    if shape.is_empty() {
        return Err(Error::BadInput("weights without an axis".into()));
    }
    let length = values.len() / shape[0].max(1);
    match kind {
        Kind::Product => {
            let column = |j: usize| values.iter().skip(j).step_by(length).copied().collect();
            let columns: Vec<Vec<f32>> = (0..length).map(column).collect();
            Stored::of_rows(shape.clone(), &columns, true)
        }
        _ => {
            let length = if kind == Kind::Table { shape.last().copied().unwrap_or(1) } else { length };
            let rows: Vec<Vec<f32>> = values.chunks_exact(length.max(1)).map(<[f32]>::to_vec).collect();
            let transpose = kind == Kind::TransposedProduct;
            let shape = if transpose { Shape::from([length, shape[0]]) } else { shape.clone() };
            Stored::of_rows(shape, &rows, transpose)
        }
    }
}
