//! Websockets by hand: bytes that come in pieces, all at once, or against the rules.

use bytes::Bytes;
use gateway::{
    outbox::{CloseReason, Letter},
    socket::EngineKind,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{Poller, leaves, serves_others};
use crate::stage::{PATIENCE, Stage, each_engine};

each_engine! {
    frames_may_come_byte_by_byte,
    thousands_of_messages_may_come_at_once,
    a_message_may_come_in_fragments_around_a_ping,
    a_poll_for_a_session_on_a_websocket_is_refused_and_harms_nothing,
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const FIRST: u8 = 0x01;
const LAST: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// A websocket as bytes.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    read: Vec<u8>,
}

/// Writes a masked frame of at most 125 bytes.
pub(super) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [7, 77, 177, 250];
    let mut frame = vec![opcode, 0x80 | u8::try_from(payload.len()).unwrap()];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

impl Wire {
    /// Asks for a websocket, and says more with the same breath.
    pub(super) async fn open(stage: &Stage, query: &str, more: &[u8]) -> Self {
        let mut stream = TcpStream::connect(stage.addr).await.unwrap();
        let head = format!(
            "GET /socket.io/?transport=websocket&{query} HTTP/1.1\r\nhost: {}\r\n\
             connection: keep-alive, upgrade\r\nupgrade: WebSocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-extensions: permessage-deflate\r\n\r\n",
            stage.addr
        );
        stream.write_all(&[head.as_bytes(), more].concat()).await.unwrap();
        let mut wire = Self { stream, read: Vec::new() };
        let head = loop {
            if let Some(end) = wire.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break wire.read.drain(..end + 4).collect::<Vec<_>>();
            }
            assert!(wire.more().await, "it ended");
        };
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        assert!(!head.contains("extensions"), "{head}");
        wire
    }

    async fn joined(stage: &Stage) -> Self {
        let mut wire = Self::open(stage, "EIO=4&demo_user=ann", &frame(TEXT, b"40")).await;
        wire.until(|_, payload| payload.starts_with(b"42[\"initial\"")).await.unwrap();
        wire
    }

    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
        matches!(read.expect("something is said"), Ok(count) if count > 0)
    }

    /// Reads the next frame; `None` at the end.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let [opcode, short, rest @ ..] = &self.read[..] {
                let (skip, length) = match (short, rest) {
                    (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
                    (126.., _) => (usize::MAX / 2, 0),
                    (length, _) => (2, usize::from(*length)),
                };
                if self.read.len() >= skip + length {
                    let (opcode, payload) = (*opcode, self.read[skip..skip + length].to_vec());
                    self.read.drain(..skip + length);
                    return Some((opcode, payload));
                }
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn until(&mut self, fits: impl Fn(u8, &[u8]) -> bool) -> Option<(u8, Vec<u8>)> {
        loop {
            let (opcode, payload) = self.next().await?;
            if fits(opcode, &payload) {
                return Some((opcode, payload));
            }
        }
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn answers(&mut self, expected: &str) {
        let heard = self.until(|_, payload| payload.starts_with(b"43")).await.expect("an answer");
        assert_eq!(String::from_utf8_lossy(&heard.1), expected);
    }
}

/// socketioxide has not joined the client to the namespace yet, and forgets what it says.
#[tokio::test]
async fn frames_may_come_with_the_request_for_the_websocket() {
    let stage = Stage::start_of(EngineKind::Pneumatic).await;
    let first = [frame(TEXT, b"40"), frame(TEXT, b"420[\"echo\",1]")].concat();
    let mut wire = Wire::open(&stage, "EIO=4&demo_user=ann", &first).await;
    wire.answers("430[1]").await;
    // Who speaks engine.io 3 need not join.
    let first = frame(TEXT, b"421[\"echo\",2]");
    let mut wire = Wire::open(&stage, "EIO=3&demo_user=ann", &first).await;
    wire.answers("431[2]").await;
}

async fn frames_may_come_byte_by_byte(engine: EngineKind) {
    let stage = Stage::start_of(engine).await;
    let mut wire = Wire::joined(&stage).await;
    wire.stream.set_nodelay(true).unwrap();
    for byte in [frame(TEXT, "421[\"echo\",\"é🚀\"]".as_bytes()), frame(PING, b"?")].concat() {
        wire.say(&[byte]).await;
        tokio::task::yield_now().await;
    }
    wire.answers("431[\"é🚀\"]").await;
    let pong = wire.until(|opcode, _| opcode == PONG).await;
    assert_eq!(pong, Some((PONG, b"?".to_vec())));
}

async fn thousands_of_messages_may_come_at_once(engine: EngineKind) {
    let stage = Stage::start_of(engine).await;
    let mut wire = Wire::joined(&stage).await;
    // Fewer than may wait for a session that is busy.
    let many: Vec<u8> = (0..1_000)
        .flat_map(|number| frame(TEXT, format!("42{number}[\"echo\",{number}]").as_bytes()))
        .collect();
    wire.say(&many).await;
    for number in 0..1_000 {
        wire.answers(&format!("43{number}[{number}]")).await;
    }
}

async fn a_message_may_come_in_fragments_around_a_ping(engine: EngineKind) {
    let stage = Stage::start_of(engine).await;
    let mut wire = Wire::joined(&stage).await;
    let text = "427[\"echo\",\"é\"]".as_bytes();
    // In the middle of a character.
    let (one, other) = text.split_at(12);
    let pieces = [frame(FIRST, one), frame(PING, b"between"), frame(LAST, other)];
    wire.say(&pieces.concat()).await;
    let pong = wire.until(|opcode, _| opcode == PONG).await;
    assert_eq!(pong, Some((PONG, b"between".to_vec())));
    wire.answers("437[\"é\"]").await;
}

async fn a_poll_for_a_session_on_a_websocket_is_refused_and_harms_nothing(engine: EngineKind) {
    let stage = Stage::start_of(engine).await;
    let first = frame(TEXT, b"40");
    let mut wire = Wire::open(&stage, "EIO=4&demo_user=ann", &first).await;
    let (_, open) = wire.next().await.unwrap();
    let open: serde_json::Value = serde_json::from_slice(&open[1..]).unwrap();
    let sid = open["sid"].as_str().unwrap();
    let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    assert_eq!(stage.get(&path, &[]).await.status, 400);
    assert_eq!(stage.post(&path, "42[\"tell\",1]").await.status, 400);
    wire.say(&frame(TEXT, b"423[\"echo\",3]")).await;
    wire.answers("433[3]").await;
}

/// socketioxide closes without a word, or does not notice.
#[tokio::test]
async fn who_breaks_the_rules_of_frames_is_told_so() {
    let mut stage = Stage::start_of(EngineKind::Pneumatic).await;
    let long = [&[TEXT, 0xff][..], &(1_u64 << 62).to_be_bytes(), &[0; 4]].concat();
    for (bytes, code, what) in [
        (vec![TEXT, 2, b'4', b'0'], 1002, "not masked"),
        (frame(TEXT | 0x40, b"42[\"tell\",1]"), 1002, "compressed"),
        (frame(0x83, b""), 1002, "a reserved opcode"),
        (frame(LAST, b"42[\"tell\",1]"), 1002, "the end of nothing"),
        (frame(0x09, b""), 1002, "a ping in fragments"),
        (frame(TEXT, b"42[\"tell\",\"\xff\"]"), 1007, "not UTF-8"),
        (long, 1009, "too long"),
    ] {
        let mut wire = Wire::joined(&stage).await;
        let guest = stage.guest().await;
        wire.say(&bytes).await;
        let (_, close) = wire.until(|opcode, _| opcode == CLOSE).await.expect(what);
        assert_eq!(close.get(..2), Some(&u16::to_be_bytes(code)[..]), "{what}");
        assert_eq!(wire.next().await, None, "{what}");
        assert!(leaves(&guest).await, "{what}");
    }
    serves_others(&mut stage).await;
}

/// socketioxide answers some with a cut.
#[tokio::test]
async fn closes_are_answered_and_said() {
    let mut stage = Stage::start_of(EngineKind::Pneumatic).await;
    let mut wire = Wire::joined(&stage).await;
    let guest = stage.guest().await;
    wire.say(&frame(CLOSE, &1001_u16.to_be_bytes())).await;
    assert!(wire.until(|opcode, _| opcode == CLOSE).await.is_some(), "it is answered");
    assert_eq!(wire.next().await, None);
    assert!(leaves(&guest).await);
    assert_eq!(guest.outbox.closed(), None);

    let mut wire = Wire::joined(&stage).await;
    let guest = stage.guest().await;
    guest.outbox.close(CloseReason::Draining);
    assert!(wire.until(|opcode, _| opcode == CLOSE).await.is_some());
    assert_eq!(wire.next().await, None);
}

/// socketioxide is handed no binary data.
#[tokio::test]
async fn a_client_that_reads_no_binary_data_gets_it_as_text() {
    let mut stage = Stage::start_of(EngineKind::Pneumatic).await;
    let mut wire = Wire::open(&stage, "EIO=3&b64=1&demo_user=ann", b"").await;
    let letter = Letter {
        answers: None,
        args: r#"["said",{"_placeholder":true,"num":0}]"#.to_owned(),
        attachments: vec![Bytes::from_static(b"\x00\xff\x04")],
        call: None,
    };
    stage.guest().await.outbox.letter(letter).unwrap();
    wire.until(|_, payload| payload.starts_with(b"451-")).await.expect("the head");
    assert_eq!(wire.next().await, Some((TEXT, b"b4AP8E".to_vec())));
    // And the other way round.
    let head = br#"451-9["mirror",{"_placeholder":true,"num":0}]"#;
    wire.say(&[frame(TEXT, head), frame(BINARY, b"\x04\x00\xff\x04")].concat()).await;
    wire.until(|_, payload| payload.starts_with(b"461-9")).await.expect("the answer");
    assert_eq!(wire.next().await, Some((TEXT, b"b4AP8E".to_vec())));
}

/// socketioxide ends the polling session with the first websocket.
#[tokio::test]
async fn a_second_websocket_does_not_get_between_an_upgrade() {
    let poller = Poller::joined(EngineKind::Pneumatic, "EIO=4").await;
    poller.hears(b"42[\"initial\"").await;
    let query = poller.path.split_once('?').unwrap().1.replace("transport=polling&", "");
    let mut wire = Wire::open(&poller.stage, &query, &frame(TEXT, b"2probe")).await;
    assert_eq!(wire.next().await, Some((TEXT, b"3probe".to_vec())));
    // The other one opens, is told nothing, and is closed.
    let mut second = Wire::open(&poller.stage, &query, &frame(TEXT, b"2probe")).await;
    assert!(matches!(second.next().await, Some((CLOSE, _)) | None));
    let go = [frame(TEXT, b"5"), frame(TEXT, b"420[\"echo\",1]")].concat();
    wire.say(&go).await;
    wire.answers("430[1]").await;
    // A poll that comes late finds nothing, and harms nothing.
    let late = poller.poll().await;
    assert!(late.text() == "6" || late.status == 400, "{late:?}");
    wire.say(&frame(TEXT, b"421[\"echo\",2]")).await;
    wire.answers("431[2]").await;
}
