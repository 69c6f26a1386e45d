//! Real Redis servers and gateways as processes of their own, to be driven and broken.
//!
//! Everything listens on loopback, on ports that are kept over restarts, writes into one
//! folder, and is killed when the [`Cluster`] is dropped. All may be broken while others use
//! it, so nothing here needs `&mut`.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use serde_json::{Value, json};
use shard_router::{
    router::Router,
    topology::{Mistake, ShardNode, Topology},
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::cookies;

pub mod admin;
pub mod config;
pub mod gateway;
pub mod process;
pub mod redis;

pub use admin::{Admin, Answer};
pub use gateway::Gateway;
pub use process::Process;
pub use redis::Redis;

/// What signs the cookies.
const SECRET: &str = "chaos";
/// The cookie's name.
const COOKIE: &str = "connect.sid";
/// What the admin listeners want to be told.
pub(crate) const TOKEN: &str = "token";
/// How long anything may take to be there.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The gateway's program.
    pub gateway: PathBuf,
    /// How many gateways.
    pub gateways: usize,
    /// How many shards.
    pub shards: usize,
    /// Whether the shards write an append-only file.
    pub keeps: bool,
    /// More lines of `[server]`.
    pub server: String,
    /// More of the gateways' configuration, such as `[mirror]`.
    pub config: String,
    /// Where files go; a folder is made in it, which is taken away again.
    pub folder: PathBuf,
}

/// Why a part of a cluster could not do something.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A program could not be started.
    #[error("cannot start {program}")]
    Start {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program ended that should run.
    #[error("{name} ended: {log}")]
    Ended {
        /// Which.
        name: String,
        /// The end of its log.
        log: String,
    },
    /// A program does not come to be ready.
    #[error("{0} is not ready in time")]
    NotReady(String),
    /// A file or folder could not be made.
    #[error("cannot write {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The shards make no ring.
    #[error("shards make no ring: {0:?}")]
    Topology(Vec<Mistake>),
    /// A Redis server did not answer as it should.
    #[error("Redis did not do it")]
    Redis(#[from] ::redis::RedisError),
    /// An admin listener did not answer.
    #[error("admin listener: {0}")]
    Admin(String),
}

/// Shards, gateways, and the Redis that has the sessions.
#[derive(Debug)]
pub struct Cluster {
    /// In the order of their names: `g1`, `g2`, …
    pub gateways: Vec<Gateway>,
    /// In the order of their names: `shard-01`, `shard-02`, …
    pub shards: Vec<Redis>,
    /// Where the sessions are.
    pub sessions: Redis,
    topology: Topology,
    folder: TempDir,
    is_kept: AtomicBool,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.folder.disable_cleanup(self.is_kept.load(Ordering::Relaxed));
    }
}

impl Cluster {
    /// Starts everything and waits until every gateway hears every shard.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError`] when a program is missing or does not come up.
    pub async fn start(plan: &Plan) -> Result<Self, ClusterError> {
        let file = |source| ClusterError::File { path: plan.folder.clone(), source };
        std::fs::create_dir_all(&plan.folder).map_err(file)?;
        let folder = tempfile::Builder::new().prefix("cluster-").tempdir_in(&plan.folder);
        let folder = folder.map_err(file)?;
        let sessions = Redis::start("sessions", folder.path(), false).await?;
        let mut shards = Vec::new();
        for number in 1..=plan.shards {
            let name = format!("shard-{number:02}");
            shards.push(Redis::start(&name, folder.path(), plan.keeps).await?);
        }
        let topology = topology(&shards, Redis::url)?;
        let mut gateways = Vec::new();
        for number in 1..=plan.gateways {
            let name = format!("g{number}");
            let text = config::text(&name, &shards, &sessions, plan);
            gateways.push(Gateway::start(&name, &plan.gateway, folder.path(), text)?);
        }
        let cluster =
            Self { gateways, shards, sessions, topology, folder, is_kept: AtomicBool::new(false) };
        for gateway in &cluster.gateways {
            gateway.ready().await?;
            for shard in &cluster.shards {
                cluster.hears(gateway, shard).await?;
            }
        }
        Ok(cluster)
    }

    /// Where logs, configurations and data are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder behind for a look, and returns it.
    pub fn keep(&self) -> PathBuf {
        self.is_kept.store(true, Ordering::Relaxed);
        self.folder.path().to_owned()
    }

    /// Returns the index of the shard that has a feed.
    #[must_use]
    pub fn owner(&self, feed: &str) -> usize {
        self.topology.owner(feed)
    }

    /// Returns the shard that has a feed.
    #[must_use]
    pub fn shard(&self, feed: &str) -> &Redis {
        &self.shards[self.owner(feed)]
    }

    /// Opens a router of our own scripts on these shards.
    #[must_use]
    pub fn router(&self) -> Router {
        Router::open(self.topology.clone())
    }

    /// Waits until a gateway says that it hears a shard.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError::NotReady`] when it does not in time.
    pub async fn hears(&self, gateway: &Gateway, shard: &Redis) -> Result<(), ClusterError> {
        let metric = format!("gateway_shard_up{{shard=\"{}\"}}", shard.name());
        let patience = Patience::with(format!("{} hearing {}", gateway.name(), shard.name()));
        loop {
            let metrics = gateway.metrics().await.unwrap_or_default();
            if metrics.get(&metric) == Some(&1.0) {
                return Ok(());
            }
            patience.wait().await?;
        }
    }

    /// Writes a session as express-session with connect-redis does.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError::Redis`] when the store is away.
    pub async fn put_session(
        &self,
        id: &str,
        user: &str,
        teams: &[String],
    ) -> Result<(), ClusterError> {
        let session = json!({
            "cookie": { "originalMaxAge": null, "expires": null, "httpOnly": true, "path": "/" },
            "user": { "id": user, "teams": teams },
        });
        let mut set = ::redis::cmd("SET");
        set.arg(format!("sess:{id}")).arg(session.to_string());
        Ok(self.sessions.say(&set).await?)
    }

    /// Takes a session away, as a log-out does.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError::Redis`] when the store is away.
    pub async fn drop_session(&self, id: &str) -> Result<(), ClusterError> {
        let mut del = ::redis::cmd("DEL");
        del.arg(format!("sess:{id}"));
        Ok(self.sessions.say(&del).await?)
    }

    /// Tells all gateways something, by every shard that can be reached.
    ///
    /// # Errors
    ///
    /// Returns what the last shard said when none could be reached.
    pub async fn control(&self, message: &Value) -> Result<(), ClusterError> {
        let mut message = message.clone();
        // What makes a gateway that hears it by several shards carry it out once.
        message["id"] = format!("{:032x}", rand::random::<u128>()).into();
        let mut publish = ::redis::cmd("PUBLISH");
        publish.arg("gateway.control").arg(message.to_string());
        let mut said: Vec<BoxFuture<'_, _>> = Vec::new();
        for shard in &self.shards {
            said.push(shard.say::<u64>(&publish).boxed());
        }
        let mut failed = None;
        for outcome in join_all(said).await {
            match outcome {
                Ok(_) => return Ok(()),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Lets everything run again that was stopped, and starts again what was killed.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError`] when something does not come up.
    pub async fn heal(&self) -> Result<(), ClusterError> {
        self.sessions.heal().await?;
        for shard in &self.shards {
            shard.heal().await?;
        }
        for gateway in &self.gateways {
            gateway.heal().await?;
        }
        Ok(())
    }
}

/// Finds the gateway's program: `PNEUMATIC_GATEWAY`, or the one built beside this program.
///
/// # Errors
///
/// Returns [`ClusterError::NotReady`] when it is not built.
pub fn built_gateway() -> Result<PathBuf, ClusterError> {
    if let Some(named) = std::env::var_os("PNEUMATIC_GATEWAY") {
        return Ok(named.into());
    }
    let own = std::env::current_exe().unwrap_or_default();
    // A test's own program is one folder further down.
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("gateway"));
    beside.into_iter().find(|program| program.is_file()).ok_or_else(|| {
        ClusterError::NotReady(format!("the gateway beside {} (not built?)", own.display()))
    })
}

/// Returns the header `Cookie` by which a session is found.
#[must_use]
pub fn cookie(session: &str) -> String {
    format!("{COOKIE}={}", cookies::signed(session, SECRET))
}

fn topology(shards: &[Redis], url: impl Fn(&Redis) -> String) -> Result<Topology, ClusterError> {
    let node =
        |shard: &Redis| ShardNode { name: shard.name().to_owned(), url: url(shard), weight: 1 };
    let nodes: Vec<_> = shards.iter().map(node).collect();
    Topology::from_nodes(0, &nodes).map_err(ClusterError::Topology)
}

/// The time in which something has to come to be.
#[derive(Debug)]
struct Patience {
    what: String,
    deadline: Instant,
}

impl Patience {
    fn with(what: impl Into<String>) -> Self {
        Self { what: what.into(), deadline: Instant::now() + PATIENCE }
    }

    /// Waits until the next look.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError::NotReady`] when the time is over.
    async fn wait(&self) -> Result<(), ClusterError> {
        if Instant::now() > self.deadline {
            return Err(ClusterError::NotReady(self.what.clone()));
        }
        sleep(LOOK).await;
        Ok(())
    }
}
