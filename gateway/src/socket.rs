//! What every engine hands over: one [`Connection`] per client.
//!
//! An engine speaks some generations of socket.io; behind this boundary nobody knows which.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use bytes::Bytes;
use http::{Method, StatusCode, header::UPGRADE};

use crate::{
    auth::{Authenticator, origin::Origins},
    drain::Drain,
    hub::frame::Format,
    identity::Session,
    limits::Admission,
    outbox::Outbox,
    socket::guard::{Guard, Query},
};

pub mod bundle;
pub mod engine;
pub mod guard;
pub mod mojibake;
pub mod socketioxide;
pub mod stall;

/// A client that is authenticated and has joined a namespace.
#[derive(Debug)]
pub struct Connection {
    /// Who it is.
    pub session: Session,
    /// Where everything for it goes; closing it closes the transport.
    pub outbox: Outbox,
    /// Which protocol it speaks.
    pub protocol: Protocol,
    /// Whether it asked to resume (`resume=1` in its query or `resume` in its auth payload).
    pub resume: bool,
    /// Which namespace it has joined; a gateway offers `/` alone.
    pub namespace: Box<str>,
    /// The JSON text that it joined with (`auth` of 3.x and 4.x), if any.
    pub auth: Option<Box<str>>,
}

/// Takes in what one client says; dropping it says that the client has left.
pub trait Inbox: Send + Sync {
    /// Takes an event in; they come in the order in which they arrived.
    ///
    /// # Errors
    ///
    /// Returns [`Full`] when as many wait as may; the engine then closes the client.
    fn event(&self, event: Inbound) -> Result<(), Full>;

    /// Takes in a client's answer to the event that was sent under this number.
    ///
    /// # Errors
    ///
    /// As [`Inbox::event`].
    fn answer(&self, call: u64, args: String, attachments: Vec<Bytes>) -> Result<(), Full> {
        // Nothing that a gateway sends asks for an answer.
        let _ = (call, args, attachments);
        Ok(())
    }
}

/// As many messages of a client wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many messages of this client wait")]
pub struct Full;

/// One event from a client.
#[derive(Debug)]
pub struct Inbound {
    /// The event's name.
    pub name: String,
    /// Its arguments as the text of a JSON array, without the name.
    pub args: String,
    /// The binary data that came with it, for which `args` has placeholders.
    pub attachments: Vec<Bytes>,
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
    /// Returns how text goes to its clients.
    #[must_use]
    pub const fn format(self) -> Format {
        match self {
            Self::Eio3 => Format::Ascii,
            Self::Eio4 => Format::Utf8,
        }
    }

    /// Returns the name used as a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Eio3 => "eio3",
            Self::Eio4 => "eio4",
        }
    }
}

/// Reads `resume` from the JSON text that a client joined with.
fn asks_to_resume(auth: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Auth {
        resume: serde_json::Value,
    }
    let auth = serde_json::from_str::<Auth>(auth);
    auth.is_ok_and(|auth| auth.resume == 1 || auth.resume == "1" || auth.resume == true)
}

/// What takes over a new connection; called by an engine, must not block.
pub type Accept = Arc<dyn Fn(Connection) -> Box<dyn Inbox> + Send + Sync>;

/// Which engine serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// Ours.
    Pneumatic,
    /// The library of that name.
    Socketioxide,
}

/// What an engine is told about the outside.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which engine serves.
    pub engine: EngineKind,
    /// What session ids of our engine begin with, before a dot: letters and digits.
    pub node: String,
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
    /// How often a sign of life is asked for; each generation's own default where unset.
    pub ping_interval: Option<Duration>,
    /// How long a sign of life may take; each generation's own default where unset.
    pub ping_timeout: Option<Duration>,
    /// Who waits for tasks, and ends them.
    pub drain: Drain,
    /// Which generation of the client bundle is served.
    pub client: bundle::Generation,
}

/// The engine that serves.
enum Engine {
    Pneumatic(engine::Engine),
    Socketioxide(socketioxide::Front),
}

/// Everything behind `/socket.io/`.
struct Door {
    guard: Guard,
    engine: Engine,
}

impl Door {
    fn new(settings: &Settings, authenticator: Arc<Authenticator>, accept: Accept) -> Self {
        let engine = match settings.engine {
            EngineKind::Pneumatic => Engine::Pneumatic(engine::Engine::of(settings, accept)),
            EngineKind::Socketioxide => Engine::Socketioxide(socketioxide::front(settings, accept)),
        };
        Self { guard: Guard::new(settings, authenticator), engine }
    }

    fn router(self, path: &str) -> Router {
        let serve =
            async |State(door): State<Arc<Self>>, request: Request| door.answer(request).await;
        Router::new()
            .route(path, any(serve))
            .route(&format!("{path}/"), any(serve))
            .with_state(Arc::new(self))
    }

    async fn answer(&self, request: Request) -> Response {
        self.guard.answer(request, async |request| self.lead(request).await).await
    }

    /// Leads a request whose Origin is right to the engine.
    async fn lead(&self, request: Request) -> Response {
        let raw = request.uri().query().unwrap_or_default().to_owned();
        let is_upgrade = request.headers().contains_key(UPGRADE);
        let query = match Query::parse(&raw) {
            Ok(query) => Query { is_upgrade, ..query },
            Err(what) => return guard::mistake(StatusCode::BAD_REQUEST, what),
        };
        match (query.kind, request.method()) {
            (_, &Method::GET) => {}
            (guard::Kind::Polling, &Method::POST) if query.sid.is_some() => {}
            _ => return query.refuse((2, "Bad handshake method")),
        }
        match &self.engine {
            Engine::Pneumatic(engine) => engine.answer(&self.guard, request, query).await,
            Engine::Socketioxide(front) => front.answer(&self.guard, request, query).await,
        }
    }
}

/// Serves `/socket.io/`, the client bundle and `/capsule.js`.
///
/// The router is to be built once: every call makes an engine of its own, and a polling client
/// must find its session in the engine that it came to first. It is to be served through a
/// [`stall::Listener`], with [`stall::Stream::peer`] as connect info.
pub fn router(settings: &Settings, authenticator: Arc<Authenticator>, accept: Accept) -> Router {
    let door = Door::new(settings, authenticator, accept);
    door.router("/socket.io").merge(bundle::router(settings.client))
}

/// Serves an engine of ours, whatever runs over it, at a path without a slash at its end.
///
/// As for [`router`], this is to be built once.
pub fn route(path: &str, guard: Guard, engine: engine::Engine) -> Router {
    Door { guard, engine: Engine::Pneumatic(engine) }.router(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resume_is_read_from_the_auth_payload() {
        assert!(asks_to_resume(r#"{"resume":1}"#) && asks_to_resume(r#"{"resume":true,"x":1}"#));
        assert!(!asks_to_resume(r#"{"resume":0}"#) && !asks_to_resume("{}"));
        assert!(!asks_to_resume("nonsense"));
    }
}
