//! Who had how much: the accounts behind weighted fairness, for models in time and for tenants in rows.

use std::collections::HashMap;

#[derive(Debug, Clone, Copy)]
struct Account {
    weight: f64,
    /// What it had, over its weight, in quanta.
    used: f64,
    queued: usize,
}

/// Accounts by id. An account that was away joins where the others are, less one quantum: it goes first, but saves up nothing.
#[derive(Debug)]
pub(super) struct Shares {
    most: usize,
    index: HashMap<u32, u32>,
    accounts: Vec<Account>,
    last: Option<(u32, u32)>,
    /// How far those are who were served last.
    clock: f64,
}

impl Shares {
    /// Accounts of which this many are told apart; those that come later share one of these.
    pub fn new(most: usize) -> Shares {
        Shares { most, index: HashMap::new(), accounts: Vec::new(), last: None, clock: 0.0 }
    }

    /// Where an account lies.
    pub fn at(&mut self, id: u32) -> u32 {
        if let Some((known, index)) = self.last
            && known == id
        {
            return index;
        }
        let index = match self.index.get(&id) {
            Some(&index) => index,
            None if self.accounts.len() >= self.most => id % self.most as u32,
            None => {
                self.accounts.push(Account { weight: 1.0, used: self.clock, queued: 0 });
                let index = self.accounts.len() as u32 - 1;
                self.index.insert(id, index);
                index
            }
        };
        self.last = Some((id, index));
        index
    }

    pub fn weigh(&mut self, id: u32, weight: f64) {
        let index = self.at(id) as usize;
        self.accounts[index].weight = if weight > 0.0 { weight } else { 1e-6 };
    }

    /// A request of this account is queued.
    pub fn join(&mut self, index: u32) {
        let account = &mut self.accounts[index as usize];
        if account.queued == 0 {
            account.used = account.used.max(self.clock - 1.0);
        }
        account.queued += 1;
    }

    /// A request of this account is queued no more.
    pub fn leave(&mut self, index: u32) {
        self.accounts[index as usize].queued -= 1;
    }

    /// An account gets what is this many quanta.
    pub fn charge(&mut self, index: u32, quanta: f64) {
        let account = &mut self.accounts[index as usize];
        self.clock = self.clock.max(account.used);
        account.used += quanta / account.weight;
    }

    /// The round that an account is in.
    pub fn round(&self, index: u32) -> i64 {
        self.accounts[index as usize].used.floor() as i64
    }

    pub fn queued(&self, index: u32) -> usize {
        self.accounts[index as usize].queued
    }
}
