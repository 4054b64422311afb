//! Versions of models by name, and which of them answers a request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::canary::{Canary, Outcome, Verdict};
use super::memory::{Footprint, Holder, room};
use super::settings::{Ended, ModelSettings, Settings};
use super::shares::{choose, of_count, of_key};
use super::status::{Running, State, VersionStatus};
use crate::base::lock;
use crate::error::{Error, Result};
use crate::serve::engine::Histogram;

/// Versions of models, each a `T`: whatever runs it. Shared freely between threads.
pub struct Registry<T> {
    kept: Mutex<Kept<T>>,
    began: Instant,
}

struct Kept<T> {
    settings: Settings,
    models: BTreeMap<String, Entry<T>>,
}

/// A model.
struct Entry<T> {
    versions: BTreeMap<u64, Slot<T>>,
    canary: Option<Canary>,
    /// Requests without a key so far.
    asked: u64,
}

impl<T> Default for Entry<T> {
    fn default() -> Self {
        Entry { versions: BTreeMap::new(), canary: None, asked: 0 }
    }
}

enum Slot<T> {
    Ready(Ready<T>),
    Loading,
    /// Why.
    Unavailable(String),
}

struct Ready<T> {
    value: Arc<T>,
    memory: Footprint,
    /// When it was asked last.
    used: Duration,
    errors: u64,
    latency: Histogram,
}

/// Why no version answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// There is none of that name or number.
    #[error("{0}")]
    Unknown(String),
    /// There is, but it cannot be asked now.
    #[error("{0}")]
    NotReady(String),
}

impl Absent {
    fn model(name: &str) -> Self {
        Absent::Unknown(format!("no model {name:?}: ask the repository's index"))
    }
}

impl From<Absent> for Error {
    fn from(absent: Absent) -> Error {
        Error::BadInput(absent.to_string())
    }
}

/// The version that answers a request.
pub struct Chosen<T> {
    /// The model's own name.
    pub model: String,
    /// The version.
    pub version: u64,
    /// What runs it.
    pub value: Arc<T>,
    /// Whether it was chosen by the model's shares: only then the request counts in a trial.
    is_shared: bool,
}

impl<T> Registry<T> {
    /// Without a version yet. Errors where the settings make no sense: see [`Settings::check`].
    pub fn new(settings: Settings) -> Result<Self> {
        let kept = Kept { settings: Settings::default(), models: BTreeMap::new() };
        let registry = Registry { kept: Mutex::new(kept), began: Instant::now() };
        registry.set(settings)?;
        Ok(registry)
    }

    /// What it was told, and what trials made of it.
    pub fn settings(&self) -> Settings {
        lock(&self.kept).settings.clone()
    }

    /// Tells it something else, while requests come: a trial that is new begins, one that is gone ends. Errors where that makes no sense;
    /// nothing is changed then.
    pub fn set(&self, settings: Settings) -> Result<()> {
        settings.check()?;
        let kept = &mut *lock(&self.kept);
        if let Some(name) = settings.aliases.keys().find(|alias| kept.models.contains_key(*alias)) {
            return Err(Error::BadInput(format!("registry: aliases.{name}: there is a model of this name; take another")));
        }
        for (name, model) in &settings.models {
            let entry = kept.models.entry(name.clone()).or_default();
            if model.canary != kept.settings.model(name).canary {
                entry.canary = model.canary.as_ref().map(|trial| Canary::new(trial.rules.clone(), self.began.elapsed()));
            }
        }
        kept.models
            .iter_mut()
            .filter(|(name, _)| !settings.models.contains_key(*name))
            .for_each(|(_, entry)| entry.canary = None);
        kept.settings = settings;
        Ok(())
    }

    /// Says that a version is being loaded, where none of its number is ready.
    pub fn loading(&self, name: &str, version: u64) {
        self.unless_ready(name, version, Slot::Loading);
    }

    /// Says why a version cannot be asked, where none of its number is ready.
    pub fn unavailable(&self, name: &str, version: u64, why: impl Into<String>) {
        self.unless_ready(name, version, Slot::Unavailable(why.into()));
    }

    fn unless_ready(&self, name: &str, version: u64, slot: Slot<T>) {
        let kept = &mut *lock(&self.kept);
        let versions = &mut kept.models.entry(name.into()).or_default().versions;
        if !matches!(versions.get(&version), Some(Slot::Ready(_))) {
            versions.insert(version, slot);
        }
    }

    /// Lets a version be asked from now on, in the place of the one of its number, which those go on with who have it. Gives the versions that
    /// were unloaded to make room. Errors, with figures and cure, where it takes more memory than it may or than is left.
    pub fn put(&self, name: &str, version: u64, value: T, memory: Footprint) -> Result<Vec<Arc<T>>> {
        let now = self.began.elapsed();
        let kept = &mut *lock(&self.kept);
        let refused = |why| Error::BadInput(format!("version {version} of {name:?}: {why}"));
        let going = kept.room(name, version, memory).map_err(refused)?;
        let why = format!("unloaded to make room for version {version} of {name:?}: load it again, or raise memory_limit_bytes");
        let gone = going.into_iter().filter_map(|holder| {
            let slot = kept.models.get_mut(&holder.model)?.versions.get_mut(&holder.version)?;
            let Slot::Ready(ready) = std::mem::replace(slot, Slot::Unavailable(why.clone())) else { return None };
            Some(ready.value)
        });
        let gone = gone.collect();
        let ready = Ready { value: Arc::new(value), memory, used: now, errors: 0, latency: Histogram::default() };
        kept.models.entry(name.into()).or_default().versions.insert(version, Slot::Ready(ready));
        Ok(gone)
    }

    /// Takes versions of a model out of service; those who have one go on with it. Errors where the model is not known.
    pub fn unload(&self, name: &str, why: &str) -> Result<(), Absent> {
        let kept = &mut *lock(&self.kept);
        let known = kept.models.get_mut(name).filter(|entry| !entry.versions.is_empty());
        let entry = known.ok_or_else(|| Absent::model(name))?;
        entry.versions.values_mut().for_each(|slot| *slot = Slot::Unavailable(why.into()));
        Ok(())
    }

    /// Forgets the versions of a model that are not `kept`.
    pub fn retain(&self, name: &str, kept: impl Fn(u64) -> bool) {
        if let Some(entry) = lock(&self.kept).models.get_mut(name) {
            entry.versions.retain(|version, _| kept(*version));
        }
    }

    /// The version that answers a request: the one that is named, by number or by alias, else the one that the model's shares choose, by the
    /// key where there is one (equal keys get equal versions as long as shares stay), else in turn. `name` is the model's or an alias.
    pub fn choose(&self, name: &str, version: &str, key: Option<&str>) -> Result<Chosen<T>, Absent> {
        let now = self.began.elapsed();
        let kept = &mut *lock(&self.kept);
        let (model, named) = kept.resolve(name, version)?;
        let is_shared = named.is_none();
        let version = match named {
            Some(version) => version,
            None => {
                let shares = kept.shares(&model);
                let entry = kept.models.entry(model.clone()).or_default();
                let point = key.map_or_else(
                    || {
                        entry.asked += 1;
                        of_count(entry.asked)
                    },
                    |key| of_key(&model, key),
                );
                choose(&shares, point).ok_or_else(|| kept.none_ready(&model))?
            }
        };
        let ready = kept.ready(&model, version)?;
        ready.used = now;
        Ok(Chosen { value: ready.value.clone(), model, version, is_shared })
    }

    /// The version that is named, else the one with the largest share: for questions about a model.
    pub fn find(&self, name: &str, version: &str) -> Result<Arc<T>, Absent> {
        let kept = &mut *lock(&self.kept);
        let (model, named) = kept.resolve(name, version)?;
        let largest = || kept.shares(&model).into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(version, _)| version);
        let version = named.or_else(largest).ok_or_else(|| kept.none_ready(&model))?;
        kept.ready(&model, version).map(|ready| ready.value.clone())
    }

    /// Counts what became of a request. True when a trial ended by it, and so the settings are others now.
    pub fn record(&self, chosen: &Chosen<T>, outcome: Outcome) -> bool {
        let now = self.began.elapsed();
        let kept = &mut *lock(&self.kept);
        let trial = kept.settings.models.get(&chosen.model).and_then(|m| m.canary.as_ref()).map(|trial| trial.version);
        let Some(entry) = kept.models.get_mut(&chosen.model) else { return false };
        match entry.versions.get_mut(&chosen.version) {
            Some(Slot::Ready(ready)) if Arc::ptr_eq(&ready.value, &chosen.value) => {
                ready.errors += u64::from(outcome.failed);
                ready.latency.record(outcome.latency, 1);
            }
            // It was replaced meanwhile.
            _ => return false,
        }
        let Some(canary) = entry.canary.as_mut().filter(|_| chosen.is_shared) else { return false };
        if trial != Some(chosen.version) {
            canary.record_other(outcome);
            return false;
        }
        match canary.record(outcome, now) {
            Verdict::Stay | Verdict::Step => false,
            Verdict::Promote => kept.end(&chosen.model, chosen.version, "it held at every step".into(), true),
            Verdict::RollBack(why) => kept.end(&chosen.model, chosen.version, why, false),
        }
    }

    /// Those that are ready.
    pub fn values(&self) -> Vec<Arc<T>> {
        let kept = lock(&self.kept);
        let ready = kept.models.values().flat_map(|e| e.versions.values());
        ready.filter_map(|slot| if let Slot::Ready(ready) = slot { Some(ready.value.clone()) } else { None }).collect()
    }

    /// Every version known and how it does; `running` tells how it runs.
    pub fn status(&self, running: impl Fn(&T) -> Option<Running>) -> Vec<VersionStatus> {
        let kept = lock(&self.kept);
        let versions =
            kept.models.iter().flat_map(|(name, entry)| entry.versions.iter().map(move |version| (name, entry, version)));
        let all: Vec<_> = versions.map(|(name, entry, (&version, slot))| kept.status(name, entry, version, slot)).collect();
        // Asking how a version runs may take a while.
        drop(kept);
        all.into_iter().map(|(status, value)| VersionStatus { running: value.and_then(|v| running(&v)), ..status }).collect()
    }
}

impl<T> Kept<T> {
    /// The model's own name, and the version where one is meant.
    fn resolve(&self, name: &str, version: &str) -> Result<(String, Option<u64>), Absent> {
        let is_known = |name: &str| self.models.get(name).is_some_and(|entry| !entry.versions.is_empty());
        let alias = self.settings.aliases.get(name).filter(|_| !is_known(name));
        let model = alias.map_or(name, |alias| &alias.model);
        let entry = self.models.get(model).filter(|_| is_known(model)).ok_or_else(|| Absent::model(name))?;
        let fixed = alias.and_then(|alias| alias.version);
        let aliased = || self.settings.models.get(model)?.aliases.get(version).copied();
        let named = if version.is_empty() { fixed } else { version.parse().ok().or_else(aliased) };
        let is_there = |v: u64| entry.versions.contains_key(&v) && fixed.is_none_or(|fixed| fixed == v);
        if !named.map_or(version.is_empty(), is_there) {
            let known = entry.versions.keys().map(u64::to_string).collect::<Vec<_>>().join(", ");
            let asked = named.map_or(version.to_string(), |v| v.to_string());
            return Err(Absent::Unknown(format!("no version {asked:?} of model {name:?}; there are {known}")));
        }
        Ok((model.into(), named))
    }

    /// Shares of the versions that are ready, together 1, the one on trial last.
    fn shares(&self, name: &str) -> Vec<(u64, f64)> {
        let (Some(entry), settings) = (self.models.get(name), self.settings.models.get(name)) else { return Vec::new() };
        let trial = settings.and_then(|m| m.canary.as_ref()).map(|t| t.version);
        let ready = entry.versions.iter().filter(|(_, slot)| matches!(slot, Slot::Ready(_))).map(|(v, _)| *v);
        let (on_trial, others): (Vec<u64>, Vec<u64>) = ready.partition(|v| Some(*v) == trial);
        let mut shares: Vec<(u64, f64)> = match settings.map(|m| &m.weights).filter(|w| !w.is_empty()) {
            Some(weights) => others.iter().filter_map(|v| Some((*v, *weights.get(v)?))).collect(),
            None => others.last().map(|v| (*v, 1.0)).into_iter().collect(),
        };
        let sum: f64 = shares.iter().map(|(_, weight)| weight).sum();
        shares.retain(|(_, weight)| *weight > 0.0);
        let own = entry.canary.as_ref().map_or(0.0, Canary::share);
        let own = if shares.is_empty() {
            1.0
        } else if on_trial.is_empty() {
            0.0
        } else {
            own
        };
        shares.iter_mut().for_each(|(_, weight)| *weight *= (1.0 - own) / sum);
        shares.extend(on_trial.into_iter().map(|v| (v, own)));
        shares
    }

    fn ready(&mut self, name: &str, version: u64) -> Result<&mut Ready<T>, Absent> {
        let why = match self.models.get_mut(name).and_then(|entry| entry.versions.get_mut(&version)) {
            Some(Slot::Ready(ready)) => return Ok(ready),
            Some(Slot::Loading) => "it is being loaded",
            Some(Slot::Unavailable(why)) => why,
            None => "it is gone",
        };
        Err(Absent::NotReady(format!("model {name:?} is not ready: {why}")))
    }

    /// Why no version has a share.
    fn none_ready(&mut self, name: &str) -> Absent {
        let highest = self.models.get(name).and_then(|entry| entry.versions.keys().next_back().copied());
        match highest.map(|version| self.ready(name, version).map(drop)) {
            Some(Err(absent)) => absent,
            _ => Absent::NotReady(format!(
                "model {name:?} is not ready: weights name no version that is; change them, or load one"
            )),
        }
    }

    /// Versions that must go so that another has room.
    fn room(&self, name: &str, version: u64, memory: Footprint) -> Result<Vec<Holder>, String> {
        memory.check(name, self.settings.model(name).memory_limit_bytes)?;
        let mut held = Vec::new();
        for (model, entry) in &self.models {
            let may_go = !self.settings.models.get(model).is_some_and(|m| m.pinned);
            for (&v, slot) in entry.versions.iter().filter(|(v, _)| (model.as_str(), **v) != (name, version)) {
                if let Slot::Ready(ready) = slot {
                    let used = ready.used.as_nanos() as u64;
                    held.push(Holder { model: model.clone(), version: v, bytes: ready.memory.bytes(), used, may_go });
                }
            }
        }
        room(held, memory.bytes(), self.settings.memory_limit_bytes, self.settings.when_full)
    }

    /// Ends a trial. False where no other version could take the requests.
    fn end(&mut self, name: &str, version: u64, reason: String, promoted: bool) -> bool {
        let others: Vec<(u64, f64)> = self.shares(name).into_iter().filter(|(v, _)| *v != version).collect();
        if others.is_empty() && !promoted {
            return false;
        }
        let at_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let model: &mut ModelSettings = self.settings.models.entry(name.into()).or_default();
        model.weights.remove(&version);
        if promoted {
            model.weights = [(version, 1.0)].into();
        } else if model.weights.is_empty() {
            model.weights = others.into_iter().map(|(v, _)| (v, 1.0)).collect();
        }
        model.canary = None;
        model.last_canary = Some(Ended { version, promoted, reason, at_s });
        if let Some(entry) = self.models.get_mut(name) {
            entry.canary = None;
        }
        true
    }

    /// All but how it runs, and what runs it.
    fn status(&self, name: &str, entry: &Entry<T>, version: u64, slot: &Slot<T>) -> (VersionStatus, Option<Arc<T>>) {
        let (settings, shares) = (self.settings.model(name), self.shares(name));
        let of_version = settings.aliases.iter().filter(|(_, v)| **v == version).map(|(alias, _)| alias);
        let of_model =
            self.settings.aliases.iter().filter(|(_, a)| a.model == name && a.version == Some(version)).map(|(alias, _)| alias);
        let is_trial = settings.canary.as_ref().is_some_and(|trial| trial.version == version);
        let (state, reason, ready) = match slot {
            Slot::Ready(ready) => (State::Ready, None, Some(ready)),
            Slot::Loading => (State::Loading, Some("it is being loaded".to_string()), None),
            Slot::Unavailable(why) => (State::Unavailable, Some(why.clone()), None),
        };
        let latency = ready.map(|r| r.latency.quantiles()).unwrap_or_default();
        let status = VersionStatus {
            name: name.into(),
            version,
            state,
            reason,
            aliases: of_version.chain(of_model).cloned().collect(),
            share: shares.iter().find(|(v, _)| *v == version).map_or(0.0, |(_, share)| *share),
            pinned: settings.pinned,
            requests: latency.count,
            errors: ready.map_or(0, |r| r.errors),
            latency,
            memory: ready.map(|r| r.memory),
            memory_limit_bytes: settings.memory_limit_bytes,
            canary: entry.canary.as_ref().filter(|_| is_trial).map(Canary::status),
            last_canary: settings.last_canary.filter(|ended| ended.version == version),
            running: None,
        };
        (status, ready.map(|r| r.value.clone()))
    }
}
