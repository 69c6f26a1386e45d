//! What is too large, and how it ends.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use gateway::{
    outbox::CloseReason,
    socket::{EngineKind, Settings},
};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use super::{Poller, hears, leaves, serves_others, websocket};
use crate::stage::{Stage, Websocket, each_engine, settings_of};

each_engine! {
    a_body_that_is_too_large_is_refused_as_such,
    a_websocket_without_a_sign_of_life_is_closed,
}

async fn a_body_that_is_too_large_is_refused_as_such(engine: EngineKind) {
    let mut poller = Poller::joined(engine, "EIO=4").await;
    poller.hears(b"42[\"initial\"").await;
    let huge = format!("42[\"tell\",\"{}\"]", "x".repeat(1 << 20));
    assert_eq!(poller.post(&huge).await.status, 413);
    assert!(leaves(poller.guest()).await);
    serves_others(&mut poller.stage).await;
}

async fn a_websocket_without_a_sign_of_life_is_closed(engine: EngineKind) {
    let settings = Settings {
        ping_interval: Some(Duration::from_millis(500)),
        ping_timeout: Some(Duration::from_millis(500)),
        ..settings_of(engine)
    };
    let mut stage = Stage::start_with(&settings).await;
    // 3.x and 4.x are asked and do not answer; 1.x and 2.x do not ask.
    for query in ["EIO=4", "EIO=3"] {
        let began = Instant::now();
        let mut socket = stage.websocket(&format!("{query}&demo_user=ann")).await;
        if query == "EIO=4" {
            socket.send(Message::text("40")).await.unwrap();
        }
        let guest = stage.guest().await;
        assert_eq!(hears(&mut socket, "nothing").await, None);
        assert!(leaves(&guest).await, "{query}");
        let took = began.elapsed();
        assert!(took > Duration::from_millis(450) && took < Duration::from_secs(4), "{took:?}");
    }
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
