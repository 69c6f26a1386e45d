//! One shard of either kind, a router before it, and an ear on its channels.

use std::{ops::Deref, sync::Arc, time::Duration};

use bytes::Bytes;
use shard_router::{
    router::Router,
    shard::{
        Heard, Link, Shard, Value,
        memory::MemoryShard,
        redis::{RedisAddress, RedisShard},
    },
};
use tokio::{sync::mpsc, time::timeout};

use crate::server::RedisServer;

/// How long anything may take before the test fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// One shard and the router that knows only it.
pub(super) struct Bench {
    pub(super) router: Arc<Router>,
    pub(super) shard: Arc<dyn Shard>,
    back: Back,
}

enum Back {
    Memory(MemoryShard),
    Redis(RedisServer),
}

impl Deref for Bench {
    type Target = Router;

    fn deref(&self) -> &Router {
        &self.router
    }
}

impl Bench {
    pub(super) fn memory() -> Self {
        Self::memory_of(MemoryShard::new("shard-01"))
    }

    pub(super) fn memory_of(shard: MemoryShard) -> Self {
        Self::of(Arc::new(shard.clone()), Back::Memory(shard))
    }

    pub(super) async fn redis() -> Self {
        let server = RedisServer::start().await;
        let address = RedisAddress {
            host: "127.0.0.1".to_owned(),
            port: server.port(),
            username: None,
            password: None,
            db: 0,
        };
        Self::of(Arc::new(RedisShard::new("shard-01", address)), Back::Redis(server))
    }

    fn of(shard: Arc<dyn Shard>, back: Back) -> Self {
        let router = Arc::new(Router::new(vec![shard.clone()], |_| 0));
        Self { router, shard, back }
    }

    /// Says a command as another client would; the answer as text, arrays line by line.
    pub(super) async fn raw(&self, words: &[&str]) -> String {
        match &self.back {
            Back::Memory(shard) => text(&shard.raw(words).expect("the shard takes the command")),
            Back::Redis(server) => server.cli(words).await,
        }
    }

    /// Says a command with words that are no text, as [`Bench::raw`] does.
    pub(super) async fn raw_bytes(&self, words: &[&[u8]]) -> String {
        match &self.back {
            Back::Memory(shard) => text(&shard.raw(words).expect("the shard takes the command")),
            Back::Redis(server) => {
                let quoted = words.iter().map(|word| {
                    let bytes: String = word.iter().map(|byte| format!("\\{byte:03}")).collect();
                    format!("'{bytes}'")
                });
                let call = quoted.collect::<Vec<_>>().join(",");
                server.cli(&["EVAL", &format!("return redis.call({call})"), "0"]).await
            }
        }
    }

    /// Says each line as a command, words parted by blanks, `\0` in them for NUL.
    pub(super) async fn lines(&self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let line = line.replace("\\0", "\0");
            self.raw(&line.split_whitespace().collect::<Vec<_>>()).await;
        }
    }

    /// Checks what each command answers; lines of an array parted by blanks.
    #[track_caller]
    pub(super) fn holds(&self, lines: &'static str) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        async move {
            for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
                let (command, answer) =
                    line.split_once("=>").expect("a line is `command => answer`");
                let command: Vec<&str> = command.split_whitespace().collect();
                let found = self.raw(&command).await.replace('\n', " ");
                assert_eq!(found, answer.trim(), "{line:?} at {at}");
            }
        }
    }

    /// Breaks the subscription connections.
    pub(super) async fn drop_connections(&self) {
        match &self.back {
            Back::Memory(shard) => shard.drop_connections(),
            Back::Redis(server) => {
                server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
            }
        }
    }

    /// Forgets everything, scripts too.
    pub(super) async fn flush(&self) {
        match &self.back {
            Back::Memory(shard) => shard.flush(),
            Back::Redis(server) => {
                server.cli(&["FLUSHALL"]).await;
                server.cli(&["SCRIPT", "FLUSH"]).await;
            }
        }
    }

    /// Listens to channels, and to `mark`.
    pub(super) async fn ear(&self, channels: &[&str]) -> Ear {
        let (heard, rx) = mpsc::channel(4_096);
        let link = self.shard.link(7, heard);
        let mut ear = Ear { link, rx };
        let channels = channels.iter().chain(&["mark"]);
        ear.link.subscribe(channels.map(|name| Bytes::from((*name).to_owned())).collect(), 1);
        ear.until(Heard::Confirmed { ticket: 1 }).await;
        ear
    }

    /// Listens to every channel of a feed, and to those about feeds.
    pub(super) async fn ear_on(&self, feed: &str) -> Ear {
        let verbs = ["publish", "edit", "retract", "position", "publishes", "claimed", "stalled"];
        let mut channels: Vec<String> =
            verbs.iter().map(|verb| format!("feed.{verb}:{feed}")).collect();
        channels.push(format!("job.finish:{feed}"));
        channels.extend(["newfeed", "delfeed", "conffeed"].map(str::to_owned));
        self.ear(&channels.iter().map(String::as_str).collect::<Vec<_>>()).await
    }
}

/// What was heard on a connection of its own.
pub(super) struct Ear {
    pub(super) link: Link,
    rx: mpsc::Receiver<(usize, Heard)>,
}

impl Ear {
    pub(super) async fn next(&mut self) -> Heard {
        let heard = timeout(PATIENCE, self.rx.recv()).await.expect("something is heard in time");
        let (index, heard) = heard.expect("the link lives");
        assert_eq!(index, 7);
        heard
    }

    pub(super) async fn until(&mut self, wanted: Heard) {
        while self.next().await != wanted {}
    }

    /// Passes over everything until the connection is up.
    pub(super) async fn until_lost_and_up(&mut self) {
        while !matches!(self.next().await, Heard::Lost { .. }) {}
        self.until(Heard::Up).await;
    }

    /// Returns the notices heard before the next mark: channel, blank, payload with NUL as `|`.
    pub(super) async fn notices(&mut self, bench: &Bench) -> Vec<String> {
        bench.mark(0, "mark", "now").await.expect("the shard takes a mark");
        self.until_mark("now").await
    }

    pub(super) async fn until_mark(&mut self, nonce: &str) -> Vec<String> {
        let mut notices = Vec::new();
        loop {
            if let Heard::Notice { channel, payload } = self.next().await {
                let payload = String::from_utf8_lossy(&payload).replace('\0', "|");
                if &*channel == b"mark" && payload == nonce {
                    return notices;
                }
                notices.push(format!("{} {payload}", String::from_utf8_lossy(&channel)));
            }
        }
    }

    /// Checks the notices since the last look, with the router's instance as `ME`.
    #[track_caller]
    pub(super) fn says<'a>(
        &'a mut self,
        bench: &'a Bench,
        wanted: &'a [&'a str],
    ) -> impl Future<Output = ()> + 'a {
        let at = std::panic::Location::caller();
        async move {
            let notices = self.notices(bench).await;
            let notices: Vec<String> =
                notices.iter().map(|notice| notice.replace(bench.instance(), "ME")).collect();
            assert_eq!(notices, wanted, "at {at}");
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Nil => String::new(),
        Value::Int(int) => int.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join("\n"),
    }
}
