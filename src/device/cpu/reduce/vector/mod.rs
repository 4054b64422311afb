//! Vector kernels of the reduce family: f32, and f16 or bf16 stored but computed as f32; folds, running sums and searches of integers.

mod arg;
mod cumsum;
mod fold;
mod lines;
mod normalize;
mod run;
mod softmax;

pub(super) use run::On;
