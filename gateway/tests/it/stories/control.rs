//! What is told to all gateways.

use std::time::Duration;

use gateway::outbox::CloseReason;
use serde_json::json;

use super::gateway::{BOARD, TestGateway, World, user};

async fn two() -> (World, [TestGateway; 2]) {
    let world = World::new(BOARD, 3);
    let gateways = [world.gateway().await, world.gateway().await];
    for gateway in &gateways {
        gateway.heard().await;
    }
    (world, gateways)
}

#[tokio::test]
async fn a_user_is_disconnected_at_every_gateway_and_nobody_else() {
    let (_, [one, two]) = two().await;
    let mut here = one.connect(user("ann")).await;
    let mut there = two.connect(user("ann").in_session("phone")).await;
    let mut bob = two.connect(user("bob")).await;
    let answer = one.request("POST", "/api/users/ann/disconnect", "").await;
    assert_eq!((answer.0, answer.2.as_str()), (200, r#"{"sockets":1}"#));
    assert_eq!(here.closes().await, CloseReason::Asked);
    assert_eq!(there.closes().await, CloseReason::Asked);
    bob.quiet(&two).await;
    assert_eq!(bob.closed, None);
}

#[tokio::test]
async fn an_application_logs_a_session_out_by_its_message() {
    let (_, [one, two]) = two().await;
    let mut here = one.connect(user("ann").in_session("a")).await;
    let mut there = two.connect(user("ann").in_session("a")).await;
    let mut other = two.connect(user("ann").in_session("b")).await;
    one.control(2, json!({ "op": "disconnect", "session": "a", "final": true })).await;
    assert_eq!(here.closes().await, CloseReason::AskedFinally);
    assert_eq!(there.closes().await, CloseReason::AskedFinally);
    other.quiet(&two).await;
    assert_eq!(other.closed, None);
}

#[tokio::test]
async fn a_room_is_disconnected_refreshed_and_told() {
    let (world, [one, _two]) = two().await;
    let mut ann = one.connect(user("ann").in_team("red")).await;
    let mut bob = one.connect(user("bob").in_team("red")).await;
    let mut eve = one.connect(user("eve").in_team("blue")).await;
    eve.call("subscribe", json!({ "feed": "public.news" })).await;
    let emit =
        json!({ "op": "emit", "room": "team:red", "event": "hello", "args": [{ "n": 1 }, 2] });
    one.control(0, emit).await;
    assert_eq!(ann.expect("hello").await, json!({ "n": 1 }));
    assert_eq!(bob.expect("hello").await, json!({ "n": 1 }));
    let emit = json!({ "op": "emit", "room": "feed:public.news", "event": "news" });
    one.control(1, emit).await;
    assert_eq!(eve.expect("news").await, json!(null));
    let emit = json!({ "op": "emit", "room": "feed:team.red.members", "event": "seen" });
    one.control(1, emit).await;
    ann.expect("seen").await;
    bob.expect("seen").await;

    world.sessions.put(&ann.user.session, "ann", &["red", "green"]);
    one.control(2, json!({ "op": "refresh", "room": "team:red" })).await;
    assert_eq!(ann.expect("publish").await["id"], "green");
    one.control(0, json!({ "op": "disconnect", "room": "team:red" })).await;
    assert_eq!(ann.closes().await, CloseReason::Asked);
    assert_eq!(bob.closes().await, CloseReason::Asked);
    eve.quiet(&one).await;
    assert!(eve.names().is_empty());
}

#[tokio::test]
async fn a_message_is_carried_out_once_however_many_shards_bring_it() {
    let (_, [one, two]) = two().await;
    let mut ann = one.connect(user("ann")).await;
    let mut phone = two.connect(user("ann").in_session("phone")).await;
    let body = r#"{"event":"hello","args":[12345678901234567890123, "é"]}"#;
    for _ in 0..2 {
        let answer = one.request("POST", "/api/rooms/user:ann/emit", body).await;
        assert_eq!((answer.0, answer.2.as_str()), (202, ""));
    }
    let emit = json!({ "id": "x", "op": "emit", "user": "ann", "event": "once" });
    for shard in 0..3 {
        one.control(shard, emit.clone()).await;
    }
    for (client, gateway) in [(&mut ann, &one), (&mut phone, &two)] {
        for _ in 0..2 {
            let hello = client.next().await.unwrap();
            assert_eq!((hello.name.as_str(), hello.text()), ("hello", "12345678901234567890123"));
        }
        client.expect("once").await;
        client.quiet(gateway).await;
        assert!(client.names().is_empty());
    }
}

#[tokio::test]
async fn a_message_that_makes_no_sense_is_ignored() {
    let (world, [one, _two]) = two().await;
    let mut ann = one.connect(user("ann").in_team("red")).await;
    for message in [
        json!({}),
        json!([]),
        json!({ "op": "explode", "user": "ann" }),
        json!({ "op": "disconnect" }),
        json!({ "op": "disconnect", "user": "" }),
        json!({ "op": "disconnect", "user": "ann", "room": "team:red" }),
        json!({ "op": "disconnect", "room": "everybody" }),
        json!({ "op": "disconnect", "user": 7 }),
        json!({ "op": "emit", "user": "ann" }),
        json!({ "op": "emit", "event": "x" }),
        json!({ "op": "emit", "user": "ann", "event": "" }),
        json!({ "op": "emit", "user": "ann", "event": "x".repeat(129) }),
        json!({ "op": "emit", "user": "ann", "event": "disconnect" }),
        json!({ "op": "emit", "user": "ann", "event": "connect_error" }),
        json!({ "op": "emit", "room": "team:red", "event": "reset", "args": [{}] }),
    ] {
        one.control(0, message).await;
    }
    world.shards[0].raw(&["PUBLISH", "gateway.control", "\u{0}not json"]).unwrap();
    one.control(0, json!({ "op": "emit", "user": "ann", "event": "still here" })).await;
    ann.expect("still here").await;
    assert!(ann.names().is_empty());
}

#[tokio::test]
async fn a_message_reaches_others_while_a_shard_is_away() {
    let (world, [one, two]) = two().await;
    let mut there = two.connect(user("ann")).await;
    world.shards[0].set_away(true);
    world.shards[1].set_away(true);
    let answer = one.request("POST", "/api/users/ann/disconnect", r#"{"final":true}"#).await;
    assert_eq!((answer.0, answer.2.as_str()), (200, r#"{"sockets":0}"#));
    assert_eq!(there.closes().await, CloseReason::AskedFinally);
}

#[tokio::test]
async fn what_no_message_told_is_found_when_sessions_are_looked_at_again() {
    let world = World::new(BOARD, 1);
    let mut config = (*world.config).clone();
    config.session.recheck = Duration::from_millis(300);
    let world = World { config: config.into(), ..world };
    let gateway = world.gateway().await;
    let mut ann = gateway.connect(user("ann")).await;
    let mut bob = gateway.connect(user("bob")).await;
    world.sessions.put(&ann.user.session, "ann", &["red"]);
    world.sessions.end(&bob.user.session);
    assert_eq!(ann.expect("publish").await["id"], "red");
    assert_eq!(bob.closes().await, CloseReason::SessionEnded);
}

#[tokio::test]
async fn a_gateway_that_stops_closes_everybody_so_that_they_come_back() {
    let gateway = TestGateway::start().await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    gateway.core.live.close_all(CloseReason::Draining).await.unwrap();
    assert_eq!(ann.closes().await, CloseReason::Draining);
}
