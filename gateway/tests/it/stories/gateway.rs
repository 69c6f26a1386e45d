//! Gateways without an engine, over shards and a session store in memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{body::Body, http::Request};
use bytes::Bytes;
use gateway::{
    app::{Core, start_workers},
    auth::{
        Authenticator,
        express::Pointers,
        store::{Answer, Away, Store},
    },
    config::Config,
    identity::{Identity, Session, SessionId, TeamId, UserId},
    metrics,
    outbox::mailbox,
    socket::{Connection, Protocol},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use shard_router::{
    feed::{FeedType, NewFeed, Position, Post},
    router::Router,
    shard::{Shard, memory::MemoryShard},
    topology::{ShardSpec, ShardUrl, Topology},
};
use tower::ServiceExt;

use super::client::TestClient;

/// How long a story waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A team board: members with their sorted tasks, private notes, and feeds to subscribe to.
pub const BOARD: &str = r#"
[tree.team]
attrs = { feed = "teams", id = "{team}" }
[tree.team.collections.members]
feed = "team.{team}.members"
item = "member"
editable = ["name"]
can_add = "member"
can_delete = "owner"
owner = "{member}"
[tree.team.collections.members.collections.tasks]
feed = "team.{team}.members.{member}.tasks"
type = "sorted_feed"
editable = ["title", "done"]
can_add = "owner"
can_delete = "owner"
can_move = "member"
owner = "{member}"
[tree.user.collections.notes]
feed = "user.{user}.notes"
[subscribe]
allow = ["public.{any}", "team.{team}.chat", "user.{user}.inbox"]
"#;

const FRAME: &str = r#"
[admin]
token = "open sesame"
[session]
format = "express"
secrets = ["secret"]
store = "redis://127.0.0.1:1/0"
[mirror]
settle = "100ms"
[shards]
"#;

/// The sessions of a story.
#[derive(Debug, Default)]
pub struct Sessions {
    values: Mutex<HashMap<String, String>>,
    is_away: Mutex<bool>,
}

impl Sessions {
    pub fn put(&self, session: &str, user: &str, teams: &[&str]) {
        let value = json!({ "cookie": {}, "user": { "id": user, "teams": teams } });
        self.values.lock().unwrap().insert(format!("sess:{session}"), value.to_string());
    }

    pub fn end(&self, session: &str) {
        self.values.lock().unwrap().remove(&format!("sess:{session}"));
    }

    pub fn set_away(&self, is_away: bool) {
        *self.is_away.lock().unwrap() = is_away;
    }
}

impl Store for Sessions {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a> {
        let value = self.values.lock().unwrap().get(key).cloned().map(Bytes::from);
        let is_away = *self.is_away.lock().unwrap();
        Box::pin(async move { if is_away { Err(Away) } else { Ok(value) } })
    }
}

/// Who connects.
#[derive(Debug, Clone)]
pub struct User {
    pub name: String,
    pub teams: Vec<String>,
    pub session: String,
    pub outbox_bytes: usize,
    pub resumes: bool,
}

/// A user in no team, with one session.
pub fn user(name: &str) -> User {
    User {
        name: name.to_owned(),
        teams: Vec::new(),
        session: format!("session-of-{name}"),
        outbox_bytes: 1 << 20,
        resumes: false,
    }
}

impl User {
    pub fn in_team(mut self, team: &str) -> Self {
        self.teams.push(team.to_owned());
        self
    }

    pub fn in_session(mut self, session: &str) -> Self {
        self.session = session.to_owned();
        self
    }

    /// Says `resume=1` when it connects.
    pub fn resuming(mut self) -> Self {
        self.resumes = true;
        self
    }

    pub fn with_outbox(mut self, bytes: usize) -> Self {
        self.outbox_bytes = bytes;
        self
    }
}

/// What gateways share.
#[derive(Clone)]
pub struct World {
    pub shards: Vec<MemoryShard>,
    pub sessions: Arc<Sessions>,
    pub config: Arc<Config>,
}

impl World {
    pub fn new(board: &str, shards: usize) -> Self {
        let names = (1..=shards).map(|number| format!("shard-{number:02}"));
        let nodes: Vec<_> =
            names.map(|name| format!(r#"{{ name = "{name}", url = "memory:" }}"#)).collect();
        Self::of(board, &format!("nodes = [{}]", nodes.join(", ")), shards)
    }

    /// Makes a world of `shards` shards, of which those are in use that the topology in
    /// `file` names; there the database of a URL says which it is.
    pub fn in_file(board: &str, file: &std::path::Path, shards: usize) -> Self {
        Self::of(board, &format!("topology = '{}'", file.display()), shards)
    }

    fn of(board: &str, section: &str, shards: usize) -> Self {
        let names = (1..=shards).map(|number| format!("shard-{number:02}"));
        let text = format!("{FRAME}{section}\n{board}");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let config = Config::load(Some(file.path()), []).unwrap_or_else(|error| panic!("{error}"));
        Self {
            shards: names.map(|name| MemoryShard::new(name.as_str())).collect(),
            sessions: Arc::default(),
            config: Arc::new(config),
        }
    }

    /// Makes a router as a gateway of this topology has it.
    pub fn router(&self, topology: Topology) -> Router {
        let shards = self.shards.clone();
        let open = move |spec: &ShardSpec| -> Arc<dyn Shard> {
            let index = match &spec.url {
                ShardUrl::Redis(url) => usize::from(url.db),
                ShardUrl::Memory => spec.name["shard-".len()..].parse::<usize>().unwrap() - 1,
            };
            Arc::new(shards[index].clone())
        };
        Router::open_with(topology, open)
    }

    /// Starts one more gateway, once all shards that are there are heard.
    pub async fn gateway(&self) -> TestGateway {
        let feeds = Arc::new(self.router(self.config.shards.clone()));
        let pointers = Pointers { user: "/user/id".to_owned(), teams: "/user/teams".to_owned() };
        let auth = Authenticator::express(
            "connect.sid".to_owned(),
            &["secret".to_owned()],
            "sess:".to_owned(),
            pointers,
            self.sessions.clone(),
        );
        let core = Core::start(
            &self.config,
            &self.config.shards,
            feeds.clone(),
            Arc::new(auth),
            metrics::install(),
        );
        TestGateway { world: self.clone(), feeds, core }
    }

    /// Returns the shard that has a feed.
    pub fn shard_of(&self, feed: &str) -> &MemoryShard {
        &self.shards[self.config.shards.owner(feed)]
    }
}

/// One gateway with everything but its engine.
pub struct TestGateway {
    pub world: World,
    pub feeds: Arc<Router>,
    pub core: Core,
}

impl TestGateway {
    /// Starts a gateway with the [`BOARD`] on one shard.
    pub async fn start() -> Self {
        Self::with(BOARD).await
    }

    pub async fn with(board: &str) -> Self {
        World::new(board, 1).gateway().await
    }

    /// Starts the built-in worker.
    pub fn work(&self) {
        let tree = Arc::new(self.world.config.tree.clone());
        start_workers(&self.world.config, &self.feeds, &tree, &self.core.drain);
    }

    /// Connects without waiting for anything.
    pub fn join(&self, user: User) -> TestClient {
        let teams: Vec<_> = user.teams.iter().map(String::as_str).collect();
        self.world.sessions.put(&user.session, &user.name, &teams);
        self.join_as_found(user)
    }

    /// Connects with what was found of a session before: it may be another, or gone, by now.
    pub fn join_as_found(&self, user: User) -> TestClient {
        let teams = user.teams.iter().map(TeamId::new).collect();
        let identity = Identity::new(UserId::new(&user.name), teams);
        let (outbox, mailbox) = mailbox(user.outbox_bytes);
        let inbox = (self.core.accept)(Connection {
            session: Session { id: SessionId::new(&user.session), identity },
            outbox,
            protocol: Protocol::Eio4,
            resume: user.resumes,
            namespace: "/".into(),
            auth: None,
        });
        TestClient::new(user, mailbox, inbox)
    }

    /// Connects and takes `initial` in.
    pub async fn connect(&self, user: User) -> TestClient {
        let mut client = self.join(user);
        client.expect("initial").await;
        client
    }

    /// Publishes an item under its id.
    pub async fn publish(&self, feed: &str, id: &str, item: impl ToString) {
        self.feeds.publish(feed, Some(id), item.to_string()).await.unwrap();
    }

    /// Puts an item into a sorted feed, which is made where it is not there.
    pub async fn insert(&self, feed: &str, item: impl ToString, position: Position) -> String {
        let new = NewFeed { feed_type: FeedType::SortedFeed, max_length: None };
        let item = Bytes::from(item.to_string());
        let post = Post { item, id: None, position: Some(position), new };
        self.feeds.post(feed, post).await.unwrap().id
    }

    pub async fn append(&self, feed: &str, item: impl ToString) -> String {
        self.insert(feed, item, Position::End).await
    }

    pub async fn edit(&self, feed: &str, id: &str, item: impl ToString) {
        self.feeds.edit(feed, id, item.to_string()).await.unwrap();
    }

    pub async fn retract(&self, feed: &str, id: &str) {
        assert!(self.feeds.retract(feed, id).await.unwrap(), "{id} was in {feed}");
    }

    pub async fn shift(&self, feed: &str, id: &str, position: &str) {
        self.feeds.position(feed, id, &position.parse().unwrap()).await.unwrap();
    }

    /// Says something on `gateway.control` of a shard, as an application does.
    pub async fn control(&self, shard: usize, message: Value) {
        let text = message.to_string();
        self.feeds.relay(shard, "gateway.control", text).await.unwrap();
    }

    /// Changes a user's teams in the session store and says so.
    pub async fn set_teams(&self, user: &User, teams: &[&str]) {
        self.world.sessions.put(&user.session, &user.name, teams);
        self.control(0, json!({ "op": "refresh", "user": user.name })).await;
    }

    /// Sends a request to the admin listener, with the token.
    pub async fn request(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", "Bearer open sesame")
            .body(Body::from(body.to_owned()))
            .unwrap();
        self.send(request).await
    }

    /// Sends a request as it is; returns status, content type and body.
    pub async fn send(&self, request: Request<Body>) -> (u16, String, String) {
        let response = self.core.admin.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let kind = response.headers().get("content-type");
        let kind = kind.map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, kind, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Waits until every shard is heard, which jobs need.
    pub async fn heard(&self) {
        super::client::eventually("every shard is heard", async || self.hears_all().await).await;
    }

    /// A control message that only a heard shard can bring closes nobody, and is seen to arrive.
    async fn hears_all(&self) -> bool {
        let mut probe = self.join(user("prober").in_session("prober"));
        for (shard, _) in self.feeds.shards() {
            let message = json!({
                "op": "emit", "user": "prober", "event": "heard", "args": [shard],
            });
            self.control(shard, message).await;
            if !probe.hears("heard", Duration::from_millis(200)).await {
                return false;
            }
        }
        true
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.core.drain.stop.cancel();
        self.core.drain.end.cancel();
    }
}
