//! What is heard: which feed it is about, and whether it may be followed now.

use std::time::Instant;

use bytes::Bytes;
use shard_router::feed::Kind;
use tracing::{debug, warn};

use super::{
    CONTROL, Keeper, Out, VERBS,
    feeds::{Body, Cause, Key, Scope},
};
use crate::{
    metrics,
    mirror::{Applied, Notice, Verb},
};

impl Keeper {
    pub(super) fn notice(&mut self, shard: usize, channel: &[u8], payload: &Bytes, now: Instant) {
        let Ok(channel) = std::str::from_utf8(channel) else {
            return metrics::mirror_error("channel_name");
        };
        if channel == self.settings.mark_channel {
            return self.mark(shard, payload, now);
        }
        if channel == CONTROL {
            return self.outs.push(Out::Control(payload.clone()));
        }
        match channel.split_once(':') {
            Some(("job.finish", queue)) => self.finished(queue, payload),
            Some((verb, feed)) => {
                let Some((_, verb)) = VERBS.iter().find(|(name, _)| *name == verb) else { return };
                for scope in Scope::ALL {
                    if let Some(key) = self.followed(scope, feed, shard) {
                        self.feed_notice(&key, *verb, payload, now);
                    }
                }
            }
            None => self.existence(shard, channel, payload, now),
        }
    }

    /// Returns the key of a feed if what this shard says of it counts: another may have it
    /// by now, and before its subscription is confirmed a read is still to come.
    fn followed(&self, scope: Scope, feed: &str, shard: usize) -> Option<Key> {
        let key = self.feeds.key(scope, feed)?;
        let tracked = self.feeds.at(&key)?;
        (tracked.shard() == shard && tracked.ticket.is_none()).then_some(key)
    }

    fn finished(&mut self, queue: &str, payload: &Bytes) {
        let cut = payload.iter().position(|byte| *byte == 0);
        let Some((cut, id)) =
            cut.and_then(|cut| Some((cut, std::str::from_utf8(&payload[..cut]).ok()?)))
        else {
            metrics::mirror_error("job_finish");
            return warn!(queue, "A job.finish notice has no NUL or no readable id; ignored.");
        };
        let result = payload.slice(cut + 1..);
        self.outs.push(Out::Finished { queue: queue.to_owned(), id: id.to_owned(), result });
    }

    /// `newfeed`, `delfeed` and `conffeed`: the feed may be another than it was.
    fn existence(&mut self, shard: usize, channel: &str, payload: &[u8], now: Instant) {
        let Some(name) =
            payload.split(|byte| *byte == 0).next().filter(|name| name.len() < payload.len())
        else {
            metrics::mirror_error("notice");
            return warn!(channel, "A notice has no NUL; ignored.");
        };
        let Ok(name) = std::str::from_utf8(name) else { return };
        for scope in Scope::ALL {
            let Some(key) = self.followed(scope, name, shard) else { continue };
            let tracked = self.feeds.at(&key).expect("its key was just found");
            let kind_is_known = match &tracked.body {
                Body::Whole(Some(mirror)) => mirror.kind() != Kind::Unknown,
                // What a read under way brings may be from before this.
                Body::Whole(None) => tracked.reading.is_none(),
                Body::Items(_) => true,
            };
            if channel == "delfeed" || !kind_is_known {
                self.request(&key, Cause::Doubt, now);
            }
        }
    }

    fn feed_notice(&mut self, key: &Key, verb: Verb, payload: &Bytes, now: Instant) {
        let notice = match Notice::parse(verb, payload) {
            Ok(notice) => notice,
            Err(error) => {
                metrics::mirror_error("notice");
                warn!(feed = %key.1, ?verb, %error, "A notice does not fit the contract; the feed is read again.");
                return self.request(key, Cause::Doubt, now);
            }
        };
        let tracked = self.feeds.at_mut(key).expect("the caller looked");
        match &mut tracked.reading {
            Some(reading) if reading.marked => reading.hold(notice, payload.len()),
            Some(_) | None => self.apply(key, &notice, now),
        }
    }

    /// Follows one notice; a doubt changes nothing and is read.
    pub(super) fn apply(&mut self, key: &Key, notice: &Notice, now: Instant) {
        let tracked = self.feeds.at_mut(key).expect("the caller looked");
        let concerns = match &tracked.body {
            Body::Whole(None) => return self.pass(key, notice, now),
            Body::Whole(Some(_)) => true,
            Body::Items(items) => items.is_wanted(notice.id()),
        };
        if !concerns {
            return;
        }
        // What is passed through is not settled but for what was touched before.
        if tracked.passed.is_none() {
            if !tracked.is_touched() {
                self.touched.insert(key.clone());
            }
            tracked.marks(now).touch(notice.id(), now);
        }
        match &mut tracked.body {
            Body::Whole(Some(mirror)) => match mirror.apply(notice) {
                Applied::Nothing | Applied::Held => {}
                Applied::Event(event) => {
                    self.tell(key, event);
                    self.weigh(key);
                    self.bound(key, now);
                }
                Applied::Doubt(doubt) => {
                    debug!(feed = %key.1, ?doubt, "A notice does not fit; the feed is read again.");
                    self.request(key, Cause::Doubt, now);
                }
            },
            Body::Whole(None) => {}
            Body::Items(items) => {
                let item = match notice {
                    Notice::Publish { item, .. } | Notice::Edit { item, .. } => Some(item.clone()),
                    Notice::Retract { .. } => None,
                    Notice::Position { .. } => return,
                };
                if items.follow(notice.id(), item) {
                    self.outs.push(Out::Item(key.1.clone(), notice.id().to_owned()));
                    self.weigh(key);
                }
            }
        }
    }
}
