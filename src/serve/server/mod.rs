//! The server: the Open Inference Protocol over HTTP and gRPC, for the models of a folder. See docs/server.md.

mod call;
mod codec;
mod failure;
mod file;
mod grpc;
mod keys;
mod listen;
mod loaded;
mod metrics;
mod options;
mod outcomes;
mod page;
mod repository;
mod rest;
mod scan;
mod service;
mod statistics;
mod status;
mod tls;
mod watch;

pub use failure::Failure;
pub use keys::Keys;
pub use listen::Server;
pub use options::ServerOptions;
pub use repository::Repository;
