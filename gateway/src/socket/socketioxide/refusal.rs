//! Tells a client without a session so in a way that makes it stop trying.
//!
//! An HTTP 401 makes most generations come back every few seconds for ever. They stop when they
//! get a whole little session: an open packet, the error in place of the namespace's CONNECT,
//! a DISCONNECT, and a second later the close.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{body::Body, response::Response};
use futures_util::{SinkExt, StreamExt};
use http::{
    HeaderValue, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, UPGRADE},
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use lru::LruCache;
use serde_json::json;
use tokio::{sync::Semaphore, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use crate::socket::{Protocol, guard};

/// How many refused clients are served at once on polling, and as many on websocket.
const AT_ONCE: usize = 2_000;

/// From the refusal to the close.
const LINGER: Duration = Duration::from_secs(1);

/// How long a 3.x or 4.x client may take to ask for the namespace.
const PATIENCE: Duration = Duration::from_secs(5);

/// What stands before the sids made here.
const PREFIX: &str = "refused-";

/// What a refused client may send at once, in bytes.
const MESSAGE_BYTES: usize = 64 << 10;

/// The little sessions of refused clients.
#[derive(Debug)]
pub(super) struct Refusals {
    /// Held for a look or a change. The oldest go when there are too many.
    polling: Mutex<LruCache<Box<str>, Refused>>,
    websockets: Arc<Semaphore>,
}

#[derive(Debug, Clone, Copy)]
struct Refused {
    framing: Framing,
    is_told: bool,
}

impl Default for Refusals {
    fn default() -> Self {
        let at_once = NonZeroUsize::new(AT_ONCE).expect("it is not zero");
        Self {
            polling: Mutex::new(LruCache::new(at_once)),
            websockets: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

/// How the packets of one answer stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// EIO 4: separated.
    Separated,
    /// EIO 3: the length before each, as text.
    Counted,
    /// EIO 3 for clients that read nothing else: the length before each, in bytes.
    Binary,
}

impl Framing {
    const fn of(protocol: Protocol, b64: bool) -> Self {
        match (protocol, b64) {
            (Protocol::Eio4, _) => Self::Separated,
            (Protocol::Eio3, true) => Self::Counted,
            (Protocol::Eio3, false) => Self::Binary,
        }
    }

    const fn protocol(self) -> Protocol {
        match self {
            Self::Separated => Protocol::Eio4,
            Self::Counted | Self::Binary => Protocol::Eio3,
        }
    }

    /// Writes packets, which are ASCII.
    fn write(self, packets: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, packet) in packets.iter().enumerate() {
            let length = packet.len().to_string();
            match self {
                Self::Separated if index == 0 => {}
                Self::Separated => out.push(0x1e),
                Self::Counted => out.extend_from_slice(format!("{length}:").as_bytes()),
                Self::Binary => {
                    out.push(0);
                    out.extend(length.bytes().map(|digit| digit - b'0'));
                    out.push(0xff);
                }
            }
            out.extend_from_slice(packet.as_bytes());
        }
        out
    }

    fn respond(self, packets: &[&str]) -> Response {
        let kind = match self {
            Self::Binary => "application/octet-stream",
            Self::Separated | Self::Counted => "text/plain; charset=UTF-8",
        };
        let mut response = Response::new(Body::from(self.write(packets)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

/// The open packet of a session that offers nothing.
fn open(sid: &str) -> String {
    let open = json!({
        "sid": sid,
        "upgrades": [],
        "pingInterval": 25_000,
        "pingTimeout": 20_000,
        "maxPayload": MESSAGE_BYTES,
    });
    format!("0{open}")
}

/// The error as a generation understands it, and the DISCONNECT.
const fn refusal(protocol: Protocol) -> [&'static str; 2] {
    match protocol {
        Protocol::Eio3 => [r#"44"unauthorized""#, "41"],
        Protocol::Eio4 => [r#"44{"message":"unauthorized"}"#, "41"],
    }
}

fn new_sid() -> String {
    format!("{PREFIX}{:024x}", rand::random::<u128>() >> 32)
}

impl Refusals {
    /// Tells whether a sid was made here.
    #[must_use]
    pub(super) fn owns(sid: &str) -> bool {
        sid.starts_with(PREFIX)
    }

    /// Answers the handshake of a polling client.
    pub(super) fn open(&self, protocol: Protocol, b64: bool) -> Response {
        let sid = new_sid();
        let framing = Framing::of(protocol, b64);
        let refused = Refused { framing, is_told: false };
        self.lock().put(sid.as_str().into(), refused);
        framing.respond(&[&open(&sid)])
    }

    /// Answers what a refused polling client asks or says next.
    pub(super) async fn answer(&self, sid: &str, is_post: bool) -> Response {
        let refused = {
            let mut polling = self.lock();
            let Some(refused) = polling.get_mut(sid) else {
                return guard::unknown_sid();
            };
            if is_post {
                return Response::new(Body::from("ok"));
            }
            let was = *refused;
            refused.is_told = true;
            was
        };
        if !refused.is_told {
            return refused.framing.respond(&refusal(refused.framing.protocol()));
        }
        tokio::time::sleep(LINGER).await;
        self.lock().pop(sid);
        refused.framing.respond(&["1"])
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<Box<str>, Refused>> {
        self.polling.lock().expect("no holder of this lock panics")
    }

    /// Answers the handshake of a websocket client and serves it to its end.
    pub(super) fn websocket(&self, protocol: Protocol, upgrade: OnUpgrade, key: &[u8]) -> Response {
        let Ok(permit) = self.websockets.clone().try_acquire_owned() else {
            return guard::busy();
        };
        tokio::spawn(async move {
            // A client that leaves in between has what it needs, or nobody to tell it to.
            let _ = timeout(2 * PATIENCE, serve(protocol, upgrade)).await;
            drop(permit);
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let accept = derive_accept_key(key);
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept.parse().expect("base64 is plain text"));
        response
    }
}

async fn serve(protocol: Protocol, upgrade: OnUpgrade) -> Result<(), tungstenite::Error> {
    let Ok(io) = upgrade.await else {
        return Ok(());
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES))
        .max_frame_size(Some(MESSAGE_BYTES))
        .read_buffer_size(512);
    let io = TokioIo::new(io);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    socket.send(Message::text(open(&new_sid()))).await?;
    if protocol == Protocol::Eio4 {
        let asks = async {
            while let Some(message) = socket.next().await {
                if message?.to_text().is_ok_and(|text| text.starts_with("40")) {
                    break;
                }
            }
            Ok::<_, tungstenite::Error>(())
        };
        let _ = timeout(PATIENCE, asks).await;
    }
    for packet in refusal(protocol) {
        socket.send(Message::text(packet)).await?;
    }
    // Most clients close by themselves now; reading on lets them.
    let _ = timeout(LINGER, async { while let Some(Ok(_)) = socket.next().await {} }).await;
    socket.close(None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_framing_is_as_its_clients_read_it() {
        let packets = ["40", r#"44"unauthorized""#];
        assert_eq!(Framing::Separated.write(&packets), b"40\x1e44\"unauthorized\"");
        assert_eq!(Framing::Counted.write(&packets), b"2:4016:44\"unauthorized\"");
        assert_eq!(
            Framing::Binary.write(&packets),
            b"\x00\x02\xff40\x00\x01\x06\xff44\"unauthorized\""
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_polling_session_tells_and_ends() {
        let refusals = Refusals::default();
        let body = async |response: Response| {
            let bytes = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        let open = body(refusals.open(Protocol::Eio4, false)).await;
        let open: serde_json::Value = serde_json::from_str(&open[1..]).unwrap();
        let sid = open["sid"].as_str().unwrap();
        assert!(Refusals::owns(sid));
        assert_eq!(body(refusals.answer(sid, true).await).await, "ok");
        let told = body(refusals.answer(sid, false).await).await;
        assert_eq!(told, "44{\"message\":\"unauthorized\"}\u{1e}41");
        assert_eq!(body(refusals.answer(sid, false).await).await, "1");
        assert_eq!(refusals.answer(sid, false).await.status(), StatusCode::BAD_REQUEST);
    }
}
