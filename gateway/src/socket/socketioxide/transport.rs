//! What carries one client: which connection, how much went out, and how to close it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    limits::Place,
    metrics::{self, Connected},
    socket::{
        Protocol,
        guard::Kind,
        stall::{Peer, Switch},
    },
};

/// What carries one client, from its handshake until the engine forgets it.
///
/// The engine keeps it with the first request, so that it lives exactly as long as the session.
#[derive(Debug)]
pub(super) struct Transport {
    sid: OnceLock<Box<str>>,
    /// Cancelled when the client was closed from inside.
    pub(super) closed: CancellationToken,
    /// Short; the websocket that carries the client and the gauge that counts it.
    carrier: Mutex<Carrier>,
    joined: AtomicU32,
    all: Arc<Transports>,
    /// Free again when the client is forgotten.
    place: Place,
}

#[derive(Debug, Default)]
struct Carrier {
    websocket: Option<Switch>,
    /// What the websocket's connection had written before it was one.
    before: u64,
    /// Nobody counts what goes out: the connection came by another listener.
    is_blind: bool,
    /// How many bytes polls were answered with.
    polled: u64,
    /// How large the last of these answers was.
    last_answer: u64,
    /// What carries it, and how much will be written there by its end.
    answer: Option<(Switch, u64)>,
    connected: Option<(Protocol, Connected)>,
}

impl Transport {
    pub(super) fn new(all: Arc<Transports>, place: Place) -> Self {
        Self {
            sid: OnceLock::new(),
            closed: CancellationToken::new(),
            carrier: Mutex::default(),
            joined: AtomicU32::new(0),
            all,
            place,
        }
    }

    pub(super) fn carried_by(&self, peer: Option<Peer>) {
        let Some(peer) = peer else {
            warn!("Websocket did not come through the stall listener; it cannot be closed.");
            self.carrier().is_blind = true;
            return;
        };
        let mut carrier = self.carrier();
        if let Some((protocol, _)) = carrier.connected.take() {
            let connected = metrics::connected(protocol, Kind::Websocket.label());
            carrier.connected = Some((protocol, connected));
        }
        carrier.before = peer.switch.written();
        carrier.websocket = Some(peer.switch);
        let is_closed = self.closed.is_cancelled();
        drop(carrier);
        if is_closed {
            self.close();
        }
    }

    /// Notes that a poll is answered with so many bytes, on its way over this connection.
    pub(super) fn answers(&self, peer: Option<Peer>, bytes: u64) {
        let mut carrier = self.carrier();
        (carrier.polled, carrier.last_answer) = (carrier.polled + bytes, bytes);
        carrier.answer = peer.map(|Peer { switch, .. }| {
            let end = switch.written() + bytes;
            (switch, end)
        });
    }

    /// Counts the client as connected; returns how often it has joined.
    pub(super) fn join(&self, protocol: Protocol) -> u32 {
        self.place.joined();
        let mut carrier = self.carrier();
        let kind = carrier.websocket.as_ref().map_or(Kind::Polling, |_| Kind::Websocket);
        carrier.connected = Some((protocol, metrics::connected(protocol, kind.label())));
        self.joined.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts the client as gone, unless it has joined again since.
    pub(super) fn leave(&self, joined: u32) {
        if self.is_last(joined) {
            self.carrier().connected = None;
        }
    }

    /// Tells whether this is the last time that the client joined.
    #[must_use]
    pub(super) fn is_last(&self, joined: u32) -> bool {
        self.joined.load(Ordering::Relaxed) == joined
    }

    /// Closes the transport as a broken network would: every generation comes back by itself.
    pub(super) fn close(&self) {
        self.closed.cancel();
        if let Some(switch) = &self.carrier().websocket {
            switch.cut();
        }
    }

    /// Tells whether a websocket carries the client, or is about to.
    #[must_use]
    pub(super) fn has_websocket(&self) -> bool {
        self.carrier().websocket.is_some()
    }

    /// Returns how many bytes went out to the client, if they are counted.
    #[must_use]
    pub(super) fn gone(&self) -> Option<u64> {
        let carrier = self.carrier();
        let written = carrier.websocket.as_ref().map_or(0, |switch| switch.written());
        let left = |(switch, end): &(Switch, u64)| end.saturating_sub(switch.written());
        let polled = carrier.polled - carrier.answer.as_ref().map_or(0, left);
        (!carrier.is_blind).then_some(polled + written - carrier.before)
    }

    /// Returns how large the last answer to a poll was.
    #[must_use]
    pub(super) fn last_answer(&self) -> u64 {
        self.carrier().last_answer
    }

    /// Tells whether the client let bytes wait for too long.
    #[must_use]
    pub(super) fn has_stalled(&self) -> bool {
        let carrier = self.carrier();
        let answer = carrier.answer.as_ref().map(|(switch, _)| switch);
        carrier.websocket.as_ref().or(answer).is_some_and(Switch::has_stalled)
    }

    fn carrier(&self) -> std::sync::MutexGuard<'_, Carrier> {
        self.carrier.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        if let Some(sid) = self.sid.get() {
            self.all.lock().remove(sid);
        }
    }
}

/// The transports of living sessions that come again by their sid.
#[derive(Debug, Default)]
pub(super) struct Transports {
    /// Held for a look or a change; every polling request passes here.
    by_sid: Mutex<HashMap<Box<str>, std::sync::Weak<Transport>>>,
}

impl Transports {
    pub(super) fn insert(&self, sid: &str, transport: &Arc<Transport>) {
        if transport.sid.set(sid.into()).is_ok() {
            self.lock().insert(sid.into(), Arc::downgrade(transport));
        }
    }

    /// Finds the transport of a session that lives and was not closed.
    pub(super) fn get(&self, sid: &str) -> Option<Arc<Transport>> {
        // Bound first: dropping the last `Arc` under the lock would lock again.
        let transport = self.lock().get(sid)?.upgrade();
        transport.filter(|transport| !transport.closed.is_cancelled())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Box<str>, std::sync::Weak<Transport>>> {
        self.by_sid.lock().expect("no holder of this lock panics")
    }
}
