//! What nobody announces, and connections that live and deliver nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    task::JoinSet,
};

use super::{
    boards::{ANN, BOB},
    cluster::{Cluster, Gateway, NAMES, config, up},
    node::{Clients, spec},
    program::free_port,
    redis::{Redis, Reply},
    until,
};

const VERIFIED: &str = "[mirror]\nverify_every = \"2s\"\n";
const MEMBERS: &str = "team.red.members";
const BY_VERIFYING: &str = "gateway_mirror_repairs_total{cause=\"verify\"}";

async fn open(cluster: &Cluster) -> Clients {
    let mut specs = Vec::new();
    for (at, user) in [ANN, BOB].into_iter().enumerate() {
        let cookie = cluster.session(user.id, user.teams).await;
        specs.push(spec("4.8", "websocket", &cluster.gateways[at].url(), &cookie));
    }
    let clients = Clients::start(specs);
    clients.ready().await;
    clients
}

#[tokio::test]
async fn what_nobody_announces_reaches_clients_without_a_reload() {
    let cluster = Cluster::start_with(VERIFIED).await;
    cluster.seed().await;
    let mut clients = open(&cluster).await;
    cluster.settled(&mut clients, &[ANN, BOB]).await;

    let shard = cluster.shard(MEMBERS);
    let items = format!("feed.items:{MEMBERS}");
    shard.text(&["HSET", &items, "ann", r#"{"name":"by hand"}"#]).await;
    for client in 0..clients.len() {
        clients.hears_event(client, "change", |change| change["item"]["name"] == "by hand").await;
    }
    cluster.settled(&mut clients, &[ANN, BOB]).await;
    for gateway in &cluster.gateways {
        assert!(gateway.metric(BY_VERIFYING).await >= Some(1.0));
    }

    // A shard is emptied and restored by somebody who tells nobody. The first has the sessions.
    let shard = &cluster.shards[1];
    let mut kept = Vec::new();
    for key in shard.text(&["KEYS", "*"]).await.texts() {
        let Reply::Text(dump) = shard.say(&[b"DUMP", &key]).await else { panic!("a key is there") };
        kept.push((key, dump));
    }
    assert!(!kept.is_empty(), "the shard has feeds");
    shard.text(&["FLUSHALL"]).await;
    cluster.settled(&mut clients, &[ANN, BOB]).await;
    for (key, dump) in kept {
        shard.say(&[b"RESTORE", &key, b"0", &dump]).await;
    }
    cluster.settled(&mut clients, &[ANN, BOB]).await;

    shard.text(&["DEL", &items]).await;
    cluster.shard(MEMBERS).text(&["DEL", &format!("feed.ids:{MEMBERS}")]).await;
    cluster.settled(&mut clients, &[ANN, BOB]).await;
    for client in 0..clients.len() {
        assert_eq!(clients.count(client, "connect"), 1);
    }
}

#[tokio::test]
async fn a_shard_that_stands_still_is_shown_and_takes_no_gateway_away() {
    let cluster = Cluster::start_with(VERIFIED).await;
    cluster.seed().await;
    let mut clients = open(&cluster).await;
    let shard = &cluster.shards[2];
    shard.freeze();
    let began = Instant::now();
    for gateway in &cluster.gateways {
        gateway.counts(&up(NAMES[2]), 0.0).await;
        gateway.counts(&up(NAMES[1]), 1.0).await;
    }
    println!("shown as away after {:?}", began.elapsed());
    while began.elapsed() < Duration::from_secs(7) {
        for gateway in &cluster.gateways {
            assert_eq!(gateway.api("GET", "/readyz", None).await.status, 200);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    shard.thaw();
    for gateway in &cluster.gateways {
        gateway.counts(&up(NAMES[2]), 1.0).await;
    }
    cluster.settled(&mut clients, &[ANN, BOB]).await;

    // Connections that are killed, and channels that are refused for a while.
    shard.text(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    cluster.settled(&mut clients, &[ANN, BOB]).await;
    shard.text(&["ACL", "SETUSER", "default", "resetchannels"]).await;
    for gateway in &cluster.gateways {
        gateway.counts(&up(NAMES[2]), 0.0).await;
        assert_eq!(gateway.api("GET", "/readyz", None).await.status, 200);
    }
    shard.text(&["ACL", "SETUSER", "default", "allchannels"]).await;
    for gateway in &cluster.gateways {
        gateway.counts(&up(NAMES[2]), 1.0).await;
    }
    cluster.settled(&mut clients, &[ANN, BOB]).await;
}

/// Stands before a Redis and can keep what is published from connections that are there.
struct Screen {
    port: u16,
    is_deaf: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Screen {
    async fn start(before: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let is_deaf = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let is_deaf = is_deaf.clone();
            async move {
                let mut connections = JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", before)).await else {
                        return;
                    };
                    // Whoever comes while others are deaf hears.
                    let hears = is_deaf.load(Ordering::SeqCst);
                    let is_deaf = is_deaf.clone();
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    connections.spawn(pour(from_client, to_server, || false));
                    let keeps = move || !hears && is_deaf.load(Ordering::SeqCst);
                    connections.spawn(pour(from_server, to_client, keeps));
                }
            }
        });
        Self { port, is_deaf, _tasks: tasks }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

/// Passes on what comes, but for what was published while it `keeps` that.
async fn pour(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, keeps: impl Fn() -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer).await
        && count > 0
    {
        let text = &buffer[..count];
        let is_message = text.windows(7).any(|word| word == b"message");
        if !(is_message && keeps()) && to.write_all(text).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_gateway_that_alone_does_not_hear_a_shard_is_unready_until_it_does() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (redis, other) = tokio::join!(Redis::start(NAMES[2]), Redis::start(NAMES[0]));
    let screen = Screen::start(redis.port()).await;
    let ports = (free_port(), free_port());
    let urls = [other.url(), other.url(), screen.url()];
    let config = config("g1", ports, &urls, &other.url());
    let mut gateway = Gateway::start("g1", folder.path(), ports, &config);
    gateway.ready().await;
    for name in NAMES {
        gateway.counts(&up(name), 1.0).await;
    }

    // It is unready for a moment only: what it says of it is kept.
    screen.is_deaf.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let says = async |what: &str| {
        until(&format!("the gateway says {what}"), async || {
            let log = gateway.program.log();
            if log.contains(what) { Ok(()) } else { Err(log) }
        })
        .await;
    };
    says("not ready until it hears again").await;
    let found = began.elapsed();
    says("Shard's marks are heard again").await;
    println!("found after {found:?}, repaired after {:?}", began.elapsed());
    assert_eq!(gateway.api("GET", "/readyz", None).await.status, 200);
    gateway.counts(&up(NAMES[2]), 1.0).await;
    let item = json!({ "id": "1", "item": {} });
    gateway.writes(MEMBERS, item).await;
}
