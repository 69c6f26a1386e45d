//! The configuration: read once, typed at once, every mistake reported together.
//!
//! Three layers: the defaults beside each section, a TOML file, and the environment
//! (`GATEWAY__SECTION__KEY`). `assets/default.toml` names every option.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use shard_router::topology::Topology;

pub use self::{
    mistakes::{Mistake, Mistakes},
    schema::Schema,
    values::{Cidr, RedisUrl, Secret},
};
use crate::tree::{Allow, Tree};

mod jobs;
mod layers;
mod limits;
mod mistakes;
mod read;
mod schema;
mod sections;
mod session;
mod tree;
mod values;

/// Everything a gateway is told before it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// The public listener.
    pub server: Server,
    /// The listener for operators and backends.
    pub admin: Admin,
    /// How a cookie becomes a user.
    pub session: SessionConfig,
    /// Where the feeds are.
    pub shards: Topology,
    /// The file that says so, which is watched for a new version.
    pub topology_file: Option<PathBuf>,
    /// What a session's state is made of.
    pub tree: Tree,
    /// The calls that become jobs, by the name of their event.
    pub jobs: BTreeMap<String, Job>,
    /// What `subscribe` may name.
    pub subscribe: Allow,
    /// The built-in worker's queues.
    pub edits: Edits,
    /// Where other backends emit from.
    pub emitter: Emitter,
    /// How feeds are held in memory.
    pub mirror: MirrorConfig,
    /// How a gateway stops.
    pub drain: DrainConfig,
    /// What one client, and all of them, may ask for.
    pub limits: Limits,
    /// Whether no file was given: the demo, and the worker in this process.
    pub embedded: bool,
    /// What is allowed and yet odd; one sentence each, for the log.
    pub warnings: Vec<String>,
}

/// `[server]`: the public listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// What speaks socket.io.
    pub engine: Engine,
    /// The gateway's name among its like: letters and digits.
    pub node: String,
    /// Foreign origins that browsers may come from, as browsers write them; perhaps `null`.
    pub origins: Vec<String>,
    /// Who may say for whom a request is made.
    pub trusted_proxies: Vec<Cidr>,
    /// Whether a request without Origin is refused.
    pub require_origin: bool,
    /// Which client `/socket.io/socket.io.js` is.
    pub client: Client,
    /// Between pings; each generation's own where it is not set.
    pub ping_interval: Option<Duration>,
    /// How long a pong may take; each generation's own where it is not set.
    pub ping_timeout: Option<Duration>,
}

/// What speaks socket.io.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Ours.
    Pneumatic,
    /// The library socketioxide.
    Socketioxide,
}

/// A generation of the socket.io client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// 1.x.
    V1,
    /// 2.x.
    V2,
    /// 3.x.
    V3,
    /// 4.x.
    V4,
}

/// `[admin]`: the listener for operators and backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What a request must bear; without one, everybody on this machine is let in.
    pub token: Option<Secret>,
}

/// `[session]`: how a cookie becomes a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// Who made the cookie.
    pub format: SessionFormat,
    /// The cookie's name.
    pub cookie: String,
    /// What it may be signed with, newest first.
    pub secrets: Vec<Secret>,
    /// The Redis in which sessions are kept.
    pub store: RedisUrl,
    /// What stands before a session's id in the store.
    pub prefix: String,
    /// The JSON pointer to the user's id in a session.
    pub user: String,
    /// The JSON pointer to the list of teams in a session.
    pub teams: String,
    /// How often the sessions of living sockets are looked at again.
    pub recheck: Duration,
}

/// Who made the cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionFormat {
    /// express-session, with the store connect-redis.
    Express,
    /// Anybody who says a demo user's name.
    Demo,
}

/// `[jobs.NAME]`: a call that becomes a job.
#[derive(Debug, Clone)]
pub struct Job {
    /// The Thoonk job queue; with several partitions, what their names begin with.
    pub queue: String,
    /// What the call's data must be; without one, any object.
    pub schema: Option<Schema>,
    /// How long a client waits for the result.
    pub timeout: Duration,
    /// How many jobs may wait in one queue.
    pub max_queued: usize,
    /// Over how many queues users are spread.
    pub partitions: NonZeroU32,
}

/// `[edits]`: the built-in worker's queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edits {
    /// What the queues' names begin with; they are `QUEUE.0`, `QUEUE.1`, ….
    pub queue: String,
    /// How many queues there are.
    pub partitions: NonZeroU32,
    /// How long a client waits, and after which an edit is not applied any more.
    pub timeout: Duration,
}

impl Job {
    /// Lists the queues, one for each partition.
    #[must_use]
    pub fn queues(&self) -> Vec<String> {
        match self.partitions.get() {
            1 => vec![self.queue.clone()],
            many => (0..many).map(|number| format!("{}.{number}", self.queue)).collect(),
        }
    }
}

impl Edits {
    /// Lists the queues, one for each partition; numbered even if there is one.
    #[must_use]
    pub fn queues(&self) -> Vec<String> {
        (0..self.partitions.get()).map(|number| format!("{}.{number}", self.queue)).collect()
    }
}

/// `[emitter]`: backends that emit as with the official Redis emitter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Emitter {
    /// The Redis that they publish to; without one, nobody is heard.
    pub url: Option<RedisUrl>,
}

/// `[mirror]`: how feeds are held in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorConfig {
    /// What all mirrors together may take.
    pub max_bytes: usize,
    /// What one feed may take.
    pub max_feed_bytes: usize,
    /// How long a mirror stays after its last listener.
    pub linger: Duration,
    /// How long after a write two writers' notices may still come in the wrong order.
    pub settle: Duration,
    /// How often each mirror is compared with its shard, at least.
    pub verify_every: Duration,
}

/// `[drain]`: how a gateway stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainConfig {
    /// How long balancers have to notice that it is not ready.
    pub notice: Duration,
    /// Over how long its clients are sent away.
    pub spread: Duration,
    /// When it exits at the latest.
    pub deadline: Duration,
}

/// `[limits]`: what one client, and all of them, may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Clients at a time.
    pub max_connections: Option<usize>,
    /// Clients at a time that have not joined their namespace yet.
    pub max_pending: Option<usize>,
    /// Clients of one user at a time.
    pub max_connections_per_user: Option<usize>,
    /// Clients of one address at a time; of IPv6, of one network of 64 bits.
    pub max_connections_per_ip: Option<usize>,
    /// New clients in a second.
    pub handshakes_per_second: Option<u32>,
    /// Messages of one client in a second.
    pub messages_per_second: Option<u32>,
    /// Feeds that one client subscribes to by name.
    pub max_subscriptions: Option<usize>,
    /// Bytes of events and acks that may wait for one client.
    pub outbox_bytes: usize,
    /// How long nothing may be written to a client for whom something waits.
    pub stall: Duration,
    /// How long a client may take from its handshake to its namespace, and a connection to ask.
    pub connect_timeout: Duration,
    /// The longest message that a client may send.
    pub max_message_bytes: usize,
    /// The longest item that our writers write.
    pub max_item_bytes: usize,
}

impl Config {
    /// Reads the defaults, the file and the environment, the later over the earlier.
    ///
    /// Without a file the first layer is the embedded default: demo users, a shard in
    /// this process, and listeners that only this machine reaches. Paths in a file are
    /// relative to its folder.
    ///
    /// # Errors
    ///
    /// Returns every mistake there is, each with its place.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Mistakes> {
        let Some(path) = file else {
            return Self::read(include_str!("../assets/embedded.toml"), Path::new("."), true, env);
        };
        let text =
            std::fs::read_to_string(path).map_err(|error| Mistakes::unreadable(path, &error))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::read(&text, folder, false, env)
    }

    /// Returns the text of a file that names every option with its default.
    #[must_use]
    pub const fn default_reference() -> &'static str {
        include_str!("../assets/default.toml")
    }

    fn read(
        text: &str,
        folder: &Path,
        embedded: bool,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Mistakes> {
        let layers = layers::Layers::new(text, embedded, env)?;
        sections::config(&layers, folder, embedded)
    }
}

#[cfg(test)]
mod tests;
