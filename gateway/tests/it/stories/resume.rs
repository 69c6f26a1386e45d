//! Clients that come back and say what they hold.

use std::time::{Duration, Instant};

use gateway::outbox::CloseReason;
use serde_json::{Value, json};

use super::{
    client::TestClient,
    gateway::{BOARD, TestGateway, World, user},
};

const MEMBERS: &str = "team.red.members";
const TASKS: &str = "team.red.members.ann.tasks";
const NOTES: &str = "user.ann.notes";

async fn board() -> (World, TestGateway, TestClient) {
    let world = World::new(BOARD, 2);
    let gateway = world.gateway().await;
    gateway.publish("teams", "red", r#"{"name":"Reds"}"#).await;
    gateway.publish("teams", "blue", r#"{"name":"Blues"}"#).await;
    gateway.publish(MEMBERS, "ann", r#"{"own":1}"#).await;
    for number in 1..=3 {
        gateway.append(TASKS, format!(r#"{{"own":{number}}}"#)).await;
    }
    gateway.publish(NOTES, "1", r#"{"own":1}"#).await;
    let ann = gateway.connect(user("ann").in_team("red")).await;
    (world, gateway, ann)
}

/// Changes every feed of the board by a little.
async fn change_all(gateway: &TestGateway) {
    gateway.edit(TASKS, "2", r#"{"own":20}"#).await;
    gateway.shift(TASKS, "3", "begin:").await;
    gateway.append(TASKS, r#"{"own":4}"#).await;
    gateway.retract(TASKS, "1").await;
    gateway.publish(NOTES, "2", r#"{"own":2}"#).await;
    gateway.edit(MEMBERS, "ann", r#"{"own":2}"#).await;
    gateway.publish("teams", "red", r#"{"name":"The Reds"}"#).await;
}

fn code(answer: &Value) -> [u64; 3] {
    ["code", "resumed", "reset"].map(|key| answer[key].as_u64().unwrap_or_default())
}

#[tokio::test]
async fn who_lacks_nothing_is_told_nothing() {
    let (_, gateway, ann) = board().await;
    let (mut ann, call) = ann.returns(&gateway);
    assert_eq!(code(&ann.answer(call).await), [200, 3, 0]);
    assert!(ann.names().is_empty(), "{:?}", ann.names());
    gateway.edit(NOTES, "1", r#"{"own":2}"#).await;
    assert_eq!(ann.expect("change").await["feed"], NOTES);
    ann.check_faults();
}

#[tokio::test]
async fn who_was_away_is_told_the_events_since_and_then_hears_on() {
    let (_, gateway, ann) = board().await;
    // Somebody stays, so that the gateway goes on to hear the feeds.
    let mut stays = gateway.connect(user("ann").in_team("red").in_session("stays")).await;
    ann.check_faults();
    let mut away = ann;
    away.leave();
    change_all(&gateway).await;
    stays.quiet(&gateway).await;
    let (mut ann, call) = away.returns(&gateway);
    assert_eq!(code(&ann.answer(call).await), [200, 3, 0]);
    let names = ann.names();
    for name in ["initial", "reset"] {
        assert!(!names.iter().any(|came| came == name), "{names:?}");
    }
    assert_eq!(ann.feed(TASKS).ids(), ["3", "2", "4"]);
    assert_eq!(ann.tree.teams.model("red").json()["name"], "The Reds");
    gateway.append(TASKS, r#"{"own":5}"#).await;
    ann.follow("the fifth task", |tree| tree.feed(TASKS).unwrap().ids().contains(&"5")).await;
    ann.check_faults();
}

#[tokio::test]
async fn another_gateway_serves_who_returns_as_well() {
    let (world, gateway, ann) = board().await;
    let other = world.gateway().await;
    let mut watch = other.connect(user("ann").in_team("red").in_session("watch")).await;
    let mut away = ann;
    away.leave();
    change_all(&gateway).await;
    watch.quiet(&other).await;
    let (mut ann, call) = away.returns(&other);
    assert_eq!(code(&ann.answer(call).await), [200, 3, 0]);
    assert_eq!(ann.feed(TASKS).ids(), ["3", "2", "4"]);
    ann.check_faults();
}

#[tokio::test]
async fn a_gateway_that_never_saw_the_version_sends_that_feed_anew_and_no_other() {
    let (world, gateway, mut ann) = board().await;
    ann.leave();
    gateway.edit(TASKS, "2", r#"{"own":20}"#).await;
    drop(gateway);
    let fresh = world.gateway().await;
    let (mut ann, call) = ann.returns(&fresh);
    assert_eq!(code(&ann.answer(call).await), [200, 2, 1]);
    let reset = ann.expect("reset").await;
    assert_eq!(reset["feed"], TASKS);
    assert_eq!(reset["parent"], json!({ "feed": MEMBERS, "id": "ann" }));
    assert_eq!((&reset["name"], &reset["collection"]["id"]), (&json!("tasks"), &json!(TASKS)));
    assert!(ann.names().is_empty());
    assert_eq!(ann.feed(TASKS).model("2").json()["own"], 20);
    fresh.append(TASKS, r#"{"own":5}"#).await;
    ann.expect("publish").await;
    ann.check_faults();
}

#[tokio::test]
async fn an_item_published_meanwhile_comes_with_what_hangs_below_it() {
    let (_, gateway, mut ann) = board().await;
    let mut stays = gateway.connect(user("bob").in_team("red")).await;
    ann.leave();
    gateway.publish(MEMBERS, "bob", r#"{"own":1}"#).await;
    gateway.append("team.red.members.bob.tasks", r#"{"own":1}"#).await;
    // It goes and comes back: the client drops what it held below it.
    gateway.retract(MEMBERS, "ann").await;
    gateway.publish(MEMBERS, "ann", r#"{"own":2}"#).await;
    stays.quiet(&gateway).await;
    let (mut ann, call) = ann.returns(&gateway);
    assert_eq!(code(&ann.answer(call).await), [200, 2, 2]);
    let names = ann.names();
    assert_eq!(names, ["publish", "retract", "publish", "reset", "reset"]);
    assert_eq!(ann.feed("team.red.members.bob.tasks").ids(), ["1"]);
    assert_eq!(ann.feed(TASKS).ids(), ["1", "2", "3"]);
    ann.check_faults();
}

#[tokio::test]
async fn teams_that_were_won_and_lost_meanwhile_are_told() {
    let (_, gateway, mut ann) = board().await;
    ann.leave();
    ann.user = user("ann").in_team("blue").in_session("later");
    gateway.publish("team.blue.members", "cleo", r#"{"own":1}"#).await;
    let (mut ann, call) = ann.returns(&gateway);
    // The lost team's feeds, which are gone wherever they were held, and the won team's one.
    assert_eq!(code(&ann.answer(call).await), [200, 1, 3]);
    assert_eq!(ann.names(), ["reset", "reset", "retract", "publish", "reset"]);
    assert_eq!(ann.tree.teams.ids(), ["blue"]);
    assert_eq!(ann.feed("team.blue.members").ids(), ["cleo"]);
    assert!(ann.tree.feed(MEMBERS).is_none());
    gateway.publish(MEMBERS, "bob", "{}").await;
    gateway.publish("team.blue.members", "dai", r#"{"own":1}"#).await;
    assert_eq!(ann.expect("reset").await["collection"], Value::Null);
    for name in ["reset", "retract", "publish", "reset"] {
        ann.expect(name).await;
    }
    assert_eq!(ann.expect("publish").await["feed"], "team.blue.members");
    ann.check_faults();
}

#[tokio::test]
async fn what_was_subscribed_is_heard_again_where_it_may_be() {
    let (_, gateway, mut ann) = board().await;
    gateway.publish("public.news", "1", r#"{"own":1}"#).await;
    for feed in ["public.news", "public.other", "team.red.chat"] {
        assert_eq!(ann.call("subscribe", json!({ "feed": feed })).await["code"], 200);
    }
    let mut stays = gateway.connect(user("bob")).await;
    stays.call("subscribe", json!({ "feed": "public.news" })).await;
    ann.leave();
    ann.user = user("ann").in_session("later");
    gateway.publish("public.news", "2", r#"{"own":2}"#).await;
    stays.quiet(&gateway).await;
    let (mut ann, call) = ann.returns(&gateway);
    let answer = ann.answer(call).await;
    assert_eq!(code(&answer), [200, 3, 3], "notes, news and other; members, tasks and chat");
    assert!(ann.tree.flat.keys().eq(["public.news", "public.other"]));
    assert_eq!(ann.feed("public.news").ids(), ["1", "2"]);
    gateway.publish("public.news", "3", r#"{"own":3}"#).await;
    ann.follow("the third news", |tree| tree.feed("public.news").unwrap().ids().len() == 3).await;
    assert_eq!(ann.call("unsubscribe", json!({ "feed": "public.news" })).await["code"], 200);
    ann.check_faults();
}

#[tokio::test]
async fn who_says_nothing_in_time_or_holds_nothing_gets_initial() {
    let (_, gateway, _ann) = board().await;
    let mut empty = gateway.join(user("ann").in_team("red").resuming());
    let call = empty.ask("resume", json!({ "feeds": {} }));
    empty.expect("initial").await;
    assert_eq!(code(&empty.answer(call).await), [200, 0, 0]);

    let began = Instant::now();
    let mut silent = gateway.join(user("ann").in_team("red").resuming());
    silent.expect("initial").await;
    assert!((4_900..6_500).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    for client in [&mut empty, &mut silent] {
        let claims = client.tree.claims();
        assert_eq!(client.call("resume", claims).await["code"], 409);
        assert!(client.names().is_empty());
    }
}

#[tokio::test]
async fn nothing_is_sent_before_a_client_says_what_it_holds() {
    let (_, gateway, ann) = board().await;
    let mut back = gateway.join(ann.user.clone().resuming());
    gateway.edit(NOTES, "1", r#"{"own":2}"#).await;
    let subscribed = back.ask("subscribe", json!({ "feed": "public.news" }));
    assert!(!back.hears("change", Duration::from_millis(300)).await);
    assert!(!back.has_answer(subscribed));
    back.tree = ann.tree.clone();
    let claims = back.tree.claims();
    assert_eq!(back.call("resume", claims).await["code"], 200);
    assert_eq!(back.answer(subscribed).await["code"], 200);
    assert_eq!(back.feed(NOTES).model("1").json()["own"], 2);
    back.check_faults();
}

#[tokio::test]
async fn what_another_user_held_is_worth_nothing() {
    let (_, gateway, mut ann) = board().await;
    ann.leave();
    ann.user = user("bob").in_team("red");
    let (mut bob, call) = ann.returns(&gateway);
    bob.expect("initial").await;
    assert_eq!(code(&bob.answer(call).await), [200, 0, 0]);
    assert_eq!(bob.tree.user, "bob");
}

#[tokio::test]
async fn foreign_and_unknown_names_are_answered_alike() {
    let (_, gateway, _ann) = board().await;
    gateway.publish("team.blue.members", "eve", "{}").await;
    let v = "000000000000000000000000";
    let mut ann = gateway.join(user("ann").in_team("red").resuming());
    let feeds = json!({
        "user": { "ann": null }, "teams": { "red": 7 },
        "team.blue.members": v, "team.nowhere.members": v, "\u{0}": v, "": v, "x": { "y": v },
        MEMBERS: "short", TASKS: [v], NOTES: v,
    });
    let answer = ann.call("resume", json!({ "feeds": feeds })).await;
    assert_eq!(code(&answer), [200, 0, 7], "five that are nothing, members with tasks, notes");
    let mut came = Vec::new();
    while let Some(name) = ann.names().first().cloned() {
        came.push((name.clone(), ann.expect(&name).await));
    }
    let nothing =
        |feed: &str| json!({ "feed": feed, "parent": null, "name": null, "collection": null });
    let expected = ["", "\u{0}", "team.blue.members", "team.nowhere.members", "x"].map(nothing);
    let resets: Vec<_> =
        came.iter().filter(|(name, _)| name == "reset").map(|(_, json)| json.clone()).collect();
    assert_eq!(resets[..5], expected);
    let feeds: Vec<_> = resets[5..].iter().map(|json| json["feed"].as_str().unwrap()).collect();
    assert_eq!(feeds, [MEMBERS, NOTES]);
}

#[tokio::test]
async fn a_resume_that_cannot_be_read_is_told_what_is_wrong_and_may_be_tried_again() {
    let (_, gateway, mut ann) = board().await;
    ann.leave();
    let mut back = gateway.join(ann.user.clone().resuming());
    for wrong in [json!({}), json!({ "feeds": 7 }), json!({ "feeds": [] })] {
        let answer = back.call("resume", wrong).await;
        assert_eq!(answer["code"], 400);
        assert!(answer["errors"][0].as_str().unwrap().contains("`feeds`"), "{answer}");
    }
    let claims = ann.tree.claims();
    assert_eq!(code(&back.call("resume", claims).await), [200, 3, 0]);
}

#[tokio::test]
async fn a_huge_map_is_answered_and_closes_nobody() {
    let (_, gateway, mut ann) = board().await;
    let mut back = gateway.join(user("ann").in_team("red").resuming());
    let feeds: serde_json::Map<_, _> =
        (0..9_000).map(|number| (number.to_string(), json!(0))).collect();
    let answer = back.call("resume", json!({ "feeds": feeds })).await;
    assert_eq!(code(&answer)[0], 200);
    assert_eq!(back.closed, None::<CloseReason>);
    ann.quiet(&gateway).await;
}

#[tokio::test]
async fn a_feed_that_cannot_be_read_counts_as_unchanged_and_follows_as_a_reset() {
    let (world, gateway, mut ann) = board().await;
    ann.leave();
    gateway.edit(TASKS, "2", r#"{"own":20}"#).await;
    drop(gateway);
    let shard = world.shard_of(TASKS);
    shard.set_away(true);
    let fresh = world.gateway().await;
    let (mut ann, call) = ann.returns(&fresh);
    let answer = ann.answer(call).await;
    assert_eq!(answer["reset"], 0, "{answer}");
    assert!(!ann.names().contains(&"initial".to_owned()));
    assert_eq!(ann.feed(TASKS).model("2").json()["own"], 2);
    shard.set_away(false);
    ann.follow("the second task", |tree| tree.feed(TASKS).unwrap().model("2").json()["own"] == 20)
        .await;
    fresh.append(TASKS, r#"{"own":5}"#).await;
    ann.follow("the new task", |tree| tree.feed(TASKS).unwrap().ids().len() == 4).await;
    ann.check_faults();
}

#[tokio::test]
async fn a_feed_at_several_places_comes_anew_at_each_or_at_none() {
    let board = r#"
[tree.team.collections.all]
feed = "everyone"
[tree.team.collections.own]
feed = "team.{team}.own"
"#;
    let world = World::new(board, 1);
    let gateway = world.gateway().await;
    gateway.publish("everyone", "1", r#"{"own":1}"#).await;
    let mut ann = gateway.connect(user("ann").in_team("red").in_team("blue")).await;
    let mut stays = gateway.connect(user("bob").in_team("red")).await;
    for (item, teams) in [("2", &["blue", "red"][..]), ("3", &["blue", "green", "red"])] {
        ann.leave();
        gateway.publish("everyone", item, r#"{"own":1}"#).await;
        stays.quiet(&gateway).await;
        ann.user.teams = teams.iter().map(|team| (*team).to_owned()).collect();
        ann.user.session = format!("session with {}", teams.len());
        let (back, call) = ann.returns(&gateway);
        ann = back;
        let expected = if teams.len() == 2 { [200, 3, 0] } else { [200, 2, 2] };
        assert_eq!(code(&ann.answer(call).await), expected);
        for team in teams {
            let ids = ann.tree.teams.model(team).nested("all").ids().len();
            assert_eq!(ids, item.parse::<usize>().unwrap(), "{team}");
        }
    }
    ann.check_faults();
}

#[tokio::test]
async fn what_hangs_below_a_feed_that_cannot_be_read_stays_until_it_can() {
    let (world, gateway, mut ann) = board().await;
    ann.leave();
    drop(gateway);
    let shard = world.shard_of(MEMBERS);
    shard.set_away(true);
    let fresh = world.gateway().await;
    let (mut ann, call) = ann.returns(&fresh);
    let answer = ann.answer(call).await;
    assert_eq!(answer["reset"], 0, "{answer}");
    assert_eq!(ann.feed(TASKS).ids(), ["1", "2", "3"]);
    shard.set_away(false);
    fresh.append(TASKS, r#"{"own":5}"#).await;
    ann.follow("the new task", |tree| tree.feed(TASKS).unwrap().ids().len() == 4).await;
    ann.check_faults();
}

#[tokio::test]
async fn who_missed_more_than_may_wait_gets_feeds_anew_and_is_not_closed() {
    let world = World::new(BOARD, 1);
    let gateway = world.gateway().await;
    let members: Vec<String> = (0..8).map(|number| format!("m{number}")).collect();
    for member in &members {
        gateway.publish(MEMBERS, member, r#"{"own":1}"#).await;
        gateway.append(&format!("team.red.members.{member}.tasks"), r#"{"own":0}"#).await;
    }
    let red = || user("ann").in_team("red").with_outbox(64 << 10);
    let mut ann = gateway.connect(red()).await;
    let mut stays = gateway.connect(user("bob").in_team("red")).await;
    ann.leave();
    let item = format!(r#"{{"own":"{}"}}"#, "x".repeat(1_000));
    for _ in 0..20 {
        for member in &members {
            gateway.append(&format!("team.red.members.{member}.tasks"), &item).await;
        }
    }
    stays.quiet(&gateway).await;
    let (mut ann, call) = ann.returns(&gateway);
    assert_eq!(code(&ann.answer(call).await)[0], 200);
    assert_eq!(ann.closed, None::<CloseReason>);
    for member in &members {
        assert_eq!(ann.feed(&format!("team.red.members.{member}.tasks")).ids().len(), 21);
    }
    ann.check_faults();
}

#[tokio::test]
async fn a_name_that_no_feed_may_have_is_not_subscribed() {
    let (_, gateway, _ann) = board().await;
    let mut back = gateway.join(user("ann").in_team("red").resuming());
    let long = format!("public.{}", "x".repeat(600));
    let answer = back.call("resume", json!({ "feeds": { &long: null } })).await;
    assert_eq!(answer["code"], 200);
    let reset = back.until("reset").await;
    assert_eq!((&reset["feed"], &reset["collection"]), (&json!(long), &Value::Null));
}

#[tokio::test]
async fn models_that_are_others_and_may_not_wait_come_with_initial() {
    let world = World::new(BOARD, 1);
    let gateway = world.gateway().await;
    gateway.publish("teams", "red", "{}").await;
    gateway.publish("public.news", "1", r#"{"own":1}"#).await;
    let mut ann = gateway.connect(user("ann").in_team("red").with_outbox(6_000)).await;
    ann.call("subscribe", json!({ "feed": "public.news" })).await;
    ann.leave();
    gateway.publish("teams", "red", format!(r#"{{"name":"{}"}}"#, "x".repeat(4_000))).await;
    let mut stays = gateway.connect(user("bob").in_team("red")).await;
    stays.follow("the name", |tree| tree.teams.model("red").json()["name"].is_string()).await;
    let (mut ann, call) = ann.returns(&gateway);
    assert_eq!(code(&ann.answer(call).await), [200, 0, 0]);
    assert_eq!(ann.names(), ["initial", "reset"]);
    assert_eq!(ann.feed("public.news").ids(), ["1"]);
    gateway.publish("public.news", "2", r#"{"own":2}"#).await;
    ann.follow("the second news", |tree| tree.feed("public.news").unwrap().ids().len() == 2).await;
    ann.check_faults();
}
