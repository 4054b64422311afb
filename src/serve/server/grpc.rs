//! The calls of `inference.GRPCInferenceService`. To add one: its messages in `protocol::messages`, an arm in [`call`], a line in
//! docs/server.md.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use prost::Message;
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt};
use tonic::server::Grpc;
use tonic::{Status, Streaming};
use tower::service_fn;

use super::Failure;
use super::codec::Raw;
use super::keys::Tenant;
use super::service::Service;
use crate::serve::protocol::messages::{
    Empty, ModelConfigResponse, ModelInferResponse, ModelMetadataResponse, ModelRequest, ModelStatisticsResponse,
    ModelStreamInferResponse, ReadyResponse, RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelRequest,
    ServerLiveResponse,
};
use crate::serve::protocol::{InferRequest, decode_infer};

/// Where its calls are.
pub(super) const PREFIX: &str = "/inference.GRPCInferenceService/";

type Answer<R> = Result<R, Failure>;

/// A call by its name.
pub(super) async fn call(State(service): State<Arc<Service>>, Path(method): Path<String>, request: Request) -> Response {
    match method.as_str() {
        "ServerLive" => unary(service, request, |_, _: Empty| ready(Ok(ServerLiveResponse { live: true }))).await,
        "ServerReady" => unary(service, request, |s, _: Empty| ready(Ok(ReadyResponse { ready: s.is_ready() }))).await,
        "ServerMetadata" => unary(service, request, |s, _: Empty| ready(Ok(s.metadata()))).await,
        "ModelReady" => unary(service, request, model_ready).await,
        "ModelMetadata" => unary(service, request, model_metadata).await,
        "ModelConfig" => unary(service, request, model_config).await,
        "ModelStatistics" => unary(service, request, statistics).await,
        "RepositoryIndex" => unary(service, request, index).await,
        "RepositoryModelLoad" => unary(service, request, load).await,
        "RepositoryModelUnload" => unary(service, request, unload).await,
        "ModelInfer" => infer(service, request).await,
        "ModelStreamInfer" => stream_infer(service, request).await,
        other => refused(Failure::Unknown(format!("there is no call {other:?} here"))),
    }
}

async fn model_ready(service: Arc<Service>, of: ModelRequest) -> Answer<ReadyResponse> {
    Ok(ReadyResponse { ready: service.model_ready(&of.name, &of.version) })
}

async fn model_metadata(service: Arc<Service>, of: ModelRequest) -> Answer<ModelMetadataResponse> {
    service.model_metadata(&of.name, &of.version)
}

async fn model_config(service: Arc<Service>, of: ModelRequest) -> Answer<ModelConfigResponse> {
    Ok(ModelConfigResponse { config: Some(service.repository.model(&of.name, &of.version)?.config()) })
}

async fn statistics(service: Arc<Service>, of: ModelRequest) -> Answer<ModelStatisticsResponse> {
    Ok(ModelStatisticsResponse { model_stats: service.statistics(&of.name, &of.version)? })
}

async fn index(service: Arc<Service>, asked: RepositoryIndexRequest) -> Answer<RepositoryIndexResponse> {
    Ok(RepositoryIndexResponse { models: service.repository.index(asked.ready) })
}

async fn load(service: Arc<Service>, of: RepositoryModelRequest) -> Answer<Empty> {
    service.change(of.model_name, true, of.parameters.keys()).await.map(|()| Empty {})
}

async fn unload(service: Arc<Service>, of: RepositoryModelRequest) -> Answer<Empty> {
    service.change(of.model_name, false, of.parameters.keys()).await.map(|()| Empty {})
}

/// A failure in place of an answer.
pub(super) fn refused(failure: Failure) -> Response {
    let failure = if let Failure::Unknown(why) = &failure { Status::unimplemented(why) } else { failure.into() };
    failure.into_http::<tonic::body::Body>().map(Body::new)
}

fn calls<R: Message + 'static>(service: &Service) -> Grpc<Raw<R>> {
    let limit = service.options.limits.body_bytes;
    Grpc::new(Raw::default()).max_decoding_message_size(limit).max_encoding_message_size(usize::MAX)
}

async fn unary<Q, R, F, A>(service: Arc<Service>, request: Request, answer: F) -> Response
where
    Q: Message + Default,
    R: Message + 'static,
    F: Fn(Arc<Service>, Q) -> A + Copy,
    A: Future<Output = Answer<R>>,
{
    let mut calls = calls::<R>(&service);
    let one = service_fn(move |request: tonic::Request<Bytes>| {
        let service = service.clone();
        async move {
            let asked = Q::decode(request.into_inner()).map_err(|e| Status::invalid_argument(e.to_string()))?;
            Ok::<_, Status>(tonic::Response::new(answer(service, asked).await?))
        }
    });
    calls.unary(one, request).await.map(Body::new)
}

async fn infer(service: Arc<Service>, request: Request) -> Response {
    let inside = match service.admit() {
        Ok(inside) => inside,
        Err(failure) => return refused(failure),
    };
    let (limit, tenant) = (service.options.timeout, tenant(&request));
    let one = service_fn(|request: tonic::Request<Bytes>| {
        let (service, tenant, inside) = (&service, &tenant, &inside);
        async move {
            let done = answer(service, tenant, request.into_inner()).await;
            Ok::<_, Status>(tonic::Response::new(inside.tell(done)?))
        }
    });
    match timeout(limit, calls(&service).unary(one, request)).await {
        Ok(response) => response.map(Body::new),
        Err(_) => inside.tell(Err(Failure::Late(limit))).unwrap_or_else(refused),
    }
}

/// Whose request it is, as the guard found out.
fn tenant(request: &Request) -> Tenant {
    request.extensions().get().cloned().unwrap_or_else(|| Tenant("".into()))
}

async fn answer(service: &Service, tenant: &Tenant, message: Bytes) -> Answer<ModelInferResponse> {
    let mut message = decode_infer(message, &service.options.limits)?;
    let (name, version) = (std::mem::take(&mut message.model_name), std::mem::take(&mut message.model_version));
    service.pace(tenant, &name)?;
    let request = InferRequest::from_message(message, &service.options.limits)?;
    Ok(service.infer(tenant, &name, &version, &request).await?.into_message())
}

type Answers = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

/// Requests of a stream, answered one after the other. One that fails is an answer with the reason and does not end the stream.
async fn stream_infer(service: Arc<Service>, request: Request) -> Response {
    let (grpc_service, tenant) = (service.clone(), tenant(&request));
    let stream = service_fn(move |request: tonic::Request<Streaming<Bytes>>| {
        let (service, tenant) = (service.clone(), tenant.clone());
        let answers = request.into_inner().then(move |message| {
            let (service, tenant) = (service.clone(), tenant.clone());
            async move { Ok(streamed(answer_admitted(&service, &tenant, message?).await)) }
        });
        async move { Ok::<_, Status>(tonic::Response::new(Box::pin(answers) as Answers)) }
    });
    calls(&grpc_service).streaming(stream, request).await.map(Body::new)
}

async fn answer_admitted(service: &Service, tenant: &Tenant, message: Bytes) -> Answer<ModelInferResponse> {
    let inside = service.admit()?;
    inside.tell(answer(service, tenant, message).await)
}

fn streamed(answer: Answer<ModelInferResponse>) -> ModelStreamInferResponse {
    match answer {
        Ok(answer) => ModelStreamInferResponse { error_message: String::new(), infer_response: Some(answer) },
        Err(failure) => ModelStreamInferResponse { error_message: failure.to_string(), infer_response: Some(Default::default()) },
    }
}
