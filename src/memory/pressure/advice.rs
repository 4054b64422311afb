//! Recommendations as data: what could be done, on what evidence, and what it would save. Nothing is done by itself.

use super::level::Level;
use crate::hardware::nvml::{Reading, Throttle};
use crate::memory::Stats;

/// What is recommended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[allow(missing_docs)]
pub enum Code {
    ReduceMaxBatch,
    EnableFp16,
    EnableInt8,
    UnloadIdleModel,
    RaisePoolKeep,
    LowerPoolKeep,
    CapSequenceBucket,
    ThermalThrottled,
    PowerCapped,
    EccErrorsResetOrDrain,
    OtherProcessUsesMemory,
}

/// A recommendation.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Advice {
    /// Which.
    pub code: Code,
    /// The figures that it rests on.
    pub evidence: Vec<(&'static str, f64)>,
    /// Bytes of the device that it would free; 0 where it is not about memory.
    pub saves_bytes: u64,
    /// What to do, in words.
    pub action: String,
}

/// The longest sequences that a model is prepared for, and those that it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Sequence {
    pub longest_bucket: u64,
    pub longest_seen: u64,
    /// Of memory that is planned for the longest bucket.
    pub bytes_per_token: u64,
}

/// What the application knows of its models; nothing is recommended on what is 0 or absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Workload {
    pub max_batch: u64,
    /// Memory of one more item in a batch.
    pub bytes_per_item: u64,
    /// Weights that are held in 32 bits.
    pub f32_weight_bytes: u64,
    /// Weights that are held in 16 bits.
    pub f16_weight_bytes: u64,
    /// Models that nobody has run for long: name and weights.
    pub idle_models: Vec<(String, u64)>,
    /// Free memory that the pool keeps ([`crate::memory::Options::keep_bytes`]).
    pub keep_bytes: u64,
    pub sequence: Option<Sequence>,
}

/// All that recommendations rest on.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Facts<'a> {
    pub level: Level,
    pub reading: &'a Reading,
    pub stats: &'a Stats,
    /// The pool's figures some time ago: what is counted is counted from there.
    pub before: Option<&'a Stats>,
    pub workload: &'a Workload,
}

/// What the facts recommend, the most saving first.
pub fn recommend(facts: &Facts) -> Vec<Advice> {
    let mut all: Vec<Advice> = RULES.iter().filter_map(|rule| rule(facts)).collect();
    all.sort_by_key(|advice| std::cmp::Reverse(advice.saves_bytes));
    all
}

const RULES: [fn(&Facts) -> Option<Advice>; 11] = [
    reduce_max_batch,
    enable_fp16,
    enable_int8,
    unload_idle_model,
    raise_pool_keep,
    lower_pool_keep,
    cap_sequence_bucket,
    thermal_throttled,
    power_capped,
    ecc_errors,
    other_process,
];

/// More calls of the driver than this for a request are too many (1 in 1000).
const CALLS_PER_REQUEST: f64 = 1e-3;
/// Fewer requests say nothing about calls.
const FEWEST_REQUESTS: u64 = 1000;
/// What others use below this part of the device is contexts and displays.
const OTHERS_PART: u64 = 10;

fn reduce_max_batch(&Facts { level, workload, .. }: &Facts) -> Option<Advice> {
    let &Workload { max_batch, bytes_per_item, .. } = workload;
    let saves_bytes = (max_batch / 2).saturating_mul(bytes_per_item);
    (level >= Level::High && saves_bytes > 0).then(|| Advice {
        code: Code::ReduceMaxBatch,
        evidence: vec![("max_batch", max_batch as f64), ("bytes_per_item", bytes_per_item as f64)],
        saves_bytes,
        action: format!("lower the largest batch from {max_batch} to {}", max_batch - max_batch / 2),
    })
}

fn enable_fp16(&Facts { level, workload, .. }: &Facts) -> Option<Advice> {
    let bytes = workload.f32_weight_bytes;
    (level >= Level::High && bytes > 1).then(|| Advice {
        code: Code::EnableFp16,
        evidence: vec![("f32_weight_bytes", bytes as f64)],
        saves_bytes: bytes / 2,
        action: "hold weights in f16".into(),
    })
}

fn enable_int8(&Facts { level, workload, .. }: &Facts) -> Option<Advice> {
    let &Workload { f32_weight_bytes, f16_weight_bytes, .. } = workload;
    let saves_bytes = f32_weight_bytes / 4 * 3 + f16_weight_bytes / 2;
    (level >= Level::High && saves_bytes > 0).then(|| Advice {
        code: Code::EnableInt8,
        evidence: vec![("f32_weight_bytes", f32_weight_bytes as f64), ("f16_weight_bytes", f16_weight_bytes as f64)],
        saves_bytes,
        action: "quantise weights to int8".into(),
    })
}

fn unload_idle_model(&Facts { level, workload, .. }: &Facts) -> Option<Advice> {
    let (name, bytes) = workload.idle_models.iter().max_by_key(|m| m.1).filter(|m| m.1 > 0)?;
    (level >= Level::Medium).then(|| Advice {
        code: Code::UnloadIdleModel,
        evidence: vec![("weight_bytes", *bytes as f64), ("idle_models", workload.idle_models.len() as f64)],
        saves_bytes: *bytes,
        action: format!("unload {name}"),
    })
}

/// Memory goes back and forth between the pool and the device while there is enough of it.
fn raise_pool_keep(&Facts { level, stats, before, workload, .. }: &Facts) -> Option<Advice> {
    let (calls, requests) = before.map_or((0, 0), |b| (b.calls.memory(), b.requests));
    let (calls, requests) = (stats.calls.memory().saturating_sub(calls), stats.requests.saturating_sub(requests));
    let many = requests >= FEWEST_REQUESTS && calls as f64 > requests as f64 * CALLS_PER_REQUEST;
    (level == Level::Low && many).then(|| Advice {
        code: Code::RaisePoolKeep,
        evidence: vec![("driver_calls", calls as f64), ("requests", requests as f64)],
        saves_bytes: 0,
        action: format!(
            "raise the pool's keep_bytes from {} to {}",
            workload.keep_bytes,
            workload.keep_bytes.max(stats.free_bytes)
        ),
    })
}

fn lower_pool_keep(&Facts { level, stats, workload, .. }: &Facts) -> Option<Advice> {
    let kept = workload.keep_bytes.min(stats.free_bytes);
    (level >= Level::Medium && kept > 0).then(|| Advice {
        code: Code::LowerPoolKeep,
        evidence: vec![("keep_bytes", workload.keep_bytes as f64), ("free_bytes", stats.free_bytes as f64)],
        saves_bytes: kept,
        action: "lower the pool's keep_bytes to 0".into(),
    })
}

fn cap_sequence_bucket(&Facts { level, workload, .. }: &Facts) -> Option<Advice> {
    let Sequence { longest_bucket, longest_seen, bytes_per_token } = workload.sequence?;
    let saves_bytes = longest_bucket.saturating_sub(longest_seen).saturating_mul(bytes_per_token);
    (level >= Level::Medium && saves_bytes > 0).then(|| Advice {
        code: Code::CapSequenceBucket,
        evidence: vec![("longest_bucket", longest_bucket as f64), ("longest_seen", longest_seen as f64)],
        saves_bytes,
        action: format!("cap the longest bucket at {longest_seen} tokens"),
    })
}

/// Fields that are there.
fn figures<const N: usize>(fields: [(&'static str, Option<f64>); N]) -> Vec<(&'static str, f64)> {
    fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn throttled(reading: &Reading, by: Throttle) -> bool {
    reading.throttle.as_ref().is_ok_and(|reasons| reasons.intersects(by))
}

fn thermal_throttled(&Facts { reading, .. }: &Facts) -> Option<Advice> {
    let number = |field: &Result<u32, _>| field.as_ref().ok().map(|&v| f64::from(v));
    throttled(reading, Throttle::THERMAL).then(|| Advice {
        code: Code::ThermalThrottled,
        evidence: figures([
            ("gpu_temperature_c", number(&reading.gpu_temperature_c)),
            ("slowdown_c", number(&reading.slowdown_c)),
            ("memory_temperature_c", number(&reading.memory_temperature_c)),
            ("sm_clock_mhz", number(&reading.sm_clock_mhz)),
        ]),
        saves_bytes: 0,
        action: "clocks are lowered by heat: look at the cooling, or lower the power limit".into(),
    })
}

fn power_capped(&Facts { reading, .. }: &Facts) -> Option<Advice> {
    let watts = |field: &Result<u32, _>| field.as_ref().ok().map(|&mw| f64::from(mw) / 1e3);
    throttled(reading, Throttle::POWER).then(|| Advice {
        code: Code::PowerCapped,
        evidence: figures([("power_w", watts(&reading.power_mw)), ("power_limit_w", watts(&reading.power_limit_mw))]),
        saves_bytes: 0,
        action: "clocks are lowered by the power limit: raise it where the device and its supply allow".into(),
    })
}

fn ecc_errors(&Facts { reading, .. }: &Facts) -> Option<Advice> {
    let uncorrected = reading.ecc_uncorrected_volatile.clone().unwrap_or(0);
    let rows = reading.remapped.as_ref().ok();
    let (pending, failed) = (rows.is_some_and(|r| r.pending), rows.is_some_and(|r| r.failed));
    let lost = reading.lost.is_some();
    (uncorrected > 0 || pending || failed || lost).then(|| Advice {
        code: Code::EccErrorsResetOrDrain,
        evidence: vec![
            ("uncorrected_errors", uncorrected as f64),
            ("remap_pending", pending.into()),
            ("remap_failed", failed.into()),
            ("device_lost", lost.into()),
        ],
        saves_bytes: 0,
        action: match failed {
            true => "drain the device and replace it: no spare rows are left",
            false => "drain the device and reset it",
        }
        .into(),
    })
}

/// What is in use besides the pool's and the driver's: other processes, and a small part of this one outside of the pool. Not
/// by the list of processes, whose numbers a container does not share.
fn other_process(&Facts { level, reading, stats, .. }: &Facts) -> Option<Advice> {
    let memory = reading.memory.as_ref().ok()?;
    let own = memory.free_bytes.saturating_add(stats.reserved_bytes).saturating_add(memory.reserved_bytes.unwrap_or(0));
    let outside = memory.total_bytes.saturating_sub(own);
    let processes = reading.processes.as_ref().ok().map(|all| all.len() as f64);
    (level >= Level::Medium && outside > memory.total_bytes / OTHERS_PART).then(|| Advice {
        code: Code::OtherProcessUsesMemory,
        evidence: figures([
            ("outside_bytes", Some(outside as f64)),
            ("total_bytes", Some(memory.total_bytes as f64)),
            ("processes", processes),
        ]),
        saves_bytes: outside,
        action: "move other processes to another device".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::nvml::{Absent, Memory, Remapped};
    use crate::memory::DriverCalls;

    fn stats() -> Stats {
        Stats {
            live_bytes: 300,
            peak_live_bytes: 300,
            reserved_bytes: 400,
            peak_reserved_bytes: 400,
            free_bytes: 100,
            largest_free_bytes: 100,
            padding_bytes: 0,
            requests: 5000,
            calls: DriverCalls { create: 2, map: 2, ..DriverCalls::default() },
            rungs: Vec::new(),
        }
    }

    fn quiet() -> Reading {
        let memory = Memory { total_bytes: 1000, free_bytes: 550, used_bytes: 450, reserved_bytes: Some(10) };
        Reading { memory: Ok(memory), throttle: Ok(Throttle::IDLE), ..Reading::absent(Absent::NotSupported) }
    }

    fn full() -> Workload {
        Workload {
            max_batch: 9,
            bytes_per_item: 10,
            f32_weight_bytes: 80,
            f16_weight_bytes: 20,
            idle_models: vec![("small".into(), 5), ("large".into(), 50)],
            keep_bytes: 60,
            sequence: Some(Sequence { longest_bucket: 512, longest_seen: 500, bytes_per_token: 2 }),
        }
    }

    fn codes(level: Level, reading: &Reading, stats: &Stats, workload: &Workload) -> Vec<(Code, u64)> {
        let facts = Facts { level, reading, stats, before: None, workload };
        recommend(&facts).into_iter().map(|a| (a.code, a.saves_bytes)).collect()
    }

    #[test]
    fn nothing_is_recommended_without_need_or_without_facts() {
        assert_eq!(codes(Level::Low, &quiet(), &stats(), &full()), []);
        let nothing = Stats { free_bytes: 0, ..stats() };
        assert_eq!(codes(Level::Critical, &Reading::absent(Absent::NotAsked), &nothing, &Workload::default()), []);
    }

    #[test]
    fn pressure_recommends_by_level_the_most_saving_first() {
        use Code::*;
        let medium = [(LowerPoolKeep, 60), (UnloadIdleModel, 50), (CapSequenceBucket, 24)];
        assert_eq!(codes(Level::Medium, &quiet(), &stats(), &full()), medium);
        let high = [
            (EnableInt8, 70),
            (LowerPoolKeep, 60),
            (UnloadIdleModel, 50),
            (ReduceMaxBatch, 40),
            (EnableFp16, 40),
            (CapSequenceBucket, 24),
        ];
        assert_eq!(codes(Level::High, &quiet(), &stats(), &full()), high);
    }

    #[test]
    fn memory_of_others_is_what_neither_pool_nor_driver_hold() {
        let memory = Memory { total_bytes: 1000, free_bytes: 200, used_bytes: 800, reserved_bytes: Some(10) };
        let reading = Reading { memory: Ok(memory), ..quiet() };
        let found = codes(Level::Medium, &reading, &stats(), &Workload::default());
        assert_eq!(found, [(Code::OtherProcessUsesMemory, 390)]);
        assert_eq!(codes(Level::Low, &reading, &stats(), &Workload::default()), []);
    }

    #[test]
    fn calls_are_counted_from_earlier_figures() {
        let (reading, earlier, workload) = (quiet(), stats(), full());
        let now = Stats { requests: 7000, ..stats() };
        let many = Stats { calls: DriverCalls { map: 20, ..DriverCalls::default() }, ..now.clone() };
        let code = |stats: &Stats| {
            let facts = Facts { level: Level::Low, reading: &reading, stats, before: Some(&earlier), workload: &workload };
            recommend(&facts).first().map(|a| (a.code, a.evidence.clone()))
        };
        assert_eq!(code(&now), None);
        assert_eq!(code(&many), Some((Code::RaisePoolKeep, vec![("driver_calls", 16.0), ("requests", 2000.0)])));
    }

    #[test]
    fn the_device_s_own_troubles_are_told_at_every_level() {
        let hot = Reading { throttle: Ok(Throttle::HARDWARE_THERMAL), gpu_temperature_c: Ok(93), slowdown_c: Ok(92), ..quiet() };
        let capped = Reading { throttle: Ok(Throttle::SOFTWARE_POWER_CAP), power_mw: Ok(699_500), ..quiet() };
        let failing = Reading { ecc_uncorrected_volatile: Ok(3), ..quiet() };
        let rows = Remapped { correctable: 0, uncorrectable: 8, pending: false, failed: true };
        let spent = Reading { remapped: Ok(rows), ..quiet() };
        let (stats, workload) = (stats(), Workload::default());
        let one = |reading: &Reading| {
            let found = recommend(&Facts { level: Level::Low, reading, stats: &stats, before: None, workload: &workload });
            assert_eq!(found.len(), 1, "{found:?}");
            found.into_iter().next().unwrap()
        };
        let temperatures = vec![("gpu_temperature_c", 93.0), ("slowdown_c", 92.0)];
        assert_eq!((one(&hot).code, one(&hot).evidence), (Code::ThermalThrottled, temperatures));
        assert_eq!((one(&capped).code, one(&capped).evidence), (Code::PowerCapped, vec![("power_w", 699.5)]));
        assert_eq!((one(&failing).code, one(&failing).evidence[0].1), (Code::EccErrorsResetOrDrain, 3.0));
        assert!(one(&spent).action.contains("replace") && one(&failing).action.contains("reset"));
        assert_eq!(one(&Reading::absent(Absent::Lost)).evidence[3], ("device_lost", 1.0));
    }
}
