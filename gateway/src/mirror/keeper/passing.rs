//! Bounds: which mirrors go when there are too many, and feeds that are passed through.
//!
//! A feed that is too large to be mirrored is heard all the same: its notices become events
//! as they are, unchecked and without a version. What was read of it is *at hand* for a
//! moment and followed like any mirror, so that those who wait can be told; then it is
//! dropped. After a doubt it is read and told anew.

use std::time::{Duration, Instant};

use bytes::Bytes;
use shard_router::feed::{Content, Kind};
use tracing::{debug, info, warn};

use super::{
    Keeper, Out,
    feeds::{Body, Cause, Key, Scope},
};
use crate::{
    metrics,
    mirror::{Change, Event, Mirror, Notice, Version},
};

/// How long what was read is at hand: whoever waits for it gives up before.
const AT_HAND: Duration = Duration::from_secs(3);
/// The first half of an insert keeps it at hand for so much longer.
const GRACE: Duration = Duration::from_secs(1);
/// So many feeds of the greatest size may be at hand; what was read first goes first.
const LARGE_AT_HAND: usize = 4;
/// Recent versions are forgotten where they take more than this part of what mirrors may take:
/// to look at all of them has to be worth it.
const HISTORY_SHARE: usize = 16;

/// What is known of a feed that is passed through.
#[derive(Debug)]
pub(super) struct Passed {
    kind: Kind,
    /// About how large it was when it was last read.
    pub(super) bytes: usize,
    /// Until when what was read is at hand.
    until: Instant,
    /// An item that was published in a sorted feed; an edit unless its place comes next.
    pub(super) half: Option<(String, Bytes)>,
    /// Whether clients are to be told anew by the next read.
    pub(super) doubted: bool,
}

impl Keeper {
    /// Returns the version of what clients hold of a feed, where that is known.
    #[must_use]
    pub fn version(&self, feed: &str) -> Option<Version> {
        self.mirror(feed).filter(|_| !self.is_passed(feed)).map(Mirror::version)
    }

    /// Tells whether a feed is too large to be mirrored.
    #[must_use]
    pub fn is_passed(&self, feed: &str) -> bool {
        self.feeds.get(Scope::Whole, feed).is_some_and(|tracked| tracked.passed.is_some())
    }

    /// Has a feed read for somebody who comes, where it is passed through and not at hand;
    /// [`Out::Filled`] follows.
    pub fn fetch(&mut self, feed: &str, now: Instant) {
        let Some(key) = self.feeds.key(Scope::Whole, feed) else { return };
        let tracked = self.feeds.at(&key).expect("its key was just found");
        let is_read = tracked.reading.as_ref().is_some_and(|reading| reading.is_whole());
        if tracked.passed.is_some() && matches!(tracked.body, Body::Whole(None)) && !is_read {
            let shard = tracked.shard();
            self.request(&key, Cause::Fill, now);
            self.pump(shard, now);
        }
    }

    /// Tells whether a feed of this size may be mirrored; makes room for it as far as it can.
    pub(super) fn fits(&mut self, key: &Key, bytes: usize) -> bool {
        let tracked = self.feeds.at(key).expect("the caller looked");
        let most = self.settings.max_feed_bytes;
        // One that is about as large as may be is not to go to and fro.
        let most = if tracked.passed.is_some() { most - most / 8 } else { most };
        let more = bytes.saturating_sub(tracked.bytes);
        bytes == 0 || bytes <= most && self.make_room(more, key)
    }

    /// Lets mirrors go that nobody wants, who were wanted last first, and then what mirrors
    /// remember of their recent versions, until so much more may be held; `keep` stays.
    fn make_room(&mut self, more: usize, keep: &Key) -> bool {
        let most = self.settings.max_bytes;
        let mut over = (self.bytes + more).saturating_sub(most);
        let mut going = Vec::new();
        for (_, key) in &self.idle {
            if over == 0 {
                break;
            }
            let bytes = self.feeds.at(key).expect("what is idle is tracked").bytes;
            if bytes > 0 && key != keep {
                over = over.saturating_sub(bytes);
                going.push(key.clone());
            }
        }
        going.iter().for_each(|key| self.forget(key));
        let is_worth_looking = self.history_bytes > most / HISTORY_SHARE;
        if self.bytes + more > most && is_worth_looking {
            self.forget_histories();
        }
        self.bytes + more <= most
    }

    /// Has every mirror remember no version but its present one.
    fn forget_histories(&mut self) {
        let keys: Vec<Key> =
            self.shards.iter().flat_map(|shard| shard.members.iter().cloned()).collect();
        for key in keys {
            let tracked = self.feeds.at_mut(&key).expect("members are tracked");
            if let Body::Whole(Some(mirror)) = &mut tracked.body {
                mirror.forget_history();
                self.weigh(&key);
            }
        }
    }

    /// Looks after the bounds when a feed has grown.
    pub(super) fn bound(&mut self, key: &Key, now: Instant) {
        let Some(tracked) = self.feeds.at(key) else { return };
        let bytes = tracked.bytes.saturating_sub(tracked.history);
        let is_large = key.0 == Scope::Whole && bytes > self.settings.max_feed_bytes;
        let is_whole = matches!(tracked.body, Body::Whole(Some(_))) && tracked.passed.is_none();
        let is_over = self.bytes > self.settings.max_bytes && !self.make_room(0, key);
        if is_whole && (is_large || is_over) {
            self.begin_to_pass(key, now);
        }
    }

    /// Passes a feed through from here on; what is mirrored of it is at hand.
    fn begin_to_pass(&mut self, key: &Key, now: Instant) {
        let tracked = self.feeds.at_mut(key).expect("the caller looked");
        let Body::Whole(Some(mirror)) = &tracked.body else { return };
        let (kind, bytes, until) = (mirror.kind(), mirror.bytes(), now + AT_HAND);
        let doubted = tracked.passed.as_ref().is_some_and(|passed| passed.doubted);
        match tracked.passed.replace(Box::new(Passed { kind, bytes, until, half: None, doubted })) {
            Some(before) => drop(self.at_hand.remove(&(before.until, key.clone()))),
            None => {
                warn!(feed = %key.1, bytes, "A feed is too large to be mirrored and is passed through.");
                self.passed += 1;
            }
        }
        self.at_hand.insert((until, key.clone()));
        self.weigh(key);
    }

    /// Passes a feed through no longer.
    pub(super) fn end_passing(&mut self, key: &Key) {
        let tracked = self.feeds.at_mut(key).expect("the caller looked");
        if let Some(passed) = tracked.passed.take() {
            self.at_hand.remove(&(passed.until, key.clone()));
            self.passed -= 1;
        }
    }

    /// Believes what a read brought of a feed that is or was too large; `anew` says that
    /// clients may hold something else.
    pub(super) fn take_large(
        &mut self,
        key: &Key,
        content: &Content,
        fits: bool,
        anew: bool,
        cause: Cause,
        now: Instant,
    ) {
        let tracked = self.feeds.at_mut(key).expect("the caller looked");
        let (was_passed, was_held) =
            (tracked.passed.is_some(), matches!(tracked.body, Body::Whole(Some(_))));
        tracked.body = Body::Whole(Some(Mirror::new(content)));
        if fits {
            info!(feed = %key.1, "A feed is small enough to be mirrored again.");
            self.end_passing(key);
        } else {
            self.begin_to_pass(key, now);
        }
        if was_passed || !was_held {
            self.outs.push(Out::Filled(key.1.clone()));
        }
        if was_passed && (anew || fits) || !was_passed && was_held {
            metrics::mirror_repaired(cause.label());
            self.outs.push(Out::Reset(key.1.clone()));
        }
    }

    /// Tells one change of a feed.
    pub(super) fn tell(&mut self, key: &Key, event: Event) {
        let is_passed = self.feeds.at(key).is_some_and(|tracked| tracked.passed.is_some());
        self.outs.push(if is_passed {
            Out::Passed(key.1.clone(), event.change)
        } else {
            Out::Event(key.1.clone(), event)
        });
    }

    /// Makes an event of a notice as it is.
    pub(super) fn pass(&mut self, key: &Key, notice: &Notice, now: Instant) {
        let tracked = self.feeds.at_mut(key).expect("the caller looked");
        let shard = tracked.shard();
        let Some(passed) = &mut tracked.passed else { return };
        let kind = passed.kind;
        let mut changes = Vec::new();
        if let Some((id, item)) = passed.half.take() {
            if let Notice::Position { id: other, position } = notice
                && *other == id
            {
                let position = Some(position.clone());
                let change = Change::Publish { id: id.into(), item, position };
                return self.outs.push(Out::Passed(key.1.clone(), change));
            }
            changes.push(Change::Change { id: id.into(), item });
        }
        match (kind, notice) {
            (Kind::Sorted, Notice::Publish { id, item }) => {
                passed.half = Some((id.clone(), Bytes::copy_from_slice(item)));
                self.shards[shard].halves.push(key.clone());
            }
            (_, Notice::Publish { id, item }) => {
                let (id, item) = (id.as_str().into(), item.clone());
                changes.push(Change::Publish { id, item, position: None });
            }
            (_, Notice::Edit { id, item }) => {
                changes.push(Change::Change { id: id.as_str().into(), item: item.clone() });
            }
            (_, Notice::Retract { id }) => changes.push(Change::Retract { id: id.as_str().into() }),
            (Kind::Sorted, Notice::Position { id, position }) => {
                let (id, position) = (id.as_str().into(), position.clone());
                changes.push(Change::Position { id, position });
            }
            (Kind::Plain | Kind::Unknown, Notice::Position { .. }) => {
                debug!(feed = %key.1, "A feed without order was given one; it is read again.");
                self.request(key, Cause::Doubt, now);
            }
        }
        self.outs.extend(changes.into_iter().map(|change| Out::Passed(key.1.clone(), change)));
    }

    /// Takes publishes without a place for edits, as at a mark, which never parts the halves.
    pub(super) fn end_halves(&mut self, shard: usize) {
        for key in std::mem::take(&mut self.shards[shard].halves) {
            let passed = self.feeds.at_mut(&key).and_then(|tracked| tracked.passed.as_mut());
            if let Some((id, item)) = passed.and_then(|passed| passed.half.take()) {
                let change = Change::Change { id: id.into(), item };
                self.outs.push(Out::Passed(key.1, change));
            }
        }
    }

    /// Forgets publishes whose places may be among what is lost.
    pub(super) fn lose_halves(&mut self, shard: usize) {
        for key in std::mem::take(&mut self.shards[shard].halves) {
            if let Some(passed) = self.feeds.at_mut(&key).and_then(|feed| feed.passed.as_mut()) {
                passed.half = None;
            }
        }
    }

    /// Drops what was at hand long enough, or is too much.
    pub(super) fn drop_at_hand(&mut self, now: Instant) {
        let most = self.settings.max_feed_bytes.saturating_mul(LARGE_AT_HAND);
        for (until, key) in self.at_hand.clone() {
            let tracked = self.feeds.at_mut(&key).expect("what is at hand is tracked");
            if now < until && self.at_hand_bytes <= most {
                continue;
            }
            let Body::Whole(Some(mirror)) = &tracked.body else { continue };
            let has_held = mirror.has_held();
            // What is being read of it is told as a difference.
            if tracked.reading.is_some() || has_held && now < until + GRACE {
                continue;
            }
            tracked.body = Body::Whole(None);
            tracked.untouch();
            self.touched.remove(&key);
            self.weigh(&key);
            self.at_hand.remove(&(until, key.clone()));
            self.outs.push(Out::Emptied(key.1.clone()));
            if has_held {
                self.request(&key, Cause::Doubt, now);
            }
        }
    }
}
