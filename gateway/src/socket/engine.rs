//! Our own engine: socket.io 1.x to 4.x over engine.io 3 and 4.
//!
//! Two layers: engine.io carries messages over a websocket, over polls, or first over these and
//! then over that; what runs above it is an [`upper::Upper`], which is socket.io.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
};
use hyper::upgrade::OnUpgrade;
use serde_json::json;
use tracing::debug;

use crate::{
    drain::Drain,
    identity::Session,
    limits::Place,
    metrics::{self, Handshake},
    socket::{
        Accept, Protocol, Settings,
        guard::{self, Entered, Guard, Kind, Query},
    },
};

pub mod eio;
pub mod eio3;
pub mod eio4;
mod handshake;
mod heartbeat;
mod out;
pub mod packet;
mod polling;
pub mod socketio;
mod upgrade;
pub mod upper;
mod websocket;
pub mod wire;

use handshake::{Entry, Sessions, Sid};
use heartbeat::Heartbeat;
use polling::Polling;
use socketio::SocketIo;
use upper::{Ended, Upper};
use websocket::Websocket;

/// socket.io 3.x and 4.x's own default, which suits the older ones too.
const PING_INTERVAL: Duration = Duration::from_secs(25);

/// socket.io 3.x and 4.x's own default, which suits the older ones too.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The version of the websocket protocol that is RFC 6455.
const VERSION: &str = "13";

/// What a message may have around it (type, name, ack number), in bytes.
const PACKET_OVERHEAD: usize = 1_024;

/// How many messages of the largest size one polling request may bring: clients before 4.5 send
/// everything that waits in one request.
const MESSAGES_PER_POST: usize = 4;

/// What an engine goes by.
#[derive(Debug, Clone)]
pub struct Options {
    /// What session ids begin with, before a dot.
    pub node: String,
    /// How often a sign of life is asked for.
    pub ping_interval: Duration,
    /// How long a sign of life may take.
    pub ping_timeout: Duration,
    /// How many bytes one message may have.
    pub max_message: usize,
    /// How many bytes one polling request may bring.
    pub max_payload: usize,
    /// How long nothing may be written to a client for which something waits.
    pub stall: Duration,
    /// How long the body of a request may take.
    pub patience: Duration,
    /// Who waits for tasks, and ends them.
    pub drain: Drain,
}

impl Options {
    /// Takes what is the engine's out of all settings.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let max_message = settings.max_message_bytes + PACKET_OVERHEAD;
        Self {
            node: settings.node.clone(),
            ping_interval: settings.ping_interval.unwrap_or(PING_INTERVAL),
            ping_timeout: settings.ping_timeout.unwrap_or(PING_TIMEOUT),
            max_message,
            max_payload: MESSAGES_PER_POST * settings.max_message_bytes + PACKET_OVERHEAD,
            stall: settings.stall,
            patience: settings.connect_timeout,
            drain: settings.drain.clone(),
        }
    }
}

/// A session that opens.
#[derive(Debug)]
pub struct Opening {
    /// Who it is; nobody where it is to be told so.
    pub session: Option<Session>,
    /// Which protocol its client speaks.
    pub protocol: Protocol,
    /// Whether it asked to resume in its query.
    pub resume: bool,
    /// Its place among the clients; free again when it is dropped.
    pub place: Place,
}

/// Makes what runs over a session.
pub type Run = Arc<dyn Fn(Opening) -> Box<dyn Upper> + Send + Sync>;

/// An engine; a gateway has one.
#[derive(Clone)]
pub struct Engine {
    sessions: Arc<Sessions>,
    run: Run,
}

impl Engine {
    /// Makes an engine that runs socket.io.
    #[must_use]
    pub fn of(settings: &Settings, accept: Accept) -> Self {
        let socketio = Arc::new(socketio::Settings::of(settings, accept));
        let run = move |opening| Box::new(SocketIo::new(socketio.clone(), opening)) as Box<_>;
        Self::new(Options::of(settings), Arc::new(run))
    }

    /// Makes an engine that runs anything.
    #[must_use]
    pub fn new(options: Options, run: Run) -> Self {
        Self { sessions: Sessions::start(options), run }
    }

    /// Answers a request that the guard has let through.
    pub async fn answer(&self, guard: &Guard, request: Request, query: Query<'_>) -> Response {
        let Some(sid) = query.sid else { return self.handshake(guard, request, query).await };
        let entry = self.sessions.find(sid);
        match (entry, query.kind) {
            (None, _) => query.refuse((1, "Session ID unknown")),
            (Some(Entry::Polling(polling)), Kind::Polling) => match *request.method() {
                Method::POST => polling.post(request).await,
                _ => polling.poll(guard::peer(&request), query.b64).await,
            },
            (Some(Entry::Polling(polling)), Kind::Websocket) => {
                upgrade::begin(&self.sessions, polling, request, query)
            }
            (Some(Entry::Websocket(_)), Kind::Polling) => query.refuse((3, "Bad request")),
            (Some(Entry::Websocket(_)), Kind::Websocket) => {
                upgrade::turn_away(&self.sessions, request, query)
            }
        }
    }

    /// Opens a session.
    async fn handshake(&self, guard: &Guard, mut request: Request, query: Query<'_>) -> Response {
        let upgrade = match query.kind {
            Kind::Polling => None,
            Kind::Websocket => match Upgrade::take(&mut request) {
                Some(upgrade) => Some(upgrade),
                None => return query.refuse((3, "Bad request")),
            },
        };
        let peer = guard::peer(&request);
        // The body is none, and nobody else may look at a request that has one.
        let headers = request.into_parts().0.headers;
        let entered = guard.enter(&headers, peer.as_ref(), &query).await;
        let Entered { session, place } = match entered {
            Ok(entered) => entered,
            Err(refusal) => return refusal,
        };
        let (protocol, sid) = (query.protocol, Sid::random());
        let connected = session.is_some().then(|| {
            metrics::handshake(protocol, Handshake::Accepted);
            metrics::connected(protocol, query.kind.label())
        });
        let opening = Opening { session, protocol, resume: query.resume, place };
        let options = self.sessions.options();
        let life = Life {
            upper: (self.run)(opening),
            heartbeat: Heartbeat::new(
                protocol,
                options.ping_interval,
                options.ping_timeout,
                tokio::time::Instant::now().into_std(),
            ),
            protocol,
            b64: query.b64,
            connected,
        };
        let open = self.open_packet(sid, query.kind);
        match upgrade {
            None => Polling::open(&self.sessions, sid, life, &open),
            Some(upgrade) => {
                let answer = upgrade.answer();
                Websocket::open(&self.sessions, sid, life, &open, upgrade);
                answer
            }
        }
    }

    fn open_packet(&self, sid: Sid, kind: Kind) -> String {
        let options = self.sessions.options();
        let upgrades: &[&str] = match kind {
            Kind::Polling => &["websocket"],
            Kind::Websocket => &[],
        };
        let open = json!({
            "sid": sid.text(&options.node),
            "upgrades": upgrades,
            "pingInterval": millis(options.ping_interval),
            "pingTimeout": millis(options.ping_timeout),
            "maxPayload": options.max_payload,
        });
        format!("0{open}")
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What a session carries from transport to transport.
struct Life {
    upper: Box<dyn Upper>,
    heartbeat: Heartbeat,
    protocol: Protocol,
    /// Its client cannot read binary data.
    b64: bool,
    /// Counts it among the connections, unless it is only there to be refused.
    connected: Option<metrics::Connected>,
}

impl Life {
    /// Tells whoever sends to the client that it has ended, and counts it.
    fn end(mut self, ended: Ended) {
        if let Ended::Closed(reason) = ended {
            self.upper.close(reason);
        }
        debug!(reason = ended.label(), "Session has ended.");
        if let Ended::Fault(kind) = ended {
            metrics::bad_input(kind);
        }
        if self.connected.is_some() {
            metrics::disconnected(ended.label());
        }
    }
}

/// Tells whether a header that is a list names something, in whatever case.
fn names(headers: &HeaderMap, header: &HeaderName, what: &str) -> bool {
    let lists = headers.get_all(header).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|named| named.trim().eq_ignore_ascii_case(what))
}

/// A request that is to become a websocket.
struct Upgrade {
    on: OnUpgrade,
    accept: HeaderValue,
}

impl Upgrade {
    /// Takes it out of a request that asks for it in the way of RFC 6455.
    fn take(request: &mut Request) -> Option<Self> {
        let headers = request.headers();
        let is_asked = names(headers, &CONNECTION, "upgrade")
            && names(headers, &UPGRADE, "websocket")
            && names(headers, &SEC_WEBSOCKET_VERSION, VERSION);
        if !is_asked {
            return None;
        }
        let key = headers.get(SEC_WEBSOCKET_KEY)?;
        let accept = HeaderValue::from_str(&wire::accept(key.as_bytes())).ok()?;
        let on = request.extensions_mut().remove::<OnUpgrade>()?;
        Some(Self { on, accept })
    }

    fn answer(&self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers: &mut HeaderMap = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept.clone());
        response
    }
}
