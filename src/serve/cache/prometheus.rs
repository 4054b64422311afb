//! Figures of caches in Prometheus' text format.

use super::{BreakerState, SecondStats, Stats};
use crate::base::exposition::{family, labels};

type Metric<S> = (&'static str, &'static str, &'static str, fn(&S) -> f64);

const FIRST: [Metric<Stats>; 11] = [
    ("halfbyte_cache_joins_total", "counter", "Requests answered by the computation of an equal one.", |s| s.joins as f64),
    ("halfbyte_cache_misses_total", "counter", "Requests that computed.", |s| s.misses as f64),
    ("halfbyte_cache_failed_total", "counter", "Computations that gave an error or panicked.", |s| {
        (s.failed + s.panicked) as f64
    }),
    ("halfbyte_cache_kept_total", "counter", "Answers kept.", |s| s.kept as f64),
    ("halfbyte_cache_too_large_total", "counter", "Answers too large to be kept.", |s| s.too_large as f64),
    ("halfbyte_cache_evicted_total", "counter", "Answers removed for want of room.", |s| s.evicted as f64),
    ("halfbyte_cache_expired_total", "counter", "Answers removed because their time was over.", |s| s.expired as f64),
    ("halfbyte_cache_under_way", "gauge", "Computations under way.", |s| s.under_way as f64),
    ("halfbyte_cache_entries", "gauge", "Answers in memory.", |s| s.entries as f64),
    ("halfbyte_cache_bytes", "gauge", "Bytes of answers in memory.", |s| s.bytes as f64),
    ("halfbyte_cache_capacity_bytes", "gauge", "Bytes that answers in memory may take.", |s| s.capacity_bytes as f64),
];

const SECOND: [Metric<SecondStats>; 11] = [
    ("halfbyte_cache_redis_lookups_total", "counter", "Answers asked for in Redis.", |s| s.lookups as f64),
    ("halfbyte_cache_redis_refused_total", "counter", "Lookups not made: Redis was left alone or busy.", |s| s.refused as f64),
    ("halfbyte_cache_redis_late_total", "counter", "Lookups that took longer than the budget.", |s| s.late as f64),
    ("halfbyte_cache_redis_damaged_total", "counter", "Values damaged, foreign or expired.", |s| s.damaged as f64),
    ("halfbyte_cache_redis_failures_total", "counter", "Lookups and connections that failed.", |s| s.failures as f64),
    ("halfbyte_cache_redis_stored_total", "counter", "Answers stored.", |s| s.stored as f64),
    ("halfbyte_cache_redis_stored_bytes_total", "counter", "Bytes stored.", |s| s.stored_bytes as f64),
    ("halfbyte_cache_redis_dropped_total", "counter", "Answers not stored.", |s| s.dropped as f64),
    ("halfbyte_cache_redis_waiting_bytes", "gauge", "Bytes of answers waiting to be stored.", |s| s.waiting_bytes as f64),
    ("halfbyte_cache_redis_breaker_open", "gauge", "Whether Redis is left alone.", |s| (s.breaker == BreakerState::Open).into()),
    ("halfbyte_cache_redis_breaker_openings_total", "counter", "Times that the breaker has opened.", |s| s.openings as f64),
];

/// Figures of caches by name.
pub fn text(caches: &[(&str, Stats)]) -> String {
    let mut text = String::new();
    let hits = caches.iter().flat_map(|(cache, s)| {
        let levels = [("first", s.first_hits), ("second", s.second_hits)];
        levels.map(|(level, hits)| (labels(&[("cache", cache), ("level", level)]), hits))
    });
    family(&mut text, "halfbyte_cache_hits_total", "counter", "Requests answered by a level of the cache.", hits);
    for (name, kind, help, value) in FIRST {
        let samples = caches.iter().map(|(cache, stats)| (labels(&[("cache", cache)]), value(stats)));
        family(&mut text, name, kind, help, samples);
    }
    for (name, kind, help, value) in SECOND {
        let with = caches.iter().filter_map(|(cache, stats)| Some((cache, stats.second.as_ref()?)));
        family(&mut text, name, kind, help, with.map(|(cache, stats)| (labels(&[("cache", cache)]), value(stats))));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_description_and_its_cache() {
        let second = SecondStats { breaker: BreakerState::Open, openings: 2, ..SecondStats::default() };
        let stats = Stats { first_hits: 7, second_hits: 3, bytes: 99, second: Some(second), ..Stats::default() };
        let text = text(&[("a\"b", stats), ("plain", Stats::default())]);
        assert!(text.contains("halfbyte_cache_hits_total{cache=\"a\\\"b\",level=\"second\"} 3\n"));
        assert!(text.contains("# TYPE halfbyte_cache_bytes gauge\nhalfbyte_cache_bytes{cache=\"a\\\"b\"} 99\n"));
        assert!(text.contains("halfbyte_cache_redis_breaker_open{cache=\"a\\\"b\"} 1\n"));
        assert!(!text.contains("redis_breaker_open{cache=\"plain\"}"), "nothing of a level that is not there");
        assert_eq!(text.lines().filter(|l| l.starts_with("# TYPE")).count(), 1 + FIRST.len() + SECOND.len());
    }
}
