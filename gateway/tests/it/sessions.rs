//! Sessions as express-session and connect-redis leave them, in a real Redis.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use gateway::auth::{Authenticator, Settings, express::Pointers};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

use crate::{
    clients::Herd,
    stage::{Stage, settings},
};

/// A Redis of its own, with nothing in it.
struct Redis {
    port: u16,
    child: Child,
}

impl Redis {
    async fn start(port: u16) -> Self {
        let port_text = port.to_string();
        let child = Command::new("redis-server")
            .args(["--port", &port_text, "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server is installed");
        let redis = Self { port, child };
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        redis
    }

    async fn run(&self, command: &[&str]) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let mut bytes = format!("*{}\r\n", command.len());
        for word in command {
            bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(bytes.as_bytes()).await.unwrap();
        assert_ne!(stream.read(&mut [0; 64]).await.unwrap(), 0);
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        Command::new("kill").args([signal, &pid]).status().await.unwrap();
    }
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

fn cookie(id: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(b"keyboard cat").unwrap();
    let mac = STANDARD_NO_PAD.encode(mac.chain_update(id).finalize().into_bytes());
    let mac = mac.replace('+', "%2B").replace('/', "%2F");
    format!("connect.sid=s%3A{id}.{mac}")
}

async fn stage(port: u16) -> Stage {
    let authenticator = Authenticator::new(Settings::Express {
        cookie: "connect.sid".to_owned(),
        secrets: vec!["newest".to_owned(), "keyboard cat".to_owned()],
        store: format!("redis://127.0.0.1:{port}/0"),
        prefix: "sess:".to_owned(),
        pointers: Pointers { user: "/user/id".to_owned(), teams: "/user/teams".to_owned() },
    });
    Stage::start_for(&settings(), authenticator.unwrap()).await
}

async fn handshake(stage: &Stage, id: &str) -> u16 {
    let cookie = format!("Cookie: other=1; connect.sid=stale; {}", cookie(id));
    let began = Instant::now();
    let path = "/socket.io/?EIO=4&transport=polling";
    let answer = stage.get(path, &[&cookie]).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    if answer.status != 200 {
        return answer.status;
    }
    // A refusal looks like a session until it asks for the namespace.
    let open: Value = serde_json::from_str(&answer.text()[1..]).unwrap();
    let path = format!("{path}&sid={}", open["sid"].as_str().unwrap());
    assert_eq!(stage.post(&path, "40").await.text(), "ok");
    match &stage.get(&path, &[]).await.text() {
        text if text.starts_with("44{") => 401,
        text if text.starts_with("40{") => 200,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn sessions_are_found_as_soon_as_their_store_is_there() {
    let port = free_port().await;
    let mut stage = stage(port).await;
    assert_eq!(handshake(&stage, "one").await, 503);
    let redis = Redis::start(port).await;
    let ann = json!({ "cookie": { "path": "/" }, "user": { "id": 7, "teams": [{ "id": "red" }] } });
    redis.run(&["SET", "sess:one", &ann.to_string()]).await;
    let began = Instant::now();
    while handshake(&stage, "one").await != 200 {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut client = Herd::start().open(json!({
        "version": "4.8",
        "url": stage.url(),
        "transports": ["websocket"],
        "cookie": cookie("one"),
    }));
    assert_eq!(client.event("initial").await.unwrap()["user"], "7");
    let guest = stage.guest().await;
    assert_eq!(guest.session.id.as_str(), "one");
    assert!(guest.session.identity.is_in("red"));

    assert_eq!(handshake(&stage, "two").await, 401);
    redis.run(&["SET", "sess:three", "[1]"]).await;
    redis.run(&["HSET", "sess:four", "a", "b"]).await;
    assert_eq!(handshake(&stage, "three").await, 401);
    assert_eq!(handshake(&stage, "four").await, 401);

    redis.signal("-STOP").await;
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    assert_eq!(handshake(&stage, "one").await, 503);
    redis.signal("-CONT").await;
    let began = Instant::now();
    while handshake(&stage, "one").await != 200 {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(client.call("echo", json!(1)).await.unwrap(), 1);
}
