//! Convolutional networks, operator by operator.

use super::trace::{Recorder, Trace};
use crate::base::xorshift::Xorshift;

/// Bytes of an f32.
const FLOAT: u64 = 4;

/// Stages of a residual network of bottlenecks: blocks and width, the first at a quarter of the image's side, each next at half of that.
pub type Stages = [(u64, u64); 4];

/// ResNet-50 (He et al., 2015).
pub const RESNET50: Stages = [(3, 64), (4, 128), (6, 256), (3, 512)];

/// Allocates the weights; normalisations are folded into convolutions.
pub fn load(stages: &Stages, to: &mut Recorder) -> Vec<u32> {
    let mut weights = Vec::new();
    let mut conv = |inputs: u64, outputs: u64, kernel: u64| {
        weights.push(to.alloc(inputs * outputs * kernel * kernel * FLOAT));
        weights.push(to.alloc(outputs * FLOAT));
    };
    conv(3, 64, 7);
    let mut inputs = 64;
    for &(blocks, width) in stages {
        for block in 0..blocks {
            conv(inputs, width, 1);
            conv(width, width, 3);
            conv(width, 4 * width, 1);
            if block == 0 {
                conv(inputs, 4 * width, 1);
            }
            inputs = 4 * width;
        }
    }
    conv(inputs, 1000, 1);
    weights
}

/// A convolution and its activation, each with a buffer of its own; `x` stays.
fn conv_relu(to: &mut Recorder, bytes: u64) -> u32 {
    let y = to.alloc(bytes);
    let active = to.alloc(bytes);
    to.free(y);
    active
}

/// One run on images of `side` x `side`; gives its output.
pub fn run(stages: &Stages, to: &mut Recorder, batch: u64, side: u64) -> u32 {
    let image = to.alloc(batch * 3 * side * side * FLOAT);
    let stem = conv_relu(to, batch * 64 * (side / 2) * (side / 2) * FLOAT);
    to.free(image);
    let mut x = to.alloc(batch * 64 * (side / 4) * (side / 4) * FLOAT);
    to.free(stem);
    for (stage, &(blocks, width)) in stages.iter().enumerate() {
        let pixels = ((side / 4) >> stage).pow(2);
        for block in 0..blocks {
            x = bottleneck(to, batch * width * pixels * FLOAT, x, block == 0);
        }
    }
    let pooled = to.alloc(batch * 4 * stages[3].1 * FLOAT);
    to.free(x);
    let out = to.alloc(batch * 1000 * FLOAT);
    to.free(pooled);
    out
}

/// Three convolutions, a fourth beside them where the width changes, their sum and its activation. `narrow` in bytes; the output is four times that.
fn bottleneck(to: &mut Recorder, narrow: u64, x: u32, widens: bool) -> u32 {
    let first = conv_relu(to, narrow);
    let second = conv_relu(to, narrow);
    to.free(first);
    let third = to.alloc(4 * narrow);
    to.free(second);
    let beside = if widens {
        let beside = to.alloc(4 * narrow);
        to.free(x);
        beside
    } else {
        x
    };
    let sum = to.alloc(4 * narrow);
    to.free_all([third, beside]);
    let active = to.alloc(4 * narrow);
    to.free(sum);
    active
}

/// ResNet-50 on batches of 1 to 48 images of 160, 192, 224 or 256 pixels a side.
pub fn resnet50_var() -> Trace {
    let (mut to, mut random) = (Recorder::default(), Xorshift::new(4));
    let weights = load(&RESNET50, &mut to);
    for _ in 0..150 {
        let (batch, side) = (1 + random.below(48) as u64, 160 + 32 * random.below(4) as u64);
        let out = run(&RESNET50, &mut to, batch, side);
        to.free(out);
    }
    to.free_all(weights);
    to.finish("resnet50-var")
}
