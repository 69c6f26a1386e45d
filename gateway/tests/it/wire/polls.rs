//! Polls: several at once, aborted, too many, and while a websocket tries to take over.

use std::time::{Duration, Instant};

use futures_util::SinkExt;
use gateway::{
    hub::frame::Frame,
    outbox::CloseReason,
    socket::{EngineKind, Settings},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::Message;

use super::{Poller, hears, leaves};
use crate::stage::{Stage, each_engine, settings_of};

each_engine! {
    polls_are_not_hurried_while_an_upgrade_is_pending,
    a_post_to_a_session_that_was_closed_harms_nothing,
    a_client_that_closes_its_session_is_gone,
    a_client_that_never_polls_again_is_forgotten,
    a_body_may_come_in_chunks,
}

async fn polls_are_not_hurried_while_an_upgrade_is_pending(engine: EngineKind) {
    let poller = Poller::joined(engine, "EIO=4").await;
    poller.hears(b"42[\"initial\"").await;
    let query = poller.path.split_once('?').unwrap().1.replace("transport=polling", "");
    let mut probe = poller.stage.websocket(&query).await;
    probe.send(Message::text("2probe")).await.unwrap();
    assert_eq!(hears(&mut probe, "3").await.as_deref(), Some("3probe"));
    let (began, mut polls) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(1) {
        let answer = poller.poll().await.text();
        assert!(["6", "2"].contains(&answer.as_str()), "{answer}");
        polls += 1;
    }
    // The original servers answer ten times a second; a guard before an engine may do twice.
    assert!((2..=22).contains(&polls), "{polls} polls in a second");
    probe.send(Message::text("5")).await.unwrap();
    probe.send(Message::text("420[\"echo\",1]")).await.unwrap();
    assert_eq!(hears(&mut probe, "43").await.as_deref(), Some("430[1]"));
}

async fn a_post_to_a_session_that_was_closed_harms_nothing(engine: EngineKind) {
    let poller = Poller::joined(engine, "EIO=4").await;
    poller.hears(b"42[\"initial\"").await;
    let guest = poller.guest();
    guest.outbox.close(CloseReason::Asked);
    // It may cross the close on the way; it is taken, or the session is unknown.
    let crossing = poller.post("42[\"tell\",1]").await;
    assert!(crossing.text() == "ok" || crossing.status == 400, "{crossing:?}");
    assert!(leaves(guest).await);
    let late = poller.post("42[\"tell\",1]").await;
    assert!(late.text() == "ok" || late.status == 400, "{late:?}");
    let mut poll = poller.poll().await;
    while poll.status == 200 {
        poll = poller.poll().await;
    }
    assert_eq!(poll.text(), r#"{"code":1,"message":"Session ID unknown"}"#);
    assert_eq!(poller.post("42[\"tell\",1]").await.status, 400);
}

async fn a_client_that_closes_its_session_is_gone(engine: EngineKind) {
    for (query, close) in [("EIO=4", "1"), ("EIO=3&b64=1", "1:1")] {
        let poller = Poller::joined(engine, query).await;
        poller.hears(b"\"initial\"").await;
        assert_eq!(poller.post(close).await.text(), "ok");
        assert!(leaves(poller.guest()).await, "{query}");
        assert_eq!(poller.guest().outbox.closed(), None);
    }
}

async fn a_client_that_never_polls_again_is_forgotten(engine: EngineKind) {
    let settings = Settings {
        ping_interval: Some(Duration::from_millis(500)),
        ping_timeout: Some(Duration::from_millis(500)),
        ..settings_of(engine)
    };
    for query in ["EIO=4", "EIO=3"] {
        let stage = Stage::start_with(&settings).await;
        let poller = Poller::joined_on(stage, query).await;
        poller.hears(b"\"initial\"").await;
        assert!(leaves(poller.guest()).await, "{query}");
    }
}

async fn a_body_may_come_in_chunks(engine: EngineKind) {
    let poller = Poller::joined(engine, "EIO=4").await;
    poller.hears(b"42[\"initial\"").await;
    let mut stream = TcpStream::connect(poller.stage.addr).await.unwrap();
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
         4\r\n420[\r\n9\r\n\"echo\",1]\r\n0\r\n\r\n",
        poller.path
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("ok"), "{answer}");
    poller.hears(b"430[1]").await;
}

/// socketioxide ends the session.
#[tokio::test]
async fn of_two_polls_the_older_is_answered_with_nothing() {
    let poller = Poller::joined(EngineKind::Pneumatic, "EIO=4").await;
    poller.hears(b"42[\"initial\"").await;
    let newer = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        poller.poll().await
    };
    let said = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        poller.guest().outbox.offer(&Frame::event("said", "1")).unwrap();
    };
    let began = Instant::now();
    let older = async { (poller.poll().await, began.elapsed()) };
    let ((older, took), newer, ()) = tokio::join!(older, newer, said);
    assert_eq!((older.status, older.text().as_str()), (200, "6"));
    assert!(took < Duration::from_millis(390), "{took:?}");
    assert_eq!(newer.text(), "42[\"said\",1]");
}

/// socketioxide ends the session.
#[tokio::test]
async fn a_websocket_that_breaks_behind_its_probe_leaves_the_polls_as_they_were() {
    for query in ["EIO=4", "EIO=3"] {
        let poller = Poller::joined(EngineKind::Pneumatic, query).await;
        poller.hears(b"\"initial\"").await;
        let upgrade = poller.path.split_once('?').unwrap().1.replace("transport=polling", "");
        for round in 0..3 {
            let mut probe = poller.stage.websocket(&upgrade).await;
            probe.send(Message::text("2probe")).await.unwrap();
            assert_eq!(hears(&mut probe, "3").await.as_deref(), Some("3probe"));
            let said = Frame::event("said", round.to_string());
            poller.guest().outbox.offer(&said).unwrap();
            drop(probe);
            poller.hears(format!("42[\"said\",{round}]").as_bytes()).await;
        }
        assert!(!poller.guest().has_left.load(std::sync::atomic::Ordering::SeqCst));
    }
}

/// socketioxide loses the first event.
#[tokio::test]
async fn a_poll_whose_client_goes_in_the_same_moment_takes_nothing_with_it() {
    let poller = Poller::joined(EngineKind::Pneumatic, "EIO=4").await;
    poller.hears(b"42[\"initial\"").await;
    for round in 0..20 {
        let mut goes = TcpStream::connect(poller.stage.addr).await.unwrap();
        let request =
            format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", poller.path, poller.stage.addr);
        goes.write_all(request.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        drop(goes);
        let said = Frame::event("said", round.to_string());
        poller.guest().outbox.offer(&said).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(poller.poll().await.text(), format!("42[\"said\",{round}]"));
    }
}

/// socketioxide waits for as long as a heartbeat may take.
#[tokio::test]
async fn a_client_that_never_polls_has_no_longer_than_one_that_never_joins() {
    let connect_timeout = Duration::from_millis(500);
    let settings = Settings { connect_timeout, ..settings_of(EngineKind::Pneumatic) };
    let mut stage = Stage::start_with(&settings).await;
    let path = "/socket.io/?EIO=3&transport=polling&demo_user=ann";
    assert_eq!(stage.get(path, &[]).await.status, 200);
    let guest = stage.guest().await;
    let began = Instant::now();
    assert!(leaves(&guest).await);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
