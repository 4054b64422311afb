//! Sockets: accepting connections, and shutting down without losing a reply.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::service::Service;
use super::status::Figures;
use super::{Repository, ServerOptions, rest, tls};
use crate::error::{Error, Result};

/// How long a caller may take for a TLS handshake, or for the head of a request; idle connections are closed after it too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that listens, and answers from [`Server::run`] on.
pub struct Server {
    service: Arc<Service>,
    listeners: Vec<TcpListener>,
    tls: Option<TlsAcceptor>,
}

impl Server {
    /// Listens. Errors when an address is taken or the TLS files are wrong.
    pub async fn bind(repository: Repository, options: ServerOptions) -> Result<Server> {
        let tls = options.tls.as_ref().map(|(chain, key)| tls::acceptor(chain, key)).transpose()?;
        let mut listeners = Vec::new();
        for address in [Some(options.http), options.grpc].into_iter().flatten() {
            let wrong = |e: std::io::Error| Error::BadInput(format!("{address} cannot be listened at: {e}"));
            listeners.push(TcpListener::bind(address).await.map_err(wrong)?);
        }
        Ok(Server { service: Arc::new(Service::new(repository, options)?), listeners, tls })
    }

    /// Where it listens: HTTP first, then gRPC where that has a port of its own.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|l| l.local_addr().ok()).collect()
    }

    /// The models.
    pub fn repository(&self) -> &Repository {
        &self.service.repository
    }

    /// Serves until `stop`. From then on new requests are refused, the server says that it is not ready, and requests inside are finished,
    /// for as long as [`ServerOptions::drain`] allows; connections are closed after [`ServerOptions::linger`]. Gives how many requests
    /// were not finished.
    pub async fn run(self, stop: impl Future<Output = ()>) -> usize {
        let Server { service, listeners, tls } = self;
        let (router, graceful) = (rest::routes(service.clone()), Arc::new(GracefulShutdown::new()));
        let connections = Arc::new(Semaphore::new(service.options.connections.clamp(1, Semaphore::MAX_PERMITS)));
        let mut accepting = tokio::task::JoinSet::new();
        for listener in listeners {
            let door =
                Door { router: router.clone(), tls: tls.clone(), graceful: graceful.clone(), connections: connections.clone() };
            accepting.spawn(door.accept(listener));
        }
        let watching = tokio::spawn(watch(service.clone()));
        stop.await;
        watching.abort();
        let (drain, began) = (service.options.drain, Instant::now());
        let lost = service.drain(drain).await;
        sleep(service.options.linger).await;
        accepting.shutdown().await;
        // What is still to be sent, once more within bounds.
        let left = drain.saturating_sub(began.elapsed()).max(Duration::from_secs(1));
        if let Some(graceful) = Arc::into_inner(graceful) {
            let _ = timeout(left, graceful.shutdown()).await;
        }
        lost
    }
}

/// Looks at the figures once a second.
async fn watch(service: Arc<Service>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        service.watch.look(&Figures::now(&service), service.options.target, Instant::now());
    }
}

/// What a listener's connections share.
struct Door {
    router: Router,
    tls: Option<TlsAcceptor>,
    graceful: Arc<GracefulShutdown>,
    connections: Arc<Semaphore>,
}

impl Door {
    async fn accept(self, listener: TcpListener) {
        while let Ok(permit) = self.connections.clone().acquire_owned().await {
            let Ok((socket, _)) = listener.accept().await else {
                // Out of file descriptors, or the caller went away: neither ends the server.
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            let (router, tls, watcher) = (self.router.clone(), self.tls.clone(), self.graceful.watcher());
            tokio::spawn(async move {
                let _permit = permit;
                greet(socket, tls, router, watcher).await;
            });
        }
    }
}

async fn greet(socket: TcpStream, tls: Option<TlsAcceptor>, router: Router, watcher: Watcher) {
    // Only latency is lost where the option cannot be set.
    let _ = socket.set_nodelay(true);
    match tls {
        None => serve(socket, router, watcher).await,
        Some(tls) => {
            if let Ok(Ok(socket)) = timeout(PATIENCE, tls.accept(socket)).await {
                serve(socket, router, watcher).await;
            }
        }
    }
}

async fn serve(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router, watcher: Watcher) {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PATIENCE)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_concurrent_streams(256);
    let connection = http.serve_connection(TokioIo::new(socket), TowerToHyperService::new(router)).into_owned();
    // A caller that breaks off is no error of the server's.
    let _ = watcher.watch(connection).await;
}
