//! Who pays for memory: a tree of accounts (process, model, request), each with a limit.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};

use crate::base::lock;

/// A node of the tree. What it uses counts for all above it, too.
#[derive(Debug)]
pub struct Account {
    name: String,
    parent: Option<Arc<Account>>,
    children: Mutex<Vec<Weak<Account>>>,
    limit_bytes: AtomicU64,
    used_bytes: AtomicU64,
    peak_bytes: AtomicU64,
}

/// An account at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[allow(missing_docs)]
pub struct AccountStats {
    pub name: String,
    pub used_bytes: u64,
    pub peak_bytes: u64,
    /// `None` without a limit.
    pub limit_bytes: Option<u64>,
}

/// Memory besides a pool's blocks that an account pays for until this is dropped: see [`super::Pool::pay`].
#[derive(Debug)]
pub struct Charge {
    pub(super) account: Arc<Account>,
    pub(super) bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.refund(self.bytes);
    }
}

impl Account {
    /// The root: a process.
    pub fn root(name: &str, limit_bytes: u64) -> Arc<Self> {
        Self::new(name.into(), None, limit_bytes)
    }

    /// A part of this account, named `parent/name`, or `parent/name#2` and so on while another part has that name.
    pub fn child(self: &Arc<Self>, name: &str, limit_bytes: u64) -> Arc<Self> {
        let mut children = lock(&self.children);
        children.retain(|child| child.strong_count() > 0);
        let is_taken = |name: &String| children.iter().filter_map(Weak::upgrade).any(|child| child.name == *name);
        let mut path = format!("{}/{name}", self.name);
        for i in 2.. {
            if !is_taken(&path) {
                break;
            }
            path = format!("{}/{name}#{i}", self.name);
        }
        let child = Self::new(path, Some(self.clone()), limit_bytes);
        children.push(Arc::downgrade(&child));
        child
    }

    fn new(name: String, parent: Option<Arc<Self>>, limit_bytes: u64) -> Arc<Self> {
        let (children, used_bytes, peak_bytes) = Default::default();
        Arc::new(Account { name, parent, children, limit_bytes: limit_bytes.into(), used_bytes, peak_bytes })
    }

    /// Names from the root down, with slashes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes in blocks that this account and those below it hold, free ones in caches among them, and what they pay for otherwise.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Relaxed)
    }

    /// The most it ever held.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Relaxed)
    }

    /// The most it may hold.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes.load(Relaxed)
    }

    /// Another limit; what is held already stays.
    pub fn set_limit_bytes(&self, bytes: u64) {
        self.limit_bytes.store(bytes, Relaxed);
    }

    /// Figures of this account and of all below it, each before its parts.
    pub fn stats(&self) -> Vec<AccountStats> {
        let limit_bytes = Some(self.limit_bytes()).filter(|&bytes| bytes != u64::MAX);
        let (name, used_bytes, peak_bytes) = (self.name.clone(), self.used_bytes(), self.peak_bytes());
        let mut all = vec![AccountStats { name, used_bytes, peak_bytes, limit_bytes }];
        let children: Vec<Arc<Account>> = lock(&self.children).iter().filter_map(Weak::upgrade).collect();
        all.extend(children.iter().flat_map(|child| child.stats()));
        all
    }

    /// Whether it is `other`, or below it: what it gives back counts there.
    pub fn is_part_of(&self, other: &Account) -> bool {
        self.lineage().any(|account| std::ptr::eq(account, other))
    }

    fn lineage(&self) -> impl Iterator<Item = &Account> {
        std::iter::successors(Some(self), |a| a.parent.as_deref())
    }

    /// Charges this account and all above it. Errors with the account that is exhausted; then none is charged.
    pub(super) fn charge(&self, bytes: u64) -> Result<(), &Account> {
        for (depth, account) in self.lineage().enumerate() {
            let used = account.used_bytes.fetch_add(bytes, Relaxed) + bytes;
            if used > account.limit_bytes() {
                self.refund_up_to(depth, bytes);
                return Err(account);
            }
        }
        for account in self.lineage() {
            let used = account.used_bytes();
            if used > account.peak_bytes() {
                account.peak_bytes.fetch_max(used, Relaxed);
            }
        }
        Ok(())
    }

    pub(super) fn refund(&self, bytes: u64) {
        self.refund_up_to(usize::MAX - 1, bytes);
    }

    fn refund_up_to(&self, depth: usize, bytes: u64) {
        for account in self.lineage().take(depth + 1) {
            account.used_bytes.fetch_sub(bytes, Relaxed);
        }
    }
}
