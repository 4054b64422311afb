//! `halfbyte serve`: the models of a folder over HTTP and gRPC.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::args::Running;
use super::output::{print, table};
use super::serve_shared::SharedArgs;
use crate::base::size_text;
use crate::error::{Error, Result};
use crate::serve::protocol::Limits;
use crate::serve::registry::VersionStatus;
use crate::serve::schedule::Batching;
use crate::serve::server::{Keys, Repository, Server, ServerOptions};

/// Arguments of `serve`.
#[derive(Args)]
pub struct ServeArgs {
    /// The folder of models: NAME.onnx, NAME/model.onnx or NAME/VERSION/model.onnx.
    #[arg(long, required_unless_present = "check")]
    models: Option<PathBuf>,
    /// Only ask a server that runs there, e.g. 127.0.0.1:8000, whether it is ready: the exit code says so. Without TLS.
    #[arg(long, value_name = "ADDRESS")]
    check: Option<SocketAddr>,
    /// Where to listen for HTTP; port 0 takes a free one. Both ports speak HTTP and gRPC.
    #[arg(long, default_value = "127.0.0.1:8000")]
    http: SocketAddr,
    /// Where to listen for gRPC.
    #[arg(long, default_value = "127.0.0.1:8001")]
    grpc: SocketAddr,
    /// PEM file of the certificate chain.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file of its private key.
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Keys of callers, one a line: NAME KEY, with the tenant's name. They send `authorization: Bearer KEY`.
    #[arg(long)]
    api_key_file: Option<PathBuf>,
    /// Largest body, in MiB.
    #[arg(long, default_value_t = 64)]
    max_body: usize,
    /// Requests in the server at one time; more are refused.
    #[arg(long, default_value_t = 256)]
    max_requests: usize,
    /// The most rows of a batch.
    #[arg(long, default_value_t = 64)]
    max_batch: usize,
    /// When answers are due, e.g. 20ms: batches are made so that they are, and what cannot make it is refused at once. The timeout when left out.
    #[arg(long, value_parser = duration)]
    target_p99: Option<Duration>,
    /// The longest that a request may take.
    #[arg(long, value_parser = duration, default_value = "30s")]
    timeout: Duration,
    /// The longest that requests may go on after Ctrl-C or SIGTERM.
    #[arg(long, value_parser = duration, default_value = "30s")]
    drain: Duration,
    /// Print JSON, one line when it is ready and one at the end.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    shared: SharedArgs,
    #[command(flatten)]
    running: Running,
}

/// `20ms`, `1.5s` or `2m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no time such as 20ms, 1.5s or 2m");
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(bad()),
    };
    let number: f64 = number.parse().map_err(|_| bad())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())
}

/// The line when the server is ready.
#[derive(serde::Serialize)]
struct Ready {
    http: SocketAddr,
    grpc: SocketAddr,
    tls: bool,
    models: Vec<VersionStatus>,
}

/// The line at the end.
#[derive(serde::Serialize)]
struct Ended {
    /// Requests that the time for draining was too short for.
    unfinished: usize,
}

/// Runs the subcommand: until Ctrl-C or SIGTERM, then until what runs is done. A second one ends it at once.
pub fn serve(args: &ServeArgs) -> Result<ExitCode> {
    if let Some(address) = args.check {
        return Ok(if is_ready(address).unwrap_or(false) { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    args.running.runs()?;
    let options = options(args)?;
    let target_p99 = args.target_p99.unwrap_or(args.timeout);
    let batching = Batching { target_p99, max_batch: args.max_batch, queue_limit: args.max_requests, ..Batching::default() };
    let repository = Repository::open(
        args.models.as_deref().unwrap_or(Path::new(".")),
        args.running.options(false),
        batching,
        args.shared.caches(),
    )?;
    let failed = |e: std::io::Error| Error::Device { device: "network".into(), why: e.to_string() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(failed)?;
    let unfinished = runtime.block_on(async {
        // Before it is said to be ready, so that no signal is missed.
        let stop = signals().map_err(failed)?;
        let server = Server::bind(repository, options).await?;
        say_ready(args, &server)?;
        Ok::<_, Error>(server.run(stop).await)
    })?;
    match args.json {
        true => say_line(&Ended { unfinished })?,
        false => print(&format!("ended; {unfinished} requests were not finished")),
    }
    Ok(if unfinished == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a server says of itself.
fn is_ready(address: SocketAddr) -> std::io::Result<bool> {
    let patience = Duration::from_secs(2);
    let mut socket = TcpStream::connect_timeout(&address, patience)?;
    socket.set_read_timeout(Some(patience))?;
    socket.write_all(b"GET /v2/health/ready HTTP/1.1\r\nhost: halfbyte\r\nconnection: close\r\n\r\n")?;
    let mut reply = String::new();
    socket.read_to_string(&mut reply)?;
    Ok(reply.split(' ').nth(1) == Some("200"))
}

fn options(args: &ServeArgs) -> Result<ServerOptions> {
    args.shared.apply(ServerOptions {
        http: args.http,
        grpc: Some(args.grpc),
        tls: args.tls_cert.clone().zip(args.tls_key.clone()),
        keys: args.api_key_file.as_deref().map_or_else(|| Ok(Keys::default()), Keys::read)?,
        limits: Limits { body_bytes: args.max_body.saturating_mul(1 << 20), ..Limits::default() },
        requests: args.max_requests,
        timeout: args.timeout,
        target: args.target_p99,
        drain: args.drain,
        ..ServerOptions::default()
    })
}

/// Done at the first Ctrl-C or SIGTERM; the next one ends the process.
fn signals() -> std::io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut next = async move || {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    };
    Ok(async move {
        next().await;
        tokio::spawn(async move {
            next().await;
            std::process::exit(i32::from(super::interrupt::INTERRUPTED));
        });
    })
}

fn say_line(value: &impl serde::Serialize) -> Result<()> {
    print(&serde_json::to_string(value).map_err(|e| Error::BadInput(e.to_string()))?);
    Ok(())
}

fn say_ready(args: &ServeArgs, server: &Server) -> Result<()> {
    let (addresses, models) = (server.addresses(), server.repository().status());
    let address = |i: usize, asked| addresses.get(i).copied().unwrap_or(asked);
    let ready = Ready { http: address(0, args.http), grpc: address(1, args.grpc), tls: args.tls_cert.is_some(), models };
    if args.json {
        return say_line(&ready);
    }
    let mut t = table(&["model", "version", "share", "device", "precision", "memory", "why not"]);
    for status in &ready.models {
        let (version, share) = (status.version.to_string(), format!("{:.0} %", status.share * 100.0));
        let memory = status.memory.map_or_else(String::new, |memory| size_text(memory.bytes()));
        let runs = status.running.as_ref().map(|r| (r.device_name.as_str(), format!("{:?}", r.precision).to_lowercase()));
        let (device, precision) = runs.unwrap_or_default();
        let reason = status.reason.as_deref().unwrap_or_default();
        t.add_row([status.name.as_str(), &version, &share, device, &precision, &memory, reason]);
    }
    print(&t.to_string());
    steps(&ready.models).iter().for_each(|step| print(step));
    let s = if ready.tls { "s" } else { "" };
    print(&format!("ready: http{s}://{} and grpc{s}://{}; Ctrl-C ends it", ready.http, ready.grpc));
    Ok(())
}

/// What was not done as asked, and why, with the versions that it is about where it is not about all.
fn steps(models: &[VersionStatus]) -> Vec<String> {
    let mut steps: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let ready = || models.iter().filter_map(|m| Some((m, m.running.as_ref()?)));
    for (model, running) in ready() {
        running.notes.iter().for_each(|note| steps.entry(note).or_default().push(format!("{} {}", model.name, model.version)));
    }
    let all = ready().count();
    let line =
        |(note, of): (&str, Vec<String>)| if of.len() == all { note.to_string() } else { format!("{}: {note}", of.join(", ")) };
    steps.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        for bad in ["20", "ms", "-1s", "1h", "1e400s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
