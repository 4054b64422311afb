//! What pools hold and what was tried for it, in tables.

use std::collections::BTreeSet;

use comfy_table::Table;

use crate::base::size_text;
use crate::cli::output::table;
use crate::memory::{AccountStats, Owner, Pool, Snapshot, Stats, prometheus as metrics};

/// A pool's figures at one moment.
#[derive(serde::Serialize)]
#[allow(missing_docs)]
pub struct PoolFigures {
    pub name: String,
    pub stats: Stats,
    /// Share of free memory that is not in the largest piece.
    pub fragmentation: f64,
    pub owners: Vec<Owner>,
    /// Who pays, from the process down.
    pub accounts: Vec<AccountStats>,
}

impl PoolFigures {
    /// Of this moment.
    pub fn now(name: &str, pool: &Pool) -> Self {
        Self::new(name, pool.stats(), pool.owners(), pool.account().stats())
    }

    /// Of when the snapshot was made.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self::new(&snapshot.device, snapshot.stats.clone(), snapshot.owners.clone(), snapshot.accounts.clone())
    }

    fn new(name: &str, stats: Stats, owners: Vec<Owner>, accounts: Vec<AccountStats>) -> Self {
        PoolFigures { name: name.into(), fragmentation: stats.fragmentation(), stats, owners, accounts }
    }
}

/// All pools' tables: figures, accounts, and the rungs of the ladder that were tried.
pub fn pools_text(pools: &[PoolFigures]) -> String {
    let mut figures = table(&[
        "pool",
        "reserved",
        "at most",
        "live",
        "at most",
        "free",
        "largest free",
        "fragmented",
        "padding",
        "requests",
        "driver calls",
    ]);
    let mut rungs = table(&["rung", "pool", "tried", "helped", "ms"]);
    for PoolFigures { name, stats: s, fragmentation, .. } in pools {
        let sizes =
            [s.reserved_bytes, s.peak_reserved_bytes, s.live_bytes, s.peak_live_bytes, s.free_bytes, s.largest_free_bytes];
        let rest = [
            format!("{:.1} %", fragmentation * 100.0),
            size_text(s.padding_bytes),
            s.requests.to_string(),
            s.calls.memory().to_string(),
        ];
        figures.add_row([name.clone()].into_iter().chain(sizes.map(size_text)).chain(rest));
        s.rungs.iter().filter(|r| r.tried > 0).for_each(|r| {
            let ms = format!("{:.2}", r.time_us as f64 / 1e3);
            rungs.add_row([r.rung.name().to_string(), name.clone(), r.tried.to_string(), r.helped.to_string(), ms]);
        });
    }
    let parts = [(figures, pools.len()), accounts(pools), (rungs, tried(pools))];
    let texts: Vec<String> = parts.iter().filter(|(_, rows)| *rows > 0).map(|(table, _)| table.to_string()).collect();
    texts.join("\n\n")
}

/// The accounts of all pools, each once: pools of a device may have the same. And how many there are.
fn accounts(pools: &[PoolFigures]) -> (Table, usize) {
    let mut accounts = table(&["account", "holds", "at most", "limit", "blocks"]);
    let mut seen = BTreeSet::new();
    for account in pools.iter().flat_map(|p| &p.accounts).filter(|a| a.peak_bytes > 0 && seen.insert(&a.name)) {
        let own = pools.iter().flat_map(|p| &p.owners).filter(|o| o.account == account.name);
        let blocks: u64 = own.map(|o| o.blocks).sum();
        let [holds, most] = [account.used_bytes, account.peak_bytes].map(size_text);
        let limit = account.limit_bytes.map_or(String::new(), size_text);
        let blocks = if blocks == 0 { String::new() } else { blocks.to_string() };
        accounts.add_row([account.name.clone(), holds, most, limit, blocks]);
    }
    (accounts, seen.len())
}

fn tried(pools: &[PoolFigures]) -> usize {
    pools.iter().flat_map(|p| &p.stats.rungs).filter(|r| r.tried > 0).count()
}

/// The same in Prometheus' text format.
pub fn prometheus(pools: &[PoolFigures]) -> String {
    let stats: Vec<(&str, Stats)> = pools.iter().map(|p| (p.name.as_str(), p.stats.clone())).collect();
    let owners: Vec<(&str, Vec<Owner>)> = pools.iter().map(|p| (p.name.as_str(), p.owners.clone())).collect();
    metrics::text(&[], &stats, "") + &metrics::accounts(&owners)
}
