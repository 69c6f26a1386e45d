//! Writes as thoonk.py 1.0.1 does: one transaction, and behind it the notice of a plain feed's item.
//!
//! Of that notice it is decided here whether it comes at once, late, swapped with another
//! writer's, or never, as when the writer dies in between. Nothing is watched, so that writers
//! run into each other: an item may be left without its id, or an id without its item.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rand::{RngExt, rngs::StdRng};
use redis::{Pipeline, RedisResult, cmd, pipe};
use shard_router::feed::Position;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Feed, Stage, Write};
use crate::cluster::Redis;

/// How often a notice does not come at once; what is left does.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// Up to 3 s late.
    pub late: f64,
    /// Behind the next one that is to be swapped.
    pub swapped: f64,
    /// Not at all.
    pub never: f64,
}

/// How late the latest notice is.
const LATEST: Duration = Duration::from_secs(3);

/// Sends notices, in what order ever.
#[derive(Debug)]
pub(super) struct Announcer {
    manners: Manners,
    /// Held to swap one for another.
    waiting: Mutex<Option<Notice>>,
    /// Held to add one or to take all.
    late: Mutex<JoinSet<()>>,
    /// The round is over: what is late comes now.
    over: CancellationToken,
}

#[derive(Debug)]
struct Notice {
    stage: Arc<Stage>,
    feed: String,
    channel: String,
    payload: Vec<u8>,
}

impl Notice {
    async fn send(self) {
        let shard = self.stage.cluster.shard(&self.feed);
        let mut publish = cmd("PUBLISH");
        publish.arg(self.channel).arg(self.payload);
        // With the shard away it is lost, as with any writer.
        if shard.say::<u64>(&publish).await.is_err() {
            self.stage.journal.count("notice: lost", 1);
        }
    }
}

impl Announcer {
    pub(super) fn new(manners: Manners) -> Self {
        Self {
            manners,
            waiting: Mutex::default(),
            late: Mutex::default(),
            over: CancellationToken::new(),
        }
    }

    async fn announce(&self, notice: Notice, rng: &mut StdRng) {
        let Manners { late, swapped, never } = self.manners;
        let journal = notice.stage.clone();
        let dice: f64 = rng.random();
        if dice < never {
            journal.journal.count("notice: never sent", 1);
        } else if dice < never + swapped {
            journal.journal.count("notice: swapped", 1);
            let held = self.waiting.lock().expect("no holder of this lock panics").take();
            match held {
                Some(held) => {
                    notice.send().await;
                    held.send().await;
                }
                None => {
                    let mut waiting = self.waiting.lock().expect("no holder of this lock panics");
                    *waiting = Some(notice);
                }
            }
        } else if dice < never + swapped + late {
            journal.journal.count("notice: late", 1);
            let delay = LATEST.mul_f64(rng.random());
            let mut late = self.late.lock().expect("no holder of this lock panics");
            while late.try_join_next().is_some() {}
            let over = self.over.clone();
            late.spawn(async move {
                over.run_until_cancelled(sleep(delay)).await;
                notice.send().await;
            });
        } else {
            notice.send().await;
        }
    }

    /// Sends whatever waits.
    pub(super) async fn finish(&self) {
        self.over.cancel();
        let held = self.waiting.lock().expect("no holder of this lock panics").take();
        if let Some(held) = held {
            held.send().await;
        }
        let take =
            || std::mem::take(&mut *self.late.lock().expect("no holder of this lock panics"));
        let mut late = take();
        while late.join_next().await.is_some() {}
    }
}

/// Carries a write out.
pub(super) async fn write(
    stage: &Arc<Stage>,
    announcer: &Announcer,
    feed: &Feed,
    write: Write,
    rng: &mut StdRng,
) -> RedisResult<()> {
    let shard = stage.cluster.shard(&feed.name);
    let keys = Keys::of(&feed.name);
    match write {
        Write::Publish { id, item } => {
            let is_new = keys.publish(shard, &id, &item).await?;
            let verb = if is_new { "publish" } else { "edit" };
            let notice = Notice {
                stage: stage.clone(),
                feed: feed.name.clone(),
                channel: format!("feed.{verb}:{}", feed.name),
                payload: payload(&id, &item),
            };
            announcer.announce(notice, rng).await;
            Ok(())
        }
        Write::Retract { id } => keys.retract(shard, feed, &id).await,
        Write::Insert { item, at } => keys.insert(shard, &item, &at).await,
        Write::Edit { id, item } => {
            let mut edit = pipe();
            edit.atomic().cmd("HSET").arg(&keys.items).arg(&id).arg(&item).ignore();
            edit.cmd("INCR").arg(&keys.publishes).ignore();
            edit.cmd("PUBLISH").arg(keys.channel("publish")).arg(payload(&id, &item)).ignore();
            match keys.has(shard, &id).await? {
                true => shard.pipe(&edit).await,
                false => Ok(()),
            }
        }
        Write::Move { id, to } => {
            let neighbour = match to.neighbour() {
                Some(neighbour) => keys.has(shard, neighbour).await?,
                None => true,
            };
            if !neighbour || !keys.has(shard, &id).await? {
                return Ok(());
            }
            let mut moved = pipe();
            moved.atomic().cmd("LREM").arg(&keys.ids).arg(1).arg(&id).ignore();
            keys.put(&mut moved, &id, &to);
            let said = payload(&id, to.to_string().as_bytes());
            moved.cmd("PUBLISH").arg(keys.channel("position")).arg(said).ignore();
            shard.pipe(&moved).await
        }
    }
}

fn payload(id: &str, rest: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b"\0", rest].concat()
}

struct Keys<'a> {
    feed: &'a str,
    ids: String,
    items: String,
    publishes: String,
}

impl<'a> Keys<'a> {
    fn of(feed: &'a str) -> Self {
        let key = |kind: &str| format!("feed.{kind}:{feed}");
        Self { feed, ids: key("ids"), items: key("items"), publishes: key("publishes") }
    }

    fn channel(&self, verb: &str) -> String {
        format!("feed.{verb}:{}", self.feed)
    }

    async fn has(&self, shard: &Redis, id: &str) -> RedisResult<bool> {
        let mut exists = cmd("HEXISTS");
        exists.arg(&self.items).arg(id);
        shard.say(&exists).await
    }

    /// Writes an item of a plain feed; tells whether its id is new.
    async fn publish(&self, shard: &Redis, id: &str, item: &[u8]) -> RedisResult<bool> {
        let mut most = cmd("HGET");
        most.arg(format!("feed.config:{}", self.feed)).arg("max_length");
        let most = shard.say::<Option<i64>>(&most).await?.unwrap_or_default();
        let mut write = pipe();
        write.atomic();
        if most > 0 {
            let mut old = cmd("ZRANGE");
            old.arg(&self.ids).arg(0).arg(-most);
            for old in shard.say::<Vec<String>>(&old).await?.iter().filter(|old| *old != id) {
                write.cmd("ZREM").arg(&self.ids).arg(old).ignore();
                write.cmd("HDEL").arg(&self.items).arg(old).ignore();
                write.cmd("PUBLISH").arg(self.channel("retract")).arg(old).ignore();
            }
        }
        write.cmd("ZADD").arg(&self.ids).arg(now()).arg(id);
        write.cmd("INCR").arg(&self.publishes).ignore();
        write.cmd("HSET").arg(&self.items).arg(id).arg(item).ignore();
        let (added,): (u64,) = shard.pipe(&write).await?;
        Ok(added > 0)
    }

    async fn retract(&self, shard: &Redis, feed: &Feed, id: &str) -> RedisResult<()> {
        let mut retract = pipe();
        retract.atomic();
        match feed.kind {
            super::Kind::Plain => {
                let mut rank = cmd("ZRANK");
                rank.arg(&self.ids).arg(id);
                if shard.say::<Option<u64>>(&rank).await?.is_none() {
                    return Ok(());
                }
                retract.cmd("ZREM").arg(&self.ids).arg(id).ignore();
            }
            super::Kind::Sorted => {
                if !self.has(shard, id).await? {
                    return Ok(());
                }
                retract.cmd("LREM").arg(&self.ids).arg(1).arg(id).ignore();
            }
        }
        retract.cmd("HDEL").arg(&self.items).arg(id).ignore();
        retract.cmd("PUBLISH").arg(self.channel("retract")).arg(id).ignore();
        shard.pipe(&retract).await
    }

    async fn insert(&self, shard: &Redis, item: &[u8], at: &Position) -> RedisResult<()> {
        let mut incr = cmd("INCR");
        incr.arg(format!("feed.idincr:{}", self.feed));
        let id = shard.say::<u64>(&incr).await?.to_string();
        if let Some(neighbour) = at.neighbour()
            && !self.has(shard, neighbour).await?
        {
            return Ok(());
        }
        let mut insert = pipe();
        insert.atomic();
        self.put(&mut insert, &id, at);
        if at.neighbour().is_none() {
            insert.cmd("INCR").arg(&self.publishes).ignore();
        }
        insert.cmd("HSET").arg(&self.items).arg(&id).arg(item).ignore();
        insert.cmd("PUBLISH").arg(self.channel("publish")).arg(payload(&id, item)).ignore();
        let place = payload(&id, at.to_string().as_bytes());
        insert.cmd("PUBLISH").arg(self.channel("position")).arg(place).ignore();
        shard.pipe(&insert).await
    }

    fn put(&self, pipeline: &mut Pipeline, id: &str, at: &Position) {
        match at {
            Position::Begin => pipeline.cmd("LPUSH").arg(&self.ids).arg(id).ignore(),
            Position::End => pipeline.cmd("RPUSH").arg(&self.ids).arg(id).ignore(),
            Position::Before(other) => {
                pipeline.cmd("LINSERT").arg(&self.ids).arg("BEFORE").arg(other).arg(id).ignore()
            }
            Position::After(other) => {
                pipeline.cmd("LINSERT").arg(&self.ids).arg("AFTER").arg(other).arg(id).ignore()
            }
        };
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("the clock is past 1970").as_secs_f64()
}
