//! Three shards, two gateways, a worker and HAProxy, as `deploy/local` has them.

use std::{path::Path, process::Command};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use sha2::Sha256;
use shard_router::ring::{Node, Ring, tag};
use tempfile::TempDir;

use super::{
    http::{self, Response},
    program::{Program, free_port, prepared, root},
    redis::Redis,
    until,
};

/// What signs the cookies.
pub(super) const SECRET: &str = "newest secret";
/// What signed them before.
pub(super) const OLDER: &str = "older secret";
const TOKEN: &str = "token";

/// One gateway process.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) program: Program,
    pub(super) port: u16,
    admin: u16,
}

impl Gateway {
    /// Starts a gateway by a configuration file.
    pub(super) fn start(name: &str, folder: &Path, ports: (u16, u16), config: &str) -> Self {
        let file = folder.join(format!("{name}.toml"));
        std::fs::write(&file, config).expect("a file can be written");
        let program = Program::start(name, folder, gateway().arg("--config").arg(&file));
        Self { program, port: ports.0, admin: ports.1 }
    }

    /// Where clients connect.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port of the admin listener.
    pub(super) const fn admin(&self) -> u16 {
        self.admin
    }

    /// Asks the admin listener.
    pub(super) async fn try_api(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Result<Response, String> {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("Authorization", bearer.as_str())];
        http::request(self.admin, method, path, &headers, body.as_ref()).await
    }

    /// Asks the admin listener of a gateway that lives.
    pub(super) async fn api(&self, method: &str, path: &str, body: Option<Value>) -> Response {
        match self.try_api(method, path, body).await {
            Ok(response) => response,
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    /// Carries a request out that has to succeed.
    pub(super) async fn done(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let response = self.api(method, path, body).await;
        assert!((200..300).contains(&response.status), "{method} {path}: {response:?}");
        response.json()
    }

    /// Writes to a feed whose shard may just be coming back: it is heard before it takes writes.
    pub(super) async fn writes(&self, feed: &str, body: Value) {
        let path = format!("/api/feeds/{}", escape(feed));
        until(&format!("{feed} takes writes"), async || {
            let response = self.try_api("POST", &path, Some(body.clone())).await?;
            if response.status == 201 { Ok(()) } else { Err(format!("{response:?}")) }
        })
        .await;
    }

    /// Reads a metric; its labels as they are written, nothing where it was never counted.
    pub(super) async fn metric(&self, name_and_labels: &str) -> Option<f64> {
        let text = self.api("GET", "/metrics", None).await.body;
        text.lines().find_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            (name == name_and_labels).then(|| value.parse().expect("a metric is a number"))
        })
    }

    /// Waits until a metric has this value.
    pub(super) async fn counts(&self, metric: &str, expected: f64) {
        until(&format!("{metric} is {expected}"), async || {
            let found = self.metric(metric).await;
            if found == Some(expected) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }

    /// Waits until it answers `GET /readyz` with 200.
    pub(super) async fn ready(&mut self) {
        until("the gateway is ready", async || {
            let ended = self.program.ended();
            assert!(ended.is_none(), "the gateway ended: {ended:?}");
            let response = self.try_api("GET", "/readyz", None).await?;
            if response.status == 200 { Ok(()) } else { Err(format!("{response:?}")) }
        })
        .await;
    }
}

/// The gateway that was built with these tests.
pub(super) fn gateway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.env("NO_COLOR", "1").env("RUST_LOG", "info,gateway=debug");
    command
}

/// Everything that `deploy/local/up` starts.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) gateways: [Gateway; 2],
    _worker: Program,
    _haproxy: Program,
    pub(super) shards: [Redis; 3],
    ring: Ring,
    front: u16,
    _folder: TempDir,
}

/// The names of the shards; the ring is made of these alone.
pub(super) const NAMES: [&str; 3] = ["shard-01", "shard-02", "shard-03"];

impl Cluster {
    /// Starts everything and waits until both gateways hear all shards.
    pub(super) async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts everything, the gateways with something more in their configuration.
    pub(super) async fn start_with(more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (one, two, three) =
            tokio::join!(Redis::start(NAMES[0]), Redis::start(NAMES[1]), Redis::start(NAMES[2]));
        let shards = [one, two, three];
        let ports = [(free_port(), free_port()), (free_port(), free_port())];
        let start = |at: usize| {
            let urls = [shards[0].url(), shards[1].url(), shards[2].url()];
            let name = format!("g{}", at + 1);
            let config = config(&name, ports[at], &urls, &shards[0].url());
            Gateway::start(&name, folder.path(), ports[at], &format!("{config}\n{more}"))
        };
        let mut gateways = [start(0), start(1)];
        let file = folder.path().join("g1.toml");
        let worker = Program::start(
            "worker",
            folder.path(),
            gateway().arg("worker").arg("--config").arg(file),
        );
        for gateway in &mut gateways {
            gateway.ready().await;
            for name in NAMES {
                gateway.counts(&up(name), 1.0).await;
            }
        }
        let front = free_port();
        let haproxy = haproxy(folder.path(), front, ports);
        until("HAProxy knows a gateway", async || {
            // Whatever a gateway says to this, HAProxy's own answer without one is 503.
            let response = http::request(front, "GET", "/", &[], None).await?;
            if response.status == 503 { Err("503".to_owned()) } else { Ok(()) }
        })
        .await;
        Self {
            gateways,
            _worker: worker,
            _haproxy: haproxy,
            shards,
            ring: ring(),
            front,
            _folder: folder,
        }
    }

    /// The port where HAProxy listens.
    pub(super) const fn front_port(&self) -> u16 {
        self.front
    }

    /// Where clients reach the gateways through HAProxy.
    pub(super) fn front(&self) -> String {
        format!("http://127.0.0.1:{}", self.front)
    }

    /// The index of the shard that has a feed.
    pub(super) fn owner(&self, feed: &str) -> usize {
        self.ring.owner(tag(feed.as_bytes()))
    }

    /// The shard that has a feed.
    pub(super) fn shard(&self, feed: &str) -> &Redis {
        &self.shards[self.owner(feed)]
    }

    /// Where the sessions are kept.
    pub(super) fn store(&self) -> &Redis {
        &self.shards[0]
    }

    /// Opens a session as express-session with connect-redis would, and returns its cookie.
    pub(super) async fn session(&self, user: &str, teams: &[&str]) -> String {
        let id = format!("session-of-{user}");
        self.store_session(&id, user, teams).await;
        cookie(&id, SECRET)
    }

    /// Writes a session.
    pub(super) async fn store_session(&self, id: &str, user: &str, teams: &[&str]) {
        let session = json!({
            "cookie": { "originalMaxAge": null, "expires": null, "httpOnly": true, "path": "/" },
            "user": { "id": user, "teams": teams },
        });
        let key = format!("sess:{id}");
        self.store().text(&["SET", &key, &session.to_string(), "EX", "3600"]).await;
    }

    /// Publishes or edits through the HTTP API of the first gateway.
    pub(super) async fn post(&self, feed: &str, body: Value) -> String {
        let path = format!("/api/feeds/{}", escape(feed));
        let done = self.gateways[0].done("POST", &path, Some(body)).await;
        done["id"].as_str().expect("an id is a text").to_owned()
    }

    /// Says something to a room by the second gateway.
    pub(super) async fn emit(&self, room: &str, event: &str, argument: Value) {
        let path = format!("/api/rooms/{}/emit", escape(room));
        let body = json!({ "event": event, "args": [argument] });
        self.gateways[1].done("POST", &path, Some(body)).await;
    }
}

/// The path of an item in the HTTP API.
pub(super) fn item_path(feed: &str, id: &str) -> String {
    format!("/api/feeds/{}/{}", escape(feed), escape(id))
}

/// A text as one part of a path.
pub(super) fn escape(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The metric that tells whether a shard is heard.
pub(super) fn up(shard: &str) -> String {
    format!("gateway_shard_up{{shard=\"{shard}\"}}")
}

/// Signs a session's id as express-session does.
pub(super) fn cookie(id: &str, secret: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes any key");
    let mac = STANDARD_NO_PAD.encode(mac.chain_update(id.as_bytes()).finalize().into_bytes());
    format!("connect.sid={}", escape(&format!("s:{id}.{mac}")))
}

fn ring() -> Ring {
    let nodes = NAMES.map(|name| Node { name: name.to_owned(), weight: 1 });
    Ring::new(&nodes).expect("the names differ")
}

fn haproxy(folder: &Path, front: u16, ports: [(u16, u16); 2]) -> Program {
    let template = prepared(root().join("deploy/local/haproxy.cfg"));
    let text = std::fs::read_to_string(template).expect("the file can be read");
    let text = text
        .replace("@FRONT@", &front.to_string())
        .replace("@PUBLIC1@", &ports[0].0.to_string())
        .replace("@ADMIN1@", &ports[0].1.to_string())
        .replace("@PUBLIC2@", &ports[1].0.to_string())
        .replace("@ADMIN2@", &ports[1].1.to_string());
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, text).expect("a file can be written");
    Program::start("haproxy", folder, Command::new("haproxy").arg("-db").arg("-f").arg(file))
}

/// The configuration of one gateway.
pub(super) fn config(node: &str, ports: (u16, u16), shards: &[String; 3], store: &str) -> String {
    let schemas = root().join("deploy/local/schemas");
    let nodes: Vec<String> = NAMES
        .iter()
        .zip(shards)
        .map(|(name, url)| format!("  {{ name = \"{name}\", url = \"{url}\", weight = 1 }},\n"))
        .collect();
    format!(
        r#"
[server]
listen  = "127.0.0.1:{public}"
engine  = "pneumatic"
node    = "{node}"
origins = ["https://app.example.com"]

[admin]
listen = "127.0.0.1:{admin}"
token  = "{TOKEN}"

[session]
format  = "express"
cookie  = "connect.sid"
secrets = ["{SECRET}", "{OLDER}"]
store   = "{store}/0"
prefix  = "sess:"
user    = "/user/id"
teams   = "/user/teams"

[shards]
nodes = [
{nodes}]

[tree.team]
attrs = {{ feed = "teams", id = "{{team}}" }}
[tree.team.collections.members]
feed       = "team.{{team}}.members"
item       = "member"
editable   = ["name"]
can_add    = "nobody"
[tree.team.collections.members.collections.tasks]
feed       = "team.{{team}}.members.{{member}}.tasks"
type       = "sorted_feed"
editable   = ["title", "done"]
owner      = "{{member}}"
can_add    = "member"
can_delete = "owner"
can_move   = "member"
[tree.user]
attrs = {{ feed = "users", id = "{{user}}" }}
[tree.user.collections.notes]
feed       = "user.{{user}}.notes"
type       = "sorted_feed"
editable   = ["text"]
can_add    = "member"

[subscribe]
allow = ["public.{{any}}", "team.{{team}}.chat"]

[jobs.shipTask]
queue   = "shipTask"
schema  = "{schemas}/shipTask.json"
timeout = "20s"
[jobs.slowTask]
queue   = "slowTask"
timeout = "1s"
[jobs.fewTasks]
queue      = "fewTasks"
timeout    = "1s"
max_queued = 2

[edits]
timeout = "20s"

[drain]
notice   = "0s"
spread   = "1s"
deadline = "5s"
"#,
        public = ports.0,
        admin = ports.1,
        nodes = nodes.concat(),
        schemas = schemas.display(),
    )
}
