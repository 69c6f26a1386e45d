//! What is known of each feed, who wants it, and what is to be asked about it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;

use super::{passing::Passed, reading::Reading};
use crate::mirror::Mirror;

/// Whether a feed is mirrored whole or by some of its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    Whole,
    Items,
}

impl Scope {
    pub(super) const ALL: [Self; 2] = [Self::Whole, Self::Items];
}

/// Names one entry of [`Feeds`]; to clone it counts a reference.
pub(super) type Key = (Scope, Arc<str>);

/// Why a feed is read; a label of `mirror_repairs_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Fill,
    Reconnect,
    Topology,
    Doubt,
    Settle,
    Verify,
}

impl Cause {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Fill => "fill",
            Self::Reconnect => "reconnect",
            Self::Topology => "topology",
            Self::Doubt => "doubt",
            Self::Settle => "settle",
            Self::Verify => "verify",
        }
    }

    /// Whether it does not wait until the pause between doubts is over.
    const fn is_urgent(self) -> bool {
        match self {
            Self::Fill | Self::Reconnect | Self::Topology => true,
            Self::Doubt | Self::Settle | Self::Verify => false,
        }
    }
}

/// All feeds of all shards, found by a name without making anything of it.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    whole: HashMap<Arc<str>, Box<Tracked>>,
    items: HashMap<Arc<str>, Box<Tracked>>,
}

impl Feeds {
    fn of(&self, scope: Scope) -> &HashMap<Arc<str>, Box<Tracked>> {
        match scope {
            Scope::Whole => &self.whole,
            Scope::Items => &self.items,
        }
    }

    fn of_mut(&mut self, scope: Scope) -> &mut HashMap<Arc<str>, Box<Tracked>> {
        match scope {
            Scope::Whole => &mut self.whole,
            Scope::Items => &mut self.items,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.whole.len() + self.items.len()
    }

    pub(super) fn get(&self, scope: Scope, feed: &str) -> Option<&Tracked> {
        self.of(scope).get(feed).map(Box::as_ref)
    }

    /// Returns the key of a feed, which shares its name, if it is tracked.
    pub(super) fn key(&self, scope: Scope, feed: &str) -> Option<Key> {
        Some((scope, self.of(scope).get_key_value(feed)?.0.clone()))
    }

    pub(super) fn at(&self, key: &Key) -> Option<&Tracked> {
        self.of(key.0).get(&key.1).map(Box::as_ref)
    }

    pub(super) fn at_mut(&mut self, key: &Key) -> Option<&mut Tracked> {
        self.of_mut(key.0).get_mut(&key.1).map(Box::as_mut)
    }

    pub(super) fn insert(&mut self, key: Key, tracked: Tracked) {
        self.of_mut(key.0).insert(key.1, Box::new(tracked));
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Box<Tracked>> {
        self.of_mut(key.0).remove(&key.1)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Tracked> {
        self.whole.values_mut().chain(self.items.values_mut()).map(Box::as_mut)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Tracked)> {
        Scope::ALL.into_iter().flat_map(|scope| {
            self.of(scope).iter().map(move |(feed, tracked)| ((scope, feed.clone()), &**tracked))
        })
    }
}

/// One feed that somebody wants, or wanted a moment ago.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) shard: usize,
    pub(super) body: Body,
    /// What of it is in the keeper's total, and in that of what is at hand.
    pub(super) bytes: usize,
    pub(super) at_hand: usize,
    /// What recent versions take of either.
    pub(super) history: usize,
    /// Whether it is too large to be mirrored.
    pub(super) passed: Option<Box<Passed>>,
    /// The ticket of the subscription that is not confirmed yet.
    pub(super) ticket: Option<u64>,
    pub(super) reading: Option<Box<Reading>>,
    /// A read of everything wanted that is due, and why.
    pub(super) due: Option<Cause>,
    /// Whether it stands in its shard's queue or among the waiting.
    pub(super) queued: bool,
    /// A doubt is not read before this.
    pub(super) paused_until: Instant,
    /// Nothing is read before this: the last read failed.
    pub(super) retry_at: Instant,
    pub(super) touched: BTreeSet<String>,
    pub(super) touched_first: Instant,
    pub(super) touched_last: Instant,
    /// Ids that a sorted feed lists without an item; asked whenever it is settled.
    pub(super) orphans: BTreeSet<String>,
    pub(super) users: usize,
    pub(super) idle_since: Instant,
    /// Whether its key was of a wrong type when it was last read.
    pub(super) failing: bool,
    /// How many ids were left out of the last whole read.
    pub(super) bad_ids: usize,
    /// Whether it differed when it was last compared.
    pub(super) suspect: bool,
    /// Whether it was not compared in the last round, for being busy.
    pub(super) passed_over: bool,
}

impl Tracked {
    pub(super) fn new(shard: usize, body: Body, ticket: u64, now: Instant) -> Self {
        Self {
            shard,
            body,
            bytes: 0,
            at_hand: 0,
            history: 0,
            passed: None,
            ticket: Some(ticket),
            reading: None,
            due: None,
            queued: false,
            paused_until: now,
            retry_at: now,
            touched: BTreeSet::new(),
            touched_first: now,
            touched_last: now,
            orphans: BTreeSet::new(),
            users: 0,
            idle_since: now,
            failing: false,
            bad_ids: 0,
            suspect: false,
            passed_over: false,
        }
    }

    /// Makes a read due; what cannot wait stays what it is.
    pub(super) fn require(&mut self, cause: Cause) {
        if let Some(passed) = &mut self.passed {
            passed.doubted |= cause != Cause::Fill;
        }
        self.due = Some(match self.due {
            Some(due) if due.is_urgent() => due,
            _ => cause,
        });
    }

    /// Tells when the whole may be read, if it is due.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let due = self.due?;
        // What is passed through is large, and somebody may come and go all the time.
        let is_urgent = due.is_urgent() && self.passed.is_none();
        Some(if is_urgent { self.retry_at } else { self.retry_at.max(self.paused_until) })
    }

    /// Tells when something may be read, if anything is to be.
    pub(super) fn read_at(&self) -> Option<Instant> {
        match &self.body {
            Body::Items(items) if items.has_open() => Some(self.retry_at),
            Body::Items(_) | Body::Whole(_) => self.due_at(),
        }
    }

    /// About how many bytes the whole of it is, as far as that is known.
    pub(super) fn size(&self) -> Option<usize> {
        let passed = self.passed.as_ref().map(|passed| passed.bytes);
        passed.or(Some(self.bytes).filter(|bytes| *bytes > 0))
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
}

/// What of a feed is mirrored.
#[derive(Debug)]
pub(super) enum Body {
    Whole(Option<Mirror>),
    Items(Items),
}

impl Body {
    pub(super) fn empty(scope: Scope) -> Self {
        match scope {
            Scope::Whole => Self::Whole(None),
            Scope::Items => Self::Items(Items::default()),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Whole(mirror) => mirror.as_ref().map_or(0, Mirror::bytes),
            Self::Items(items) => items.bytes,
        }
    }

    pub(super) fn history_bytes(&self) -> usize {
        match self {
            Self::Whole(mirror) => mirror.as_ref().map_or(0, Mirror::history_bytes),
            Self::Items(_) => 0,
        }
    }
}

/// Some items of a shared feed.
#[derive(Debug, Default)]
pub(super) struct Items {
    wanted: HashMap<String, Wanted>,
    /// Ids that are to be asked about.
    open: BTreeSet<String>,
    bytes: usize,
}

#[derive(Debug)]
struct Wanted {
    users: usize,
    /// Not known yet, missing, or the item.
    known: Option<Option<Bytes>>,
}

/// What a read of an item brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    First,
    Other,
    Same,
}

impl Items {
    /// Counts one who wants an item; one that nobody wanted is to be asked about.
    pub(super) fn want(&mut self, id: &str) {
        if let Some(wanted) = self.wanted.get_mut(id) {
            wanted.users += 1;
            return;
        }
        self.wanted.insert(id.to_owned(), Wanted { users: 1, known: None });
        self.open.insert(id.to_owned());
    }

    /// Counts one less; `false` if nobody wanted it.
    pub(super) fn unwant(&mut self, id: &str) -> bool {
        let Some(wanted) = self.wanted.get_mut(id) else { return false };
        wanted.users -= 1;
        if wanted.users == 0 {
            self.bytes -= length(wanted.known.as_ref());
            self.wanted.remove(id);
            self.open.remove(id);
        }
        true
    }

    pub(super) fn is_wanted(&self, id: &str) -> bool {
        self.wanted.contains_key(id)
    }

    pub(super) fn get(&self, id: &str) -> Option<Option<&Bytes>> {
        self.wanted.get(id)?.known.as_ref().map(Option::as_ref)
    }

    /// Takes in what was read; what is not wanted any more is the same.
    pub(super) fn take(&mut self, id: &str, item: Option<Bytes>) -> News {
        let Some(wanted) = self.wanted.get_mut(id) else { return News::Same };
        let news = match &wanted.known {
            None => News::First,
            Some(known) if *known != item => News::Other,
            Some(_) => return News::Same,
        };
        // Copied out of a buffer that holds much else.
        let known = Some(item.map(|item| Bytes::copy_from_slice(&item)));
        self.bytes = self.bytes + length(known.as_ref()) - length(wanted.known.as_ref());
        wanted.known = known;
        news
    }

    /// Follows a notice; what is not known yet is left to the read. Tells whether it is another now.
    pub(super) fn follow(&mut self, id: &str, item: Option<Bytes>) -> bool {
        let is_known = self.get(id).is_some();
        is_known && self.take(id, item) == News::Other
    }

    pub(super) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Has everything asked about again.
    pub(super) fn open_all(&mut self) {
        self.open = self.wanted.keys().cloned().collect();
    }

    /// Has these asked about again, as far as they are wanted.
    pub(super) fn reopen(&mut self, ids: Vec<String>) {
        self.open.extend(ids.into_iter().filter(|id| self.wanted.contains_key(id)));
    }

    /// Takes some of the ids that are to be asked about.
    pub(super) fn take_open(&mut self, most: usize) -> Vec<String> {
        take_some(&mut self.open, most)
    }
}

/// Takes the first `most` out.
pub(super) fn take_some(ids: &mut BTreeSet<String>, most: usize) -> Vec<String> {
    if ids.len() <= most {
        return std::mem::take(ids).into_iter().collect();
    }
    std::iter::from_fn(|| ids.pop_first()).take(most).collect()
}

fn length(known: Option<&Option<Bytes>>) -> usize {
    known.and_then(Option::as_ref).map_or(0, Bytes::len)
}
