//! Feeds that are too large to be mirrored are heard all the same.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use shard_router::feed::Position;

use super::{
    client::TestClient,
    gateway::{BOARD, TestGateway, World, user},
};

const MEMBERS: &str = "team.red.members";
const TASKS: &str = "team.red.members.ann.tasks";

/// A gateway that mirrors feeds of no more than three small items.
async fn small() -> (World, TestGateway) {
    let mut world = World::new(BOARD, 2);
    let mirror = &mut Arc::make_mut(&mut world.config).mirror;
    mirror.max_feed_bytes = 3 * 220;
    mirror.verify_every = Duration::from_secs(1);
    let gateway = world.gateway().await;
    gateway.publish("teams", "red", r#"{"name":"Reds"}"#).await;
    (world, gateway)
}

/// Waits until nothing is at hand any more of what was read.
async fn until_dropped() {
    tokio::time::sleep(Duration::from_millis(3_500)).await;
}

fn no_reset(client: &TestClient) {
    assert!(!client.log.iter().any(|got| got.name == "reset"), "nobody is told anew");
}

#[tokio::test]
async fn a_sorted_feed_that_is_too_large_is_shown_and_followed_without_a_version() {
    let (_, gateway) = small().await;
    gateway.publish(MEMBERS, "ann", r#"{"own":1}"#).await;
    for number in 0..5 {
        gateway.append(TASKS, format!(r#"{{"own":{number}}}"#)).await;
    }
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    assert_eq!(ann.feed(TASKS).ids(), ["1", "2", "3", "4", "5"]);
    assert_eq!(ann.feed(TASKS).v, None);
    assert!(ann.feed(MEMBERS).v.is_some(), "others are mirrored");
    until_dropped().await;

    gateway.insert(TASKS, r#"{"own":6}"#, Position::Before("2".to_owned())).await;
    let publish = ann.expect("publish").await;
    assert_eq!((&publish["position"], &publish["v"]), (&json!(":2"), &json!(null)));
    gateway.shift(TASKS, "1", ":end").await;
    ann.expect("position").await;
    gateway.edit(TASKS, "3", r#"{"own":33}"#).await;
    assert_eq!(ann.expect("change").await["item"], json!({ "own": 33 }));
    gateway.retract(TASKS, "4").await;
    ann.expect("retract").await;
    let expected = ["6", "2", "3", "5", "1"];
    assert_eq!(ann.feed(TASKS).ids(), expected);

    // Who comes now is shown all of it, and who is there hears nothing of that.
    let mut bob = gateway.connect(user("bob").in_team("red")).await;
    assert_eq!(bob.feed(TASKS).ids(), expected);
    assert_eq!(bob.feed(TASKS).model("3").json()["own"], 33);
    gateway.append(TASKS, r#"{"own":7}"#).await;
    for client in [&mut ann, &mut bob] {
        client.expect("publish").await;
        assert_eq!(client.feed(TASKS).ids(), ["6", "2", "3", "5", "1", "7"]);
        no_reset(client);
        client.check_faults();
    }
    let (_, _, body) = gateway.request("GET", "/api/users/ann", "").await;
    assert!(body.contains(&format!(r#""{TASKS}":null"#)), "{body}");
}

#[tokio::test]
async fn what_hangs_below_a_feed_that_is_too_large_comes_and_goes_with_its_items() {
    let (_, gateway) = small().await;
    for member in ["ann", "bob", "cid", "dan"] {
        gateway.publish(MEMBERS, member, r#"{"own":1}"#).await;
    }
    gateway.append(TASKS, r#"{"own":1}"#).await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    assert_eq!(ann.feed(MEMBERS).v, None);
    until_dropped().await;
    let tasks = |member: &str| format!("{MEMBERS}.{member}.tasks");
    gateway.append(&tasks("eve"), r#"{"own":1}"#).await;
    gateway.publish(MEMBERS, "eve", r#"{"own":2}"#).await;
    ann.expect("publish").await;
    assert_eq!(ann.expect("reset").await["feed"], tasks("eve").as_str());
    gateway.append(&tasks("eve"), r#"{"own":2}"#).await;
    ann.expect("publish").await;
    gateway.retract(MEMBERS, "bob").await;
    ann.expect("retract").await;
    let mut bob = gateway.connect(user("bob").in_team("red")).await;
    for client in [&mut ann, &mut bob] {
        client.quiet(&gateway).await;
        let mut ids: Vec<_> = client.feed(MEMBERS).ids().into_iter().map(str::to_owned).collect();
        ids.sort();
        assert_eq!(ids, ["ann", "cid", "dan", "eve"]);
        assert_eq!(client.feed(&tasks("eve")).ids(), ["1", "2"]);
        assert_eq!(client.feed(TASKS).ids(), ["1"]);
        assert!(client.names().is_empty(), "{:?}", client.names());
        client.check_faults();
    }
}

#[tokio::test]
async fn after_a_lost_connection_a_feed_that_is_too_large_is_told_anew_once() {
    let (world, gateway) = small().await;
    for number in 0..5 {
        gateway.publish("public.news", &number.to_string(), r#"{"own":1}"#).await;
    }
    let mut clients = Vec::new();
    for name in ["ann", "bob"] {
        let mut client = gateway.connect(user(name)).await;
        let answer = client.call("subscribe", json!({ "feed": "public.news" })).await;
        assert_eq!(answer["collection"]["v"], json!(null));
        assert_eq!(answer["collection"]["models"].as_array().unwrap().len(), 5);
        clients.push(client);
        until_dropped().await;
    }
    let shard = world.shard_of("public.news");
    shard.set_muted(true);
    gateway.retract("public.news", "3").await;
    shard.set_muted(false);
    shard.drop_connections();
    for client in &mut clients {
        client
            .follow("the lost retract", |tree| {
                tree.feed("public.news").is_some_and(|news| news.ids().len() == 4)
            })
            .await;
        client.quiet(&gateway).await;
        assert_eq!(client.log.iter().filter(|got| got.name == "reset").count(), 1);
        client.check_faults();
    }
}

#[tokio::test]
async fn a_feed_that_grows_too_large_and_shrinks_again_is_right_throughout() {
    let (world, gateway) = small().await;
    let mut ann = gateway.connect(user("ann")).await;
    ann.call("subscribe", json!({ "feed": "public.news" })).await;
    for number in 0..8 {
        gateway.publish("public.news", &number.to_string(), r#"{"own":1}"#).await;
        ann.expect("publish").await;
    }
    assert_eq!(ann.feed("public.news").v, None);
    assert_eq!(ann.feed("public.news").ids().len(), 8);
    until_dropped().await;
    for number in 0..6 {
        gateway.retract("public.news", &number.to_string()).await;
        ann.expect("retract").await;
    }
    world.shard_of("public.news").drop_connections();
    ann.expect("reset").await;
    assert!(ann.feed("public.news").v.is_some(), "it is mirrored again");
    gateway.publish("public.news", "9", r#"{"own":1}"#).await;
    assert!(ann.expect("publish").await["v"].is_string());
    let mut ids: Vec<_> = ann.feed("public.news").ids().into_iter().map(str::to_owned).collect();
    ids.sort();
    assert_eq!(ids, ["6", "7", "9"]);
}
