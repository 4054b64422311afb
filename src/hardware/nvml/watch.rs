//! Readings taken on a thread of their own.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::reading::Reading;
use crate::base::lock;

/// A thread that takes readings until it is dropped or its source ends. Whoever asks for the last one waits for no reading.
pub struct Watch {
    last: Arc<Mutex<Option<Arc<Reading>>>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// What drivers sample at is no faster than a sixth of a second.
    pub const PERIOD: Duration = Duration::from_secs(1);

    /// Takes a reading now and then one every `period`, and calls `each` with it on the thread. A device is a source, and so
    /// are recorded readings. Errors when the system gives no thread.
    pub fn start(
        source: impl Iterator<Item = Reading> + Send + 'static,
        period: Duration,
        mut each: impl FnMut(&Reading) + Send + 'static,
    ) -> std::io::Result<Self> {
        let last = Arc::new(Mutex::new(None));
        let (stop, stopped) = mpsc::channel::<()>();
        let seen = last.clone();
        let watch = move || {
            for reading in source {
                let reading = Arc::new(reading);
                *lock(&seen) = Some(reading.clone());
                each(&reading);
                if stopped.recv_timeout(period) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name("nvml".into()).spawn(watch)?;
        Ok(Watch { last, stop: Some(stop), thread: Some(thread) })
    }

    /// The last reading; none before the first.
    pub fn last(&self) -> Option<Arc<Reading>> {
        lock(&self.last).clone()
    }

    /// Whether the source has ended, or what was called has panicked.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Watch {
    /// Waits for the reading that is being taken, unless the watch is dropped by what it calls.
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != thread::current().id()) {
            // A panic of what was called has been reported on its thread.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::super::reading::Absent;
    use super::*;

    fn recorded(n: u32) -> impl Iterator<Item = Reading> + Send {
        (0..n).map(|i| Reading { power_mw: Ok(i), ..Reading::absent(Absent::NotAsked) })
    }

    #[test]
    fn each_recorded_reading_is_seen_once_in_order() {
        let (tell, seen) = mpsc::channel();
        let watch = Watch::start(recorded(5), Duration::ZERO, move |r| tell.send(r.power_mw.clone()).unwrap()).unwrap();
        assert_eq!(seen.iter().collect::<Vec<_>>(), (0..5).map(Ok).collect::<Vec<_>>());
        assert_eq!(watch.last().unwrap().power_mw, Ok(4));
    }

    #[test]
    fn dropping_ends_the_thread_at_once_whatever_the_period() {
        let count = Arc::new(AtomicUsize::new(0));
        let (tell, first) = mpsc::channel();
        let counted = count.clone();
        let each = move |_: &Reading| {
            counted.fetch_add(1, SeqCst);
            let _ = tell.send(());
        };
        let watch = Watch::start(recorded(u32::MAX), Duration::from_secs(3600), each).unwrap();
        first.recv().unwrap();
        drop(watch);
        assert_eq!((count.load(SeqCst), Arc::strong_count(&count)), (1, 1), "the thread and what it held are gone");
    }

    #[test]
    fn what_is_called_may_drop_the_watch_or_panic() {
        let slot = Arc::new(Mutex::new(None));
        let (inside, (tell, gone)) = (slot.clone(), mpsc::channel());
        let each = move |_: &Reading| {
            if lock(&inside).take().is_some() {
                tell.send(()).unwrap();
            }
        };
        *lock(&slot) = Some(Watch::start(recorded(u32::MAX), Duration::from_millis(1), each).unwrap());
        gone.recv().unwrap();
        let watch = Watch::start(recorded(2), Duration::ZERO, |_| panic!("of the test")).unwrap();
        while !watch.is_over() {
            thread::yield_now();
        }
        assert_eq!(watch.last().unwrap().power_mw, Ok(0));
    }
}
