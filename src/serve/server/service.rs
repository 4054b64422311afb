//! What the server does, whichever way it is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::call::Call;
use super::keys::Tenant;
use super::outcomes::{Inside, Ledger};
use super::watch::Watch;
use super::{Failure, Repository, ServerOptions};
use crate::error;
use crate::serve::cache::{Answer, Cache};
use crate::serve::limit::RateLimits;
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
    pub cache: Option<Cache<Failure>>,
    pub rates: RateLimits,
    pub ledger: Ledger,
    pub watch: Watch,
    pub started: Instant,
    inside: Arc<Semaphore>,
    draining: AtomicBool,
}

impl Service {
    /// Errors when a rate admits nothing or the address of the cache's second level cannot be read.
    pub fn new(repository: Repository, options: ServerOptions) -> error::Result<Self> {
        let requests = options.requests.clamp(1, u32::MAX as usize >> 3);
        Ok(Service {
            repository,
            cache: options.cache.clone().map(Cache::new).transpose()?,
            rates: RateLimits::new(options.rates.clone())?,
            ledger: Ledger::default(),
            watch: Watch::new(options.rules.clone()),
            started: Instant::now(),
            options: ServerOptions { requests, ..options },
            inside: Arc::new(Semaphore::new(requests)),
            draining: AtomicBool::new(false),
        })
    }

    /// Who asks; `None` without a valid key.
    pub fn tenant(&self, headers: &HeaderMap) -> Option<Tenant> {
        let tenant = self.options.keys.admit(headers)?;
        let named = self.options.tenant_header.as_ref().and_then(|header| headers.get(header)?.to_str().ok());
        Some(named.map_or(tenant, |name| Tenant(name.into())))
    }

    /// A place for a request, from before its body is read until its reply is made. Errors when there is none, or the server shuts down.
    pub fn admit(&self) -> Result<Inside, Failure> {
        let place = match self.is_draining() {
            true => Err(Failure::Draining),
            false => self.inside.clone().try_acquire_owned().map_err(|_| Failure::Busy(self.options.requests)),
        };
        if place.is_err() {
            self.ledger.count(&place);
        }
        Ok(Inside::new(self.ledger.clone(), place?))
    }

    /// Errors when a tenant asks more often than it may, or all of them ask a model more often. What is no model's name is not counted.
    pub fn pace(&self, tenant: &Tenant, model: &str) -> Result<(), Failure> {
        let Ok(model) = self.repository.model(model, "") else { return Ok(()) };
        Ok(self.rates.admit(&tenant.0, &model.name, 1)?)
    }

    /// Answers a request with what its model gives.
    pub async fn infer(&self, tenant: &Tenant, name: &str, version: &str, request: &InferRequest) -> Result<InferReply, Failure> {
        let (chosen, began) = (self.repository.choose(name, version, &request.id)?, Instant::now());
        let model = &chosen.value;
        let limit = request.timeout.map_or(self.options.timeout, |t| t.min(self.options.timeout));
        let deadline = request.timeout.or(self.options.target).map_or(limit, |due| due.min(limit));
        let call = Call { model, tenant, request, began, due: began + deadline, is_computed: AtomicBool::new(false) };
        let done = timeout(limit, self.answer(&call)).await.unwrap_or(Err(Failure::Late(limit)));
        if call.is_computed.into_inner() && done.as_ref().err().is_none_or(Failure::is_models) {
            self.repository.record(&chosen, Outcome { failed: done.is_err(), latency: began.elapsed() });
        }
        let outputs = done.inspect_err(|_| model.counts.failed(began.elapsed()))?.to_vec();
        let (name, version) = (model.name.clone(), model.version.clone());
        Ok(InferReply { model: name, version, id: request.id.clone(), outputs })
    }

    async fn answer(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let partition = if self.options.cache_by_tenant { &*call.tenant.0 } else { "" };
        match self.cache.as_ref().zip(call.model.scope(partition)) {
            None => call.compute().await,
            Some((cache, scope)) => {
                let outputs: Vec<&str> = call.request.outputs.iter().map(|o| o.name.as_str()).collect();
                let key = scope.key(&outputs, call.request.inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)));
                call.answer(cache, key).await
            }
        }
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
        let own = if name.is_empty() { None } else { Some(self.repository.model(name, version)?) };
        let fits = |m: &ModelStatistics| {
            own.as_ref().is_none_or(|own| m.name == own.name && (version.is_empty() || m.version == own.version))
        };
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
