//! One shard's connection: what begins when it is there, and ends when it is lost.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Instant,
};

use tracing::{info, warn};

use super::{
    Effect, Keeper, Out,
    feeds::{Body, Cause, Key},
    hearing::Hearing,
    verifying::Round,
};
use crate::metrics;

/// What is known of one shard's connection, and which reads wait for it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) name: String,
    pub(super) up: bool,
    /// Whether no topology has it any more.
    pub(super) gone: bool,
    pub(super) queue: VecDeque<Key>,
    /// How many reads are under way, and about how many bytes they bring.
    pub(super) reading: usize,
    pub(super) reading_bytes: usize,
    /// How large a feed is of which nothing is known: as those before it were.
    pub(super) usual_bytes: usize,
    /// Feeds that are passed through and have the first half of an insert.
    pub(super) halves: Vec<Key>,
    /// Whether the last read of it failed.
    pub(super) unreadable: bool,
    /// The feeds that are tracked.
    pub(super) members: BTreeSet<Key>,
    /// How far they are compared.
    pub(super) round: Round,
    pub(super) hearing: Hearing,
}

impl Connection {
    pub(super) fn new(name: &str, now: Instant) -> Self {
        metrics::shard_up(name, false);
        Self {
            name: name.to_owned(),
            up: false,
            gone: false,
            queue: VecDeque::new(),
            reading: 0,
            reading_bytes: 0,
            usual_bytes: 0,
            halves: Vec::new(),
            unreadable: false,
            members: BTreeSet::new(),
            round: Round::new(now),
            hearing: Hearing::new(now),
        }
    }

    /// Whether there is a connection and marks come through it.
    pub(super) fn is_heard(&self) -> bool {
        self.up && self.hearing.hears()
    }

    pub(super) fn show(&self) {
        if self.gone {
            metrics::shard_gone(&self.name);
        } else {
            metrics::shard_up(&self.name, self.is_heard());
        }
    }
}

impl Keeper {
    pub(super) fn up(&mut self, shard: usize, now: Instant) {
        self.set_up(shard, true, now);
        let connection = &self.shards[shard];
        info!(shard = %connection.name, "Shard is heard.");
        self.outs.push(Out::Shard { shard, up: true });
        let keys: Vec<Key> = connection.members.iter().cloned().collect();
        for key in keys {
            let tracked = self.feeds.at_mut(&key).expect("members are tracked");
            if tracked.ticket.is_none() {
                // Whatever kept it waiting was said of the connection before.
                if let Some(pace) = &mut tracked.pace {
                    pace.retry_at = now;
                }
                self.request(&key, Cause::Reconnect, now);
            }
        }
    }

    /// Takes in that the connection is another, or none.
    fn set_up(&mut self, shard: usize, up: bool, now: Instant) {
        let connection = &mut self.shards[shard];
        connection.up = up;
        connection.round.restart(now);
        if connection.hearing.restart(now) {
            self.effects.push(Effect::Dismiss { shard });
        }
        connection.show();
    }

    pub(super) fn lost(&mut self, shard: usize, reason: &str, now: Instant) {
        warn!(shard = %self.shards[shard].name, reason, "Shard is not heard any more; its feeds stay as they are.");
        self.set_up(shard, false, now);
        let connection = &mut self.shards[shard];
        connection.queue.clear();
        (connection.reading, connection.reading_bytes) = (0, 0);
        self.lose_halves(shard);
        self.forget_refused(shard);
        self.outs.push(Out::Shard { shard, up: false });
        self.reads.retain(|_, read| read.shard != shard);
        // Nobody would wait for the answers of what was not carried out yet.
        self.effects.retain(|effect| match effect {
            Effect::Read { shard: of, .. }
            | Effect::Settle { shard: of, .. }
            | Effect::Verify { shard: of, .. }
            | Effect::Mark { shard: of, .. }
            | Effect::Reset { shard: of, .. } => *of != shard,
            Effect::Subscribe { .. }
            | Effect::Unsubscribe { .. }
            | Effect::Witness { .. }
            | Effect::Dismiss { .. } => true,
        });
        for tracked in self.feeds.values_mut().filter(|tracked| tracked.shard() == shard) {
            tracked.reading = None;
            tracked.due = None;
            tracked.queued = false;
            tracked.suspect = false;
            // The second half of an insert may be among what is lost.
            if let Body::Whole(Some(mirror)) = &mut tracked.body {
                mirror.drop_held();
            }
        }
        let feeds = &self.feeds;
        self.waiting.retain(|key| feeds.at(key).is_some_and(|tracked| tracked.shard() != shard));
    }
}
