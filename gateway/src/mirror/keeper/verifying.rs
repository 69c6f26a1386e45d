//! Verifying: every mirror is compared with its feed, a few at a time, round after round.
//!
//! The shard computes the version of a feed where it lies, and what it computed holds at
//! its mark, as every read does. A difference is no fault yet: a notice may still be on
//! its way. So a feed that differs is looked at again, and read only if it still does.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Bound::{Excluded, Unbounded},
    time::{Duration, Instant},
};

use shard_router::{
    feed::{BadFeed, Checked, Kind, cost_of_verifying},
    shard::ShardError,
};
use tracing::debug;

use super::{
    Effect, Keeper,
    connection::Connection,
    feeds::{Body, Cause, Key, Scope, Tracked},
    reading::RETRY,
};
use crate::{
    metrics::{self, Verified},
    mirror::{ITEM_OVERHEAD, Mirror, Version},
};

/// Feeds in one script.
const FEEDS_AT_ONCE: usize = 200;
/// How long one script may hold a shard up, by estimate; a feed that takes longer goes alone.
const SHARD_HELD: Duration = Duration::from_millis(2);
/// What becomes due within this goes in one script, as far as it may.
const SLICE: Duration = Duration::from_secs(1);

/// A round takes no less, whatever is configured.
const SHORTEST: Duration = Duration::from_millis(100);

/// How far a shard's feeds are compared.
#[derive(Debug)]
pub(super) struct Round {
    /// The last that was looked at; behind the last of all it begins anew.
    cursor: Option<Key>,
    /// Until when as many were looked at as should be.
    paid: Instant,
    /// Feeds that differed, and when they are looked at again.
    suspects: VecDeque<(Instant, Key)>,
    /// The script that is under way; there is one at a time.
    check: Option<Check>,
}

/// One script under way.
#[derive(Debug)]
struct Check {
    nonce: u64,
    members: Vec<Member>,
    marked: bool,
    answered: Option<Instant>,
    answers: Vec<Result<Checked, BadFeed>>,
}

/// One feed that is compared.
#[derive(Debug)]
struct Member {
    key: Key,
    /// Whether it differed already.
    again: bool,
    /// What its mirror held at the mark; `None` where that cannot be said.
    held: Option<(Kind, Version)>,
}

impl Round {
    pub(super) fn new(now: Instant) -> Self {
        Self { cursor: None, paid: now, suspects: VecDeque::new(), check: None }
    }

    /// Begins to count anew, with a new connection or none.
    pub(super) fn restart(&mut self, now: Instant) {
        self.paid = now;
        self.suspects.clear();
        self.check = None;
    }

    /// Tells when the script under way was answered, if its mark has not come yet.
    pub(super) fn unmarked(&self) -> Option<Instant> {
        self.check.as_ref().filter(|check| !check.marked)?.answered
    }

    /// Lists what comes next in the round, from the begin again behind the last.
    fn ahead(&mut self, members: &BTreeSet<Key>, most: usize) -> Vec<Key> {
        if self.cursor.as_ref().is_some_and(|cursor| members.last().is_none_or(|l| l <= cursor)) {
            self.cursor = None;
        }
        match &self.cursor {
            Some(cursor) => {
                members.range((Excluded(cursor), Unbounded)).take(most).cloned().collect()
            }
            None => members.iter().take(most).cloned().collect(),
        }
    }
}

/// Whether a feed can be compared now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// There is nothing to compare, or it is looked at otherwise.
    Not,
    /// So much is written to it that it would differ in passing.
    Busy,
    /// It is quiet.
    Compare,
}

impl Tracked {
    fn look(&self) -> Look {
        let is_absent = self.ticket.is_some()
            || self.passed.is_some()
            || self.failing
            || matches!(self.body, Body::Whole(None));
        // What is read as a whole is known to be right then.
        let is_read =
            self.due.is_some() || self.reading.as_ref().is_some_and(|reading| reading.is_whole());
        match () {
            () if is_absent || is_read => Look::Not,
            () if self.reading.is_some() || self.is_touched() => Look::Busy,
            () => Look::Compare,
        }
    }

    /// Estimates how long its shard is held up by comparing it.
    fn cost_of_comparing(&self) -> Duration {
        let items = match &self.body {
            Body::Whole(mirror) => mirror.as_ref().map_or(0, Mirror::len),
            Body::Items(_) => 0,
        };
        cost_of_verifying(items, self.bytes.saturating_sub(items * ITEM_OVERHEAD))
    }
}

/// What is put into one script.
#[derive(Debug, Default)]
struct Batch {
    members: Vec<Member>,
    cost: Duration,
}

impl Batch {
    fn has_room(&self, cost: Duration) -> bool {
        self.members.is_empty()
            || self.members.len() < FEEDS_AT_ONCE && self.cost + cost <= SHARD_HELD
    }

    fn take(&mut self, key: Key, cost: Duration, again: bool) {
        self.cost += cost;
        self.members.push(Member { key, again, held: None });
    }
}

impl Keeper {
    /// Starts to compare what is due on a shard, unless something is being compared there.
    pub(super) fn verify(&mut self, shard: usize, now: Instant) {
        let connection = &self.shards[shard];
        if !connection.up || connection.round.check.is_some() {
            return;
        }
        let mut batch = Batch::default();
        self.take_suspects(shard, &mut batch, now);
        self.take_next(shard, &mut batch, now);
        if batch.members.is_empty() {
            return;
        }
        self.counter += 1;
        let (nonce, members) = (self.counter, batch.members);
        let feeds = members.iter().map(|member| member.key.1.to_string()).collect();
        let check = Check { nonce, members, marked: false, answered: None, answers: Vec::new() };
        self.shards[shard].round.check = Some(check);
        self.effects.push(Effect::Verify { shard, feeds, nonce });
    }

    fn take_suspects(&mut self, shard: usize, batch: &mut Batch, now: Instant) {
        let round = &mut self.shards[shard].round;
        while let Some((due, key)) = round.suspects.front()
            && *due <= now
        {
            let is_here = |tracked: &&mut Tracked| tracked.suspect && tracked.shard() == shard;
            let Some(tracked) = self.feeds.at_mut(key).filter(is_here) else {
                round.suspects.pop_front();
                continue;
            };
            let cost = tracked.cost_of_comparing();
            if !batch.has_room(cost) {
                return;
            }
            let (_, key) = round.suspects.pop_front().expect("was just looked at");
            match tracked.look() {
                // It is known to be right soon.
                Look::Not => tracked.suspect = false,
                Look::Busy | Look::Compare => batch.take(key, cost, true),
            }
        }
    }

    /// Takes as many as are due by now, at an even rate.
    fn take_next(&mut self, shard: usize, batch: &mut Batch, now: Instant) {
        // A tenth is for what waits and fails, so that nothing is compared too seldom.
        let period = self.settings.verify_every.mul_f64(0.9).max(SHORTEST);
        let mut all = 0;
        loop {
            let Connection { members, round, .. } = &mut self.shards[shard];
            if members.is_empty() {
                round.paid = now;
                return;
            }
            let count = members.len();
            let each = period.div_f64(count as f64);
            let some = SLICE.div_duration_f64(each).ceil() as usize;
            let some = some.clamp(1, FEEDS_AT_ONCE).min(count);
            // A shard that was slow is not asked for everything at once afterwards.
            let late = now.checked_sub(SLICE + each.mul_f64(some as f64));
            round.paid = late.map_or(round.paid, |late| round.paid.max(late));
            if now < round.paid + each.mul_f64(some as f64) {
                return;
            }
            let keys = round.ahead(members, some);
            let listed = keys.len();
            let mut looked = 0;
            for key in keys {
                if !self.take_one(&key, batch, now) {
                    break;
                }
                self.shards[shard].round.cursor = Some(key);
                looked += 1;
            }
            self.shards[shard].round.paid += each.mul_f64(looked as f64);
            all += looked;
            // None is compared twice in one script.
            if looked < listed || all + some > count {
                return;
            }
        }
    }

    /// Looks at the next of a round; `false` if it must wait for another script.
    fn take_one(&mut self, key: &Key, batch: &mut Batch, now: Instant) -> bool {
        let tracked = self.feeds.at_mut(key).expect("members are tracked");
        let look = match tracked.look() {
            // What is always busy is compared all the same, every other round.
            Look::Busy if tracked.passed_over => Look::Compare,
            look => look,
        };
        match look {
            Look::Not => {}
            Look::Busy => tracked.passed_over = true,
            // It waits to be looked at again.
            Look::Compare if tracked.suspect => {}
            Look::Compare if key.0 == Scope::Items => {
                tracked.passed_over = false;
                self.request(key, Cause::Verify, now);
            }
            Look::Compare => {
                let cost = tracked.cost_of_comparing();
                if !batch.has_room(cost) {
                    return false;
                }
                tracked.passed_over = false;
                batch.take(key.clone(), cost, false);
            }
        }
        true
    }

    /// Takes a mark if a script that compares asked for it, and notes what mirrors hold there.
    pub(super) fn take_check_mark(&mut self, shard: usize, nonce: u64, now: Instant) -> bool {
        let check = self.shards[shard].round.check.as_mut().filter(|check| check.nonce == nonce);
        let Some(check) = check else { return false };
        check.marked = true;
        for member in &mut check.members {
            let Some(tracked) = self.feeds.at(&member.key) else { continue };
            // Behind the mark of a read the mirror stands still until the answer is here.
            let stands = tracked.reading.as_ref().is_some_and(|reading| reading.marked);
            if let Body::Whole(Some(mirror)) = &tracked.body
                && !stands
            {
                member.held = Some((mirror.kind(), mirror.version()));
            }
        }
        if check.answered.is_some() {
            self.compare(shard, now);
        }
        true
    }

    /// Takes in the versions that a shard computed, one for each feed that was asked for.
    pub fn verified(
        &mut self,
        shard: usize,
        nonce: u64,
        answers: Result<Vec<Result<Checked, BadFeed>>, ShardError>,
        now: Instant,
    ) {
        let round = &mut self.shards[shard].round;
        let Some(check) = round.check.as_mut().filter(|check| check.nonce == nonce) else { return };
        match answers {
            Ok(answers) => {
                check.answered = Some(now);
                check.answers = answers;
                if check.marked {
                    self.compare(shard, now);
                }
            }
            Err(error) => {
                // They come again in the next round: what is too much for a shard must not
                // be asked of it at once again.
                let members = round.check.take().expect("was just found").members;
                round.paid = now + RETRY;
                for member in members {
                    if let Some(tracked) = self.feeds.at_mut(&member.key) {
                        tracked.suspect = false;
                    }
                }
                debug!(shard = %self.shards[shard].name, %error, "Mirrors could not be compared; they will be in the next round.");
                metrics::shard_error(&self.shards[shard].name);
            }
        }
    }

    /// Ends a script whose mark and answer are both here.
    fn compare(&mut self, shard: usize, now: Instant) {
        let check = self.shards[shard].round.check.take().expect("the caller looked");
        for (member, answer) in check.members.into_iter().zip(check.answers) {
            self.compare_one(shard, member, answer, now);
        }
        self.verify(shard, now);
        self.pump(shard, now);
    }

    fn compare_one(
        &mut self,
        shard: usize,
        Member { key, again, held }: Member,
        answer: Result<Checked, BadFeed>,
        now: Instant,
    ) {
        // Another shard may have it by now.
        let tracked = self.feeds.at_mut(&key).filter(|tracked| tracked.shard() == shard);
        let Some(tracked) = tracked else { return };
        tracked.suspect = false;
        let Ok(checked) = answer else {
            metrics::mirror_verified(Verified::Unreadable);
            return self.request(&key, Cause::Verify, now);
        };
        let Some((kind, version)) = held else { return };
        if checked.kind == kind && checked.version.parse() == Ok(version) {
            return metrics::mirror_verified(Verified::Same);
        }
        metrics::mirror_verified(Verified::Differs);
        if !again {
            tracked.suspect = true;
            let due = now + self.settings.settle;
            return self.shards[shard].round.suspects.push_back((due, key));
        }
        // Where notices are on their way all the time, nothing was lost in silence.
        let is_busy = tracked.look() == Look::Busy;
        self.request(&key, if is_busy { Cause::Settle } else { Cause::Verify }, now);
    }
}
