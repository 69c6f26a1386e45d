//! Channels that a shard refuses, as an ACL may: asked for again from time to time.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tracing::{error, info};

use super::{
    Effect, Keeper, VERBS,
    feeds::{Cause, Key, Scope},
};
use crate::metrics;

/// A channel that was refused is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// So many are asked for at once.
const AT_ONCE: usize = 1_000;

/// The channels that are refused.
#[derive(Debug, Default)]
pub(super) struct Refused {
    channels: BTreeMap<(usize, Bytes), State>,
    /// Those that were asked for again, by the ticket of the question.
    asked: HashMap<u64, (usize, Bytes)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Refused; to be asked for from then on.
    AskAt(Instant),
    /// Asked for again under this ticket, and not refused so far.
    Asked(u64),
}

impl Keeper {
    /// Takes in that a shard refuses a channel.
    pub(super) fn refused(&mut self, shard: usize, channel: Bytes, error: &str, now: Instant) {
        let state = State::AskAt(now + ASK_AGAIN);
        let key = (shard, channel);
        if let Some(known) = self.refused.channels.get_mut(&key) {
            *known = state;
            return;
        }
        metrics::mirror_error("channel_refused");
        let (name, channel) = (&self.shards[shard].name, String::from_utf8_lossy(&key.1));
        error!(shard = %name, %channel, %error, "Shard refuses a channel; grant it to the gateway's user.");
        self.refused.channels.insert(key, state);
    }

    /// Asks for refused channels again, as far as they are still wanted.
    pub(super) fn ask_again(&mut self, now: Instant) {
        let is_due = |state: &State| matches!(state, State::AskAt(at) if *at <= now);
        let due = self.refused.channels.iter().filter(|(_, state)| is_due(state));
        let due: Vec<(usize, Bytes)> = due.map(|(key, _)| key.clone()).take(AT_ONCE).collect();
        for (shard, channel) in due {
            if !self.is_wanted(shard, &channel) {
                self.refused.channels.remove(&(shard, channel));
                continue;
            }
            self.counter += 1;
            let (ticket, channels) = (self.counter, vec![channel.clone()]);
            // The link counts how often a channel is wanted, and that stays what it is.
            self.effects.push(Effect::Subscribe { shard, channels: channels.clone(), ticket });
            self.effects.push(Effect::Unsubscribe { shard, channels });
            self.refused.asked.insert(ticket, (shard, channel.clone()));
            self.refused.channels.insert((shard, channel), State::Asked(ticket));
        }
    }

    /// Takes in that a ticket is answered; a channel that was not refused again is heard now,
    /// and what it would have said is read.
    pub(super) fn granted(&mut self, shard: usize, ticket: u64, now: Instant) {
        let Some(key) = self.refused.asked.remove(&ticket) else { return };
        if self.refused.channels.get(&key) != Some(&State::Asked(ticket)) {
            return;
        }
        self.refused.channels.remove(&key);
        let (name, channel) = (&self.shards[shard].name, String::from_utf8_lossy(&key.1));
        info!(shard = %name, %channel, "Shard grants a channel that it had refused.");
        for key in self.of_channel(shard, &key.1) {
            self.request(&key, Cause::Reconnect, now);
        }
    }

    /// Forgets what was refused on a connection: the next one asks for everything.
    pub(super) fn forget_refused(&mut self, shard: usize) {
        self.refused.channels.retain(|(of, _), _| *of != shard);
        self.refused.asked.retain(|_, (of, _)| *of != shard);
    }

    fn is_wanted(&self, shard: usize, channel: &Bytes) -> bool {
        self.standing_channels().contains(channel) || !self.of_channel(shard, channel).is_empty()
    }

    /// Lists the feeds on a shard that a channel is about.
    fn of_channel(&self, shard: usize, channel: &[u8]) -> Vec<Key> {
        let parted = std::str::from_utf8(channel).ok().and_then(|text| text.split_once(':'));
        let Some((verb, feed)) = parted else { return Vec::new() };
        if !VERBS.iter().any(|(name, _)| *name == verb) {
            return Vec::new();
        }
        let keys = Scope::ALL.into_iter().filter_map(|scope| self.feeds.key(scope, feed));
        keys.filter(|key| self.feeds.at(key).is_some_and(|feed| feed.shard() == shard)).collect()
    }
}
