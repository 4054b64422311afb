//! The models of a folder: which are ready, and why the others are not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::Failure;
use super::loaded::Loaded;
use super::scan::scan;
use crate::base::lock;
use crate::error::Result;
use crate::hardware::DeviceKind;
use crate::serve::engine::Engine;
use crate::serve::protocol::messages::{ModelIndex, ModelStatistics};
use crate::serve::schedule::Batching;
use crate::session::{Options, Precision};

/// The models of a folder, by name and version. Names in requests are only looked up; no path is made of them.
pub struct Repository {
    folder: PathBuf,
    options: Options,
    engine: Arc<Engine>,
    models: Mutex<BTreeMap<String, BTreeMap<u64, State>>>,
    /// Held while models are loaded, so that two loads do not cross.
    loading: Mutex<()>,
}

#[derive(Clone)]
enum State {
    Ready(Arc<Loaded>),
    Loading,
    /// Why.
    Unavailable(String),
}

/// What became of a model at loading.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Served {
    /// The model.
    pub name: String,
    /// The version.
    pub version: u64,
    /// Where it runs, or why it does not.
    #[serde(flatten)]
    pub state: ModelState,
}

/// Where a model runs, or why it does not.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(untagged)]
pub enum ModelState {
    /// It is ready.
    Ready {
        /// Kind of device.
        device: DeviceKind,
        /// The device's name.
        device_name: String,
        /// Arithmetic of heavy operators.
        precision: Precision,
    },
    /// It could not be loaded.
    Unavailable {
        /// Why.
        reason: String,
    },
}

impl Repository {
    /// Loads every model of the folder, for one engine. Errors when the folder cannot be read; a model that cannot be loaded is no error here.
    pub fn open(folder: impl Into<PathBuf>, options: Options, batching: Batching) -> Result<Self> {
        let (models, loading) = Default::default();
        let engine = Arc::new(Engine::with_models(Vec::new(), batching)?);
        let repository = Repository { folder: folder.into(), options, engine, models, loading };
        for name in scan(&repository.folder)?.into_keys() {
            // What fails is kept with its reason.
            drop(repository.load(&name));
        }
        Ok(repository)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Loads the versions of a model that are in the folder now, in the place of those loaded before, which answer until then, and go on
    /// where their successor cannot be loaded. Versions that are gone are unloaded. Errors when there is none, or one of them cannot be
    /// loaded. Takes as long as that takes.
    pub fn load(&self, name: &str) -> Result<(), Failure> {
        let _alone = lock(&self.loading);
        let absent = || Failure::Unknown(format!("no model {name:?} in the repository: ask its index"));
        let files = scan(&self.folder)?.remove(name).ok_or_else(absent)?;
        lock(&self.models).entry(name.into()).or_default().retain(|version, _| files.contains_key(version));
        let mut failed = None;
        for (version, file) in files {
            self.set(name, version, |known| known.is_none().then_some(State::Loading));
            match Loaded::open(name, version, &file, &self.options, &self.engine) {
                Ok(loaded) => self.set(name, version, |_| Some(State::Ready(Arc::new(loaded)))),
                Err(error) => {
                    failed = Some(format!("version {version} of {name:?} cannot be loaded: {error}"));
                    let is_ready = |known: &State| matches!(known, State::Ready(_));
                    self.set(name, version, |k| (!k.is_some_and(is_ready)).then(|| State::Unavailable(error.to_string())));
                }
            }
        }
        failed.map_or(Ok(()), |why| Err(Failure::NotReady(why)))
    }

    fn set(&self, name: &str, version: u64, state: impl FnOnce(Option<&State>) -> Option<State>) {
        let mut models = lock(&self.models);
        let versions = models.entry(name.into()).or_default();
        if let Some(state) = state(versions.get(&version)) {
            versions.insert(version, state);
        }
    }

    /// Takes a model out of service; requests that run are finished. Errors when none of that name is known.
    pub fn unload(&self, name: &str) -> Result<(), Failure> {
        let _alone = lock(&self.loading);
        let mut models = lock(&self.models);
        let versions = models.get_mut(name).ok_or_else(|| unknown(name))?;
        versions.values_mut().for_each(|state| *state = State::Unavailable("unloaded".into()));
        Ok(())
    }

    /// A model's version that is ready: the highest when none is named. Errors say which there are, or why it is not ready.
    pub(super) fn model(&self, name: &str, version: &str) -> Result<Arc<Loaded>, Failure> {
        let models = lock(&self.models);
        let versions = models.get(name).ok_or_else(|| unknown(name))?;
        let ready = |state: &State| if let State::Ready(loaded) = state { Some(loaded.clone()) } else { None };
        let state = match version {
            "" => versions.values().rev().find(|s| ready(s).is_some()).or(versions.values().next_back()),
            given => given.parse().ok().and_then(|v: u64| versions.get(&v)),
        };
        let known = || versions.keys().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let state =
            state.ok_or_else(|| Failure::Unknown(format!("no version {version:?} of model {name:?}; there are {}", known())))?;
        ready(state).ok_or_else(|| Failure::NotReady(format!("model {name:?} is not ready: {}", state.words().1)))
    }

    /// Versions of a model that are ready.
    pub(super) fn versions(&self, name: &str) -> Vec<String> {
        let models = lock(&self.models);
        let versions = models.get(name).into_iter().flatten();
        versions.filter(|(_, s)| matches!(s, State::Ready(_))).map(|(v, _)| v.to_string()).collect()
    }

    /// Every version known, and those in the folder that were never loaded.
    pub(super) fn index(&self, only_ready: bool) -> Vec<ModelIndex> {
        let mut found: BTreeMap<(String, u64), (&str, String)> = BTreeMap::new();
        for (name, versions) in scan(&self.folder).unwrap_or_default() {
            found.extend(versions.into_keys().map(|version| ((name.clone(), version), ("", String::new()))));
        }
        for (name, versions) in lock(&self.models).iter() {
            found.extend(versions.iter().map(|(&version, state)| ((name.clone(), version), state.words())));
        }
        let entry = |((name, version), (state, reason)): ((String, u64), (&str, String))| {
            let (state, version) = (state.to_string(), version.to_string());
            ModelIndex { name, version, state, reason }
        };
        found.into_iter().map(entry).filter(|m| !only_ready || m.state == "READY").collect()
    }

    /// Figures of those that are ready.
    pub(super) fn statistics(&self) -> Vec<ModelStatistics> {
        self.ready().iter().map(|m| m.counts.message(&m.name, &m.version)).collect()
    }

    fn ready(&self) -> Vec<Arc<Loaded>> {
        let models = lock(&self.models);
        let states = models.values().flat_map(|versions| versions.values());
        states.filter_map(|s| if let State::Ready(loaded) = s { Some(loaded.clone()) } else { None }).collect()
    }

    /// What became of each model.
    pub fn served(&self) -> Vec<Served> {
        let models = lock(&self.models);
        let each = models.iter().flat_map(|(name, versions)| versions.iter().map(move |(v, state)| (name, *v, state)));
        each.map(|(name, version, state)| Served { name: name.clone(), version, state: state.told() }).collect()
    }
}

/// Nothing is known of a model of this name.
fn unknown(name: &str) -> Failure {
    Failure::Unknown(format!("no model {name:?}: ask the repository's index"))
}

impl State {
    /// The protocol's word for it, and why.
    fn words(&self) -> (&'static str, String) {
        match self {
            State::Ready(_) => ("READY", String::new()),
            State::Loading => ("LOADING", "it is being loaded".into()),
            State::Unavailable(why) => ("UNAVAILABLE", why.clone()),
        }
    }

    fn told(&self) -> ModelState {
        let State::Ready(loaded) = self else { return ModelState::Unavailable { reason: self.words().1 } };
        let report = loaded.report();
        ModelState::Ready { device: report.device, device_name: report.device_name, precision: report.precision }
    }
}
