//! Clients that wait until what they are to be told is known, or until their patience ends.
//!
//! Each waits for one thing at a time, so that what becomes known wakes only those who wait
//! for it: with a shard away, thousands wait, and others must not feel it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use tokio::sync::oneshot;

use super::{
    resume::Asked,
    view::{Owner, PATIENCE},
};
use crate::{hub::ClientId, identity::TeamId};

/// A client that waits.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) client: ClientId,
    pub(super) since: Instant,
    pub(super) what: What,
}

/// What a client waits to be told.
#[derive(Debug)]
pub(super) enum What {
    Initial,
    /// What it lacks of what it says it holds.
    Resume(Asked),
    Team(TeamId),
    Subscribe {
        feed: Arc<str>,
        call: Option<u64>,
    },
    Sees {
        feed: String,
        reply: oneshot::Sender<bool>,
    },
}

/// What has to happen before a client can be told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Until {
    /// This view is whole.
    Ready(Owner),
    /// This feed is filled.
    Filled(Arc<str>),
    /// This client has its `initial`.
    Joined(ClientId),
}

/// All who wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    entries: BTreeMap<u64, (Pending, Option<Until>)>,
    by_client: HashMap<ClientId, BTreeSet<u64>>,
    until: HashMap<Until, BTreeSet<u64>>,
    /// When patience ends; the same for all, so the first is the earliest.
    deadlines: VecDeque<(Instant, u64)>,
    due: BTreeSet<u64>,
    next: u64,
}

impl Waiting {
    /// Lets a client wait; it is due at once, as what it waits for may be there.
    pub(super) fn add(&mut self, client: ClientId, what: What, now: Instant) {
        self.next += 1;
        let number = self.next;
        self.entries.insert(number, (Pending { client, since: now, what }, None));
        self.by_client.entry(client).or_default().insert(number);
        self.deadlines.push_back((now + PATIENCE, number));
        self.due.insert(number);
    }

    /// Takes in that something has happened.
    pub(super) fn happened(&mut self, until: &Until) {
        self.due.extend(self.until.remove(until).into_iter().flatten());
    }

    /// Tells whether anybody waits for this.
    pub(super) fn awaits(&self, until: &Until) -> bool {
        self.until.contains_key(until)
    }

    /// Takes in that time has passed.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((deadline, number)) = self.deadlines.front().copied()
            && deadline <= now
        {
            self.deadlines.pop_front();
            if self.entries.contains_key(&number) {
                self.due.insert(number);
            }
        }
    }

    /// Takes the next who may be told now, with its number.
    pub(super) fn next_due(&mut self) -> Option<(u64, Pending)> {
        while let Some(number) = self.due.pop_first() {
            if let Some(pending) = self.take(number) {
                return Some((number, pending));
            }
        }
        None
    }

    /// Lets somebody wait on, at its place in the order, until something happens.
    pub(super) fn put_back(&mut self, number: u64, pending: Pending, until: Until) {
        self.by_client.entry(pending.client).or_default().insert(number);
        self.until.entry(until.clone()).or_default().insert(number);
        self.entries.insert(number, (pending, Some(until)));
    }

    /// Takes out what a client waits for and does not want any more.
    pub(super) fn drop_of(
        &mut self,
        client: ClientId,
        mut unwanted: impl FnMut(&What) -> bool,
    ) -> Vec<Pending> {
        let numbers: Vec<u64> =
            self.by_client.get(&client).into_iter().flatten().copied().collect();
        let unwanted = numbers.into_iter().filter(|number| {
            self.entries.get(number).is_some_and(|(pending, _)| unwanted(&pending.what))
        });
        let unwanted: Vec<u64> = unwanted.collect();
        unwanted.into_iter().filter_map(|number| self.take(number)).collect()
    }

    fn take(&mut self, number: u64) -> Option<Pending> {
        let (pending, until) = self.entries.remove(&number)?;
        if let Some(numbers) = self.by_client.get_mut(&pending.client) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_client.remove(&pending.client);
            }
        }
        if let Some(until) = until
            && let Some(numbers) = self.until.get_mut(&until)
        {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.until.remove(&until);
            }
        }
        Some(pending)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn due(waiting: &mut Waiting) -> Vec<ClientId> {
        std::iter::from_fn(|| waiting.next_due()).map(|(_, pending)| pending.client).collect()
    }

    #[test]
    fn what_happens_wakes_those_who_wait_for_it_and_nobody_else() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let feeds: [Arc<str>; 2] = ["a".into(), "b".into()];
        for (client, feed) in [(1, &feeds[0]), (2, &feeds[1]), (3, &feeds[0])] {
            waiting.add(ClientId(client), What::Initial, now);
            let (number, pending) = waiting.next_due().unwrap();
            waiting.put_back(number, pending, Until::Filled(feed.clone()));
        }
        assert_eq!(due(&mut waiting), []);
        waiting.happened(&Until::Filled(feeds[0].clone()));
        assert_eq!(due(&mut waiting), [ClientId(1), ClientId(3)]);
        waiting.expire(now + PATIENCE - Duration::from_millis(1));
        assert_eq!(due(&mut waiting), []);
        waiting.expire(now + PATIENCE);
        assert_eq!(due(&mut waiting), [ClientId(2)]);
        let Waiting { entries, by_client, until, deadlines, due, .. } = waiting;
        assert!(entries.is_empty() && by_client.is_empty() && until.is_empty());
        assert!(deadlines.is_empty() && due.is_empty());
    }

    #[test]
    fn who_leaves_leaves_nothing_behind() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for client in 0..100 {
            waiting.add(ClientId(client), What::Initial, now);
            let (number, pending) = waiting.next_due().unwrap();
            waiting.put_back(number, pending, Until::Joined(ClientId(7)));
            assert_eq!(waiting.drop_of(ClientId(client), |_| true).len(), 1);
        }
        assert!(waiting.entries.is_empty() && waiting.until.is_empty());
    }
}
