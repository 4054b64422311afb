//! Rates of tenants and models. A request passes its tenant's limit first: one that asks too much uses up nothing of what others share.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, Reference};

use super::meter::{Counts, Meter, Rate};
use crate::base::exposition::{family, labels};
use crate::error::Result;
use crate::serve::alert::{Sample, metric, share};

/// Who may ask how much. Without a rate everything is let in, and counted.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Of each tenant without a rate of its own.
    pub tenant: Option<Rate>,
    /// Of tenants by name.
    pub tenants: BTreeMap<String, Rate>,
    /// Of each model without a rate of its own, for all tenants together.
    pub model: Option<Rate>,
    /// Of models by name.
    pub models: BTreeMap<String, Rate>,
    /// Names without a rate of their own that are told apart, among tenants and among models. Those with nothing left to remember are
    /// forgotten when there are more; if that does not do, the rest share one limit.
    pub most_names: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { tenant: None, tenants: BTreeMap::new(), model: None, models: BTreeMap::new(), most_names: 10_000 }
    }
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limited {
    /// A tenant's.
    Tenant,
    /// A model's.
    Model,
}

/// A request was turned away.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Throttled {
    /// Whose limit was reached.
    pub by: Limited,
    /// The tenant's or model's name.
    pub name: String,
    /// When it may come again; `None` if never, since it costs more than may come at once.
    pub retry_after: Option<Duration>,
}

impl std::fmt::Display for Throttled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let who = if self.by == Limited::Tenant { "tenant" } else { "model" };
        write!(f, "too many requests for {who} {:?}: ", self.name)?;
        match self.retry_after {
            Some(time) => write!(f, "try again in {time:.1?}"),
            None => f.write_str("this one costs more than may ever come at once; ask for less in one request"),
        }
    }
}

impl std::error::Error for Throttled {}

/// What was let in and turned away.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
pub struct RateStats {
    /// By tenant. A request that its model's limit turns away was let in here.
    pub tenants: BTreeMap<String, Counts>,
    /// By model.
    pub models: BTreeMap<String, Counts>,
    /// Of tenants beyond those told apart, and of forgotten ones.
    pub other_tenants: Counts,
    /// Of models likewise.
    pub other_models: Counts,
}

impl RateStats {
    /// Share of each tenant's and model's requests that was turned away since `earlier`, as [`crate::serve::alert`] has a rule about;
    /// subjects are `tenant/NAME` and `model/NAME`.
    pub fn samples(&self, earlier: &RateStats) -> Vec<Sample> {
        let kinds = [("tenant", &self.tenants, &earlier.tenants), ("model", &self.models, &earlier.models)];
        let all = kinds.into_iter().flat_map(|(kind, now, then)| {
            now.iter().filter_map(move |(name, counts)| {
                let before = then.get(name).copied().unwrap_or_default();
                let throttled = counts.throttled.saturating_sub(before.throttled);
                let admitted = counts.admitted.saturating_sub(before.admitted);
                Sample::new(metric::THROTTLED, &format!("{kind}/{name}"), share(throttled, throttled + admitted))
            })
        });
        all.collect()
    }

    /// In Prometheus' text format. Tenants are told together: their names have no bound.
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        let mut tenants = self.other_tenants;
        self.tenants.values().for_each(|counts| tenants += *counts);
        let models = self.models.iter().map(|(name, counts)| (labels(&[("by", "model"), ("model", name)]), *counts));
        let all: Vec<_> = models.chain([(labels(&[("by", "tenant")]), tenants)]).collect();
        for (name, help, value) in [
            ("halfbyte_admitted_total", "Requests that a rate limit let in.", (|c| c.admitted) as fn(&Counts) -> u64),
            ("halfbyte_throttled_total", "Requests that a rate limit turned away.", |c| c.throttled),
        ] {
            family(&mut text, name, "counter", help, all.iter().map(|(labels, counts)| (labels.clone(), value(counts))));
        }
        text
    }
}

/// The limits of all names of a kind.
struct Names<C: Clock> {
    own: HashMap<String, Arc<Meter<C>>>,
    /// Those without a rate of their own.
    common: HashMap<String, Arc<Meter<C>>>,
    rest: Arc<Meter<C>>,
    forgotten: Counts,
    swept: C::Instant,
}

impl<C: Clock + Clone> Names<C> {
    /// The limits as told, with the state of `old` where the rate is the same.
    fn new(common: Option<Rate>, own: &BTreeMap<String, Rate>, old: Option<&Self>, clock: &C) -> Self {
        let keep = |name: Option<&str>, rate: Option<Rate>| {
            let old = old.and_then(|old| name.map_or(Some(&old.rest), |name| old.find(name)));
            match old {
                Some(old) if old.rate == rate => old.clone(),
                Some(old) => Arc::new(Meter::new(rate, clock).with_counts_of(old)),
                None => Arc::new(Meter::new(rate, clock)),
            }
        };
        let named =
            old.into_iter().flat_map(|old| old.common.keys().chain(old.own.keys())).filter(|name| !own.contains_key(*name));
        Names {
            own: own.iter().map(|(name, rate)| (name.clone(), keep(Some(name), Some(*rate)))).collect(),
            common: named.map(|name| (name.clone(), keep(Some(name), common))).collect(),
            rest: keep(None, common),
            forgotten: old.map_or_else(Counts::default, |old| old.forgotten),
            swept: clock.now(),
        }
    }

    fn find(&self, name: &str) -> Option<&Arc<Meter<C>>> {
        self.own.get(name).or_else(|| self.common.get(name))
    }

    /// The limit of a name that has none yet.
    fn add(&mut self, name: &str, most: usize, clock: &C) -> Arc<Meter<C>> {
        if let Some(meter) = self.find(name) {
            return meter.clone();
        }
        // All are looked through at most once a second, however many new names come.
        if self.common.len() >= most && Duration::from(clock.now().duration_since(self.swept)) >= Duration::from_secs(1) {
            self.swept = clock.now();
            let forgotten = &mut self.forgotten;
            self.common.retain(|_, meter| {
                let idle = meter.is_idle();
                if idle {
                    *forgotten += meter.counts();
                }
                !idle
            });
        }
        if self.common.len() >= most {
            return self.rest.clone();
        }
        self.common.entry(name.into()).or_insert_with(|| Arc::new(Meter::new(self.rest.rate, clock))).clone()
    }

    fn counts(&self) -> (BTreeMap<String, Counts>, Counts) {
        let mut others = self.rest.counts();
        others += self.forgotten;
        (self.own.iter().chain(&self.common).map(|(name, meter)| (name.clone(), meter.counts())).collect(), others)
    }
}

struct Table<C: Clock> {
    limits: Limits,
    tenants: Names<C>,
    models: Names<C>,
}

/// Limits with their state, for all threads.
pub struct RateLimits<C: Clock = DefaultClock> {
    table: RwLock<Table<C>>,
    clock: C,
}

impl RateLimits {
    /// Errors when a rate admits nothing.
    pub fn new(limits: Limits) -> Result<Self> {
        Self::with_clock(limits, DefaultClock::default())
    }
}

impl<C: Clock + Clone> RateLimits<C> {
    /// With another clock than the machine's.
    pub fn with_clock(limits: Limits, clock: C) -> Result<Self> {
        Ok(RateLimits { table: RwLock::new(Table::new(limits, None, &clock)?), clock })
    }

    /// Changes the limits while requests come. Names whose rate stays keep their state, others begin with a full burst.
    pub fn set(&self, limits: Limits) -> Result<()> {
        let mut table = self.write();
        *table = Table::new(limits, Some(&table), &self.clock)?;
        Ok(())
    }

    /// The limits now.
    pub fn limits(&self) -> Limits {
        self.read().limits.clone()
    }

    /// Lets a request in or says why not. `cost` is 1 for a request, or what tenants are to be limited by: rows, tokens. What the tenant's
    /// limit let in and the model's did not is not given back to the tenant.
    pub fn admit(&self, tenant: &str, model: &str, cost: u32) -> Result<(), Throttled> {
        let Some(cost) = NonZeroU32::new(cost) else { return Ok(()) };
        for (by, name) in [(Limited::Tenant, tenant), (Limited::Model, model)] {
            let known = self.read().names(by).find(name).cloned();
            let meter = known.unwrap_or_else(|| {
                let table = &mut *self.write();
                let names = if by == Limited::Tenant { &mut table.tenants } else { &mut table.models };
                names.add(name, table.limits.most_names, &self.clock)
            });
            meter.admit(cost).map_err(|retry_after| Throttled { by, name: name.into(), retry_after })?;
        }
        Ok(())
    }

    /// What was let in and turned away since it began.
    pub fn stats(&self) -> RateStats {
        let table = self.read();
        let ((tenants, other_tenants), (models, other_models)) = (table.tenants.counts(), table.models.counts());
        RateStats { tenants, models, other_tenants, other_models }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table<C>> {
        self.table.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table<C>> {
        self.table.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<C: Clock + Clone> Table<C> {
    fn new(limits: Limits, old: Option<&Table<C>>, clock: &C) -> Result<Self> {
        let rates = limits.tenants.values().chain(limits.models.values()).chain(&limits.tenant).chain(&limits.model);
        rates.into_iter().try_for_each(|rate| rate.quota().map(drop))?;
        let tenants = Names::new(limits.tenant, &limits.tenants, old.map(|old| &old.tenants), clock);
        let models = Names::new(limits.model, &limits.models, old.map(|old| &old.models), clock);
        Ok(Table { limits, tenants, models })
    }

    fn names(&self, kind: Limited) -> &Names<C> {
        match kind {
            Limited::Tenant => &self.tenants,
            Limited::Model => &self.models,
        }
    }
}
