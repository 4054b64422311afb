//! What is looked at once a second: alerts, and the last minutes for the page.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::outcomes::ANSWERED;
use super::status::{Figures, us};
use crate::base::lock;
use crate::serve::alert::{Alert, Alerts, Rule, Sample, metric};

/// Seconds that are remembered.
const HISTORY: usize = 180;

/// Figures of rates are of this time and the one before, as the engine's recent ones are.
const WINDOW: Duration = Duration::from_secs(30);

/// A second of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub(super) struct Moment {
    /// Requests answered.
    pub answered: u64,
    /// Those that failed, were turned away or went.
    pub failed: u64,
    /// Those that the cache answered.
    pub cached: u64,
    /// Requests that wait now.
    pub queued: usize,
    /// The 99th percentile of recent latencies in the engine, of the model with the largest.
    pub p99_us: f64,
}

/// What a server remembers of its figures.
pub(super) struct Watch(Mutex<State>);

struct State {
    alerts: Alerts,
    firing: Vec<Alert>,
    history: VecDeque<Moment>,
    /// A second ago; none yet before the first look.
    last: Figures,
    /// At the beginning of this window, and of the one before.
    windows: [Figures; 2],
    until: Option<Instant>,
}

impl Watch {
    /// With these rules.
    pub fn new(rules: Vec<Rule>) -> Self {
        let (firing, history, last, windows, until) = Default::default();
        Watch(Mutex::new(State { alerts: Alerts::new(rules), firing, history, last, windows, until }))
    }

    /// Alerts that fired at the last look.
    pub fn alerts(&self) -> Vec<Alert> {
        lock(&self.0).firing.clone()
    }

    /// The last seconds, oldest first.
    pub fn history(&self) -> Vec<Moment> {
        lock(&self.0).history.iter().copied().collect()
    }

    /// Looks at the figures of now.
    pub fn look(&self, figures: &Figures, target: Option<Duration>, now: Instant) {
        let state = &mut *lock(&self.0);
        if state.until.is_none_or(|until| now >= until) {
            state.windows.swap(0, 1);
            state.windows[0] = figures.clone();
            state.until = Some(now + WINDOW);
        }
        let samples = samples(figures, &state.windows[1], target);
        state.firing = state.alerts.evaluate(&samples, now);
        state.history.push_back(moment(figures, &state.last));
        if state.history.len() > HISTORY {
            state.history.pop_front();
        }
        state.last = figures.clone();
    }
}

/// What rules are about.
fn samples(now: &Figures, earlier: &Figures, target: Option<Duration>) -> Vec<Sample> {
    let p99 = now.engine.models.iter().filter(|m| m.recent.total.count > 0).filter_map(|model| {
        let target = target.filter(|target| !target.is_zero())?;
        Sample::new(metric::P99, &model.name, Some(model.recent.total.p99_us / us(target)))
    });
    let then = earlier.cache.clone().unwrap_or_default();
    let cache = now.cache.iter().flat_map(|cache| cache.since(&then).samples(""));
    p99.chain(cache).chain(now.limits.samples(&earlier.limits)).collect()
}

fn moment(now: &Figures, last: &Figures) -> Moment {
    let answered = |f: &Figures| f.requests.get(ANSWERED).copied().unwrap_or(0);
    let all = |f: &Figures| f.requests.values().sum::<u64>();
    let cached = |f: &Figures| f.cache.as_ref().map_or(0, |c| c.requests() - c.misses);
    let answered = answered(now) - answered(last);
    Moment {
        answered,
        failed: all(now) - all(last) - answered,
        cached: cached(now).saturating_sub(cached(last)),
        queued: now.engine.queued,
        p99_us: now.engine.models.iter().map(|m| m.recent.total.p99_us).fold(0.0, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::cache::Stats;

    fn figures(answered: u64, late: u64, hits: u64, misses: u64) -> Figures {
        let cache = Stats { first_hits: hits, misses, ..Stats::default() };
        Figures { requests: [(ANSWERED, answered), ("late", late)].into(), cache: Some(cache), ..Figures::default() }
    }

    #[test]
    fn seconds_are_differences_and_rates_are_of_the_last_minute() {
        let rule = Rule { hold: Duration::ZERO, ..Rule::defaults().remove(1) };
        let (watch, start) = (Watch::new(vec![rule]), Instant::now());
        let look = |s: u64, figures: Figures| watch.look(&figures, None, start + Duration::from_secs(s));
        // Also what came before the first look.
        look(0, figures(3, 0, 0, 0));
        look(1, figures(13, 1, 8, 2));
        let first = Moment { answered: 3, ..Moment::default() };
        assert_eq!(watch.history(), [first, Moment { answered: 10, failed: 1, cached: 8, ..Moment::default() }]);
        assert_eq!(watch.alerts(), []);
        // 8 hits of the first second still make up for the misses; once they are a minute old, they do not.
        look(35, figures(19, 1, 8, 8));
        assert_eq!(watch.alerts(), []);
        look(66, figures(19, 1, 8, 8));
        look(70, figures(21, 1, 8, 10));
        assert_eq!(watch.alerts().len(), 1);
    }
}
