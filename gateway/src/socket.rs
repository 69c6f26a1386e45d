//! What every engine hands over: one [`Connection`] per client.
//!
//! An engine speaks some generations of socket.io; behind this boundary nobody knows which.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::{identity::Session, outbox::Outbox};

pub mod bundle;
pub mod mojibake;
pub mod socketioxide;
pub mod stall;
pub mod window;

/// A client that is authenticated and has joined the namespace `/`.
#[derive(Debug)]
pub struct Connection {
    /// Who it is.
    pub session: Session,
    /// What it says, in the order in which it arrived; ends when the client has left.
    pub inbound: mpsc::Receiver<Inbound>,
    /// Where everything for it goes; closing it closes the transport.
    pub outbox: Outbox,
    /// Which protocol it speaks.
    pub protocol: Protocol,
    /// Whether it asked to resume (`resume=1` in its query or `resume` in its auth payload).
    pub resume: bool,
}

/// One event from a client.
#[derive(Debug)]
pub struct Inbound {
    /// The event's name.
    pub name: String,
    /// Its arguments as the text of a JSON array, without the name.
    pub args: String,
    /// The number under which an answer is expected, if one is.
    pub call: Option<u64>,
}

/// Which low-level protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// socket.io 1.x and 2.x.
    Eio3,
    /// socket.io 3.x and 4.x.
    Eio4,
}

impl Protocol {
    /// Returns the name used as a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Eio3 => "eio3",
            Self::Eio4 => "eio4",
        }
    }
}

/// What takes over a new connection; called by an engine, must not block.
pub type Accept = Arc<dyn Fn(Connection) + Send + Sync>;
