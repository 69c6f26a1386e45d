//! What every engine promises behind its boundary, beyond what real clients show (`behaviour.rs`).

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use gateway::{
    auth::{Authenticator, Settings as Auth, express::Pointers},
    hub::frame::Frame,
    outbox::CloseReason,
    socket::{EngineKind, Protocol, Settings},
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::stage::{Stage, Websocket, each_engine, eventually, settings_of};

each_engine! {
    a_transport_without_its_client_is_closed_unless_it_joins_again,
    a_refused_browser_of_the_old_kind_reads_the_binary_framing,
    a_wrong_origin_is_refused_before_the_cookie_is_looked_at,
    what_no_engine_understands_is_refused_clearly,
    both_spellings_of_the_path_lead_to_the_same_engine,
    a_poll_that_waits_is_answered_when_its_client_is_closed,
    a_polling_client_that_polls_no_more_is_closed_when_its_events_wait_too_long,
    heartbeats_pass_while_more_waits_than_a_slow_reader_takes,
    too_large_a_message_ends_its_client,
    more_events_than_the_queue_holds_close_their_client,
    malformed_packets_harm_nobody,
    a_client_that_never_joins_is_closed,
    resume_and_protocol_reach_the_inside,
    a_session_store_that_is_away_is_no_refusal,
}

async fn a_transport_without_its_client_is_closed_unless_it_joins_again(engine: EngineKind) {
    let mut stage = Stage::start_of(engine).await;
    let mut leaves = joined(&stage).await;
    let guest = stage.guest().await;
    leaves.send(Message::text("41")).await.unwrap();
    eventually("the end of inbound", || guest.has_left.load(Ordering::SeqCst)).await;
    let mut rejoins = joined(&stage).await;
    stage.guest().await;
    rejoins.send(Message::text("41")).await.unwrap();
    rejoins.send(Message::text("40")).await.unwrap();
    stage.guest().await;
    assert_eq!(read_until(&mut leaves, "nothing").await, None);
    rejoins.send(Message::text(r#"421["echo",5]"#)).await.unwrap();
    assert_eq!(read_until(&mut rejoins, "43").await.as_deref(), Some("431[5]"));
}

async fn a_refused_browser_of_the_old_kind_reads_the_binary_framing(engine: EngineKind) {
    let stage = Stage::start_of(engine).await;
    let path = "/socket.io/?EIO=2&transport=polling";
    let open = stage.get(path, &[]).await;
    assert_eq!(open.header("content-type"), Some("application/octet-stream"));
    assert_eq!(open.body[0], 0);
    let json = open.text();
    let json: Value = serde_json::from_str(&json[json.find('{').unwrap()..]).unwrap();
    let path = format!("{path}&sid={}", json["sid"].as_str().unwrap());
    let told = stage.get(&path, &[]).await;
    assert_eq!(told.body, b"\x00\x01\x06\xff44\"unauthorized\"\x00\x02\xff41");
}

async fn a_wrong_origin_is_refused_before_the_cookie_is_looked_at(engine: EngineKind) {
    let stage = Stage::start_of(engine).await;
    let path = "/socket.io/?EIO=4&transport=polling&demo_user=ann";
    let refused = stage.get(path, &["Origin: https://evil.net"]).await;
    assert_eq!(refused.status, 403);
    assert_eq!(serde_json::from_slice::<Value>(&refused.body).unwrap()["code"], 4);
    assert_eq!(refused.header("access-control-allow-origin"), None);
    assert_eq!(refused.header("vary"), Some("Origin"));

    let own = format!("Origin: http://{}", stage.addr);
    for origin in ["Origin: https://app.example.com", &own] {
        for path in [path, "/socket.io/?EIO=4&transport=polling", "/socket.io/?EIO=4", "/socket.io"]
        {
            let answer = stage.get(path, &[origin]).await;
            assert_ne!(answer.status, 403);
            assert_eq!(answer.header("access-control-allow-origin"), Some(&origin[8..]), "{path}");
            assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
            assert_eq!(answer.header("vary"), Some("Origin"));
        }
    }

    let asked = "Access-Control-Request-Headers: x-token";
    let preflight = ["Origin: https://app.example.com", asked];
    let preflight = stage.request("OPTIONS /socket.io/", &preflight, b"").await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-headers"), Some("x-token"));
    let preflight = stage.request("OPTIONS /socket.io/", &["Origin: https://evil.net"], b"").await;
    assert_eq!(preflight.status, 403);
}

async fn what_no_engine_understands_is_refused_clearly(engine: EngineKind) {
    let stage = Stage::start_of(engine).await;
    let path = stage.poll_raw().await;
    let check = async |start: &str, code: u8| {
        let answer = stage.request(start, &[], b"").await;
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, &body["code"]), (400, &json!(code)), "{start}");
    };
    check("GET /socket.io/?EIO=4&transport=polling&sid=nobody", 1).await;
    check("POST /socket.io/?EIO=3&transport=polling&sid=refused-nobody", 1).await;
    check("GET /socket.io/?EIO=4&transport=pigeon", 0).await;
    check("GET /socket.io/?EIO=5&transport=polling", 5).await;
    check("GET /socket.io/?EIO=3&transport=polling&j=0", 3).await;
    check("POST /socket.io/?EIO=4&transport=polling", 2).await;
    check("GET /socket.io/?EIO=4&transport=websocket&demo_user=ann", 3).await;
    check(&format!("PUT {path}"), 2).await;
    assert_eq!(stage.get("/socket.io/1/?t=1", &[]).await.status, 404);
}

async fn both_spellings_of_the_path_lead_to_the_same_engine(engine: EngineKind) {
    let stage = Stage::start_of(engine).await;
    let path = stage.poll_raw().await;
    assert_eq!(stage.post(&path.replace("io/?", "io?"), r#"42["tell",1]"#).await.text(), "ok");
    let mut heard = String::new();
    while !heard.contains(r#"42["told",1]"#) {
        heard.push_str(&stage.get(&path, &[]).await.text());
    }
    // socketioxide may ask for a sign of life first.
    assert!(heard.trim_start_matches(['2', '\u{1e}']).starts_with("40{"), "{heard}");
}

async fn a_poll_that_waits_is_answered_when_its_client_is_closed(engine: EngineKind) {
    let mut stage = Stage::start_of(engine).await;
    let path = stage.poll_raw().await;
    stage.get(&path, &[]).await;
    let guest = stage.guest().await;
    let closer = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        guest.outbox.close(CloseReason::SessionEnded);
        guest
    });
    let mut answer = stage.get(&path, &[]).await;
    while answer.status == 200 {
        answer = stage.get(&path, &[]).await;
    }
    assert_eq!(answer.text(), r#"{"code":1,"message":"Session ID unknown"}"#);
    assert_eq!(stage.post(&path, "3").await.status, 400);
    let guest = closer.await.unwrap();
    eventually("the end of inbound", || guest.has_left.load(Ordering::SeqCst)).await;
}

async fn joined(stage: &Stage) -> Websocket {
    let mut socket = stage.websocket("EIO=4&demo_user=ann").await;
    socket.send(Message::text("40")).await.unwrap();
    socket
}

/// Reads texts until one starts like this; `None` when the socket ends before.
async fn read_until(socket: &mut Websocket, start: &str) -> Option<String> {
    while let Some(Ok(message)) = socket.next().await {
        match message.to_text() {
            Ok(text) if text.starts_with(start) => return Some(text.to_owned()),
            _ => {}
        }
    }
    None
}

async fn a_polling_client_that_polls_no_more_is_closed_when_its_events_wait_too_long(
    engine: EngineKind,
) {
    let mut stage = Stage::start_of(engine).await;
    let path = stage.poll_raw().await;
    stage.get(&path, &[]).await;
    let guest = stage.guest().await;
    for number in 0..200 {
        guest.outbox.offer(&Frame::event("count", number.to_string())).unwrap();
    }
    eventually("its end", || guest.outbox.closed() == Some(CloseReason::Stalled)).await;
    eventually("the end of inbound", || guest.has_left.load(Ordering::SeqCst)).await;
    assert!(stage.get(&path, &[]).await.says_closed());
}

async fn heartbeats_pass_while_more_waits_than_a_slow_reader_takes(engine: EngineKind) {
    let mut stage = Stage::start_with(&Settings {
        outbox_bytes: 256 << 20,
        stall: Duration::from_secs(5),
        ping_interval: Some(Duration::from_millis(100)),
        ping_timeout: Some(Duration::from_secs(10)),
        ..settings_of(engine)
    })
    .await;
    let mut slow = joined(&stage).await;
    let guest = stage.guest().await;
    let piece = "x".repeat(20_000);
    for number in 0..2_000 {
        let json = format!("{{\"number\":{number},\"text\":\"{piece}\"}}");
        guest.outbox.offer(&Frame::event("piece", json)).unwrap();
    }
    let mut next = 0;
    while next < 2_000 {
        let message = slow.next().await.expect("it stays connected").unwrap();
        let text = message.to_text().unwrap();
        if text == "2" {
            slow.send(Message::text("3")).await.unwrap();
        }
        if text.starts_with("42[\"piece\"") {
            assert!(text.starts_with(&format!("42[\"piece\",{{\"number\":{next},")));
            next += 1;
            // Slow enough for many heartbeats to fall due while everything is full.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(guest.outbox.closed(), None);
}

async fn too_large_a_message_ends_its_client(engine: EngineKind) {
    let mut stage = Stage::start_of(engine).await;
    let mut socket = joined(&stage).await;
    let guest = stage.guest().await;
    let large = format!("42[\"echo\",\"{}\"]", "x".repeat(70 << 10));
    socket.send(Message::text(large.clone())).await.unwrap();
    eventually("its end", || guest.has_left.load(Ordering::SeqCst)).await;

    let path = stage.poll_raw().await;
    let guest = stage.guest().await;
    stage.post(&path, &large).await;
    eventually("its end", || guest.has_left.load(Ordering::SeqCst)).await;
    assert_eq!(guest.outbox.closed(), Some(CloseReason::TooMuch));

    let path = stage.poll_raw().await;
    let guest = stage.guest().await;
    let huge = format!("42[\"echo\",\"{}\"]", "x".repeat(1 << 20));
    assert_eq!(stage.post(&path, &huge).await.status, 413);
    eventually("its end", || guest.has_left.load(Ordering::SeqCst)).await;
}

async fn more_events_than_the_queue_holds_close_their_client(engine: EngineKind) {
    let mut stage = Stage::start_of(engine).await;
    let path = stage.poll_raw().await;
    let guest = stage.guest().await;
    let many = vec![r#"42["echo",1]"#; 8_000].join("\u{1e}");
    stage.post(&path, &many).await;
    eventually("its end", || guest.outbox.closed() == Some(CloseReason::TooMuch)).await;
    eventually("the end of inbound", || guest.has_left.load(Ordering::SeqCst)).await;
}

async fn malformed_packets_harm_nobody(engine: EngineKind) {
    let mut stage = Stage::start_of(engine).await;
    let mut good = joined(&stage).await;
    stage.guest().await;
    for text in [
        "",
        "4",
        "42",
        "42[",
        "42[]",
        "42{}",
        "42[1]",
        "42[\"echo\",",
        "42\"echo\"",
        "421",
        "43",
        "430[]",
        "44",
        "45",
        "451-[\"echo\",{\"_placeholder\":true,\"num\":0}]",
        "459999-[]",
        "46",
        "49",
        "40",
        "40/nowhere,",
        "41/nowhere,",
        "42/nowhere,[\"echo\"]",
        "9",
        "2probe",
        "5",
        "6",
        "0",
        "é",
        "42é[\"x\"]",
        "4299999999999999999999[\"echo\",1]",
        "40{",
        "1",
    ] {
        let mut socket = joined(&stage).await;
        let _ = socket.send(Message::text(text)).await;
        let _ = socket.send(Message::binary(vec![4, 1, 2])).await;
        let mut old = stage.websocket("EIO=3&demo_user=bob").await;
        let _ = old.send(Message::text(text)).await;
        let _ = old.send(Message::binary(vec![])).await;
        let path = stage.poll_raw().await;
        stage.post(&path, text).await;
        let old = "/socket.io/?EIO=3&transport=polling&demo_user=ann";
        let open = stage.get(old, &[]).await.text();
        let open: Value = serde_json::from_str(&open[open.find('{').unwrap()..]).unwrap();
        let old = format!("{old}&sid={}", open["sid"].as_str().unwrap());
        stage.post(&old, text).await;
        stage.post(&old, &format!("999:{text}")).await;
        stage.post(&old, "-1:x").await;
        good.send(Message::text(r#"427["echo",{"still":"here"}]"#)).await.unwrap();
        let heard = read_until(&mut good, "43").await;
        assert_eq!(heard.as_deref(), Some(r#"437[{"still":"here"}]"#), "after {text}");
    }
}

async fn a_client_that_never_joins_is_closed(engine: EngineKind) {
    let stage = Stage::start_of(engine).await;
    let mut socket = stage.websocket("EIO=4&demo_user=ann").await;
    let began = Instant::now();
    assert_eq!(read_until(&mut socket, "40").await, None);
    assert!(began.elapsed() < Duration::from_secs(4));
}

async fn resume_and_protocol_reach_the_inside(engine: EngineKind) {
    let mut stage = Stage::start_of(engine).await;
    let mut asks = stage.websocket("EIO=4&demo_user=ann&resume=1").await;
    asks.send(Message::text("40")).await.unwrap();
    let guest = stage.guest().await;
    assert!(guest.resume && guest.protocol == Protocol::Eio4);
    let mut asks = stage.websocket("EIO=4&demo_user=bob").await;
    asks.send(Message::text(r#"40{"resume":1}"#)).await.unwrap();
    let guest = stage.guest().await;
    assert!(guest.resume && guest.session.identity.user.as_str() == "bob");
    let _asks = stage.websocket("demo_user=ann").await;
    let guest = stage.guest().await;
    assert!(!guest.resume && guest.protocol == Protocol::Eio3);
}

async fn a_session_store_that_is_away_is_no_refusal(engine: EngineKind) {
    let authenticator = Authenticator::new(Auth::Express {
        cookie: "connect.sid".to_owned(),
        secrets: vec!["keyboard cat".to_owned()],
        store: "redis://127.0.0.1:9/0".to_owned(),
        prefix: "sess:".to_owned(),
        pointers: Pointers { user: "/user/id".to_owned(), teams: "/user/teams".to_owned() },
    });
    let stage = Stage::start_for(&settings_of(engine), authenticator.unwrap()).await;
    let cookie = "Cookie: connect.sid=s%3A0GvUS-m.x.w0vBu9PK0jYPUZ6TaKXRAAH2MxXuj9DcPV%2BqDvd3LbA";
    let path = "/socket.io/?EIO=4&transport=polling";
    let began = Instant::now();
    let answer = stage.get(path, &[cookie]).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // A cookie that nobody signed is refused without the store.
    assert_eq!(stage.get(path, &["Cookie: connect.sid=s%3Ax.y"]).await.status, 200);
}
