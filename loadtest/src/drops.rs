//! The drop benchmark: clients whose connections are cut again and again while a feed grows.
//!
//! Gateways, shards and clients are real and on this machine. Every client sees one append-only
//! feed of its team; each is cut about every so often, stays away for a moment, and comes back to
//! any of the gateways. In the end each client's tree is held against what Redis has.

mod client;
mod report;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use redis::cmd;
use shard_router::{
    feed::{FeedError, FeedType},
    router::Router,
};
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub use self::report::{Machine, Report};
use self::{
    client::{Notes, Tally},
    report::Sum,
};
use crate::{
    cluster::{self, Cluster, ClusterError},
    crowd::{self, Missing},
    light::{self, Client, Options},
    sample::Sample,
    start::Engine,
    wire::Protocol,
};

/// The feed that grows.
const FEED: &str = "team.everybody.news";
/// The team that all are in.
const TEAM: &str = "everybody";
const CONFIG: &str = "[tree.team.collections.news]\nfeed = \"team.{team}.news\"\n";
/// How often a state is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// What is run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many clients.
    pub clients: usize,
    /// How many users they are.
    pub users: usize,
    /// How many clients begin per second.
    pub ramp: f64,
    /// How many items are published.
    pub items: usize,
    /// How many of them a second.
    pub rate: f64,
    /// Bytes of padding in each.
    pub payload: usize,
    /// From cut to cut of one client, in the mean.
    pub every: Duration,
    /// How long it stays away.
    pub away: Duration,
    /// How long at most everything may take to arrive once all is published.
    pub settle: Duration,
    /// Whether clients resume; else each connect brings `initial`.
    pub resumes: bool,
    /// What chance is drawn from.
    pub seed: u64,
    /// The gateways' engine; else its default.
    pub engine: Option<Engine>,
    /// The gateway's program.
    pub gateway: PathBuf,
    /// Where files go.
    pub folder: PathBuf,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The cluster did not come up, or an item could not be published.
    #[error("cluster does not do it")]
    Cluster(#[from] ClusterError),
    /// A shard refused an item.
    #[error("an item was not published")]
    Publish(#[from] FeedError),
    /// Not everybody got in.
    #[error(transparent)]
    Entry(#[from] Missing),
}

/// Runs it from the first process to the last figure.
///
/// # Errors
///
/// Returns [`Failure`] when there is nothing to measure.
pub async fn run(plan: &Plan) -> Result<Report, Failure> {
    let cluster = Cluster::start(&cluster::Plan {
        gateway: plan.gateway.clone(),
        gateways: 2,
        shards: 3,
        keeps: true,
        server: Engine::line(plan.engine),
        config: CONFIG.to_owned(),
        folder: plan.folder.clone(),
    })
    .await?;
    let router = cluster.router();
    // A feed that does not exist has no type, so its first item would have it read again.
    router.create_feed(FEED, FeedType::Feed, None).await?;
    let tally = Arc::new(Tally::new(plan.seed));
    let clients = let_in(plan, &cluster, &tally).await?;

    let stop = CancellationToken::new();
    let before = Machine::now(&cluster);
    let began = Instant::now();
    let mut cuts = JoinSet::new();
    for (number, client) in clients.iter().enumerate() {
        cuts.spawn(cut(client.clone(), plan.clone(), number, stop.clone()));
    }
    publish(plan, &router, &tally).await?;
    let took = began.elapsed();
    stop.cancel();
    let mut cut = 0;
    while let Some(count) = cuts.join_next().await {
        cut += count.expect("a client is cut without a panic");
    }
    let settled = settle(plan, &tally).await;
    let after = Machine::now(&cluster);

    let items = stored(&cluster).await?;
    let mut sum = Sum::default();
    for client in &clients {
        sum.add(&client.listener(), &items);
    }
    let mut resumes = Vec::new();
    for gateway in &cluster.gateways {
        resumes.push(gateway.metrics().await?);
    }
    Ok(Report {
        plan: plan.clone(),
        published: items.len(),
        took,
        settled,
        cut,
        sum,
        replayed: tally.replayed(),
        live: tally.live(),
        resumes: report::outcomes(&resumes),
        machine: before.zip(after).map(|(before, after)| after.since(before)),
        tester: Sample::of(&[std::process::id()]).unwrap_or_default(),
    })
}

/// Writes the sessions, starts the clients, and waits until each shows something.
async fn let_in(
    plan: &Plan,
    cluster: &Cluster,
    tally: &Arc<Tally>,
) -> Result<Vec<Arc<Client<Notes>>>, Failure> {
    let user = |number: usize| format!("user-{}", number % plan.users);
    for number in 0..plan.users.min(plan.clients) {
        let user = user(number);
        cluster.put_session(&user, &user, &[TEAM.to_owned()]).await?;
    }
    let targets: Arc<[_]> =
        cluster.gateways.iter().map(|gateway| ([127, 0, 0, 1], gateway.port()).into()).collect();
    let clients = crowd::start(0..plan.clients, plan.ramp, |number| {
        let protocol = if number % 4 < 2 { Protocol::Eio4 } else { Protocol::Eio3 };
        let options = Options {
            first: number,
            roams: true,
            resumes: plan.resumes,
            source: Some(light::source(number)),
            seed: plan.seed.wrapping_add(number as u64),
            ..Options::new(targets.clone(), protocol, cluster::cookie(&user(number)))
        };
        Client::spawn(options, Notes::new(plan.items, tally.clone()))
    })
    .await;
    let first = || clients.iter().find_map(|client| client.listener().trouble());
    crowd::enter(plan.clients, || tally.entered(), first).await?;
    Ok(clients.into_iter().map(Arc::new).collect())
}

/// Cuts one client again and again; returns how often.
async fn cut(
    client: Arc<Client<Notes>>,
    plan: Plan,
    number: usize,
    stop: CancellationToken,
) -> usize {
    let mut rng = SmallRng::seed_from_u64(plan.seed.wrapping_sub(number as u64 + 1));
    let mut wait = plan.every.mul_f64(rng.random_range(0.0..1.0));
    for count in 0.. {
        tokio::select! {
            () = sleep(wait) => client.cut(plan.away).await,
            () = stop.cancelled() => return count,
        }
        wait = plan.every.mul_f64(rng.random_range(0.8..1.2));
    }
    unreachable!("the numbers do not end")
}

async fn publish(plan: &Plan, router: &Router, tally: &Tally) -> Result<(), Failure> {
    let began = Instant::now();
    for number in 0..plan.items {
        let due = began + Duration::from_secs_f64(number as f64 / plan.rate);
        sleep_until(due.into()).await;
        let item = tally.stamp(number).item(plan.payload);
        router.publish(FEED, Some(&number.to_string()), item).await?;
    }
    Ok(())
}

/// Waits until everything has arrived everywhere, or for as long as it may take.
async fn settle(plan: &Plan, tally: &Tally) -> Duration {
    let began = Instant::now();
    let expected = (plan.items * plan.clients) as u64;
    while tally.arrived() < expected && began.elapsed() < plan.settle {
        sleep(LOOK).await;
    }
    began.elapsed()
}

/// Reads what the feed holds, past our own code.
async fn stored(cluster: &Cluster) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut all = cmd("HGETALL");
    all.arg(format!("feed.items:{FEED}"));
    Ok(cluster.shard(FEED).say(&all).await.map_err(ClusterError::from)?)
}
