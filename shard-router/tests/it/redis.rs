//! A shard that is a Redis: its commands, its waiters, its subscription connection.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use shard_router::shard::{Heard, Link, Script, Shard, ShardError, Value, redis::RedisShard};
use shard_router::topology::RedisUrl;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::server::RedisServer;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(30);

static ECHO: Script = Script::new("echo", "return ARGV");
static FIRST: Script = Script::new("first", "return ARGV[1]");
static PUBLISH: Script = Script::new("publish", "return redis.call('PUBLISH', KEYS[1], ARGV[1])");
static PUSH: Script = Script::new("push", "return redis.call('RPUSH', KEYS[1], ARGV[1])");
static LENGTH: Script = Script::new("length", "return redis.call('LLEN', KEYS[1])");
static MANY: Script = Script::new(
    "many",
    "for n = 1, tonumber(ARGV[2]) do redis.call('PUBLISH', KEYS[1], ARGV[1]) end return 1",
);

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn address(server: &RedisServer) -> RedisUrl {
    RedisUrl {
        host: "127.0.0.1".to_owned(),
        port: server.port(),
        username: None,
        password: None,
        db: 0,
    }
}

fn shard(server: &RedisServer) -> RedisShard {
    RedisShard::new("shard-01", address(server))
}

/// Runs a script until the shard is not away.
async fn eval(shard: &RedisShard, script: &'static Script, key: &str, args: &[&str]) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let args = args.iter().map(|arg| bytes(arg)).collect();
        match shard.eval(script, vec![bytes(key)], args).await {
            Ok(value) => return value,
            Err(error) if error.is_away() && Instant::now() < deadline => {
                sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A link and what it hears.
struct Ear {
    link: Link,
    heard: mpsc::Receiver<(usize, Heard)>,
}

impl Ear {
    fn new(shard: &RedisShard, capacity: usize) -> Self {
        let (says, heard) = mpsc::channel(capacity);
        Self { link: shard.link(7, says), heard }
    }

    async fn next(&mut self) -> Heard {
        let heard = timeout(PATIENCE, self.heard.recv()).await.expect("something is heard in time");
        let (index, heard) = heard.expect("the driver lives");
        assert_eq!(index, 7);
        heard
    }

    #[track_caller]
    fn expect(&mut self, expected: Heard) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let heard = self.next().await;
            assert_eq!(heard, expected, "at {caller}");
        }
    }

    async fn expect_lost(&mut self) -> String {
        match self.next().await {
            Heard::Lost { reason } => reason,
            other => panic!("expected Lost, heard {other:?}"),
        }
    }

    async fn subscribe(&mut self, channel: &str, ticket: u64) {
        self.link.subscribe(vec![bytes(channel)], ticket);
        self.expect(Heard::Confirmed { ticket }).await;
    }
}

fn notice(channel: &str, payload: &str) -> Heard {
    Heard::Notice { channel: bytes(channel), payload: bytes(payload) }
}

#[tokio::test]
async fn values_come_back_byte_for_byte() {
    static VALUES: Script = Script::new(
        "values",
        "-- a comment\nreturn {1, -5, ARGV[1], {}, {'message', 'a', ARGV[1]}, false, true, \
         redis.status_reply('QUEUED')} -- end",
    );
    static NOTHING: Script = Script::new("nothing", "redis.call('PING')");
    let server = RedisServer::start().await;
    let shard = shard(&server);
    let raw = Bytes::from_static(b"id\0\xff\xfe\r\n");
    let value = shard.eval(&VALUES, vec![], vec![raw.clone()]).await.unwrap();
    let expected = Value::Array(vec![
        Value::Int(1),
        Value::Int(-5),
        Value::Bytes(raw.clone()),
        Value::Array(vec![]),
        Value::Array(vec![
            Value::Bytes(bytes("message")),
            Value::Bytes(bytes("a")),
            Value::Bytes(raw.clone()),
        ]),
        Value::Nil,
        Value::Int(1),
        Value::Bytes(bytes("QUEUED")),
    ]);
    assert_eq!(value, expected);
    assert_eq!(shard.eval(&NOTHING, vec![], vec![]).await.unwrap(), Value::Nil);
}

#[tokio::test]
async fn a_reply_that_looks_like_a_message_shifts_no_other_reply() {
    let server = RedisServer::start().await;
    let shard = shard(&server);
    for word in ["message", "pmessage", "smessage", "subscribe", "unsubscribe", "pubsub"] {
        for others in 2..5 {
            let words: Vec<Bytes> = [word, "message", "a", "b", "c"]
                .iter()
                .take(others + 1)
                .map(|it| bytes(it))
                .collect();
            let expected = Value::Array(words.iter().cloned().map(Value::Bytes).collect());
            let (found, next) = tokio::join!(
                shard.eval(&ECHO, vec![], words),
                shard.eval(&FIRST, vec![], vec![bytes("next")])
            );
            assert_eq!(found.unwrap(), expected);
            assert_eq!(next.unwrap(), Value::Bytes(bytes("next")));
        }
    }
}

#[tokio::test]
async fn errors_say_what_they_mean() {
    static BOOM: Script = Script::new("boom", "\nerror('boom')");
    static OWN: Script = Script::new("own", "return redis.error_reply('TAKEN by ann')");
    let server = RedisServer::start().await;
    let shard = shard(&server);
    server.cli(&["SET", "text", "x"]).await;
    let wrong = shard.eval(&PUSH, vec![bytes("text")], vec![bytes("1")]).await.unwrap_err();
    assert!(matches!(wrong, ShardError::WrongType { .. }), "{wrong}");
    let boom = shard.eval(&BOOM, vec![], vec![]).await.unwrap_err();
    assert!(
        matches!(&boom, ShardError::Refused { reason, .. } if reason.contains(":2: boom")),
        "{boom}"
    );
    let own = shard.eval(&OWN, vec![], vec![]).await.unwrap_err();
    assert!(
        matches!(&own, ShardError::Refused { reason, .. } if reason.starts_with("TAKEN")),
        "{own}"
    );

    server.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let full = shard.eval(&PUSH, vec![bytes("list")], vec![bytes("1")]).await.unwrap_err();
    assert!(matches!(full, ShardError::Away { .. }), "{full}");
}

#[tokio::test]
async fn a_flushed_script_is_loaded_again() {
    let server = RedisServer::start().await;
    let shard = shard(&server);
    for round in 0..5 {
        let word = round.to_string();
        assert_eq!(eval(&shard, &FIRST, "", &[&word]).await, Value::Bytes(bytes(&word)));
        server.cli(&["SCRIPT", "FLUSH"]).await;
    }
}

#[tokio::test]
async fn ten_thousand_callers_share_a_connection() {
    let server = RedisServer::start().await;
    let shard = Arc::new(shard(&server));
    let calls = (0..10_000).map(|number| {
        let shard = shard.clone();
        async move {
            let word = bytes(&number.to_string());
            let value = shard.eval(&FIRST, vec![], vec![word.clone()]).await.unwrap();
            assert_eq!(value, Value::Bytes(word));
        }
    });
    timeout(PATIENCE, join_all(calls)).await.unwrap();
    let clients = server.cli(&["CLIENT", "LIST"]).await;
    assert_eq!(clients.matches("name=pneumatic-cmd").count(), 1, "{clients}");
}

#[tokio::test]
async fn commands_fail_fast_while_the_server_is_away_and_work_when_it_is_back() {
    let mut server = RedisServer::start().await;
    server.kill();
    let shard = shard(&server);
    for _ in 0..3 {
        let before = Instant::now();
        let error = shard.eval(&FIRST, vec![], vec![bytes("x")]).await.unwrap_err();
        assert!(matches!(error, ShardError::Away { .. }), "{error}");
        assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    }
    server.restart().await;
    assert_eq!(eval(&shard, &FIRST, "", &["x"]).await, Value::Bytes(bytes("x")));

    server.kill();
    let before = Instant::now();
    let error = shard.eval(&FIRST, vec![], vec![bytes("x")]).await.unwrap_err();
    assert!(matches!(error, ShardError::Away { .. }), "{error}");
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    server.restart().await;
    assert_eq!(eval(&shard, &FIRST, "", &["x"]).await, Value::Bytes(bytes("x")));
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed_and_used_again() {
    let server = RedisServer::start().await;
    let shard = Arc::new(shard(&server));
    let mut ear = Ear::new(&shard, 64);
    ear.expect(Heard::Up).await;
    ear.subscribe("channel", 1).await;
    eval(&shard, &FIRST, "", &["x"]).await;

    server.pause();
    let before = Instant::now();
    // Steady traffic must not keep a dead connection looking alive.
    let (errors, ()) = tokio::join!(
        async {
            let mut errors = Vec::new();
            while before.elapsed() < Duration::from_secs(5) {
                let shard = shard.clone();
                errors.push(tokio::spawn(async move {
                    shard.eval(&FIRST, vec![], vec![bytes("x")]).await.unwrap_err()
                }));
                sleep(Duration::from_millis(50)).await;
            }
            join_all(errors).await
        },
        async {
            ear.expect_lost().await;
            let after = before.elapsed();
            assert!(after < Duration::from_secs(6), "{after:?}");
        }
    );
    let errors: Vec<ShardError> = errors.into_iter().map(Result::unwrap).collect();
    assert!(errors.iter().all(ShardError::is_away), "{errors:?}");
    assert!(matches!(errors[0], ShardError::Timeout { .. }), "{:?}", errors[0]);
    assert!(matches!(errors.last(), Some(ShardError::Away { .. })), "{:?}", errors.last());

    server.resume();
    ear.expect(Heard::Up).await;
    eval(&shard, &PUBLISH, "channel", &["again"]).await;
    ear.expect(notice("channel", "again")).await;
}

#[tokio::test]
async fn what_is_published_after_confirmed_is_heard() {
    let server = RedisServer::start().await;
    let shard = shard(&server);
    let mut ear = Ear::new(&shard, 64);
    ear.expect(Heard::Up).await;
    for round in 0..2_000_u64 {
        let channel = format!("channel.{}", round % 10);
        ear.subscribe(&channel, round).await;
        let word = round.to_string();
        assert_eq!(eval(&shard, &PUBLISH, &channel, &[&word]).await, Value::Int(1));
        ear.expect(notice(&channel, &word)).await;
        ear.link.unsubscribe(vec![bytes(&channel)]);
    }
}

#[tokio::test]
async fn a_channel_left_and_wanted_again_is_heard_and_counted() {
    let server = RedisServer::start().await;
    let shard = shard(&server);
    let mut ear = Ear::new(&shard, 64);
    ear.expect(Heard::Up).await;
    for round in 0..500 {
        ear.link.subscribe(vec![bytes("a"), bytes("b")], 2 * round);
        ear.link.unsubscribe(vec![bytes("a"), bytes("b")]);
        ear.link.subscribe(vec![bytes("a")], 2 * round + 1);
        ear.expect(Heard::Confirmed { ticket: 2 * round }).await;
        ear.expect(Heard::Confirmed { ticket: 2 * round + 1 }).await;
        assert_eq!(eval(&shard, &PUBLISH, "a", &["x"]).await, Value::Int(1));
        ear.expect(notice("a", "x")).await;
        ear.link.unsubscribe(vec![bytes("a")]);
    }
    // Wanted twice, left once: still there.
    ear.link.subscribe(vec![bytes("a"), bytes("a")], 9_001);
    ear.expect(Heard::Confirmed { ticket: 9_001 }).await;
    ear.link.unsubscribe(vec![bytes("a"), bytes("nobody wanted this")]);
    ear.subscribe("fence", 9_002).await;
    assert_eq!(eval(&shard, &PUBLISH, "a", &["x"]).await, Value::Int(1));
    assert_eq!(eval(&shard, &PUBLISH, "b", &["x"]).await, Value::Int(0));
    ear.expect(notice("a", "x")).await;
    ear.link.subscribe(Vec::new(), 9_003);
    ear.expect(Heard::Confirmed { ticket: 9_003 }).await;
}

#[tokio::test]
async fn a_hundred_thousand_channels_are_subscribed_in_chunks_and_again_after_a_cut() {
    const CALLS: u64 = 50_000;
    let server = RedisServer::start().await;
    let shard = shard(&server);
    let mut ear = Ear::new(&shard, 64);
    ear.expect(Heard::Up).await;
    let name = |number: u64| bytes(&format!("feed.publish:team.{number}"));
    ear.link.subscribe((0..50_000).map(|number| name(1_000_000 + number)).collect(), 0);
    for ticket in 1..=CALLS {
        ear.link.subscribe(vec![name(ticket)], ticket);
    }
    for ticket in 0..=CALLS {
        ear.expect(Heard::Confirmed { ticket }).await;
    }
    let count = async || server.cli(&["INFO", "stats"]).await;
    assert!(count().await.contains("pubsub_channels:100000\r\n"));

    server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    ear.expect_lost().await;
    ear.expect(Heard::Up).await;
    assert!(count().await.contains("pubsub_channels:100000\r\n"));

    for ticket in 1..=CALLS {
        ear.link.unsubscribe(vec![name(ticket)]);
    }
    // Only what is still wanted is left when the last change has been said.
    let deadline = Instant::now() + PATIENCE;
    while !count().await.contains("pubsub_channels:50000\r\n") {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn channels_are_heard_again_after_a_restart() {
    let mut server = RedisServer::start().await;
    let shard = shard(&server);
    let mut ear = Ear::new(&shard, 64);
    ear.expect(Heard::Up).await;
    ear.subscribe("old", 1).await;
    server.kill();
    ear.expect_lost().await;
    // What is wanted meanwhile is confirmed right after the connection is up.
    ear.link.subscribe(vec![bytes("new")], 2);
    ear.link.subscribe(vec![bytes("short")], 3);
    ear.link.unsubscribe(vec![bytes("short")]);
    ear.link.reset("nothing to reset");
    server.restart().await;
    ear.expect(Heard::Up).await;
    ear.expect(Heard::Confirmed { ticket: 2 }).await;
    ear.expect(Heard::Confirmed { ticket: 3 }).await;
    for channel in ["old", "new"] {
        eval(&shard, &PUBLISH, channel, &["x"]).await;
        ear.expect(notice(channel, "x")).await;
    }
    assert_eq!(eval(&shard, &PUBLISH, "short", &["x"]).await, Value::Int(0));

    ear.link.reset("deaf");
    assert_eq!(ear.expect_lost().await, "deaf");
    ear.expect(Heard::Up).await;
    eval(&shard, &PUBLISH, "old", &["y"]).await;
    ear.expect(notice("old", "y")).await;
}

#[tokio::test]
async fn a_link_made_while_the_server_is_away_comes_up() {
    let mut server = RedisServer::start().await;
    server.kill();
    let shard = shard(&server);
    let mut ear = Ear::new(&shard, 64);
    ear.link.subscribe(vec![bytes("early")], 1);
    server.restart().await;
    ear.expect(Heard::Up).await;
    ear.expect(Heard::Confirmed { ticket: 1 }).await;
}

#[tokio::test]
async fn a_dropped_link_leaves_the_server() {
    let server = RedisServer::start().await;
    let shard = shard(&server);
    let mut ear = Ear::new(&shard, 1);
    ear.expect(Heard::Up).await;
    ear.subscribe("channel", 1).await;
    // It waits on a full mailbox when it is dropped.
    for _ in 0..5 {
        eval(&shard, &PUBLISH, "channel", &["x"]).await;
    }
    let Ear { link, mut heard } = ear;
    drop(link);
    timeout(PATIENCE, async { while heard.recv().await.is_some() {} }).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while eval(&shard, &PUBLISH, "channel", &["x"]).await != Value::Int(0) {
        assert!(Instant::now() < deadline);
    }

    let ear = Ear::new(&shard, 1);
    drop(ear.heard);
    let before = eval(&shard, &PUBLISH, "channel", &["x"]).await;
    assert_eq!(before, Value::Int(0));
}

#[tokio::test]
async fn a_denied_channel_is_named_and_the_others_work() {
    let server = RedisServer::start().await;
    server
        .cli(&["ACL", "SETUSER", "gate", "on", ">pw", "~*", "+@all", "resetchannels", "&open.*"])
        .await;
    let mut address = address(&server);
    address.username = Some("gate".to_owned());
    address.password = Some("pw".to_owned());
    let shard = RedisShard::new("shard-01", address);
    let mut ear = Ear::new(&shard, 64);
    ear.expect(Heard::Up).await;

    for round in 0..20_u64 {
        let mut channels: Vec<Bytes> =
            (0..50).map(|number| bytes(&format!("open.{round}.{number}"))).collect();
        channels.insert(25, bytes("secret"));
        ear.link.subscribe(channels, 2 * round);
        ear.link.subscribe(vec![bytes("open.other")], 2 * round + 1);
        match ear.next().await {
            Heard::Refused { channel, error } => {
                assert_eq!(channel, bytes("secret"));
                assert!(error.starts_with("NOPERM"), "{error}");
            }
            other => panic!("expected Refused, heard {other:?}"),
        }
        ear.expect(Heard::Confirmed { ticket: 2 * round }).await;
        ear.expect(Heard::Confirmed { ticket: 2 * round + 1 }).await;
        for number in [0, 24, 25, 49] {
            let channel = format!("open.{round}.{number}");
            server.cli(&["PUBLISH", &channel, "x"]).await;
            ear.expect(notice(&channel, "x")).await;
        }
        let word = round.to_string();
        assert_eq!(eval(&shard, &FIRST, "", &[&word]).await, Value::Bytes(bytes(&word)));
    }

    // It stays wanted: once it is allowed, a new connection has it.
    server.cli(&["ACL", "SETUSER", "gate", "allchannels"]).await;
    server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    ear.expect_lost().await;
    ear.expect(Heard::Up).await;
    server.cli(&["PUBLISH", "secret", "x"]).await;
    ear.expect(notice("secret", "x")).await;
}

#[tokio::test]
async fn a_wrong_password_is_a_shard_that_is_away() {
    let server = RedisServer::start().await;
    server.cli(&["ACL", "SETUSER", "default", ">right"]).await;
    for password in [None, Some("wrong".to_owned())] {
        let address = RedisUrl { password, ..address(&server) };
        let shard = RedisShard::new("shard-01", address);
        let error = shard.eval(&FIRST, vec![], vec![bytes("x")]).await.unwrap_err();
        assert!(matches!(error, ShardError::Away { .. }), "{error}");
        let error = shard.waiter().wait(bytes("list"), Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, ShardError::Away { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_consumer_that_stops_loses_the_connection_and_nothing_grows() {
    let server = RedisServer::start().await;
    server.cli(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 4mb 4mb 60"]).await;
    let shard = shard(&server);
    let mut ear = Ear::new(&shard, 1);
    ear.expect(Heard::Up).await;
    ear.subscribe("channel", 1).await;

    let before = memory();
    let payload = "x".repeat(10_000);
    // 200 MB that nobody takes.
    for _ in 0..200 {
        eval(&shard, &MANY, "channel", &[&payload, "100"]).await;
    }
    let grown = memory().saturating_sub(before);
    // The tests beside this one need memory too, but not nearly as much as was published.
    assert!(grown < 120 << 20, "{grown} bytes");

    let mut notices = 0;
    loop {
        match ear.next().await {
            Heard::Notice { .. } => notices += 1,
            Heard::Lost { .. } => break,
            other => panic!("heard {other:?}"),
        }
    }
    assert!(notices < 20_000, "{notices}");
    ear.expect(Heard::Up).await;
    eval(&shard, &PUBLISH, "channel", &["again"]).await;
    ear.expect(notice("channel", "again")).await;
}

/// How much memory this process holds, in bytes.
fn memory() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("this system tells");
    let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test]
async fn a_slow_consumer_is_not_taken_for_a_dead_server() {
    let server = RedisServer::start().await;
    let shard = shard(&server);
    let mut ear = Ear::new(&shard, 1);
    ear.expect(Heard::Up).await;
    ear.subscribe("channel", 1).await;
    for number in 0..4 {
        eval(&shard, &PUBLISH, "channel", &[&number.to_string()]).await;
    }
    // Longer than a ping and its answer may take.
    sleep(Duration::from_secs(6)).await;
    for number in 0..4 {
        ear.expect(notice("channel", &number.to_string())).await;
    }
    eval(&shard, &PUBLISH, "channel", &["on"]).await;
    ear.expect(notice("channel", "on")).await;
}

#[tokio::test]
async fn a_waiter_waits_until_the_list_fills_and_leaves_it() {
    let mut server = RedisServer::start().await;
    let shard = shard(&server);
    let mut waiter = shard.waiter();
    let list = bytes("list");
    assert!(!waiter.wait(list.clone(), Duration::from_millis(50)).await.unwrap());
    assert!(!waiter.wait(list.clone(), Duration::ZERO).await.unwrap());

    let is_blocked = async |count: usize| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let clients = server.cli(&["INFO", "clients"]).await;
            if clients.contains(&format!("blocked_clients:{count}\r\n")) {
                return;
            }
            assert!(Instant::now() < deadline, "{clients}");
            sleep(Duration::from_millis(5)).await;
        }
    };
    let mut other = shard.waiter();
    let (one, two, ()) = tokio::join!(
        waiter.wait(list.clone(), PATIENCE),
        other.wait(list.clone(), PATIENCE),
        async {
            is_blocked(2).await;
            eval(&shard, &PUSH, "list", &["job"]).await;
        }
    );
    assert!(one.unwrap() && two.unwrap());
    assert!(waiter.wait(list.clone(), PATIENCE).await.unwrap());
    assert_eq!(eval(&shard, &LENGTH, "list", &[]).await, Value::Int(1));

    // A wait that is given up midway poisons nothing.
    let empty = bytes("empty");
    tokio::select! {
        _ = waiter.wait(empty.clone(), PATIENCE) => panic!("the list is empty"),
        () = is_blocked(1) => {}
    }
    is_blocked(0).await;
    assert!(waiter.wait(list.clone(), PATIENCE).await.unwrap());
    assert!(!waiter.wait(empty.clone(), Duration::from_millis(20)).await.unwrap());

    server.cli(&["SET", "text", "x"]).await;
    let wrong = waiter.wait(bytes("text"), PATIENCE).await.unwrap_err();
    assert!(matches!(wrong, ShardError::WrongType { .. }), "{wrong}");
    assert!(waiter.wait(list.clone(), PATIENCE).await.unwrap());

    server.kill();
    let away = waiter.wait(list.clone(), PATIENCE).await.unwrap_err();
    assert!(matches!(away, ShardError::Away { .. }), "{away}");
    server.restart().await;
    assert!(waiter.wait(list, PATIENCE).await.unwrap());
    assert_eq!(eval(&shard, &LENGTH, "list", &[]).await, Value::Int(1));
}
