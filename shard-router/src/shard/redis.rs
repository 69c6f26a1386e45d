//! A shard that is one Redis server.
//!
//! Commands go over fred, many callers on one connection. Subscriptions and waiting have
//! connections of their own, because fred confirms no subscription and a blocked connection
//! is no use to others.
//!
//! fred is used without its reconnecting: a command that waits in its queue for a connection
//! may run much later, and a server that hangs under steady traffic never looks unresponsive
//! to it. A task of ours watches one connection after the other instead.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    sync::{
        Arc, OnceLock, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fred::{
    clients::Client,
    error::{Error as FredError, ErrorKind},
    interfaces::ClientLike,
    types::{
        Builder, ClusterHash, ConnectHandle, CustomCommand, Resp3Frame, RespVersion,
        Value as FredValue,
        config::{Config, ServerConfig, TcpConfig},
    },
};
use futures_util::future::BoxFuture;
use sha1::{Digest, Sha1};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};
use tracing::{debug, info, warn};

use crate::{
    shard::{Heard, Link, Script, Shard, ShardError, Value, Waiter, backoff::Backoff, subscriber},
    topology::RedisUrl,
};

mod connection;
mod waiter;
mod wire;

/// How long connecting may take, and then the greeting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a script may take, its way in the queue included.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a connection is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(1);

/// How many commands may wait to be written; more is a shard that cannot keep up.
const QUEUE: usize = 16_384;

/// The name of the connection in CLIENT LIST.
const NAME: &str = "pneumatic-cmd";

/// A shard that is one Redis server, version 6.2 or later.
pub struct RedisShard {
    name: Arc<str>,
    address: Arc<RedisUrl>,
    state: watch::Receiver<State>,
    /// Scripts as they are sent, by the digest of their text; written once per script.
    wrapped: RwLock<HashMap<&'static str, Arc<Wrapped>>>,
    _closed_on_drop: DropGuard,
}

impl fmt::Debug for RedisShard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RedisShard")
            .field("name", &self.name)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl RedisShard {
    /// Names a shard and starts to connect, again and again until the shard is dropped.
    ///
    /// It never waits and never fails: while the server is away, commands are answered with
    /// [`ShardError::Away`] at once, and they work again when it is back. Only before the
    /// first attempt has ended do they wait for it.
    ///
    /// # Panics
    ///
    /// Panics outside of a Tokio runtime.
    #[must_use]
    pub fn new(name: &str, address: RedisUrl) -> Self {
        let name: Arc<str> = name.into();
        let address = Arc::new(address);
        let (says, state) = watch::channel(State::First);
        let closed = CancellationToken::new();
        let keeper = Keeper { name: name.clone(), address: address.clone(), says };
        let is_closed = closed.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = is_closed.cancelled() => {}
                never = keeper.run() => match never {},
            }
        });
        Self {
            name,
            address,
            state,
            wrapped: RwLock::default(),
            _closed_on_drop: closed.drop_guard(),
        }
    }

    async fn run(
        &self,
        script: &'static Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> Result<Value, ShardError> {
        let live = self.live().await?;
        let wrapped = self.wrap(script);
        let call = |first: &str| {
            let words = [Bytes::copy_from_slice(first.as_bytes()), keys.len().to_string().into()];
            let words = words.into_iter().chain(keys.iter().cloned()).chain(args.iter().cloned());
            words.map(FredValue::Bytes).collect::<Vec<_>>()
        };
        let mut reply = self.ask(&live, "EVALSHA", call(&wrapped.digest)).await?;
        if error_of(&reply).is_some_and(|error| error.starts_with("NOSCRIPT")) {
            // EVAL loads it too, so that no flush can come between.
            reply = self.ask(&live, "EVAL", call(&wrapped.text)).await?;
        }
        if let Some(error) = error_of(&reply) {
            if error.starts_with("READONLY") {
                // The name may lead to another server by now.
                live.give_up(error.to_owned());
            }
            return Err(server_error(&self.name, error));
        }
        unwrap(reply).ok_or_else(|| ShardError::Refused {
            shard: self.name.clone(),
            reason: format!("script `{}` returned what the contract does not know", script.name()),
        })
    }

    /// Finds the connection, or why there is none.
    async fn live(&self) -> Result<Arc<Live>, ShardError> {
        let mut state = self.state.clone();
        let state = state.wait_for(|state| !matches!(state, State::First)).await;
        match state.as_deref() {
            Ok(State::Up(live)) => Ok(live.clone()),
            Ok(State::Away(reason)) => Err(self.away(reason.clone())),
            Ok(State::First) | Err(_) => Err(self.away("the program ends".to_owned())),
        }
    }

    async fn ask(
        &self,
        live: &Live,
        command: &'static str,
        words: Vec<FredValue>,
    ) -> Result<Resp3Frame, ShardError> {
        tokio::select! {
            biased;
            reply = live.ask(command, words) => reply.map_err(|error| match error.kind() {
                ErrorKind::Timeout => {
                    ShardError::Timeout { shard: self.name.clone(), after: COMMAND_TIMEOUT }
                }
                ErrorKind::Backpressure => self.away("too many commands wait".to_owned()),
                _ => self.away(error.to_string()),
            }),
            () = live.broken.cancelled() => Err(self.away(live.reason())),
        }
    }

    fn away(&self, reason: String) -> ShardError {
        ShardError::Away { shard: self.name.clone(), reason }
    }

    fn wrap(&self, script: &'static Script) -> Arc<Wrapped> {
        let wrapped = self.wrapped.read().expect("no holder of this lock panics");
        if let Some(wrapped) = wrapped.get(script.digest()) {
            return wrapped.clone();
        }
        drop(wrapped);
        let wrapped = Arc::new(Wrapped::new(script.text()));
        let mut all = self.wrapped.write().expect("no holder of this lock panics");
        all.insert(script.digest(), wrapped.clone());
        wrapped
    }
}

impl Shard for RedisShard {
    fn eval<'a>(
        &'a self,
        script: &'static Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> BoxFuture<'a, Result<Value, ShardError>> {
        Box::pin(self.run(script, keys, args))
    }

    fn waiter(&self) -> Box<dyn Waiter> {
        Box::new(waiter::RedisWaiter::new(self.name.clone(), self.address.clone()))
    }

    fn link(&self, index: usize, heard: mpsc::Sender<(usize, Heard)>) -> Link {
        subscriber::drive(wire::RedisDial(self.address.clone()), self.name.clone(), index, heard)
    }
}

/// A script in the form in which it is sent: its result stands behind a zero in a table.
///
/// fred takes a reply for a published message, and answers the next command with the next
/// reply, when it is a table that begins with a word such as `message` or `subscribe`. An id
/// that a user chose could be such a word; a table that begins with a number never is.
#[derive(Debug)]
struct Wrapped {
    text: String,
    digest: String,
}

impl Wrapped {
    fn new(text: &str) -> Self {
        // On the first line nothing but the head is added, so that errors name the right line.
        let text = format!(
            "local result = (function() {text}\nend)()\n\
             if type(result) == 'table' and result.err then return result end\n\
             return {{0, result}}"
        );
        let digest = Sha1::digest(text.as_bytes());
        let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { text, digest }
    }
}

/// Takes the result out of what a [`Wrapped`] script returned.
fn unwrap(reply: Resp3Frame) -> Option<Value> {
    let Resp3Frame::Array { data, .. } = reply else { return None };
    let mut parts = data.into_iter();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Resp3Frame::Number { data: 0, .. }), Some(result), None) => value(result),
        // A table ends at its first nil.
        (Some(Resp3Frame::Number { data: 0, .. }), None, None) => Some(Value::Nil),
        _ => None,
    }
}

fn value(frame: Resp3Frame) -> Option<Value> {
    match frame {
        Resp3Frame::Null | Resp3Frame::Boolean { data: false, .. } => Some(Value::Nil),
        Resp3Frame::Boolean { data: true, .. } => Some(Value::Int(1)),
        Resp3Frame::Number { data, .. } => Some(Value::Int(data)),
        Resp3Frame::BlobString { data, .. } | Resp3Frame::SimpleString { data, .. } => {
            Some(Value::Bytes(data))
        }
        Resp3Frame::Array { data, .. } => {
            data.into_iter().map(value).collect::<Option<_>>().map(Value::Array)
        }
        _ => None,
    }
}

fn error_of(frame: &Resp3Frame) -> Option<&str> {
    match frame {
        Resp3Frame::SimpleError { data, .. } => Some(data),
        Resp3Frame::BlobError { data, .. } => {
            Some(std::str::from_utf8(data).unwrap_or("an error that is not UTF-8"))
        }
        _ => None,
    }
}

/// Tells by its first word what an error of a server means to us.
fn server_error(shard: &Arc<str>, error: &str) -> ShardError {
    let shard = shard.clone();
    let reason = error.to_owned();
    match error.split_whitespace().next().unwrap_or_default() {
        "WRONGTYPE" => ShardError::WrongType { shard, reason },
        "LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY"
        | "UNKILLABLE" | "UNBLOCKED" | "OOM" | "MISCONF" | "NOREPLICAS" => {
            ShardError::Away { shard, reason }
        }
        _ => ShardError::Refused { shard, reason },
    }
}

/// What is known about the connection for commands.
#[derive(Debug)]
enum State {
    /// The first attempt has not ended.
    First,
    Up(Arc<Live>),
    /// There is none; why.
    Away(String),
}

/// One connection for commands.
struct Live {
    client: Client,
    /// Cancelled when it is given up: who waits for an answer need not wait for the time-out.
    broken: CancellationToken,
    reason: OnceLock<String>,
    /// How many answers came, to tell a slow server from a dead one.
    answers: AtomicU64,
}

impl fmt::Debug for Live {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Live").field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl Live {
    async fn ask(
        &self,
        command: &'static str,
        words: Vec<FredValue>,
    ) -> Result<Resp3Frame, FredError> {
        let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
        let reply = self.client.custom_raw(command, words).await?;
        self.answers.fetch_add(1, Ordering::Relaxed);
        Ok(reply)
    }

    fn give_up(&self, reason: String) {
        // The first reason is the one that counts.
        let _ = self.reason.set(reason);
        self.broken.cancel();
    }

    fn reason(&self) -> String {
        self.reason.get().cloned().unwrap_or_else(|| "the connection broke".to_owned())
    }

    /// Returns when the connection is of no use any more.
    async fn watch(&self, mut task: AbortOnDropHandle<Result<(), FredError>>) {
        tokio::select! {
            () = self.broken.cancelled() => {}
            ended = &mut task => self.give_up(match ended {
                Ok(Ok(())) => "the connection was closed".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            }),
            () = self.unanswered_ping() => {
                self.give_up(format!("no answer to anything for {COMMAND_TIMEOUT:?}"));
            }
        }
    }

    /// Returns when nothing at all was answered while a ping waited.
    async fn unanswered_ping(&self) {
        loop {
            sleep(PING_EVERY).await;
            let before = self.answers.load(Ordering::Relaxed);
            let ping = self.ask("PING", Vec::new()).await;
            let is_late = ping.is_err_and(|error| *error.kind() == ErrorKind::Timeout);
            if is_late && self.answers.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

/// Makes one connection after the other.
struct Keeper {
    name: Arc<str>,
    address: Arc<RedisUrl>,
    says: watch::Sender<State>,
}

impl Keeper {
    async fn run(self) -> Infallible {
        let mut backoff = Backoff::new();
        let mut last_failure = String::new();
        loop {
            match self.connect().await {
                Ok((live, task)) => {
                    info!(shard = %self.name, address = ?self.address, "Shard is connected.");
                    last_failure.clear();
                    let since = Instant::now();
                    let live = Arc::new(live);
                    self.says.send_replace(State::Up(live.clone()));
                    live.watch(task).await;
                    let reason = live.reason();
                    warn!(shard = %self.name, %reason, "Shard is lost; will reconnect.");
                    self.says.send_replace(State::Away(reason));
                    backoff.lived(since.elapsed());
                }
                Err(reason) => {
                    if reason == last_failure {
                        debug!(shard = %self.name, %reason, "Shard is still away.");
                    } else {
                        warn!(shard = %self.name, %reason, "Shard is away; will retry.");
                        last_failure.clone_from(&reason);
                    }
                    self.says.send_replace(State::Away(reason));
                }
            }
            sleep(backoff.wait()).await;
        }
    }

    async fn connect(&self) -> Result<(Live, AbortOnDropHandle<Result<(), FredError>>), String> {
        let RedisUrl { host, port, username, password, db } = &*self.address;
        let config = Config {
            server: ServerConfig::new_centralized(host.as_str(), *port),
            username: username.clone(),
            password: password.clone(),
            database: (*db != 0).then_some(*db),
            // In RESP2 fred alters nested tables that look like messages.
            version: RespVersion::RESP3,
            // The first attempt decides; the next one is ours.
            fail_fast: true,
            ..Config::default()
        };
        let client = Builder::from_config(config)
            .with_performance_config(|performance| {
                performance.default_command_timeout = COMMAND_TIMEOUT;
            })
            .with_connection_config(|connection| {
                connection.connection_timeout = CONNECT_TIMEOUT;
                connection.internal_command_timeout = CONNECT_TIMEOUT;
                // A script that may have run is not run again.
                connection.max_command_attempts = 1;
                connection.max_command_buffer_len = QUEUE;
                connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
            })
            .build()
            .map_err(|error| error.to_string())?;
        // Both of fred's own limits are inside of this one.
        let task: ConnectHandle = timeout(CONNECT_TIMEOUT * 3, client.init())
            .await
            .map_err(|_| "no connection in time".to_owned())?
            .map_err(|error| error.to_string())?;
        let live = Live {
            client,
            broken: CancellationToken::new(),
            reason: OnceLock::new(),
            answers: AtomicU64::new(0),
        };
        // For operators only; a user who may not do this is good all the same.
        let name =
            ["SETNAME", NAME].map(|word| FredValue::Bytes(Bytes::from_static(word.as_bytes())));
        let _ = live.ask("CLIENT", name.into()).await;
        Ok((live, AbortOnDropHandle::new(task)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: &str, is_expected: fn(&ShardError) -> bool) {
        let found = server_error(&"shard-01".into(), error);
        assert!(is_expected(&found), "{error} became {found:?}");
    }

    #[test]
    fn errors_of_the_server_are_told_apart_by_their_first_word() {
        check("WRONGTYPE Operation against a key", |it| matches!(it, ShardError::WrongType { .. }));
        for error in [
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "MASTERDOWN Link with MASTER is down",
            "CLUSTERDOWN The cluster is down",
            "BUSY Redis is busy running a script.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "MISCONF Redis is configured to save RDB snapshots",
        ] {
            check(error, ShardError::is_away);
        }
        for error in ["NOPERM no permissions", "ERR user_script:1: boom", "odd", ""] {
            check(error, |it| matches!(it, ShardError::Refused { .. }));
        }
    }
}
