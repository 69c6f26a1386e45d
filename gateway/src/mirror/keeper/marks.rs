//! What is to be asked about a feed besides the whole of it, and when it may be asked: there
//! only while something is, as most feeds are quiet.

use std::{collections::BTreeSet, time::Instant};

use super::feeds::take_some;

/// Ids that are to be settled.
#[derive(Debug)]
pub(super) struct Marks {
    pub(super) touched: BTreeSet<String>,
    pub(super) touched_first: Instant,
    pub(super) touched_last: Instant,
    /// Ids that a sorted feed lists without an item; asked whenever it is settled.
    pub(super) orphans: BTreeSet<String>,
}

impl Marks {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            touched: BTreeSet::new(),
            touched_first: now,
            touched_last: now,
            orphans: BTreeSet::new(),
        }
    }

    /// Notes that a notice was about this id.
    pub(super) fn touch(&mut self, id: &str, now: Instant) {
        if self.touched.is_empty() {
            self.touched_first = now;
        }
        self.touched_last = now;
        if !self.touched.contains(id) {
            self.touched.insert(id.to_owned());
        }
    }

    /// Takes at most so many touched ids out, and all orphans along.
    pub(super) fn take(&mut self, most: usize, now: Instant) -> Vec<String> {
        let mut ids = take_some(&mut self.touched, most);
        let orphans = self.orphans.iter().filter(|id| ids.binary_search(id).is_err());
        let orphans: Vec<String> = orphans.cloned().collect();
        ids.extend(orphans);
        self.touched_first = now;
        ids
    }

    pub(super) fn is_empty(&self) -> bool {
        self.touched.is_empty() && self.orphans.is_empty()
    }
}

/// When a feed may be read again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// A doubt is not read before this.
    pub(super) paused_until: Instant,
    /// Nothing is read before this: the last read failed.
    pub(super) retry_at: Instant,
}

impl Pace {
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.paused_until.max(self.retry_at) <= now
    }
}
