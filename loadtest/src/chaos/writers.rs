//! Those who write: through the gateways, by our scripts, and as Thoonk does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use redis::{RedisResult, cmd};
use shard_router::{
    feed::{FeedType, NewFeed, Position, Post},
    router::Router,
};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use super::{
    Stage,
    world::{self, Feed, Kind, PLENTY},
};

mod api;
mod thoonk;

pub use thoonk::Manners;

/// How long one write may take; with a shard away it fails much sooner.
const PATIENCE: Duration = Duration::from_secs(4);

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// An item of a plain feed, new or not.
    Publish {
        /// Its id.
        id: String,
        /// The item.
        item: Vec<u8>,
    },
    /// Another item under an id of a sorted feed.
    Edit {
        /// Its id.
        id: String,
        /// The item.
        item: Vec<u8>,
    },
    /// A new item of a sorted feed.
    Insert {
        /// The item.
        item: Vec<u8>,
        /// Where.
        at: Position,
    },
    /// Another place in a sorted feed.
    Move {
        /// The item's id.
        id: String,
        /// Where to.
        to: Position,
    },
    /// An item is taken out.
    Retract {
        /// Its id.
        id: String,
    },
}

/// How a writer reaches the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Api,
    Scripts,
    Thoonk,
}

/// The writers of a run, who write while they are let.
#[derive(Debug)]
pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Writers {
    /// Starts writers that together write so often a second until [`Self::stop`].
    #[must_use]
    pub fn start(stage: &Arc<Stage>, rate: f64, manners: Manners, rng: &mut StdRng) -> Self {
        let ways = [Way::Api, Way::Scripts, Way::Thoonk, Way::Thoonk, Way::Thoonk, Way::Api];
        let pause = Duration::from_secs_f64(ways.len() as f64 / rate.max(0.1));
        let stop = Arc::new(AtomicBool::new(false));
        let router = Arc::new(stage.cluster.router());
        let thoonk = Arc::new(thoonk::Announcer::new(manners));
        let mut tasks = JoinSet::new();
        for way in ways {
            let writer = Writer {
                stage: stage.clone(),
                router: router.clone(),
                announcer: thoonk.clone(),
                way,
                rng: StdRng::seed_from_u64(rng.random()),
            };
            tasks.spawn(writer.run(pause, stop.clone()));
        }
        Self { stop, tasks }
    }

    /// Lets everybody finish, late notices included.
    pub async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
    }
}

struct Writer {
    stage: Arc<Stage>,
    router: Arc<Router>,
    announcer: Arc<thoonk::Announcer>,
    way: Way,
    rng: StdRng,
}

/// Writes that are under way at a time, of one writer: a shard that hangs must not end all writing.
const AT_ONCE: usize = 16;

impl Writer {
    async fn run(mut self, pause: Duration, stop: Arc<AtomicBool>) {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut open = JoinSet::new();
        let mut beat = tokio::time::interval(pause);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        while !stop.load(Ordering::Relaxed) {
            beat.tick().await;
            while open.try_join_next().is_some() {}
            let Ok(permit) = room.clone().acquire_owned().await else { break };
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let feed = self.stage.world.pick(&mut self.rng).clone();
            let seed = self.rng.random();
            let (stage, router) = (self.stage.clone(), self.router.clone());
            let (announcer, way) = (self.announcer.clone(), self.way);
            open.spawn(async move {
                let rng = StdRng::seed_from_u64(seed);
                let written = write(&stage, &router, &announcer, way, &feed, number, rng);
                let name = match timeout(PATIENCE, written).await {
                    Ok(Ok(what)) => format!("written: {} {what}", way.label()),
                    Ok(Err(_)) | Err(_) => format!("not written: {}", way.label()),
                };
                stage.journal.count(&name, 1);
                drop(permit);
            });
        }
        while open.join_next().await.is_some() {}
        self.announcer.finish().await;
    }
}

impl Way {
    const fn label(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Scripts => "scripts",
            Self::Thoonk => "thoonk",
        }
    }
}

impl Write {
    const fn label(&self) -> &'static str {
        match self {
            Self::Publish { .. } => "publish",
            Self::Edit { .. } => "edit",
            Self::Insert { .. } => "insert",
            Self::Move { .. } => "move",
            Self::Retract { .. } => "retract",
        }
    }
}

/// Decides on a write that makes sense for what is there, and carries it out.
async fn write(
    stage: &Arc<Stage>,
    router: &Router,
    announcer: &Arc<thoonk::Announcer>,
    way: Way,
    feed: &Feed,
    number: u64,
    mut rng: StdRng,
) -> Result<&'static str, String> {
    let shard = stage.cluster.shard(&feed.name);
    let write = match feed.kind {
        Kind::Plain => decide_plain(feed, way, number, &mut rng),
        Kind::Sorted => {
            let mut ids = cmd("LRANGE");
            ids.arg(format!("feed.ids:{}", feed.name)).arg(0).arg(-1);
            let ids: RedisResult<Vec<String>> = shard.say(&ids).await;
            decide_sorted(&ids.map_err(|e| e.to_string())?, way, number, &mut rng)
        }
    };
    let label = write.label();
    match way {
        Way::Api => {
            let gateway = stage.cluster.gateways.choose(&mut rng).expect("there are gateways");
            api::write(gateway.admin(), feed, write).await?;
        }
        Way::Scripts => by_script(router, feed, write).await?,
        Way::Thoonk => {
            thoonk::write(stage, announcer, feed, write, &mut rng)
                .await
                .map_err(|error| error.to_string())?;
        }
    }
    Ok(label)
}

fn item(way: Way, number: u64, rng: &mut StdRng) -> Vec<u8> {
    match way {
        Way::Api => world::json_item(rng, number).into_bytes(),
        Way::Scripts | Way::Thoonk => world::item(rng, number),
    }
}

fn decide_plain(feed: &Feed, way: Way, number: u64, rng: &mut StdRng) -> Write {
    let id = feed.ids.choose(rng).expect("a plain feed has ids").clone();
    if rng.random_bool(0.2) {
        return Write::Retract { id };
    }
    Write::Publish { id, item: item(way, number, rng) }
}

fn decide_sorted(ids: &[String], way: Way, number: u64, rng: &mut StdRng) -> Write {
    let Some(id) = ids.choose(rng).cloned() else {
        return Write::Insert { item: item(way, number, rng), at: Position::End };
    };
    let other = ids.choose(rng).filter(|other| **other != id).cloned();
    let place = match (rng.random_range(0..5), other) {
        (0, _) => Position::Begin,
        (1, Some(other)) => Position::Before(other),
        (2 | 3, Some(other)) => Position::After(other),
        _ => Position::End,
    };
    let surplus = if ids.len() > PLENTY { 3 } else { 0 };
    match rng.random_range(0..10_u32 + surplus) {
        0..=2 => Write::Insert { item: item(way, number, rng), at: place },
        3..=5 => Write::Edit { id, item: item(way, number, rng) },
        6 | 7 => Write::Move { id, to: place },
        _ => Write::Retract { id },
    }
}

async fn by_script(router: &Router, feed: &Feed, write: Write) -> Result<(), String> {
    let name = &feed.name;
    let done = match write {
        Write::Publish { id, item } => {
            let new = NewFeed { feed_type: FeedType::Feed, max_length: feed.max_length };
            let post = Post { item: item.into(), id: Some(id), position: None, new };
            router.post(name, post).await.map(drop)
        }
        Write::Insert { item, at } => {
            router.insert_new(name, item, &at, feed.max_length).await.map(drop)
        }
        Write::Edit { id, item } => router.edit(name, &id, item).await,
        Write::Move { id, to } => router.position(name, &id, &to).await,
        Write::Retract { id } => router.retract(name, &id).await.map(drop),
    };
    done.map_err(|error| error.to_string())
}
