//! Traces that are made: what engines ask for when shapes vary, models come and go, and key-value caches grow.

use super::trace::Trace;
use super::{churn, convnet, transformer};

/// A trace that can be made, the same each time.
pub struct WorkloadDef {
    /// The trace's name.
    pub name: &'static str,
    /// What happens in it.
    pub about: &'static str,
    /// Makes it.
    pub make: fn() -> Trace,
}

/// All of them. Every operator of a run allocates its output, and frees its inputs after their last use.
pub fn workloads() -> &'static [WorkloadDef] {
    const {
        &[
            WorkloadDef { name: "bert-var", about: "BERT base, any batch and length", make: transformer::bert_var },
            WorkloadDef { name: "bert-bucket", about: "BERT base, bucketed batch and length", make: transformer::bert_bucket },
            WorkloadDef { name: "resnet50-var", about: "ResNet-50, any batch, four image sizes", make: convnet::resnet50_var },
            WorkloadDef { name: "llm-kv-concat", about: "decoder, caches joined anew each token", make: transformer::kv_concat },
            WorkloadDef {
                name: "kv-growth",
                about: "decoder, sequences come, grow by 32 tokens and go",
                make: transformer::kv_growth,
            },
            WorkloadDef { name: "model-churn", about: "models loaded, run and unloaded", make: churn::model_churn },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::replay::Event;

    #[test]
    fn traces_are_the_same_each_time_and_end_with_nothing_live() {
        for def in workloads() {
            let trace = (def.make)();
            assert_eq!(trace, (def.make)(), "{}", def.name);
            assert_eq!(trace.name, def.name);
            let frees = trace.events().iter().filter(|e| matches!(e, Event::Free { .. })).count();
            assert_eq!(frees, trace.buffers(), "{}: all is freed at the end", def.name);
            let (live, _) = trace.live_peak();
            println!("{}: {} requests, {:.1} MiB live", def.name, trace.events().len(), live as f64 / 1048576.0);
            assert!(trace.events().len() > 10_000 && (200 << 20..8 << 30).contains(&live), "{}: {live}", def.name);
        }
    }
}
