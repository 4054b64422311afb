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
use crate::serve::engine::{Engine, Reply, Serving, Submit};
use crate::serve::protocol::messages::{ConfigTensor, ModelConfig, TensorMetadata};
use crate::serve::protocol::{InferRequest, datatype};
use crate::serve::registry::{Footprint, ModelSettings, Running, WarmUp, warm_up};
use crate::session::{Model, Options, Session};

/// A version of a model on a session, which the engine runs.
pub(super) struct Loaded {
    /// The model's name.
    pub name: String,
    /// The version.
    pub version: String,
    /// What became of its requests.
    pub counts: Counts,
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
    ) -> Result<Loaded> {
        let title = format!("{name}:{version}");
        let memory_limit_bytes = settings.memory_limit_bytes.or(options.memory_limit_bytes);
        let options = Options { name: Some(title.clone()), memory_limit_bytes, ..options.clone() };
        let session = Arc::new(Session::new(&Model::open(file)?, options)?);
        let warm_up = match &settings.warm_up[..] {
            [] => warm_up(&session, &[BTreeMap::new()]).unwrap_or_default(),
            shapes => warm_up(&session, shapes)?,
        };
        let id = engine.add(Serving::new(title, session.clone()))?;
        let (name, version, counts) = (name.into(), version.to_string(), Counts::default());
        Ok(Loaded { name, version, counts, session, warm_up, engine: engine.clone(), id })
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
    pub async fn run(&self, request: &InferRequest, deadline: Duration) -> Result<Reply, Failure> {
        let inputs: Vec<(&str, Tensor)> = request.inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
        let priority = class(request.priority);
        let submit = Submit { model: self.id, priority, deadline: Some(deadline), ..Submit::default() };
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

/// The engine's class, of which 0 goes first, for the protocol's priority, of which 1 is the highest and 0 the default: as 2.
fn class(priority: u64) -> u8 {
    u8::try_from(priority.checked_sub(1).unwrap_or(1)).unwrap_or(u8::MAX)
}

/// Declared sizes, -1 for open ones.
fn sizes(port: &Port) -> Vec<i64> {
    let size = |dim: &Dim| if let Dim::Known(n) = dim { *n as i64 } else { -1 };
    port.dims.iter().flatten().map(size).collect()
}
