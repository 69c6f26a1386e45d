//! Every generation through HAProxy, which routes by the name that session ids begin with.
//!
//! The clients keep no cookie but their session's, so that nothing else can hold them together.

use std::{path::Path, process::Command};

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest, error::Error},
};

use super::{
    cluster::{Cluster, Gateway, item_path},
    http,
    node::Clients,
    program::{Program, free_port, prepared, root},
    until,
};

const VERSIONS: [&str; 5] = ["1.4.8", "1.7.4", "2.5.0", "3.1.3", "4.8"];

/// The transports that a client is told to use, in this order.
const WAYS: [&[&str]; 3] = [&["polling"], &["websocket"], &["polling", "websocket"]];

/// How many clients a gateway takes: all of a test's, and some.
const MOST: usize = 40;

async fn cluster() -> Cluster {
    let cluster = Cluster::start_with(&format!("[limits]\nmax_connections = {MOST}\n")).await;
    cluster.seed().await;
    cluster
}

/// A client of each version and way, each of a user of its own in the team red.
async fn one_of_each(cluster: &Cluster, front: &str, name: &str) -> (Clients, Vec<String>) {
    let (mut specs, mut users) = (Vec::new(), Vec::new());
    for version in VERSIONS {
        for way in WAYS {
            let user = format!("{name}{}", users.len());
            let cookie = cluster.session(&user, &["red"]).await;
            specs.push(json!({
                "version": version,
                "url": front,
                "transports": way,
                "cookie": cookie,
                "userFeed": "users",
            }));
            users.push(user);
        }
    }
    let clients = Clients::start(specs);
    clients.ready().await;
    for client in 0..clients.len() {
        let last = WAYS[client % WAYS.len()].last().expect("a way has a transport").to_string();
        let is_there = move |said: &[Value]| {
            said.iter().any(|said| said["t"] == "transport" && said["name"] == last).then_some(())
        };
        clients.hears(client, "its last transport", is_there).await;
    }
    (clients, users)
}

/// Asserts that nothing ever went wrong with a client.
fn is_whole(clients: &Clients, client: usize) {
    let said = clients.said(client);
    assert_eq!(clients.count(client, "connect"), 1, "client {client}: {said:#?}");
    for trouble in ["disconnect", "connect_error", "error", "attempt"] {
        assert_eq!(clients.count(client, trouble), 0, "client {client}: {said:#?}");
    }
}

/// Asserts that a client is where its session's id says it is, and nowhere else.
async fn is_at_its_gateway(cluster: &Cluster, clients: &Clients, client: usize, user: &str) {
    let said = clients.gateway(client);
    for (gateway, name) in cluster.gateways.iter().zip(["g1", "g2"]) {
        let seen = gateway.done("GET", &format!("/api/users/{user}"), None).await;
        let count = seen["sockets"].as_array().map_or(0, Vec::len);
        let expected = usize::from(said == name);
        assert_eq!(count, expected, "client {client} says `{said}`: {name} has {seen}");
    }
}

/// Every client hears an event, and is answered when it calls.
async fn all_hear_and_are_answered(cluster: &Cluster, clients: &mut Clients, name: &str) {
    let path = item_path("team.red.members", "ann");
    let body = json!({ "item": { "name": name } });
    cluster.gateways[0].done("PUT", &path, Some(body)).await;
    for client in 0..clients.len() {
        clients.hears_event(client, "change", |change| change["item"]["name"] == name).await;
        let feed = json!({ "feed": "team.red.chat" });
        let answer = clients.call(client, "subscribe", feed.clone()).await;
        assert_eq!(answer["code"], 200, "client {client}: {answer}");
        let answer = clients.call(client, "unsubscribe", feed).await;
        assert_eq!(answer["code"], 200, "client {client}: {answer}");
    }
}

/// Clients that stay and say nothing.
type Idle = Vec<WebSocketStream<MaybeTlsStream<TcpStream>>>;

/// Fills a gateway, not through HAProxy, until it takes no more.
async fn fill(cluster: &Cluster, gateway: &Gateway) -> Idle {
    let cookie = cluster.session("idle", &[]).await;
    let mut idle = Vec::new();
    loop {
        assert!(idle.len() <= MOST, "the gateway is never full");
        let address =
            format!("ws://127.0.0.1:{}/socket.io/?EIO=4&transport=websocket", gateway.port);
        let mut request = address.into_client_request().expect("it is an address");
        request.headers_mut().insert("cookie", cookie.parse().expect("it is plain text"));
        match connect_async(request).await {
            Ok((mut websocket, _)) => {
                websocket.send(Message::text("40")).await.expect("the gateway lives");
                idle.push(websocket);
            }
            Err(Error::Http(refused)) => {
                assert_eq!(refused.status(), 503);
                return idle;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// How many handshakes a gateway has refused because it is full.
async fn refused(gateway: &Gateway) -> f64 {
    let mut refused = 0.0;
    for protocol in ["eio3", "eio4"] {
        let metric =
            format!("gateway_handshakes_total{{protocol=\"{protocol}\",outcome=\"refused\"}}");
        refused += gateway.metric(&metric).await.unwrap_or(0.0);
    }
    refused
}

/// Starts HAProxy by the file for production, with the addresses of this cluster in it.
fn production(cluster: &Cluster, folder: &Path) -> (Program, u16) {
    let template = prepared(root().join("deploy/haproxy/haproxy.cfg"));
    let mut text = std::fs::read_to_string(template).expect("the file can be read");
    let mut change = |from: &str, to: String| {
        assert!(text.contains(from), "deploy/haproxy/haproxy.cfg has no `{from}`");
        text = text.replace(from, &to);
    };
    let front = free_port();
    change("bind :80", format!("bind 127.0.0.1:{front}"));
    // A test may not have so many descriptors.
    change("maxconn 20000", "maxconn 2000".to_owned());
    change("/run/haproxy", folder.display().to_string());
    change("/var/lib/haproxy", folder.display().to_string());
    change("    server g3 10.0.0.13:3000\n", String::new());
    for (gateway, address) in cluster.gateways.iter().zip(["10.0.0.11:3000", "10.0.0.12:3000"]) {
        change(address, format!("127.0.0.1:{} port {}", gateway.port, gateway.admin()));
    }
    let file = folder.join("production.cfg");
    std::fs::write(&file, text).expect("a file can be written");
    let mut command = Command::new("haproxy");
    (Program::start("production", folder, command.arg("-db").arg("-f").arg(file)), front)
}

#[tokio::test]
async fn every_client_is_whole_while_one_gateway_refuses_new_ones() {
    let cluster = cluster().await;
    all_are_whole_behind(&cluster, &cluster.front()).await;
}

#[tokio::test]
async fn every_client_is_whole_behind_the_file_for_production_too() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (_haproxy, front) = production(&cluster, folder.path());
    until("HAProxy listens", async || {
        http::request(front, "GET", "/capsule.js", &[], None).await.map(drop)
    })
    .await;
    all_are_whole_behind(&cluster, &format!("http://127.0.0.1:{front}")).await;
}

async fn all_are_whole_behind(cluster: &Cluster, front: &str) {
    let (mut first, users) = one_of_each(cluster, front, "first").await;
    let at = |clients: &Clients, name: &str| {
        (0..clients.len()).filter(|client| clients.gateway(*client) == name).count()
    };
    let (one, two) = (at(&first, "g1"), at(&first, "g2"));
    assert_eq!(one + two, first.len(), "each session's id begins with a gateway's name");
    assert!(one > 0 && two > 0, "{one} at one and {two} at the other");

    let idle = fill(cluster, &cluster.gateways[0]).await;
    assert_eq!(idle.len() + one, MOST);
    let before = refused(&cluster.gateways[0]).await;
    let (mut second, others) = one_of_each(cluster, front, "second").await;
    assert_eq!(at(&second, "g2"), second.len(), "the other gateway has them all");
    let asked = refused(&cluster.gateways[0]).await - before;
    assert!(asked > 0.0, "HAProxy never asked the gateway that refuses");

    for (name, clients, users) in [("one", &mut first, &users), ("two", &mut second, &others)] {
        all_hear_and_are_answered(cluster, clients, name).await;
        for (client, user) in users.iter().enumerate() {
            is_whole(clients, client);
            is_at_its_gateway(cluster, clients, client, user).await;
        }
    }
    drop(idle);
}

#[tokio::test]
async fn clients_of_a_gateway_that_dies_come_back_at_the_other() {
    let mut cluster = cluster().await;
    let (mut clients, users) = one_of_each(&cluster, &cluster.front(), "user").await;
    let lost: Vec<_> = (0..clients.len()).filter(|at| clients.gateway(*at) == "g2").collect();
    assert!(!lost.is_empty() && lost.len() < clients.len(), "{lost:?} are at g2");
    cluster.gateways[1].program.kill();
    for client in lost.iter().copied() {
        clients
            .hears(client, "that its connection is lost", |said| {
                said.iter().any(|said| said["t"] == "disconnect").then_some(())
            })
            .await;
        until(&format!("client {client} is at g1"), async || {
            let (at, said) = (clients.gateway(client), clients.said(client));
            if at == "g1" { Ok(()) } else { Err(format!("it is at `{at}`: {said:#?}")) }
        })
        .await;
        let left = clients.says(client, "disconnect", 1).await;
        assert_ne!(left["reason"], "io server disconnect", "nobody would come back after it");
    }
    let body = json!({ "item": { "name": "still here" } });
    let path = item_path("team.red.members", "ann");
    cluster.gateways[0].done("PUT", &path, Some(body)).await;
    for (client, user) in users.iter().enumerate() {
        clients
            .hears_event(client, "change", |change| change["item"]["name"] == "still here")
            .await;
        let answer = clients.call(client, "subscribe", json!({ "feed": "team.red.chat" })).await;
        assert_eq!(answer["code"], 200, "client {client}: {answer}");
        if !lost.contains(&client) {
            is_whole(&clients, client);
        }
        let seen = cluster.gateways[0].done("GET", &format!("/api/users/{user}"), None).await;
        assert!(seen["sockets"].as_array().is_some_and(|it| !it.is_empty()), "{user}: {seen}");
    }
}

#[tokio::test]
async fn an_id_whose_gateway_is_unknown_starts_anew_and_no_cookie_is_set() {
    let cluster = cluster().await;
    let cookie = cluster.session("ann", &["red"]).await;
    let port = cluster.front_port();
    let ask = async |query: &str| {
        let path = format!("/socket.io/?EIO=4&transport=polling{query}");
        let headers = [("Cookie", cookie.as_str())];
        http::request(port, "GET", &path, &headers, None).await.expect("HAProxy answers")
    };
    let open = ask("").await;
    assert_eq!((open.status, open.header("set-cookie")), (200, None), "{open:?}");
    for sid in ["g9.AAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAA", "g1.AAAAAAAAAAAAAAAAAAAA"] {
        let unknown = ask(&format!("&sid={sid}")).await;
        assert_eq!((unknown.status, unknown.json()["code"].as_u64()), (400, Some(1)), "{sid}");
    }
}
