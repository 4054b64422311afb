//! Queries whose answers are fetched before they are asked.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Embed, Query, Retriever};
use crate::base::lock;
use crate::error::{Error, Result};
use crate::serve::schedule::Rejection;

/// Lists of queries that wait at most.
const MOST_LISTS: usize = 256;
/// What a prefetched query may take: it is in no hurry, but a dead engine should not hold it for ever.
const DEADLINE: Duration = Duration::from_secs(60);

/// How far a list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Progress {
    /// Queries of the list.
    pub queries: usize,
    /// Those that were computed.
    pub computed: usize,
    /// Those whose answer was there already, or on its way.
    pub known: usize,
    /// Those that failed: their answers are computed when they are asked.
    pub failed: usize,
}

impl Progress {
    /// Queries that are settled.
    pub fn done(&self) -> usize {
        self.computed + self.known + self.failed
    }
}

/// A list of queries on its way.
#[derive(Default)]
pub struct Prefetching {
    queries: Vec<String>,
    k: usize,
    partition: String,
    tenant: u32,
    next: AtomicUsize,
    computed: AtomicUsize,
    known: AtomicUsize,
    failed: AtomicUsize,
    is_cancelled: AtomicBool,
}

impl Prefetching {
    /// How far it is.
    pub fn progress(&self) -> Progress {
        let of = |count: &AtomicUsize| count.load(Relaxed);
        Progress { queries: self.queries.len(), computed: of(&self.computed), known: of(&self.known), failed: of(&self.failed) }
    }

    /// What has not begun does not begin any more.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Relaxed);
    }

    /// The next query to fetch.
    fn take(&self) -> Option<&str> {
        let at = self.next.fetch_add(usize::from(!self.is_cancelled.load(Relaxed)), Relaxed);
        self.queries.get(at).filter(|_| !self.is_cancelled.load(Relaxed)).map(String::as_str)
    }

    /// Whether something is left to begin.
    fn is_open(&self) -> bool {
        self.next.load(Relaxed) < self.queries.len() && !self.is_cancelled.load(Relaxed)
    }

    /// Fetches one query.
    fn fetch<E: Embed>(&self, retriever: &Retriever<E>) {
        let Some(text) = self.take() else { return };
        let (k, partition, tenant) = (self.k, self.partition.as_str(), self.tenant);
        let query = Query { text, k, partition, tenant, priority: u8::MAX, deadline: Some(DEADLINE) };
        let count = match catch_unwind(AssertUnwindSafe(|| retriever.warm(&query))) {
            Ok(Ok(true)) => &self.computed,
            Ok(Ok(false)) => &self.known,
            _ => &self.failed,
        };
        count.fetch_add(1, Relaxed);
    }
}

#[derive(Default)]
struct Waiting {
    /// The next to go on with is the last.
    lists: Vec<Arc<Prefetching>>,
    has_ended: bool,
}

#[derive(Default)]
struct Lists {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

/// Fetches answers in the background: one query at a time, in the engine's lowest class, so that what is asked goes first and waits for one row at
/// most. The list that came last goes first, as what is likely to be asked next is of use soon or never.
pub struct Prefetcher {
    lists: Arc<Lists>,
    thread: Option<JoinHandle<()>>,
}

impl Prefetcher {
    /// Starts its thread. Errors when there is none to be had.
    pub fn start<E: Embed + 'static>(retriever: Arc<Retriever<E>>) -> Result<Self> {
        let lists = Arc::new(Lists::default());
        let own = lists.clone();
        let failed = |e: std::io::Error| Error::Device { device: "prefetch".into(), why: format!("no thread: {e}") };
        let run = move || {
            while let Some(list) = own.next() {
                list.fetch(&retriever);
            }
        };
        let thread = thread::Builder::new().name("halfbyte-prefetch".into()).spawn(run).map_err(failed)?;
        Ok(Prefetcher { lists, thread: Some(thread) })
    }

    /// Fetches the answers of texts, `like` a query: its `k`, partition and tenant. Errors when 256 lists wait already.
    pub fn fetch<T: Into<String>>(&self, texts: impl IntoIterator<Item = T>, like: &Query) -> Result<Arc<Prefetching>> {
        let list = Arc::new(Prefetching {
            queries: texts.into_iter().map(Into::into).collect(),
            k: like.k,
            partition: like.partition.into(),
            tenant: like.tenant,
            ..Prefetching::default()
        });
        let mut waiting = lock(&self.lists.waiting);
        waiting.lists.retain(|list| list.is_open());
        if waiting.lists.len() >= MOST_LISTS {
            return Err(Rejection::QueueFull { limit: MOST_LISTS }.into());
        }
        waiting.lists.push(list.clone());
        drop(waiting);
        self.lists.changed.notify_one();
        Ok(list)
    }
}

impl Lists {
    /// The list to go on with; `None` at the end.
    fn next(&self) -> Option<Arc<Prefetching>> {
        let mut waiting = lock(&self.waiting);
        loop {
            waiting.lists.retain(|list| list.is_open());
            match waiting.lists.last() {
                _ if waiting.has_ended => return None,
                Some(list) => return Some(list.clone()),
                None => waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Drop for Prefetcher {
    /// Ends after the query that runs.
    fn drop(&mut self) {
        lock(&self.lists.waiting).has_ended = true;
        self.lists.changed.notify_one();
        drop(self.thread.take().map(JoinHandle::join));
    }
}
