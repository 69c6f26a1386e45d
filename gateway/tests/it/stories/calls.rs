//! What every call has in common.

use serde_json::{Value, json};

use super::gateway::{BOARD, TestGateway, user};

const JOBS: &str = "[jobs.ship]\ntimeout = \"500ms\"\n";

async fn check(args: &str, name: &str, code: u16, wanted: &str) {
    let gateway = TestGateway::with(&format!("{BOARD}{JOBS}")).await;
    gateway.heard().await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    let call = ann.ask_text(name, args);
    let answer = ann.answer(call).await;
    assert_eq!(answer["code"], code, "{name} {args}: {answer}");
    assert!(answer["error"].as_str().unwrap().contains(wanted), "{name} {args}: {answer}");
    if code == 400 {
        assert!(!answer["errors"].as_array().unwrap().is_empty());
    } else {
        assert_eq!(answer.get("errors"), None);
    }
}

#[tokio::test]
async fn a_wrong_call_is_told_what_is_wrong_and_nothing_else_suffers() {
    for (name, args, code, wanted) in [
        ("frobnicate", "[{}]", 404, "frobnicate"),
        ("initial", "[{}]", 404, "initial"),
        ("publish", "[{}]", 404, "publish"),
        ("", "[{}]", 404, "no event"),
        ("subscribe", "[]", 400, "missing"),
        ("subscribe", "[7]", 400, "not an object"),
        ("subscribe", "[null]", 400, "not an object"),
        ("subscribe", "[{}]", 400, "`feed`"),
        ("subscribe", r#"[{"feed":""}]"#, 400, "`feed`"),
        ("subscribe", r#"[{"feed":["a"]}]"#, 400, "`feed`"),
        ("subscribe", "[{", 400, "not JSON"),
        ("unsubscribe", r#"[{"feed":"nothing"}]"#, 404, "do not hear"),
        ("ship", "[\"text\"]", 400, "not an object"),
        ("ship", "[]", 400, "missing"),
        ("resume", r#"[{"feeds":{}}]"#, 409, "already"),
        ("set", r#"[{"feed":"a"}]"#, 400, "`id` is missing; `change` is missing"),
        ("add", r#"[{"feed":"a","item":[]}]"#, 400, "`item` is not an object"),
        ("move", r#"[{"feed":"a","id":1,"position":2}]"#, 400, "`id`"),
        ("delete", r#"[{}]"#, 400, "`feed` is missing; `id` is missing"),
        ("set", r#"[{"feed":"\u0000","id":"1","change":{}}]"#, 403, "not see"),
        ("subscribe", r#"[{"feed":"public.\u0000"}]"#, 400, "holds NUL"),
    ] {
        check(args, name, code, wanted).await;
    }
}

#[tokio::test]
async fn binary_arguments_are_refused_and_never_queued() {
    let gateway = TestGateway::with(&format!("{BOARD}{JOBS}")).await;
    gateway.heard().await;
    let mut ann = gateway.connect(user("ann")).await;
    let before = refused_calls(&gateway).await;
    let args = r#"[{"id":{"_placeholder":true,"num":0}}]"#;
    ann.emit_binary("ship", args, None);
    for name in ["ship", "add", "frobnicate"] {
        let call = ann.ask_binary(name, args);
        let error = "binary arguments are not taken";
        let answer = json!({ "code": 400, "error": error, "errors": [error] });
        assert_eq!(ann.answer(call).await, answer, "{name}");
    }
    assert_eq!(gateway.feeds.job_get("ship").await.unwrap(), None);
    assert!(refused_calls(&gateway).await >= before + 4);
}

async fn refused_calls(gateway: &TestGateway) -> u64 {
    let (_, _, text) = gateway.request("GET", "/metrics", "").await;
    let refused =
        text.lines().find_map(|line| line.strip_prefix("gateway_calls_total{code=\"400\"} "));
    refused.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn one_open_call_too_many_is_429() {
    let gateway = TestGateway::with(&format!("{BOARD}{JOBS}")).await;
    gateway.heard().await;
    let mut ann = gateway.connect(user("ann")).await;
    let calls: Vec<_> = (0..65).map(|number| ann.ask("ship", json!({ "n": number }))).collect();
    let refused = ann.answer(calls[64]).await;
    assert_eq!((&refused["code"], &refused["retry_after"]), (&json!(429), &json!(1)));
    for call in &calls[..64] {
        assert_eq!(ann.answer(*call).await["code"], 504);
    }
    let again = ann.call("ship", json!({})).await;
    assert_eq!(again["code"], 504);
}

#[tokio::test]
async fn too_many_messages_in_a_second_are_429() {
    let board = format!("{BOARD}\n[limits]\nmessages_per_second = 5");
    let gateway = TestGateway::with(&board).await;
    let mut ann = gateway.connect(user("ann")).await;
    let calls: Vec<_> =
        (0..20).map(|_| ann.ask("subscribe", json!({ "feed": "public.a" }))).collect();
    let mut codes = Vec::new();
    for call in calls {
        codes.push(ann.answer(call).await["code"].as_u64().unwrap());
    }
    assert_eq!(codes[..5], [200; 5]);
    assert_eq!(codes[19], 429);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(ann.call("subscribe", json!({ "feed": "public.a" })).await["code"], 200);
}

#[tokio::test]
async fn calls_without_a_callback_are_carried_out_all_the_same() {
    let gateway = TestGateway::start().await;
    gateway.work();
    gateway.heard().await;
    gateway.publish("team.red.members", "ann", r#"{"own":1}"#).await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    ann.emit("subscribe", json!({ "feed": "public.news" }));
    ann.emit("set", json!({ "feed": "team.red.members", "id": "ann", "change": { "name": "A" } }));
    assert_eq!(ann.expect("change").await["item"], json!({ "own": 1, "name": "A" }));
    gateway.publish("public.news", "1", "{}").await;
    assert_eq!(ann.expect("publish").await["feed"], "public.news");
    ann.emit("frobnicate", Value::Null);
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty());
}
