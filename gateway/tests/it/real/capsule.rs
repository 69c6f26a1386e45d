//! capsule.js: in the language of old browsers, as good as a literal client, and spared what it
//! holds when it comes back.

use std::{process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::process::Command;

use super::{
    boards::{ANN, BOB},
    cluster::{Cluster, item_path},
    expected::User,
    http,
    node::{Clients, spec},
    program::{prepared, tests},
};

/// Thousands of histories take a while on a small machine.
const SUITE: Duration = Duration::from_secs(300);

/// Runs a script of `tests/js` and returns what it says.
async fn runs(script: &str, arguments: &[&str]) -> String {
    prepared(tests("js/node_modules/acorn"));
    let output = Command::new("node")
        .arg(tests("js").join(script))
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(SUITE, output).await.expect("it ends in time");
    let output = output.expect("`node` is installed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[tokio::test]
async fn it_is_written_in_the_language_of_the_oldest_browsers() {
    assert_eq!(runs("capsule.es3.js", &[]).await.trim(), "all of it is ES3");
}

#[tokio::test]
async fn it_keeps_its_promises_through_thousands_of_histories() {
    let said = runs("capsule.test.js", &["2000"]).await;
    assert!(said.ends_with("all facts hold\n"), "{said}");
}

#[tokio::test]
async fn it_keeps_them_in_a_browser_without_the_built_ins_of_es5() {
    let said = runs("capsule.browser.js", &["300"]).await;
    assert!(said.ends_with("all facts hold\n"), "{said}");
}

/// How each generation is opened so that it resumes.
const WAYS: [(&str, &str); 5] = [
    ("1.7.4", "polling"),
    ("2.5.0", "websocket"),
    ("3.1.3", "polling"),
    ("4.8", "websocket"),
    ("4.8", "polling"),
];

/// Opens a client of ann's in each of these ways, half of them at each gateway.
async fn open(cluster: &Cluster) -> Clients {
    let cookie = cluster.session(ANN.id, ANN.teams).await;
    let mut specs = Vec::new();
    for (at, (version, transport)) in WAYS.into_iter().enumerate() {
        let mut spec = spec(version, transport, &cluster.gateways[at % 2].url(), &cookie);
        spec["capsule"] = true.into();
        match at {
            4 => spec["extra"] = json!({ "auth": { "resume": 1 } }),
            _ => spec["query"] = "resume=1".into(),
        }
        specs.push(spec);
    }
    let clients = Clients::start(specs);
    clients.ready().await;
    clients
}

/// Lets every client go away and come back to the other gateway once `meanwhile` has happened.
async fn away(cluster: &Cluster, clients: &mut Clients, round: usize, meanwhile: impl AsyncFn()) {
    for client in 0..clients.len() {
        clients.tell(client, json!({ "cmd": "disconnect" })).await;
        clients.says(client, "disconnect", round).await;
    }
    meanwhile().await;
    for client in 0..clients.len() {
        let url = cluster.gateways[(client + round) % 2].url();
        clients.tell(client, json!({ "cmd": "connect", "url": url })).await;
        clients.says(client, "ready", round + 1).await;
    }
}

/// What capsule.js has told its page since it was ready for the last time but one, sorted.
fn told(clients: &Clients, client: usize) -> Vec<String> {
    let said = clients.said(client);
    let disconnect = said.iter().rposition(|said| said["t"] == "disconnect").expect("it was away");
    let told = said[disconnect..].iter().filter(|said| said["t"] == "told");
    let mut told: Vec<String> = told
        .map(|told| {
            let words = ["type", "feed", "id"].map(|key| told[key].as_str().unwrap_or_default());
            words.join(" ").trim().to_owned()
        })
        .collect();
    told.sort();
    told
}

fn initials(clients: &Clients, client: usize) -> usize {
    clients.events(client).iter().filter(|(name, _)| name == "initial").count()
}

async fn settled(cluster: &Cluster, clients: &mut Clients, user: User<'_>) {
    cluster.settled(clients, &WAYS.map(|_| user)).await;
}

async fn ready(clients: &Clients, client: usize, nth: usize) -> Value {
    clients.says(client, "ready", nth).await
}

#[tokio::test]
async fn every_generation_comes_back_to_another_gateway_and_is_told_only_what_it_missed() {
    let cluster = Cluster::start().await;
    cluster.seed().await;
    cluster.post("public.talk", json!({ "id": "a", "item": { "n": 1 } })).await;
    let mut clients = open(&cluster).await;
    for client in 0..clients.len() {
        let answer = clients.call(client, "subscribe", json!({ "feed": "public.talk" })).await;
        assert_eq!(answer["code"], 200, "{answer}");
    }
    settled(&cluster, &mut clients, ANN).await;

    // Nothing has happened: nothing is told, and no feed is sent again.
    away(&cluster, &mut clients, 1, async || ()).await;
    settled(&cluster, &mut clients, ANN).await;
    for client in 0..clients.len() {
        assert_eq!(told(&clients, client), [""; 0], "client {client}");
        let ready = ready(&clients, client, 2).await;
        assert_eq!(ready["reset"], 0, "{ready}");
        assert!(ready["resumed"].as_u64().is_some_and(|resumed| resumed >= 6), "{ready}");
    }

    let tasks = "team.red.members.ann.tasks";
    away(&cluster, &mut clients, 2, async || {
        let gateway = &cluster.gateways[0];
        let path = |id: &str| item_path(tasks, id);
        gateway.done("PUT", &path("2"), Some(json!({ "item": { "title": "zwei" } }))).await;
        let first = json!({ "position": "begin:" });
        gateway.done("POST", &format!("{}/position", path("3")), Some(first)).await;
        gateway.done("DELETE", &path("1"), None).await;
        cluster.post(tasks, json!({ "item": { "title": "four" } })).await;
        cluster.post("user.ann.notes", json!({ "item": { "text": "third" } })).await;
        cluster.post("team.red.members", json!({ "id": "zoe", "item": { "name": "Zoe" } })).await;
        cluster.post("teams", json!({ "id": "red", "item": { "name": "Reds" } })).await;
        cluster.post("public.talk", json!({ "id": "b", "item": { "n": 2 } })).await;
    })
    .await;
    settled(&cluster, &mut clients, ANN).await;
    for client in 0..clients.len() {
        let expected = [
            "change team.red.members.ann.tasks 2",
            "change teams red",
            "position team.red.members.ann.tasks 3",
            "publish public.talk b",
            "publish team.red.members zoe",
            "publish team.red.members.ann.tasks 4",
            "publish user.ann.notes 3",
            "reset team.red.members.zoe.tasks",
            "retract team.red.members.ann.tasks 1",
        ];
        assert_eq!(told(&clients, client), expected, "client {client}");
        assert_eq!(initials(&clients, client), 1, "client {client}");
        let talk = &clients.held(client).await["subscriptions"]["public.talk"]["models"];
        assert_eq!((&talk[0]["id"], &talk[1]["id"]), (&json!("a"), &json!("b")), "{talk}");
    }
}

#[tokio::test]
async fn who_comes_and_goes_while_everybody_writes_ends_as_redis_is() {
    let cluster = Cluster::start().await;
    cluster.seed().await;
    let mut clients = open(&cluster).await;
    for round in 1..=8 {
        for client in 0..clients.len() {
            // Not all at once, so that they come back at various moments of the writing.
            cluster.some_writes(round * 100 + client).await;
            let url = cluster.gateways[(client + round) % 2].url();
            clients.tell(client, json!({ "cmd": "cut", "url": url })).await;
        }
        for client in 0..clients.len() {
            cluster.some_writes(round * 100 + 50 + client).await;
            clients.says(client, "ready", round + 1).await;
        }
    }
    settled(&cluster, &mut clients, ANN).await;
    for client in 0..clients.len() {
        assert_eq!(initials(&clients, client), 1, "client {client}");
        assert_eq!(clients.count(client, "disconnect"), 8, "client {client}");
    }
}

impl Cluster {
    /// Writes a little to the feeds of the team red, something else for each seed.
    async fn some_writes(&self, seed: usize) {
        let member = ["ann", "bob", "zoe"][seed % 3];
        let tasks = format!("team.red.members.{member}.tasks");
        let item = json!({ "item": { "n": seed }, "type": "sorted_feed" });
        let id = self.post(&tasks, item).await;
        let gateway = &self.gateways[seed % 2];
        let first = json!({ "position": "begin:" });
        let path = item_path(&tasks, &id);
        gateway.done("POST", &format!("{path}/position"), Some(first)).await;
        match seed % 4 {
            0 => drop(gateway.done("DELETE", &path, None).await),
            1 => drop(gateway.done("PUT", &path, Some(json!({ "item": [seed] }))).await),
            _ => drop(self.post("teams", json!({ "id": "red", "item": { "n": seed } })).await),
        }
        let zoe = item_path("team.red.members", "zoe");
        match seed % 5 {
            0 => drop(gateway.api("DELETE", &zoe, None).await),
            _ => drop(gateway.done("PUT", &zoe, Some(json!({ "item": { "n": seed } }))).await),
        }
    }
}

#[tokio::test]
async fn who_comes_back_as_somebody_else_holds_nothing_of_who_was_there() {
    let cluster = Cluster::start().await;
    cluster.seed().await;
    let mut clients = open(&cluster).await;
    settled(&cluster, &mut clients, ANN).await;
    away(&cluster, &mut clients, 1, async || {
        cluster.store_session("session-of-ann", BOB.id, BOB.teams).await;
    })
    .await;
    // Who was still taken for ann, by a look-up a moment old, is closed and comes back.
    cluster.gateways[0].done("POST", "/api/users/ann/refresh", None).await;
    settled(&cluster, &mut clients, BOB).await;
    for client in 0..clients.len() {
        assert!(initials(&clients, client) >= 2, "client {client}");
    }
}

#[tokio::test]
async fn a_socket_that_was_not_opened_to_resume_gets_initial_each_time() {
    let cluster = Cluster::start().await;
    cluster.seed().await;
    let cookie = cluster.session(ANN.id, ANN.teams).await;
    let specs = WAYS.map(|(version, transport)| {
        let mut spec = spec(version, transport, &cluster.gateways[0].url(), &cookie);
        spec["capsule"] = true.into();
        spec
    });
    let mut clients = Clients::start(specs.to_vec());
    clients.ready().await;
    away(&cluster, &mut clients, 1, async || {
        cluster.post("user.ann.notes", json!({ "item": { "text": "third" } })).await;
    })
    .await;
    settled(&cluster, &mut clients, ANN).await;
    for client in 0..clients.len() {
        assert_eq!(initials(&clients, client), 2, "client {client}");
        assert_eq!(told(&clients, client), ["initial"], "client {client}");
    }
}

#[tokio::test]
async fn every_gateway_serves_it_and_says_when_it_is_still_right() {
    let cluster = Cluster::start().await;
    let port = cluster.gateways[0].port;
    let get = async |headers: &[(&str, &str)]| {
        http::request(port, "GET", "/capsule.js", headers, None).await.expect("it answers")
    };
    let whole = get(&[]).await;
    assert_eq!(whole.status, 200);
    assert_eq!(whole.header("content-type"), Some("application/javascript; charset=utf-8"));
    assert!(whole.body.contains("var Capsule = "), "{}", whole.body);
    let etag = whole.header("etag").expect("it has one");
    let known = get(&[("If-None-Match", etag)]).await;
    assert_eq!((known.status, known.body.as_str()), (304, ""));
    assert_eq!(get(&[("If-None-Match", "\"older\"")]).await.status, 200);
}
