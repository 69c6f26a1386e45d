//! What clients are shown when they come, by whatever door, generation and transport.

use serde_json::json;

use super::{
    cluster::Cluster,
    expected::User,
    node::{Clients, spec},
};

pub(super) const ANN: User<'_> = User { id: "ann", teams: &["red"] };
pub(super) const BOB: User<'_> = User { id: "bob", teams: &["blue", "red"] };
pub(super) const EVE: User<'_> = User { id: "eve", teams: &["blue"] };
pub(super) const NEMO: User<'_> = User { id: "nemo", teams: &[] };

impl Cluster {
    /// Fills the shards with two teams, two lists of notes, and some odd items.
    pub(super) async fn seed(&self) {
        self.post("teams", json!({ "id": "red", "item": { "name": "Red" } })).await;
        self.post("teams", json!({ "id": "blue", "item": { "name": "Blau 💙", "id": 7 } })).await;
        self.post("users", json!({ "id": "ann", "item": { "name": "Ann" } })).await;
        for (team, members) in [("red", &["ann", "bob", "x.y/z"][..]), ("blue", &["bob", "eve"])] {
            let feed = format!("team.{team}.members");
            for member in members {
                self.post(&feed, json!({ "id": member, "item": { "name": member } })).await;
                let tasks = format!("{feed}.{}.tasks", super::expected::part(member));
                for title in ["one", "two 東京", "three"] {
                    let item = json!({ "title": title, "n": 1.5 });
                    self.post(&tasks, json!({ "item": item, "type": "sorted_feed" })).await;
                }
            }
        }
        for user in ["ann", "eve"] {
            for text in ["first", "second"] {
                let item = json!({ "text": text });
                let feed = format!("user.{user}.notes");
                self.post(&feed, json!({ "item": item, "type": "sorted_feed" })).await;
            }
        }
        // What is no object and what is no JSON is shown as well.
        self.post("team.red.members", json!({ "id": "list", "item": [1, "2"] })).await;
        let shard = self.shard("team.blue.members");
        shard
            .transaction(&[
                &[b"ZADD", b"feed.ids:team.blue.members", b"1700000000.25", b"raw"],
                &[b"HSET", b"feed.items:team.blue.members", b"raw", b"no { JSON \xff"],
            ])
            .await;
    }
}

#[tokio::test]
async fn every_client_is_shown_what_redis_holds_by_every_door() {
    let cluster = Cluster::start().await;
    cluster.seed().await;
    let doors = [cluster.gateways[0].url(), cluster.gateways[1].url(), cluster.front()];
    let users = [ANN, BOB, EVE, NEMO];
    let (mut specs, mut shown) = (Vec::new(), Vec::new());
    for (at, user) in users.iter().enumerate() {
        let cookie = cluster.session(user.id, user.teams).await;
        for (door, url) in doors.iter().enumerate() {
            let version = ["4.8", "2.5.0"][(at + door) % 2];
            for transport in ["websocket", "polling"] {
                specs.push(spec(version, transport, url, &cookie));
                shown.push(*user);
            }
        }
    }
    let mut clients = Clients::start(specs);
    clients.ready().await;
    for (client, user) in shown.iter().enumerate() {
        let events = clients.events(client);
        let [(name, initial)] = events.as_slice() else { panic!("client {client}: {events:?}") };
        assert_eq!(name, "initial");
        if let Err(difference) = cluster.compare(*user, initial).await {
            panic!("client {client}, {}: {difference}", user.id);
        }
        assert_eq!(clients.count(client, "connect"), 1);
    }
    cluster.settled(&mut clients, &shown).await;
}
