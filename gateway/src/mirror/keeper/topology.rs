//! Another topology: feeds are followed where they are now, and repaired by difference.
//!
//! A feed that another shard has now keeps its content until it was read there. From this
//! moment on, what its old shard says of it does not count.

use std::{num::NonZeroU64, time::Instant};

use shard_router::router::Adopted;

use super::{
    Connection, Effect, Keeper, channels,
    feeds::{Body, Cause, Key},
};

#[cfg(test)]
mod simulation;

impl Keeper {
    /// Goes over to the shards of another topology, in which `owner` has a feed; returns
    /// how many feeds are to be read anew.
    ///
    /// The caller has let the connections of closed shards go and has made new ones to those
    /// that were opened, with nothing but the standing channels.
    pub fn retopology(
        &mut self,
        adopted: &Adopted,
        owner: impl Fn(&str) -> usize,
        now: Instant,
    ) -> usize {
        for &shard in adopted.opened.iter().chain(&adopted.closed) {
            self.reconnects(shard, now);
        }
        for name in adopted.names.iter().skip(self.shards.len()) {
            self.shards.push(Connection::new(name, now));
        }
        for &shard in &adopted.opened {
            self.shards[shard].gone = false;
            self.shards[shard].show();
        }
        for &shard in &adopted.closed {
            self.shards[shard].gone = true;
            self.shards[shard].show();
        }
        let is_new = |shard: usize| adopted.opened.contains(&shard);
        let is_closed = |shard: usize| adopted.closed.contains(&shard);
        let members = self.shards.iter().enumerate();
        let members = members.flat_map(|(from, of)| of.members.iter().map(move |key| (from, key)));
        let moves: Vec<(Key, usize)> = members
            .map(|(from, key)| (from, key, owner(&key.1)))
            .filter(|(from, _, to)| to != from || is_new(*from))
            .map(|(_, key, to)| (key.clone(), to))
            .collect();
        for (key, to) in &moves {
            let from = self.follow_at(key, *to);
            if !is_new(from) && !is_closed(from) {
                let channels = channels(&key.1);
                self.effects.push(Effect::Unsubscribe { shard: from, channels });
            }
        }
        self.forget_queued();
        moves.len()
    }

    /// Takes in that a shard's connection was given up, if it had one.
    fn reconnects(&mut self, shard: usize, now: Instant) {
        if self.shards.get(shard).is_none() {
            return;
        }
        if self.shards[shard].up {
            self.lost(shard, "the topology has another shard here, or none", now);
        }
        // What was to be said on the old connection is of no use to the new one.
        self.effects.retain(|effect| match effect {
            Effect::Subscribe { shard: of, .. } | Effect::Unsubscribe { shard: of, .. } => {
                *of != shard
            }
            _ => true,
        });
    }

    /// Follows a feed on another shard, or another connection; returns the shard it was on.
    fn follow_at(&mut self, key: &Key, to: usize) -> usize {
        self.counter += 1;
        let ticket = self.counter;
        let tracked = self.feeds.at_mut(key).expect("the caller looked");
        let from = tracked.shard();
        tracked.shard = u32::try_from(to).expect("shards are few");
        if let Some(old) = std::mem::replace(&mut tracked.ticket, NonZeroU64::new(ticket)) {
            self.tickets.remove(&old.get());
        }
        // An answer that is still under way finds nobody who waits for it.
        tracked.reading = None;
        tracked.due = None;
        tracked.require(Cause::Topology);
        tracked.suspect = false;
        tracked.queued = false;
        tracked.failing = false;
        tracked.pace = None;
        tracked.untouch();
        if let Body::Whole(Some(mirror)) = &mut tracked.body {
            mirror.drop_held();
        }
        self.touched.remove(key);
        self.tickets.insert(ticket, key.clone());
        if let Some(passed) = &mut tracked.passed {
            passed.half = None;
        }
        self.shards[from].members.remove(key);
        self.shards[to].members.insert(key.clone());
        self.effects.push(Effect::Subscribe { shard: to, channels: channels(&key.1), ticket });
        from
    }

    /// Takes feeds that wait for their subscription out of the queues that they stood in.
    fn forget_queued(&mut self) {
        let feeds = &self.feeds;
        let stays = |key: &Key| feeds.at(key).is_some_and(|tracked| tracked.ticket.is_none());
        for connection in &mut self.shards {
            connection.queue.retain(stays);
        }
        self.waiting.retain(stays);
    }
}
