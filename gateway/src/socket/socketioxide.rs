//! socketioxide as an engine. No other file names it.
//!
//! It delivers at most once and forgets what does not fit into its buffer, so nothing is handed
//! to it that it does not take: what it refuses waits here, and the mailbox fills up behind it.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, extract::Request};
use bytes::Bytes;
use serde_json::value::RawValue;
use socketioxide::{
    ParserConfig, ProtocolVersion, SocketIo,
    adapter::LocalAdapter,
    handler::{ConnectHandler, DisconnectHandler, MessageHandler, Value},
    socket::{DisconnectReason, Socket},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::debug;

use crate::{
    outbox::{CloseReason, Mailbox, Outbox, mailbox},
    socket::{
        Accept, Connection, Full, Inbound, Inbox, Protocol, Settings, asks_to_resume, mojibake,
    },
};

mod carrier;
mod front;
mod refusal;
mod transport;
mod window;

use carrier::Carrier;
pub use front::Front;
use front::{Admitted, Engine};
use transport::Transport;

/// How many packets the engine itself keeps for a client; the rest waits in the mailbox.
const BUFFERED_PACKETS: usize = 64;

/// What a message may have around it (type, name, ack number), in bytes.
const PACKET_OVERHEAD: usize = 1_024;

/// How many messages of the largest size one polling request may bring: clients before 4.5 send
/// everything that waits in one request.
const MESSAGES_PER_POST: usize = 4;

/// How many binary attachments a message may have; sessions refuse them all.
const ATTACHMENTS: usize = 4;

/// How long a message may wait for its attachments.
const ATTACHMENTS_TIMEOUT: Duration = Duration::from_secs(10);

/// What tungstenite reads at once; clients say little.
const READ_BUFFER: usize = 512;

/// socket.io 3.x and 4.x's own default, which suits the older ones too.
const PING_INTERVAL: Duration = Duration::from_secs(25);

/// socket.io 3.x and 4.x's own default, which suits the older ones too.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a change from polling to a websocket may take: socket.io's own default.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

type Client = Arc<Socket<LocalAdapter>>;

/// Makes an engine of its own; a gateway has one.
pub fn front(settings: &Settings, accept: Accept) -> Front {
    let (service, io) = SocketIo::builder()
        .req_path("/socket.io")
        .ping_interval(settings.ping_interval.unwrap_or(PING_INTERVAL))
        .ping_timeout(settings.ping_timeout.unwrap_or(PING_TIMEOUT))
        .upgrade_timeout(UPGRADE_TIMEOUT)
        .connect_timeout(settings.connect_timeout)
        .max_buffer_size(BUFFERED_PACKETS)
        .max_payload((MESSAGES_PER_POST * settings.max_message_bytes + PACKET_OVERHEAD) as u64)
        .ws_max_message_size(settings.max_message_bytes + PACKET_OVERHEAD)
        .ws_max_frame_size(settings.max_message_bytes + PACKET_OVERHEAD)
        .ws_read_buffer_size(READ_BUFFER)
        .with_parser(
            ParserConfig::common()
                .max_incoming_binaries(ATTACHMENTS)
                .max_incoming_binary_buf_size(settings.max_message_bytes)
                .packet_completion_timeout(ATTACHMENTS_TIMEOUT),
        )
        .build_svc();
    let shared = Arc::new(Shared {
        accept,
        outbox_bytes: settings.outbox_bytes,
        max_message_bytes: settings.max_message_bytes,
        stall: settings.stall,
        engine: OnceLock::new(),
    });
    io.ns("/", Door(shared.clone()));
    let service = ServiceExt::<Request>::map_response(service, |response| response.map(Body::new));
    let engine = Engine::new(service);
    shared.engine.get_or_init(|| engine.clone());
    Front::new(engine)
}

struct Shared {
    accept: Accept,
    outbox_bytes: usize,
    max_message_bytes: usize,
    stall: Duration,
    /// The engine itself, which has no other way to end a polling session than a request.
    engine: OnceLock<Engine>,
}

/// Where clients join the namespace `/`.
#[derive(Clone)]
struct Door(Arc<Shared>);

/// Marks what of socketioxide's handlers is made by hand here: closures would be spawned, each
/// event on its own, and lose the order in which the events arrived.
enum ByHand {}

type Middleware<'a> =
    Pin<Box<dyn Future<Output = Result<(), Box<dyn std::fmt::Display + Send>>> + Send + 'a>>;

impl ConnectHandler<LocalAdapter, ByHand> for Door {
    /// Listens before the client is told that it is in: it may speak at once.
    fn call_middleware<'a>(&'a self, client: Client, auth: &'a Option<Value>) -> Middleware<'a> {
        let Some(admitted) = client.req_parts().extensions.get::<Admitted>().cloned() else {
            let refusal: Box<dyn std::fmt::Display + Send> = Box::new("unauthorized");
            return Box::pin(std::future::ready(Err(refusal)));
        };
        let protocol = match client.protocol() {
            ProtocolVersion::V4 => Protocol::Eio3,
            ProtocolVersion::V5 => Protocol::Eio4,
        };
        let (outbox, mailbox) = mailbox(self.0.outbox_bytes);
        let link = Arc::new(Link {
            protocol,
            outbox: outbox.clone(),
            inbox: Mutex::new(Ear::Waiting(Vec::new())),
            max_message_bytes: self.0.max_message_bytes,
            left: CancellationToken::new(),
            lingers: AtomicBool::new(false),
        });
        client.on_fallback(Hearing(link.clone()));
        client.on_disconnect(Hearing(link.clone()));
        let resume = admitted.resume
            || auth.as_ref().and_then(Value::as_str).is_some_and(|auth| asks_to_resume(auth));
        let connection = Connection {
            session: admitted.session,
            outbox,
            protocol,
            resume,
            namespace: "/".into(),
            auth: auth.as_ref().and_then(|auth| Some(auth.as_str()?.to_string().into())),
        };
        let entry = Entry { connection, mailbox, link, transport: admitted.transport };
        client.extensions.insert(Waiting(Arc::new(Mutex::new(Some(entry)))));
        Box::pin(std::future::ready(Ok(())))
    }

    /// Hands the client over, now that it can be written to.
    fn call(&self, client: Client, _: Option<Value>) {
        let waiting = client.extensions.remove::<Waiting>();
        let entry = waiting.and_then(|Waiting(entry)| entry.lock().ok()?.take());
        let Some(Entry { connection, mailbox, link, transport }) = entry else {
            return;
        };
        let joined = transport.join(link.protocol);
        link.open((self.0.accept)(connection));
        let shared = self.0.clone();
        tokio::spawn(async move {
            Carrier::new(client, link, mailbox, transport, joined, shared).run().await;
        });
    }
}

/// What waits between a client's wish to join and its joining.
struct Entry {
    connection: Connection,
    mailbox: Mailbox,
    link: Arc<Link>,
    transport: Arc<Transport>,
}

#[derive(Clone)]
struct Waiting(Arc<Mutex<Option<Entry>>>);

/// What the handlers and the drain of one client share.
struct Link {
    protocol: Protocol,
    outbox: Outbox,
    /// Held for one message.
    inbox: Mutex<Ear>,
    max_message_bytes: usize,
    left: CancellationToken,
    /// The client left the namespace, and its transport may still be there.
    lingers: AtomicBool,
}

/// Who hears what a client says.
enum Ear {
    /// Nobody yet: it was not handed over when it spoke.
    Waiting(Vec<Inbound>),
    Open(Box<dyn Inbox>),
    /// Nobody any more: the client has left.
    Gone,
}

/// So many messages may wait until a client is handed over.
const EARLY: usize = 64;

impl Link {
    /// Has a client heard by its session, with what it said already.
    fn open(&self, inbox: Box<dyn Inbox>) {
        let mut ear = self.ear();
        let Ear::Waiting(early) = &mut *ear else { return };
        let is_full = early.drain(..).any(|said| inbox.event(said).is_err());
        *ear = Ear::Open(inbox);
        drop(ear);
        if is_full {
            self.outbox.close(CloseReason::TooMuch);
        }
    }

    fn ear(&self) -> std::sync::MutexGuard<'_, Ear> {
        self.inbox.lock().expect("no holder of this lock panics")
    }

    fn hear(&self, packet: &str, attachments: Vec<Bytes>, call: Option<u64>) {
        if packet.len() > self.max_message_bytes {
            self.outbox.close(CloseReason::TooMuch);
            return;
        }
        let undone = match self.protocol {
            Protocol::Eio3 => mojibake::undo(packet),
            Protocol::Eio4 => None,
        };
        let Some((name, args)) = split(undone.as_deref().unwrap_or(packet)) else {
            debug!("Client sent an event that is not JSON; ignored.");
            return;
        };
        let said = Inbound { name, args, attachments, call };
        let heard = match &mut *self.ear() {
            Ear::Waiting(early) if early.len() >= EARLY => Err(Full),
            Ear::Waiting(early) => {
                early.push(said);
                Ok(())
            }
            Ear::Open(inbox) => inbox.event(said),
            Ear::Gone => Ok(()),
        };
        if heard == Err(Full) {
            self.outbox.close(CloseReason::TooMuch);
        }
    }

    fn leave(&self) {
        *self.ear() = Ear::Gone;
        self.left.cancel();
    }
}

/// Splits an event's JSON array into its name and the array of its arguments.
fn split(packet: &str) -> Option<(String, String)> {
    let parts: Vec<&RawValue> = serde_json::from_str(packet).ok()?;
    let (name, args) = parts.split_first()?;
    let name = serde_json::from_str(name.get()).ok()?;
    let args: Vec<_> = args.iter().map(|arg| arg.get()).collect();
    Some((name, format!("[{}]", args.join(","))))
}

/// Hears what a client says, in order, and when it leaves.
struct Hearing(Arc<Link>);

impl MessageHandler<LocalAdapter, ByHand> for Hearing {
    fn call(&self, _: Client, packet: Value, ack: Option<i64>) {
        if let Value::Str(packet, attachments) = packet {
            let attachments = attachments.map(Into::into).unwrap_or_default();
            self.0.hear(&packet, attachments, ack.and_then(|ack| ack.try_into().ok()));
        }
    }
}

impl DisconnectHandler<LocalAdapter, ByHand> for Hearing {
    fn call_with_defer(&self, client: Client, reason: DisconnectReason, defer: fn(Client)) {
        let is_namespace_only = matches!(
            reason,
            DisconnectReason::ClientNSDisconnect | DisconnectReason::ServerNSDisconnect
        );
        self.0.lingers.store(is_namespace_only, Ordering::Release);
        self.0.leave();
        defer(client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(packet: &str, expected: Option<(&str, &str)>) {
        let split = split(packet);
        let split = split.as_ref().map(|(name, args)| (name.as_str(), args.as_str()));
        assert_eq!(split, expected, "{packet}");
    }

    #[test]
    fn an_event_is_its_name_and_the_text_of_its_arguments() {
        check(r#"["add"]"#, Some(("add", "[]")));
        check(r#"["add",{"b":1,"a":1.0}]"#, Some(("add", r#"[{"b":1,"a":1.0}]"#)));
        check(r#"["é\n", 1 , [2]]"#, Some(("é\n", "[1,[2]]")));
        check(r#"[1]"#, None);
        check(r#"[]"#, None);
        check(r#"{"a":1}"#, None);
        check(r#"["add",]"#, None);
        check("", None);
    }
}
