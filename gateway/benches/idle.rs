//! What an idle client costs behind the boundary at which engines hand connections over.
//!
//! ```sh
//! cargo bench -p gateway --bench idle              # 2,000 users, then 10,000
//! cargo bench -p gateway --bench idle -- 500 1000  # other numbers of users
//! ```
//!
//! Everything of a gateway but its engine runs here; feeds are in a `redis-server` that is
//! started for it (it must be in the PATH), so that what a shard holds is not counted. Users are
//! in teams of eight and see eleven feeds each: the team's members, the tasks of each member,
//! the team's chat, and their own notes. Each client joins and takes its `initial` out of its
//! mailbox; then each user's second connection does; then each client is told 20 events and takes
//! them out; then the second connections leave.
//!
//! For each step it prints bytes that are allocated and numbers of allocations, by client, and
//! what the process has resident. The memory of the bench's own list of clients is not counted.

use std::{
    alloc::System,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use gateway::{
    app::Core,
    auth::{
        Authenticator,
        express::Pointers,
        store::{Answer, Store},
    },
    config::Config,
    hub::frame::Format,
    identity::{Session, SessionId},
    metrics,
    outbox::{Mailbox, Outgoing, mailbox},
    socket::{Connection, Inbox, Protocol},
};
use shard_router::{
    feed::{FeedType, NewFeed, Position, Post},
    router::Router,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const TEAM: usize = 8;
const EVENTS: usize = 20;
/// How many clients join at a time.
const BATCH: usize = 64;

const CONFIG: &str = r#"
[admin]
token = "open sesame"
[session]
format = "express"
secrets = ["secret"]
store = "redis://127.0.0.1:1/0"
[tree.team]
attrs = { feed = "teams", id = "{team}" }
[tree.team.collections.members]
feed = "team.{team}.members"
item = "member"
[tree.team.collections.members.collections.tasks]
feed = "team.{team}.members.{member}.tasks"
type = "sorted_feed"
[tree.team.collections.chat]
feed = "team.{team}.chat"
[tree.user.collections.notes]
feed = "user.{user}.notes"
"#;

/// Sessions of users `0`, `1`, …, each in one team.
#[derive(Debug)]
struct Sessions;

impl Store for Sessions {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a> {
        let number: usize = key.rsplit('-').next().and_then(|text| text.parse().ok()).unwrap();
        let (user, team) = (user(number), team(number));
        let value = format!(r#"{{"cookie":{{}},"user":{{"id":"{user}","teams":["{team}"]}}}}"#);
        Box::pin(async move { Ok(Some(Bytes::from(value))) })
    }
}

fn user(number: usize) -> String {
    format!("user-{number:06}")
}

fn team(number: usize) -> String {
    format!("team-{:05}", number / TEAM)
}

struct Client {
    mailbox: Mailbox,
    _inbox: Box<dyn Inbox>,
}

struct Bench {
    core: Core,
    feeds: Arc<Router>,
    auth: Arc<Authenticator>,
    clients: Vec<Client>,
    since: Seen,
}

/// What was allocated at a moment.
#[derive(Clone, Copy)]
struct Seen {
    bytes: usize,
    blocks: usize,
    resident: usize,
    ticks: u64,
    at: Instant,
}

impl Seen {
    fn now() -> Self {
        let stats = ALLOCATOR.stats();
        let read = |file| std::fs::read_to_string(file).expect("this is Linux");
        let pages = read("/proc/self/statm");
        let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
        let stat = read("/proc/self/stat");
        let fields: Vec<u64> =
            stat.split(' ').skip(13).take(2).map(|field| field.parse().unwrap()).collect();
        Self {
            bytes: stats.bytes_allocated - stats.bytes_deallocated,
            blocks: stats.allocations - stats.deallocations,
            resident: pages.expect("statm has pages") * 4096,
            ticks: fields.iter().sum(),
            at: Instant::now(),
        }
    }
}

impl Bench {
    async fn start(url: &str, users: usize) -> Self {
        let text =
            format!("{CONFIG}\n[shards]\nnodes = [{{ name = \"shard-01\", url = \"{url}\" }}]\n");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let config = Config::load(Some(file.path()), []).unwrap_or_else(|error| panic!("{error}"));
        let feeds = Arc::new(Router::open(config.shards.clone()));
        fill(&feeds, users).await;
        let pointers = Pointers { user: "/user/id".to_owned(), teams: "/user/teams".to_owned() };
        let auth = Arc::new(Authenticator::express(
            "connect.sid".to_owned(),
            &["secret".to_owned()],
            "sess:".to_owned(),
            pointers,
            Arc::new(Sessions),
        ));
        let metrics = metrics::install();
        let core = Core::start(&config, &config.shards, feeds.clone(), auth.clone(), metrics);
        let clients = Vec::with_capacity(3 * users);
        let mut bench = Self { core, feeds, auth, clients, since: Seen::now() };
        // What is allocated once is allocated by then.
        bench.join(0..TEAM).await;
        bench.rest().await;
        bench
    }

    /// Waits until nothing is under way for those who have just come.
    async fn rest(&mut self) {
        tokio::time::sleep(Duration::from_secs(4)).await;
        self.since = Seen::now();
    }

    async fn join(&mut self, numbers: std::ops::Range<usize>) {
        let numbers: Vec<usize> = numbers.collect();
        for batch in numbers.chunks(BATCH) {
            let first = self.clients.len();
            for number in batch {
                let id = SessionId::new(format!("0123456789abcdef0123456789-{number}"));
                let identity = self.auth.recheck(&id, false).await.expect("every user is there");
                let (outbox, mailbox) = mailbox(1 << 20);
                let inbox = (self.core.accept)(Connection {
                    session: Session { id, identity },
                    outbox,
                    protocol: Protocol::Eio4,
                    resume: false,
                    namespace: "/".into(),
                    auth: None,
                });
                self.clients.push(Client { mailbox, _inbox: inbox });
            }
            for client in &mut self.clients[first..] {
                assert_eq!(client.take().await, "initial");
            }
        }
    }

    /// Tells each client so many events: changes of what its team's members have to do.
    async fn tell(&mut self, users: usize) {
        for event in 0..EVENTS {
            for number in (0..users).step_by(TEAM) {
                let feed = format!("team.{}.chat", team(number));
                let item = format!(r#"{{"text":"event {event} of the bench","by":"somebody"}}"#);
                self.feeds.edit(&feed, "1", item).await.expect("Redis is there");
            }
            for client in &mut self.clients {
                assert_eq!(client.take().await, "change");
            }
        }
    }

    /// Prints what came since the last rest, by client.
    fn print(&mut self, what: &str, clients: usize) {
        let (now, before) = (Seen::now(), self.since);
        let each = |now: usize, before: usize| (now as f64 - before as f64) / clients as f64;
        println!(
            "{what:<34} {:>8.0} {:>8.1} {:>10.0}",
            each(now.bytes, before.bytes),
            each(now.blocks, before.blocks),
            each(now.resident, before.resident),
        );
    }

    fn print_cpu(&self, clients: usize) {
        let now = Seen::now();
        let cpu = (now.ticks - self.since.ticks) as f64 * 10_000.0 / clients as f64;
        let wall = (now.at - self.since.at).as_secs_f64() * 1e6 / clients as f64;
        println!("{:>36}µs a join: {cpu:.0} of CPU, {wall:.0} of time", "");
    }
}

impl Client {
    /// Takes the next event out as an engine does, and returns its name.
    async fn take(&mut self) -> String {
        let next = tokio::time::timeout(Duration::from_secs(30), self.mailbox.next());
        match next.await.expect("something comes") {
            Outgoing::Event(frame) => {
                std::hint::black_box(frame.websocket(Format::Utf8));
                self.mailbox.let_go(frame.snapshot_bytes());
                frame.name().to_owned()
            }
            other => panic!("not an event: {other:?}"),
        }
    }
}

async fn fill(feeds: &Router, users: usize) {
    let publish = async |feed: String, id: &str, item: String| {
        feeds.publish(&feed, Some(id), item).await.expect("Redis is there");
    };
    for number in 0..users {
        let (user, team) = (user(number), team(number));
        if number % TEAM == 0 {
            publish("teams".to_owned(), &team, format!(r#"{{"name":"Team {team}"}}"#)).await;
            for id in ["1", "2"] {
                let item = r#"{"text":"hello, how are you?","by":"somebody"}"#.to_owned();
                publish(format!("team.{team}.chat"), id, item).await;
            }
        }
        let member = format!(r#"{{"name":"{user}","status":"here"}}"#);
        publish(format!("team.{team}.members"), &user, member).await;
        let note = r#"{"text":"remember the milk"}"#.to_owned();
        publish(format!("user.{user}.notes"), "1", note).await;
        for task in ["write", "test"] {
            let item = format!(r#"{{"title":"{task} the next release","done":false}}"#);
            let new = NewFeed { feed_type: FeedType::SortedFeed, max_length: None };
            let position = Some(Position::End);
            let post = Post { item: item.into(), id: None, position, new };
            let feed = format!("team.{team}.members.{user}.tasks");
            feeds.post(&feed, post).await.expect("Redis is there");
        }
    }
}

/// A `redis-server` that ends with the bench.
struct Redis {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Redis {
    fn start() -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        let folder = tempfile::tempdir().expect("a folder can be made");
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--bind", "127.0.0.1"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is in the PATH");
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, url: format!("redis://127.0.0.1:{port}/0"), _folder: folder }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn run(users: usize) {
    let redis = Redis::start();
    let mut bench = Bench::start(&redis.url, users).await;
    println!("\n{users} users in teams of {TEAM}");
    println!("{:<34} {:>8} {:>8} {:>10}", "by client", "bytes", "blocks", "resident");

    bench.since = Seen::now();
    let mailboxes: Vec<_> = (0..1_000).map(|_| mailbox(1 << 20)).collect();
    bench.print("a mailbox alone (and its list)", mailboxes.len());
    drop(mailboxes);

    bench.since = Seen::now();
    let first = users - TEAM;
    bench.join(TEAM..users).await;
    bench.print_cpu(first);
    tokio::time::sleep(Duration::from_secs(4)).await;
    bench.print("first connections, just come", first);
    tokio::time::sleep(SETTLED).await;
    bench.print("first connections, idle", first);
    let began = bench.since;

    bench.rest().await;
    bench.join(0..users).await;
    bench.print_cpu(users);
    tokio::time::sleep(SETTLED).await;
    bench.print("second connections, idle", users);

    bench.rest().await;
    bench.tell(users).await;
    tokio::time::sleep(SETTLED).await;
    bench.print("what 20 events to each leave", 2 * users);
    bench.since = began;
    bench.print("all, by connection", first + users);

    bench.rest().await;
    bench.clients.truncate(users);
    tokio::time::sleep(SETTLED).await;
    bench.print("second connections, gone", users);
    bench.core.drain.stop.cancel();
    bench.core.drain.end.cancel();
}

/// How long things are kept that are only kept for who comes soon.
const SETTLED: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() {
    let numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let mut users: Vec<usize> = numbers.collect();
    if users.is_empty() {
        users = vec![2_000, 10_000];
    }
    for users in users {
        run(users.next_multiple_of(TEAM)).await;
    }
}
