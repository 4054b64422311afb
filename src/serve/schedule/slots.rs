//! Where queued requests lie: by index, with a number that tells a request from those that lay there before.

use super::request::{Key, Request};

#[derive(Debug)]
struct Slot {
    request: Request,
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

    pub fn insert(&mut self, request: Request) -> Key {
        self.admitted = self.admitted.wrapping_add(1);
        let slot = Slot { request, serial: Some(self.admitted) };
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

    pub fn find(&self, key: Key) -> Option<&Request> {
        let slot = self.slots.get(key.index())?;
        (slot.serial == Some((key.0 >> 32) as u32)).then_some(&slot.request)
    }

    /// Takes a request out; `None` when it is no longer there.
    pub fn remove(&mut self, key: Key) -> Option<Request> {
        let request = *self.find(key)?;
        self.slots[key.index()].serial = None;
        self.free.push(key.index() as u32);
        Some(request)
    }
}
