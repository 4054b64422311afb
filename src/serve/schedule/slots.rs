//! Where queued requests lie: by index, with a number that tells a request from those that lay there before.

use super::request::{Key, Request};

/// A queued request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queued {
    pub request: Request,
    pub admitted_ns: u64,
    /// Where its model and its tenant lie.
    pub model: u32,
    pub tenant: u32,
}

#[derive(Debug)]
struct Slot {
    queued: Queued,
    /// Of its admission; `None` when free.
    serial: Option<u32>,
}

/// Queued requests by their keys.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    admitted: u32,
}

impl Slots {
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn insert(&mut self, queued: Queued) -> Key {
        self.admitted = self.admitted.wrapping_add(1);
        let slot = Slot { queued, serial: Some(self.admitted) };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        Key(u64::from(self.admitted) << 32 | u64::from(index))
    }

    pub fn find(&self, key: Key) -> Option<&Queued> {
        let slot = self.slots.get(key.index())?;
        (slot.serial == Some((key.0 >> 32) as u32)).then_some(&slot.queued)
    }

    /// Takes a request out; `None` when it is no longer there.
    pub fn remove(&mut self, key: Key) -> Option<Queued> {
        let queued = *self.find(key)?;
        self.slots[key.index()].serial = None;
        self.free.push(key.index() as u32);
        Some(queued)
    }

    /// All queued requests.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &Queued)> {
        let key = |(index, slot): (usize, &Slot)| slot.serial.map(|serial| Key(u64::from(serial) << 32 | index as u64));
        self.slots.iter().enumerate().filter_map(move |(index, slot)| Some((key((index, slot))?, &slot.queued)))
    }
}
