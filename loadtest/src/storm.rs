//! The reconnect storm: a gateway dies under its clients, and all come back to the new one at once.
//!
//! Redis itself counts how often it is read. Every feed here holds something, and a script that
//! reads a whole feed of up to a thousand items runs `HMGET` once: so there must be as many as
//! there are feeds, however many clients ask for each. `ZSCORE` likewise for each lone item.

mod report;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use redis::cmd;
use tokio::time::sleep;

pub use self::report::Report;
use crate::{
    cluster::{self, Cluster, ClusterError},
    crowd::{self, Missing},
    follower::{Counts, Follower},
    latency::Latency,
    light::{self, Client, Listener, Options},
    sample::Sample,
    start::Engine,
    wire::Protocol,
    world::World,
};

/// Verification reads feeds as well, so it is put off until this is over.
const CONFIG: &str = "[mirror]\nverify_every = \"24h\"\n";
/// How often all clients are looked at.
const LOOK_AT_ALL: Duration = Duration::from_millis(500);
/// How long nothing more may come that is counted.
const QUIET: Duration = Duration::from_secs(1);

/// What is run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many clients, each a user in one team.
    pub clients: usize,
    /// How many members a team has.
    pub members: usize,
    /// How many tasks each member has.
    pub tasks: usize,
    /// How many clients begin per second, before the storm.
    pub ramp: f64,
    /// How long at most all may take to come back.
    pub patience: Duration,
    /// Whether clients resume; else each connect brings `initial`.
    pub resumes: bool,
    /// The gateway's engine; else its default.
    pub engine: Option<Engine>,
    /// The gateway's program.
    pub gateway: PathBuf,
    /// Where files go.
    pub folder: PathBuf,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The cluster did not come up, or did not take the feeds.
    #[error("cluster does not do it")]
    Cluster(#[from] ClusterError),
    /// Not everybody got in before the storm.
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
        gateways: 1,
        shards: 3,
        keeps: false,
        server: Engine::line(plan.engine),
        config: CONFIG.to_owned(),
        folder: plan.folder.clone(),
    })
    .await?;
    let world = World { users: plan.clients, members: plan.members, tasks: plan.tasks };
    world.write(&cluster).await?;
    let tally = Arc::new(Tally::default());
    let clients = let_in(plan, &world, &cluster, &tally).await?;
    let before: Vec<String> = clients.iter().map(shown).collect();

    let gateway = &cluster.gateways[0];
    let counted = commands(&cluster).await?;
    gateway.kill();
    tally.begin();
    gateway.restart()?;
    let began = Instant::now();
    let back =
        crowd::wait(plan.clients as u64, plan.patience, || tally.entered.load(Relaxed)).await;
    let took = began.elapsed();
    // Who cannot be told in time is told later.
    let (commands, changed) = loop {
        let commands = difference(&counted, &commands(&cluster).await?);
        let is_other = |(client, before): &(&Client<Back>, &String)| shown(client) != **before;
        let changed = clients.iter().zip(&before).filter(is_other).count() as u64;
        let is_read = report::reads(&commands) >= world.feeds() as u64;
        if is_read && changed == 0 || began.elapsed() > plan.patience {
            break (commands, changed);
        }
        sleep(LOOK_AT_ALL).await;
    };
    let settled = began.elapsed();
    // Whatever comes twice would come now.
    sleep(QUIET).await;

    let mut counts = Counts::default();
    let (mut broken, mut repeat) = (Vec::new(), None);
    for client in &clients {
        let back = client.listener();
        counts += back.follower.counts;
        broken.extend(back.follower.broken.clone());
        repeat = repeat.or_else(|| back.follower.repeat.clone());
    }
    Ok(Report {
        plan: plan.clone(),
        feeds: world.feeds(),
        lone: world.lone(),
        back,
        took,
        settled,
        each: tally.times(),
        changed,
        broken,
        repeat,
        counts,
        commands,
        gateway: gateway.process().id().and_then(|id| Sample::of(&[id])).unwrap_or_default(),
    })
}

/// What a client holds, as it would say it: every feed and its version.
fn shown(client: &Client<Back>) -> String {
    client.listener().follower.tree.resume(usize::MAX)
}

async fn let_in(
    plan: &Plan,
    world: &World,
    cluster: &Cluster,
    tally: &Arc<Tally>,
) -> Result<Vec<Client<Back>>, Failure> {
    let targets: Arc<[_]> = Arc::new([([127, 0, 0, 1], cluster.gateways[0].port()).into()]);
    let clients = crowd::start(0..plan.clients, plan.ramp, |number| {
        let protocol = if number % 2 == 0 { Protocol::Eio4 } else { Protocol::Eio3 };
        let options = Options {
            resumes: plan.resumes,
            source: Some(light::source(number)),
            seed: number as u64,
            ..Options::new(targets.clone(), protocol, cluster::cookie(&world.user(number)))
        };
        let follower = Follower::new("users");
        let back = Back { follower, resumes: plan.resumes, tally: tally.clone() };
        Client::spawn(options, back)
    })
    .await;
    let first = || clients.iter().find_map(|client| client.listener().follower.broken.clone());
    crowd::enter(plan.clients, || tally.entered.load(Relaxed), first).await?;
    Ok(clients)
}

/// How often each command ran, on all shards together, by Redis's own count.
async fn commands(cluster: &Cluster) -> Result<BTreeMap<String, u64>, ClusterError> {
    let mut commands = BTreeMap::new();
    for shard in &cluster.shards {
        let text: String = shard.say(cmd("INFO").arg("commandstats")).await?;
        for (name, calls) in text.lines().filter_map(read) {
            *commands.entry(name.to_owned()).or_default() += calls;
        }
    }
    Ok(commands)
}

/// Reads a line such as `cmdstat_hmget:calls=7,usec=…`.
fn read(line: &str) -> Option<(&str, u64)> {
    let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
    Some((name, rest.split(',').next()?.parse().ok()?))
}

fn difference(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let since = |name: &String, calls: u64| calls - before.get(name).copied().unwrap_or(0);
    after.iter().map(|(name, calls)| (name.clone(), since(name, *calls))).collect()
}

/// What all clients write on.
#[derive(Debug, Default)]
struct Tally {
    entered: AtomicU64,
    /// Since when coming back is timed, and how long it took each; held for one note.
    times: Mutex<(Option<Instant>, Latency)>,
}

impl Tally {
    /// Begins to wait for everybody to come back.
    fn begin(&self) {
        self.times.lock().expect("no holder of this lock panics").0 = Some(Instant::now());
        self.entered.store(0, Relaxed);
    }

    fn enter(&self) {
        let mut times = self.times.lock().expect("no holder of this lock panics");
        if let Some(began) = times.0 {
            times.1.record(began.elapsed());
        }
        self.entered.fetch_add(1, Relaxed);
    }

    fn times(&self) -> Latency {
        self.times.lock().expect("no holder of this lock panics").1.clone()
    }
}

/// One client: it holds its tree, and tells when it is up to date.
struct Back {
    follower: Follower,
    resumes: bool,
    tally: Arc<Tally>,
}

impl Listener for Back {
    fn resume(&mut self) -> String {
        self.follower.resume()
    }

    fn event(&mut self, name: &str, argument: &str) {
        self.follower.event(name, argument);
        // Of a client that resumes the ack is awaited, which follows.
        if name == "initial" && !self.resumes {
            self.tally.enter();
        }
    }

    fn answer(&mut self, event: &str, argument: &str, answer: &str) {
        self.follower.answer(event, argument, answer);
        if event == "resume" {
            self.tally.enter();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_counts_is_read() {
        assert_eq!(read("cmdstat_hmget:calls=7,usec=20,usec_per_call=2.8"), Some(("hmget", 7)));
        assert_eq!(read("cmdstat_config|get:calls=1,usec=1"), Some(("config|get", 1)));
        assert_eq!(read("# Commandstats"), None);
        let before = [("get".to_owned(), 3)].into();
        let after = [("get".to_owned(), 5), ("hmget".to_owned(), 7)].into();
        let expected = [("get".to_owned(), 2), ("hmget".to_owned(), 7)].into();
        assert_eq!(difference(&before, &after), expected);
    }
}
