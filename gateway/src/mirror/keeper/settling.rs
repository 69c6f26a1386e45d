//! Settling: what notices touched is read again once it is quiet, many feeds in one script.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use shard_router::feed::{Settled, Touched};

use super::{
    Effect, Keeper,
    feeds::{Body, Cause, Key, Tracked},
    reading::{READS_AT_ONCE, Reading, SETTLE_IDS},
};

/// A feed that never grows quiet is settled this often all the same.
const SETTLE_AT_LEAST: Duration = Duration::from_secs(5);
/// Feeds in one settling read.
const SETTLE_BATCH: usize = 200;
/// Orphans of one feed that are remembered.
const ORPHANS: usize = 1_000;

impl Keeper {
    /// Reads again what notices touched and what is quiet by now, many feeds in one script.
    pub(super) fn settle(&mut self, now: Instant) {
        let mut due: HashMap<usize, Vec<Key>> = HashMap::new();
        for key in &self.touched {
            let tracked = self.feeds.at(key).expect("what is let go is not touched");
            let Some(marks) = &tracked.marks else { continue };
            let is_quiet = now >= marks.touched_last + self.settings.settle
                || now >= marks.touched_first + SETTLE_AT_LEAST;
            let is_free = tracked.reading.is_none() && tracked.due.is_none();
            if is_quiet && is_free && tracked.may_retry(now) && self.shards[tracked.shard()].up {
                due.entry(tracked.shard()).or_default().push(key.clone());
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
            let marks = tracked.marks(now);
            let many = marks.touched.len() + marks.orphans.len();
            let is_many = many > SETTLE_IDS;
            if is_many && let Body::Whole(_) = tracked.body {
                self.request(&keys.next().expect("was just peeked"), Cause::Settle, now);
                continue;
            }
            if !members.is_empty() && count + many > SETTLE_IDS {
                break;
            }
            let ids = tracked.marks(now).take(SETTLE_IDS, now);
            tracked.marks.take_if(|marks| marks.is_empty());
            count += ids.len();
            let asked = Touched { feed: key.1.to_string(), ids };
            tracked.reading =
                Some(Box::new(Reading::new(nonce, Cause::Settle, Some(asked.clone()))));
            touched.push(asked);
            let key = keys.next().expect("was just peeked");
            if !tracked.is_touched() {
                self.touched.remove(&key);
            }
            members.push(key);
        }
        if !members.is_empty() {
            self.start(shard, nonce, members, 0, Effect::Settle { shard, touched, nonce });
        }
    }

    /// Settles a feed once more, with ids that it lists and whose items nobody has.
    ///
    /// They may have come unannounced. Those that stay without an item are orphans and asked
    /// each time: else a whole feed would be read whenever it is settled.
    pub(super) fn settle_orphans(
        &mut self,
        key: &Key,
        asked: &Touched,
        unread: Vec<String>,
        now: Instant,
    ) {
        let tracked = self.feeds.at_mut(key).expect("the caller looked");
        let marks = tracked.marks(now);
        if marks.orphans.len() + unread.len() > ORPHANS {
            marks.orphans.clear();
            tracked.marks.take_if(|marks| marks.is_empty());
            return self.request(key, Cause::Settle, now);
        }
        marks.orphans.extend(unread);
        asked.ids.iter().for_each(|id| marks.touch(id, now));
        // It was quiet already.
        marks.touched_last = now.checked_sub(self.settings.settle).unwrap_or(now);
        self.touched.insert(key.clone());
    }
}

impl Tracked {
    /// Keeps those orphans that are still listed and still have no item.
    pub(super) fn sift_orphans(&mut self, asked: &Touched, found: &Settled) {
        let Some(marks) = &mut self.marks else { return };
        let listed: HashSet<&[u8]> = found.order.iter().flatten().map(|id| &**id).collect();
        marks.orphans.retain(|id| listed.contains(id.as_bytes()));
        for (id, item) in asked.ids.iter().zip(&found.items) {
            if item.is_some() {
                marks.orphans.remove(id);
            }
        }
        self.marks.take_if(|marks| marks.is_empty());
    }
}
