//! Clients that read slowly or not at all, behind the real engine.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use gateway::{
    hub::frame::{About, Frame},
    metrics,
    mirror::Change,
    outbox::{CloseReason, Outbox},
    snapshot::event_json,
    socket::{EngineKind, Settings},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpSocket, TcpStream},
    time::sleep,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    clients::Herd,
    collapse::{self, Items, apply},
    stage::{Stage, Websocket, each_engine, eventually, settings_of},
};

each_engine! {
    who_stops_reading_while_one_item_changes_stays_and_ends_equal,
    who_stops_reading_while_much_is_published_is_closed_and_counted,
    a_large_snapshot_reaches_a_slow_reader_that_stays_while_others_talk,
    a_reader_that_is_far_too_slow_is_closed_behind_its_snapshot,
    a_slow_reader_whose_session_ends_is_not_given_its_snapshot_first,
    a_single_event_that_no_poll_asks_for_closes_its_client,
}

/// A small mailbox, and heartbeats that fall due all the time.
fn small(engine: EngineKind) -> Settings {
    Settings {
        outbox_bytes: 64 << 10,
        ping_interval: Some(Duration::from_millis(300)),
        ping_timeout: Some(Duration::from_secs(8)),
        ..settings_of(engine)
    }
}

/// A plain feed, and who hears it.
struct Feed {
    items: Items,
    ears: Vec<Outbox>,
}

const FEED: usize = 1;

impl Feed {
    fn tell(&self, change: &Change) {
        let name: Arc<str> = "plain".into();
        let v = collapse::version(FEED, &self.items).parse().unwrap();
        let (verb, json) = event_json(&name, change, Some(v));
        let about = match change {
            Change::Change { id, .. } => About::Change { feed: name, id: id.clone() },
            _ => About::Feed(name),
        };
        let frame = Frame::of_feed(about, verb, json);
        for ear in &self.ears {
            let _ = ear.offer(&frame);
        }
    }

    fn publish(&mut self, id: &str, bytes: usize) {
        let item = json!({ "text": "x".repeat(bytes) }).to_string();
        self.items.push((id.to_owned(), item.clone()));
        self.tell(&Change::Publish { id: id.into(), item: Bytes::from(item), position: None });
    }

    fn change(&mut self, at: usize, number: usize, bytes: usize) {
        let item = json!({ "number": number, "text": "x".repeat(bytes) }).to_string();
        let (id, held) = &mut self.items[at];
        held.clone_from(&item);
        let id = id.as_str().into();
        self.tell(&Change::Change { id, item: Bytes::from(item) });
    }

    /// Says something that is none of the feed's.
    fn say(&self, name: &str) {
        let frame = Frame::event(name, "null");
        for ear in &self.ears {
            let _ = ear.offer(&frame);
        }
    }
}

/// A literal client on a websocket whose kernel keeps little for it.
struct Reader {
    socket: Websocket,
    items: Items,
    events: usize,
    nulls: usize,
}

impl Reader {
    async fn join(addr: SocketAddr) -> Self {
        let url = format!("ws://{addr}/socket.io/?transport=websocket&EIO=4&demo_user=ann");
        let tcp = TcpSocket::new_v4().unwrap();
        tcp.set_recv_buffer_size(8 << 10).unwrap();
        let stream = tcp.connect(addr).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        socket.send(Message::text("40")).await.unwrap();
        Self { socket, items: Items::new(), events: 0, nulls: 0 }
    }

    /// Reads until an event of this name, and does what all before it say.
    ///
    /// `None` when the connection ends before.
    async fn read_until(&mut self, name: &str) -> Option<Value> {
        loop {
            let message = self.socket.next().await?.ok()?;
            let text = message.to_text().unwrap();
            if text == "2" {
                self.socket.send(Message::text("3")).await.ok()?;
            }
            let Some(array) = text.strip_prefix("42") else { continue };
            let (verb, told): (String, Value) = serde_json::from_str(array).unwrap();
            if verb == name {
                return Some(told);
            }
            if told["feed"] == "plain" {
                self.events += 1;
                let (id, item) = (told["id"].as_str().unwrap(), told.get("item"));
                apply(&mut self.items, &verb, id, item.map(Value::to_string), None);
                match told["v"].as_str() {
                    Some(v) => assert_eq!(v, collapse::version(FEED, &self.items)),
                    None => self.nulls += 1,
                }
            }
        }
    }
}

fn dropped_clients() -> f64 {
    let text = metrics::install().render();
    let line =
        text.lines().find_map(|line| line.strip_prefix("gateway_outbox_dropped_clients_total "));
    line.unwrap().parse().unwrap()
}

async fn who_stops_reading_while_one_item_changes_stays_and_ends_equal(engine: EngineKind) {
    let stall = Duration::from_secs(10);
    let mut stage = Stage::start_with(&Settings { stall, ..small(engine) }).await;
    let mut slow = Reader::join(stage.addr).await;
    let lags = stage.guest().await;
    let mut fast = Reader::join(stage.addr).await;
    let hears = stage.guest().await;
    let mut feed = Feed { items: Items::new(), ears: vec![lags.outbox.clone(), hears.outbox] };
    let reads = tokio::spawn(async move {
        fast.read_until("end").await.expect("it stays connected");
        fast
    });
    feed.publish("hot", 10);
    for number in 0..4_000 {
        feed.change(0, number, 1_000);
        if number % 100 == 0 {
            feed.publish(&number.to_string(), 100);
        }
        if number % 10 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    feed.say("end");
    let fast = reads.await.unwrap();
    assert_eq!((fast.events, fast.nulls), (4_041, 0));
    assert_eq!(fast.items, feed.items);
    slow.read_until("end").await.expect("it stays connected");
    assert_eq!(slow.items, feed.items);
    assert!(slow.events < 2_000 && slow.nulls > 0, "{} and {}", slow.events, slow.nulls);
    assert_eq!(lags.outbox.closed(), None);
}

async fn who_stops_reading_while_much_is_published_is_closed_and_counted(engine: EngineKind) {
    let stall = Duration::from_secs(10);
    let mut stage = Stage::start_with(&Settings { stall, ..small(engine) }).await;
    let before = dropped_clients();
    let still = Reader::join(stage.addr).await;
    let lags = stage.guest().await;
    let mut fast = Reader::join(stage.addr).await;
    let hears = stage.guest().await;
    let ears = vec![lags.outbox.clone(), hears.outbox.clone()];
    let mut feed = Feed { items: Items::new(), ears };
    let reads = tokio::spawn(async move {
        fast.read_until("end").await.expect("it stays connected");
        fast
    });
    let mut count = 0;
    while lags.outbox.closed().is_none() {
        feed.publish(&count.to_string(), 20_000);
        count += 1;
        assert!(count < 1_000, "it is never closed");
        sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(lags.outbox.closed(), Some(CloseReason::Slow));
    eventually("its end", || lags.has_left.load(std::sync::atomic::Ordering::SeqCst)).await;
    eventually("its count", || dropped_clients() > before).await;
    feed.say("end");
    let fast = reads.await.unwrap();
    assert_eq!((fast.items, fast.nulls), (feed.items, 0));
    assert_eq!(hears.outbox.closed(), None);
    drop(still);
}

/// Lets a server's bytes through at a rate, over kernels that keep little.
async fn throttle(server: SocketAddr, bytes_per_second: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry_slowly(client, server, bytes_per_second));
        }
    });
    addr
}

async fn carry_slowly(client: TcpStream, server: SocketAddr, rate: usize) -> Option<()> {
    let tcp = TcpSocket::new_v4().unwrap();
    tcp.set_recv_buffer_size(8 << 10).unwrap();
    let (mut from, mut to) = tcp.connect(server).await.ok()?.into_split();
    let (mut asks, mut answers) = client.into_split();
    tokio::spawn(async move { copy(&mut asks, &mut to).await });
    let (began, mut carried, mut buffer) = (Instant::now(), 0, vec![0; 8 << 10]);
    loop {
        let count = from.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        answers.write_all(&buffer[..count]).await.ok()?;
        carried += count;
        let due = began + Duration::from_secs_f64(carried as f64 / rate as f64);
        tokio::time::sleep_until(due.into()).await;
    }
}

/// A snapshot that takes longer to read than a stall may last.
fn large() -> Frame {
    Frame::snapshot("large", json!({ "text": "x".repeat(2 << 20) }).to_string())
}

async fn a_large_snapshot_reaches_a_slow_reader_that_stays_while_others_talk(engine: EngineKind) {
    let (rate, herd) = (800_000, Herd::start());
    // A client in Node may stand still for a moment where the machine is busy.
    let settings = Settings { outbox_bytes: 256 << 10, ..small(engine) };
    for (version, transport) in
        [("4.8", "websocket"), ("4.8", "polling"), ("2.5.0", "websocket"), ("2.5.0", "polling")]
    {
        let mut stage = Stage::start_with(&settings).await;
        let proxy = throttle(stage.addr, rate).await;
        let mut client = herd.open(json!({
            "version": version,
            "url": format!("http://{proxy}"),
            "transports": [transport],
            "cookie": "demo=ann",
        }));
        client.event("initial").await.unwrap();
        let guest = stage.guest().await;
        guest.outbox.offer(&large()).unwrap();
        // Twice what may wait otherwise, and less than is read meanwhile.
        for number in 0..600 {
            let event = json!({ "number": number, "text": "x".repeat(1_000) });
            let offered = guest.outbox.offer(&Frame::event("told", event.to_string()));
            assert!(offered.is_ok(), "{version} {transport}: {:?}", guest.outbox.closed());
            sleep(Duration::from_millis(3)).await;
        }
        let came = client.event("large").await.unwrap();
        assert_eq!(came["text"].as_str().unwrap().len(), 2 << 20);
        for number in 0..600 {
            assert_eq!(
                client.event("told").await.unwrap()["number"],
                number,
                "{version} {transport}"
            );
        }
        assert_eq!(client.call("echo", json!(7)).await.unwrap(), 7);
        assert_eq!((guest.outbox.closed(), stage.handshakes()), (None, 1), "{version} {transport}");
    }
}

async fn a_reader_that_is_far_too_slow_is_closed_behind_its_snapshot(engine: EngineKind) {
    let mut stage = Stage::start_with(&small(engine)).await;
    let proxy = throttle(stage.addr, 1_500_000).await;
    let mut slow = Reader::join(proxy).await;
    let guest = stage.guest().await;
    guest.outbox.offer(&large()).unwrap();
    let piece = Frame::event("piece", format!("\"{}\"", "x".repeat(20_000)));
    sleep(Duration::from_millis(200)).await;
    let mut count = 0;
    while guest.outbox.offer(&piece).is_ok() {
        count += 1;
    }
    assert_eq!(guest.outbox.closed(), Some(CloseReason::Slow));
    let room = (2 << 20) + (64 << 10);
    assert!(count * 20_000 < room && (count + 2) * 20_000 > room - 100_000, "{count}");
    let came = slow.read_until("large").await.expect("it comes whole");
    assert_eq!(came["text"].as_str().unwrap().len(), 2 << 20);
    assert_eq!(slow.read_until("nothing").await, None);
    eventually("its end", || guest.has_left.load(std::sync::atomic::Ordering::SeqCst)).await;
}

async fn a_slow_reader_whose_session_ends_is_not_given_its_snapshot_first(engine: EngineKind) {
    let mut stage = Stage::start_with(&small(engine)).await;
    let proxy = throttle(stage.addr, 200_000).await;
    let slow = Reader::join(proxy).await;
    let guest = stage.guest().await;
    guest.outbox.offer(&large()).unwrap();
    let piece = Frame::event("piece", format!("\"{}\"", "x".repeat(20_000)));
    sleep(Duration::from_millis(200)).await;
    while guest.outbox.offer(&piece).is_ok() {}
    sleep(Duration::from_millis(300)).await;
    assert!(!guest.has_left.load(std::sync::atomic::Ordering::SeqCst));
    let began = Instant::now();
    guest.outbox.close(CloseReason::SessionEnded);
    eventually("its end", || guest.has_left.load(std::sync::atomic::Ordering::SeqCst)).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    drop(slow);
}

async fn a_single_event_that_no_poll_asks_for_closes_its_client(engine: EngineKind) {
    let mut stage = Stage::start_of(engine).await;
    let path = stage.poll_raw().await;
    stage.get(&path, &[]).await;
    let guest = stage.guest().await;
    guest.outbox.offer(&Frame::event("told", "7")).unwrap();
    eventually("its end", || guest.outbox.closed() == Some(CloseReason::Stalled)).await;
    assert!(stage.get(&path, &[]).await.says_closed());
}
