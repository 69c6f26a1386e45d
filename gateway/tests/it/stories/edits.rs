//! Capsule's edits, from the call to the built-in worker and back.

use std::sync::Arc;

use gateway::rpc::edit;
use serde_json::{Value, json};
use shard_router::feed::Job;

use super::{
    client::TestClient,
    gateway::{BOARD, TestGateway, World, user},
};

const MEMBERS: &str = "team.red.members";
const TASKS: &str = "team.red.members.ann.tasks";

async fn start() -> (TestGateway, TestClient) {
    let gateway = TestGateway::start().await;
    gateway.work();
    gateway.heard().await;
    gateway.publish(MEMBERS, "ann", r#"{"own":1,"name":"Ann"}"#).await;
    gateway.publish(MEMBERS, "bob", r#"{"own":1}"#).await;
    for number in 1..=2 {
        gateway.append(TASKS, format!(r#"{{"n":1.0e2,"title":"{number}"}}"#)).await;
    }
    let ann = gateway.connect(user("ann").in_team("red")).await;
    (gateway, ann)
}

#[tokio::test]
async fn each_edit_is_answered_and_heard() {
    let (gateway, mut ann) = start().await;
    let set = json!({ "feed": TASKS, "id": "1", "change": { "title": "é", "done": true } });
    assert_eq!(ann.call("set", set).await, json!({ "code": 200 }));
    let change = ann.next().await.unwrap();
    assert!(change.text().contains(r#""item":{"n":1.0e2,"title":"é","done":true}"#));

    let add = json!({ "feed": TASKS, "item": { "title": "new" }, "position": "begin:" });
    assert_eq!(ann.call("add", add).await, json!({ "code": 200, "id": "3" }));
    assert_eq!(ann.expect("publish").await["position"], "begin:");
    let add = json!({ "feed": TASKS, "item": { "title": "last" } });
    assert_eq!(ann.call("add", add).await, json!({ "code": 200, "id": "4" }));
    assert_eq!(ann.expect("publish").await["position"], "2:");

    let shift = json!({ "feed": TASKS, "id": "4", "position": ":1" });
    assert_eq!(ann.call("move", shift).await, json!({ "code": 200 }));
    assert_eq!(ann.expect("position").await["position"], "3:");
    assert_eq!(
        ann.call("delete", json!({ "feed": TASKS, "id": "3" })).await,
        json!({ "code": 200 })
    );
    ann.expect("retract").await;
    assert_eq!(gateway.feeds.ids(TASKS).await.unwrap(), ["4", "1", "2"]);
    ann.check_faults();
}

#[tokio::test]
async fn what_an_edit_may_not_is_refused_with_its_code() {
    let (gateway, mut ann) = start().await;
    let bobs = "team.red.members.bob.tasks";
    for (name, data, code, wanted) in [
        ("set", json!({ "feed": TASKS, "id": "1", "change": { "n": 1 } }), 400, "`n`"),
        ("set", json!({ "feed": TASKS, "id": "1", "change": { "id": "2" } }), 400, "`id`"),
        ("set", json!({ "feed": TASKS, "id": "1", "change": { "title": 1, "x": 1 } }), 400, "`x`"),
        ("set", json!({ "feed": TASKS, "id": "9", "change": { "title": 1 } }), 404, "`9`"),
        ("set", json!({ "feed": "user.ann.notes", "id": "1", "change": {} }), 403, "may not"),
        ("set", json!({ "feed": "team.blue.members", "id": "1", "change": {} }), 403, "not see"),
        ("set", json!({ "feed": "ship", "id": "1", "change": {} }), 403, "not see"),
        ("add", json!({ "feed": bobs, "item": {} }), 403, "may not add"),
        ("add", json!({ "feed": TASKS, "item": { "secret": 1 } }), 400, "`secret`"),
        ("add", json!({ "feed": TASKS, "item": {}, "position": "middle" }), 400, "position"),
        ("add", json!({ "feed": TASKS, "item": {}, "position": ":77" }), 409, "not there"),
        ("add", json!({ "feed": MEMBERS, "item": {}, "position": ":end" }), 409, "feed"),
        ("move", json!({ "feed": TASKS, "id": "9", "position": ":end" }), 404, "`9`"),
        ("move", json!({ "feed": TASKS, "id": "1", "position": ":9" }), 409, "not there"),
        ("move", json!({ "feed": TASKS, "id": "1", "position": ":1" }), 409, "itself"),
        ("move", json!({ "feed": MEMBERS, "id": "ann", "position": ":end" }), 403, "may not move"),
        ("delete", json!({ "feed": TASKS, "id": "9" }), 404, "`9`"),
        ("delete", json!({ "feed": bobs, "id": "1" }), 403, "may not delete"),
        ("delete", json!({ "feed": "team.red.members.gone.tasks", "id": "1" }), 403, "may not"),
    ] {
        let answer = ann.call(name, data.clone()).await;
        assert_eq!(answer["code"], code, "{name} {data}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(wanted), "{name} {data}: {answer}");
    }
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty(), "nothing is applied, not even partly");
}

#[tokio::test]
async fn an_item_that_is_no_object_cannot_be_set() {
    let (gateway, mut ann) = start().await;
    gateway.publish(MEMBERS, "text", "just text").await;
    let set = json!({ "feed": MEMBERS, "id": "text", "change": { "name": "x" } });
    assert_eq!(ann.call("set", set).await["code"], 409);
}

#[tokio::test]
async fn an_item_may_be_owned_by_the_user_that_it_is() {
    let (gateway, mut ann) = start().await;
    let refused = ann.call("delete", json!({ "feed": MEMBERS, "id": "bob" })).await;
    assert_eq!(refused["code"], 403);
    let own = ann.call("delete", json!({ "feed": MEMBERS, "id": "ann" })).await;
    assert_eq!(own, json!({ "code": 200 }));
    assert_eq!(gateway.feeds.ids(MEMBERS).await.unwrap(), ["bob"]);
}

#[tokio::test]
async fn a_hundred_edits_of_one_socket_keep_their_order() {
    let (gateway, mut ann) = start().await;
    for round in 0..2 {
        let calls: Vec<_> = (0..50)
            .map(|number| {
                let title = format!("{round}-{number}");
                ann.ask("set", json!({ "feed": TASKS, "id": "1", "change": { "title": title } }))
            })
            .collect();
        for call in calls {
            assert_eq!(ann.answer(call).await, json!({ "code": 200 }));
        }
    }
    let mut titles = Vec::new();
    for _ in 0..100 {
        titles.push(ann.expect("change").await["item"]["title"].as_str().unwrap().to_owned());
    }
    let expected: Vec<_> =
        (0..2).flat_map(|round| (0..50).map(move |number| format!("{round}-{number}"))).collect();
    assert_eq!(titles, expected);
    drop(gateway);
}

#[tokio::test]
async fn an_edit_that_is_refused_lets_none_overtake_those_before_it() {
    let board = format!("{BOARD}[jobs.ship]\ntimeout = \"300ms\"");
    let gateway = TestGateway::with(&board).await;
    gateway.heard().await;
    gateway.publish(MEMBERS, "ann", r#"{"own":1}"#).await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    let set = |name: &str| json!({ "feed": MEMBERS, "id": "ann", "change": { "name": name } });
    let first = ann.ask("set", set("first"));
    let second = ann.ask("set", set("second"));
    let ships: Vec<_> = (0..62).map(|_| ann.ask("ship", json!({}))).collect();
    assert_eq!(ann.call("set", set("refused")).await["code"], 429);
    for ship in ships {
        ann.answer(ship).await;
    }
    let last = ann.ask("set", set("last"));
    // The worker is there only when all of them wait.
    ann.quiet(&gateway).await;
    gateway.work();
    for call in [first, second, last] {
        assert_eq!(ann.answer(call).await, json!({ "code": 200 }));
    }
    let item = gateway.feeds.item(MEMBERS, "ann").await.unwrap().unwrap();
    assert_eq!(item, r#"{"own":1,"name":"last"}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_at_once_keep_both_changes() {
    let (gateway, mut ann) = start().await;
    for number in 0..50 {
        let change = |name: &str| serde_json::Map::from_iter([(name.to_owned(), json!(number))]);
        let (title, done) = (change("title"), change("done"));
        let (one, other) = (format!("one-{number}"), format!("other-{number}"));
        let (one, other) = tokio::join!(
            edit::merge_into(&gateway.feeds, TASKS, "1", &title, &one),
            edit::merge_into(&gateway.feeds, TASKS, "1", &done, &other),
        );
        assert_eq!((one, other), (Ok(()), Ok(())));
        let item = gateway.feeds.item(TASKS, "1").await.unwrap().unwrap();
        let item: Value = serde_json::from_slice(&item).unwrap();
        assert_eq!((&item["title"], &item["done"]), (&json!(number), &json!(number)));
    }
    ann.follow("both", |tree| tree.feed(TASKS).unwrap().model("1").json()["done"] == 49).await;
    ann.check_faults();
}

/// Carries the same job out as a worker does that was cut off and started again.
async fn carry_out(gateway: &TestGateway, id: &str, item: Value) -> Value {
    let job = Job {
        id: id.to_owned(),
        item: item.to_string().into(),
        cancelled: 0,
        age: Some(std::time::Duration::ZERO),
    };
    let config = &gateway.world.config;
    let tree = Arc::new(config.tree.clone());
    let bounds = edit::Bounds { timeout: config.edits.timeout, max_item_bytes: 1 << 20 };
    let result = edit::carry_out(&gateway.feeds, &tree, bounds, &job).await;
    serde_json::from_slice(&result).unwrap()
}

#[tokio::test]
async fn the_same_job_twice_changes_nothing_twice() {
    let (gateway, mut ann) = start().await;
    let by = |job: Value| {
        let mut job = job;
        job["user"] = "ann".into();
        job["teams"] = json!(["red"]);
        job
    };
    let add = by(json!({ "op": "add", "feed": TASKS, "item": { "title": "once" } }));
    let added = carry_out(&gateway, "job-1", add.clone()).await;
    assert_eq!(added, json!({ "code": 200, "id": "3" }));
    assert_eq!(carry_out(&gateway, "job-1", add).await, added);

    let set = by(json!({ "op": "set", "feed": TASKS, "id": "3", "change": { "title": "a" } }));
    assert_eq!(carry_out(&gateway, "job-2", set.clone()).await["code"], 200);
    gateway.edit(TASKS, "3", r#"{"title":"later"}"#).await;
    assert_eq!(carry_out(&gateway, "job-2", set).await["code"], 200);
    assert_eq!(gateway.feeds.item(TASKS, "3").await.unwrap().unwrap(), r#"{"title":"later"}"#);

    let delete = by(json!({ "op": "delete", "feed": TASKS, "id": "3" }));
    assert_eq!(carry_out(&gateway, "job-3", delete.clone()).await["code"], 200);
    assert_eq!(carry_out(&gateway, "job-3", delete).await["code"], 200);
    assert_eq!(gateway.feeds.ids(TASKS).await.unwrap(), ["1", "2"]);
    let publishes = ann.log.len();
    ann.drain();
    assert!(ann.log.len() >= publishes);
    ann.check_faults();
}

#[tokio::test]
async fn an_edit_that_is_older_than_its_time_out_is_never_applied() {
    let board = format!("{BOARD}[edits]\ntimeout = \"1s\"");
    let gateway = TestGateway::with(&board).await;
    gateway.heard().await;
    gateway.publish(MEMBERS, "ann", r#"{"own":1}"#).await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    let set = json!({ "feed": MEMBERS, "id": "ann", "change": { "name": "late" } });
    let answer = ann.call("set", set).await;
    assert_eq!((&answer["code"], &answer["state"]), (&json!(504), &json!("queued")));
    gateway.work();
    let set = json!({ "feed": MEMBERS, "id": "ann", "change": { "name": "in time" } });
    assert_eq!(ann.call("set", set).await["code"], 200);
    assert_eq!(ann.expect("change").await["item"]["name"], "in time");
}

#[tokio::test]
async fn an_edit_that_makes_an_item_too_large_is_413() {
    let board = format!("{BOARD}[limits]\nmax_item_bytes = \"1KiB\"");
    let gateway = TestGateway::with(&board).await;
    gateway.work();
    gateway.heard().await;
    gateway.publish(MEMBERS, "ann", r#"{"own":1}"#).await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    let long = "x".repeat(1_100);
    let set = json!({ "feed": MEMBERS, "id": "ann", "change": { "name": long } });
    assert_eq!(ann.call("set", set).await["code"], 413);
    let add = json!({ "feed": MEMBERS, "item": { "name": long } });
    assert_eq!(ann.call("add", add).await["code"], 413);
    assert_eq!(gateway.feeds.ids(MEMBERS).await.unwrap(), ["ann"]);
}

#[tokio::test]
async fn what_a_client_kept_while_it_was_away_is_carried_out_when_it_comes_back() {
    let (gateway, mut ann) = start().await;
    ann.leave();
    let other = gateway.world.gateway().await;
    other.heard().await;
    let mut ann = other.join(user("ann").in_team("red"));
    let set = json!({ "feed": TASKS, "id": "1", "change": { "title": "kept" } });
    assert_eq!(ann.call("set", set).await, json!({ "code": 200 }));
}

#[tokio::test]
async fn edits_reach_their_feeds_over_three_shards_and_two_gateways() {
    let world = World::new(BOARD, 3);
    let (one, two) = (world.gateway().await, world.gateway().await);
    one.work();
    for gateway in [&one, &two] {
        gateway.heard().await;
    }
    one.publish(MEMBERS, "ann", r#"{"own":1}"#).await;
    let mut ann = one.connect(user("ann").in_team("red")).await;
    let mut bob = two.connect(user("bob").in_team("red")).await;
    let add = json!({ "feed": TASKS, "item": { "title": "new" } });
    assert_eq!(ann.call("add", add).await["code"], 200);
    assert_eq!(bob.expect("publish").await["item"]["title"], "new");
    let shift = json!({ "feed": TASKS, "id": "1", "position": "begin:" });
    assert_eq!(bob.call("move", shift).await["code"], 200);
    let set = json!({ "feed": TASKS, "id": "1", "change": { "done": true } });
    assert_eq!(bob.call("set", set).await["code"], 200);
    ann.follow("the change", |tree| tree.feed(TASKS).unwrap().model("1").json()["done"] == true)
        .await;
}

#[tokio::test]
async fn an_edit_that_comes_before_what_a_client_holds_waits_and_stops_nothing() {
    let (gateway, mut ann) = start().await;
    ann.leave();
    let mut back = gateway.join(ann.user.clone().resuming());
    back.tree = ann.tree.clone();
    let edit = back.ask("add", json!({ "feed": TASKS, "item": { "title": "kept" } }));
    let claims = back.tree.claims();
    assert_eq!(back.call("resume", claims).await["code"], 200);
    assert_eq!(back.answer(edit).await["code"], 200);
}
