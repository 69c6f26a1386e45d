//! The in-process shard: a keyspace, a broker and the same Lua scripts, in this process.
//!
//! It keeps the promises that a Redis keeps and that others rely on: a script is one
//! step, notices come in the order of execution, equal scores are told apart by bytes, a
//! listener that reads too slowly is cut off. For a first run, and for tests, which find
//! here what is hard to do to a real server at the right moment.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{
    sync::mpsc,
    task::yield_now,
    time::{Instant, timeout_at},
};

use super::{
    Heard, Link, Script, Shard, ShardError, Value, Waiter,
    subscriber::{self, Dial, Said, Wire},
};

mod broker;
mod engine;
mod keyspace;
mod reply;
mod zset;

use broker::Mailbox;
use engine::Engine;
use keyspace::Keyspace;
use reply::Reply;

/// What a listener may leave unread, as Redis's `client-output-buffer-limit pubsub`.
pub const BUFFER_LIMIT: usize = 32 << 20;

/// A shard in this process; clones are the same shard.
#[derive(Clone)]
pub struct MemoryShard {
    inner: Arc<Inner>,
}

impl fmt::Debug for MemoryShard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("MemoryShard").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

struct Inner {
    name: Arc<str>,
    /// Held for one script or command, never across an await: this is what makes them atomic.
    state: Mutex<State>,
}

struct State {
    engine: Engine,
    away: bool,
}

impl MemoryShard {
    /// Makes an empty shard of this name.
    ///
    /// # Panics
    ///
    /// Panics if no Lua state can be made, for want of memory.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let engine = Engine::new().expect("a Lua state needs nothing but memory");
        let state = Mutex::new(State { engine, away: false });
        Self { inner: Arc::new(Inner { name: name.into(), state }) }
    }

    /// Runs one plain command, as another client might.
    ///
    /// # Errors
    ///
    /// Returns [`ShardError`] when the shard is away, or refuses as Redis would.
    pub fn raw(&self, command: &[impl AsRef<[u8]>]) -> Result<Value, ShardError> {
        let command: Vec<Bytes> =
            command.iter().map(|word| Bytes::copy_from_slice(word.as_ref())).collect();
        let state = self.inner.present()?;
        let reply = state.engine.keyspace().execute(&command);
        self.inner.value(reply)
    }

    /// Forgets every key.
    pub fn flush(&self) {
        self.inner.lock().engine.keyspace().flush();
    }

    /// Breaks every subscription connection, as a network does.
    pub fn drop_connections(&self) {
        self.inner.lock().engine.keyspace().broker.drop_all("the connection was dropped");
    }

    /// Makes the shard go away, with all its connections, or come back with its keys.
    pub fn set_away(&self, away: bool) {
        let mut state = self.inner.lock();
        state.away = away;
        let mut keyspace = state.engine.keyspace();
        if away {
            keyspace.broker.drop_all("the server went away");
        }
        keyspace.wake_all();
    }

    /// Delays whatever a subscription connection is told from now on.
    pub fn lag(&self, lag: Duration) {
        self.inner.lock().engine.keyspace().broker.lag = lag;
    }

    /// Sets how many bytes a listener may leave unread before it is cut off.
    pub fn set_buffer_limit(&self, bytes: usize) {
        self.inner.lock().engine.keyspace().broker.limit = bytes;
    }

    /// Refuses SUBSCRIBE for this channel, as an ACL does.
    pub fn deny_channel(&self, channel: impl Into<Bytes>) {
        self.inner.lock().engine.keyspace().broker.denied.insert(channel.into());
    }

    /// Lets this channel be subscribed again.
    pub fn grant_channel(&self, channel: &[u8]) {
        self.inner.lock().engine.keyspace().broker.denied.remove(channel);
    }

    /// Makes the present subscription connections deaf: they answer, but hear nothing more.
    pub fn deafen_connections(&self) {
        self.inner.lock().engine.keyspace().broker.deafen_all();
    }

    /// Lets nothing that is published reach anybody, or lets it again.
    pub fn set_muted(&self, muted: bool) {
        self.inner.lock().engine.keyspace().broker.muted = muted;
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Locks a shard that is not away.
    fn present(&self) -> Result<MutexGuard<'_, State>, ShardError> {
        let state = self.lock();
        if state.away { Err(self.away()) } else { Ok(state) }
    }

    fn away(&self) -> ShardError {
        ShardError::Away { shard: self.name.clone(), reason: "it was told to be".to_owned() }
    }

    fn value(&self, reply: Reply) -> Result<Value, ShardError> {
        reply.into_value().map_err(|reason| {
            let shard = self.name.clone();
            if reason.starts_with("WRONGTYPE") {
                ShardError::WrongType { shard, reason }
            } else {
                ShardError::Refused { shard, reason }
            }
        })
    }
}

impl Shard for MemoryShard {
    fn eval<'a>(
        &'a self,
        script: &'static Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> BoxFuture<'a, Result<Value, ShardError>> {
        Box::pin(async move {
            // Others get their turn, as they do while a server is asked.
            yield_now().await;
            let reply = self.inner.present()?.engine.eval(script, &keys, &args);
            self.inner.value(reply)
        })
    }

    fn waiter(&self) -> Box<dyn Waiter> {
        Box::new(MemoryWaiter(self.inner.clone()))
    }

    fn link(&self, index: usize, heard: mpsc::Sender<(usize, Heard)>) -> Link {
        subscriber::drive(MemoryDial(self.inner.clone()), self.inner.name.clone(), index, heard)
    }
}

struct MemoryWaiter(Arc<Inner>);

impl Waiter for MemoryWaiter {
    fn wait<'a>(
        &'a mut self,
        key: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<bool, ShardError>> {
        Box::pin(async move {
            let deadline = Instant::now() + timeout;
            loop {
                let filled = {
                    let state = self.0.present()?;
                    let mut keyspace = state.engine.keyspace();
                    match keyspace.execute(&[Bytes::from_static(b"LLEN"), key.clone()]) {
                        Reply::Int(0) => keyspace.filled(&key),
                        Reply::Int(_) => return Ok(true),
                        other => return self.0.value(other).map(|_| false),
                    }
                };
                if timeout_at(deadline, filled.wait()).await.is_err() {
                    return Ok(false);
                }
            }
        })
    }
}

struct MemoryDial(Arc<Inner>);

impl Dial for MemoryDial {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Wire>, String>> {
        Box::pin(async {
            let state = self.0.present().map_err(|away| away.to_string())?;
            let (number, mailbox) = state.engine.keyspace().broker.connect();
            let wire = MemoryWire { inner: self.0.clone(), number, mailbox };
            Ok(Box::new(wire) as Box<dyn Wire>)
        })
    }
}

/// One subscription connection.
struct MemoryWire {
    inner: Arc<Inner>,
    number: u64,
    mailbox: Arc<Mailbox>,
}

impl Wire for MemoryWire {
    fn subscribe<'a>(&'a mut self, channels: &'a [Bytes]) -> BoxFuture<'a, Result<(), String>> {
        self.inner.lock().engine.keyspace().broker.subscribe(self.number, channels);
        Box::pin(async { Ok(()) })
    }

    fn unsubscribe<'a>(&'a mut self, channels: &'a [Bytes]) -> BoxFuture<'a, Result<(), String>> {
        self.inner.lock().engine.keyspace().broker.unsubscribe(self.number, channels);
        Box::pin(async { Ok(()) })
    }

    fn ping(&mut self) -> BoxFuture<'_, Result<(), String>> {
        self.inner.lock().engine.keyspace().broker.pong(self.number);
        Box::pin(async { Ok(()) })
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Said, String>> {
        Box::pin(self.mailbox.next())
    }
}

impl Drop for MemoryWire {
    fn drop(&mut self) {
        self.inner.lock().engine.keyspace().broker.disconnect(self.number);
    }
}
