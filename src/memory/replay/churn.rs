//! Models that are loaded, run and unloaded.

use super::convnet::{self, RESNET50};
use super::trace::{Recorder, Trace};
use super::transformer::Transformer;
use crate::base::xorshift::Xorshift;

/// Encoders of several sizes; one more model is a ResNet-50.
const ENCODERS: [Transformer; 5] = [
    Transformer { layers: 2, hidden: 128, heads: 2, vocabulary: 30522 },
    Transformer { layers: 6, hidden: 384, heads: 12, vocabulary: 30522 },
    Transformer { layers: 6, hidden: 768, heads: 12, vocabulary: 30522 },
    Transformer { layers: 12, hidden: 768, heads: 12, vocabulary: 30522 },
    Transformer { layers: 24, hidden: 1024, heads: 16, vocabulary: 30522 },
];

/// Models loaded at once at most.
const LOADED: usize = 4;

/// Each round one of six models, loaded when it is not and for it the one used longest ago unloaded when four are, answers 1 to 6 requests.
pub fn model_churn() -> Trace {
    let (mut to, mut random) = (Recorder::default(), Xorshift::new(5));
    // Least recently used first: the model and its weights.
    let mut loaded: Vec<(usize, Vec<u32>)> = Vec::new();
    for _ in 0..160 {
        let model = random.below(ENCODERS.len() + 1);
        let weights = match loaded.iter().position(|l| l.0 == model) {
            Some(at) => loaded.remove(at).1,
            None => {
                if loaded.len() == LOADED {
                    to.free_all(loaded.remove(0).1);
                }
                match ENCODERS.get(model) {
                    Some(encoder) => encoder.load(&mut to),
                    None => convnet::load(&RESNET50, &mut to),
                }
            }
        };
        loaded.push((model, weights));
        for _ in 0..1 + random.below(6) {
            let (batch, length) = (1 + random.below(8) as u64, 16 + random.below(240) as u64);
            let out = match ENCODERS.get(model) {
                Some(encoder) => encoder.encode(&mut to, batch, length),
                None => convnet::run(&RESNET50, &mut to, batch, 224),
            };
            to.free(out);
        }
    }
    to.free_all(loaded.into_iter().flat_map(|l| l.1));
    to.finish("model-churn")
}
