//! Carries one client's mailbox into the engine, and closes the client.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{body::Body, extract::Request};
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use serde_json::value::RawValue;
use socketioxide::{
    SendError, SocketError, TransportType,
    adapter::LocalAdapter,
    extract::AckSender,
    handler::{FromMessageParts, Value},
};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;
use tracing::debug;

use super::{Client, Link, Shared, UPGRADE_TIMEOUT, transport::Transport, window::Window};
use crate::{
    hub::frame::Format,
    metrics,
    outbox::{CloseReason, Mailbox, Outgoing},
    socket::Protocol,
};

/// How many of them are ours; the others are for heartbeats, which end a client whose buffer has
/// no room for them.
const OUR_PACKETS: usize = 48;

/// How long a client has to close its transport after a DISCONNECT packet of either side.
const LINGER: Duration = Duration::from_secs(1);

/// Between two tries to hand something to a full engine: from, to.
const RETRY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// Carries a client's mailbox into the engine.
pub(super) struct Carrier {
    client: Client,
    link: Arc<Link>,
    mailbox: Mailbox,
    window: Window,
    /// How many bytes had gone out, and since when it is so many.
    progress: (u64, Instant),
    transport: Arc<Transport>,
    joined: u32,
    shared: Arc<Shared>,
}

/// The client is to be closed, or is gone.
struct Over;

impl Carrier {
    pub(super) fn new(
        client: Client,
        link: Arc<Link>,
        mailbox: Mailbox,
        transport: Arc<Transport>,
        joined: u32,
        shared: Arc<Shared>,
    ) -> Self {
        let (window, progress) = (Window::new(OUR_PACKETS), (0, Instant::now()));
        Self { client, link, mailbox, window, progress, transport, joined, shared }
    }

    /// Runs until the client has left or is closed.
    pub(super) async fn run(mut self) {
        while self.carry().await.is_ok() {}
        if self.link.outbox.closed() == Some(CloseReason::Slow) {
            self.let_snapshots_go().await;
        }
        if self.transport.has_stalled() {
            self.link.outbox.close(CloseReason::Stalled);
        }
        let reason = self.link.outbox.closed();
        if reason == Some(CloseReason::AskedFinally) {
            self.say_goodbye().await;
        }
        let has_left = self.link.left.is_cancelled();
        self.link.leave();
        self.transport.leave(self.joined);
        metrics::disconnected(reason.map_or("left", CloseReason::label));
        debug!(reason = reason.map_or("left", CloseReason::label), "Client is gone.");
        if has_left {
            let lingers = self.link.lingers.load(Ordering::Acquire);
            if !lingers {
                return;
            }
            sleep(LINGER).await;
            if !self.transport.is_last(self.joined) {
                return;
            }
        }
        self.let_upgrade_end().await;
        self.transport.close();
        self.end_polling().await;
    }

    /// Waits while the client changes from polling to a websocket.
    ///
    /// Once its probe was answered it polls no more, and when the websocket breaks before the
    /// change is made it hears nothing until its heartbeat fails, 45 seconds later.
    async fn let_upgrade_end(&self) {
        let began = Instant::now();
        while self.transport.has_websocket()
            && self.client.transport_type() == TransportType::Polling
            && self.client.connected()
            && began.elapsed() < UPGRADE_TIMEOUT
        {
            sleep(RETRY.1).await;
        }
    }

    /// Waits until a client that is too slow has the snapshots that are on their way to it.
    ///
    /// Cut off in the middle of a large `initial`, it would come back for the same one, and
    /// again; with it, it knows its versions and resumes.
    async fn let_snapshots_go(&mut self) {
        loop {
            self.has_room();
            if !self.window.has_snapshot() || self.stands_still() {
                return;
            }
            tokio::select! {
                () = sleep(RETRY.1) => {}
                () = self.mailbox.is_over() => return,
                () = self.link.left.cancelled() => return,
            }
        }
    }

    /// Carries one thing.
    async fn carry(&mut self) -> Result<(), Over> {
        let format = match self.link.protocol {
            Protocol::Eio3 => Format::Ascii,
            Protocol::Eio4 => Format::Utf8,
        };
        match self.next().await? {
            Outgoing::Event(frame) => {
                let json = raw(frame.json(format));
                let bytes = r#"42["",]"#.len() + frame.name().len() + json.get().len();
                let send = |client: &Client| client.emit(frame.name(), json);
                self.hand(bytes, frame.snapshot_bytes(), send).await
            }
            Outgoing::Ack(call, frame) => {
                let Ok(call) = i64::try_from(call) else {
                    return Ok(());
                };
                let json = raw(frame.json(format));
                let bytes = "43[]".len() + call.to_string().len() + json.get().len();
                self.hand(bytes, 0, |client| ack(client, call).send(json)).await
            }
            // This engine has no way to send text that is encoded already with binary data.
            Outgoing::Letter(_) => Ok(()),
            Outgoing::Close(_) => Err(Over),
        }
    }

    /// Waits for the next thing to carry, and meanwhile for polls that do not come.
    async fn next(&mut self) -> Result<Outgoing, Over> {
        loop {
            let waits_for_poll = self.is_polling() && !self.window.is_empty();
            tokio::select! {
                outgoing = self.mailbox.next() => return Ok(outgoing),
                () = self.link.left.cancelled() => return Err(Over),
                () = sleep(self.shared.stall / 4), if waits_for_poll => {}
            }
            self.has_room();
            if self.stands_still() {
                self.link.outbox.close(CloseReason::Stalled);
                return Err(Over);
            }
        }
    }

    /// Takes in what has gone out, and tells whether the engine may be given more.
    fn has_room(&mut self) -> bool {
        let Some(gone) = self.transport.gone() else { return true };
        let snapshots = self.window.advance(gone);
        if snapshots > 0 {
            self.mailbox.let_go(snapshots);
        }
        if gone != self.progress.0 || self.window.is_empty() {
            self.progress = (gone, Instant::now());
        }
        self.window.has_room(gone)
    }

    /// Tells whether something waits for a poll for too long.
    ///
    /// On a websocket the stream itself tells; a polling client that asks no more is only seen
    /// here.
    fn stands_still(&self) -> bool {
        if self.window.is_empty() || !self.is_polling() {
            return false;
        }
        // A proxy may have taken a large answer long before its client has it.
        let large = u32::try_from(self.transport.last_answer() >> 20).unwrap_or(u32::MAX);
        self.progress.1.elapsed() > self.shared.stall.saturating_mul(large.saturating_add(1))
    }

    fn is_polling(&self) -> bool {
        self.client.transport_type() == TransportType::Polling
    }

    /// Hands one packet of so many bytes to the engine, as soon as it has room.
    async fn hand(
        &mut self,
        bytes: usize,
        snapshot: usize,
        send: impl Fn(&Client) -> Result<(), SendError>,
    ) -> Result<(), Over> {
        let mut pause = RETRY.0;
        loop {
            if self.has_room() {
                match send(&self.client) {
                    Ok(()) => {
                        self.give(bytes, snapshot);
                        return Ok(());
                    }
                    Err(SendError::Socket(SocketError::InternalChannelFull)) => {}
                    Err(_) => return Err(Over),
                }
            }
            if self.stands_still() {
                self.link.outbox.close(CloseReason::Stalled);
                return Err(Over);
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(RETRY.1),
                _ = self.mailbox.closed() => return Err(Over),
                () = self.link.left.cancelled() => return Err(Over),
            }
        }
    }

    /// Counts what the engine has taken; what nobody sees going out counts as gone.
    fn give(&mut self, bytes: usize, snapshot: usize) {
        if self.transport.gone().is_some() {
            self.window.give(self.on_wire(bytes), snapshot);
        } else if snapshot > 0 {
            self.mailbox.let_go(snapshot);
        }
    }

    /// Adds what a websocket puts before a packet; how polls frame it is not known yet.
    fn on_wire(&self, bytes: usize) -> usize {
        let head = match (self.client.transport_type(), bytes) {
            (TransportType::Polling, _) => 0,
            (TransportType::Websocket, ..126) => 2,
            (TransportType::Websocket, ..0x1_0000) => 4,
            (TransportType::Websocket, _) => 10,
        };
        head + bytes
    }

    /// Sends DISCONNECT, after which no client comes back by itself.
    async fn say_goodbye(&self) {
        let began = Instant::now();
        while let Err(SocketError::InternalChannelFull) = self.client.clone().disconnect() {
            if began.elapsed() > LINGER {
                return;
            }
            sleep(RETRY.1).await;
        }
    }

    /// Ends a polling session in the name of its client: nobody else can.
    async fn end_polling(&self) {
        if !self.is_polling() {
            return;
        }
        let Some(engine) = self.shared.engine.get() else {
            return;
        };
        let (version, body) = match self.link.protocol {
            Protocol::Eio3 => (3, "1:1"),
            Protocol::Eio4 => (4, "1"),
        };
        let uri = format!("/socket.io/?EIO={version}&transport=polling&sid={}", self.client.id);
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.parse().expect("it is made of plain words");
        let text = HeaderValue::from_static("text/plain;charset=UTF-8");
        request.headers_mut().insert(CONTENT_TYPE, text);
        let Ok(_) = engine.clone().oneshot(request).await;
    }
}

/// Has the engine take JSON as it is.
fn raw(json: &str) -> &RawValue {
    serde_json::from_str(json).expect("a frame is made of JSON")
}

/// Makes the sender of an answer, which the engine would take away with the first try.
fn ack(client: &Client, call: i64) -> AckSender<LocalAdapter> {
    let mut nothing = Value::Str("".into(), None);
    let Ok(ack) = AckSender::from_message_parts(client, &mut nothing, &Some(call));
    ack
}
