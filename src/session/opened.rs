//! Open devices. Sessions of one GPU in a process share it: one pool of memory for all models, and one watch over it.

use std::sync::{Arc, Mutex, OnceLock, Weak};

use crate::base::lock;
use crate::device::Device;
use crate::hardware::DeviceInfo;
use crate::hardware::nvml::{Reading, Watch};
use crate::memory::pressure::{Level, PressureWatch, Thresholds};

/// Readings of a device, without end.
pub(crate) type Readings = Box<dyn Iterator<Item = Reading> + Send>;

/// Begins to read a device; `None` where it cannot be read.
pub(crate) type Read = Box<dyn Fn() -> Option<Readings> + Send + Sync>;

/// A device as long as a session holds it.
pub(crate) struct Opened {
    // Before the device: dropping it waits for what it is doing.
    watch: OnceLock<Option<PressureWatch>>,
    read: Option<Read>,
    /// With the root of its accounts.
    pub device: Arc<dyn Device>,
}

impl Opened {
    /// A device, and how it is read.
    pub fn new(device: Arc<dyn Device>, read: Option<Read>) -> Self {
        Opened { watch: OnceLock::new(), read, device }
    }

    /// The device of this description and number that some session has open, else what `open` gives. A lost one counts as none.
    #[cfg_attr(not(feature = "gpu"), allow(dead_code))]
    pub fn shared(
        info: &DeviceInfo,
        ordinal: usize,
        open: impl FnOnce() -> Result<Opened, String>,
    ) -> Result<Arc<Opened>, String> {
        static ALL: Mutex<Vec<(usize, Weak<Opened>)>> = Mutex::new(Vec::new());
        let mut all = lock(&ALL);
        all.retain(|(_, opened)| opened.strong_count() > 0);
        let fits = |device: &dyn Device| {
            let open = device.info();
            (open.kind, &open.identity, &open.tuned) == (info.kind, &info.identity, &info.tuned) && !device.is_lost()
        };
        let same = all.iter().filter(|(at, _)| *at == ordinal).filter_map(|(_, opened)| opened.upgrade());
        if let Some(found) = same.into_iter().find(|opened| fits(&*opened.device)) {
            return Ok(found);
        }
        let opened = Arc::new(open()?);
        all.push((ordinal, Arc::downgrade(&opened)));
        Ok(opened)
    }

    /// Begins to watch the device's memory, once, where it can be read and the system gives a thread.
    pub fn watch(&self) {
        self.watch.get_or_init(|| {
            let (readings, pools) = (self.read.as_ref()?()?, self.device.pools());
            PressureWatch::start(pools.first()?, readings, Watch::PERIOD, Thresholds::default(), |_, _| {}).ok()
        });
    }

    /// How short memory is; `None` when nothing watches it.
    pub fn level(&self) -> Option<Level> {
        self.watch.get()?.as_ref().map(PressureWatch::level)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::device::null::NullDevice;
    use crate::hardware;
    use crate::hardware::nvml::{Absent, Memory};

    fn null(identity: &str) -> Opened {
        let info = DeviceInfo { identity: identity.into(), ..hardware::cpu::info(1) };
        Opened::new(Arc::new(NullDevice::new(info).unwrap()), None)
    }

    #[test]
    fn a_device_is_opened_once_as_long_as_it_is_held() {
        let ask = |identity: &'static str, ordinal| {
            let info = DeviceInfo { identity: identity.into(), ..hardware::cpu::info(1) };
            Opened::shared(&info, ordinal, || Ok(null(identity))).unwrap()
        };
        let [first, again, other, second] =
            [("opened a", 0), ("opened a", 0), ("opened b", 0), ("opened a", 1)].map(|(i, n)| ask(i, n));
        assert!(Arc::ptr_eq(&first, &again) && !Arc::ptr_eq(&first, &other) && !Arc::ptr_eq(&first, &second));
        let gone = Arc::downgrade(&first);
        drop((first, again));
        assert!(gone.upgrade().is_none(), "nothing but its users keeps it open");
        assert!(Opened::shared(&hardware::cpu::info(1), 7, || Err("no such device".into())).is_err());
    }

    /// Full up to what `share` says, told when it is let go.
    struct Recorded(Vec<f64>, mpsc::Sender<()>);

    impl Iterator for Recorded {
        type Item = Reading;

        fn next(&mut self) -> Option<Reading> {
            let free_bytes = 1000 - (self.0.pop()? * 1000.0) as u64;
            let memory = Memory { total_bytes: 1000, free_bytes, used_bytes: 1000 - free_bytes, reserved_bytes: None };
            Some(Reading { memory: Ok(memory), ..Reading::absent(Absent::NotAsked) })
        }
    }

    impl Drop for Recorded {
        fn drop(&mut self) {
            let _ = self.1.send(());
        }
    }

    #[test]
    fn one_watch_begins_when_it_is_wanted_and_ends_with_the_last_user() {
        let (tell, ended) = mpsc::channel();
        let read = move || Some(Box::new(Recorded(vec![0.5; 1 << 20], tell.clone())) as Readings);
        let opened = Arc::new(Opened { read: Some(Box::new(read)), ..null("opened c") });
        assert_eq!(opened.level(), None);
        let second = opened.clone();
        opened.watch();
        second.watch();
        assert_eq!(opened.level(), Some(Level::Low));
        drop(opened);
        assert!(ended.recv_timeout(Duration::from_millis(20)).is_err());
        drop(second);
        assert!(ended.try_recv().is_ok(), "dropping waits for the thread");
        assert!(ended.recv().is_err(), "there was one");
    }
}
