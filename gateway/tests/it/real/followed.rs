//! Whatever a shard answers is believed: clients follow Redis, also where nobody said a word.

use serde_json::json;

use super::{
    boards::{ANN, BOB},
    cluster::{Cluster, NAMES, item_path, up},
    expected::User,
    node::{Clients, spec},
    redis::Redis,
};

const USERS: [User<'static>; 4] = [ANN, BOB, ANN, BOB];
/// On the shard that is tried.
const TRIED: usize = 2;

/// Opens a client of each user at each gateway.
async fn open(cluster: &Cluster) -> Clients {
    let mut specs = Vec::new();
    for (at, user) in USERS.iter().enumerate() {
        let cookie = cluster.session(user.id, user.teams).await;
        let (version, transport) = [("4.8", "websocket"), ("2.5.0", "polling")][at % 2];
        specs.push(spec(version, transport, &cluster.gateways[at / 2].url(), &cookie));
    }
    let clients = Clients::start(specs);
    clients.ready().await;
    clients
}

/// Gives the shard that is tried a list of tasks that the team sees, and returns its feed.
async fn tasks(cluster: &Cluster) -> String {
    cluster.seed().await;
    let feed = |n: usize| format!("team.red.members.m{n}.tasks");
    let n = (0..).find(|n| cluster.owner(&feed(*n)) == TRIED).expect("a shard has feeds");
    let member = json!({ "id": format!("m{n}"), "item": {} });
    cluster.post("team.red.members", member).await;
    for title in 0..6 {
        let item = json!({ "item": { "title": title }, "type": "sorted_feed" });
        cluster.post(&feed(n), item).await;
    }
    feed(n)
}

#[tokio::test]
async fn a_replica_that_lost_the_last_writes_is_believed_after_a_failover() {
    let mut cluster = Cluster::start().await;
    let tasks = tasks(&cluster).await;
    let mut clients = open(&cluster).await;
    let replica = Redis::start("replica").await;
    replica.replicate(&cluster.shards[TRIED]).await;
    cluster.settled(&mut clients, &USERS).await;

    // What the replica does not hear of any more, clients see and lose again.
    replica.text(&["REPLICAOF", "NO", "ONE"]).await;
    let lost = cluster.post(&tasks, json!({ "item": { "title": "lost" } })).await;
    for (id, method, body) in
        [("1", "PUT", json!({ "item": "other" })), ("2", "DELETE", json!(null))]
    {
        cluster.gateways[1].api(method, &item_path(&tasks, id), Some(body)).await;
    }
    for client in 0..clients.len() {
        clients.hears_event(client, "publish", |said| said["id"] == *lost).await;
    }
    cluster.settled(&mut clients, &USERS).await;
    cluster.shards[TRIED].kill();
    for gateway in &cluster.gateways {
        gateway.counts(&up(NAMES[TRIED]), 0.0).await;
    }
    let dead = std::mem::replace(&mut cluster.shards[TRIED], replica);
    cluster.shards[TRIED].take_over(&dead).await;
    for client in 0..clients.len() {
        clients.hears_event(client, "retract", |said| said["id"] == *lost).await;
    }
    cluster.settled(&mut clients, &USERS).await;
    cluster.gateways[0].writes(&tasks, json!({ "item": { "title": "a new one" } })).await;
    cluster.settled(&mut clients, &USERS).await;
    for client in 0..clients.len() {
        assert_eq!(clients.count(client, "connect"), 1);
        assert_eq!(clients.events(client).iter().filter(|(name, _)| name == "initial").count(), 1);
    }
}
