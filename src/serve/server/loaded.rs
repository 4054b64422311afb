//! A version of a model, ready to run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Failure;
use super::statistics::Counts;
use crate::base::{DType, Tensor};
use crate::error::Result;
use crate::graph::{Dim, Port};
use crate::serve::cache::{Digest, Identity, Scope};
use crate::serve::engine::{Engine, Reply, Serving, Submit};
use crate::serve::protocol::messages::{ConfigTensor, ModelConfig, TensorMetadata};
use crate::serve::protocol::{InferRequest, datatype};
use crate::serve::registry::{Footprint, ModelSettings, Running, WarmUp, warm_up};
use crate::session::{Model, Options, Report, Session};

/// A version of a model on a session, which the engine runs.
pub(super) struct Loaded {
    /// The model's name.
    pub name: String,
    /// The version.
    pub version: String,
    /// What became of its requests.
    pub counts: Counts,
    /// The hash of all that its answers depend on besides inputs; `None` where it was not asked for.
    weights: Option<Digest>,
    /// Where and how exactly it computes, as one text.
    precision: String,
    session: Arc<Session>,
    warm_up: Vec<WarmUp>,
    engine: Arc<Engine>,
    /// The engine's number of it.
    id: u32,
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.engine.remove(self.id);
    }
}

impl Loaded {
    /// Opens the file, makes a session within the model's budget, runs it once on each shape of its warm-up, and gives it to the engine. Where
    /// none is asked for a run with all open sizes 1 prepares weights, if the model can do that.
    pub fn open(
        name: &str,
        version: u64,
        file: &Path,
        options: &Options,
        settings: &ModelSettings,
        engine: &Arc<Engine>,
        identify: bool,
    ) -> Result<Loaded> {
        let title = engine_name(name, version);
        let memory_limit_bytes = settings.memory_limit_bytes.or(options.memory_limit_bytes);
        let options = Options { name: Some(title.clone()), memory_limit_bytes, ..options.clone() };
        let model = Model::open(file)?;
        let weights = identify.then(|| identity(file, &model)).transpose()?;
        let session = Arc::new(Session::new(&model, options)?);
        let warm_up = match &settings.warm_up[..] {
            [] => warm_up(&session, &[BTreeMap::new()]).unwrap_or_default(),
            shapes => warm_up(&session, shapes)?,
        };
        let id = engine.add(Serving::new(title, session.clone()))?;
        let Report { device, precision, .. } = session.report();
        let precision = format!("{device:?} {precision:?}");
        let (name, version, counts) = (name.into(), version.to_string(), Counts::default());
        Ok(Loaded { name, version, counts, weights, precision, session, warm_up, engine: engine.clone(), id })
    }

    /// What the session did so far.
    pub fn report(&self) -> Report {
        self.session.report()
    }

    /// What the answers that a tenant may find in the cache have in common; `None` where they must not be kept.
    pub fn scope(&self, partition: &str) -> Option<Scope> {
        let (model, version, precision) = (&self.name, &self.version, &self.precision);
        Some(Scope::new(&Identity { model, version, weights: self.weights?, precision, partition }))
    }

    /// What it takes of memory so far.
    pub fn memory(&self) -> Footprint {
        Footprint::of(&self.session)
    }

    /// How it runs.
    pub fn running(&self) -> Running {
        Running::of(&self.session, &self.warm_up)
    }

    /// Has the engine run a request, in a batch with others where there are any. Dropped before it runs, it never does.
    pub async fn run(&self, request: &InferRequest, tenant: u32, deadline: Duration) -> Result<Reply, Failure> {
        let inputs: Vec<(&str, Tensor)> = request.inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
        let priority = class(request.priority);
        let submit = Submit { model: self.id, tenant, priority, deadline: Some(deadline) };
        Ok(self.engine.submit_with(&inputs, &submit)?.await?)
    }

    /// Items of a request: the first size of the first input, where the model leaves that open.
    pub fn items(&self, request: &InferRequest) -> u64 {
        let first = self.session.model().inputs().next();
        let open = first.filter(|(_, port)| !matches!(port.dims.as_ref().and_then(|d| d.first()), None | Some(Dim::Known(_))));
        let given = open.and_then(|(name, _)| request.inputs.iter().find(|(n, _)| n == name));
        given.and_then(|(_, tensor)| tensor.shape().first()).map_or(1, |&n| n as u64)
    }

    /// The tensors that it takes and gives.
    pub fn tensors(&self) -> [Vec<TensorMetadata>; 2] {
        let model = self.session.model();
        let of = |(name, port): (&str, &Port)| TensorMetadata {
            name: name.into(),
            datatype: port.dtype.map(datatype).unwrap_or_default().into(),
            shape: sizes(port),
        };
        [model.inputs().map(of).collect(), model.outputs().map(of).collect()]
    }

    /// As Triton describes a model: shapes are whole (`max_batch_size` is 0).
    pub fn config(&self) -> ModelConfig {
        let model = self.session.model();
        let dtype = |port: &Port| port.dtype.unwrap_or(DType::F32);
        ModelConfig {
            name: self.name.clone(),
            platform: super::service::PLATFORM.into(),
            backend: "halfbyte".into(),
            max_batch_size: 0,
            input: model.inputs().map(|(n, p)| ConfigTensor::input(n, dtype(p), sizes(p))).collect(),
            output: model.outputs().map(|(n, p)| ConfigTensor::output(n, dtype(p), sizes(p))).collect(),
            default_model_filename: "model.onnx".into(),
        }
    }
}

/// What the engine's figures call a version of a model.
pub(super) fn engine_name(name: &str, version: impl std::fmt::Display) -> String {
    format!("{name}:{version}")
}

/// The hash of a model's file and of its constants, some of which may lie in other files.
fn identity(file: &Path, model: &Model) -> Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&Digest::of_file(file)?.0);
    for constant in model.graph().values.iter().filter_map(|value| value.constant.as_ref()) {
        hasher.update(&(constant.bytes().len() as u64).to_le_bytes()).update(constant.bytes());
    }
    Ok(Digest(hasher.finalize().into()))
}

/// The engine's class, of which 0 goes first, for the protocol's priority, of which 1 is the highest and 0 the default: as 2.
fn class(priority: u64) -> u8 {
    u8::try_from(priority.checked_sub(1).unwrap_or(1)).unwrap_or(u8::MAX)
}

/// Declared sizes, -1 for open ones.
fn sizes(port: &Port) -> Vec<i64> {
    let size = |dim: &Dim| if let Dim::Known(n) = dim { *n as i64 } else { -1 };
    port.dims.iter().flatten().map(size).collect()
}
