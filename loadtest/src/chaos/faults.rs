//! What goes wrong, at random, and how each of it is healed again.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Stage, fleet::Fleet};

mod gateways;
mod sessions;
mod shards;

pub(in crate::chaos) use sessions::refresh;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A shard is killed and started again with its data.
    KillShard,
    /// A shard is killed and comes back as an empty one; sometimes its data are given back.
    EmptyShard,
    /// All of a shard is flushed; sometimes its data are given back.
    FlushShard,
    /// A shard hangs.
    StopShard,
    /// A shard closes the connections of its subscribers.
    KillSubscribers,
    /// More is said on a shard than its subscribers' buffers may hold.
    Overrun,
    /// A shard refuses one kind of channel to the gateways.
    DenyChannel,
    /// One key of a feed is deleted by hand, which nobody is told.
    DeleteKey,
    /// A gateway is killed and started again.
    KillGateway,
    /// A gateway hangs.
    StopGateway,
    /// Some clients' connections are cut by a TCP reset.
    CutClients,
    /// Some clients do not read for a while.
    StallClients,
    /// A user's teams change.
    ChangeTeams,
    /// A user's session ends, and later there is one again.
    EndSession,
}

/// How often each happens relative to the others.
const WEIGHTS: [(Fault, u32); 14] = [
    (Fault::KillShard, 4),
    (Fault::EmptyShard, 2),
    (Fault::FlushShard, 2),
    (Fault::StopShard, 4),
    (Fault::KillSubscribers, 5),
    (Fault::Overrun, 3),
    (Fault::DenyChannel, 3),
    (Fault::DeleteKey, 4),
    (Fault::KillGateway, 3),
    (Fault::StopGateway, 3),
    (Fault::CutClients, 8),
    (Fault::StallClients, 6),
    (Fault::ChangeTeams, 8),
    (Fault::EndSession, 4),
];

/// Between two faults, on average.
const PAUSE: Duration = Duration::from_millis(700);

/// How long gateways may take to hear a shard again that was away.
const HEARD_AGAIN: Duration = Duration::from_secs(3);

impl Fault {
    /// Tells whether no notice and no lost connection leads to it, so that only verifying finds it.
    #[must_use]
    pub const fn is_silent(self) -> bool {
        matches!(self, Self::FlushShard | Self::DeleteKey)
    }

    /// Returns its name as it stands in reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::KillShard => "kill of a shard",
            Self::EmptyShard => "loss of a shard's data",
            Self::FlushShard => "flush of a shard",
            Self::StopShard => "stop of a shard",
            Self::KillSubscribers => "kill of subscribers",
            Self::Overrun => "overrun of subscribers",
            Self::DenyChannel => "denied channel",
            Self::DeleteKey => "deleted key",
            Self::KillGateway => "kill of a gateway",
            Self::StopGateway => "stop of a gateway",
            Self::CutClients => "cut of clients",
            Self::StallClients => "stall of clients",
            Self::ChangeTeams => "change of teams",
            Self::EndSession => "end of a session",
        }
    }
}

/// What one fault has for itself while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Target {
    Shard(usize),
    Gateway(usize),
    User(usize),
}

/// Makes things go wrong until it is stopped.
#[derive(Debug)]
pub struct Faults {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Faults {
    /// Begins; only what `allowed` says happens.
    #[must_use]
    pub fn start(stage: &Arc<Stage>, fleet: &Arc<Fleet>, allowed: &[Fault], seed: u64) -> Self {
        let stop = CancellationToken::new();
        let choice: Vec<_> =
            WEIGHTS.iter().copied().filter(|(fault, _)| allowed.contains(fault)).collect();
        let run = run(stage.clone(), fleet.clone(), choice, seed, stop.clone());
        Self { stop, task: tokio::spawn(run) }
    }

    /// Injects no more, heals everything, and waits until that is done.
    pub async fn stop(self) {
        self.stop.cancel();
        // It has no way to panic that the run would survive.
        self.task.await.expect("faults do not panic");
    }
}

/// Every fault that there is.
#[must_use]
pub fn all() -> Vec<Fault> {
    WEIGHTS.iter().map(|(fault, _)| *fault).collect()
}

async fn run(
    stage: Arc<Stage>,
    fleet: Arc<Fleet>,
    choice: Vec<(Fault, u32)>,
    seed: u64,
    stop: CancellationToken,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let busy = Busy::default();
    let mut open = JoinSet::new();
    while let Ok((fault, _)) = choice.choose_weighted(&mut rng, |(_, weight)| *weight) {
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep(PAUSE.mul_f64(rng.random_range(0.2..1.8))) => {}
        }
        while open.try_join_next().is_some() {}
        // Drawn whether it is used or not, so that all that follows depends on the seed alone.
        let (target, own) = (rng.random_range(0..usize::MAX), rng.random());
        let Some(hold) = busy.take(*fault, target, &stage) else { continue };
        let (stage, fleet, fault) = (stage.clone(), fleet.clone(), *fault);
        let spell = Spell(stop.clone());
        open.spawn(async move {
            stage.journal.count(&format!("fault: {}", fault.label()), 1);
            let rng = StdRng::seed_from_u64(own);
            match hold.target {
                Some(Target::Shard(at)) => shards::run(&stage, fault, at, rng, &spell).await,
                Some(Target::Gateway(at)) => gateways::run(&stage, fault, at, rng, &spell).await,
                Some(Target::User(at)) => {
                    sessions::run(&stage, &fleet, fault, at, rng, &spell).await;
                }
                None => fleet.trouble(&stage, fault, rng, &spell).await,
            }
            // A shard that answers is not heard by all gateways at once.
            if matches!(hold.target, Some(Target::Shard(_))) {
                spell.last(HEARD_AGAIN).await;
            }
            drop(hold);
        });
    }
    while open.join_next().await.is_some() {}
}

/// How long faults last: until the round ends at most, when all are healed at once.
#[derive(Debug, Clone)]
pub(super) struct Spell(CancellationToken);

impl Spell {
    /// Waits so long, or until the round ends.
    pub(super) async fn last(&self, length: Duration) {
        self.0.run_until_cancelled(sleep(length)).await;
    }
}

/// What has a fault now.
#[derive(Debug, Clone, Default)]
struct Busy(Arc<Mutex<HashSet<Target>>>);

/// Frees its target when it is dropped.
struct Hold {
    target: Option<Target>,
    busy: Busy,
}

impl Busy {
    /// Takes a target for a fault; `None` where it has one, or would be the last to be well.
    ///
    /// One shard always is, so that control messages arrive.
    fn take(&self, fault: Fault, target: usize, stage: &Stage) -> Option<Hold> {
        let mut busy = self.0.lock().expect("no holder of this lock panics");
        let shards = stage.cluster.shards.len();
        let target = match fault {
            Fault::KillShard
            | Fault::EmptyShard
            | Fault::FlushShard
            | Fault::StopShard
            | Fault::KillSubscribers
            | Fault::Overrun
            | Fault::DenyChannel
            | Fault::DeleteKey => {
                let sick = busy.iter().filter(|busy| matches!(busy, Target::Shard(_))).count();
                if sick + 1 >= shards {
                    return None;
                }
                Some(Target::Shard(target % shards))
            }
            Fault::KillGateway | Fault::StopGateway => {
                Some(Target::Gateway(target % stage.cluster.gateways.len()))
            }
            Fault::ChangeTeams | Fault::EndSession => {
                Some(Target::User(target % stage.world.users.len()))
            }
            Fault::CutClients | Fault::StallClients => None,
        };
        if let Some(target) = target
            && !busy.insert(target)
        {
            return None;
        }
        Some(Hold { target, busy: self.clone() })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(target) = &self.target {
            self.busy.0.lock().expect("no holder of this lock panics").remove(target);
        }
    }
}

/// A time between `from` and `to` seconds.
pub(in crate::chaos) fn seconds(rng: &mut StdRng, from: f64, to: f64) -> Duration {
    Duration::from_secs_f64(rng.random_range(from..to))
}
