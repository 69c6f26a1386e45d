//! What nobody announced is found all the same, and clients see only what changed.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::gateway::{BOARD, TestGateway, World, user};

const MEMBERS: &str = "team.red.members";
const TASKS: &str = "team.red.members.ann.tasks";

/// A board on one shard whose mirrors are compared every second.
async fn board() -> (World, TestGateway) {
    let mut world = World::new(BOARD, 1);
    Arc::make_mut(&mut world.config).mirror.verify_every = Duration::from_secs(1);
    let gateway = world.gateway().await;
    gateway.publish("teams", "red", r#"{"name":"Reds"}"#).await;
    for member in ["ann", "bob", "cid"] {
        gateway.publish(MEMBERS, member, r#"{"own":1}"#).await;
    }
    for number in 0..4 {
        gateway.append(TASKS, format!(r#"{{"own":{number}}}"#)).await;
    }
    (world, gateway)
}

#[tokio::test]
async fn a_write_whose_notice_never_comes_is_one_event() {
    let (world, gateway) = board().await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    world.shards[0].raw(&["HSET", "feed.items:team.red.members", "bob", r#"{"own":2}"#]).unwrap();
    let change = ann.expect("change").await;
    assert_eq!(change["item"], json!({ "own": 2 }));
    world.shards[0].raw(&["LREM", &format!("feed.ids:{TASKS}"), "1", "2"]).unwrap();
    assert_eq!(ann.expect("retract").await["id"], "2");
    world.shards[0].raw(&["HSET", "feed.items:teams", "red", r#"{"name":"Redder"}"#]).unwrap();
    assert_eq!(ann.expect("change").await["item"], json!({ "name": "Redder" }));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty(), "{:?}", ann.names());
    ann.check_faults();
}

#[tokio::test]
async fn a_shard_that_is_flushed_in_silence_empties_its_clients_and_fills_them_again() {
    let (world, gateway) = board().await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    let before = gateway.feeds.all(TASKS).await.unwrap();
    let members = gateway.feeds.all(MEMBERS).await.unwrap();
    world.shards[0].flush();
    ann.follow("nothing", |tree| {
        tree.feed(MEMBERS).is_some_and(|members| members.ids().is_empty())
    })
    .await;
    // A restore puts keys back and announces nothing.
    let raw = |command: &[&str]| world.shards[0].raw(command).unwrap();
    for (id, item) in &members.entries {
        raw(&["HSET", &format!("feed.items:{MEMBERS}"), id, std::str::from_utf8(item).unwrap()]);
        raw(&["ZADD", &format!("feed.ids:{MEMBERS}"), "1", id]);
    }
    for (id, item) in &before.entries {
        raw(&["HSET", &format!("feed.items:{TASKS}"), id, std::str::from_utf8(item).unwrap()]);
        raw(&["RPUSH", &format!("feed.ids:{TASKS}"), id]);
    }
    ann.follow("all of it", |tree| {
        tree.feed(MEMBERS).is_some_and(|members| members.ids().len() == 3)
            && tree.feed(TASKS).is_some_and(|tasks| tasks.ids() == ["1", "2", "3", "4"])
    })
    .await;
    ann.check_faults();
}

#[tokio::test]
async fn a_key_that_is_deleted_by_hand_empties_its_feed_for_clients() {
    for key in ["feed.ids", "feed.items"] {
        let (world, gateway) = board().await;
        let mut ann = gateway.connect(user("ann").in_team("red")).await;
        world.shards[0].raw(&["DEL", &format!("{key}:{TASKS}")]).unwrap();
        ann.follow("no tasks", |tree| tree.feed(TASKS).is_some_and(|tasks| tasks.ids().is_empty()))
            .await;
        assert_eq!(ann.feed(MEMBERS).ids().len(), 3);
        ann.check_faults();
    }
}

#[tokio::test]
async fn a_key_of_the_wrong_type_shows_the_last_good_state_until_it_is_right_again() {
    let (world, gateway) = board().await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    let raw = |command: &[&str]| world.shards[0].raw(command).unwrap();
    raw(&["DEL", &format!("feed.items:{MEMBERS}")]);
    raw(&["SADD", &format!("feed.items:{MEMBERS}"), "what"]);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let mut bob = gateway.connect(user("bob").in_team("red")).await;
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.feed(MEMBERS).ids().len(), 3, "the last good state stays");
        assert!(client.names().is_empty());
    }
    raw(&["DEL", &format!("feed.items:{MEMBERS}")]);
    raw(&["HSET", &format!("feed.items:{MEMBERS}"), "bob", r#"{"own":3}"#]);
    for client in [&mut ann, &mut bob] {
        client
            .follow("bob alone", |tree| tree.feed(MEMBERS).is_some_and(|m| m.ids() == ["bob"]))
            .await;
        client.check_faults();
    }
}
