//! What is under way when a poll is given up, or a websocket takes over.

use std::time::{Duration, Instant};

use futures_util::SinkExt;
use gateway::{
    hub::frame::Frame,
    socket::{EngineKind, Settings},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_tungstenite::tungstenite::Message;

use super::{Poller, hears};
use crate::stage::{Stage, settings_of};

/// A connection whose kernel takes little of what nobody reads.
async fn narrow(stage: &Stage) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(stage.addr).await.unwrap()
}

/// Asks for a poll on this connection.
async fn ask(stream: &mut TcpStream, poller: &Poller) {
    let head = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", poller.path, poller.stage.addr);
    stream.write_all(head.as_bytes()).await.unwrap();
}

fn large() -> Frame {
    Frame::event("large", format!("\"{}\"", "x".repeat(900_000)))
}

/// A client that pings while it goes over from its polls does not hear of it from these.
#[tokio::test]
async fn a_pong_that_waits_for_a_poll_goes_over_to_the_websocket() {
    let poller = Poller::joined(EngineKind::Pneumatic, "EIO=3&b64=1").await;
    poller.hears(b"42[\"initial\"").await;
    let query = poller.path.split_once('?').unwrap().1.replace("transport=polling", "");
    let mut probe = poller.stage.websocket(&query).await;
    probe.send(Message::text("2probe")).await.unwrap();
    assert_eq!(hears(&mut probe, "3").await.as_deref(), Some("3probe"));
    assert_eq!(poller.post("1:2").await.text(), "ok");
    probe.send(Message::text("5")).await.unwrap();
    probe.send(Message::text("420[\"echo\",1]")).await.unwrap();
    let first = hears(&mut probe, "").await;
    assert_eq!(first.as_deref(), Some("3"));
}

/// The same for a server that pings: unheard, it would give its client up.
#[tokio::test]
async fn a_ping_that_waits_for_a_poll_goes_over_to_the_websocket() {
    let settings = Settings {
        ping_interval: Some(Duration::from_millis(300)),
        ..settings_of(EngineKind::Pneumatic)
    };
    let poller = Poller::joined_on(Stage::start_with(&settings).await, "EIO=4").await;
    poller.hears(b"42[\"initial\"").await;
    let query = poller.path.split_once('?').unwrap().1.replace("transport=polling", "");
    let mut probe = poller.stage.websocket(&query).await;
    probe.send(Message::text("2probe")).await.unwrap();
    assert_eq!(hears(&mut probe, "3").await.as_deref(), Some("3probe"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    probe.send(Message::text("5")).await.unwrap();
    let ping = tokio::time::timeout(Duration::from_secs(5), hears(&mut probe, ""));
    assert_eq!(ping.await.ok().flatten().as_deref(), Some("2"));
}

#[tokio::test]
async fn an_answer_that_is_given_up_half_way_is_said_again_whole() {
    for pause in [0, 50] {
        let poller = Poller::joined(EngineKind::Pneumatic, "EIO=3&b64=1").await;
        poller.hears(b"42[\"initial\"").await;
        for round in 0..10 {
            assert_eq!(poller.post("1:2").await.text(), "ok");
            poller.guest().outbox.offer(&large()).unwrap();
            let mut goes = narrow(&poller.stage).await;
            ask(&mut goes, &poller).await;
            let mut some = vec![0; 20_000];
            goes.read_exact(&mut some).await.unwrap();
            drop(goes);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let again = poller.poll().await.text();
            assert!(again.starts_with("1:3900014:42[\"large\""), "{round}: {}", &again[..20]);
            assert!(again.ends_with("x\"]"), "{round}");
        }
    }
}

/// Its proxy, or its page, has given the poll up, but nothing tells so.
#[tokio::test]
async fn an_answer_that_nobody_reads_to_its_end_is_said_to_the_next_poll() {
    let poller = Poller::joined(EngineKind::Pneumatic, "EIO=4").await;
    poller.hears(b"42[\"initial\"").await;
    poller.guest().outbox.offer(&large()).unwrap();
    let mut stands = narrow(&poller.stage).await;
    ask(&mut stands, &poller).await;
    let mut some = vec![0; 20_000];
    stands.read_exact(&mut some).await.unwrap();
    let again = poller.poll().await.text();
    assert!(again.starts_with("42[\"large\""), "{}", &again[..20.min(again.len())]);
    // What was cut off must not come as well.
    let mut rest = Vec::new();
    let _ = stands.read_to_end(&mut rest).await;
    assert!(rest.len() < 800_000, "{}", rest.len());
}

/// It takes longer than `stall`, but something goes out all the time.
#[tokio::test]
async fn who_reads_an_answer_slowly_has_not_stalled() {
    let poller = Poller::joined(EngineKind::Pneumatic, "EIO=4").await;
    poller.hears(b"42[\"initial\"").await;
    poller.guest().outbox.offer(&large()).unwrap();
    let mut slow = narrow(&poller.stage).await;
    ask(&mut slow, &poller).await;
    let (began, mut read, mut piece) = (Instant::now(), 0, vec![0; 10_000]);
    while read < 900_000 {
        let bytes = slow.read(&mut piece).await.unwrap();
        assert!(bytes > 0, "cut off after {read} bytes and {:?}", began.elapsed());
        read += bytes;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
    poller.guest().outbox.offer(&Frame::event("said", "1")).unwrap();
    assert_eq!(poller.poll().await.text(), "42[\"said\",1]");
}

/// It belongs to no session that could be ended.
#[tokio::test]
async fn a_websocket_that_has_not_taken_over_keeps_no_gateway_from_its_end() {
    let poller = Poller::joined(EngineKind::Pneumatic, "EIO=4").await;
    poller.hears(b"42[\"initial\"").await;
    let query = poller.path.split_once('?').unwrap().1.replace("transport=polling", "");
    let mut probe = poller.stage.websocket(&query).await;
    probe.send(Message::text("2probe")).await.unwrap();
    assert_eq!(hears(&mut probe, "3").await.as_deref(), Some("3probe"));
    assert!(poller.stage.drain.finish(Duration::from_secs(3)).await);
}

/// A proxy has the answer at once; its client, behind a slow line, some time later.
#[tokio::test]
async fn who_has_a_large_answer_from_a_proxy_has_time_to_take_it() {
    let poller = Poller::joined(EngineKind::Pneumatic, "EIO=4").await;
    poller.hears(b"42[\"initial\"").await;
    poller.guest().outbox.offer(&large()).unwrap();
    assert!(poller.poll().await.text().starts_with("42[\"large\""));
    poller.guest().outbox.offer(&Frame::event("said", "1")).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(poller.poll().await.text(), "42[\"said\",1]");
}
