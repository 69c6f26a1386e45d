//! What clients cannot be made to do, said on the wire.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use gateway::socket::EngineKind;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::stage::{Answer, Guest, PATIENCE, Stage, Websocket};

mod closings;
mod floods;
mod framing;
mod losses;
mod packets;
mod polls;
mod refusals;
mod storms;
mod websockets;

/// A polling session on the wire.
struct Poller {
    stage: Stage,
    guest: Option<Guest>,
    path: String,
    /// The answer to its handshake.
    open: Answer,
}

const TEXT: &str = "Content-Type: text/plain;charset=UTF-8";
const BINARY: &str = "Content-Type: application/octet-stream";

impl Poller {
    /// Opens a session of ann's; `query` says which protocol it speaks.
    async fn open(engine: EngineKind, query: &str) -> Self {
        Self::open_on(Stage::start_of(engine).await, query).await
    }

    async fn open_on(stage: Stage, query: &str) -> Self {
        let path = format!("/socket.io/?transport=polling&demo_user=ann&{query}");
        let open = stage.get(&path, &[]).await;
        let text = open.text();
        let json = &text[text.find('{').expect("an open packet")..];
        let mut packets = serde_json::Deserializer::from_str(json).into_iter::<Value>();
        let packet = packets.next().unwrap().unwrap();
        let path = format!("{path}&sid={}", packet["sid"].as_str().unwrap());
        Self { stage, guest: None, path, open }
    }

    /// Opens a session and joins the namespace.
    async fn joined(engine: EngineKind, query: &str) -> Self {
        Self::joined_on(Stage::start_of(engine).await, query).await
    }

    async fn joined_on(stage: Stage, query: &str) -> Self {
        let mut poller = Self::open_on(stage, query).await;
        if query.contains("EIO=4") {
            assert_eq!(poller.post("40").await.text(), "ok");
        }
        poller.guest = Some(poller.stage.guest().await);
        poller
    }

    fn guest(&self) -> &Guest {
        self.guest.as_ref().expect("it has joined")
    }

    async fn poll(&self) -> Answer {
        self.stage.get(&self.path, &[]).await
    }

    async fn post(&self, body: &str) -> Answer {
        self.send(TEXT, body.as_bytes()).await
    }

    async fn send(&self, kind: &str, body: &[u8]) -> Answer {
        self.stage.request(&format!("POST {}", self.path), &[kind], body).await
    }

    /// Polls until this was said; returns everything that was.
    async fn hears(&self, wanted: &[u8]) -> Vec<u8> {
        let mut heard = Vec::new();
        let began = Instant::now();
        while !heard.windows(wanted.len()).any(|window| window == wanted) {
            assert!(began.elapsed() < PATIENCE, "{:?}", String::from_utf8_lossy(&heard));
            let answer = self.poll().await;
            assert_eq!(answer.status, 200, "{answer:?} after {heard:?}");
            heard.extend_from_slice(&answer.body);
        }
        heard
    }
}

/// Tells whether the inside is told soon that a client has left.
async fn leaves(guest: &Guest) -> bool {
    let began = Instant::now();
    while !guest.has_left.load(Ordering::SeqCst) {
        if began.elapsed() > Duration::from_secs(5) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}

/// Opens a websocket of EIO 4 and joins the namespace.
async fn websocket(stage: &mut Stage) -> (Websocket, Guest) {
    let mut socket = stage.websocket("EIO=4&demo_user=ann").await;
    socket.send(Message::text("40")).await.unwrap();
    let guest = stage.guest().await;
    (socket, guest)
}

/// Reads what a websocket says until one message fits; `None` when it ends before.
async fn hears(socket: &mut Websocket, start: &str) -> Option<String> {
    let heard = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Text(text) = message
                && text.starts_with(start)
            {
                return Some(text.to_string());
            }
        }
        None
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("it is said, or the socket ends")
}

/// Asserts that a client that goes by the rules is still served.
async fn serves_others(stage: &mut Stage) {
    let (mut socket, _guest) = websocket(stage).await;
    socket.send(Message::text(r#"427["echo",{"still":"here"}]"#)).await.unwrap();
    let heard = hears(&mut socket, "437").await;
    assert_eq!(heard.as_deref(), Some(r#"437[{"still":"here"}]"#));
}

/// What a refusal says.
fn refusal(answer: &Answer) -> (u16, Value) {
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_else(|_| json!(answer.text())))
}
