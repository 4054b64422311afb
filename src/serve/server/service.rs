//! What the server does, whichever way it is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::loaded::Loaded;
use super::{Failure, Repository, ServerOptions};
use crate::serve::protocol::messages::{ModelMetadataResponse, ModelStatistics, ServerMetadataResponse};
use crate::serve::protocol::{InferReply, InferRequest};
use crate::serve::registry::Outcome;

/// What models are, in metadata.
pub(super) const PLATFORM: &str = "halfbyte_onnx";

/// The extensions of the protocol that are here.
const EXTENSIONS: [&str; 5] =
    ["binary_tensor_data", "model_repository", "model_repository(unload_dependents)", "model_configuration", "statistics"];

/// A repository with its limits.
pub(super) struct Service {
    pub repository: Repository,
    pub options: ServerOptions,
    inside: Arc<Semaphore>,
    draining: AtomicBool,
}

impl Service {
    pub fn new(repository: Repository, options: ServerOptions) -> Self {
        let requests = options.requests.clamp(1, u32::MAX as usize >> 3);
        let (options, inside) = (ServerOptions { requests, ..options }, Arc::new(Semaphore::new(requests)));
        Service { repository, options, inside, draining: AtomicBool::new(false) }
    }

    /// A place for a request, from before its body is read until its reply is made. Errors when there is none, or the server shuts down.
    pub fn admit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        if self.is_draining() {
            return Err(Failure::Draining);
        }
        self.inside.clone().try_acquire_owned().map_err(|_| Failure::Busy(self.options.requests))
    }

    /// Runs a model on a request.
    pub async fn infer(&self, name: &str, version: &str, request: &InferRequest) -> Result<InferReply, Failure> {
        let (chosen, began) = (self.repository.choose(name, version, &request.id)?, Instant::now());
        let model = &chosen.value;
        let limit = request.timeout.map_or(self.options.timeout, |t| t.min(self.options.timeout));
        let deadline = request.timeout.or(self.options.target).map_or(limit, |due| due.min(limit));
        let done = timeout(limit, self.run(model, request, deadline)).await.unwrap_or(Err(Failure::Late(limit)));
        if let Some(failed) = done.as_ref().map_or_else(Failure::is_models, |_| Some(false)) {
            self.repository.record(&chosen, Outcome { failed, latency: began.elapsed() });
        }
        done.inspect_err(|_| model.counts.failed(began.elapsed()))
    }

    async fn run(&self, model: &Loaded, request: &InferRequest, deadline: Duration) -> Result<InferReply, Failure> {
        let reply = model.run(request, deadline).await?;
        let outputs = reply.outputs.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
        let outputs = InferReply::select(outputs, request)?;
        model.counts.succeeded(model.items(request), &reply.trace);
        let (name, version) = (model.name.clone(), model.version.clone());
        Ok(InferReply { model: name, version, id: request.id.clone(), outputs })
    }

    /// Whether requests are taken.
    pub fn is_ready(&self) -> bool {
        !self.is_draining()
    }

    /// Whether a model is ready; the highest version when none is named.
    pub fn model_ready(&self, name: &str, version: &str) -> bool {
        self.is_ready() && self.repository.model(name, version).is_ok()
    }

    /// What the server is.
    pub fn metadata(&self) -> ServerMetadataResponse {
        let extensions = EXTENSIONS.map(String::from).to_vec();
        ServerMetadataResponse { name: "halfbyte".into(), version: env!("CARGO_PKG_VERSION").into(), extensions }
    }

    /// What a model is.
    pub fn model_metadata(&self, name: &str, version: &str) -> Result<ModelMetadataResponse, Failure> {
        let model = self.repository.model(name, version)?;
        let [inputs, outputs] = model.tensors();
        let versions = if version.is_empty() { self.repository.versions(name) } else { vec![model.version.clone()] };
        Ok(ModelMetadataResponse { name: name.into(), versions, platform: PLATFORM.into(), inputs, outputs })
    }

    /// Figures of a version of a model, of all its ready versions, or of all models.
    pub fn statistics(&self, name: &str, version: &str) -> Result<Vec<ModelStatistics>, Failure> {
        if !name.is_empty() {
            self.repository.model(name, version)?;
        }
        let fits = |m: &ModelStatistics| (name.is_empty() || m.name == name) && (version.is_empty() || m.version == version);
        Ok(self.repository.statistics().into_iter().filter(fits).collect())
    }

    /// Changes what the registry was told, away from the threads of the network: see [`Repository::change`].
    pub async fn tell(self: &Arc<Self>, patch: serde_json::Value) -> Result<(), Failure> {
        self.aside(move |service| service.repository.change(patch)).await
    }

    /// Loads or unloads a model away from the threads of the network. Errors on parameters that would bring a model along.
    pub async fn change<'p>(
        self: &Arc<Self>,
        name: String,
        load: bool,
        parameters: impl Iterator<Item = &'p String>,
    ) -> Result<(), Failure> {
        if let Some(own) = parameters.into_iter().find(|p| *p == "config" || p.starts_with("file:")) {
            let why = "models come from the server's folder only";
            return Err(crate::serve::protocol::Malformed::unsupported(format!("parameters.{own}"), why, "leave it out").into());
        }
        self.aside(move |service| if load { service.repository.load(&name) } else { service.repository.unload(&name) }).await
    }

    async fn aside(self: &Arc<Self>, work: impl FnOnce(&Service) -> Result<(), Failure> + Send + 'static) -> Result<(), Failure> {
        let service = self.clone();
        let panicked = |e| crate::Error::Device { device: "repository".into(), why: format!("loading ended in a panic: {e}") };
        tokio::task::spawn_blocking(move || work(&service)).await.map_err(|e| Failure::Run(panicked(e)))?
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Requests inside.
    pub fn inside(&self) -> usize {
        self.options.requests - self.inside.available_permits()
    }

    /// Takes no more requests and waits for those inside; how many are left when the time is over.
    pub async fn drain(&self, time: Duration) -> usize {
        self.draining.store(true, Ordering::SeqCst);
        match timeout(time, self.inside.acquire_many(self.options.requests as u32)).await {
            Ok(_) => 0,
            Err(_) => self.inside(),
        }
    }
}
