//! Clients that make a gateway keep more and more.

use std::time::Duration;

use gateway::socket::{EngineKind, Settings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    Poller, leaves,
    websockets::{Wire, frame},
};
use crate::stage::{PATIENCE, Stage, settings_of};

#[tokio::test]
async fn pongs_that_nobody_polls_do_not_pile_up() {
    let poller = Poller::joined(EngineKind::Pneumatic, "EIO=3&b64=1").await;
    poller.hears(b"42[\"initial\"").await;
    for _ in 0..10 {
        assert_eq!(poller.post(&"1:2".repeat(2_000)).await.text(), "ok");
    }
    let answer = poller.poll().await.text();
    assert!(answer.len() < 10, "{} bytes waited", answer.len());
    assert!(answer.starts_with("1:3"), "{answer}");
}

#[tokio::test]
async fn pongs_that_nobody_reads_do_not_pile_up() {
    let settings =
        Settings { stall: Duration::from_secs(60), ..settings_of(EngineKind::Pneumatic) };
    let stage = Stage::start_with(&settings).await;
    let mut wire = Wire::open(&stage, "EIO=3&demo_user=ann", b"").await;
    let ping = long(&[b"2", [b'x'; 59_999].as_slice()].concat());
    let write = async {
        for _ in 0..2_000 {
            wire.stream.write_all(&ping).await.unwrap();
        }
    };
    timeout(PATIENCE, write).await.expect("whoever reads nothing may still write");
    wire.stream.write_all(&frame(0x81, b"420[\"echo\",1]")).await.unwrap();
    let (mut read, mut piece) = (0, vec![0; 1 << 20]);
    let done = async {
        loop {
            let bytes = wire.stream.read(&mut piece).await.unwrap();
            assert!(bytes > 0, "it ended");
            read += bytes;
            if piece[..bytes].windows(6).any(|window| window == b"430[1]") {
                return;
            }
        }
    };
    timeout(PATIENCE, done).await.unwrap();
    assert!(read < 60 << 20, "{read} bytes waited");
}

/// One is enough for who asks again and again whether anybody is there.
#[tokio::test]
async fn answers_to_probes_that_nobody_reads_do_not_pile_up() {
    let poller = Poller::joined(EngineKind::Pneumatic, "EIO=4").await;
    poller.hears(b"42[\"initial\"").await;
    let query = poller.path.split_once('?').unwrap().1.replace("transport=polling", "");
    let probes = [frame(0x81, b"2probe").repeat(1_000), frame(0x81, b"5")].concat();
    let mut wire = Wire::open(&poller.stage, &query, b"").await;
    wire.stream.write_all(&probes).await.unwrap();
    wire.stream.write_all(&frame(0x81, b"420[\"echo\",1]")).await.unwrap();
    let (mut heard, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    while !heard.windows(6).any(|window| window == b"430[1]") {
        let bytes = timeout(PATIENCE, wire.stream.read(&mut piece)).await.unwrap().unwrap();
        assert!(bytes > 0, "it ended");
        heard.extend_from_slice(&piece[..bytes]);
    }
    let answers = heard.windows(6).filter(|window| *window == b"3probe").count();
    assert!((1..100).contains(&answers), "{answers} answers");
}

/// Writes a frame with a length of two bytes.
fn long(text: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text);
    frame
}

/// One that goes by the rules has one request at a time that brings something.
#[tokio::test]
async fn the_bodies_of_one_session_do_not_wait_side_by_side() {
    let poller = Poller::joined(EngineKind::Pneumatic, "EIO=4").await;
    poller.hears(b"42[\"initial\"").await;
    let mut first = TcpStream::connect(poller.stage.addr).await.unwrap();
    let head = format!("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n420", poller.path);
    first.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut second = TcpStream::connect(poller.stage.addr).await.unwrap();
    second.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    let read = timeout(Duration::from_secs(1), second.read_exact(&mut answer)).await;
    read.expect("it is refused at once").unwrap();
    assert_eq!(answer, b"HTTP/1.1 400");
    assert!(leaves(poller.guest()).await);
    first.write_all(b"[\"echo\",1").await.unwrap();
    first.write_all(b"]").await.unwrap();
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 400");
}

/// A proxy that passes on what it does not understand would take what follows for something else.
#[tokio::test]
async fn only_who_asks_for_a_websocket_in_every_header_gets_one() {
    let stage = Stage::start().await;
    let path = "GET /socket.io/?EIO=4&transport=websocket&demo_user=ann HTTP/1.1\r\nHost: x\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let ask = async |headers: &str| {
        let mut stream = TcpStream::connect(stage.addr).await.unwrap();
        stream.write_all(format!("{path}{key}{headers}\r\n").as_bytes()).await.unwrap();
        let mut answer = vec![0; 12];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        String::from_utf8(answer).unwrap()
    };
    let (upgrade, version) = ("Upgrade: websocket\r\n", "Sec-WebSocket-Version: 13\r\n");
    let connection = "Connection: keep-alive, Upgrade\r\n";
    assert_eq!(ask(&[upgrade, version, connection].concat()).await, "HTTP/1.1 101");
    let other = "Upgrade: h2c\r\n";
    let old = "Sec-WebSocket-Version: 7\r\n";
    for lacks in [[upgrade, version], [upgrade, connection], [version, connection]] {
        assert_eq!(ask(&lacks.concat()).await, "HTTP/1.1 400", "{lacks:?}");
    }
    for wrong in [[other, version, connection], [upgrade, old, connection]] {
        assert_eq!(ask(&wrong.concat()).await, "HTTP/1.1 400", "{wrong:?}");
    }
}
