//! What one shard must offer, whatever it is made of.
//!
//! A shard executes scripts atomically, lets a worker wait for a list to fill, and
//! tells what was published on channels. Everything else is built on these three.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

mod backoff;
pub mod memory;
pub mod redis;
pub mod script;
pub mod subscriber;

pub use script::Script;
pub use subscriber::{Heard, Link};

/// A shard as the router sees it.
pub trait Shard: Send + Sync + fmt::Debug + 'static {
    /// Runs one script; nothing else happens on the shard meanwhile.
    ///
    /// # Errors
    ///
    /// Returns [`ShardError`] when the shard is away, refuses, or the script fails.
    /// After [`ShardError::Timeout`] or a connection lost midway the script may have run.
    fn eval<'a>(
        &'a self,
        script: &'static Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> BoxFuture<'a, Result<Value, ShardError>>;

    /// Opens a connection of its own on which one worker may block.
    fn waiter(&self) -> Box<dyn Waiter>;

    /// Opens a subscription connection that carries nothing else.
    ///
    /// What it hears is sent to `heard` with `index`, in the order of the shard.
    /// The connection heals itself until the [`Link`] is dropped.
    fn link(&self, index: usize, heard: mpsc::Sender<(usize, Heard)>) -> Link;
}

/// A connection that may block until a list has an element.
pub trait Waiter: Send {
    /// Waits until the list at `key` is not empty; `false` when `timeout` passed first.
    ///
    /// The list is left as it is: a claim is a script of its own, so that no crash
    /// between the two can lose a job.
    ///
    /// # Errors
    ///
    /// Returns [`ShardError`] when the shard is away or refuses.
    fn wait<'a>(
        &'a mut self,
        key: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<bool, ShardError>>;
}

/// What a script returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Lua `false` or `nil`.
    Nil,
    /// A whole number.
    Int(i64),
    /// A string or a status, byte for byte.
    Bytes(Bytes),
    /// A table.
    Array(Vec<Value>),
}

/// Why a shard did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ShardError {
    /// No connection, or it broke, or the server is loading or refuses for now.
    #[error("shard `{shard}` is away: {reason}")]
    Away {
        /// The logical name of the shard.
        shard: Arc<str>,
        /// What the connection or the server said.
        reason: String,
    },
    /// The shard did not answer in time.
    #[error("shard `{shard}` did not answer within {after:?}")]
    Timeout {
        /// The logical name of the shard.
        shard: Arc<str>,
        /// How long was waited.
        after: Duration,
    },
    /// A key holds another type than the contract says.
    #[error("shard `{shard}` holds a key of the wrong type: {reason}")]
    WrongType {
        /// The logical name of the shard.
        shard: Arc<str>,
        /// What the server said.
        reason: String,
    },
    /// The server or the script refused, or answered in a way the contract does not know.
    #[error("shard `{shard}` refused: {reason}")]
    Refused {
        /// The logical name of the shard.
        shard: Arc<str>,
        /// What the server said.
        reason: String,
    },
}

impl ShardError {
    /// Tells whether the shard may answer later, so that trying again makes sense.
    #[must_use]
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Timeout { .. })
    }
}
