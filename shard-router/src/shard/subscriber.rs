//! The subscription connection: confirm, keep, resubscribe, tell what was heard.
//!
//! One driver serves every kind of shard; what differs is the [`Wire`] below it.
//! Wanted channels are a set under one short lock, so that asking never waits and
//! the queue is bounded by the number of channels.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, mpsc};

/// What a subscription connection tells, in the order in which the shard did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Connected, and every wanted channel is confirmed by the server (again).
    Up,
    /// The connection is gone; whatever is published until the next `Up` is lost.
    Lost {
        /// What broke.
        reason: String,
    },
    /// Every channel of the [`Link::subscribe`] call with this ticket is confirmed or refused.
    Confirmed {
        /// The ticket that was given.
        ticket: u64,
    },
    /// The server refuses this channel (an ACL); it stays wanted and is tried again on reconnect.
    Refused {
        /// The channel.
        channel: Bytes,
        /// What the server said.
        error: String,
    },
    /// Something was published.
    Notice {
        /// The channel, byte for byte.
        channel: Bytes,
        /// The payload, byte for byte.
        payload: Bytes,
    },
}

/// The handle of a subscription connection; dropping it closes the connection.
#[derive(Debug)]
pub struct Link {
    pub(crate) shared: Arc<Shared>,
}

/// What the handle and the driver share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Held for a few map operations, never across an await: asking must not wait for the driver.
    pub(crate) wanted: Mutex<Wanted>,
    pub(crate) wake: Notify,
}

/// The channels that should be subscribed, and what changed since the driver looked.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) channels: HashMap<Bytes, usize>,
    pub(crate) changes: VecDeque<Change>,
    pub(crate) reset: Option<String>,
    pub(crate) closed: bool,
}

/// One thing the driver has to say to the server.
#[derive(Debug)]
pub(crate) enum Change {
    Subscribe { channels: Vec<Bytes>, ticket: u64 },
    Unsubscribe { channels: Vec<Bytes> },
}

impl Link {
    /// Wants these channels; [`Heard::Confirmed`] with `ticket` follows once the server has them all.
    ///
    /// A channel may be wanted several times and is left when it was unsubscribed as often.
    pub fn subscribe(&self, channels: Vec<Bytes>, ticket: u64) {
        let mut wanted = self.shared.wanted.lock().expect("no holder of this lock panics");
        for channel in &channels {
            *wanted.channels.entry(channel.clone()).or_default() += 1;
        }
        wanted.changes.push_back(Change::Subscribe { channels, ticket });
        drop(wanted);
        self.shared.wake.notify_one();
    }

    /// Wants these channels once less.
    pub fn unsubscribe(&self, channels: Vec<Bytes>) {
        let mut wanted = self.shared.wanted.lock().expect("no holder of this lock panics");
        let mut left = Vec::new();
        for channel in channels {
            if let Some(count) = wanted.channels.get_mut(&channel) {
                *count -= 1;
                if *count == 0 {
                    wanted.channels.remove(&channel);
                    left.push(channel);
                }
            }
        }
        wanted.changes.push_back(Change::Unsubscribe { channels: left });
        drop(wanted);
        self.shared.wake.notify_one();
    }

    /// Gives the connection up and makes a new one: it does not deliver what it should.
    pub fn reset(&self, reason: &str) {
        self.shared.wanted.lock().expect("no holder of this lock panics").reset =
            Some(reason.to_owned());
        self.shared.wake.notify_one();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.wanted.lock().expect("no holder of this lock panics").closed = true;
        self.shared.wake.notify_one();
    }
}

/// One live connection below the driver: a socket to a Redis, or the keyspace in this process.
pub(crate) trait Wire: Send {
    /// Says SUBSCRIBE for these channels, at most [`CHUNK`] at once.
    fn subscribe<'a>(&'a mut self, channels: &'a [Bytes]) -> BoxFuture<'a, Result<(), String>>;
    /// Says UNSUBSCRIBE for these channels.
    fn unsubscribe<'a>(&'a mut self, channels: &'a [Bytes]) -> BoxFuture<'a, Result<(), String>>;
    /// Says PING, so that a half-dead connection shows.
    fn ping(&mut self) -> BoxFuture<'_, Result<(), String>>;
    /// Waits for the next thing the server says; an error is the end of the connection.
    ///
    /// Must be cancel safe: the driver drops the future when a command is due.
    fn next(&mut self) -> BoxFuture<'_, Result<Said, String>>;
}

/// What makes a [`Wire`] again and again.
pub(crate) trait Dial: Send + Sync + 'static {
    /// Connects; the error is a sentence for the log.
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Wire>, String>>;
}

/// One thing the server said, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// The channel is subscribed.
    Subscribed(Bytes),
    /// The channel is not subscribed any more.
    Unsubscribed(Bytes),
    /// The oldest command that was not answered yet is refused as a whole.
    Refused(String),
    /// Something was published.
    Message { channel: Bytes, payload: Bytes },
    /// The answer to a ping.
    Pong,
}

/// How many channels one SUBSCRIBE names.
pub(crate) const CHUNK: usize = 1_000;

/// Starts the driver of one subscription connection.
pub(crate) fn drive(dial: impl Dial, index: usize, heard: mpsc::Sender<(usize, Heard)>) -> Link {
    let link = Link { shared: Arc::default() };
    let _ = (dial, index, heard);
    link
}
