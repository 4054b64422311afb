//! The models of a folder: which are ready, and why the others are not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::loaded::Loaded;
use super::scan::scan;
use super::{Failure, file};
use crate::base::lock;
use crate::error::Result;
use crate::serve::engine::Engine;
use crate::serve::protocol::messages::{ModelIndex, ModelStatistics};
use crate::serve::registry::{Absent, Chosen, Outcome, Registry, Settings, State, VersionStatus};
use crate::serve::schedule::Batching;
use crate::session::Options;

/// The models of a folder, by name and version, with what `registry.json` says of them. Names in requests are only looked up; no path is made
/// of them.
pub struct Repository {
    folder: PathBuf,
    options: Options,
    identify: bool,
    pub(super) engine: Arc<Engine>,
    registry: Registry<Loaded>,
    /// Held while models are loaded, so that two loads do not cross.
    loading: Mutex<()>,
    /// Held while settings are changed; why they could not be written the last time.
    telling: Mutex<Option<String>>,
}

/// Settings, and whether they will be there after a restart.
#[derive(Debug, Clone, serde::Serialize)]
pub(super) struct Told {
    #[serde(flatten)]
    settings: Settings,
    /// Why the file does not say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    unwritten: Option<String>,
}

impl From<Absent> for Failure {
    fn from(absent: Absent) -> Failure {
        match absent {
            Absent::Unknown(why) => Failure::Unknown(why),
            Absent::NotReady(why) => Failure::NotReady(why),
        }
    }
}

impl Repository {
    /// Loads the models of the folder that are to be there from the start, for one engine. Errors when the folder cannot be read or its
    /// `registry.json` is wrong; a model that cannot be loaded is no error here.
    /// `identify` hashes each model's file and weights, which a cache of results needs.
    pub fn open(folder: impl Into<PathBuf>, options: Options, batching: Batching, identify: bool) -> Result<Self> {
        let folder = folder.into();
        let files = scan(&folder)?;
        let settings = file::read(&folder.join(file::NAME))?;
        let engine = Arc::new(Engine::with_models(Vec::new(), batching)?);
        let registry = Registry::new(settings.clone())?;
        let repository =
            Repository { folder, options, identify, engine, registry, loading: Mutex::default(), telling: Mutex::default() };
        for (name, versions) in files {
            if settings.model(&name).preload {
                // What fails is kept with its reason.
                drop(repository.load(&name));
            } else {
                let why = "it is not loaded at the start, as preload says: load it";
                versions.into_keys().for_each(|version| repository.registry.unavailable(&name, version, why));
            }
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
        self.load_those(name, |_| true)
    }

    fn load_those(&self, name: &str, wanted: impl Fn(u64) -> bool) -> Result<(), Failure> {
        let _alone = lock(&self.loading);
        let absent = || Failure::Unknown(format!("no model {name:?} in the repository: ask its index"));
        let files = scan(&self.folder)?.remove(name).ok_or_else(absent)?;
        self.registry.retain(name, |version| files.contains_key(&version));
        let mut failed = None;
        for (version, file) in files.into_iter().filter(|(version, _)| wanted(*version)) {
            self.registry.loading(name, version);
            let settings = self.registry.settings().model(name);
            let loaded = Loaded::open(name, version, &file, &self.options, &settings, &self.engine, self.identify);
            let put = loaded.and_then(|loaded| {
                let memory = loaded.memory();
                self.registry.put(name, version, loaded, memory)
            });
            if let Err(error) = put {
                self.registry.unavailable(name, version, error.to_string());
                failed = Some(format!("version {version} of {name:?} cannot be loaded: {error}"));
            }
        }
        failed.map_or(Ok(()), |why| Err(Failure::NotReady(why)))
    }

    /// Takes a model out of service; requests that run are finished. Errors when none of that name is known.
    pub fn unload(&self, name: &str) -> Result<(), Failure> {
        let _alone = lock(&self.loading);
        Ok(self.registry.unload(name, "unloaded")?)
    }

    /// What the registry was told, and what trials made of it.
    pub(super) fn settings(&self) -> Told {
        let unwritten = lock(&self.telling).clone();
        Told { settings: self.registry.settings(), unwritten }
    }

    /// Changes what the registry was told by a JSON merge patch (RFC 7386), and writes it to `registry.json`. A version that goes on trial is
    /// loaded where it is not ready. Errors where that makes no sense, the file cannot be written or the version cannot be loaded; nothing
    /// is changed in the first two cases.
    pub fn change(&self, patch: Value) -> Result<(), Failure> {
        let mut unwritten = lock(&self.telling);
        let before = self.registry.settings();
        let settings = file::patched(&before, patch)?;
        self.registry.set(settings.clone())?;
        if let Err(error) = file::write(&self.folder.join(file::NAME), &settings) {
            self.registry.set(before)?;
            return Err(error.into());
        }
        *unwritten = None;
        drop(unwritten);
        for (name, model) in &settings.models {
            let on_trial = model.canary.as_ref().map(|trial| trial.version);
            if let Some(version) = on_trial.filter(|version| self.registry.find(name, &version.to_string()).is_err()) {
                self.load_those(name, |v| v == version)?;
                self.registry.find(name, &version.to_string())?;
            }
        }
        Ok(())
    }

    /// A model's version that is ready: the one with the largest share when none is named. Errors say which there are, or why it is not ready.
    pub(super) fn model(&self, name: &str, version: &str) -> Result<Arc<Loaded>, Failure> {
        Ok(self.registry.find(name, version)?)
    }

    /// The version that answers a request; equal keys get equal ones as long as shares stay.
    pub(super) fn choose(&self, name: &str, version: &str, key: &str) -> Result<Chosen<Loaded>, Failure> {
        Ok(self.registry.choose(name, version, Some(key).filter(|key| !key.is_empty()))?)
    }

    /// Counts what became of a request, and keeps it where that ended a trial.
    pub(super) fn record(&self, chosen: &Chosen<Loaded>, outcome: Outcome) {
        if self.registry.record(chosen, outcome) {
            let mut unwritten = lock(&self.telling);
            let written = file::write(&self.folder.join(file::NAME), &self.registry.settings());
            *unwritten = written.err().map(|e| e.to_string());
        }
    }

    /// Versions of a model, or of the one that an alias stands for, that are ready.
    pub(super) fn versions(&self, name: &str) -> Vec<String> {
        let own = self.registry.find(name, "").map_or_else(|_| name.to_string(), |m| m.name.clone());
        self.registry.values().iter().filter(|m| m.name == own).map(|m| m.version.clone()).collect()
    }

    /// Every version known, and those in the folder that were never loaded.
    pub(super) fn index(&self, only_ready: bool) -> Vec<ModelIndex> {
        let mut found: BTreeMap<(String, u64), (&str, String)> = BTreeMap::new();
        for (name, versions) in scan(&self.folder).unwrap_or_default() {
            found.extend(versions.into_keys().map(|version| ((name.clone(), version), ("", String::new()))));
        }
        let word = |state| match state {
            State::Ready => "READY",
            State::Loading => "LOADING",
            State::Unavailable => "UNAVAILABLE",
        };
        let known = self.registry.status(|_| None).into_iter();
        found.extend(known.map(|s| ((s.name, s.version), (word(s.state), s.reason.unwrap_or_default()))));
        let entry = |((name, version), (state, reason)): ((String, u64), (&str, String))| {
            let (state, version) = (state.to_string(), version.to_string());
            ModelIndex { name, version, state, reason }
        };
        found.into_iter().map(entry).filter(|m| !only_ready || m.state == "READY").collect()
    }

    /// Figures of those that are ready.
    pub(super) fn statistics(&self) -> Vec<ModelStatistics> {
        self.registry.values().iter().map(|m| m.counts.message(&m.name, &m.version)).collect()
    }

    /// Those that are ready.
    pub(super) fn ready(&self) -> Vec<Arc<Loaded>> {
        self.registry.values()
    }

    /// Every version known and how it does.
    pub fn status(&self) -> Vec<VersionStatus> {
        self.registry.status(|loaded| Some(loaded.running()))
    }
}
