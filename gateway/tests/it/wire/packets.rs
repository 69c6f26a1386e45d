//! Packets that break the rules of socket.io: the generation's own answer, or the end of their
//! client, and nothing for anybody else.

use futures_util::SinkExt;
use gateway::socket::EngineKind;
use tokio_tungstenite::tungstenite::Message;

use super::{Poller, hears, leaves, serves_others, websocket};
use crate::stage::{Stage, each_engine};

each_engine! {
    json_that_is_too_deep_harms_nobody,
    an_event_before_the_namespace_is_joined_reaches_nobody,
}

async fn json_that_is_too_deep_harms_nobody(engine: EngineKind) {
    let mut stage = Stage::start_of(engine).await;
    for depth in [100, 1_000, 20_000] {
        let deep = format!("420[\"tell\",{}{}]", "[".repeat(depth), "]".repeat(depth));
        let (mut socket, _guest) = websocket(&mut stage).await;
        let _ = socket.send(Message::text(deep)).await;
        serves_others(&mut stage).await;
    }
}

async fn an_event_before_the_namespace_is_joined_reaches_nobody(engine: EngineKind) {
    let mut stage = Stage::start_of(engine).await;
    let mut socket = stage.websocket("EIO=4&demo_user=ann").await;
    socket.send(Message::text("420[\"echo\",1]")).await.unwrap();
    let _ = socket.send(Message::text("40")).await;
    assert_eq!(hears(&mut socket, "43").await, None);
    serves_others(&mut stage).await;
}

/// socketioxide ignores some of these, or makes a second client of one.
#[tokio::test]
async fn who_breaks_the_rules_is_closed() {
    let engine = EngineKind::Pneumatic;
    for said in [
        &["40"][..],
        &["9"],
        &["49"],
        &["4"],
        &["42"],
        &["42{}"],
        &["42[]"],
        &["42[\"tell\","],
        &["44\"x\""],
        &["4299999999999999999999[\"tell\",1]"],
        &["45[\"tell\"]"],
        &["459999-[\"tell\"]"],
        // An attachment that does not come, before the next packet.
        &["451-[\"tell\",{\"_placeholder\":true,\"num\":0}]", "42[\"tell\",1]"],
    ] {
        let mut stage = Stage::start_of(engine).await;
        let (mut socket, guest) = websocket(&mut stage).await;
        for text in said {
            let _ = socket.send(Message::text(*text)).await;
        }
        assert!(leaves(&guest).await, "websocket: {said:?}");
        assert_eq!(hears(&mut socket, "nothing").await, None);

        let poller = Poller::joined(engine, "EIO=4").await;
        let answer = poller.post(&said.join("\u{1e}")).await;
        assert_eq!(answer.status, 400, "{said:?}: {}", answer.text());
        assert!(leaves(poller.guest()).await, "polling: {said:?}");
    }
}

/// socketioxide keeps a binary message that nothing announced.
#[tokio::test]
async fn binary_data_that_was_not_announced_closes_its_client() {
    let mut stage = Stage::start_of(EngineKind::Pneumatic).await;
    let (mut socket, guest) = websocket(&mut stage).await;
    let _ = socket.send(Message::binary(vec![1, 2, 3])).await;
    assert!(leaves(&guest).await);
    assert_eq!(hears(&mut socket, "nothing").await, None);
    serves_others(&mut stage).await;
}
