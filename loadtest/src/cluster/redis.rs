//! One `redis-server`, in a folder and on a port of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, RedisError, RedisResult,
    aio::MultiplexedConnection,
};
use tokio::sync::Mutex;

use super::{
    ClusterError, Patience,
    process::{Process, Signal, free_port},
};

/// The ACL user that the gateways are, so that something can be denied to them alone.
pub const GATEWAY: &str = "gateway";
/// How long one command may take.
const ANSWER: Duration = Duration::from_secs(2);

/// A server and one connection to it that is made anew when it broke.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
    folder: PathBuf,
    /// Held to take or replace the connection, never while a command runs.
    connection: Mutex<Option<MultiplexedConnection>>,
    client: Client,
}

impl Redis {
    /// Starts a server and waits until it answers; with `keeps` it writes an append-only file.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError`] when it does not come up.
    pub async fn start(name: &str, folder: &Path, keeps: bool) -> Result<Self, ClusterError> {
        let port = free_port();
        let own = folder.join(name);
        let redis = Self {
            process: Process::new(name, folder),
            port,
            client: Client::open(format!("redis://127.0.0.1:{port}"))?,
            folder: own,
            connection: Mutex::default(),
        };
        let appends = if keeps { "yes" } else { "no" };
        let config = format!(
            "port {port}\nbind 127.0.0.1\nsave \"\"\ndaemonize no\ndir \"{}\"\n\
             appendonly {appends}\nappendfsync everysec\n\
             user {GATEWAY} on >{GATEWAY} ~* &* +@all\n",
            redis.data().display(),
        );
        let file = redis.config();
        fs::create_dir_all(redis.data())
            .and_then(|()| fs::write(&file, config))
            .map_err(|source| ClusterError::File { path: file, source })?;
        redis.restart().await?;
        Ok(redis)
    }

    /// Returns its name, which is also its place on the ring.
    #[must_use]
    pub fn name(&self) -> &str {
        self.process.name()
    }

    /// Returns the process, to stop it or let it run.
    #[must_use]
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// Returns its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns its address for the gateways, which are a user of their own.
    #[must_use]
    pub fn gateway_url(&self) -> String {
        format!("redis://{GATEWAY}:{GATEWAY}@127.0.0.1:{}", self.port)
    }

    /// Kills it as a power cut would.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again after [`Self::kill`] and waits until it has read its data.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError`] when it does not come up.
    pub async fn restart(&self) -> Result<(), ClusterError> {
        self.process.start(Command::new("redis-server").arg(self.config()))?;
        let patience = Patience::with(self.name());
        while !self.is_ours().await {
            self.process.alive()?;
            patience.wait().await?;
        }
        Ok(())
    }

    /// Starts it again after [`Self::kill`] as a new one that holds nothing.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError`] when it does not come up.
    pub async fn restart_empty(&self) -> Result<(), ClusterError> {
        let data = self.data();
        fs::remove_dir_all(&data)
            .and_then(|()| fs::create_dir_all(&data))
            .map_err(|source| ClusterError::File { path: data, source })?;
        self.restart().await
    }

    /// Lets it run if it was stopped, starts it if it was killed, and waits until it answers.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError`] when it does not come up.
    pub async fn heal(&self) -> Result<(), ClusterError> {
        self.process.signal(Signal::Continue);
        self.restart().await
    }

    /// Carries out one command.
    ///
    /// # Errors
    ///
    /// Returns what Redis or the connection says.
    pub async fn say<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let mut connection = self.connection().await?;
        let answer = command.query_async(&mut connection).await;
        self.judge(answer).await
    }

    /// Carries out several commands in one go; as a transaction where the pipeline is atomic.
    ///
    /// # Errors
    ///
    /// Returns what Redis or the connection says.
    pub async fn pipe<T: FromRedisValue>(&self, commands: &Pipeline) -> RedisResult<T> {
        let mut connection = self.connection().await?;
        let answer = commands.query_async(&mut connection).await;
        self.judge(answer).await
    }

    async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = &*slot {
            return Ok(connection.clone());
        }
        let bounds = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER));
        let connection = self.client.get_multiplexed_async_connection_with_config(&bounds).await?;
        Ok(slot.insert(connection).clone())
    }

    /// Forgets a connection that broke, so that the next command makes one.
    async fn judge<T>(&self, answer: RedisResult<T>) -> RedisResult<T> {
        let is_broken = |error: &RedisError| error.is_unrecoverable_error() || error.is_timeout();
        if answer.as_ref().is_err_and(is_broken) {
            *self.connection.lock().await = None;
        }
        answer
    }

    /// Tells whether this very process answers, and not another that took the port.
    async fn is_ours(&self) -> bool {
        let Ok(info) = self.say::<String>(redis::cmd("INFO").arg("server")).await else {
            return false;
        };
        let id = self.process.id().unwrap_or_default();
        info.contains(&format!("process_id:{id}\r\n"))
            && self.say::<u64>(&redis::cmd("DBSIZE")).await.is_ok()
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn config(&self) -> PathBuf {
        self.folder.join("redis.conf")
    }
}
