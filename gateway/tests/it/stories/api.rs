//! The HTTP API for backends.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use super::gateway::{BOARD, TestGateway, World, user};

/// Sends a request and holds a refusal against what RFC 9457 wants.
async fn check(gateway: &TestGateway, method: &str, path: &str, body: &str, status: u16) -> Value {
    let (found, kind, text) = gateway.request(method, path, body).await;
    assert_eq!(found, status, "{method} {path} {body}: {text}");
    if status < 400 {
        return serde_json::from_str(&text).unwrap_or(Value::Null);
    }
    assert_eq!(kind, "application/problem+json", "{method} {path} {body}: {text}");
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(problem["status"], status);
    assert!(problem["title"].is_string() && problem["detail"].is_string());
    assert_eq!(problem.get("errors").is_some(), status == 400, "{problem}");
    problem
}

#[tokio::test]
async fn feeds_are_read_and_written() {
    let gateway = TestGateway::start().await;
    let feed = "/api/feeds/user.ann.notes";
    let empty = json!({
        "feed": "user.ann.notes", "type": null, "v": "000000000000000000000000", "models": [],
    });
    assert_eq!(check(&gateway, "GET", feed, "", 200).await, empty);
    let item = r#"{"item": {"b" : 1.50e1,  "a":"\u00e9"}, "id": "1"}"#;
    assert_eq!(check(&gateway, "POST", feed, item, 201).await, json!({ "id": "1" }));
    assert_eq!(check(&gateway, "POST", feed, item, 200).await, json!({ "id": "1" }));
    let stored = gateway.feeds.item("user.ann.notes", "1").await.unwrap().unwrap();
    assert_eq!(stored, r#"{"b" : 1.50e1,  "a":"\u00e9"}"#, "the exact text that was sent");
    let made = check(&gateway, "POST", feed, r#"{"item":"text"}"#, 201).await;
    assert!(made["id"].as_str().unwrap().len() > 10);
    let put = check(&gateway, "PUT", &format!("{feed}/1"), r#"{"item":[1]}"#, 200).await;
    assert_eq!(put, json!({ "id": "1" }));
    check(&gateway, "PUT", &format!("{feed}/2"), r#"{"item":{}}"#, 201).await;
    let mut ann = gateway.connect(user("ann")).await;
    let read = check(&gateway, "GET", feed, "", 200).await;
    assert_eq!(read["type"], "feed");
    assert_eq!(read["v"], json!(ann.feed("user.ann.notes").v));
    assert_eq!(read["models"].as_array().unwrap().len(), 3);
    check(&gateway, "DELETE", &format!("{feed}/2"), "", 204).await;
    assert_eq!(ann.expect("retract").await["id"], "2");
    check(&gateway, "DELETE", &format!("{feed}/2"), "", 404).await;
}

#[tokio::test]
async fn sorted_feeds_have_positions() {
    let gateway = TestGateway::start().await;
    let feed = "/api/feeds/tasks";
    let first = check(&gateway, "POST", feed, r#"{"item":1,"type":"sorted_feed"}"#, 201).await;
    assert_eq!(first, json!({ "id": "1" }));
    let body = r#"{"item":2,"position":"begin:"}"#;
    assert_eq!(check(&gateway, "POST", feed, body, 201).await, json!({ "id": "2" }));
    check(&gateway, "POST", feed, r#"{"item":3}"#, 201).await;
    let shift = r#"{"position":"begin:"}"#;
    check(&gateway, "POST", &format!("{feed}/3/position"), shift, 200).await;
    assert_eq!(gateway.feeds.ids("tasks").await.unwrap(), ["3", "2", "1"]);
    let read = check(&gateway, "GET", feed, "", 200).await;
    assert_eq!((&read["type"], &read["models"][0]["id"]), (&json!("sorted_feed"), &json!("3")));

    check(&gateway, "POST", &format!("{feed}/9/position"), shift, 404).await;
    check(&gateway, "POST", &format!("{feed}/1/position"), r#"{"position":":9"}"#, 409).await;
    check(&gateway, "POST", &format!("{feed}/1/position"), r#"{"position":"1:"}"#, 409).await;
    check(&gateway, "POST", &format!("{feed}/1/position"), r#"{"position":"top"}"#, 400).await;
    check(&gateway, "POST", feed, r#"{"item":1,"position":":9"}"#, 409).await;
    check(&gateway, "POST", feed, r#"{"item":1,"id":"mine"}"#, 409).await;
    check(&gateway, "PUT", &format!("{feed}/9"), r#"{"item":1}"#, 404).await;
    check(&gateway, "PUT", &format!("{feed}/1"), r#"{"item":1}"#, 200).await;
    // A plain feed has no positions.
    check(&gateway, "POST", "/api/feeds/plain", r#"{"item":1,"id":"1"}"#, 201).await;
    check(&gateway, "POST", "/api/feeds/plain", r#"{"item":1,"position":":end"}"#, 409).await;
    check(&gateway, "POST", "/api/feeds/plain/1/position", shift, 409).await;
}

#[tokio::test]
async fn a_new_feed_may_be_bounded() {
    let gateway = TestGateway::start().await;
    for number in 0..3 {
        let body = format!(r#"{{"item":{number},"id":"{number}","max_length":2}}"#);
        check(&gateway, "POST", "/api/feeds/few", &body, 201).await;
    }
    assert_eq!(gateway.feeds.ids("few").await.unwrap(), ["1", "2"]);
}

#[tokio::test]
async fn a_bad_body_is_told_its_mistakes() {
    let gateway = TestGateway::start().await;
    for body in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"item":1,"unknown":2}"#,
        r#"{"item":1,"id":7}"#,
        r#"{"item":1,"type":"queue"}"#,
        r#"{"item":1,"max_length":0}"#,
        r#"{"item":1,"max_length":-1}"#,
        r#"{"item":1,"position":"x"}"#,
        r#"{"item":1,"id":""}"#,
        r#"{"item":1,"id":"a\u0000b"}"#,
    ] {
        let problem = check(&gateway, "POST", "/api/feeds/a", body, 400).await;
        assert!(!problem["errors"].as_array().unwrap().is_empty(), "{body}");
    }
    for (path, body) in [
        ("/api/rooms/everybody/emit", r#"{"event":"x"}"#),
        ("/api/rooms/team:red/emit", r#"{"args":[]}"#),
        ("/api/rooms/team:red/emit", r#"{"event":"x","args":{}}"#),
        ("/api/users/ann/disconnect", r#"{"final":1}"#),
        ("/api/feeds/a/1/position", "{}"),
    ] {
        check(&gateway, "POST", path, body, 400).await;
    }
    let two = r#"{"item":1,"type":"queue","position":"x"}"#;
    let problem = check(&gateway, "POST", "/api/feeds/a", two, 400).await;
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_event_that_clients_or_the_gateway_raise_themselves_is_not_sent() {
    let gateway = TestGateway::start().await;
    let mut ann = gateway.connect(user("ann")).await;
    let path = "/api/rooms/user:ann/emit";
    let own = ["connect", "connect_error", "disconnect", "newListener", "error", "reconnect"];
    for name in own.into_iter().chain(["initial", "change", "reset", "", &"x".repeat(129)]) {
        let body = json!({ "event": name }).to_string();
        let problem = check(&gateway, "POST", path, &body, 400).await;
        assert_eq!(problem["errors"].as_array().unwrap().len(), 1, "{problem}");
    }
    check(&gateway, "POST", path, r#"{"event":"message"}"#, 202).await;
    ann.expect("message").await;
    assert!(ann.names().is_empty());
}

#[tokio::test]
async fn names_in_paths_are_decoded_once() {
    let gateway = TestGateway::start().await;
    let path = "/api/feeds/team.a%252Fb.members%2F%C3%A9/%E2%82%AC%20%3F%252F";
    check(&gateway, "PUT", path, r#"{"item":{}}"#, 201).await;
    let ids = gateway.feeds.ids("team.a%2Fb.members/é").await.unwrap();
    assert_eq!(ids, ["€ ?%2F"]);
    check(&gateway, "DELETE", path, "", 204).await;
    check(&gateway, "GET", "/api/feeds/%FF", "", 400).await;
    check(&gateway, "DELETE", "/api/feeds/a/%FF", "", 400).await;
    check(&gateway, "GET", "/api/feeds/a%00b", "", 400).await;
}

#[tokio::test]
async fn what_is_not_there_or_cannot_be_done_is_said() {
    let gateway = TestGateway::start().await;
    for path in ["/", "/api", "/api/feeds", "/api/feeds/", "/api/feeds/a/", "/api/feeds/a/1/2"] {
        check(&gateway, "GET", path, "", 404).await;
    }
    for (method, path) in [
        ("DELETE", "/api/feeds/a"),
        ("GET", "/api/feeds/a/1"),
        ("PUT", "/api/users/ann"),
        ("POST", "/metrics"),
        ("POST", "/healthz"),
    ] {
        check(&gateway, method, path, "", 405).await;
    }
}

#[tokio::test]
async fn an_item_that_is_too_large_is_413() {
    let gateway = TestGateway::with(&format!("{BOARD}[limits]\nmax_item_bytes = \"1KiB\"")).await;
    for length in [1_100, 200_000] {
        let body = format!(r#"{{"item":"{}"}}"#, "x".repeat(length));
        check(&gateway, "POST", "/api/feeds/a", &body, 413).await;
        check(&gateway, "PUT", "/api/feeds/a/1", &body, 413).await;
    }
    assert!(gateway.feeds.ids("a").await.unwrap().is_empty());
}

#[tokio::test]
async fn only_the_token_opens_the_api() {
    let gateway = TestGateway::start().await;
    let paths = ["/metrics", "/api/topology", "/api/feeds/a", "/api/users/ann"];
    for path in paths {
        for header in [None, Some("Bearer wrong"), Some("Basic open sesame"), Some("Bearer ")] {
            let mut request = Request::builder().uri(path);
            if let Some(header) = header {
                request = request.header("authorization", header);
            }
            let (status, kind, _) = gateway.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!((status, kind.as_str()), (401, "application/problem+json"), "{path}");
        }
        check(&gateway, "GET", path, "", 200).await;
    }
    for path in ["/healthz", "/readyz"] {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        assert_eq!(gateway.send(request).await.0, 200);
    }
}

/// Asks with these headers and holds a refusal against what it should be.
async fn check_headers(gateway: &TestGateway, headers: &[(&str, &str)], status: u16) {
    for (method, path) in [("GET", "/metrics"), ("POST", "/api/users/ann/disconnect")] {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (found, kind, text) = gateway.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(found, status, "{method} {path} {headers:?}: {text}");
        if status == 403 {
            assert_eq!(kind, "application/problem+json");
            assert!(text.contains("without a token"), "{text}");
        }
    }
}

async fn without_token() -> TestGateway {
    let world = World::new(BOARD, 1);
    let mut config = (*world.config).clone();
    config.admin.token = None;
    World { config: config.into(), ..world }.gateway().await
}

#[tokio::test]
async fn without_a_token_no_foreign_page_reaches_the_api() {
    let gateway = without_token().await;
    let mut ann = gateway.connect(user("ann")).await;
    let local = ("host", "127.0.0.1:3001");
    for foreign in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.net"),
        ("origin", "null"),
        ("origin", "http://127.0.0.1:3000"),
        ("origin", "http://localhost:3001"),
    ] {
        check_headers(&gateway, &[local, foreign], 403).await;
        check_headers(&gateway, &[foreign], 403).await;
    }
    for host in ["evil.net:3001", "localhost.evil.net", "10.0.0.1:3001", ""] {
        check_headers(&gateway, &[("host", host)], 403).await;
        check_headers(&gateway, &[local, ("host", host)], 403).await;
        let origin = format!("http://{host}");
        let own = [("host", host), ("origin", &origin), ("sec-fetch-site", "same-origin")];
        check_headers(&gateway, &own, 403).await;
    }
    for uri in ["http://evil.net/metrics", "http://evil.net:3001/api/topology"] {
        let request = Request::builder().uri(uri).header("host", "localhost");
        assert_eq!(gateway.send(request.body(Body::empty()).unwrap()).await.0, 403);
    }
    ann.quiet(&gateway).await;
    assert_eq!(ann.closed, None);
    for path in ["/healthz", "/readyz"] {
        let request = Request::builder().uri(path).header("host", "10.0.0.1");
        let request = request.header("origin", "https://evil.net");
        assert_eq!(gateway.send(request.body(Body::empty()).unwrap()).await.0, 200);
    }
}

#[tokio::test]
async fn without_a_token_programs_and_own_pages_on_this_machine_reach_the_api() {
    let gateway = without_token().await;
    check_headers(&gateway, &[], 200).await;
    for host in ["localhost:3001", "127.0.0.1:3001", "127.1.2.3", "[::1]:3001", "LOCALHOST"] {
        check_headers(&gateway, &[("host", host)], 200).await;
        check_headers(&gateway, &[("host", host), ("sec-fetch-site", "none")], 200).await;
        let origin = format!("http://{host}");
        let own = [("host", host), ("origin", &origin), ("sec-fetch-site", "same-origin")];
        check_headers(&gateway, &own, 200).await;
    }
}

#[tokio::test]
async fn with_a_token_it_alone_decides() {
    let gateway = TestGateway::start().await;
    let token = ("authorization", "Bearer open sesame");
    let foreign = [token, ("host", "ops.example.com"), ("origin", "https://app.example.com")];
    check_headers(&gateway, &foreign, 200).await;
}

#[tokio::test]
async fn a_feed_of_the_wrong_type_is_409() {
    let gateway = TestGateway::start().await;
    let shard = &gateway.world.shards[0];
    shard.raw(&["SET", "feed.ids:odd", "oops"]).unwrap();
    check(&gateway, "GET", "/api/feeds/odd", "", 409).await;
    check(&gateway, "POST", "/api/feeds/odd", r#"{"item":1}"#, 409).await;
    check(&gateway, "PUT", "/api/feeds/odd/1", r#"{"item":1}"#, 409).await;
    check(&gateway, "DELETE", "/api/feeds/odd/1", "", 409).await;
    shard.raw(&["SET", "feed.items:odder", "oops"]).unwrap();
    check(&gateway, "PUT", "/api/feeds/odder/1", r#"{"item":1}"#, 409).await;
    gateway.feeds.job_put("work", "1", "{}", false, 10).await.unwrap();
    check(&gateway, "POST", "/api/feeds/work", r#"{"item":1}"#, 409).await;
    check(&gateway, "DELETE", "/api/feeds/work/1", "", 409).await;
}

#[tokio::test]
async fn a_shard_that_is_away_is_503() {
    let gateway = TestGateway::start().await;
    gateway.world.shards[0].set_away(true);
    let item = r#"{"item":1}"#;
    check(&gateway, "GET", "/api/feeds/a", "", 503).await;
    check(&gateway, "POST", "/api/feeds/a", item, 503).await;
    check(&gateway, "PUT", "/api/feeds/a/1", item, 503).await;
    check(&gateway, "DELETE", "/api/feeds/a/1", "", 503).await;
    check(&gateway, "POST", "/api/feeds/a/1/position", r#"{"position":":end"}"#, 503).await;
    let request = Request::builder().uri("/readyz").body(Body::empty()).unwrap();
    assert_eq!(gateway.send(request).await.0, 200, "one shard takes no gateway away");
}

#[tokio::test]
async fn a_user_is_shown_with_sockets_rooms_and_versions() {
    let gateway = TestGateway::start().await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    ann.call("subscribe", json!({ "feed": "public.news" })).await;
    let shown = check(&gateway, "GET", "/api/users/ann", "", 200).await;
    assert_eq!(shown["user"], "ann");
    let socket = &shown["sockets"][0];
    assert_eq!(socket["rooms"], json!(["user:ann", "team:red", "feed:public.news"]));
    let nothing = "000000000000000000000000";
    let feeds = json!({
        "public.news": nothing, "team.red.members": nothing, "user.ann.notes": nothing,
    });
    assert_eq!(socket["feeds"], feeds);
    let nobody = check(&gateway, "GET", "/api/users/nobody", "", 200).await;
    assert_eq!(nobody["sockets"], json!([]));
}

#[tokio::test]
async fn the_topology_is_shown_without_secrets() {
    let gateway = TestGateway::start().await;
    let shown = check(&gateway, "GET", "/api/topology", "", 200).await;
    assert_eq!(shown["shards"][0]["name"], "shard-01");
    assert_eq!(shown["shards"][0]["share"], 1.0);
}

#[tokio::test]
async fn a_gateway_that_drains_is_not_ready() {
    let gateway = TestGateway::start().await;
    gateway.core.drain.begin();
    let request = Request::builder().uri("/readyz").body(Body::empty()).unwrap();
    assert_eq!(gateway.send(request).await.0, 404);
    let request = Request::builder().uri("/healthz").body(Body::empty()).unwrap();
    assert_eq!(gateway.send(request).await.0, 200);
}

#[tokio::test]
async fn the_metrics_have_their_names() {
    let gateway = TestGateway::with(&format!("{BOARD}[jobs.ship]\ntimeout = \"100ms\"")).await;
    gateway.heard().await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    gateway.publish("team.red.members", "ann", "{}").await;
    ann.expect("publish").await;
    ann.call("ship", json!({})).await;
    ann.call("ship", json!({ "_key": 7 })).await;
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    gateway.world.shards[0].drop_connections();
    gateway.publish("team.red.members", "bob", "{}").await;
    ann.until("publish").await;
    gateway.core.drain.begin();
    let (_, kind, text) = gateway.request("GET", "/metrics", "").await;
    assert!(kind.starts_with("text/plain"));
    for name in [
        "gateway_events_delivered_total{event=\"publish\"}",
        "gateway_fanout_seconds_bucket",
        "gateway_frames_encoded_total{format=\"utf8\"}",
        "gateway_mirrors ",
        "gateway_mirror_bytes ",
        "gateway_mirror_reads_total",
        "gateway_snapshot_seconds_bucket",
        "gateway_snapshot_bytes_bucket",
        "gateway_jobs_total{job=\"ship\",outcome=\"timeout\"}",
        "gateway_jobs_total{job=\"ship\",outcome=\"refused\"}",
        "gateway_job_seconds_bucket{job=\"ship\"",
        "gateway_shard_up{shard=\"shard-01\"}",
        "gateway_shard_probe_seconds_bucket{shard=\"shard-01\"",
        "gateway_shard_subscriptions{shard=\"shard-01\"}",
        "gateway_draining 1",
    ] {
        assert!(text.contains(name), "{name} is missing");
    }
}
