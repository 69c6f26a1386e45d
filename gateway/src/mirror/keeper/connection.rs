//! One shard's connection: whether it is heard, and whether it hears.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use shard_router::shard::ShardError;
use tracing::{debug, info, warn};

use super::{
    Effect, Keeper, MARK_WITHIN, Out,
    feeds::{Body, Cause, Key},
    verifying::Round,
};
use crate::metrics;

/// Each shard is asked for a mark this often.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// A connection that was to be made anew and was not is given up again after this.
const RESET_AGAIN: Duration = Duration::from_secs(10);

/// What is known of one shard's connection, and which reads wait for it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) queue: VecDeque<Key>,
    /// How many reads are under way.
    pub(super) reading: usize,
    /// Whether the last read of it failed.
    pub(super) unreadable: bool,
    /// The feeds that are tracked.
    pub(super) members: BTreeSet<Key>,
    /// How far they are compared.
    pub(super) round: Round,
    probe: Option<Probe>,
    next_probe: Instant,
    /// When it was last asked to make itself anew; until it has, it is not asked again.
    reset: Option<Instant>,
}

#[derive(Debug)]
struct Probe {
    nonce: u64,
    sent: Instant,
    answered: Option<Instant>,
}

impl Connection {
    pub(super) fn new(name: &str, now: Instant) -> Self {
        metrics::shard_up(name, false);
        Self {
            name: name.to_owned(),
            up: false,
            queue: VecDeque::new(),
            reading: 0,
            unreadable: false,
            members: BTreeSet::new(),
            round: Round::new(now),
            probe: None,
            next_probe: now,
            reset: None,
        }
    }

    /// Takes a mark if a probe asked for it.
    pub(super) fn take_mark(&mut self, nonce: u64, now: Instant) -> bool {
        let Some(probe) = self.probe.take_if(|probe| probe.nonce == nonce) else { return false };
        metrics::shard_probe(&self.name, now.saturating_duration_since(probe.sent));
        true
    }

    fn set_up(&mut self, up: bool) {
        self.up = up;
        self.probe = None;
        self.reset = None;
        metrics::shard_up(&self.name, up);
    }
}

impl Keeper {
    pub(super) fn up(&mut self, shard: usize, now: Instant) {
        let connection = &mut self.shards[shard];
        connection.set_up(true);
        connection.next_probe = now;
        connection.round.restart(now);
        info!(shard = %connection.name, "Shard is heard.");
        self.outs.push(Out::Shard { shard, up: true });
        let keys: Vec<Key> = connection.members.iter().cloned().collect();
        for key in keys {
            let tracked = self.feeds.at_mut(&key).expect("members are tracked");
            if tracked.ticket.is_none() {
                // Whatever kept it waiting was said of the connection before.
                tracked.retry_at = now;
                self.request(&key, Cause::Reconnect, now);
            }
        }
    }

    pub(super) fn lost(&mut self, shard: usize, reason: &str, now: Instant) {
        let connection = &mut self.shards[shard];
        warn!(shard = %connection.name, reason, "Shard is not heard any more; its feeds stay as they are.");
        connection.set_up(false);
        connection.queue.clear();
        connection.reading = 0;
        connection.round.restart(now);
        self.outs.push(Out::Shard { shard, up: false });
        self.reads.retain(|_, read| read.shard != shard);
        // Nobody would wait for the answers of what was not carried out yet.
        self.effects.retain(|effect| match effect {
            Effect::Read { shard: of, .. }
            | Effect::Settle { shard: of, .. }
            | Effect::Verify { shard: of, .. }
            | Effect::Mark { shard: of, .. }
            | Effect::Reset { shard: of, .. } => *of != shard,
            Effect::Subscribe { .. } | Effect::Unsubscribe { .. } => true,
        });
        for tracked in self.feeds.values_mut().filter(|tracked| tracked.shard == shard) {
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
        self.waiting.retain(|key| feeds.at(key).is_some_and(|tracked| tracked.shard != shard));
    }

    /// Takes in that the shard has sent a mark, or could not.
    pub fn probed(&mut self, shard: usize, nonce: u64, sent: Result<(), ShardError>, now: Instant) {
        let connection = &mut self.shards[shard];
        let Some(probe) = connection.probe.as_mut().filter(|probe| probe.nonce == nonce) else {
            return;
        };
        match sent {
            Ok(()) => probe.answered = Some(now),
            Err(error) => {
                debug!(shard = %connection.name, %error, "Shard could not be asked for a mark.");
                metrics::shard_error(&connection.name);
                connection.probe = None;
            }
        }
    }

    /// Lists the shards that have answered a read whose mark did not come.
    pub(super) fn deaf(&self, now: Instant) -> BTreeSet<usize> {
        let late = self.reads.values().filter(|read| {
            !read.marked && read.answered.is_some_and(|answered| now > answered + MARK_WITHIN)
        });
        let compared = self.shards.iter().enumerate();
        let compared = compared.filter(|(_, of)| of.round.is_deaf(now, MARK_WITHIN));
        late.map(|read| read.shard).chain(compared.map(|(shard, _)| shard)).collect()
    }

    /// Asks for a mark when it is time to, and for a new connection where marks do not come.
    pub(super) fn probe(&mut self, shard: usize, is_deaf: bool, now: Instant) {
        let connection = &mut self.shards[shard];
        let is_reset = connection.reset.is_some_and(|reset| now < reset + RESET_AGAIN);
        if !connection.up || is_reset {
            return;
        }
        let is_late = |probe: &Probe| probe.answered.is_some_and(|at| now > at + MARK_WITHIN);
        if is_deaf || connection.probe.as_ref().is_some_and(is_late) {
            connection.probe = None;
            connection.reset = Some(now);
            let reason = "a mark that the shard has sent was not heard";
            return self.effects.push(Effect::Reset { shard, reason });
        }
        if connection.probe.is_none() && connection.next_probe <= now {
            self.counter += 1;
            connection.probe = Some(Probe { nonce: self.counter, sent: now, answered: None });
            connection.next_probe = now + PROBE_EVERY;
            self.effects.push(Effect::Mark { shard, nonce: self.counter });
        }
    }
}
