//! The routes of HTTP. To add one: a line in [`routes`], a function below it, a line in docs/server.md.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router, body::Body};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::IgnoredAny;
use tokio::time::timeout;

use super::keys::Tenant;
use super::service::Service;
use super::status::Status;
use super::{Failure, grpc, metrics, page};
use crate::serve::alert::Alert;
use crate::serve::protocol::messages::{
    ModelIndex, ModelStatisticsResponse, ReadyResponse, RepositoryIndexRequest, ServerLiveResponse,
};
use crate::serve::protocol::{HttpReply, InferRequest, Malformed};

type Shared = State<Arc<Service>>;
type Reply<T> = Result<Json<T>, Failure>;

const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A model, and its version where the path has one.
#[derive(serde::Deserialize)]
struct Target {
    model: String,
    #[serde(default)]
    version: String,
}

/// Everything that the server answers, over HTTP and gRPC.
pub(super) fn routes(service: Arc<Service>) -> Router {
    let each_model = |routes: Router<Arc<Service>>, at: &str| {
        routes
            .route(at, get(model_metadata))
            .route(&format!("{at}/ready"), get(model_ready))
            .route(&format!("{at}/config"), get(model_config))
            .route(&format!("{at}/stats"), get(model_statistics))
            .route(&format!("{at}/infer"), post(infer))
    };
    let routes = Router::new()
        .route("/v2", get(|State(service): Shared| async move { Json(service.metadata()) }))
        .route("/v2/health/live", get(|| async { Json(ServerLiveResponse { live: true }) }))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/stats", get(statistics))
        .route("/v2/repository/index", post(index))
        .route("/v2/repository/models/{model}/load", post(load))
        .route("/v2/repository/models/{model}/unload", post(unload))
        .route("/v2/repository/settings", get(settings).post(change_settings))
        .route("/v2/repository/status", get(|State(service): Shared| async move { Json(service.repository.status()) }))
        .route("/v2/status", get(status))
        .route("/v2/alerts", get(|State(service): Shared| async move { Json::<Vec<Alert>>(service.watch.alerts()) }))
        .route("/metrics", get(|State(service): Shared| async move { metrics::text(&Status::now(&service)) }))
        .route("/", get(page::page))
        .route("/status", get(page::page))
        .route(&format!("{}{{method}}", grpc::PREFIX), post(grpc::call));
    let routes = each_model(each_model(routes, "/v2/models/{model}"), "/v2/models/{model}/versions/{version}");
    let unknown = |request: Request| async move { Failure::Unknown(format!("there is nothing at {}", request.uri().path())) };
    routes.fallback(unknown).layer(from_fn_with_state(service.clone(), guard)).with_state(service)
}

/// What anybody may ask: load balancers have no keys, and the page asks for one.
const OPEN: [&str; 6] = [
    "/",
    "/status",
    "/v2/health/live",
    "/v2/health/ready",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
];

/// Names the request and looks at its key.
async fn guard(State(service): Shared, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let tenant = service.tenant(request.headers());
    let is_open = tenant.is_some() || OPEN.contains(&request.uri().path());
    if let Some(tenant) = tenant {
        request.extensions_mut().insert(tenant);
    }
    let mut response = match is_open {
        true => next.run(request).await,
        false if request.uri().path().starts_with(grpc::PREFIX) => grpc::refused(Failure::Unauthorized),
        false => Failure::Unauthorized.into_response(),
    };
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The caller's name for the request, else a number of our own.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let given = headers.get(REQUEST_ID).filter(|id| id.len() <= 128);
    given.cloned().unwrap_or_else(|| HeaderValue::from(NEXT.fetch_add(1, Ordering::Relaxed)))
}

async fn ready(State(service): Shared) -> Reply<ReadyResponse> {
    if service.is_ready() { Ok(Json(ReadyResponse { ready: true })) } else { Err(Failure::Draining) }
}

async fn model_ready(State(service): Shared, Path(of): Path<Target>) -> Reply<ReadyResponse> {
    service.repository.model(&of.model, &of.version)?;
    ready(State(service)).await
}

async fn model_metadata(State(service): Shared, Path(of): Path<Target>) -> Reply<impl serde::Serialize> {
    service.model_metadata(&of.model, &of.version).map(Json)
}

async fn model_config(State(service): Shared, Path(of): Path<Target>) -> Reply<impl serde::Serialize> {
    Ok(Json(service.repository.model(&of.model, &of.version)?.config()))
}

async fn status(State(service): Shared) -> Json<Status> {
    Json(Status::now(&service))
}

async fn statistics(State(service): Shared) -> Reply<ModelStatisticsResponse> {
    Ok(Json(ModelStatisticsResponse { model_stats: service.statistics("", "")? }))
}

async fn model_statistics(State(service): Shared, Path(of): Path<Target>) -> Reply<ModelStatisticsResponse> {
    Ok(Json(ModelStatisticsResponse { model_stats: service.statistics(&of.model, &of.version)? }))
}

async fn index(State(service): Shared, request: Request) -> Reply<Vec<ModelIndex>> {
    let asked: RepositoryIndexRequest = small(request).await?;
    Ok(Json(service.repository.index(asked.ready)))
}

async fn settings(State(service): Shared) -> Json<impl serde::Serialize> {
    Json(service.repository.settings())
}

async fn change_settings(State(service): Shared, request: Request) -> Reply<impl serde::Serialize> {
    let patch: Option<serde_json::Value> = small(request).await?;
    service.tell(patch.unwrap_or_else(|| serde_json::json!({}))).await?;
    Ok(settings(State(service)).await)
}

/// Parameters of loading and unloading: only their names are looked at.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Change {
    parameters: BTreeMap<String, IgnoredAny>,
}

async fn load(State(service): Shared, Path(of): Path<Target>, request: Request) -> Result<(), Failure> {
    let asked: Change = small(request).await?;
    service.change(of.model, true, asked.parameters.keys()).await
}

async fn unload(State(service): Shared, Path(of): Path<Target>, request: Request) -> Result<(), Failure> {
    let asked: Change = small(request).await?;
    service.change(of.model, false, asked.parameters.keys()).await
}

/// A small body of JSON; none is as good as an empty object.
async fn small<T: Default + serde::de::DeserializeOwned>(request: Request) -> Result<T, Failure> {
    let body = whole(request.into_body(), 1 << 20).await?;
    if body.is_empty() {
        return Ok(T::default());
    }
    let wrong = |e| Malformed::invalid("body", e, "send what the model repository extension describes, or nothing");
    Ok(serde_json::from_slice(&body).map_err(wrong)?)
}

async fn infer(
    State(service): Shared,
    Extension(tenant): Extension<Tenant>,
    Path(of): Path<Target>,
    request: Request,
) -> Result<Response, Failure> {
    let inside = service.admit()?;
    let limit = service.options.timeout;
    let done = timeout(limit, infer_inside(&service, &tenant, of, request)).await;
    inside.tell(done.unwrap_or(Err(Failure::Late(limit))))
}

async fn infer_inside(service: &Service, tenant: &Tenant, of: Target, request: Request) -> Result<Response, Failure> {
    service.pace(tenant, &of.model)?;
    let (head, body) = request.into_parts();
    if head.headers.get(header::CONTENT_ENCODING).is_some_and(|e| e != "identity") {
        let why = "compressed bodies are not supported";
        return Err(Malformed::unsupported("content-encoding", why, "send the body as it is").into());
    }
    let header_bytes = head.headers.get(HEADER_LENGTH).map(|value| {
        let number = value.to_str().ok().and_then(|text| text.parse().ok());
        number
            .ok_or_else(|| Malformed::invalid(HEADER_LENGTH, "it is no number", "send the bytes of JSON before the binary data"))
    });
    let body = whole(body, service.options.limits.body_bytes).await?;
    let request = InferRequest::from_http(body, header_bytes.transpose()?, &service.options.limits)?;
    Ok(response(service.infer(tenant, &of.model, &of.version, &request).await?.to_http(&request)?))
}

/// The whole body. One that is too large is read to its end all the same, but not kept, so that its sender hears why; within bounds.
async fn whole(mut body: Body, limit: usize) -> Result<Bytes, Failure> {
    match Limited::new(&mut body, limit).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let mut left = limit.saturating_mul(4);
            while let Some(Ok(frame)) = body.frame().await
                && left > 0
            {
                left = left.saturating_sub(frame.data_ref().map_or(1, |data| data.len().max(1)));
            }
            let why = format!("more than {limit} bytes");
            Err(Malformed::too_large("body", why, "send less at once, or have the server's limit raised").into())
        }
        Err(error) => Err(Failure::Cut(error.to_string())),
    }
}

fn response(reply: HttpReply) -> Response {
    let length: usize = reply.parts.iter().map(Bytes::len).sum();
    let parts = tokio_stream::iter(reply.parts.into_iter().map(Ok::<_, std::convert::Infallible>));
    let mut response = Body::from_stream(parts).into_response();
    let kind = if reply.header_bytes.is_some() { "application/octet-stream" } else { "application/json" };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(bytes) = reply.header_bytes {
        headers.insert(HEADER_LENGTH, HeaderValue::from(bytes));
    }
    response
}
