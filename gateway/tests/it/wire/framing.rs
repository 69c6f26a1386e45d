//! How packets stand in polls, and text in packets.

use bytes::Bytes;
use futures_util::SinkExt;
use gateway::{hub::frame::Frame, outbox::Letter, socket::EngineKind};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{BINARY, Poller, hears, websocket};
use crate::stage::{Stage, each_engine};

each_engine! {
    polls_that_want_text_are_counted_in_characters,
    nothing_but_ascii_goes_to_old_clients,
    what_was_encoded_twice_is_decoded_twice,
    requests_of_old_browsers_are_read_in_bytes,
    packets_of_new_clients_are_separated,
}

const AWKWARD: &str = "é 日 🚀 \u{2028}";

/// [`AWKWARD`] as JSON for clients that decode twice.
const ESCAPED: &str = "\"\\u00e9 \\u65e5 \\ud83d\\ude80 \\u2028\"";

/// socketioxide frames polls without binary data as text.
#[tokio::test]
async fn polls_of_old_browsers_are_framed_in_bytes() {
    let poller = Poller::joined(EngineKind::Pneumatic, "EIO=3").await;
    assert_eq!(poller.open.body[0], 0);
    poller.hears(b"40").await;
    poller.guest().outbox.offer(&Frame::event("said", json!(AWKWARD).to_string())).unwrap();
    let packet = format!("42[\"said\",{ESCAPED}]");
    let mut framed = vec![0];
    framed.extend(packet.len().to_string().bytes().map(|digit| digit - b'0'));
    framed.push(0xff);
    framed.extend_from_slice(packet.as_bytes());
    poller.hears(&framed).await;
    let answer = poller.post("1:2").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    poller.hears(b"\x00\x01\xff3").await;
}

async fn polls_that_want_text_are_counted_in_characters(engine: EngineKind) {
    let poller = Poller::joined(engine, "EIO=3&b64=1").await;
    let kind = poller.open.header("content-type").unwrap().to_ascii_lowercase();
    assert!(kind.starts_with("text/plain"), "{kind}");
    let text = poller.open.text();
    let (length, packet) = text.split_once(':').unwrap();
    assert!(packet.starts_with("0{") && length.parse::<usize>().unwrap() <= packet.len());
    poller.hears(b"2:40").await;
    poller.guest().outbox.offer(&Frame::event("said", json!(AWKWARD).to_string())).unwrap();
    let packet = format!("42[\"said\",{ESCAPED}]");
    poller.hears(format!("{}:{packet}", packet.len()).as_bytes()).await;
    // Lengths count UTF-16 units: the rocket is two.
    let packet = "420[\"echo\",\"é🚀日\"]";
    let body = format!("{}:{packet}1:2", packet.encode_utf16().count());
    assert_eq!(poller.post(&body).await.text(), "ok");
    let answer = r#"430["\u00e9\ud83d\ude80\u65e5"]"#;
    let heard = String::from_utf8(poller.hears(answer.as_bytes()).await).unwrap();
    assert!(heard.contains(&format!("{}:{answer}", answer.len())), "{heard}");
    if !heard.contains("1:3") {
        poller.hears(b"1:3").await;
    }
}

async fn nothing_but_ascii_goes_to_old_clients(engine: EngineKind) {
    let mut stage = Stage::start_of(engine).await;
    let mut socket = stage.websocket("EIO=3&demo_user=ann").await;
    let guest = stage.guest().await;
    let initial = hears(&mut socket, "42[\"initial\"").await.unwrap();
    assert!(initial.is_ascii() && initial.contains("\\u00e9"), "{initial}");
    guest.outbox.offer(&Frame::event("said", json!(AWKWARD).to_string())).unwrap();
    let said = hears(&mut socket, "42[\"said\"").await;
    assert_eq!(said, Some(format!("42[\"said\",{ESCAPED}]")));
    let call = format!("423[\"echo\",\"{AWKWARD}\"]");
    socket.send(Message::text(call)).await.unwrap();
    assert_eq!(hears(&mut socket, "43").await, Some(format!("433[{ESCAPED}]")));
    // From 3.x on text goes as it is.
    let (mut socket, guest) = websocket(&mut stage).await;
    guest.outbox.offer(&Frame::event("said", json!(AWKWARD).to_string())).unwrap();
    let said = hears(&mut socket, "42[\"said\"").await;
    assert_eq!(said, Some(format!("42[\"said\",\"{AWKWARD}\"]")));
}

/// What 1.x makes of text before it is encoded once more.
fn twice(text: &str) -> String {
    text.bytes().map(char::from).collect()
}

async fn what_was_encoded_twice_is_decoded_twice(engine: EngineKind) {
    let packet = twice(&format!("427[\"echo\",\"{AWKWARD}\"]"));
    let poller = Poller::joined(engine, "EIO=3&b64=1").await;
    let body = format!("{}:{packet}", packet.chars().count());
    assert_eq!(poller.post(&body).await.text(), "ok");
    poller.hears(format!("437[{ESCAPED}]").as_bytes()).await;

    let mut stage = Stage::start_of(engine).await;
    let mut socket = stage.websocket("EIO=3&demo_user=ann").await;
    stage.guest().await;
    socket.send(Message::text(packet)).await.unwrap();
    assert_eq!(hears(&mut socket, "43").await, Some(format!("437[{ESCAPED}]")));
    // From 3.x on nobody encodes twice: what looks like it is meant so.
    let (mut socket, _guest) = websocket(&mut stage).await;
    socket.send(Message::text("428[\"echo\",\"Ã©\"]")).await.unwrap();
    assert_eq!(hears(&mut socket, "43").await.as_deref(), Some("438[\"Ã©\"]"));
}

async fn requests_of_old_browsers_are_read_in_bytes(engine: EngineKind) {
    let poller = Poller::joined(engine, "EIO=3").await;
    let packet = "421[\"echo\",\"é\"]";
    let mut body = vec![0];
    body.extend(packet.len().to_string().bytes().map(|digit| digit - b'0'));
    body.push(0xff);
    body.extend_from_slice(packet.as_bytes());
    assert_eq!(poller.send(BINARY, &body).await.text(), "ok");
    poller.hears(br#"431["\u00e9"]"#).await;
}

async fn packets_of_new_clients_are_separated(engine: EngineKind) {
    let poller = Poller::joined(engine, "EIO=4").await;
    poller.hears(b"42[\"initial\"").await;
    let body = "420[\"echo\",\"é\"]\u{1e}3\u{1e}421[\"echo\",\"日\"]";
    assert_eq!(poller.post(body).await.text(), "ok");
    let heard = poller.hears("431[\"日\"]".as_bytes()).await;
    let heard = String::from_utf8(heard).unwrap();
    assert!(heard.contains("430[\"é\"]"), "{heard}");
    assert!(!heard.starts_with('\u{1e}') && !heard.contains("\u{1e}\u{1e}"), "{heard}");
}

fn letter(data: &'static [u8]) -> Letter {
    Letter {
        answers: None,
        args: r#"["said",{"_placeholder":true,"num":0}]"#.to_owned(),
        attachments: vec![Bytes::from_static(data)],
        call: None,
    }
}

/// socketioxide is handed no binary data.
#[tokio::test]
async fn binary_data_stands_as_each_form_has_it() {
    let engine = EngineKind::Pneumatic;
    let (head, data) = (r#"451-["said",{"_placeholder":true,"num":0}]"#, b"\x00\xff\x04");
    let digits: Vec<u8> = head.len().to_string().bytes().map(|digit| digit - b'0').collect();
    let binary = [b"\x00", &digits[..], b"\xff", head.as_bytes(), b"\x01\x04\xff\x04", data];
    for (query, expected) in [
        ("EIO=3", binary.concat()),
        ("EIO=3&b64=1", format!("{}:{head}6:b4AP8E", head.len()).into_bytes()),
        ("EIO=4", format!("{head}\u{1e}bAP8E").into_bytes()),
    ] {
        let poller = Poller::joined(engine, query).await;
        poller.guest().outbox.letter(letter(data)).unwrap();
        poller.hears(&expected).await;
    }
    let mut stage = Stage::start_of(engine).await;
    for (query, expected) in [("EIO=3", &b"\x04\x00\xff\x04"[..]), ("EIO=4", data)] {
        let mut socket = stage.websocket(&format!("{query}&demo_user=ann")).await;
        if query == "EIO=4" {
            socket.send(Message::text("40")).await.unwrap();
        }
        stage.guest().await.outbox.letter(letter(data)).unwrap();
        assert_eq!(hears(&mut socket, "451").await.as_deref(), Some(head));
        let next = futures_util::StreamExt::next(&mut socket).await.unwrap().unwrap();
        assert_eq!(next.into_data(), expected, "{query}");
    }
}

/// socketioxide marks binary data and has its content from websockets alone.
#[tokio::test]
async fn binary_data_is_read_as_each_form_has_it() {
    let engine = EngineKind::Pneumatic;
    let head = r#"451-9["mirror",{"_placeholder":true,"num":0}]"#;
    let answer = r#"461-9[{"_placeholder":true,"num":0}]"#;
    let digits: Vec<u8> = head.len().to_string().bytes().map(|digit| digit - b'0').collect();
    let framed = [b"\x00", &digits[..], b"\xff", head.as_bytes(), b"\x01\x04\xff\x04\x00\xff\x04"];
    let text = "Content-Type: text/plain";
    for (query, kind, body) in [
        ("EIO=3", BINARY, framed.concat()),
        ("EIO=3&b64=1", text, format!("{}:{head}6:b4AP8E", head.len()).into_bytes()),
        ("EIO=4", text, format!("{head}\u{1e}bAP8E").into_bytes()),
    ] {
        let poller = Poller::joined(engine, query).await;
        assert_eq!(poller.send(kind, &body).await.text(), "ok", "{query}");
        poller.hears(answer.as_bytes()).await;
    }
}
