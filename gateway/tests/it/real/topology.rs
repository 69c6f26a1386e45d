//! A cluster that gets a shard, and another machine for one, while clients are connected.

use std::{fmt::Write, path::Path, process::Command};

use serde_json::{Value, json};
use shard_router::ring::{Node, Ring};

use super::{
    cluster::{Gateway, NAMES, SECRET, config, cookie, escape, gateway, item_path, up},
    node::{Clients, spec},
    program::{Program, free_port},
    redis::Redis,
};

const MEMBERS: usize = 12;

fn tasks(member: usize) -> String {
    format!("team.red.members.m{member}.tasks")
}

fn ring(shards: usize) -> Ring {
    let nodes = NAMES[..shards].iter().map(|name| Node { name: (*name).to_owned(), weight: 1 });
    Ring::new(&nodes.collect::<Vec<_>>()).expect("the names differ")
}

fn write(folder: &Path, version: u64, shards: &[&Redis]) {
    let mut text = format!("version = {version}\n");
    for (name, shard) in NAMES.iter().zip(shards) {
        writeln!(text, "[[nodes]]\nname = '{name}'\nurl = '{}'", shard.url()).unwrap();
    }
    // As whoever wants nobody to read a half.
    let draft = folder.join("topology.draft");
    std::fs::write(&draft, text).expect("a file can be written");
    std::fs::rename(draft, folder.join("topology.toml")).expect("a file can be renamed");
}

/// Copies keys from one server to another, byte for byte.
async fn copy(from: &Redis, to: &Redis, feed: &str) {
    let port = to.port().to_string();
    let kinds = ["ids", "items", "config", "publishes", "idincr"];
    let keys = kinds.map(|kind| format!("feed.{kind}:{feed}"));
    let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "COPY", "REPLACE", "KEYS"];
    words.extend(keys.iter().map(String::as_str));
    from.text(&words).await;
    to.text(&["SADD", "feeds", feed]).await;
}

fn hang_up(program: &Program) {
    let status = Command::new("kill").args(["-HUP", &program.id().to_string()]).status();
    assert!(status.expect("`kill` can be run").success(), "`kill -HUP` failed");
}

#[tokio::test]
async fn a_new_shard_and_another_machine_cost_nobody_the_connection() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (first, mut second, third, machine) = tokio::join!(
        Redis::start("first"),
        Redis::start("second"),
        Redis::start("third"),
        Redis::start("machine")
    );
    write(folder.path(), 1, &[&first, &second]);
    let ports = (free_port(), free_port());
    let urls = [first.url(), second.url(), third.url()];
    let text = config("g1", ports, &urls, &first.url());
    let (before, rest) = text.split_once("nodes = [").expect("it lists shards");
    let (_, after) = rest.split_once("]\n").expect("it lists shards");
    let text = format!("{before}topology = 'topology.toml'\n{after}");
    let mut g1 = Gateway::start("g1", folder.path(), ports, &text);
    let file = folder.path().join("g1.toml");
    let worker =
        Program::start("worker", folder.path(), gateway().arg("worker").arg("--config").arg(file));
    g1.ready().await;
    for name in &NAMES[..2] {
        g1.counts(&up(name), 1.0).await;
    }

    g1.writes("teams", json!({ "id": "red", "item": { "name": "Red" } })).await;
    for member in 0..MEMBERS {
        let item = json!({ "id": format!("m{member}"), "item": {} });
        g1.writes("team.red.members", item).await;
        let item = json!({ "item": { "title": "first" }, "type": "sorted_feed" });
        g1.writes(&tasks(member), item).await;
    }
    let session = json!({ "cookie": {}, "user": { "id": "ann", "teams": ["red"] } }).to_string();
    first.text(&["SET", "sess:of-ann", &session]).await;
    let cookie = cookie("of-ann", SECRET);
    let ways = [("4.8", "websocket"), ("2.5.0", "polling")];
    let specs = ways.map(|(version, transport)| spec(version, transport, &g1.url(), &cookie));
    let mut clients = Clients::start(specs.into());
    clients.ready().await;

    // Everything of the second shard is on another machine, what comes to the third is there.
    let (two, three) = (ring(2), ring(3));
    let mut feeds: Vec<String> = (0..MEMBERS).map(tasks).collect();
    feeds.extend(["teams", "team.red.members", "users", "user.ann.notes"].map(str::to_owned));
    for feed in &feeds {
        let from = [&first, &second][two.owner(feed.as_bytes())];
        match three.owner(feed.as_bytes()) {
            1 => copy(&second, &machine, feed).await,
            2 => copy(from, &third, feed).await,
            _ => {}
        }
    }
    let moved = (0..MEMBERS).find(|m| three.owner(tasks(*m).as_bytes()) == 2);
    let moved = tasks(moved.expect("a third of many moves"));
    let elsewhere = (0..MEMBERS).find(|m| three.owner(tasks(*m).as_bytes()) == 1);
    let elsewhere = tasks(elsewhere.expect("a third of many stays on the second"));
    // One item is another there, of which nobody hears.
    let items = format!("feed.items:{moved}");
    third.text(&["HSET", &items, "1", r#"{"title":"unheard"}"#]).await;

    write(folder.path(), 2, &[&first, &machine, &third]);
    hang_up(&g1.program);
    hang_up(&worker);
    g1.counts("gateway_topology_version", 2.0).await;
    for client in 0..clients.len() {
        let title = |event: &Value| event["item"]["title"] == "unheard";
        let change = clients.hears_event(client, "change", title).await;
        assert_eq!(change["feed"], moved);
    }
    for name in NAMES {
        g1.counts(&up(name), 1.0).await;
    }
    second.kill();

    // What is written now is heard where it is written, by whatever door.
    for feed in [&moved, &elsewhere] {
        let item = json!({ "item": { "title": "written" } });
        g1.done("PUT", &item_path(feed, "1"), Some(item)).await;
        for client in 0..clients.len() {
            let fits =
                |event: &Value| event["feed"] == **feed && event["item"]["title"] == "written";
            clients.hears_event(client, "change", fits).await;
        }
        let change = json!({ "feed": feed, "id": "1", "change": { "title": "edited" } });
        let answer = clients.call(0, "set", change).await;
        assert_eq!(answer["code"], 200, "{answer}");
        let fits = |event: &Value| event["feed"] == **feed && event["item"]["title"] == "edited";
        clients.hears_event(1, "change", fits).await;
    }
    let (status, shown) = {
        let response = g1.api("GET", "/api/topology", None).await;
        (response.status, response.json())
    };
    assert_eq!((status, &shown["version"]), (200, &json!(2)));
    assert_eq!(shown["fingerprint"], three.fingerprint());
    assert_eq!(shown["shards"][1]["url"], machine.url());

    for client in 0..clients.len() {
        assert_eq!(clients.count(client, "connect"), 1);
        assert_eq!(clients.count(client, "disconnect"), 0);
        let others = clients.events(client).into_iter().filter(|(name, _)| name != "change");
        let others: Vec<String> = others.map(|(name, _)| name).collect();
        assert_eq!(others, ["initial"], "nothing is sent anew");
        let changes = clients.events(client).len() - 1;
        assert_eq!(changes, 5, "{:#?}", clients.events(client));
    }
    for feed in &feeds {
        let path = format!("/api/feeds/{}", escape(feed));
        g1.done("GET", &path, None).await;
    }
}
