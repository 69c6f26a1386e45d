//! Feeds heard by their names.

use std::time::Duration;

use serde_json::json;

use super::gateway::{BOARD, TestGateway, World, user};

#[tokio::test]
async fn a_subscription_is_answered_with_the_feed_and_then_its_events() {
    let gateway = TestGateway::start().await;
    gateway.publish("public.news", "1", r#"{"own":1}"#).await;
    let mut ann = gateway.connect(user("ann")).await;
    let answer = ann.call("subscribe", json!({ "feed": "public.news" })).await;
    let expected = json!({
        "code": 200,
        "collection": {
            "id": "public.news",
            "v": answer["collection"]["v"],
            "models": [{ "id": "1", "attrs": { "id": "1", "own": 1 }, "collections": {} }],
        },
    });
    assert_eq!(answer, expected);
    gateway.publish("public.news", "2", r#"{"own":1}"#).await;
    gateway.edit("public.news", "1", r#"{"own":2}"#).await;
    assert_eq!(ann.expect("publish").await["id"], "2");
    assert_eq!(ann.expect("change").await["item"], json!({ "own": 2 }));

    assert_eq!(
        ann.call("unsubscribe", json!({ "feed": "public.news" })).await,
        json!({ "code": 200 })
    );
    gateway.publish("public.news", "3", r#"{"own":1}"#).await;
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty());
    let again = ann.call("unsubscribe", json!({ "feed": "public.news" })).await;
    assert_eq!(again["code"], 404);
    ann.check_faults();
}

#[tokio::test]
async fn what_may_not_be_heard_is_403_whether_it_exists_or_not() {
    let gateway = TestGateway::start().await;
    gateway.publish("team.blue.chat", "1", "{}").await;
    gateway.publish("team.red.members", "1", "{}").await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    let mut answers = Vec::new();
    for feed in [
        "team.blue.chat",
        "team.green.chat",
        "team.red.members",
        "teams",
        "ship",
        "edits.0",
        "public.",
        "public.a.b",
        "user.bob.inbox",
        "team.%72ed.chat",
    ] {
        answers.push(ann.call("subscribe", json!({ "feed": feed })).await);
    }
    assert_eq!(answers[0]["code"], 403);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    for feed in ["team.red.chat", "user.ann.inbox", "public.a%2Eb"] {
        assert_eq!(ann.call("subscribe", json!({ "feed": feed })).await["code"], 200, "{feed}");
    }
}

#[tokio::test]
async fn a_feed_that_is_subscribed_twice_is_heard_once() {
    let gateway = TestGateway::start().await;
    let mut ann = gateway.connect(user("ann")).await;
    gateway.publish("public.news", "0", r#"{"own":1}"#).await;
    let calls: Vec<_> =
        (0..3).map(|_| ann.ask("subscribe", json!({ "feed": "public.news" }))).collect();
    for call in calls {
        assert_eq!(ann.answer(call).await["code"], 200);
    }
    gateway.publish("public.news", "1", r#"{"own":1}"#).await;
    ann.expect("publish").await;
    assert_eq!(ann.call("unsubscribe", json!({ "feed": "public.news" })).await["code"], 200);
    gateway.publish("public.news", "2", r#"{"own":1}"#).await;
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty());
}

#[tokio::test]
async fn a_feed_that_hangs_in_the_tree_too_is_heard_once_and_stays_after_unsubscribe() {
    let board = BOARD.replace("allow = [", r#"allow = ["team.{team}.members", "#);
    let gateway = TestGateway::with(&board).await;
    gateway.publish("team.red.members", "ann", r#"{"own":1}"#).await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    let feed = json!({ "feed": "team.red.members" });
    let answer = ann.call("subscribe", feed.clone()).await;
    // By its name a feed is flat.
    assert_eq!(answer["collection"]["models"][0]["collections"], json!({}));
    gateway.edit("team.red.members", "ann", r#"{"own":2}"#).await;
    ann.expect("change").await;
    assert_eq!(ann.call("unsubscribe", feed).await["code"], 200);
    gateway.edit("team.red.members", "ann", r#"{"own":3}"#).await;
    ann.expect("change").await;
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty());
}

#[tokio::test]
async fn a_subscription_ends_with_its_right() {
    let gateway = TestGateway::start().await;
    gateway.publish("team.red.chat", "1", "{}").await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    ann.call("subscribe", json!({ "feed": "team.red.chat" })).await;
    ann.call("subscribe", json!({ "feed": "public.news" })).await;
    gateway.set_teams(&ann.user, &[]).await;
    let gone = json!({ "feed": "team.red.chat", "parent": null, "name": null, "collection": null });
    assert_eq!(ann.expect("reset").await, gone);
    ann.expect("retract").await;
    gateway.publish("team.red.chat", "2", "{}").await;
    gateway.publish("public.news", "1", "{}").await;
    assert_eq!(ann.expect("publish").await["feed"], "public.news");
    assert_eq!(ann.call("subscribe", json!({ "feed": "team.red.chat" })).await["code"], 403);
}

#[tokio::test]
async fn a_subscription_that_loses_its_right_before_its_answer_is_refused() {
    let world = World::new(BOARD, 1);
    let gateway = world.gateway().await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    world.shards[0].set_away(true);
    let lost = ann.ask("subscribe", json!({ "feed": "team.red.chat" }));
    let taken_back = ann.ask("subscribe", json!({ "feed": "public.news" }));
    let back = ann.call("unsubscribe", json!({ "feed": "public.news" })).await;
    assert_eq!(back["code"], 200);
    assert_eq!(ann.answer(taken_back).await["code"], 409);
    world.sessions.put(&ann.user.session, "ann", &[]);
    gateway.request("POST", "/api/users/ann/refresh", "").await;
    assert_eq!(ann.answer(lost).await["code"], 403);
}

#[tokio::test]
async fn one_subscription_too_many_is_429() {
    let board = format!("{BOARD}\n[limits]\nmax_subscriptions = 2");
    let gateway = TestGateway::with(&board).await;
    let mut ann = gateway.connect(user("ann")).await;
    let subscribe = |name: &str| json!({ "feed": format!("public.{name}") });
    assert_eq!(ann.call("subscribe", subscribe("a")).await["code"], 200);
    assert_eq!(ann.call("subscribe", subscribe("b")).await["code"], 200);
    let refused = ann.call("subscribe", subscribe("c")).await;
    assert_eq!((&refused["code"], &refused["retry_after"]), (&json!(429), &json!(1)));
    assert_eq!(ann.call("subscribe", subscribe("a")).await["code"], 200);
    assert_eq!(ann.call("unsubscribe", subscribe("a")).await["code"], 200);
    assert_eq!(ann.call("subscribe", subscribe("c")).await["code"], 200);
}

#[tokio::test]
async fn a_feed_that_cannot_be_read_is_answered_as_unavailable_and_follows() {
    let world = World::new(BOARD, 1);
    let gateway = world.gateway().await;
    gateway.publish("public.news", "1", r#"{"own":1}"#).await;
    let mut ann = gateway.connect(user("ann")).await;
    world.shards[0].set_away(true);
    let answer = ann.call("subscribe", json!({ "feed": "public.news" })).await;
    let expected = json!({ "id": "public.news", "v": null, "models": [], "unavailable": true });
    assert_eq!(answer, json!({ "code": 200, "collection": expected }));
    world.shards[0].set_away(false);
    let reset = ann.expect("reset").await;
    assert_eq!((&reset["parent"], &reset["name"]), (&json!(null), &json!(null)));
    assert_eq!(reset["collection"]["models"][0]["id"], "1");
    gateway.edit("public.news", "1", r#"{"own":2}"#).await;
    ann.expect("change").await;
    ann.check_faults();
}

#[tokio::test]
async fn a_subscription_before_initial_is_answered_after_it() {
    let gateway = TestGateway::start().await;
    let mut ann = gateway.join(user("ann"));
    let answer = ann.call("subscribe", json!({ "feed": "public.news" })).await;
    assert_eq!(answer["code"], 200);
    assert_eq!(ann.log[0].name, "initial");
}

#[tokio::test]
async fn what_is_subscribed_is_sent_anew_where_the_difference_is_too_long() {
    let gateway = TestGateway::start().await;
    for number in 0..5 {
        gateway.publish("public.news", &number.to_string(), r#"{"own":1}"#).await;
    }
    let mut ann = gateway.connect(user("ann")).await;
    ann.call("subscribe", json!({ "feed": "public.news" })).await;
    gateway.world.shards[0].set_muted(true);
    gateway.feeds.delete_feed("public.news").await.unwrap();
    gateway.publish("public.news", "new", r#"{"own":1}"#).await;
    gateway.world.shards[0].set_muted(false);
    gateway.world.shards[0].drop_connections();
    assert_eq!(ann.expect("reset").await["collection"]["models"][0]["id"], "new");
    gateway.edit("public.news", "new", r#"{"own":2}"#).await;
    ann.expect("change").await;
    assert!(!ann.hears("reset", Duration::from_millis(300)).await);
    ann.check_faults();
}

#[tokio::test]
async fn a_name_that_no_feed_may_have_is_400() {
    let gateway = TestGateway::start().await;
    let mut ann = gateway.connect(user("ann")).await;
    let feed = format!("public.{}", "x".repeat(600));
    let answer = ann.call("subscribe", json!({ "feed": feed })).await;
    assert_eq!(answer["code"], 400, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("512 bytes"), "{answer}");
}

#[tokio::test]
async fn who_asks_without_reading_is_closed() {
    let gateway = TestGateway::start().await;
    gateway.publish("public.news", "1", r#"{"own":1}"#).await;
    let mut ann = gateway.connect(user("ann").with_outbox(4 << 10)).await;
    for _ in 0..100 {
        ann.ask("subscribe", json!({ "feed": "public.news" }));
    }
    assert_eq!(ann.closes().await, gateway::outbox::CloseReason::Slow);
}
