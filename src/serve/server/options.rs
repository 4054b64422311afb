//! How a server listens and what it allows.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Keys;
use crate::serve::alert::Rule;
use crate::serve::protocol::Limits;
use crate::serve::{cache, limit};

/// Options of a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where HTTP clients connect. Both ports speak HTTP/1, HTTP/2 and gRPC; port 0 takes a free one.
    pub http: SocketAddr,
    /// Where gRPC clients connect; `None` opens no second port.
    pub grpc: Option<SocketAddr>,
    /// PEM files of the certificate chain and its private key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Who may ask.
    pub keys: Keys,
    /// A header that says on whose behalf a request comes, in the place of its key's name. Only where nobody but a proxy that sets it
    /// reaches the server.
    pub tenant_header: Option<String>,
    /// How often tenants may ask, and models be asked.
    pub rates: limit::Limits,
    /// The cache of results; none unless asked for. The repository must have been told to identify its models.
    pub cache: Option<cache::Options>,
    /// Whether each tenant has answers of its own, so that none learns from the time of a hit what another has asked.
    pub cache_by_tenant: bool,
    /// When to give the alarm.
    pub rules: Vec<Rule>,
    /// Limits on bodies.
    pub limits: Limits,
    /// Requests for inference inside the server at one time; more are refused with 429.
    pub requests: usize,
    /// Connections at one time; more wait to be accepted.
    pub connections: usize,
    /// The longest that a request may take, its body's arrival included; a request's own `timeout` can only shorten it.
    pub timeout: Duration,
    /// When an answer is due where the request does not say: what cannot make it is refused at once. `None` takes the timeout.
    pub target: Option<Duration>,
    /// The longest that requests may go on after a shutdown was asked for.
    pub drain: Duration,
    /// How long connections stay open after the last of those, so that what comes late is told rather than cut off.
    pub linger: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            http: SocketAddr::from(([127, 0, 0, 1], 8000)),
            grpc: Some(SocketAddr::from(([127, 0, 0, 1], 8001))),
            tls: None,
            keys: Keys::default(),
            tenant_header: None,
            rates: limit::Limits::default(),
            cache: None,
            cache_by_tenant: false,
            rules: Rule::defaults(),
            limits: Limits::default(),
            requests: 256,
            connections: 1024,
            timeout: Duration::from_secs(30),
            target: None,
            drain: Duration::from_secs(30),
            linger: Duration::from_millis(300),
        }
    }
}
