//! What callers of a server share: the cache of results and rates, on the command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::de::DeserializeOwned;

use super::memory::command::bytes;
use super::serve::duration;
use crate::error::{Error, Result};
use crate::serve::alert::Rule;
use crate::serve::cache::{self, Digest};
use crate::serve::limit::{Limits, Rate};
use crate::serve::server::ServerOptions;

/// Where the address of Redis is looked for when it is not an argument: arguments can be read by others, and it may hold a password.
const REDIS: &str = "HALFBYTE_CACHE_REDIS";

/// Arguments about the cache of results, rates and alerts.
#[derive(Args)]
pub struct SharedArgs {
    /// Keep answers in up to this much memory, e.g. 256MiB, and compute equal requests once.
    #[arg(long, value_parser = bytes, value_name = "BYTES")]
    cache: Option<u64>,
    /// For how long an answer is given.
    #[arg(long, value_parser = duration, default_value = "60m", requires = "cache", value_name = "TIME")]
    cache_ttl: Duration,
    /// Share answers with other servers through Redis, e.g. redis://10.0.0.7/ (also HALFBYTE_CACHE_REDIS).
    #[arg(long, requires = "cache", value_name = "URL")]
    cache_redis: Option<String>,
    /// A file with a secret of all servers that share the Redis: who does not know it cannot forge answers.
    #[arg(long, requires = "cache", value_name = "FILE")]
    cache_secret_file: Option<PathBuf>,
    /// Answers of their own for each tenant: none learns from the time taken what another has asked.
    #[arg(long, requires = "cache")]
    cache_by_tenant: bool,
    /// A header that names the tenant, in the place of its key's name. Only behind a proxy that sets it.
    #[arg(long, value_name = "HEADER")]
    tenant_header: Option<String>,
    /// Requests in a second from each tenant, and after a colon how many at once (as many as in a second when left out).
    #[arg(long, value_parser = rate, value_name = "RATE[:BURST]")]
    tenant_rate: Option<Rate>,
    /// Requests in a second to each model, from all tenants together.
    #[arg(long, value_parser = rate, value_name = "RATE[:BURST]")]
    model_rate: Option<Rate>,
    /// A JSON file of rates by name: {"tenants": {"NAME": {"per_second": 100, "burst": 20}}, "models": {...}}.
    #[arg(long, value_name = "FILE")]
    rate_file: Option<PathBuf>,
    /// A JSON file of alerts, in the place of the default ones: [{"metric": "p99_of_target", "comparison": "above",
    /// "threshold": 1, "hold": {"secs": 60, "nanos": 0}}].
    #[arg(long, value_name = "FILE")]
    alert_file: Option<PathBuf>,
}

/// `100` or `100:20`.
fn rate(text: &str) -> std::result::Result<Rate, String> {
    let bad = || format!("{text:?} is no rate such as 100 or 100:20 (in a second, at once)");
    let (per_second, burst) = text.split_once(':').map_or((text, None), |(rate, burst)| (rate, Some(burst)));
    let per_second: f64 = per_second.parse().map_err(|_| bad())?;
    let burst = burst.map_or(Ok(per_second.ceil().max(1.0) as u32), |b| b.parse().map_err(|_| bad()))?;
    if per_second > 0.0 && burst > 0 { Ok(Rate { per_second, burst }) } else { Err(bad()) }
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    serde_json::from_slice(&text).map_err(|e| Error::file(path, e))
}

impl SharedArgs {
    /// Whether answers are kept.
    pub fn caches(&self) -> bool {
        self.cache.is_some()
    }

    /// The options with these in them. Errors when a file cannot be read.
    pub fn apply(&self, options: ServerOptions) -> Result<ServerOptions> {
        let file: Limits = self.rate_file.as_deref().map(json).transpose()?.unwrap_or_default();
        let rates = Limits { tenant: self.tenant_rate.or(file.tenant), model: self.model_rate.or(file.model), ..file };
        let rules = self.alert_file.as_deref().map_or_else(|| Ok(Rule::defaults()), json)?;
        let (cache, cache_by_tenant, tenant_header) = (self.cache()?, self.cache_by_tenant, self.tenant_header.clone());
        Ok(ServerOptions { rates, rules, cache, cache_by_tenant, tenant_header, ..options })
    }

    fn cache(&self) -> Result<Option<cache::Options>> {
        let Some(capacity_bytes) = self.cache else { return Ok(None) };
        let secret = self.cache_secret_file.as_deref().map_or_else(|| Ok(Digest::default()), Digest::of_file)?.0;
        let url = self.cache_redis.clone().or_else(|| std::env::var(REDIS).ok());
        let second = url.map(|url| cache::Second { url, secret, ..cache::Second::default() });
        Ok(Some(cache::Options { capacity_bytes, ttl: Some(self.cache_ttl), second, ..cache::Options::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_by_the_second_and_at_once() {
        assert_eq!(rate("100:20"), Ok(Rate { per_second: 100.0, burst: 20 }));
        assert_eq!(rate("0.5"), Ok(Rate { per_second: 0.5, burst: 1 }));
        for bad in ["", "0", "-1", "5:0", "5:x", "NaN"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
