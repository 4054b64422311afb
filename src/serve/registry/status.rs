//! A version and how it does, for tables, status pages and metrics.

use super::canary::CanaryStatus;
use super::memory::Footprint;
use super::settings::Ended;
use super::warm::WarmUp;
use crate::hardware::DeviceKind;
use crate::serve::engine::Quantiles;
use crate::session::{Precision, Session, Way};

/// What may be asked of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum State {
    /// Requests.
    Ready,
    /// To wait.
    Loading,
    /// Nothing: the reason says why.
    Unavailable,
}

/// A version and how it does.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct VersionStatus {
    /// The model.
    pub name: String,
    /// The version.
    pub version: u64,
    /// What may be asked of it.
    pub state: State,
    /// Why no requests.
    pub reason: Option<String>,
    /// Other names: of the version, and of the model with this version.
    pub aliases: Vec<String>,
    /// Its share of the requests that name no version.
    pub share: f64,
    /// Whether it is never unloaded to make room.
    pub pinned: bool,
    /// Requests that it was given since it was loaded; what came out of a cache is none.
    pub requests: u64,
    /// Of those, the ones that got no answer through no fault of their callers' or of the queue's.
    pub errors: u64,
    /// From a request's submission to its reply or failure.
    pub latency: Quantiles,
    /// What it took of memory when it became ready.
    pub memory: Option<Footprint>,
    /// What it may take.
    pub memory_limit_bytes: Option<u64>,
    /// Its trial, while it is on trial.
    pub canary: Option<CanaryStatus>,
    /// How its trial ended, where it was the last one on trial.
    pub last_canary: Option<Ended>,
    /// How it runs; `None` unless it is ready.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub running: Option<Running>,
}

/// How a version runs.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Running {
    /// Kind of device.
    pub device: DeviceKind,
    /// The device's name.
    pub device_name: String,
    /// Arithmetic of heavy operators.
    pub precision: Precision,
    /// The ways of running it in the order in which they are tried, and why those that failed did.
    pub ways: Vec<Way>,
    /// Every time that something else than asked for was done, and why: devices passed over, steps down, operators left to the CPU.
    pub notes: Vec<String>,
    /// The runs before it was ready.
    pub warm_up: Vec<WarmUp>,
}

impl Running {
    /// How a session runs.
    pub fn of(session: &Session, warm_up: &[WarmUp]) -> Running {
        let report = session.report();
        Running {
            device: report.device,
            device_name: report.device_name,
            precision: report.precision,
            ways: report.ways,
            notes: report.notes,
            warm_up: warm_up.to_vec(),
        }
    }
}
