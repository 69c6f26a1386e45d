//! Calls that become jobs.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use shard_router::feed::Job;

use super::{
    client::{TestClient, eventually},
    gateway::{TestGateway, World, user},
};

const BOARD: &str = r#"
[jobs.ship]
queue = "ship"
timeout = "2s"
max_queued = 3
[jobs.ship.schema]
type = "object"
required = ["feed"]
additionalProperties = false
[jobs.ship.schema.properties]
feed = { type = "string" }
n = { type = "integer" }
[jobs.spread]
queue = "spread"
partitions = 4
timeout = "2s"
"#;

async fn start() -> (TestGateway, TestClient) {
    let gateway = TestGateway::with(BOARD).await;
    gateway.heard().await;
    let ann = gateway.connect(user("ann").in_team("red").in_team("blue")).await;
    (gateway, ann)
}

async fn claim(gateway: &TestGateway, queue: &str) -> Job {
    let mut claimed = None;
    eventually("a job", async || {
        claimed = gateway.feeds.job_get(queue).await.unwrap();
        claimed.is_some()
    })
    .await;
    claimed.unwrap()
}

async fn finish(gateway: &TestGateway, job: &Job, result: &'static [u8]) {
    let result = Bytes::from_static(result);
    assert!(gateway.feeds.job_finish("ship", &job.id, Some(result)).await.unwrap());
}

#[tokio::test]
async fn a_job_says_who_asked_and_its_result_is_the_answer() {
    let (gateway, mut ann) = start().await;
    let data = json!({ "feed": "a", "n": 1, "user": "mallory", "teams": ["all"] });
    let call = ann.ask("ship", data);
    let job = claim(&gateway, "ship").await;
    let item: Value = serde_json::from_slice(&job.item).unwrap();
    assert_eq!(item, json!({ "feed": "a", "n": 1, "user": "ann", "teams": ["blue", "red"] }));
    finish(&gateway, &job, br#"{"shipped":true}"#).await;
    assert_eq!(ann.answer(call).await, json!({ "code": 200, "result": { "shipped": true } }));
}

#[tokio::test]
async fn a_result_of_any_shape_is_an_answer() {
    let (gateway, mut ann) = start().await;
    for (result, answer) in [
        (&br#"{"code":402,"error":"pay"}"#[..], json!({ "code": 402, "error": "pay" })),
        (br#"{"code":"x"}"#, json!({ "code": 200, "result": { "code": "x" } })),
        (br#"{"code":2.5}"#, json!({ "code": 200, "result": { "code": 2.5 } })),
        (b"[1]", json!({ "code": 200, "result": [1] })),
        (b"null", json!({ "code": 200, "result": null })),
        (b"done\0\xff", json!({ "code": 200, "result": "done\u{0}\u{fffd}" })),
        (b"", json!({ "code": 200, "result": "" })),
    ] {
        let call = ann.ask("ship", json!({ "feed": "a" }));
        let job = claim(&gateway, "ship").await;
        finish(&gateway, &job, result).await;
        assert_eq!(ann.answer(call).await, answer);
    }
}

#[tokio::test]
async fn data_that_the_schema_refuses_is_400_with_every_mistake() {
    let (gateway, mut ann) = start().await;
    let answer = ann.call("ship", json!({ "n": "one", "x": 1 })).await;
    assert_eq!(answer["code"], 400);
    assert_eq!(answer["errors"].as_array().unwrap().len(), 3, "{answer}");
    assert_eq!(gateway.feeds.job_get("ship").await.unwrap(), None);
    for key in [json!(""), json!(7), json!("x".repeat(65))] {
        let answer = ann.call("ship", json!({ "feed": "a", "_key": key })).await;
        assert_eq!(answer["code"], 400);
    }
}

#[tokio::test]
async fn a_job_that_nobody_finishes_is_504_with_where_it_is() {
    let (gateway, mut ann) = start().await;
    let queued = ann.ask("ship", json!({ "feed": "a" }));
    let claimed = ann.ask("ship", json!({ "feed": "b" }));
    let stalled = ann.ask("ship", json!({ "feed": "c" }));
    let mut states = Vec::new();
    let first = claim(&gateway, "ship").await;
    let second = claim(&gateway, "ship").await;
    gateway.feeds.job_stall("ship", &second.id).await.unwrap();
    for call in [queued, claimed, stalled] {
        let answer = ann.answer(call).await;
        assert_eq!(answer["code"], 504);
        assert!(answer["job"].is_string());
        states.push(answer["state"].as_str().unwrap().to_owned());
    }
    states.sort();
    assert_eq!(states, ["claimed", "queued", "stalled"]);
    // Nothing follows an answer.
    finish(&gateway, &first, b"late").await;
    ann.quiet(&gateway).await;
    assert!(!ann.has_answer(queued) && !ann.has_answer(claimed));
}

#[tokio::test]
async fn a_job_that_is_gone_without_a_result_is_202() {
    let (gateway, mut ann) = start().await;
    let call = ann.ask("ship", json!({ "feed": "a" }));
    let job = claim(&gateway, "ship").await;
    gateway.feeds.job_finish("ship", &job.id, None).await.unwrap();
    let answer = ann.answer(call).await;
    assert_eq!(answer, json!({ "code": 202, "job": job.id }));
}

#[tokio::test]
async fn a_result_whose_notice_was_lost_is_found() {
    let (gateway, mut ann) = start().await;
    let call = ann.ask("ship", json!({ "feed": "a" }));
    let job = claim(&gateway, "ship").await;
    gateway.world.shards[0].set_muted(true);
    finish(&gateway, &job, b"7").await;
    assert_eq!(ann.answer(call).await, json!({ "code": 200, "result": 7 }));

    gateway.world.shards[0].set_muted(false);
    let call = ann.ask("ship", json!({ "feed": "a" }));
    let job = claim(&gateway, "ship").await;
    gateway.world.shards[0].set_muted(true);
    finish(&gateway, &job, b"8").await;
    gateway.world.shards[0].set_muted(false);
    let began = std::time::Instant::now();
    gateway.world.shards[0].drop_connections();
    assert_eq!(ann.answer(call).await, json!({ "code": 200, "result": 8 }));
    assert!(began.elapsed() < Duration::from_millis(1_900), "before its time-out");
}

#[tokio::test]
async fn a_full_queue_is_503_with_when_to_try_again() {
    let (gateway, mut ann) = start().await;
    let calls: Vec<_> = (0..4).map(|n| ann.ask("ship", json!({ "feed": "a", "n": n }))).collect();
    let mut codes = Vec::new();
    for call in calls {
        let answer = ann.answer(call).await;
        if answer["code"] == 503 {
            assert_eq!(answer["retry_after"], 1);
        }
        codes.push(answer["code"].as_u64().unwrap());
    }
    codes.sort_unstable();
    assert_eq!(codes, [503, 504, 504, 504]);
    drop(gateway);
}

#[tokio::test]
async fn a_shard_that_is_away_is_503() {
    let (gateway, mut ann) = start().await;
    gateway.world.shards[0].set_away(true);
    let answer = ann.call("ship", json!({ "feed": "a" })).await;
    assert_eq!((&answer["code"], &answer["retry_after"]), (&json!(503), &json!(1)));
    // One that goes away while a job waits is no answer before the time-out.
    gateway.world.shards[0].set_away(false);
    gateway.heard().await;
    let call = ann.ask("ship", json!({ "feed": "a" }));
    let _ = claim(&gateway, "ship").await;
    gateway.world.shards[0].set_away(true);
    assert_eq!(ann.answer(call).await["code"], 503);
}

#[tokio::test]
async fn a_queue_of_another_type_is_503_and_nothing_else_suffers() {
    let (gateway, mut ann) = start().await;
    gateway.world.shards[0].raw(&["SET", "feed.ids:ship", "oops"]).unwrap();
    assert_eq!(ann.call("ship", json!({ "feed": "a" })).await["code"], 503);
    assert_eq!(ann.call("spread", json!({})).await["code"], 504);
}

#[tokio::test]
async fn the_same_key_is_the_same_job_and_gets_its_kept_result() {
    let (gateway, mut ann) = start().await;
    let mut phone = gateway.connect(user("ann").in_session("her phone")).await;
    let mut bob = gateway.connect(user("bob")).await;
    let data = json!({ "feed": "a", "_key": "k" });
    let first = ann.ask("ship", data.clone());
    let job = claim(&gateway, "ship").await;
    let second = phone.ask("ship", data.clone());
    let others = bob.ask("ship", data.clone());
    let other = claim(&gateway, "ship").await;
    assert_ne!(job.id, other.id);
    assert!(!String::from_utf8_lossy(&job.item).contains("_key"));
    finish(&gateway, &job, b"1").await;
    finish(&gateway, &other, b"2").await;
    let answer = json!({ "code": 200, "result": 1 });
    assert_eq!(ann.answer(first).await, answer);
    assert_eq!(phone.answer(second).await, answer);
    assert_eq!(bob.answer(others).await["result"], 2);
    assert_eq!(phone.call("ship", data).await, answer);
    assert_eq!(gateway.feeds.job_get("ship").await.unwrap(), None);
}

#[tokio::test]
async fn partitions_are_chosen_by_user_the_same_at_every_gateway() {
    let world = World::new(BOARD, 3);
    let gateways = [world.gateway().await, world.gateway().await];
    let mut used = std::collections::HashSet::new();
    for gateway in &gateways {
        gateway.heard().await;
    }
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let mut queues = Vec::new();
        for gateway in &gateways {
            let mut client = gateway.connect(user(name)).await;
            client.ask("spread", json!({}));
            let mut found = None;
            eventually("the job", async || {
                for number in 0..4 {
                    let queue = format!("spread.{number}");
                    if gateway.feeds.job_get(&queue).await.unwrap().is_some() {
                        found = Some(queue);
                    }
                }
                found.is_some()
            })
            .await;
            queues.push(found.unwrap());
        }
        assert_eq!(queues[0], queues[1]);
        used.insert(queues.remove(0));
    }
    assert!(used.len() > 1);
}

#[tokio::test]
async fn a_client_that_leaves_loses_its_answer_and_not_its_job() {
    let (gateway, mut ann) = start().await;
    ann.ask("ship", json!({ "feed": "a" }));
    let job = claim(&gateway, "ship").await;
    ann.leave();
    drop(ann);
    finish(&gateway, &job, b"1").await;
}

#[tokio::test]
async fn a_job_is_refused_until_its_queue_can_be_heard() {
    let world = World::new(BOARD, 1);
    world.shards[0].set_away(true);
    let gateway = world.gateway().await;
    let mut ann = gateway.join(user("ann"));
    assert_eq!(ann.call("ship", json!({ "feed": "a" })).await["code"], 503);
}
