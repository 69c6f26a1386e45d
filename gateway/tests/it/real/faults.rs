//! What breaks, and what goes on meanwhile.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    PATIENCE,
    boards::{ANN, BOB, EVE},
    cluster::{Cluster, Gateway, NAMES, SECRET, config, cookie, gateway, item_path, up},
    expected::{User, part},
    http,
    node::{Clients, spec},
    program::free_port,
    redis::{Redis, Reply},
    until,
};

/// Opens two clients of each user, one at each gateway.
async fn open(cluster: &Cluster, users: &[User<'_>]) -> Clients {
    let ways = [("4.8", "websocket"), ("2.5.0", "polling"), ("4.8", "polling")];
    let mut specs = Vec::new();
    for user in users {
        let cookie = cluster.session(user.id, user.teams).await;
        for gateway in &cluster.gateways {
            let (version, transport) = ways[specs.len() % ways.len()];
            specs.push(spec(version, transport, &gateway.url(), &cookie));
        }
    }
    let clients = Clients::start(specs);
    clients.ready().await;
    clients
}

fn twice<'a>(users: &[User<'a>]) -> Vec<User<'a>> {
    users.iter().flat_map(|user| [*user; 2]).collect()
}

fn connected_once(clients: &Clients) {
    for client in 0..clients.len() {
        let said = clients.said(client);
        assert_eq!(clients.count(client, "connect"), 1, "{said:#?}");
        assert_eq!(clients.count(client, "disconnect"), 0, "{said:#?}");
    }
}

/// Members of the team red whose tasks are on the shard that dies, and on another.
///
/// The first shard also has the sessions and lives.
fn members(cluster: &Cluster) -> (String, String) {
    let tasks = |n: usize| format!("team.red.members.m{n}.tasks");
    let dies = (0..).find(|n| cluster.owner(&tasks(*n)) == 2).expect("a shard has feeds");
    let lives = (0..).find(|n| cluster.owner(&tasks(*n)) == 1).expect("a shard has feeds");
    (format!("m{dies}"), format!("m{lives}"))
}

fn tasks_of(member: &str) -> String {
    format!("team.red.members.{}.tasks", part(member))
}

/// Writes on and on to a feed, until told to stop, and counts what was written.
struct Writers {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
}

impl Writers {
    /// By the HTTP API of each gateway, and by Lua as anybody may.
    fn start(cluster: &Cluster, feeds: &[&str]) -> Self {
        let mut writers =
            Self { tasks: JoinSet::new(), stop: Arc::default(), written: Arc::default() };
        for feed in feeds {
            for gateway in &cluster.gateways {
                let (stop, written) = (writers.stop.clone(), writers.written.clone());
                let write = gateway.writer(feed);
                writers.tasks.spawn(async move {
                    for n in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        written.fetch_add(usize::from(write(n).await), Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                });
            }
            let (stop, written) = (writers.stop.clone(), writers.written.clone());
            let (write, feed) = (cluster.shard(feed).writer(), (*feed).to_owned());
            writers.tasks.spawn(async move {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let id = format!("raw{n}");
                    written.fetch_add(usize::from(write(&feed, &id).await), Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(15)).await;
                }
            });
        }
        writers
    }

    /// Waits until so many more were written.
    async fn go_on(&self, count: usize) {
        let goal = self.written.load(Ordering::Relaxed) + count;
        until(&format!("{count} more are written"), async || {
            let written = self.written.load(Ordering::Relaxed);
            if written >= goal { Ok(()) } else { Err(format!("{written} of {goal}")) }
        })
        .await;
    }

    async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a writer does not panic");
        }
    }
}

#[tokio::test]
async fn a_shard_that_dies_in_the_middle_of_traffic_costs_nobody_the_connection() {
    let mut cluster = Cluster::start().await;
    cluster.seed().await;
    let (dying, living) = members(&cluster);
    for member in [&dying, &living] {
        cluster.post("team.red.members", json!({ "id": member, "item": {} })).await;
        let item = json!({ "item": { "title": "the first" }, "type": "sorted_feed" });
        cluster.post(&tasks_of(member), item).await;
    }
    let users = twice(&[ANN, BOB]);
    let mut clients = open(&cluster, &[ANN, BOB]).await;
    let (dying, living) = (tasks_of(&dying), tasks_of(&living));
    assert_eq!((cluster.owner(&dying), cluster.owner(&living)), (2, 1));
    // One of them also hears a feed of that shard by its name.
    let public = (0..).map(|n| format!("public.{n}")).find(|feed| cluster.owner(feed) == 2);
    let public = public.expect("a shard has feeds");
    let answer = clients.call(0, "subscribe", json!({ "feed": public })).await;
    assert_eq!(answer["code"], 200, "{answer}");
    let writers = Writers::start(&cluster, &[&dying, &living, &public]);
    writers.go_on(40).await;

    cluster.shards[2].kill();
    for gateway in &cluster.gateways {
        gateway.counts(&up(NAMES[2]), 0.0).await;
        gateway.counts(&up(NAMES[1]), 1.0).await;
        let ready = gateway.api("GET", "/readyz", None).await;
        assert_eq!(ready.status, 200, "one shard takes no gateway away");
        let away = gateway.api("GET", &format!("/api/feeds/{dying}"), None).await;
        assert_eq!(away.status, 503, "{away:?}");
    }
    // The others go on, and are heard.
    writers.go_on(40).await;
    let live = cluster.post(&living, json!({ "item": { "title": "meanwhile" } })).await;
    for client in 0..clients.len() {
        let is_it = |said: &Value| said["feed"] == *living && said["id"] == *live;
        clients.hears_event(client, "publish", is_it).await;
    }
    // Who comes now is told what is known, and that the rest cannot be read.
    let cookie = cluster.session(EVE.id, EVE.teams).await;
    let added = json!({ "feed": dying, "item": { "title": "an edit without its shard" } });
    let answer = clients.call(0, "add", added).await;
    assert_eq!(answer["code"], 503, "{answer}");
    let mut newcomer =
        Clients::start(vec![spec("4.8", "websocket", &cluster.gateways[0].url(), &cookie)]);
    newcomer.ready().await;

    cluster.shards[2].restart().await;
    for gateway in &cluster.gateways {
        gateway.counts(&up(NAMES[2]), 1.0).await;
    }
    writers.go_on(80).await;
    writers.stop().await;
    cluster.settled(&mut clients, &users).await;
    cluster.settled(&mut newcomer, &[EVE]).await;
    until("the subscriber holds what Redis holds", async || {
        let held = clients.held(0).await["subscriptions"][&public].clone();
        let expected = cluster.collection(&public, &mut HashSet::new()).await;
        let (v, count) = (&held["v"], held["models"].as_array().map(Vec::len));
        let is_same = *v == expected["v"] && count == expected["models"].as_array().map(Vec::len);
        if is_same { Ok(()) } else { Err(format!("{v} is not {}", expected["v"])) }
    })
    .await;
    connected_once(&clients);
    connected_once(&newcomer);
}

#[tokio::test]
async fn a_shard_that_comes_back_empty_is_believed() {
    let mut cluster = Cluster::start().await;
    cluster.seed().await;
    let (lost, kept) = members(&cluster);
    for member in [&lost, &kept] {
        cluster.post("team.red.members", json!({ "id": member, "item": {} })).await;
        for n in 0..5 {
            let item = json!({ "item": { "title": n }, "type": "sorted_feed" });
            cluster.post(&tasks_of(member), item).await;
        }
    }
    let mut clients = open(&cluster, &[ANN, EVE]).await;
    let users = twice(&[ANN, EVE]);
    cluster.settled(&mut clients, &users).await;
    cluster.shards[2].kill();
    for gateway in &cluster.gateways {
        gateway.counts(&up(NAMES[2]), 0.0).await;
    }
    cluster.shards[2].restart_empty().await;
    cluster.settled(&mut clients, &users).await;
    // Scripts were lost as well; what is written now is heard as ever.
    let item = json!({ "item": { "title": "a new start" }, "type": "sorted_feed" });
    cluster.gateways[0].writes(&tasks_of(&lost), item).await;
    cluster.settled(&mut clients, &users).await;
    connected_once(&clients);
}

#[tokio::test]
async fn what_does_not_fit_the_contract_changes_nothing_and_is_counted() {
    let cluster = Cluster::start().await;
    cluster.seed().await;
    let users = twice(&[ANN, BOB]);
    let mut clients = open(&cluster, &[ANN, BOB]).await;
    let feed = "team.red.members";
    let shard = cluster.shard(feed);
    let error = |kind: &str| format!("gateway_mirror_errors_total{{kind=\"{kind}\"}}");

    // Notices that say nothing, on every channel.
    for verb in ["publish", "edit", "position", "retract"] {
        shard.text(&["PUBLISH", &format!("feed.{verb}:{feed}"), "no NUL in here"]).await;
    }
    shard.text(&["PUBLISH", "gateway.control", "no message"]).await;
    shard.text(&["PUBLISH", "gateway.control", r#"{"op":"disconnect"}"#]).await;
    for gateway in &cluster.gateways {
        until("the notices are counted", async || {
            let count = gateway.metric(&error("notice")).await.unwrap_or_default();
            if count >= 2.0 { Ok(()) } else { Err(format!("{count}")) }
        })
        .await;
        gateway.counts(&error("control"), 2.0).await;
    }
    cluster.settled(&mut clients, &users).await;

    // A key of another type: what was good stays, and the others go on.
    let before = clients.held(0).await["tree"].clone();
    let ids = format!("feed.ids:{feed}");
    let kept = format!("kept:{feed}");
    shard.text(&["RENAME", &ids, &kept]).await;
    shard.text(&["SET", &ids, "no zset"]).await;
    shard.text(&["PUBLISH", &format!("feed.publish:{feed}"), "no NUL in here"]).await;
    for gateway in &cluster.gateways {
        until("the wrong type is counted", async || {
            let count = gateway.metric(&error("wrong_type")).await.unwrap_or_default();
            if count >= 1.0 { Ok(()) } else { Err(format!("{count}")) }
        })
        .await;
        assert!(gateway.program.log().contains(feed), "the log names the feed");
    }
    let read = cluster.gateways[0].api("GET", &format!("/api/feeds/{feed}"), None).await;
    assert_eq!(read.status, 409, "{read:?}");
    assert_eq!(read.header("content-type"), Some("application/problem+json"));
    let item = json!({ "id": "new", "item": {} });
    let write = cluster.gateways[0].api("POST", &format!("/api/feeds/{feed}"), Some(item)).await;
    assert_eq!(write.status, 409, "{write:?}");
    cluster.emit("team:red", "marker", json!(1)).await;
    clients.hears_event(0, "marker", |_| true).await;
    assert_eq!(clients.held(0).await["tree"], before);
    // Repaired by hand: the clients follow.
    shard.text(&["DEL", &ids]).await;
    shard.text(&["RENAME", &kept, &ids]).await;
    cluster.gateways[0].done("PUT", &item_path(feed, "ann"), Some(json!({ "item": "well" }))).await;
    cluster.settled(&mut clients, &users).await;

    // What the HTTP API cannot take.
    let large = json!({ "item": "x".repeat(600 << 10) });
    for (method, path, body, status) in [
        ("POST", "/api/feeds/a%00b".to_owned(), json!({ "item": 1 }), 400),
        ("GET", "/api/feeds/%FF".to_owned(), Value::Null, 400),
        ("PUT", item_path(feed, &"x".repeat(257)), json!({ "item": 1 }), 400),
        ("PUT", item_path(feed, "a\0b"), json!({ "item": 1 }), 400),
        ("POST", format!("/api/feeds/{feed}"), json!({ "itm": 1 }), 400),
        ("POST", format!("/api/feeds/{feed}"), json!({ "item": 1, "type": "queue" }), 400),
        ("PUT", item_path(feed, "ann"), large, 413),
        ("DELETE", item_path(feed, "none"), Value::Null, 404),
        (
            "POST",
            format!("{}/position", item_path(feed, "ann")),
            json!({ "position": "begin:" }),
            409,
        ),
        ("GET", "/api/nothing".to_owned(), Value::Null, 404),
    ] {
        let response = cluster.gateways[0].api(method, &path, Some(body)).await;
        assert_eq!(response.status, status, "{method} {path}: {response:?}");
        let problem = response.json();
        assert_eq!(problem["status"], status, "{method} {path}: {problem}");
        assert_eq!(problem["errors"].is_array(), status == 400, "{method} {path}: {problem}");
    }

    // A session that is no object.
    cluster.store().text(&["SET", "sess:odd", "[1, 2]"]).await;
    let odd = spec("4.8", "websocket", &cluster.gateways[0].url(), &cookie("odd", SECRET));
    let refused = Clients::start(vec![odd]);
    let told = refused.says(0, "connect_error", 1).await;
    assert_eq!(told["message"], "unauthorized");
    assert!(cluster.gateways[0].program.log().contains("session is not a JSON object"));
    connected_once(&clients);
}

#[tokio::test]
async fn a_gateway_starts_before_its_shards_and_its_sessions() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let ports = [free_port(), free_port(), free_port(), free_port()];
    let urls = ports.map(|port| format!("redis://127.0.0.1:{port}"));
    let [one, two, three, store] = urls;
    let doors = (free_port(), free_port());
    let config = config("g1", doors, &[one, two, three], &store);
    let mut gateway = Gateway::start("g1", folder.path(), doors, &config);
    gateway.ready().await;
    for name in NAMES {
        gateway.counts(&up(name), 0.0).await;
    }
    let cookie = cookie("session-of-ann", SECRET);
    let handshake = async || {
        let headers = [("Cookie", cookie.as_str())];
        let path = "/socket.io/?EIO=4&transport=polling";
        http::request(gateway.port, "GET", path, &headers, None).await.expect("it answers").status
    };
    assert_eq!(handshake().await, 503);
    let read = gateway.api("GET", "/api/feeds/any", None).await;
    assert_eq!(read.status, 503, "{read:?}");
    let mut clients = Clients::start(vec![
        spec("4.8", "websocket", &gateway.url(), &cookie),
        spec("2.5.0", "polling", &gateway.url(), &cookie),
    ]);
    for client in 0..2 {
        clients.says(client, "attempt", 1).await;
    }

    // The sessions come first: clients are let in, and told what cannot be read.
    let sessions = Redis::start_on("store", ports[3]).await;
    let session = json!({ "cookie": {}, "user": { "id": "ann", "teams": ["red"] } });
    sessions.text(&["SET", "sess:session-of-ann", &session.to_string()]).await;
    for client in 0..2 {
        let initial = clients.hears_event(client, "initial", |_| true).await;
        let members = &initial["collections"]["teams"]["models"][0]["collections"]["members"];
        let unavailable = json!({
            "id": "team.red.members", "v": null, "models": [], "unavailable": true,
        });
        assert_eq!(members, &unavailable);
    }
    let mut shards = Vec::new();
    for (name, port) in NAMES.iter().zip(ports) {
        shards.push(Redis::start_on(name, port).await);
    }
    for name in NAMES {
        gateway.counts(&up(name), 1.0).await;
    }
    let item = json!({ "id": "ann", "item": { "name": "Ann" } });
    gateway.writes("team.red.members", item).await;
    for client in 0..2 {
        until("the members are there", async || {
            let held = clients.held(client).await["tree"].clone();
            let path = "/collections/teams/models/0/collections/members/models/0/collections/tasks";
            let tasks = held.pointer(path).cloned().unwrap_or_default();
            let is_whole = tasks["v"] == "0".repeat(24) && tasks.get("unavailable").is_none();
            if is_whole { Ok(()) } else { Err(format!("{held}")) }
        })
        .await;
        assert_eq!(clients.count(client, "connect"), 1);
    }

    // A store that goes away again is no missing session: who is in stays.
    drop(sessions);
    // A good answer is kept for a moment.
    until("handshakes are told to come again", async || {
        let status = handshake().await;
        if status == 503 { Ok(()) } else { Err(format!("{status}")) }
    })
    .await;
    let told = gateway.done("POST", "/api/users/ann/refresh", None).await;
    assert_eq!(told, json!({ "sockets": 2 }));
    let item = json!({ "id": "bob", "item": { "name": "Bob" } });
    gateway.writes("team.red.members", item).await;
    for client in 0..2 {
        clients.hears_event(client, "publish", |said| said["id"] == "bob").await;
        assert_eq!(clients.count(client, "disconnect"), 0);
    }
}

#[tokio::test]
async fn mistakes_in_the_configuration_are_listed_together() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("bad.toml");
    let text = r#"
[server]
listen = "nowhere"
lisen  = "127.0.0.1:1"
[session]
secrets = ["x"]
recheck = "soon"
[shards]
nodes = [{ name = "a", url = "http://x" }]
[unheard]
of = 1
"#;
    std::fs::write(&file, text).expect("a file can be written");
    for command in ["serve", "check-config", "worker"] {
        let ended = gateway().arg(command).arg("--config").arg(&file).output();
        let ended = ended.expect("the gateway runs");
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        let said = String::from_utf8_lossy(&ended.stderr);
        for mistake in ["server.listen", "lisen", "recheck", "nodes", "unheard"] {
            assert!(said.contains(mistake), "{command} says nothing of {mistake}:\n{said}");
        }
    }
}

#[tokio::test]
async fn a_gateway_that_is_told_to_end_ends_well_and_its_clients_go_to_the_other() {
    let mut cluster = Cluster::start().await;
    cluster.seed().await;
    let front = cluster.front();
    let (ann, bob) =
        (cluster.session("ann", &["red"]).await, cluster.session("bob", BOB.teams).await);
    let mut clients = Clients::start(vec![
        spec("4.8", "websocket", &front, &ann),
        spec("2.5.0", "polling", &front, &ann),
        spec("2.5.0", "websocket", &front, &bob),
        spec("4.8", "polling", &front, &bob),
    ]);
    clients.ready().await;
    let all = 0..clients.len();
    let sent_away: Vec<_> = all.clone().filter(|at| clients.gateway(*at) == "g1").collect();
    assert_eq!(sent_away.len(), 2, "HAProxy spreads them: {sent_away:?} are at g1");
    let gateway = &mut cluster.gateways[0];
    gateway.program.terminate();
    let ended = gateway.program.end().await;
    assert_eq!(ended.code(), Some(0), "{}", gateway.program.log());
    for client in all.filter(|client| !sent_away.contains(client)) {
        assert_eq!(clients.count(client, "disconnect"), 0, "{:#?}", clients.said(client));
    }
    for client in sent_away {
        clients.says(client, "connect", 2).await;
        clients
            .hears(client, "its state from the other", |said| {
                let initials = said.iter().filter(|said| said["name"] == "initial");
                (initials.count() >= 2).then_some(())
            })
            .await;
        let left = clients.says(client, "disconnect", 1).await;
        assert_ne!(left["reason"], "io server disconnect", "nobody would come back after it");
    }
    let other = &cluster.gateways[1];
    let seen = other.done("GET", "/api/users/ann", None).await;
    // Until HAProxy knows, a polling client may be sent to and fro and leave a session behind.
    assert!(seen["sockets"].as_array().is_some_and(|sockets| sockets.len() >= 2), "{seen}");
    let path = item_path("team.red.members", "ann");
    other.done("PUT", &path, Some(json!({ "item": { "name": "still here" } }))).await;
    cluster.settled(&mut clients, &[ANN, ANN, BOB, BOB]).await;
}

impl Gateway {
    /// Makes something that writes to a sorted feed by the HTTP API and tells whether it could.
    fn writer(&self, feed: &str) -> impl Fn(usize) -> BoxFuture<'static, bool> + Send + use<> {
        let (admin, path) = (self.admin(), format!("/api/feeds/{feed}"));
        move |n| {
            let path = path.clone();
            Box::pin(async move {
                let position = if n % 3 == 0 { "begin:" } else { ":end" };
                let body =
                    json!({ "item": { "n": n }, "type": "sorted_feed", "position": position });
                let headers = [("Authorization", "Bearer token")];
                let asked = http::request(admin, "POST", &path, &headers, Some(&body));
                let asked = tokio::time::timeout(PATIENCE, asked).await.expect("it answers");
                asked.is_ok_and(|response| response.status == 201)
            })
        }
    }
}

impl Redis {
    /// Makes something that appends to a sorted feed as Thoonk does and tells whether it could.
    fn writer(&self) -> impl Fn(&str, &str) -> BoxFuture<'static, bool> + Send + use<> {
        let port = self.port();
        move |feed, id| {
            let (feed, id) = (feed.to_owned(), id.to_owned());
            Box::pin(async move {
                let script = "redis.call('RPUSH', KEYS[1], ARGV[1]) \
                     redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]) \
                     redis.call('PUBLISH', ARGV[3], ARGV[1] .. '\\0' .. ARGV[2]) \
                     redis.call('PUBLISH', ARGV[4], ARGV[1] .. '\\0:end') return 1";
                let words = [
                    "EVAL",
                    script,
                    "2",
                    &format!("feed.ids:{feed}"),
                    &format!("feed.items:{feed}"),
                    &id,
                    r#"{"raw": true}"#,
                    &format!("feed.publish:{feed}"),
                    &format!("feed.position:{feed}"),
                ];
                let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
                super::redis::say_to(port, &words)
                    .await
                    .is_ok_and(|reply| reply == Reply::Number(1))
            })
        }
    }
}
