//! Whether every client ends with what Redis holds, whatever dies on the way.
//!
//! A run has rounds. In each, writers write while [`faults`] kill, stop, cut and deny; then
//! everything is healed, and every client's tree is compared with Redis, item by item.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use shard_router::feed::FeedType;
use tokio::time::sleep;

use crate::cluster::{self, Cluster, ClusterError};

pub mod faults;
pub mod fleet;
pub mod journal;
pub mod node;
pub mod proxy;
pub mod report;
pub mod rights;
pub mod tally;
pub mod truth;
pub mod watch;
pub mod world;
pub mod writers;

use faults::{Fault, Faults};
use fleet::Fleet;
use journal::Journal;
use report::{Account, Difference, Report};
use rights::Rights;
use tally::Tally;
use truth::Truth;
use world::{Kind, World};
use writers::{Manners, Writers};

/// How long after the last fault is healed everybody has to hold what Redis holds.
pub const SETTLE: Duration = Duration::from_secs(10);
/// The longest pause between two attempts of a client to connect, with what it takes to do it.
pub const COMES_BACK: Duration = Duration::from_secs(5);
/// How long everybody has to stay equal before a round that is not the last counts as passed.
const STAYS: Duration = Duration::from_millis(1500);
/// Between two looks at all clients.
const LOOK: Duration = Duration::from_millis(100);
/// How often Redis is read until it stays the same.
const LAST_WRITES: usize = 20;
/// Between two looks at what the gateways count.
const SCRAPE: Duration = Duration::from_secs(2);
/// How long all clients may take to be there in the beginning.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a run is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides about everything but what the clock does.
    pub seed: u64,
    /// How long things go wrong, in all rounds together.
    pub duration: Duration,
    /// How long one round is.
    pub round: Duration,
    /// The gateway's program.
    pub gateway: PathBuf,
    /// Where files go; they are left there when a run fails.
    pub folder: PathBuf,
    /// Leaves the files in any case.
    pub keep: bool,
    /// Gateways.
    pub gateways: usize,
    /// Clients of our own.
    pub lights: usize,
    /// Whether half of them resume.
    pub resumes: bool,
    /// Clients in Node.
    pub nodes: usize,
    /// Users.
    pub users: usize,
    /// Writes a second.
    pub rate: f64,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// How the notices of Thoonk's writers come.
    pub manners: Manners,
}

/// What all parts of a run share.
#[derive(Debug)]
pub struct Stage {
    /// What runs.
    pub cluster: Cluster,
    /// What it is played with.
    pub world: World,
    /// Who may see what.
    pub rights: Rights,
    /// What happened.
    pub journal: Journal,
    /// What the gateways counted.
    pub tally: Tally,
}

/// Plays one run.
///
/// # Errors
///
/// Returns [`ClusterError`] when it could not be played at all; what it found is in the report.
pub async fn run(plan: &Plan) -> Result<Report, ClusterError> {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let cluster = Cluster::start(&cluster::Plan {
        gateway: plan.gateway.clone(),
        gateways: plan.gateways,
        shards: 3,
        keeps: true,
        server: String::new(),
        config: "[mirror]\nverify_every = \"2s\"\n".to_owned(),
        folder: plan.folder.clone(),
    })
    .await?;
    let world = World::new(plan.users, &mut rng);
    let path = cluster.folder().join("chaos.log");
    let journal = Journal::begin(&path).map_err(|source| ClusterError::File { path, source })?;
    let rights = Rights::new(&world);
    let stage = Arc::new(Stage { cluster, world, rights, journal, tally: Tally::default() });
    seed(&stage, &mut rng).await?;
    let fleet = Fleet::start(&stage, plan, &mut rng).await;
    let fleet = Arc::new(fleet.map_err(|error| ClusterError::NotReady(error.to_string()))?);
    all_in(&fleet).await?;

    let scraping = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(scrape(stage.clone())));
    let mut outcome = Account::default();
    let rounds = (plan.duration.as_secs_f64() / plan.round.as_secs_f64()).round().max(1.0) as u32;
    for round in 1..=rounds {
        stage.journal.note(format!("round {round} of {rounds}"));
        let writers = Writers::start(&stage, plan.rate, plan.manners, &mut rng);
        let faults = Faults::start(&stage, &fleet, &plan.faults, rng.random());
        sleep(plan.duration / rounds).await;
        tokio::join!(faults.stop(), writers.stop());
        tell_again(&stage, &mut rng).await;
        stage.journal.note("healed");
        compare(&stage, &fleet, round == rounds, &mut outcome).await?;
        if !outcome.differences.is_empty() {
            break;
        }
    }
    for gateway in &stage.cluster.gateways {
        stage.tally.look(gateway).await;
    }
    drop(scraping);
    let mut report = Report::new(plan, &stage, &fleet, outcome);
    if plan.keep || !report.failures().is_empty() {
        report.kept = Some(stage.cluster.keep());
    }
    Ok(report)
}

/// Writes what there is in the beginning: sessions, feeds with their bounds, some items.
async fn seed(stage: &Stage, rng: &mut StdRng) -> Result<(), ClusterError> {
    for user in &stage.world.users {
        stage.cluster.put_session(&user.session, &user.id, &user.teams).await?;
    }
    let router = stage.cluster.router();
    for feed in &stage.world.feeds {
        let feed_type = match feed.kind {
            Kind::Plain => FeedType::Feed,
            Kind::Sorted => FeedType::SortedFeed,
        };
        let failed = |error: shard_router::feed::FeedError| {
            ClusterError::NotReady(format!("{}: {error}", feed.name))
        };
        router.create_feed(&feed.name, feed_type, feed.max_length).await.map_err(failed)?;
        for (number, id) in feed.ids.iter().take(6).enumerate() {
            let item = world::item(rng, number as u64);
            router.publish(&feed.name, Some(id), item).await.map_err(failed)?;
        }
        if feed.kind == Kind::Sorted {
            for number in 0..3 {
                router.append(&feed.name, world::item(rng, number)).await.map_err(failed)?;
            }
        }
    }
    Ok(())
}

async fn all_in(fleet: &Fleet) -> Result<(), ClusterError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let missing: Vec<String> = fleet
            .watches()
            .filter(|watch| watch.caught_up().is_none())
            .map(watch::Watch::name)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(ClusterError::NotReady(format!("{} clients: {missing:?}", missing.len())));
        }
        sleep(LOOK).await;
    }
}

async fn scrape(stage: Arc<Stage>) {
    loop {
        sleep(SCRAPE).await;
        for gateway in &stage.cluster.gateways {
            stage.tally.look(gateway).await;
        }
    }
}

/// Says once more that sessions changed: a gateway that hung then has not heard it.
async fn tell_again(stage: &Stage, rng: &mut StdRng) {
    for user in stage.rights.maybe_unheard() {
        faults::refresh(stage, &user, rng).await;
    }
}

/// Reads Redis when nothing is written any more: what hung has still taken some writes.
async fn still(stage: &Stage) -> Result<Truth, ClusterError> {
    let mut truth = Truth::read(&stage.cluster, &stage.world).await?;
    for _ in 0..LAST_WRITES {
        sleep(LOOK).await;
        let again = Truth::read(&stage.cluster, &stage.world).await?;
        if again == truth {
            break;
        }
        truth = again;
    }
    Ok(truth)
}

/// Waits until every client holds what Redis holds and stays so, or its time is over.
async fn compare(
    stage: &Stage,
    fleet: &Fleet,
    is_last: bool,
    outcome: &mut Account,
) -> Result<(), ClusterError> {
    let healed = Instant::now();
    let truth = still(stage).await?;
    let deadline = healed + SETTLE + COMES_BACK;
    let mut last_unequal: BTreeMap<usize, Instant> = BTreeMap::new();
    let mut all_equal_since = None;
    let differing = loop {
        let differing: Vec<(usize, String)> = fleet
            .watches()
            .enumerate()
            .filter_map(|(at, watch)| {
                let user = watch.user();
                let teams: HashSet<String> = stage.rights.teams(&user)?;
                Some((at, watch.difference(&truth, &teams)?))
            })
            .collect();
        let now = Instant::now();
        for (at, _) in &differing {
            last_unequal.insert(*at, now);
        }
        if differing.is_empty() {
            let since = *all_equal_since.get_or_insert(now);
            let is_over = !is_last || now > healed + SETTLE;
            if is_over && now > since + STAYS {
                break differing;
            }
        } else {
            all_equal_since = None;
        }
        if now > deadline {
            break differing;
        }
        sleep(LOOK).await;
    };
    if truth != Truth::read(&stage.cluster, &stage.world).await? {
        return Err(ClusterError::NotReady("the end: somebody still writes".to_owned()));
    }
    for (at, watch) in fleet.watches().enumerate() {
        // Who came back later has its own time from then on.
        let began = watch.caught_up().map_or(healed, |at| at.max(healed));
        let unequal = last_unequal.get(&at).copied().unwrap_or(healed);
        outcome.converged.push(unequal.saturating_duration_since(began));
        outcome.converged_in_all.push(unequal.saturating_duration_since(healed));
    }
    let watches: Vec<_> = fleet.watches().collect();
    for (at, what) in differing {
        let watch = watches[at];
        let difference = Difference { client: watch.name(), user: watch.user(), what };
        outcome.differences.push(difference);
    }
    if outcome.differences.is_empty() {
        outcome.differences = fleet.shown(stage, &truth).await;
    }
    for Difference { client, user, what } in &outcome.differences {
        stage.journal.note(format!("{client} of {user} differs: {what}"));
    }
    Ok(())
}
