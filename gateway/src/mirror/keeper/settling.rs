//! Settling: what notices touched is read again once it is quiet, many feeds in one script.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use shard_router::feed::Touched;

use super::{
    Effect, Keeper,
    feeds::{Body, Cause, Key, take_some},
    reading::{READS_AT_ONCE, Reading, SETTLE_IDS},
};

/// A feed that never grows quiet is settled this often all the same.
const SETTLE_AT_LEAST: Duration = Duration::from_secs(5);
/// Feeds in one settling read.
const SETTLE_BATCH: usize = 200;

impl Keeper {
    /// Reads again what notices touched and what is quiet by now, many feeds in one script.
    pub(super) fn settle(&mut self, now: Instant) {
        let mut due: HashMap<usize, Vec<Key>> = HashMap::new();
        for key in &self.touched {
            let tracked = self.feeds.at(key).expect("what is let go is not touched");
            let is_quiet = now >= tracked.touched_last + self.settings.settle
                || now >= tracked.touched_first + SETTLE_AT_LEAST;
            let is_free = tracked.reading.is_none() && tracked.due.is_none();
            if is_quiet && is_free && now >= tracked.retry_at && self.shards[tracked.shard].up {
                due.entry(tracked.shard).or_default().push(key.clone());
            }
        }
        for (shard, keys) in due {
            let mut keys = keys.into_iter().peekable();
            while keys.peek().is_some() && self.shards[shard].reading < READS_AT_ONCE {
                self.settle_some(shard, &mut keys, now);
            }
        }
    }

    /// Settles as many feeds as one script may.
    fn settle_some(
        &mut self,
        shard: usize,
        keys: &mut std::iter::Peekable<impl Iterator<Item = Key>>,
        now: Instant,
    ) {
        self.counter += 1;
        let nonce = self.counter;
        let (mut members, mut touched, mut count) = (Vec::new(), Vec::new(), 0);
        while let Some(key) = keys.peek()
            && members.len() < SETTLE_BATCH
        {
            let tracked = self.feeds.at_mut(key).expect("was just listed");
            let is_many = tracked.touched.len() > SETTLE_IDS;
            if is_many && let Body::Whole(_) = tracked.body {
                self.request(&keys.next().expect("was just peeked"), Cause::Settle, now);
                continue;
            }
            if !members.is_empty() && count + tracked.touched.len() > SETTLE_IDS {
                break;
            }
            let ids = take_some(&mut tracked.touched, SETTLE_IDS);
            count += ids.len();
            tracked.touched_first = now;
            let asked = Touched { feed: key.1.to_string(), ids };
            tracked.reading = Some(Reading::new(nonce, Cause::Settle, Some(asked.clone())));
            touched.push(asked);
            let key = keys.next().expect("was just peeked");
            if tracked.touched.is_empty() {
                self.touched.remove(&key);
            }
            members.push(key);
        }
        if !members.is_empty() {
            self.start(shard, nonce, members, Effect::Settle { shard, touched, nonce });
        }
    }
}
