//! The border between engine.io and what runs above it.

use std::{
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;

use crate::{hub::frame::Frame, outbox::CloseReason};

/// What a client said, as engine.io carried it; without the type that it put before a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A text.
    Text(String),
    /// Binary data.
    Binary(Bytes),
}

/// What a client said breaks the protocol above; the transport is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(
    /// What was wrong, as a metric label: one of few, in snake case.
    pub &'static str,
);

/// What goes down to a client.
#[derive(Debug, Clone)]
pub enum Down {
    /// An event, encoded once for all who get it.
    Frame(Frame),
    /// A text message in pieces; the first begins with engine.io's own `4`.
    Text {
        /// How it begins.
        head: String,
        /// What is shared of it.
        body: Bytes,
        /// How it ends.
        tail: &'static str,
    },
    /// A binary message.
    Binary(Bytes),
    /// Nothing more: the transport is to be closed, so that the client comes back by itself
    /// unless it was told otherwise. `None` where the client itself has left.
    Close(Option<CloseReason>),
}

/// How a session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its client has left.
    Left,
    /// It was closed from inside, or because its client takes nothing in.
    Closed(CloseReason),
    /// No sign of life came in time.
    Silent,
    /// Its client broke the protocol, in this way.
    Fault(&'static str),
}

impl Ended {
    /// Tells it from what [`Down::Close`] says.
    #[must_use]
    pub const fn of(reason: Option<CloseReason>) -> Self {
        match reason {
            Some(reason) => Self::Closed(reason),
            None => Self::Left,
        }
    }

    /// Returns the name used as a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Closed(reason) => reason.label(),
            Self::Silent => "ping_timeout",
            Self::Fault(_) => "bad_input",
        }
    }
}

impl From<Fault> for Ended {
    fn from(Fault(kind): Fault) -> Self {
        Self::Fault(kind)
    }
}

/// What runs over one engine.io session: socket.io, or the echo of a test suite.
///
/// Dropping it says that the client has left. One that is never closed from inside, waits for
/// nothing and sends no snapshots has only to take and to give.
pub trait Upper: Send {
    /// Takes a message in; they come in the order in which the client sent them.
    ///
    /// # Errors
    ///
    /// Returns [`Fault`] where the transport is to be closed for it.
    fn take(&mut self, message: Message) -> Result<(), Fault>;

    /// Takes out what is to be sent next, or wakes the task when there is something.
    ///
    /// After [`Down::Close`] it is not called again. A client that is closed as slow is still
    /// given the snapshots that were taken out before, see [`Upper::poll_over`].
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Down>;

    /// Tells whether [`Down::Close`] is next, whatever waits, or wakes the task when it is; for
    /// when nothing more is taken out because too much is on its way.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Option<CloseReason>> {
        let _ = cx;
        Poll::Pending
    }

    /// Notes that so many bytes of snapshots ([`Frame::snapshot_bytes`]) have gone out.
    fn let_go(&mut self, snapshots: usize) {
        let _ = snapshots;
    }

    /// Tells when [`Upper::tick`] wants to be called, if ever.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Does what was to be done at the deadline; what follows of it comes out of
    /// [`Upper::poll_next`].
    fn tick(&mut self, now: Instant) {
        let _ = now;
    }

    /// Closes the client from below (it stalled, or the protocol was broken): whoever sends to
    /// it learns the reason.
    fn close(&mut self, reason: CloseReason) {
        let _ = reason;
    }

    /// Tells whether nothing of what is on its way to a client that is closed as slow is to be
    /// waited for any more, or wakes the task when it is so.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Ready(())
    }
}
