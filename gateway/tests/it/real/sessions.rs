//! Sessions of a real Express app: who is let in, who is not, and who is sent away.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    boards::{ANN, BOB},
    cluster::{Cluster, OLDER, SECRET, cookie},
    expected::User,
    http::{self, Response},
    node::{Clients, spec},
    program::{Program, prepared, tests},
    redis::Reply,
    until,
};

/// How long those who shall not come back are watched: they would within a second.
const WATCH: Duration = Duration::from_secs(4);

/// What a control message may take at most.
const SOON: Duration = Duration::from_secs(2);

/// An application with express-session and connect-redis.
struct App {
    _program: Program,
    _folder: TempDir,
    port: u16,
}

impl App {
    async fn start(cluster: &Cluster) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        prepared(tests("js/node_modules"));
        let mut command = Command::new("node");
        command.arg(tests("js/express.js")).arg("0").arg(cluster.store().url());
        command.arg(format!("{SECRET},{OLDER}"));
        let mut program = Program::start("express.js", folder.path(), &mut command);
        let port = until("the application listens", async || {
            let ended = program.ended();
            assert!(ended.is_none(), "express.js ended: {ended:?}");
            let said = serde_json::from_str::<Value>(&program.log()).unwrap_or_default();
            said["port"].as_u64().ok_or_else(|| "it does not".to_owned())
        })
        .await;
        let port = u16::try_from(port).expect("a port is a small number");
        Self { _program: program, _folder: folder, port }
    }

    async fn post(&self, path: &str, cookie: &str, body: Value) -> Response {
        let headers: &[(&str, &str)] = if cookie.is_empty() { &[] } else { &[("Cookie", cookie)] };
        let response = http::request(self.port, "POST", path, headers, Some(&body)).await;
        let response = response.unwrap_or_else(|error| panic!("POST {path}: {error}"));
        assert_eq!(response.status, 200, "POST {path}: {response:?}");
        response
    }

    /// Logs a user in and returns the cookie as a browser would send it.
    async fn log_in(&self, body: Value) -> String {
        let response = self.post("/login", "", body).await;
        let cookie = response.header("set-cookie").expect("a login sets a cookie");
        cookie.split(';').next().expect("there is a first part").to_owned()
    }
}

fn user(id: &str, teams: &[&str]) -> Value {
    json!({ "user": { "id": id, "teams": teams } })
}

/// Handshakes of this outcome on a gateway, whatever the protocol.
async fn handshakes(cluster: &Cluster, gateway: usize, outcome: &str) -> f64 {
    let mut sum = 0.0;
    for protocol in ["eio3", "eio4"] {
        let name = "gateway_handshakes_total";
        let metric = format!("{name}{{protocol=\"{protocol}\",outcome=\"{outcome}\"}}");
        sum += cluster.gateways[gateway].metric(&metric).await.unwrap_or_default();
    }
    sum
}

#[tokio::test]
async fn the_cookie_of_an_express_app_opens_a_socket_and_no_other_does() {
    let cluster = Cluster::start().await;
    cluster.seed().await;
    let app = App::start(&cluster).await;
    let good = app.log_in(user("ann", &["red"])).await;
    let mut brief = user("ann", &["red"]);
    brief["max_age"] = 300.into();
    let brief = app.post("/login", "", brief).await.json();
    let brief = brief["session"].as_str().expect("an id is a text").to_owned();

    // Let in: by the app's cookie, whichever of the secrets signed it.
    let session = app.post("/login", "", user("ann", &["red"])).await.json();
    let session = session["session"].as_str().expect("an id is a text").to_owned();
    let older = cookie(&session, OLDER);
    let [first, second] = [cluster.gateways[0].url(), cluster.gateways[1].url()];
    let mut clients = Clients::start(vec![
        spec("4.8", "websocket", &first, &good),
        spec("2.5.0", "polling", &second, &good),
        spec("3.1.3", "polling", &cluster.front(), &older),
        spec("1.7.4", "websocket", &cluster.front(), &format!("connect.sid=s%3Ax.y; {older}")),
    ]);
    clients.ready().await;
    cluster.settled(&mut clients, &[ANN; 4]).await;

    // Refused: forged, unsigned, of nobody, expired, logged out before, none at all.
    let gone = app.log_in(user("ann", &["red"])).await;
    app.post("/logout", &gone, json!({})).await;
    // Gone from the store, and still there with a time that is over.
    until("the brief session has expired", async || {
        let left = cluster.store().text(&["EXISTS", &format!("sess:{brief}")]).await;
        if left == Reply::Number(0) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let mut over = user("ann", &["red"]);
    over["cookie"] = json!({ "originalMaxAge": 300, "expires": "2020-02-02T02:02:02.020Z" });
    cluster.store().text(&["SET", "sess:over", &over.to_string()]).await;
    let bad = [
        cookie(&session, "guessed"),
        format!("connect.sid={session}"),
        format!("connect.sid=s%3A{session}"),
        cookie("nobody", SECRET),
        cookie(&brief, SECRET),
        cookie("over", SECRET),
        gone,
        String::new(),
    ];
    let mut specs = Vec::new();
    for (at, cookie) in bad.iter().enumerate() {
        for version in ["1.7.4", "2.5.0", "3.1.3", "4.8"] {
            let transport = ["websocket", "polling"][(at + specs.len() / 4) % 2];
            specs.push(spec(version, transport, &second, cookie));
        }
    }
    // Each generation on both transports, and as it comes by default.
    for version in ["1.7.4", "2.5.0", "3.1.3", "4.8"] {
        specs.push(spec(version, "websocket", &second, &bad[0]));
        specs.push(spec(version, "polling", &second, &bad[0]));
        let mut upgrading = spec(version, "polling", &second, &bad[0]);
        upgrading["transports"] = json!(["polling", "websocket"]);
        specs.push(upgrading);
    }
    let let_in_before = handshakes(&cluster, 1, "accepted").await;
    let refused = Clients::start(specs.clone());
    for (client, spec) in specs.iter().enumerate() {
        let told = refused
            .hears(client, "why it is refused", |said| {
                let mut told =
                    said.iter().filter(|said| said["t"] == "connect_error" || said["t"] == "error");
                told.next().cloned()
            })
            .await;
        let why = if told["t"] == "error" { &told["value"] } else { &told["message"] };
        assert_eq!(why, "unauthorized", "{spec}: {told}");
    }
    tokio::time::sleep(WATCH).await;
    for (client, spec) in specs.iter().enumerate() {
        let said = refused.said(client);
        assert_eq!(refused.count(client, "attempt"), 0, "{spec}: {said:#?}");
        assert!(refused.events(client).is_empty(), "{spec}: {said:#?}");
    }
    assert_eq!(handshakes(&cluster, 1, "unauthorized").await, specs.len() as f64);
    assert_eq!(handshakes(&cluster, 1, "accepted").await, let_in_before);

    // A page of another site is refused before anybody looks at its cookie.
    let port = cluster.gateways[0].port;
    let own = format!("http://127.0.0.1:{port}");
    for (origin, status) in [
        ("https://evil.example", 403),
        ("null", 403),
        ("https://app.example.com.evil.example", 403),
        ("https://app.example.com", 200),
        (own.as_str(), 200),
    ] {
        for version in ["3", "4"] {
            let path = format!("/socket.io/?EIO={version}&transport=polling");
            let headers = [("Origin", origin), ("Cookie", good.as_str())];
            let response = http::request(port, "GET", &path, &headers, None).await;
            let response = response.expect("the gateway answers");
            assert_eq!(response.status, status, "{origin}: {response:?}");
        }
    }
    for client in 0..clients.len() {
        assert_eq!(clients.count(client, "connect"), 1);
    }
}

#[tokio::test]
async fn logging_out_closes_the_sockets_on_both_gateways_for_good() {
    let cluster = Cluster::start().await;
    cluster.seed().await;
    let app = App::start(&cluster).await;
    let ann = app.log_in(user("ann", &["red"])).await;
    let bob = app.log_in(user("bob", &["blue", "red"])).await;
    let [first, second] = [cluster.gateways[0].url(), cluster.gateways[1].url()];
    let mut clients = Clients::start(vec![
        spec("4.8", "websocket", &first, &ann),
        spec("2.5.0", "polling", &second, &ann),
        spec("2.5.0", "websocket", &second, &ann),
        spec("4.8", "polling", &first, &ann),
        spec("4.8", "websocket", &second, &bob),
    ]);
    clients.ready().await;
    let (anns, bob) = (0..4, 4);
    let since = Instant::now();
    app.post("/logout", &ann, json!({ "announce": true })).await;
    for client in anns.clone() {
        clients.says(client, "disconnect", 1).await;
    }
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    // They come back, are told why not, and stay away.
    for client in anns.clone() {
        clients
            .hears(client, "why it is refused", |said| {
                let is_told = |said: &&Value| {
                    said["value"] == "unauthorized" || said["message"] == "unauthorized"
                };
                said.iter().find(is_told).map(drop)
            })
            .await;
    }
    let attempts: Vec<usize> =
        anns.clone().map(|client| clients.count(client, "attempt")).collect();
    tokio::time::sleep(WATCH).await;
    for client in anns {
        let said = clients.said(client);
        assert_eq!(clients.count(client, "attempt"), attempts[client], "{said:#?}");
        assert_eq!(clients.count(client, "connect"), 1, "{said:#?}");
    }
    assert_eq!(clients.count(bob, "connect"), 1);
    assert_eq!(clients.count(bob, "disconnect"), 0);
    let held = clients.held(bob).await;
    cluster.compare(BOB, &held["tree"]).await.expect("bob holds what Redis holds");
}

#[tokio::test]
async fn changed_teams_take_effect_without_a_reconnect() {
    let cluster = Cluster::start().await;
    cluster.seed().await;
    let app = App::start(&cluster).await;
    let ann = app.log_in(user("ann", &["red"])).await;
    let bob = app.log_in(user("bob", &["blue", "red"])).await;
    let [first, second] = [cluster.gateways[0].url(), cluster.gateways[1].url()];
    let mut clients = Clients::start(vec![
        spec("4.8", "websocket", &first, &ann),
        spec("2.5.0", "polling", &second, &ann),
        // Who stays in both teams keeps them heard on both gateways.
        spec("4.8", "polling", &first, &bob),
        spec("2.5.0", "websocket", &second, &bob),
    ]);
    clients.ready().await;
    let chat = json!({ "feed": "team.red.chat" });
    assert_eq!(clients.call(0, "subscribe", chat).await["code"], 200);

    // Into another team and out of the first, told by one gateway, heard on both.
    app.post("/teams", &ann, json!({ "teams": ["blue"] })).await;
    let told = cluster.gateways[1].done("POST", "/api/users/ann/refresh", None).await;
    assert_eq!(told, json!({ "sockets": 1 }));
    for client in 0..2 {
        clients
            .hears_event(client, "retract", |said| said["feed"] == "teams" && said["id"] == "red")
            .await;
        clients
            .hears_event(client, "publish", |said| said["feed"] == "teams" && said["id"] == "blue")
            .await;
        let members =
            clients.hears_event(client, "reset", |said| said["feed"] == "team.blue.members").await;
        assert_eq!(members["parent"], json!({ "feed": "teams", "id": "blue" }));
    }
    let ended = clients.hears_event(0, "reset", |said| said["feed"] == "team.red.chat").await;
    assert_eq!(ended["collection"], Value::Null);
    assert_eq!(clients.held(0).await["subscriptions"], json!({}));
    let blue = User { id: "ann", teams: &["blue"] };
    cluster.settled(&mut clients, &[blue, blue, BOB, BOB]).await;

    // Of the team that was lost nothing comes any more, of the new one everything.
    let before: Vec<usize> = (0..2).map(|client| clients.events(client).len()).collect();
    let red_tasks = "team.red.members.ann.tasks";
    cluster.post(red_tasks, json!({ "item": { "title": "secret" } })).await;
    cluster.post("team.red.members", json!({ "id": "new", "item": {} })).await;
    cluster.post("team.red.chat", json!({ "item": "psst" })).await;
    cluster.post("teams", json!({ "id": "red", "item": { "name": "Secret" } })).await;
    cluster.post("team.blue.members.eve.tasks", json!({ "item": { "title": "ours" } })).await;
    cluster.settled(&mut clients, &[blue, blue, BOB, BOB]).await;
    cluster.emit("user:ann", "marker", json!(1)).await;
    for (client, before) in before.into_iter().enumerate() {
        clients.hears_event(client, "marker", |_| true).await;
        let events = clients.events(client).split_off(before);
        let heard: Vec<_> =
            events.iter().map(|(name, said)| (name.as_str(), &said["feed"])).collect();
        let ours = json!("team.blue.members.eve.tasks");
        assert_eq!(heard, [("publish", &ours), ("marker", &Value::Null)]);
    }
    // An edit into the lost team is refused.
    let edit = json!({ "feed": red_tasks, "item": { "title": "x" } });
    assert_eq!(clients.call(0, "add", edit).await["code"], 403);

    // And back, by a message of the application's own.
    app.post("/teams", &ann, json!({ "teams": ["red", { "id": "blue" }] })).await;
    let message = json!({ "op": "refresh", "user": "ann" }).to_string();
    cluster.shards[2].text(&["PUBLISH", "gateway.control", &message]).await;
    let both = User { id: "ann", teams: &["blue", "red"] };
    cluster.settled(&mut clients, &[both, both, BOB, BOB]).await;
    for client in 0..clients.len() {
        assert_eq!(clients.count(client, "connect"), 1);
    }
}

#[tokio::test]
async fn a_user_is_sent_away_from_both_gateways_and_finally_if_wanted() {
    let cluster = Cluster::start().await;
    cluster.seed().await;
    let ann = cluster.session(ANN.id, ANN.teams).await;
    let bob = cluster.session(BOB.id, BOB.teams).await;
    let [first, second] = [cluster.gateways[0].url(), cluster.gateways[1].url()];
    let mut clients = Clients::start(vec![
        spec("4.8", "websocket", &first, &ann),
        spec("2.5.0", "polling", &second, &ann),
        spec("2.5.0", "websocket", &second, &ann),
        spec("4.8", "polling", &second, &ann),
        spec("4.8", "websocket", &second, &bob),
    ]);
    clients.ready().await;
    let path = "/api/users/ann/disconnect";
    let told = cluster.gateways[0].done("POST", path, None).await;
    assert_eq!(told, json!({ "sockets": 1 }));
    for client in 0..4 {
        clients.says(client, "disconnect", 1).await;
        clients.says(client, "connect", 2).await;
        clients
            .hears(client, "its state anew", |said| {
                let initials = said.iter().filter(|said| said["name"] == "initial");
                (initials.count() == 2).then_some(())
            })
            .await;
    }
    cluster.settled(&mut clients, &[ANN, ANN, ANN, ANN, BOB]).await;

    let told = cluster.gateways[0].done("POST", path, Some(json!({ "final": true }))).await;
    assert_eq!(told, json!({ "sockets": 1 }));
    for client in 0..4 {
        let left = clients.says(client, "disconnect", 2).await;
        assert_eq!(left["reason"], "io server disconnect", "client {client}");
    }
    let attempts: Vec<usize> = (0..4).map(|client| clients.count(client, "attempt")).collect();
    tokio::time::sleep(WATCH).await;
    for (client, attempts) in attempts.into_iter().enumerate() {
        assert_eq!(clients.count(client, "attempt"), attempts);
        assert_eq!(clients.count(client, "connect"), 2);
    }
    assert_eq!((clients.count(4, "connect"), clients.count(4, "disconnect")), (1, 0));
    // A user of whom there is no socket, and bodies that mean nothing.
    let told = cluster.gateways[0].done("POST", "/api/users/nobody/disconnect", None).await;
    assert_eq!(told, json!({ "sockets": 0 }));
    let bad = cluster.gateways[0].api("POST", path, Some(json!({ "finally": true }))).await;
    assert_eq!(bad.status, 400);
    assert!(bad.json()["errors"].is_array(), "{bad:?}");
}
