//! What is known of each feed, who wants it, and what is to be asked about it.

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroU64,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;

use super::{
    marks::{Marks, Pace},
    passing::Passed,
    reading::Reading,
};
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
    pub(super) body: Body,
    /// What of it is in the keeper's total, and in that of what is at hand.
    pub(super) bytes: usize,
    pub(super) at_hand: usize,
    /// What recent versions take of either.
    pub(super) history: usize,
    /// Whether it is too large to be mirrored.
    pub(super) passed: Option<Box<Passed>>,
    /// The ticket of the subscription that is not confirmed yet.
    pub(super) ticket: Option<NonZeroU64>,
    pub(super) reading: Option<Box<Reading>>,
    /// A read of everything wanted that is due, and why.
    pub(super) due: Option<Cause>,
    /// Whether it stands in its shard's queue or among the waiting.
    pub(super) queued: bool,
    /// Ids that are to be settled, if there are any.
    pub(super) marks: Option<Box<Marks>>,
    /// When it may be read again, if that is not at once.
    pub(super) pace: Option<Box<Pace>>,
    pub(super) users: Users,
    /// How many ids were left out of the last whole read.
    pub(super) bad_ids: u32,
    pub(super) shard: u32,
    /// Whether its key was of a wrong type when it was last read.
    pub(super) failing: bool,
    /// Whether it differed when it was last compared.
    pub(super) suspect: bool,
    /// Whether it was not compared in the last round, for being busy.
    pub(super) passed_over: bool,
}

/// How many want a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Users {
    Some(NonZeroU64),
    NoneSince(Instant),
}

impl Tracked {
    pub(super) fn new(shard: usize, body: Body, ticket: u64, now: Instant) -> Self {
        Self {
            shard: u32::try_from(shard).expect("shards are few"),
            body,
            bytes: 0,
            at_hand: 0,
            history: 0,
            passed: None,
            ticket: NonZeroU64::new(ticket),
            reading: None,
            due: None,
            queued: false,
            marks: None,
            pace: None,
            users: Users::NoneSince(now),
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

    pub(super) fn shard(&self) -> usize {
        self.shard as usize
    }

    /// Tells whether the whole may be read now, if it is due.
    pub(super) fn may_be_due(&self, now: Instant) -> Option<bool> {
        let due = self.due?;
        // What is passed through is large, and somebody may come and go all the time.
        let is_urgent = due.is_urgent() && self.passed.is_none();
        let pace = self.pace.as_ref();
        Some(self.may_retry(now) && (is_urgent || pace.is_none_or(|pace| pace.paused_until <= now)))
    }

    /// Tells whether something may be read now, if anything is to be.
    pub(super) fn may_be_read(&self, now: Instant) -> Option<bool> {
        match &self.body {
            Body::Items(items) if items.has_open() => Some(self.may_retry(now)),
            Body::Items(_) | Body::Whole(_) => self.may_be_due(now),
        }
    }

    /// Tells whether a read that failed was long enough ago.
    pub(super) fn may_retry(&self, now: Instant) -> bool {
        self.pace.as_ref().is_none_or(|pace| pace.retry_at <= now)
    }

    /// Sets when it may be read again.
    pub(super) fn pace(&mut self, now: Instant) -> &mut Pace {
        self.pace.get_or_insert_with(|| Box::new(Pace { paused_until: now, retry_at: now }))
    }

    /// About how many bytes the whole of it is, as far as that is known.
    pub(super) fn size(&self) -> Option<usize> {
        let passed = self.passed.as_ref().map(|passed| passed.bytes);
        passed.or(Some(self.bytes).filter(|bytes| *bytes > 0))
    }

    pub(super) fn marks(&mut self, now: Instant) -> &mut Marks {
        self.marks.get_or_insert_with(|| Box::new(Marks::new(now)))
    }

    /// Tells whether notices touched ids that are not settled.
    pub(super) fn is_touched(&self) -> bool {
        self.marks.as_ref().is_some_and(|marks| !marks.touched.is_empty())
    }

    /// Forgets the touched ids.
    pub(super) fn untouch(&mut self) {
        if let Some(marks) = &mut self.marks {
            marks.touched.clear();
            self.marks.take_if(|marks| marks.is_empty());
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
