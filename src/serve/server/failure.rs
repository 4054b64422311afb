//! Why a request fails, and how HTTP and gRPC say it.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tonic::{Code, Status};

use crate::error::Error;
use crate::serve::limit::Throttled;
use crate::serve::protocol::{Fault, Malformed};
use crate::serve::schedule::Rejection;

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// Rounded up: earlier is too early.
fn whole_ms(time: Duration) -> u64 {
    time.as_nanos().div_ceil(1_000_000) as u64
}

/// Why a request fails.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// The body cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// There is no such model or version, or no such route.
    #[error("{0}")]
    Unknown(String),
    /// The model is there, but not ready.
    #[error("{0}")]
    NotReady(String),
    /// No key, or a wrong one.
    #[error("no valid key: send the header authorization: Bearer KEY")]
    Unauthorized,
    /// As many requests are inside as may be.
    #[error("{0} requests are being served, as many as may be: try again later")]
    Busy(usize),
    /// Its tenant, or all who ask for its model, ask more often than they may.
    #[error("{0}")]
    Throttled(#[from] Throttled),
    /// The answer was being computed for an equal request, and that went wrong.
    #[error("the model's run panicked: {0}")]
    Panicked(String),
    /// The server is shutting down.
    #[error("the server is shutting down: ask another, or later")]
    Draining,
    /// It took too long.
    #[error("not done within {0:?}: allow more time, or send less at once")]
    Late(Duration),
    /// The body did not arrive.
    #[error("the body broke off: {0}")]
    Cut(String),
    /// The model did not run.
    #[error(transparent)]
    Run(#[from] Error),
}

impl Failure {
    /// The failure's name.
    pub(super) fn kind(&self) -> &'static str {
        self.codes().0
    }

    /// The failure's name, HTTP's and gRPC's codes for it.
    fn codes(&self) -> (&'static str, StatusCode, Code) {
        match self {
            Failure::Malformed(m) => match m.fault {
                Fault::Invalid => ("invalid", StatusCode::BAD_REQUEST, Code::InvalidArgument),
                Fault::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted),
                Fault::Unsupported => ("unsupported", StatusCode::BAD_REQUEST, Code::Unimplemented),
            },
            Failure::Unknown(_) => ("unknown", StatusCode::NOT_FOUND, Code::NotFound),
            Failure::NotReady(_) => ("not_ready", StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            Failure::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED, Code::Unauthenticated),
            Failure::Busy(_) => ("busy", StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted),
            Failure::Throttled(_) => ("throttled", StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted),
            Failure::Panicked(_) => ("failed", StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
            Failure::Draining => ("draining", StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            Failure::Late(_) => ("late", StatusCode::GATEWAY_TIMEOUT, Code::DeadlineExceeded),
            Failure::Cut(_) => ("cut", StatusCode::BAD_REQUEST, Code::Cancelled),
            Failure::Run(Error::BadInput(_)) => ("invalid", StatusCode::BAD_REQUEST, Code::InvalidArgument),
            Failure::Run(Error::Unsupported { .. }) => ("unsupported", StatusCode::BAD_REQUEST, Code::Unimplemented),
            Failure::Run(Error::Rejected(rejection)) => match rejection {
                Rejection::QueueFull { .. } => ("busy", StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted),
                Rejection::TooLate { .. } => ("late", StatusCode::GATEWAY_TIMEOUT, Code::DeadlineExceeded),
                Rejection::Draining => ("draining", StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
                Rejection::TooLarge { .. } => ("too_large", StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted),
                Rejection::Empty => ("invalid", StatusCode::BAD_REQUEST, Code::InvalidArgument),
            },
            Failure::Run(e) if e.is_memory() => ("no_memory", StatusCode::SERVICE_UNAVAILABLE, Code::ResourceExhausted),
            Failure::Run(_) => ("failed", StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
        }
    }

    /// Whether a trial counts it against the version, as it does not what only says something of the queue.
    pub(super) fn is_models(&self) -> bool {
        !matches!(self, Failure::Run(Error::Rejected(Rejection::QueueFull { .. } | Rejection::Draining)))
    }

    /// After what time asking again may help: exactly where a rate was exceeded.
    fn retry_after(&self) -> Option<Duration> {
        let passing = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
        match self {
            Failure::Throttled(throttled) => throttled.retry_after,
            _ => passing.contains(&self.codes().1).then_some(Duration::from_secs(1)),
        }
    }

    /// Whether only this request is concerned, not an equal one that waits for its answer.
    pub(super) fn is_own(&self) -> bool {
        match self {
            Failure::Malformed(_) | Failure::Panicked(_) => false,
            Failure::Run(error) => matches!(error, Error::Rejected(_)),
            _ => true,
        }
    }
}

/// The body of an error: the message, as the protocol has it, and its kind for programs.
#[derive(serde::Serialize)]
struct Body {
    error: String,
    kind: &'static str,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (kind, status, _) = self.codes();
        let mut response = (status, Json(Body { error: self.to_string(), kind })).into_response();
        let headers = response.headers_mut();
        if let Some(time) = self.retry_after() {
            // The standard's header has whole seconds; who wants to know exactly reads the other.
            headers.insert(header::RETRY_AFTER, HeaderValue::from(time.as_millis().div_ceil(1000) as u64));
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(whole_ms(time)));
        }
        if matches!(self, Failure::Unauthorized) {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self, Failure::Draining | Failure::Cut(_)) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        let mut status = Status::new(failure.codes().2, failure.to_string());
        if let Some(time) = failure.retry_after() {
            // What gRPC clients with a retry policy go by.
            status.metadata_mut().insert("grpc-retry-pushback-ms", whole_ms(time).into());
        }
        status
    }
}
