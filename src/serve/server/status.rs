//! What a server tells of itself: one structure, as JSON at `/v2/status` and, by [`super::metrics`], as Prometheus text at `/metrics`.

use std::time::Duration;

use super::loaded::engine_name;
use super::outcomes::Outcomes;
use super::service::Service;
use super::watch::Moment;
use crate::hardware::host::HostMemory;
use crate::serve::alert::Alert;
use crate::serve::cache;
use crate::serve::engine::{ModelStatistics, Statistics};
use crate::serve::limit::RateStats;
use crate::serve::protocol::messages::{InferStatistics, ModelStatistics as Counted};
use crate::serve::registry::VersionStatus;
use crate::session::Report;

/// What is counted wherever requests pass.
#[derive(Clone, Default, serde::Serialize)]
pub(super) struct Figures {
    /// Requests for inference by what became of them.
    pub requests: Outcomes,
    /// The engine's.
    pub engine: Statistics,
    /// The cache's, where there is one.
    pub cache: Option<cache::Stats>,
    /// Tenants and models with what was let in and turned away.
    pub limits: RateStats,
}

impl Figures {
    /// Of this moment.
    pub fn now(service: &Service) -> Self {
        Figures {
            requests: service.ledger.outcomes(),
            engine: service.repository.engine.statistics(),
            cache: service.cache.as_ref().map(|cache| cache.stats()),
            limits: service.rates.stats(),
        }
    }
}

/// A version of a model.
#[derive(serde::Serialize)]
pub(super) struct Version {
    /// What the registry knows.
    #[serde(flatten)]
    pub known: VersionStatus,
    /// What the session did; none unless it is ready. Without the steps of its plan.
    pub session: Option<Report>,
    /// What the engine did with it.
    pub engine: Option<ModelStatistics>,
    /// Its requests by stage, as the protocol counts them.
    pub protocol: Option<InferStatistics>,
}

/// A server at one moment.
#[derive(serde::Serialize)]
pub(super) struct Status {
    pub version: &'static str,
    pub is_ready: bool,
    pub uptime_s: f64,
    /// Requests for inference being served, and the most at one time.
    pub inside: usize,
    pub most_inside: usize,
    /// What answers are due within, where it was told.
    pub target_p99_us: Option<f64>,
    #[serde(flatten)]
    pub figures: Figures,
    pub models: Vec<Version>,
    /// Alerts that fire.
    pub alerts: Vec<Alert>,
    pub host: HostMemory,
    /// The last seconds, oldest first.
    pub history: Vec<Moment>,
    /// As the protocol counts: metrics are made of it.
    #[serde(skip)]
    pub counted: Vec<Counted>,
}

impl Status {
    /// Of this moment.
    pub fn now(service: &Service) -> Self {
        let mut figures = Figures::now(service);
        let mut engines = std::mem::take(&mut figures.engine.models);
        let (ready, counted) = (service.repository.ready(), service.repository.statistics());
        let version = |known: VersionStatus| {
            let (own, is_ready) = (engine_name(&known.name, known.version), known.running.is_some());
            let is_own = |name: &str, version: &str| is_ready && engine_name(name, version) == own;
            let report = ready.iter().find(|m| is_own(&m.name, &m.version)).map(|m| m.report());
            let session = report.map(|report| Report { nodes: Vec::new(), passes: Vec::new(), ..report });
            let engine = engines.iter_mut().rfind(|m| m.name == own && is_ready).map(std::mem::take);
            let protocol = counted.iter().find(|c| is_own(&c.name, &c.version)).and_then(|c| c.inference_stats);
            Version { known, session, engine, protocol }
        };
        let models = service.repository.status().into_iter().map(version).collect();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            is_ready: service.is_ready(),
            uptime_s: service.started.elapsed().as_secs_f64(),
            inside: service.inside(),
            most_inside: service.options.requests,
            target_p99_us: service.options.target.map(us),
            figures,
            models,
            alerts: service.watch.alerts(),
            host: HostMemory::read(),
            history: service.watch.history(),
            counted,
        }
    }
}

/// Microseconds.
pub(super) fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
