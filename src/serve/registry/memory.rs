//! What versions take of memory.

use super::settings::WhenFull;
use crate::base::size_text;
use crate::session::Session;

/// Memory of a version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Footprint {
    /// Constants as the file has them. They stay in the mapped file, from where the system may take them back.
    pub file_bytes: u64,
    /// The most that was held on the device so far: prepared weights, and the memory that runs worked in.
    pub device_bytes: u64,
}

impl Footprint {
    /// What a session takes so far: to know it before requests come, warm it up.
    pub fn of(session: &Session) -> Footprint {
        let file_bytes = session.model().graph().constant_bytes() as u64;
        let device_bytes = session.report().accounts.first().map_or(0, |account| account.peak_bytes);
        Footprint { file_bytes, device_bytes }
    }

    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.file_bytes + self.device_bytes
    }

    /// Errors with figures and cure where it is more than a version of the model may take.
    pub fn check(&self, model: &str, limit_bytes: Option<u64>) -> Result<(), String> {
        let Some(limit) = limit_bytes.filter(|&limit| self.bytes() > limit) else { return Ok(()) };
        let [all, file, device, limit] = [self.bytes(), self.file_bytes, self.device_bytes, limit].map(size_text);
        Err(format!(
            "it takes {all} ({file} of constants, {device} on the device), and models.{model}.memory_limit_bytes allows {limit}: \
             raise that, warm up smaller shapes, or serve it with fewer bits"
        ))
    }
}

/// A version that takes memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub model: String,
    pub version: u64,
    pub bytes: u64,
    /// When it was asked last; later is more.
    pub used: u64,
    pub may_go: bool,
}

/// Which versions go so that another one of `bytes` has room within `limit`, least recently used first. Errors with figures and cure where
/// there is no room.
pub(super) fn room(mut held: Vec<Holder>, bytes: u64, limit: Option<u64>, when_full: WhenFull) -> Result<Vec<Holder>, String> {
    let Some(limit) = limit else { return Ok(Vec::new()) };
    let taken: u64 = held.iter().map(|h| h.bytes).sum();
    let mut over = (taken + bytes).saturating_sub(limit);
    let mut going = Vec::new();
    if when_full == WhenFull::UnloadIdle {
        held.retain(|h| h.may_go);
        held.sort_by_key(|h| h.used);
        for holder in held {
            if over > 0 {
                over = over.saturating_sub(holder.bytes);
                going.push(holder);
            }
        }
    }
    if over == 0 {
        return Ok(going);
    }
    let [bytes, taken, limit] = [bytes, taken, limit].map(size_text);
    let cure = match when_full {
        WhenFull::Refuse => "unload another, raise that, or set when_full to unload_idle",
        WhenFull::UnloadIdle => "all others are pinned or not enough: raise that, or pin fewer",
    };
    Err(format!("it takes {bytes}, {taken} are taken and memory_limit_bytes is {limit}: {cure}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(model: &str, bytes: u64, used: u64, may_go: bool) -> Holder {
        Holder { model: model.into(), version: 1, bytes, used, may_go }
    }

    #[test]
    fn those_not_asked_for_longest_make_room_but_not_the_pinned() {
        let held = || {
            vec![
                holder("new", 30, 9, true),
                holder("old", 20, 1, true),
                holder("pinned", 40, 0, false),
                holder("mid", 10, 5, true),
            ]
        };
        let going =
            |bytes, limit, when| room(held(), bytes, limit, when).map(|g| g.into_iter().map(|h| h.model).collect::<Vec<_>>());
        assert_eq!(going(1 << 40, None, WhenFull::Refuse), Ok(vec![]));
        assert_eq!(going(10, Some(110), WhenFull::UnloadIdle), Ok(vec![]));
        assert_eq!(going(11, Some(110), WhenFull::UnloadIdle), Ok(vec!["old".into()]));
        assert_eq!(going(35, Some(110), WhenFull::UnloadIdle), Ok(vec!["old".into(), "mid".into()]));
        assert!(going(71, Some(110), WhenFull::UnloadIdle).is_err_and(|why| why.contains("pinned")));
        assert!(going(11, Some(110), WhenFull::Refuse).is_err_and(|why| why.contains("100 B") && why.contains("unload_idle")));
    }
}
