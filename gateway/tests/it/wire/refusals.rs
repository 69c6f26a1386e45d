//! Handshakes and requests that are refused: which mistake is told first, and how.

use gateway::socket::EngineKind;
use serde_json::json;

use super::{Poller, refusal};
use crate::stage::{Stage, each_engine};

each_engine! {
    the_first_mistake_is_told_with_its_number,
    a_refused_websocket_is_told_as_a_text,
    pages_may_read_every_refusal,
    whoever_does_not_say_four_speaks_three,
}

const UPGRADE: [&str; 4] = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

async fn the_first_mistake_is_told_with_its_number(engine: EngineKind) {
    let poller = Poller::joined(engine, "EIO=4").await;
    let (stage, living) = (&poller.stage, &poller.path);
    let get = "GET /socket.io/?";
    // In each line all mistakes but the first are made as well, where that can be.
    for (request, code, message) in [
        (format!("{get}EIO=9&transport=pigeon&sid=nobody"), 0, "Transport unknown"),
        (format!("{get}EIO=4"), 0, "Transport unknown"),
        (format!("{get}EIO=4&transport=flashsocket"), 0, "Transport unknown"),
        (format!("{get}EIO=9&transport=polling"), 5, "Unsupported protocol version"),
        (format!("{get}EIO=4&transport=polling&sid=nobody"), 1, "Session ID unknown"),
        (format!("{get}EIO=3&transport=polling&sid=g1.nobody"), 1, "Session ID unknown"),
        ("POST /socket.io/?EIO=4&transport=polling".to_owned(), 2, "Bad handshake method"),
        (format!("PUT {living}"), 2, "Bad handshake method"),
        (format!("{get}EIO=4&transport=websocket&demo_user=ann"), 3, "Bad request"),
        (format!("GET {}", living.replace("=polling", "=websocket")), 3, "Bad request"),
    ] {
        let answer = stage.request(&request, &[], b"").await;
        let told = refusal(&answer);
        assert_eq!(told, (400, json!({ "code": code, "message": message })), "{request}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{request}");
    }
    // An empty one is none.
    let path = "/socket.io/?EIO=4&transport=polling&sid=";
    assert_eq!(stage.get(path, &[]).await.status, 200);
}

async fn a_refused_websocket_is_told_as_a_text(engine: EngineKind) {
    let stage = Stage::start_of(engine).await;
    for (query, message) in [
        ("EIO=4&transport=websocket&sid=nobody", "Session ID unknown"),
        ("EIO=4&transport=websocket&sid=g1.aaaaaaaaaaaaaaaaaaaa", "Session ID unknown"),
    ] {
        let answer = stage.get(&format!("/socket.io/?{query}"), &UPGRADE).await;
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        assert!(answer.text().contains(message), "{query}: {answer:?}");
    }
}

async fn pages_may_read_every_refusal(engine: EngineKind) {
    let stage = Stage::start_of(engine).await;
    let origin = "Origin: https://app.example.com";
    for (request, status) in [
        ("GET /socket.io/?EIO=4&transport=pigeon", 400),
        ("GET /socket.io/?EIO=4&transport=polling&sid=nobody", 400),
        ("POST /socket.io/?EIO=3&transport=polling&sid=nobody", 400),
        ("GET /socket.io/?EIO=4&transport=websocket", 400),
        ("DELETE /socket.io/?EIO=4&transport=polling", 400),
        // Refused for want of a session, which is told later.
        ("GET /socket.io/?EIO=4&transport=polling", 200),
        ("OPTIONS /socket.io/?EIO=4&transport=polling&sid=nobody", 204),
    ] {
        let answer = stage.request(request, &[origin], b"").await;
        assert_eq!(answer.status, status, "{request}");
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://app.example.com"), "{request}");
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"), "{request}");
        assert_eq!(answer.header("vary"), Some("Origin"), "{request}");
    }
    let asked = "Access-Control-Request-Headers: x-token, content-type";
    let preflight = stage.request("OPTIONS /socket.io/?EIO=4", &[origin, asked], b"").await;
    let allowed = preflight.header("access-control-allow-headers");
    assert_eq!(allowed, Some("x-token, content-type"));
    let methods = preflight.header("access-control-allow-methods").unwrap();
    assert!(["GET", "POST", "OPTIONS"].iter().all(|method| methods.contains(method)), "{methods}");
}

async fn whoever_does_not_say_four_speaks_three(engine: EngineKind) {
    for query in ["EIO=2", "EIO=1", "EIO=3", "t=1"] {
        let mut poller = Poller::open(engine, query).await;
        // `/` is joined without being asked for.
        let guest = poller.stage.guest().await;
        assert_eq!(guest.protocol, gateway::socket::Protocol::Eio3, "{query}");
        poller.hears(b"40").await;
    }
}
