//! The largest results of each row of a product, kept while the product runs.

use std::collections::BinaryHeap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};

use super::blocks::wide;
use crate::base::{TensorViewMut, lock};

/// One result. The worst one of a row is the greatest: the smallest number, of equal ones the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    /// Of [`key`], inverted.
    worse: i32,
    column: u32,
}

/// Integers in the order of the numbers (`f32::total_cmp`).
fn key(x: f32) -> i32 {
    let bits = x.to_bits() as i32;
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

/// Its own inverse.
fn number(key: i32) -> f32 {
    f32::from_bits((key ^ ((key >> 31) as u32 >> 1) as i32) as u32)
}

/// The best results of one row up to now.
#[derive(Default)]
struct Row {
    best: Mutex<BinaryHeap<Kept>>,
    /// Key of the worst of them when they are as many as wanted: what is below changes nothing.
    bar: AtomicI32,
}

/// The `k` largest results of each row, and their columns.
pub(super) struct Top<'a> {
    k: usize,
    rows: Vec<Row>,
    numbers: Option<&'a mut [f32]>,
    columns: Option<&'a mut [i64]>,
}

impl<'a> Top<'a> {
    /// Of as many rows; `outputs` are `[rows, k]` of f32 and of i64, where they are wanted.
    pub fn new(rows: usize, k: usize, outputs: &'a mut [Option<TensorViewMut>]) -> Self {
        let mut outputs = outputs.iter_mut().map(Option::as_mut);
        let (numbers, columns) = (outputs.next().flatten(), outputs.next().flatten());
        let row = || Row { best: Mutex::new(BinaryHeap::with_capacity(k + 1)), bar: AtomicI32::new(i32::MIN) };
        let rows = std::iter::repeat_with(row).take(rows).collect();
        Top { k, rows, numbers: numbers.map(TensorViewMut::slice), columns: columns.map(TensorViewMut::slice) }
    }

    /// Takes results of a row, from `column` on. Each is seen once, in any order, from any thread.
    pub fn see(&self, (row, column): (usize, usize), x: &[f32]) {
        let row = &self.rows[row];
        // A bar that is not the latest is lower, and lets through what the lock then refuses.
        let bar = row.bar.load(Ordering::Relaxed);
        if self.k == 0 || wide(|| x.iter().fold(i32::MIN, |most, &v| most.max(key(v)))) < bar {
            return;
        }
        let mut best = lock(&row.best);
        for (at, &v) in x.iter().enumerate() {
            let new = Kept { worse: !key(v), column: (column + at) as u32 };
            if best.len() < self.k {
                best.push(new);
            } else if let Some(mut worst) = best.peek_mut().filter(|worst| new < **worst) {
                *worst = new;
            }
        }
        if let Some(worst) = best.peek().filter(|_| best.len() == self.k) {
            row.bar.store(!worst.worse, Ordering::Relaxed);
        }
    }

    /// Writes the outputs.
    pub fn store(mut self) {
        for (at, row) in self.rows.into_iter().enumerate() {
            let best = row.best.into_inner().unwrap_or_else(|e| e.into_inner()).into_sorted_vec();
            let place = at * self.k..(at + 1) * self.k;
            if let Some(numbers) = &mut self.numbers {
                numbers[place.clone()].iter_mut().zip(&best).for_each(|(to, kept)| *to = number(!kept.worse));
            }
            if let Some(columns) = &mut self.columns {
                columns[place].iter_mut().zip(&best).for_each(|(to, kept)| *to = kept.column.into());
            }
        }
    }
}
