//! Which of the changes that wait are superfluous.

use std::collections::{HashMap, VecDeque};

use crate::hub::frame::About;

/// The changes in one queue, by the numbers of their places.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// The newest change of each item that waits.
    newest: HashMap<About, u64>,
    /// Older ones, and the number of the next of the same item; the oldest find comes first.
    superseded: VecDeque<(u64, u64)>,
}

impl Crowd {
    /// Takes an event in that came behind all others.
    pub(super) fn add(&mut self, about: &About, number: u64) {
        if !about.is_change() {
            return;
        }
        match self.newest.get_mut(about) {
            Some(newest) => {
                self.superseded.push_back((*newest, number));
                *newest = number;
            }
            None => drop(self.newest.insert(about.clone(), number)),
        }
    }

    /// Takes an event out that waits no more.
    pub(super) fn remove(&mut self, about: &About, number: u64) {
        if about.is_change() && self.newest.get(about) == Some(&number) {
            self.newest.remove(about);
        }
        // Behind one that waits stand only those whose newer one waits: never more than wait.
        while self.superseded.front().is_some_and(|(older, _)| *older <= number) {
            self.superseded.pop_front();
        }
    }

    /// Returns a change that is superfluous and the next one of the same item, each once.
    ///
    /// What stood before `front` waits no more.
    pub(super) fn next_superseded(&mut self, front: u64) -> Option<(u64, u64)> {
        loop {
            let superseded = self.superseded.pop_front()?;
            if superseded.0 >= front {
                return Some(superseded);
            }
        }
    }
}
