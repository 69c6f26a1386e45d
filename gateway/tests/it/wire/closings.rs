//! What is too large, and how it ends.

use futures_util::{SinkExt, StreamExt};
use gateway::{outbox::CloseReason, socket::EngineKind};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use super::{Poller, leaves, serves_others, websocket};
use crate::stage::{Stage, Websocket, each_engine};

each_engine! {
    a_body_that_is_too_large_is_refused_as_such,
}

async fn a_body_that_is_too_large_is_refused_as_such(engine: EngineKind) {
    let mut poller = Poller::joined(engine, "EIO=4").await;
    poller.hears(b"42[\"initial\"").await;
    let huge = format!("42[\"tell\",\"{}\"]", "x".repeat(1 << 20));
    assert_eq!(poller.post(&huge).await.status, 413);
    assert!(leaves(poller.guest()).await);
    serves_others(&mut poller.stage).await;
}

/// How a websocket was closed.
async fn closed(socket: &mut Websocket) -> Option<CloseCode> {
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Close(frame) = message {
            return frame.map(|frame| frame.code);
        }
    }
    None
}

/// socketioxide closes without saying why.
#[tokio::test]
async fn a_websocket_is_told_why_its_frame_was_refused() {
    let mut stage = Stage::start_of(EngineKind::Pneumatic).await;
    let (mut socket, guest) = websocket(&mut stage).await;
    let huge = format!("42[\"tell\",\"{}\"]", "x".repeat(1 << 20));
    let _ = socket.send(Message::text(huge)).await;
    assert!(leaves(&guest).await);
    assert!(matches!(closed(&mut socket).await, Some(CloseCode::Size) | None));

    // One byte over what a message may have, and within what a frame may.
    let (mut socket, guest) = websocket(&mut stage).await;
    let large = format!("42[\"tell\",\"{}\"]", "x".repeat(64 << 10));
    let _ = socket.send(Message::text(large)).await;
    assert!(leaves(&guest).await);
    assert_eq!(guest.outbox.closed(), Some(CloseReason::TooMuch));
    serves_others(&mut stage).await;
}
