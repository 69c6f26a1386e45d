//! What every engine hands over: one [`Connection`] per client.
//!
//! An engine speaks some generations of socket.io; behind this boundary nobody knows which.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    routing::any,
};
use tokio::sync::mpsc;

use crate::{
    auth::{Authenticator, origin::Origins},
    identity::Session,
    limits::Admission,
    outbox::Outbox,
};

pub mod bundle;
pub mod guard;
pub mod mojibake;
pub mod refusal;
pub mod socketioxide;
pub mod stall;
pub mod transport;
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
    /// Whether binary data came with it, for which `args` has nothing but placeholders.
    pub has_binary: bool,
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

/// What an engine is told about the outside.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which pages may connect.
    pub origins: Origins,
    /// How many clients may connect.
    pub admission: Admission,
    /// How long nothing may be written to a client for which something waits.
    pub stall: Duration,
    /// How long a client may take from its handshake to joining the namespace `/`.
    pub connect_timeout: Duration,
    /// How large a message of a client may be.
    pub max_message_bytes: usize,
    /// How many bytes may wait for a client.
    pub outbox_bytes: usize,
    /// How many events of a client may wait to be looked at.
    pub inbound_queue: usize,
    /// How often a sign of life is asked for; each generation's own default where unset.
    pub ping_interval: Option<Duration>,
    /// How long a sign of life may take; each generation's own default where unset.
    pub ping_timeout: Option<Duration>,
    /// Which generation of the client bundle is served.
    pub client: bundle::Generation,
}

/// Serves `/socket.io/`, the client bundle and `/capsule.js`.
///
/// The router is to be built once: every call makes an engine of its own, and a polling client
/// must find its session in the engine that it came to first. It is to be served through a
/// [`stall::Listener`], with [`stall::Stream::peer`] as connect info.
pub fn router(settings: &Settings, authenticator: Arc<Authenticator>, accept: Accept) -> Router {
    let engine = socketioxide::engine(settings, accept);
    let guard = Arc::new(guard::Guard::new(settings, authenticator, engine));
    let serve = async |State(guard): State<Arc<guard::Guard>>, request: Request| {
        guard.answer(request).await
    };
    Router::new()
        .route("/socket.io", any(serve))
        .route("/socket.io/", any(serve))
        .with_state(guard)
        .merge(bundle::router(settings.client))
}
