//! The table: which clients, on which transports, are seen to do what.

use std::fmt;

use anyhow::Result;
use futures_util::future::BoxFuture;

use super::{Scene, basics, cell, endings, messages, returning, roads, upgrades};

/// The clients, as `tests/js/client.js` names them; `document.rs` knows their exact versions.
pub const VERSIONS: [&str; 5] = ["1.4.8", "1.7.4", "2.5.0", "3.1.3", "4.8"];

/// How a client reaches an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Polling,
    Websocket,
    /// Polling, and a websocket as soon as that works: what browsers do.
    Upgrade,
}

impl Transport {
    pub const ALL: [Self; 3] = [Self::Polling, Self::Websocket, Self::Upgrade];

    /// The client's own names for it.
    pub const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Polling => &["polling"],
            Self::Websocket => &["websocket"],
            Self::Upgrade => &["polling", "websocket"],
        }
    }

    pub const fn label(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::Websocket => "websocket",
            Self::Upgrade => "upgrade",
        }
    }
}

/// A client on a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    pub version: &'static str,
    pub transport: Transport,
}

impl Way {
    /// Tells whether it speaks engine.io 3, as 1.x and 2.x do.
    pub fn is_eio3(self) -> bool {
        self.version < "3"
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.transport.label())
    }
}

/// Every client on every transport.
pub fn ways() -> impl Iterator<Item = Way> {
    let of = |version| Transport::ALL.into_iter().map(move |transport| Way { version, transport });
    VERSIONS.into_iter().flat_map(of)
}

/// One promise, and how it is seen to be kept.
pub struct Behaviour {
    pub name: &'static str,
    /// What is seen when it passes.
    pub promise: &'static str,
    pub play: fn(Scene) -> BoxFuture<'static, Result<()>>,
}

macro_rules! behaviours {
    ($($name:literal, $promise:literal, $play:path;)*) => {
        /// Every behaviour; those that take longest are the last, and are played first.
        pub const BEHAVIOURS: &[Behaviour] = &[$(
            Behaviour { name: $name, promise: $promise, play: |scene| cell($play(scene)) },
        )*];
    };
}

behaviours! {
    "connect with cookie",
    "The cookie of the first request is the client's identity; there is one handshake, and \
     the last transport is the one that was asked for.",
    basics::cookie;
    "initial",
    "It comes once, as the first event, with one argument.",
    basics::initial;
    "refusal",
    "Without a session: `error` (1.x, 2.x) or `connect_error` with `unauthorized`, and no \
     second handshake.",
    basics::refusal;
    "unknown namespace",
    "It is refused in the generation's own form, and `/` beside it works on.",
    basics::unknown_namespace;
    "namespace with query",
    "A query behind `/` reaches the handshake; an unknown namespace with a query is refused \
     like one without.",
    basics::namespace_with_query;
    "events",
    "`publish`, `change`, `retract`, `position` and `reset` come as they are, each with one \
     argument.",
    messages::events;
    "text",
    "Non-ASCII text, quotes, U+2028 and U+2029 pass unchanged both ways, in events and in \
     answers.",
    messages::text;
    "60 kB",
    "Payloads of 60 kB pass unchanged both ways, ASCII or not.",
    messages::large;
    "calls",
    "Calls are answered, each once, whatever order they are answered in.",
    messages::calls;
    "binary calls",
    "A call with binary data is answered with the same binary data.",
    messages::binary_calls;
    "binary marked",
    "An event with binary data reaches the inside with its data marked, and breaks nothing \
     after it.",
    messages::binary_marked;
    "server asks",
    "An event that wants an answer is answered by the page's handler, text or binary.",
    messages::asks;
    "order",
    "Two hundred events one way, five hundred the other: none is lost or out of order.",
    messages::order;
    "heartbeats",
    "1.x and 2.x ask and are answered; 3.x and 4.x are asked, for the first time after the \
     interval; either way the connection outlives several intervals.",
    roads::heartbeats;
    "60 messages during an upgrade",
    "60 messages each way while the transport changes come once each and in order.",
    upgrades::sixty;
    "aborted poll",
    "A poll breaks while it waits, and is asked again: what was said meanwhile is not lost.",
    roads::aborted;
    "overlapping polls",
    "A second poll while the first one waits: the newer one is answered, and nothing is \
     lost.",
    roads::overlapping;
    "client leaves",
    "`disconnect()` ends the session at once.",
    endings::leaves;
    "closed for good",
    "`disconnect` says `io server disconnect`, and there is no second handshake.",
    endings::for_good;
    "full mailbox",
    "A client for which too much waits is closed, and comes back by itself.",
    endings::full_mailbox;
    "session end",
    "When its session ends the transport is closed; it comes back once, is refused, and \
     stays away.",
    endings::session_end;
    "server drain",
    "The transport is closed without a DISCONNECT packet, and the client comes back by \
     itself.",
    endings::drain;
    "closed during upgrade",
    "Closed in the middle of its upgrade, it comes back by itself.",
    endings::during_upgrade;
    "resume through capsule.js",
    "A whole gateway: it comes back with what it holds, and is told what changed and \
     nothing else.",
    returning::capsule;
    "state recovery declined",
    "A client that asks for its state by what another server gave it gets a new session: \
     `recovered` is not true, and no handler gets an argument more.",
    returning::recovery;
    "stalled reader",
    "A client that reads no more is closed within `limits.stall` and a heartbeat, and comes \
     back when it reads again; another one loses nothing meanwhile.",
    roads::stalled;
    "probe closed at once",
    "The websocket of the upgrade is closed when it has just been opened: polling goes on \
     and nothing is lost.",
    upgrades::closed;
    "probe closed when answered",
    "It is closed when the probe has been answered, and the client never hears the answer: \
     polling goes on and nothing is lost.",
    upgrades::unanswered;
    "silent probe",
    "A websocket is opened for the upgrade and nothing passes through it: polling goes on \
     beyond the engine's patience, not faster than before, and nothing is lost.",
    upgrades::silent;
}
