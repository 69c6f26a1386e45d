//! What is written to feeds, by whom ever, reaches exactly those who see them.

use std::process::Command;

use serde_json::{Value, json};

use super::{
    boards::{ANN, BOB, EVE, NEMO},
    cluster::{Cluster, item_path},
    expected::User,
    node::{Clients, spec},
    program::{python, tests},
    redis::Reply,
};

/// A writer that is not ours: what it does is what Thoonk's Python library does, in its order.
struct Thoonk<'a>(&'a Cluster);

impl Thoonk<'_> {
    /// Publishes or edits by the ten lines of Python that the README shows.
    fn publish(&self, feed: &str, id: &str, item: &str) {
        let done = Command::new(python())
            .arg(tests("py/publisher.py"))
            .args([&self.0.shard(feed).url(), feed, id, item])
            .output()
            .expect("Python runs");
        assert!(done.status.success(), "publisher.py: {done:?}");
    }

    async fn retract(&self, feed: &str, id: &str) {
        let shard = self.0.shard(feed);
        shard
            .transaction(&[
                &[b"ZREM", key("ids", feed).as_bytes(), id.as_bytes()],
                &[b"HDEL", key("items", feed).as_bytes(), id.as_bytes()],
            ])
            .await;
        shard.text(&["PUBLISH", &format!("feed.retract:{feed}"), id]).await;
    }

    async fn append(&self, feed: &str, item: &str) -> String {
        let shard = self.0.shard(feed);
        let Reply::Number(id) = shard.text(&["INCR", &key("idincr", feed)]).await else {
            panic!("INCR gives a number")
        };
        let id = id.to_string();
        let notice = format!("{id}\0{item}");
        shard
            .transaction(&[
                &[b"RPUSH", key("ids", feed).as_bytes(), id.as_bytes()],
                &[b"HSET", key("items", feed).as_bytes(), id.as_bytes(), item.as_bytes()],
                &[b"PUBLISH", format!("feed.publish:{feed}").as_bytes(), notice.as_bytes()],
                &[
                    b"PUBLISH",
                    format!("feed.position:{feed}").as_bytes(),
                    format!("{id}\0:end").as_bytes(),
                ],
            ])
            .await;
        id
    }

    async fn edit_sorted(&self, feed: &str, id: &str, item: &str) {
        let shard = self.0.shard(feed);
        shard
            .transaction(&[
                &[b"INCR", key("publishes", feed).as_bytes()],
                &[b"HSET", key("items", feed).as_bytes(), id.as_bytes(), item.as_bytes()],
            ])
            .await;
        shard.text(&["PUBLISH", &format!("feed.publish:{feed}"), &format!("{id}\0{item}")]).await;
    }

    async fn move_before(&self, feed: &str, id: &str, next: &str) {
        let ids = key("ids", feed);
        let notice = format!("{id}\0:{next}");
        self.0
            .shard(feed)
            .transaction(&[
                &[b"LREM", ids.as_bytes(), b"1", id.as_bytes()],
                &[b"LINSERT", ids.as_bytes(), b"BEFORE", next.as_bytes(), id.as_bytes()],
                &[b"PUBLISH", format!("feed.position:{feed}").as_bytes(), notice.as_bytes()],
            ])
            .await;
    }

    async fn retract_sorted(&self, feed: &str, id: &str) {
        self.0
            .shard(feed)
            .transaction(&[
                &[b"LREM", key("ids", feed).as_bytes(), b"1", id.as_bytes()],
                &[b"HDEL", key("items", feed).as_bytes(), id.as_bytes()],
                &[b"PUBLISH", format!("feed.retract:{feed}").as_bytes(), id.as_bytes()],
            ])
            .await;
    }
}

fn key(kind: &str, feed: &str) -> String {
    format!("feed.{kind}:{feed}")
}

/// Clients, what each has to have heard, and what was written.
struct Audience<'a> {
    cluster: &'a Cluster,
    clients: Clients,
    users: Vec<User<'a>>,
    heard: Vec<Vec<String>>,
}

impl<'a> Audience<'a> {
    /// Opens clients by all doors, generations and transports: two of each user.
    async fn gather(cluster: &'a Cluster, users: &[User<'a>]) -> Self {
        let doors = [cluster.gateways[0].url(), cluster.gateways[1].url(), cluster.front()];
        let ways = [
            ("4.8", "websocket"),
            ("2.5.0", "polling"),
            ("2.5.0", "websocket"),
            ("4.8", "polling"),
        ];
        let (mut specs, mut twice) = (Vec::new(), Vec::new());
        for user in users {
            let cookie = cluster.session(user.id, user.teams).await;
            for _ in 0..2 {
                let at = specs.len();
                let (version, transport) = ways[(at + at / ways.len()) % ways.len()];
                specs.push(spec(version, transport, &doors[at % doors.len()], &cookie));
                twice.push(*user);
            }
        }
        let clients = Clients::start(specs);
        clients.ready().await;
        let heard = vec![vec!["initial".to_owned()]; twice.len()];
        Self { cluster, clients, users: twice, heard }
    }

    /// Waits until those for whom it is have heard an event, and notes it.
    async fn hear(&mut self, is_for: impl Fn(&User<'_>) -> bool, name: &str, feed: &str, id: &str) {
        let told = format!("{name} {feed} {id}");
        for client in 0..self.users.len() {
            if !is_for(&self.users[client]) {
                continue;
            }
            self.heard[client].push(told.clone());
            let count = self.heard[client].len();
            self.clients
                .hears(client, &told, |said| {
                    let events = said.iter().filter(|said| said["t"] == "event");
                    (events.count() >= count).then_some(())
                })
                .await;
        }
    }

    /// Shows that everybody heard exactly what was for them: by what they hear next.
    async fn proves(&mut self) {
        self.cluster.settled(&mut self.clients, &self.users).await;
        for user in &self.users {
            self.cluster.emit(&format!("user:{}", user.id), "marker", json!({})).await;
        }
        for client in 0..self.users.len() {
            // Twice, as each user is here twice.
            self.clients
                .hears(client, "the markers", |said| {
                    let marks = said.iter().filter(|said| said["name"] == "marker");
                    (marks.count() == 2).then_some(())
                })
                .await;
            let events = self.clients.events(client);
            let told: Vec<String> =
                events.iter().filter(|(name, _)| name != "marker").map(told).collect();
            assert_eq!(told, self.heard[client], "client {client}: {:?}", self.users[client]);
            assert_eq!(self.clients.count(client, "connect"), 1);
        }
    }
}

fn told((name, argument): &(String, Value)) -> String {
    let text = |key: &str| argument[key].as_str().unwrap_or_default().to_owned();
    match name.as_str() {
        "initial" => name.clone(),
        "reset" => {
            let parent = argument["parent"]["id"].as_str().unwrap_or_default();
            format!("reset {} {parent}", text("feed"))
        }
        _ => format!("{name} {} {}", text("feed"), text("id")),
    }
}

fn in_red(user: &User<'_>) -> bool {
    user.teams.contains(&"red")
}

fn is_ann(user: &User<'_>) -> bool {
    user.id == "ann"
}

#[tokio::test]
async fn what_is_written_reaches_exactly_those_who_see_it() {
    let cluster = Cluster::start().await;
    cluster.seed().await;
    let mut audience = Audience::gather(&cluster, &[ANN, BOB, EVE, NEMO]).await;
    let [first, second] = &cluster.gateways;

    // A team's plain feed, by the HTTP API.
    let members = "team.red.members";
    let item = json!({ "item": { "name": "Ann, renamed" } });
    first.done("PUT", &item_path(members, "ann"), Some(item.clone())).await;
    audience.hear(in_red, "change", members, "ann").await;
    // The same bytes again are no news, which the next event shows.
    second.done("PUT", &item_path(members, "ann"), Some(item)).await;
    let item = json!({ "item": { "name": "Bob, renamed" } });
    second.done("PUT", &item_path(members, "bob"), Some(item)).await;
    audience.hear(in_red, "change", members, "bob").await;
    let raw = json!({ "item": "a text" });
    first.done("PUT", &item_path(members, "list"), Some(raw)).await;
    audience.hear(in_red, "change", members, "list").await;
    first.done("DELETE", &item_path(members, "list"), None).await;
    audience.hear(in_red, "retract", members, "list").await;

    // A team's sorted feed, by the HTTP API.
    let tasks = "team.red.members.ann.tasks";
    let item = json!({ "item": { "title": "at the end" }, "type": "sorted_feed" });
    let end = cluster.post(tasks, item).await;
    audience.hear(in_red, "publish", tasks, &end).await;
    let item = json!({ "item": { "title": "first" }, "type": "sorted_feed", "position": "begin:" });
    let begin = cluster.post(tasks, item).await;
    audience.hear(in_red, "publish", tasks, &begin).await;
    let item = json!({ "item": { "title": "before" }, "position": format!(":{end}") });
    let before = cluster.post(tasks, item).await;
    audience.hear(in_red, "publish", tasks, &before).await;
    let to = json!({ "position": format!("{begin}:") });
    second.done("POST", &format!("{}/position", item_path(tasks, &end)), Some(to)).await;
    audience.hear(in_red, "position", tasks, &end).await;
    let item = json!({ "item": { "title": "edited" } });
    second.done("PUT", &item_path(tasks, &end), Some(item)).await;
    audience.hear(in_red, "change", tasks, &end).await;
    second.done("DELETE", &item_path(tasks, &before), None).await;
    audience.hear(in_red, "retract", tasks, &before).await;

    // The same feeds, by a writer of Thoonk's own manner.
    let thoonk = Thoonk(&cluster);
    thoonk.publish(members, "bob", r#"{"name": "by Python", "price": 1.0e2}"#);
    audience.hear(in_red, "change", members, "bob").await;
    thoonk.publish(members, "ann", "no JSON 🐍");
    audience.hear(in_red, "change", members, "ann").await;
    thoonk.retract(members, "x.y/z").await;
    audience.hear(in_red, "retract", members, "x.y/z").await;
    let id = thoonk.append(tasks, r#"{"title": "raw"}"#).await;
    audience.hear(in_red, "publish", tasks, &id).await;
    thoonk.move_before(tasks, &id, &begin).await;
    audience.hear(in_red, "position", tasks, &id).await;
    thoonk.edit_sorted(tasks, &id, r#"{"title": "raw, edited"}"#).await;
    audience.hear(in_red, "change", tasks, &id).await;
    thoonk.retract_sorted(tasks, &end).await;
    audience.hear(in_red, "retract", tasks, &end).await;

    // What is one user's own, and what is behind the models of a team and a user.
    let notes = "user.ann.notes";
    let item = json!({ "item": { "text": "private" }, "type": "sorted_feed" });
    let id = cluster.post(notes, item).await;
    audience.hear(is_ann, "publish", notes, &id).await;
    first.done("DELETE", &item_path(notes, &id), None).await;
    audience.hear(is_ann, "retract", notes, &id).await;
    first.done("PUT", &item_path("teams", "red"), Some(json!({ "item": { "name": "Rot" } }))).await;
    audience.hear(in_red, "change", "teams", "red").await;
    thoonk.publish("users", "ann", r#"{"name": "Ann II"}"#);
    audience.hear(is_ann, "change", "users", "ann").await;
    // What had no item behind its model has one now.
    thoonk.publish("users", "nemo", r#"{"name": "Nemo"}"#);
    audience.hear(|user| user.id == "nemo", "change", "users", "nemo").await;
    // Another team's feed comes last: it is heard there and nowhere else.
    let blue = |user: &User<'_>| user.teams.contains(&"blue");
    thoonk.retract("team.blue.members", "raw").await;
    audience.hear(blue, "retract", "team.blue.members", "raw").await;

    audience.proves().await;
}

#[tokio::test]
async fn what_hangs_below_an_item_comes_and_goes_with_it() {
    let cluster = Cluster::start().await;
    cluster.seed().await;
    let mut audience = Audience::gather(&cluster, &[ANN, EVE]).await;
    let thoonk = Thoonk(&cluster);
    let members = "team.red.members";

    // Her tasks are there before she is.
    let tasks = "team.red.members.zoe.tasks";
    let item = json!({ "item": { "title": "waiting for zoe" }, "type": "sorted_feed" });
    let waiting = cluster.post(tasks, item).await;
    cluster.post(members, json!({ "id": "zoe", "item": { "name": "Zoe" } })).await;
    audience.hear(in_red, "publish", members, "zoe").await;
    audience.hear(in_red, "reset", tasks, "zoe").await;
    let id = thoonk.append(tasks, r#"{"title": "the next"}"#).await;
    audience.hear(in_red, "publish", tasks, &id).await;
    let to = json!({ "position": "begin:" });
    let path = format!("{}/position", item_path(tasks, &id));
    cluster.gateways[1].done("POST", &path, Some(to)).await;
    audience.hear(in_red, "position", tasks, &id).await;

    // A member whose tasks nobody has made yet.
    thoonk.publish(members, "new.one", r#"{"name": "New"}"#);
    let others = "team.red.members.new%2Eone.tasks";
    audience.hear(in_red, "publish", members, "new.one").await;
    audience.hear(in_red, "reset", others, "new.one").await;
    let other = thoonk.append(others, r#"{"title": "her first"}"#).await;
    audience.hear(in_red, "publish", others, &other).await;

    // With a member go her tasks: what is written to them is heard by nobody.
    cluster.gateways[0].done("DELETE", &item_path(members, "zoe"), None).await;
    audience.hear(in_red, "retract", members, "zoe").await;
    cluster.gateways[0].done("DELETE", &item_path(tasks, &waiting), None).await;
    thoonk.append(tasks, r#"{"title": "unheard"}"#).await;
    thoonk.edit_sorted(others, &other, r#"{"title": "heard"}"#).await;
    audience.hear(in_red, "change", others, &other).await;

    // When she comes back, so do they, as they are by now.
    thoonk.publish(members, "zoe", r#"{"name": "Zoe again"}"#);
    audience.hear(in_red, "publish", members, "zoe").await;
    audience.hear(in_red, "reset", tasks, "zoe").await;
    thoonk.retract_sorted(tasks, &id).await;
    audience.hear(in_red, "retract", tasks, &id).await;
    audience.proves().await;
}
