//! What goes wrong with a shard.

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use redis::{RedisResult, cmd, pipe};

use super::{Fault, Spell, seconds};
use crate::{
    chaos::{Stage, world::Kind},
    cluster::{ClusterError, Redis, process::Signal, redis::GATEWAY},
};

/// A buffer that a few notices of [`BIG`] bytes fill.
const TINY: &str = "pubsub 32768 32768 1";
/// What stands there by default.
const USUAL: &str = "pubsub 33554432 8388608 60";
/// Bytes of an item, and how often it is written at once, to fill a subscriber's buffer.
const BIG: usize = 4096;
const OFTEN: usize = 40;

/// Channels that gateways need, but for one kind of notice.
const CHANNELS: [&str; 8] = [
    "&gateway.*",
    "&job.*",
    "&newfeed",
    "&delfeed",
    "&conffeed",
    "&feed.publishes:*",
    "&feed.claimed:*",
    "&feed.finishes:*",
];

pub(super) async fn run(stage: &Stage, fault: Fault, at: usize, mut rng: StdRng, spell: &Spell) {
    let shard = &stage.cluster.shards[at];
    stage.journal.note(format!("{}: {}", shard.name(), fault.label()));
    if let Err(error) = inject(stage, fault, at, &mut rng, spell).await {
        stage.journal.note(format!("{}: {}: {error:?}", shard.name(), fault.label()));
    }
    // Whatever did not work is put right.
    let healed = heal(shard).await;
    stage.journal.note(format!("{}: healed: {healed:?}", shard.name()));
}

async fn inject(
    stage: &Stage,
    fault: Fault,
    at: usize,
    rng: &mut StdRng,
    spell: &Spell,
) -> Result<(), ClusterError> {
    let shard = &stage.cluster.shards[at];
    match fault {
        Fault::KillShard => {
            shard.kill();
            spell.last(seconds(rng, 0.1, 4.0)).await;
            shard.restart().await?;
        }
        Fault::EmptyShard => {
            let kept = dump(shard).await?;
            shard.kill();
            spell.last(seconds(rng, 0.1, 2.0)).await;
            shard.restart_empty().await?;
            spell.last(seconds(rng, 0.1, 3.0)).await;
            if rng.random_bool(0.5) {
                restore(shard, &kept).await?;
            }
        }
        Fault::FlushShard => {
            let kept = dump(shard).await?;
            shard.say::<()>(&cmd("FLUSHALL")).await?;
            spell.last(seconds(rng, 0.1, 3.0)).await;
            if rng.random_bool(0.7) {
                restore(shard, &kept).await?;
            }
        }
        Fault::StopShard => {
            shard.process().signal(Signal::Stop);
            spell.last(seconds(rng, 0.5, 5.0)).await;
        }
        Fault::KillSubscribers => {
            shard.say::<u64>(cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub")).await?;
        }
        Fault::Overrun => overrun(stage, at, rng, spell).await?,
        Fault::DenyChannel => {
            let kinds = ["publish", "edit", "retract", "position"];
            let denied = kinds.choose(rng).expect("there are kinds");
            let mut user = cmd("ACL");
            user.arg("SETUSER").arg(GATEWAY).arg("resetchannels").arg(&CHANNELS);
            for kind in kinds.iter().filter(|kind| *kind != denied) {
                user.arg(format!("&feed.{kind}:*"));
            }
            shard.say::<()>(&user).await?;
            spell.last(seconds(rng, 0.5, 5.0)).await;
        }
        Fault::DeleteKey => {
            let here = |feed: &&_| {
                let feed: &crate::chaos::world::Feed = feed;
                stage.cluster.owner(&feed.name) == at
            };
            let feeds: Vec<_> = stage.world.feeds.iter().filter(here).collect();
            if let Some(feed) = feeds.choose(rng) {
                let kind = ["ids", "items"].choose(rng).expect("there are keys");
                let key = format!("feed.{kind}:{}", feed.name);
                stage.journal.note(format!("{}: DEL {key}", shard.name()));
                shard.say::<u64>(cmd("DEL").arg(key)).await?;
            }
        }
        _ => {}
    }
    Ok(())
}

async fn heal(shard: &Redis) -> Result<(), ClusterError> {
    shard.heal().await?;
    shard.say::<()>(cmd("ACL").arg("SETUSER").arg(GATEWAY).arg("allchannels")).await?;
    let limit = "client-output-buffer-limit";
    Ok(shard.say::<()>(cmd("CONFIG").arg("SET").arg(limit).arg(USUAL)).await?)
}

/// Writes an item so often in one step that no subscriber's buffer can hold its notices.
async fn overrun(
    stage: &Stage,
    at: usize,
    rng: &mut StdRng,
    spell: &Spell,
) -> Result<(), ClusterError> {
    let shard = &stage.cluster.shards[at];
    let feeds: Vec<_> = stage
        .world
        .feeds
        .iter()
        .filter(|feed| feed.kind == Kind::Plain && stage.cluster.owner(&feed.name) == at)
        .collect();
    let Some(feed) = feeds.choose(rng) else { return Ok(()) };
    let id = feed.ids.choose(rng).expect("a plain feed has ids");
    shard.say::<()>(cmd("CONFIG").arg("SET").arg("client-output-buffer-limit").arg(TINY)).await?;
    let mut writes = pipe();
    writes.atomic();
    for number in 0..OFTEN {
        let item = format!("{{\"n\":{number},\"big\":\"{}\"}}", "x".repeat(BIG));
        writes.cmd("ZADD").arg(format!("feed.ids:{}", feed.name)).arg(number).arg(id).ignore();
        writes.cmd("HSET").arg(format!("feed.items:{}", feed.name)).arg(id).arg(&item).ignore();
        let notice = format!("{id}\0{item}");
        writes.cmd("PUBLISH").arg(format!("feed.edit:{}", feed.name)).arg(notice).ignore();
    }
    shard.pipe::<()>(&writes).await?;
    spell.last(seconds(rng, 0.1, 2.0)).await;
    Ok(())
}

/// Every key of a shard, as Redis itself writes it down.
async fn dump(shard: &Redis) -> RedisResult<Vec<(Vec<u8>, Vec<u8>)>> {
    let keys: Vec<Vec<u8>> = shard.say(cmd("KEYS").arg("*")).await?;
    let mut dumps = pipe();
    for key in &keys {
        dumps.cmd("DUMP").arg(key);
    }
    let dumps: Vec<Option<Vec<u8>>> = shard.pipe(&dumps).await?;
    Ok(keys.into_iter().zip(dumps).filter_map(|(key, dump)| Some((key, dump?))).collect())
}

async fn restore(shard: &Redis, kept: &[(Vec<u8>, Vec<u8>)]) -> RedisResult<()> {
    let mut restore = pipe();
    for (key, dump) in kept {
        restore.cmd("RESTORE").arg(key).arg(0).arg(dump).arg("REPLACE").ignore();
    }
    shard.pipe(&restore).await
}
