//! The second level: answers in Redis, which processes share and which survives them. One thread looks up, all that wait in one command;
//! one stores, behind the requests' backs. A circuit breaker takes a server out of the way that is dead or slow.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redis::{Connection, RedisResult};

use super::envelope::unix_ms;
use super::queue::Queue;
use super::{Answer, Breaker, Digest, Envelope, Second, SecondStats};
use crate::base::lock;
use crate::error::{Error, Result};

/// An answer and until when it may be given.
pub(super) type Found = (Answer, Option<Instant>);

struct Lookup {
    key: Digest,
    found: Box<dyn FnOnce(Option<Found>) + Send>,
}

impl Lookup {
    fn answer(self, found: Option<Found>) {
        // Whoever asked and panics keeps no other from its answer.
        let _ = catch_unwind(AssertUnwindSafe(|| (self.found)(found)));
    }
}

struct Store {
    key: Digest,
    reply: Answer,
    expires_unix_ms: u64,
}

#[derive(Default)]
struct Counters {
    lookups: AtomicU64,
    hits: AtomicU64,
    refused: AtomicU64,
    late: AtomicU64,
    damaged: AtomicU64,
    failures: AtomicU64,
    connections: AtomicU64,
    stored: AtomicU64,
    stored_bytes: AtomicU64,
    plain_bytes: AtomicU64,
    dropped: AtomicU64,
}

fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Relaxed);
}

struct Shared {
    options: Second,
    client: redis::Client,
    envelope: Envelope,
    lookups: Queue<Lookup>,
    stores: Queue<Store>,
    breaker: Mutex<Breaker>,
    count: Counters,
}

/// Lookups in one command at most: an answer should not wait for many others.
const LOOKUPS: usize = 16;
/// Answers stored by one command at most.
const STORES: usize = 32;

/// Answers in Redis.
pub(super) struct SecondLevel {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl SecondLevel {
    /// Starts the threads, which connect by themselves. Errors when the address cannot be read or a thread cannot be had, not when no
    /// server answers.
    pub(super) fn start(options: Second) -> Result<Self> {
        let client = redis::Client::open(options.url.as_str()).map_err(|e| Error::BadInput(format!("address of Redis: {e}")))?;
        let shared = Arc::new(Shared {
            client,
            envelope: Envelope {
                secret: options.secret,
                compress_from_bytes: options.compress_from_bytes,
                largest_bytes: options.largest_bytes,
            },
            lookups: Queue::new(options.waiting_lookups, false),
            stores: Queue::new(options.waiting_bytes, true),
            breaker: Mutex::new(Breaker::new(options.failures, options.open_for)),
            count: Counters::default(),
            options,
        });
        let mut level = SecondLevel { shared, threads: Vec::new() };
        for (name, work) in [("cache-lookups", read as fn(&Shared)), ("cache-stores", write)] {
            let shared = level.shared.clone();
            let thread = std::thread::Builder::new().name(name.into()).spawn(move || work(&shared));
            level.threads.push(thread.map_err(|e| Error::BadInput(format!("no thread for the cache: {e}")))?);
        }
        Ok(level)
    }

    /// Asks for an answer. `found` runs once: on this thread when the server is left alone or too many wait, else on the level's.
    pub(super) fn look_up(&self, key: Digest, found: impl FnOnce(Option<Found>) + Send + 'static) {
        add(&self.shared.count.lookups, 1);
        if let Err(lookup) = self.shared.lookups.push(Lookup { key, found: Box::new(found) }, 1) {
            add(&self.shared.count.refused, 1);
            lookup.answer(None);
        }
    }

    /// Asks for an answer and waits for it no longer than the budget, nor beyond `deadline`.
    pub(super) fn look_up_within(&self, key: Digest, deadline: Option<Instant>) -> Option<Found> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.look_up(key, move |found| drop(sender.send(found)));
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        receiver.recv_timeout(self.shared.options.budget.min(left)).unwrap_or_else(|_| {
            add(&self.shared.count.late, 1);
            None
        })
    }

    /// Stores an answer later, if there is room to keep it until then and the server is not left alone.
    pub(super) fn store(&self, key: Digest, reply: &Answer, ttl: Option<Duration>) {
        let bytes = reply.size_bytes();
        if bytes > self.shared.options.largest_bytes {
            return;
        }
        let expires_unix_ms =
            ttl.map_or(u64::MAX, |ttl| unix_ms().saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)));
        let store = Store { key, reply: reply.clone(), expires_unix_ms };
        if !self.shared.lookups.is_open() || self.shared.stores.push(store, bytes).is_err() {
            add(&self.shared.count.dropped, 1);
        }
    }

    /// Waits until everything is stored or `until`. Whether it is.
    pub(super) fn flush(&self, until: Instant) -> bool {
        self.shared.stores.idle(until)
    }

    pub(super) fn stats(&self) -> SecondStats {
        let Shared { count, breaker, lookups, stores, .. } = &*self.shared;
        let breaker = lock(breaker);
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        SecondStats {
            reachable: lookups.is_open(),
            breaker: breaker.state(),
            openings: breaker.openings(),
            lookups: of(&count.lookups),
            hits: of(&count.hits),
            refused: of(&count.refused),
            late: of(&count.late),
            damaged: of(&count.damaged),
            failures: of(&count.failures),
            connections: of(&count.connections),
            stored: of(&count.stored),
            stored_bytes: of(&count.stored_bytes),
            plain_bytes: of(&count.plain_bytes),
            dropped: of(&count.dropped),
            waiting: stores.waiting().0,
            waiting_bytes: stores.waiting().1,
        }
    }
}

impl Drop for SecondLevel {
    /// What waits to be stored is not; see [`SecondLevel::flush`].
    fn drop(&mut self) {
        self.shared.stores.shut();
        self.shared.stores.end();
        self.shared.lookups.end();
        let own = std::thread::current().id();
        // An answer that is handed out on the level's own thread may be the last to hold the cache.
        self.threads.drain(..).filter(|thread| thread.thread().id() != own).for_each(|thread| drop(thread.join()));
    }
}

impl Shared {
    /// A connection whose server answers; `wait` is for how long each of its answers is waited for.
    fn connect(&self, wait: Duration) -> RedisResult<Connection> {
        let mut connection = self.client.get_connection_with_timeout(self.options.patience)?;
        connection.set_read_timeout(Some(wait))?;
        connection.set_write_timeout(Some(wait))?;
        redis::cmd("PING").query::<()>(&mut connection)?;
        add(&self.count.connections, 1);
        Ok(connection)
    }

    fn name(&self, key: &Digest) -> String {
        format!("{}:{}", self.options.namespace, key.hex())
    }

    fn failed(&self) {
        add(&self.count.failures, 1);
        lock(&self.breaker).failed(Instant::now());
    }

    /// The answer in what Redis holds under its key.
    fn open(&self, key: &Digest, value: &[u8]) -> Option<Found> {
        // Times are rounded and read in such an order that an answer may lose a millisecond, and never gains one.
        let now = Instant::now();
        let found = self.envelope.open(key, value, unix_ms() + 1);
        add(if found.is_some() { &self.count.hits } else { &self.count.damaged }, 1);
        found.map(|(reply, ttl)| (reply, ttl.map(|ttl| now + ttl)))
    }
}

/// Looks up until the end. Lookups are let in only while there is a connection, so that none waits for one.
fn read(shared: &Shared) {
    while let Some(mut connection) = reach(shared) {
        shared.lookups.open();
        let ended = look_up(shared, &mut connection);
        shared.lookups.shut().into_iter().for_each(|lookup| lookup.answer(None));
        if ended {
            return;
        }
    }
}

/// A connection, once there is one; `None` at the end.
fn reach(shared: &Shared) -> Option<Connection> {
    loop {
        let rest = lock(&shared.breaker).rest(Instant::now());
        if !shared.lookups.sleep(rest) {
            return None;
        }
        match shared.connect(shared.options.budget) {
            Ok(connection) => {
                lock(&shared.breaker).probed();
                return Some(connection);
            }
            Err(_) => shared.failed(),
        }
    }
}

/// Looks up until the connection fails, the breaker opens or the end, which is true.
fn look_up(shared: &Shared, connection: &mut Connection) -> bool {
    while let Some(batch) = shared.lookups.take(LOOKUPS) {
        let began = Instant::now();
        let names: Vec<String> = batch.iter().map(|lookup| shared.name(&lookup.key)).collect();
        let values = redis::cmd("MGET").arg(&names).query::<Vec<Option<Vec<u8>>>>(connection);
        let intact = values.as_ref().is_ok_and(|values| values.len() == batch.len());
        if intact && began.elapsed() <= shared.options.budget {
            lock(&shared.breaker).succeeded();
        } else {
            shared.failed();
        }
        let values = values.unwrap_or_default().into_iter().chain(std::iter::repeat_with(|| None));
        batch.into_iter().zip(values).for_each(|(lookup, value)| {
            let found = value.filter(|_| intact).and_then(|value| shared.open(&lookup.key, &value));
            lookup.answer(found);
        });
        // After a failure the connection may still bring the answer to an earlier question.
        if !intact || lock(&shared.breaker).state() == super::BreakerState::Open {
            return false;
        }
    }
    true
}

/// Stores until the end.
fn write(shared: &Shared) {
    let mut connection = None;
    while let Some(batch) = shared.stores.take(STORES) {
        let sent = match shared.lookups.is_open() {
            true => send(shared, &mut connection, &batch),
            false => None,
        };
        if sent.is_none() {
            connection = None;
            add(&shared.count.dropped, batch.len());
        }
    }
}

fn send(shared: &Shared, connection: &mut Option<Connection>, batch: &[Store]) -> Option<()> {
    if connection.is_none() {
        *connection = shared.connect(shared.options.patience).ok();
    }
    let connection = connection.as_mut()?;
    let (mut pipe, mut plain, mut sealed) = (redis::pipe(), 0, 0);
    for Store { key, reply, expires_unix_ms } in batch {
        let value = shared.envelope.seal(key, reply, *expires_unix_ms);
        (plain, sealed) = (plain + reply.size_bytes(), sealed + value.len());
        let left_ms = expires_unix_ms.saturating_sub(unix_ms()).max(1);
        let set = pipe.cmd("SET").arg(shared.name(key)).arg(value);
        if *expires_unix_ms == u64::MAX {
            set.ignore()
        } else {
            set.arg("PX").arg(left_ms).ignore()
        };
    }
    pipe.query::<()>(connection).ok()?;
    add(&shared.count.stored, batch.len());
    add(&shared.count.stored_bytes, sealed);
    add(&shared.count.plain_bytes, plain);
    Some(())
}
