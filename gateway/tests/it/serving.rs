//! How long a connection may say nothing, on raw sockets.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use gateway::{
    hub::frame::Frame,
    socket::{EngineKind, Settings},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use crate::stage::{PATIENCE, Stage, each_engine, eventually, settings_of};

each_engine! {
    a_connection_that_asks_for_nothing_is_closed,
    a_head_that_is_too_large_is_refused_before_it_is_whole,
    a_byte_now_and_then_does_not_keep_half_a_head_alive,
    a_held_poll_and_a_silent_websocket_stay,
    connections_end_with_the_gateway,
}

const SILENCE: Duration = Duration::from_secs(1);

async fn stage(engine: EngineKind) -> Stage {
    Stage::start_with(&Settings { connect_timeout: SILENCE, ..settings_of(engine) }).await
}

/// Opens a connection, says something, and tells what came back until its end, and when that was.
async fn until_closed(stage: &Stage, said: &str) -> (String, Duration) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(stage.addr).await.unwrap();
    stream.write_all(said.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("it is closed").unwrap();
    (String::from_utf8(heard).unwrap(), began.elapsed())
}

async fn a_connection_that_asks_for_nothing_is_closed(engine: EngineKind) {
    let stage = stage(engine).await;
    let whole = "GET /socket.io/?EIO=9 HTTP/1.1\r\nHost: x\r\n\r\n";
    let half = &whole[..whole.len() - 2];
    let again = format!("{whole}{half}");
    let (silent, half, idle, again) = tokio::join!(
        until_closed(&stage, ""),
        until_closed(&stage, half),
        until_closed(&stage, whole),
        until_closed(&stage, &again),
    );
    for (heard, took) in [&silent, &half, &idle, &again] {
        assert!(*took >= SILENCE, "{took:?}: {heard}");
    }
    assert_eq!((silent.0.as_str(), half.0.as_str()), ("", ""));
    for (heard, _) in [idle, again] {
        assert_eq!(heard.matches("HTTP/1.1 400").count(), 1, "{heard}");
    }
}

/// Half a head of any size would be kept for as long as it may take.
async fn a_head_that_is_too_large_is_refused_before_it_is_whole(engine: EngineKind) {
    let stage = stage(engine).await;
    let mut stream = TcpStream::connect(stage.addr).await.unwrap();
    let query = "x".repeat(40 << 10);
    let head = format!("GET /socket.io/?EIO=9&x={query} HTTP/1.1\r\nHost: x\r\nCookie: ");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; 30 << 10]).await.unwrap();
    let (began, mut answer) = (Instant::now(), vec![0; 12]);
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 431");
    assert!(began.elapsed() < SILENCE, "{:?}", began.elapsed());
}

async fn a_byte_now_and_then_does_not_keep_half_a_head_alive(engine: EngineKind) {
    let stage = stage(engine).await;
    let mut stream = TcpStream::connect(stage.addr).await.unwrap();
    let trickled = timeout(PATIENCE, async {
        stream.write_all(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
        while stream.write_all(b"x").await.is_ok() {
            sleep(SILENCE / 10).await;
        }
    });
    trickled.await.expect("it is closed");
}

async fn a_held_poll_and_a_silent_websocket_stay(engine: EngineKind) {
    let mut stage = stage(engine).await;
    let path = stage.poll_raw().await;
    let polling = stage.guest().await;
    let mut websocket = stage.websocket("EIO=4&demo_user=bob").await;
    websocket.send(Message::text("40")).await.unwrap();
    stage.guest().await;
    let mut held = TcpStream::connect(stage.addr).await.unwrap();
    let poll = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    held.write_all(poll.as_bytes()).await.unwrap();
    // What greets the client comes at once, in a poll or two.
    let mut heard = [0; 4_096];
    while let Ok(read) = timeout(3 * SILENCE, held.read(&mut heard)).await {
        let greeting = String::from_utf8_lossy(&heard[..read.unwrap()]);
        assert!(greeting.starts_with("HTTP/1.1 200"), "{greeting:?}");
        held.write_all(poll.as_bytes()).await.unwrap();
    }
    polling.outbox.offer(&Frame::event("told", "7")).unwrap();
    let read = timeout(PATIENCE, held.read(&mut heard)).await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&heard[..read]);
    assert!(told.starts_with("HTTP/1.1 200") && told.ends_with(r#"42["told",7]"#), "{told}");

    websocket.send(Message::text(r#"421["echo",5]"#)).await.unwrap();
    let answered = timeout(PATIENCE, async {
        while let Some(message) = websocket.next().await {
            if message.unwrap().to_text().unwrap() == "431[5]" {
                return true;
            }
        }
        false
    });
    assert!(answered.await.unwrap());
}

async fn connections_end_with_the_gateway(engine: EngineKind) {
    let stage = stage(engine).await;
    let path = stage.poll_raw().await;
    let mut open = Vec::new();
    for said in ["", "GET / HT", &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")] {
        let mut stream = TcpStream::connect(stage.addr).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        open.push(stream);
    }
    // The listener is a task as well.
    eventually("the connections", || stage.drain.tracker.len() > open.len()).await;
    assert!(stage.drain.finish(PATIENCE).await);
    for mut stream in open {
        let mut heard = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("it is closed");
    }
}
