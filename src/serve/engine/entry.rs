//! Ways into an engine: what every request counts or locks for a moment, so often that threads on several cores would do little but take its
//! cache lines from each other (70 ns each).

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::model::Served;
use super::shared::Shared;

/// More threads than these share them.
const ENTRIES: usize = 16;

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

/// What is shared, behind a count of references that some threads have to themselves.
#[repr(align(128))]
pub(super) struct Counted<T>(Arc<T>);

impl<T> Deref for Counted<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// What submitting needs, for some threads.
#[repr(align(128))]
struct Entry {
    shared: Arc<Counted<Shared>>,
    models: RwLock<Vec<Option<Arc<Counted<Served>>>>>,
}

/// All ways into one engine.
pub(super) struct Entries(Vec<Entry>);

impl Entries {
    pub fn new(shared: &Arc<Shared>) -> Self {
        let entry = || Entry { shared: Arc::new(Counted(shared.clone())), models: RwLock::default() };
        Entries((0..ENTRIES).map(|_| entry()).collect())
    }

    fn own(&self) -> &Entry {
        &self.0[THREAD.with(|thread| thread % ENTRIES)]
    }

    /// The engine.
    pub fn shared(&self) -> &Arc<Counted<Shared>> {
        &self.own().shared
    }

    /// A model; else how many there were.
    pub fn model(&self, id: u32) -> Result<Arc<Counted<Served>>, usize> {
        let models = self.own().models.read().unwrap_or_else(PoisonError::into_inner);
        models.get(id as usize).and_then(Option::clone).ok_or(models.len())
    }

    /// The models, without those that are gone.
    pub fn models(&self) -> Vec<Arc<Counted<Served>>> {
        self.own().models.read().unwrap_or_else(PoisonError::into_inner).iter().flatten().cloned().collect()
    }

    /// Adds the model that is made for the next number; that number.
    pub fn add<E>(&self, make: impl FnOnce(u32) -> Result<Served, E>) -> Result<u32, E> {
        let mut all: Vec<_> = self.0.iter().map(|entry| entry.models.write().unwrap_or_else(PoisonError::into_inner)).collect();
        let id = all[0].len() as u32;
        let served = Arc::new(make(id)?);
        all.iter_mut().for_each(|models| models.push(Some(Arc::new(Counted(served.clone())))));
        Ok(id)
    }

    /// Forgets a model; whether it was there.
    pub fn remove(&self, id: u32) -> bool {
        let mut was = false;
        for entry in &self.0 {
            let mut models = entry.models.write().unwrap_or_else(PoisonError::into_inner);
            was |= models.get_mut(id as usize).is_some_and(|served| served.take().is_some());
        }
        was
    }
}
