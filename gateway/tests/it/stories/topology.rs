//! Topologies that change while clients are connected.

use std::{path::PathBuf, time::Duration};

use serde_json::json;
use shard_router::{
    feed::{Kind, Position},
    router::Router,
    shard::memory::MemoryShard,
    topology::Topology,
};
use tempfile::TempDir;

use super::{
    client::{TestClient, eventually},
    gateway::{BOARD, TestGateway, World, user},
};

/// The file of a topology, and the shards that it names from time to time.
struct File {
    folder: TempDir,
}

impl File {
    fn new(text: &str) -> Self {
        let file = Self { folder: tempfile::tempdir().unwrap() };
        file.write(text);
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("topology.toml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }
}

/// A document in which each shard is at a database of this number.
fn document(version: u64, shards: &[(&str, usize)]) -> String {
    let nodes = shards
        .iter()
        .map(|(name, at)| format!("{{ name = '{name}', url = 'redis://127.0.0.1:1/{at}' }}"));
    format!("version = {version}\nnodes = [{}]", nodes.collect::<Vec<_>>().join(", "))
}

fn parsed(document: &str) -> Topology {
    Topology::from_toml(document).unwrap()
}

const ONE: &[(&str, usize)] = &[("a", 0), ("b", 1)];
const TWO: &[(&str, usize)] = &[("a", 0), ("b", 1), ("c", 2)];
/// `b` is somewhere else, and `a` is gone.
const THREE: &[(&str, usize)] = &[("c", 2), ("b", 3)];

impl TestGateway {
    async fn version(&self) -> u64 {
        let (_, _, body) = self.request("GET", "/api/topology", "").await;
        let shown: serde_json::Value = serde_json::from_str(&body).unwrap();
        shown["version"].as_u64().unwrap()
    }

    async fn goes_by(&self, version: u64) {
        eventually("the topology is gone by", async || self.version().await == version).await;
    }

    async fn counts(&self, line: &str) -> bool {
        let (_, _, metrics) = self.request("GET", "/metrics", "").await;
        metrics.lines().any(|counted| counted.starts_with(line) && !counted.ends_with(" 0"))
    }
}

/// Copies a feed as whoever changes a topology does, without a notice.
async fn copy(feed: &str, from: &Router, to: &MemoryShard) {
    let content = from.all(feed).await.unwrap();
    if content.kind == Kind::Unknown {
        return;
    }
    let (ids, items) = (format!("feed.ids:{feed}"), format!("feed.items:{feed}"));
    for (place, (id, item)) in content.entries.iter().enumerate() {
        match content.kind {
            Kind::Sorted => to.raw(&["RPUSH", &ids, id]).unwrap(),
            _ => to.raw(&["ZADD", &ids, &place.to_string(), id]).unwrap(),
        };
        to.raw(&[b"HSET", items.as_bytes(), id.as_bytes(), item]).unwrap();
    }
    let kind = if content.kind == Kind::Sorted { "sorted_feed" } else { "feed" };
    to.raw(&["HSET", &format!("feed.config:{feed}"), "type", kind]).unwrap();
    let counter = content.entries.len().to_string();
    to.raw(&["SET", &format!("feed.idincr:{feed}"), &counter]).unwrap();
}

/// Copies what another topology has elsewhere.
async fn copy_all(world: &World, feeds: &[String], from: &Router, then: &Topology) {
    let to = world.router(then.clone());
    for feed in feeds {
        let name = &then.shards[then.owner(feed)].name;
        let stays = from.topology().is_some_and(|now| {
            now.shards.iter().any(|shard| *shard == then.shards[then.owner(feed)])
                && now.shards[now.owner(feed)].name == *name
        });
        if !stays {
            let at = THREE.iter().chain(TWO).find(|(named, _)| named == name).unwrap().1;
            copy(feed, from, &world.shards[at]).await;
            assert_eq!(to.all(feed).await.unwrap(), from.all(feed).await.unwrap());
        }
    }
}

#[tokio::test]
async fn feeds_move_to_other_shards_and_clients_see_only_what_differs() {
    let file = File::new(&document(1, ONE));
    let world = World::in_file(BOARD, &file.path(), 4);
    let (one, two) = (parsed(&document(1, ONE)), parsed(&document(2, TWO)));
    let three = parsed(&document(3, THREE));
    let gateway = world.gateway().await;
    gateway.work();

    // A team whose tasks come to the third shard, while its members stay.
    let tasks_of = |team: &str| format!("team.{team}.members.ann.tasks");
    let members_of = |team: &str| format!("team.{team}.members");
    let is_fit = |team: &String| {
        two.owner(&tasks_of(team)) == 2
            && two.owner(&members_of(team)) == one.owner(&members_of(team))
    };
    let team = (0..).map(|number| format!("t{number}")).find(is_fit).unwrap();
    let (tasks, members) = (tasks_of(&team), members_of(&team));
    let feeds = [&tasks, &members, "teams", "user.ann.notes", "public.news"]
        .map(|feed: &str| feed.to_owned());
    gateway.publish("teams", &team, r#"{"name":"Reds"}"#).await;
    gateway.publish(&members, "ann", r#"{"own":1}"#).await;
    for number in 0..3 {
        gateway.append(&tasks, format!(r#"{{"own":{number}}}"#)).await;
    }
    gateway.publish("public.news", "1", r#"{"own":1}"#).await;
    gateway.heard().await;
    let mut ann = gateway.connect(user("ann").in_team(&team)).await;
    assert_eq!(ann.call("subscribe", json!({ "feed": "public.news" })).await["code"], 200);
    let before = gateway.feeds.pinned();

    // One task is there that nobody heard of.
    copy_all(&world, &feeds, &before, &two).await;
    let then = world.router(two.clone());
    then.edit(&tasks, "2", r#"{"own":9}"#).await.unwrap();
    file.write(&document(2, TWO));
    gateway.goes_by(2).await;
    let change = ann.expect("change").await;
    assert_eq!((&change["feed"], &change["id"]), (&json!(tasks), &json!("2")));
    assert_eq!(ann.feed(&tasks).v, change["v"].as_str().map(str::to_owned));
    assert!(gateway.counts(r#"gateway_mirror_repairs_total{cause="topology"}"#).await);
    works(&gateway, &mut ann, &tasks, &members).await;

    // What somebody writes where the feed was is not shown.
    before.edit(&tasks, "1", r#"{"own":"old"}"#).await.unwrap();
    nothing_more(&gateway, &mut ann).await;

    // One shard goes, one is another machine.
    let before = gateway.feeds.pinned();
    copy_all(&world, &feeds, &before, &three).await;
    file.write(&document(3, THREE));
    gateway.goes_by(3).await;
    gateway.heard().await;
    works(&gateway, &mut ann, &tasks, &members).await;
    for feed in [&tasks, &members, "public.news"] {
        let held: Vec<_> = ann.feed(feed).models.iter().map(|model| model.id.clone()).collect();
        assert_eq!(held, gateway.feeds.ids(feed).await.unwrap(), "{feed}");
    }
    nothing_more(&gateway, &mut ann).await;
    assert!(ann.closed.is_none());
}

/// Everything that reaches a client still does.
async fn works(gateway: &TestGateway, ann: &mut TestClient, tasks: &str, members: &str) {
    gateway.insert(tasks, r#"{"own":5}"#, Position::Begin).await;
    assert_eq!(ann.expect("publish").await["position"], "begin:");
    gateway.edit(members, "ann", json!({ "own": tasks.len() })).await;
    assert_eq!(ann.expect("change").await["feed"], members);
    gateway.edit(members, "ann", r#"{"own":1}"#).await;
    ann.expect("change").await;
    gateway.publish("public.news", "1", r#"{"own":2}"#).await;
    assert_eq!(ann.expect("change").await["feed"], "public.news");
    gateway.publish("public.news", "1", r#"{"own":1}"#).await;
    ann.expect("change").await;

    // A job is put, carried out and answered, and its edit comes back as an event.
    let added = json!({ "feed": tasks, "item": { "title": "by edit" } });
    let answer = ann.call("add", added).await;
    assert!(answer["code"].as_u64().is_some_and(|code| code < 300), "{answer}");
    assert_eq!(ann.expect("publish").await["feed"], tasks);
}

#[track_caller]
fn nothing_more<'a>(
    gateway: &'a TestGateway,
    ann: &'a mut TestClient,
) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        ann.quiet(gateway).await;
        assert!(ann.names().is_empty(), "{caller}: {:?}", ann.names());
        ann.check_faults();
    }
}

#[tokio::test]
async fn a_file_that_is_not_right_changes_nothing() {
    let file = File::new(&document(2, ONE));
    let world = World::in_file(BOARD, &file.path(), 4);
    let gateway = world.gateway().await;
    gateway.publish("teams", "red", r#"{"name":"Reds"}"#).await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;

    let broken = document(3, TWO).replace("redis://", "nowhere://");
    for text in [broken, document(1, TWO), document(2, TWO), "version = ".to_owned()] {
        file.write(&text);
        // Long enough for it to be looked at twice.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(gateway.version().await, 2, "{text}");
    }
    assert!(gateway.counts(r#"gateway_topology_changes_total{outcome="refused"}"#).await);
    std::fs::remove_file(file.path()).unwrap();
    gateway.publish("team.red.members", "ann", r#"{"own":1}"#).await;
    ann.expect("publish").await;
    ann.expect("reset").await;

    file.write(&document(3, TWO));
    gateway.goes_by(3).await;
    gateway.heard().await;
    ann.quiet(&gateway).await;
    assert!(ann.closed.is_none());
}
