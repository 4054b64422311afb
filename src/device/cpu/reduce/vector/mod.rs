//! Vector kernels of the reduce family: f32, and f16 or bf16 stored but computed as f32.

mod fold;
mod normalize;
mod rows;
mod run;
mod softmax;

pub(super) use run::run;
