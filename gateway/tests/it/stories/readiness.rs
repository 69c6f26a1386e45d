//! When a gateway is ready: it hears its shards, or nobody does.

use std::time::{Duration, Instant};

use super::gateway::{BOARD, TestGateway, World, user};

const TASKS: &str = "team.red.members.ann.tasks";

async fn is_ready(gateway: &TestGateway) -> bool {
    match gateway.request("GET", "/readyz", "").await.0 {
        200 => true,
        404 => false,
        status => panic!("readiness is 200 or 404, not {status}"),
    }
}

/// Waits until the gateway is ready, or is not; returns how long that took.
async fn until_ready(gateway: &TestGateway, ready: bool) -> Duration {
    let began = Instant::now();
    while is_ready(gateway).await != ready {
        assert!(began.elapsed() < Duration::from_secs(10), "readiness never was {ready}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    began.elapsed()
}

#[tokio::test]
async fn a_gateway_whose_own_connection_is_deaf_is_unready_until_it_hears_again() {
    let world = World::new(BOARD, 2);
    let gateway = world.gateway().await;
    gateway.publish("team.red.members", "ann", r#"{"own":1}"#).await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    assert!(is_ready(&gateway).await);
    world.shards.iter().for_each(|shard| shard.deafen_connections());
    let began = Instant::now();
    gateway.append(TASKS, r#"{"own":1}"#).await;
    until_ready(&gateway, false).await;
    until_ready(&gateway, true).await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    ann.follow("the task", |tree| tree.feed(TASKS).is_some_and(|tasks| tasks.ids() == ["1"])).await;
    gateway.append(TASKS, r#"{"own":2}"#).await;
    ann.expect("publish").await;
    ann.check_faults();
}

#[tokio::test]
async fn a_shard_that_nobody_hears_leaves_all_gateways_ready() {
    let world = World::new(BOARD, 1);
    let gateways = [world.gateway().await, world.gateway().await];
    let gateway = &gateways[0];
    gateway.publish("team.red.members", "ann", r#"{"own":1}"#).await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    world.shards[0].set_muted(true);
    gateway.append(TASKS, r#"{"own":1}"#).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(9) {
        for gateway in &gateways {
            assert!(is_ready(gateway).await, "after {:?}", began.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ann.feed("team.red.members").ids(), ["ann"], "what is held is shown");
    world.shards[0].set_muted(false);
    ann.follow("the task", |tree| tree.feed(TASKS).is_some_and(|tasks| tasks.ids() == ["1"])).await;
    assert!(is_ready(gateway).await);
    ann.check_faults();
}

#[tokio::test]
async fn a_shard_that_is_away_leaves_its_gateway_ready() {
    let world = World::new(BOARD, 1);
    let gateway = world.gateway().await;
    gateway.connect(user("ann").in_team("red")).await;
    world.shards[0].set_away(true);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        assert!(is_ready(&gateway).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
