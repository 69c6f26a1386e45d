//! What a client is told after that.

use serde_json::json;
use shard_router::feed::{FeedType, NewFeed, Position, Post};

use super::{
    client::TestClient,
    gateway::{BOARD, TestGateway, World, user},
};

const TASKS: &str = "team.red.members.ann.tasks";

async fn board() -> (TestGateway, TestClient) {
    let gateway = TestGateway::start().await;
    gateway.publish("teams", "red", "{}").await;
    gateway.publish("team.red.members", "ann", r#"{"own":0}"#).await;
    for number in 1..=3 {
        gateway.append(TASKS, format!(r#"{{"own":{number}}}"#)).await;
    }
    let ann = gateway.connect(user("ann").in_team("red")).await;
    (gateway, ann)
}

#[tokio::test]
async fn each_verb_has_its_event_with_exactly_its_payload() {
    let (gateway, mut ann) = board().await;
    let notes = "user.ann.notes";
    let item = r#"{"own":1.50}"#;
    gateway.publish(notes, "7", item).await;
    let got = ann.next().await.unwrap();
    let v = ann.feed(notes).v.unwrap();
    let expected = format!(r#"{{"feed":"{notes}","id":"7","item":{item},"v":"{v}"}}"#);
    assert_eq!((got.name.as_str(), got.text()), ("publish", expected.as_str()));

    gateway.edit(notes, "7", "é").await;
    let change = ann.expect("change").await;
    assert_eq!(change, json!({ "feed": notes, "id": "7", "item": "é", "v": change["v"] }));

    gateway.retract(notes, "7").await;
    let retract = ann.expect("retract").await;
    assert_eq!(retract, json!({ "feed": notes, "id": "7", "v": "000000000000000000000000" }));

    gateway.shift(TASKS, "3", "begin:").await;
    let moved = ann.expect("position").await;
    assert_eq!(moved, json!({ "feed": TASKS, "id": "3", "position": "begin:", "v": moved["v"] }));
    gateway.shift(TASKS, "3", ":2").await;
    assert_eq!(ann.expect("position").await["position"], "1:");
    assert_eq!(ann.feed(TASKS).ids(), ["1", "3", "2"]);
    ann.check_faults();
}

#[tokio::test]
async fn a_sorted_insert_is_one_publish_with_its_place() {
    let (gateway, mut ann) = board().await;
    let item = r#"{"own":4}"#;
    for (position, told) in [
        (Position::Begin, "begin:"),
        (Position::End, "3:"),
        (Position::Before("2".to_owned()), "1:"),
        (Position::After("2".to_owned()), "2:"),
    ] {
        let id = gateway.insert(TASKS, item, position).await;
        let publish = ann.expect("publish").await;
        let expected = json!({
            "feed": TASKS, "id": id, "item": { "own": 4 }, "position": told, "v": publish["v"],
        });
        assert_eq!(publish, expected);
    }
    assert_eq!(ann.feed(TASKS).ids(), ["4", "1", "6", "2", "7", "3", "5"]);
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty());
    ann.check_faults();
}

#[tokio::test]
async fn a_publish_of_a_known_id_is_a_change_and_of_the_same_bytes_is_nothing() {
    let (gateway, mut ann) = board().await;
    gateway.publish("user.ann.notes", "7", r#"{"own":1}"#).await;
    ann.expect("publish").await;
    gateway.publish("user.ann.notes", "7", r#"{"own":2}"#).await;
    gateway.publish("user.ann.notes", "7", r#"{"own":2}"#).await;
    ann.expect("change").await;
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty());
}

#[tokio::test]
async fn an_event_reaches_its_team_or_user_and_nobody_else() {
    let gateway = TestGateway::start().await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    let mut other = gateway.connect(user("ann").in_session("her phone")).await;
    let mut bob = gateway.connect(user("bob").in_team("red")).await;
    let mut eve = gateway.connect(user("eve").in_team("blue")).await;

    gateway.publish("team.red.members", "ann", "{}").await;
    for client in [&mut ann, &mut bob] {
        client.expect("publish").await;
        client.expect("reset").await;
    }
    gateway.publish("user.ann.notes", "1", "{}").await;
    for client in [&mut ann, &mut other] {
        assert_eq!(client.expect("publish").await["feed"], "user.ann.notes");
    }
    for client in [&mut ann, &mut other, &mut bob, &mut eve] {
        client.quiet(&gateway).await;
        assert!(client.names().is_empty());
    }
}

#[tokio::test]
async fn an_event_is_encoded_once_however_many_hear_it() {
    let gateway = TestGateway::start().await;
    let mut clients = Vec::new();
    for number in 0..10 {
        let user = user(&format!("user-{number}")).in_team("red");
        clients.push(gateway.connect(user).await);
    }
    gateway.publish("team.red.members", "ann", "{}").await;
    let mut places = std::collections::HashSet::new();
    for client in &mut clients {
        let publish = client.next().await.unwrap();
        let reset = client.next().await.unwrap();
        assert_eq!((publish.name.as_str(), reset.name.as_str()), ("publish", "reset"));
        places.extend([publish.text().as_ptr(), reset.text().as_ptr()]);
    }
    assert_eq!(places.len(), 2, "one text for each event, shared by all");
}

#[tokio::test]
async fn a_nested_feed_comes_with_its_item_and_goes_with_it() {
    let (gateway, mut ann) = board().await;
    let tasks = "team.red.members.bob.tasks";
    gateway.append(tasks, r#"{"own":1}"#).await;
    gateway.publish("team.red.members", "bob", r#"{"own":1}"#).await;
    assert_eq!(ann.expect("publish").await["id"], "bob");
    let reset = ann.next().await.unwrap();
    let v = ann.feed(tasks).v.unwrap();
    let expected = format!(
        concat!(
            r#"{{"feed":"{tasks}","parent":{{"feed":"team.red.members","id":"bob"}},"#,
            r#""name":"tasks","collection":{{"id":"{tasks}","v":"{v}","models":["#,
            r#"{{"id":"1","attrs":{{"id":"1","own":1}},"collections":{{}}}}]}}}}"#,
        ),
        tasks = tasks,
        v = v
    );
    assert_eq!((reset.name.as_str(), reset.text()), ("reset", expected.as_str()));
    gateway.append(tasks, r#"{"own":2}"#).await;
    assert_eq!(ann.expect("publish").await["position"], "1:");

    gateway.retract("team.red.members", "bob").await;
    ann.expect("retract").await;
    assert!(ann.tree.feed(tasks).is_none());
    gateway.append(tasks, r#"{"own":3}"#).await;
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty(), "what hangs nowhere is not heard");

    gateway.publish("team.red.members", "bob", r#"{"own":2}"#).await;
    ann.expect("publish").await;
    ann.expect("reset").await;
    assert_eq!(ann.feed(tasks).ids(), ["1", "2", "3"]);
    gateway.append(tasks, r#"{"own":4}"#).await;
    ann.expect("publish").await;
    ann.check_faults();
}

#[tokio::test]
async fn a_nested_feed_grows_and_shrinks_two_levels_deep() {
    let board = BOARD.replace("type = \"sorted_feed\"", "type = \"sorted_feed\"\nitem = \"task\"")
        + r#"
        [tree.team.collections.members.collections.tasks.collections.comments]
        feed = "team.{team}.members.{member}.tasks.{task}.comments"
    "#;
    let gateway = World::new(&board, 3).gateway().await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    gateway.publish(&format!("{TASKS}.1.comments"), "a", r#"{"own":1}"#).await;
    gateway.append(TASKS, r#"{"own":1}"#).await;
    gateway.publish("team.red.members", "ann", r#"{"own":1}"#).await;
    ann.expect("publish").await;
    let reset = ann.expect("reset").await;
    assert_eq!(reset["collection"]["models"][0]["collections"]["comments"]["models"][0]["id"], "a");
    let two = gateway.append(TASKS, r#"{"own":2}"#).await;
    assert_eq!(ann.expect("publish").await["id"], two.as_str());
    let reset = ann.expect("reset").await;
    assert_eq!(reset["parent"], json!({ "feed": TASKS, "id": two }));
    assert_eq!(reset["name"], "comments");
    gateway.publish(&format!("{TASKS}.{two}.comments"), "b", r#"{"own":1}"#).await;
    ann.expect("publish").await;
    gateway.retract("team.red.members", "ann").await;
    ann.expect("retract").await;
    gateway.publish(&format!("{TASKS}.{two}.comments"), "c", r#"{"own":1}"#).await;
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty());
    ann.check_faults();
}

#[tokio::test]
async fn a_feed_in_two_teams_is_heard_once() {
    let board = r#"
        [tree.team.collections.news]
        feed = "news"
    "#;
    let gateway = TestGateway::with(board).await;
    gateway.publish("news", "1", r#"{"own":1}"#).await;
    let mut ann = gateway.connect(user("ann").in_team("red").in_team("blue")).await;
    let mut bob = gateway.connect(user("bob").in_team("blue")).await;
    gateway.edit("news", "1", r#"{"own":2}"#).await;
    gateway.publish("news", "2", r#"{"own":1}"#).await;
    for client in [&mut ann, &mut bob] {
        client.expect("change").await;
        client.expect("publish").await;
        client.quiet(&gateway).await;
        assert!(client.names().is_empty());
    }
    for team in ["red", "blue"] {
        let news = ann.tree.teams.model(team).nested("news");
        assert_eq!(news.model("1").json(), json!({ "id": "1", "own": 2 }));
        assert_eq!(news.ids(), ["1", "2"]);
    }
    gateway.set_teams(&ann.user, &["blue"]).await;
    ann.expect("retract").await;
    gateway.retract("news", "1").await;
    assert_eq!(ann.expect("retract").await["feed"], "news");
    assert_eq!(ann.feed("news").ids(), ["2"]);
}

#[tokio::test]
async fn a_feed_that_is_deleted_or_flushed_is_empty_at_its_clients() {
    let (gateway, mut ann) = board().await;
    gateway.feeds.delete_feed(TASKS).await.unwrap();
    ann.follow("an empty list", |tree| tree.feed(TASKS).unwrap().models.is_empty()).await;
    gateway.append(TASKS, r#"{"own":9}"#).await;
    ann.follow("a new list", |tree| tree.feed(TASKS).unwrap().ids() == ["1"]).await;
    // A Redis that loses its memory says nothing of it, but its connections break.
    gateway.world.shards[0].flush();
    gateway.world.shards[0].drop_connections();
    ann.follow("an empty team", |tree| tree.feed("team.red.members").unwrap().models.is_empty())
        .await;
    ann.check_faults();
}

#[tokio::test]
async fn what_differs_in_too_much_is_sent_anew() {
    let (gateway, mut ann) = board().await;
    let shard = gateway.world.shard_of(TASKS);
    shard.set_muted(true);
    gateway.feeds.delete_feed(TASKS).await.unwrap();
    for number in 0..3 {
        gateway.append(TASKS, format!(r#"{{"own":"other {number}"}}"#)).await;
    }
    for id in ["1", "2"] {
        gateway.shift(TASKS, id, ":end").await;
    }
    shard.set_muted(false);
    shard.drop_connections();
    ann.follow("the new tasks", |tree| {
        let tasks = tree.feed(TASKS).unwrap();
        tasks.ids() == ["3", "1", "2"] && tasks.model("1").json()["own"] == "other 0"
    })
    .await;
    assert!(ann.log.iter().any(|got| got.name == "reset" && got.text().contains(TASKS)));
    gateway.append(TASKS, r#"{"own":"last"}"#).await;
    assert_eq!(ann.expect("publish").await["position"], "2:");
    ann.check_faults();
}

#[tokio::test]
async fn a_bounded_feed_loses_its_oldest_items_at_its_clients_too() {
    let gateway = TestGateway::start().await;
    let mut ann = gateway.connect(user("ann")).await;
    let new = NewFeed { feed_type: FeedType::Feed, max_length: Some(2) };
    for number in 1..=4 {
        let item = format!(r#"{{"own":{number}}}"#).into();
        let post = Post { item, id: Some(number.to_string()), position: None, new };
        gateway.feeds.post("user.ann.notes", post).await.unwrap();
    }
    ann.follow("two notes", |tree| tree.feed("user.ann.notes").unwrap().ids() == ["3", "4"]).await;
    ann.check_faults();
}

#[tokio::test]
async fn a_notice_that_makes_no_sense_changes_nothing() {
    let (gateway, mut ann) = board().await;
    let shard = gateway.world.shard_of("user.ann.notes");
    gateway.publish("user.ann.notes", "1", r#"{"own":1}"#).await;
    ann.expect("publish").await;
    for (channel, payload) in [
        ("feed.publish:user.ann.notes", "no nul"),
        ("feed.edit:user.ann.notes", "gone\0{\"own\":2}"),
        ("feed.retract:user.ann.notes", "unknown"),
        ("feed.position:team.red.members.ann.tasks", "1\0nowhere"),
        ("delfeed", "user.ann.notes"),
        ("feed.publish:user.ann.notes", "\0"),
    ] {
        shard.raw(&["PUBLISH", channel, payload]).unwrap();
    }
    gateway.edit("user.ann.notes", "1", r#"{"own":3}"#).await;
    ann.follow("the true note", |tree| {
        let notes = tree.feed("user.ann.notes").unwrap();
        notes.ids() == ["1"] && notes.model("1").json()["own"] == 3
    })
    .await;
}

#[tokio::test]
async fn a_key_of_the_wrong_type_leaves_the_last_good_state() {
    let (gateway, mut ann) = board().await;
    gateway.publish("user.ann.notes", "1", r#"{"own":1}"#).await;
    ann.expect("publish").await;
    let shard = gateway.world.shard_of("user.ann.notes");
    shard.raw(&["SET", "feed.ids:user.ann.notes", "oops"]).unwrap();
    shard.drop_connections();
    gateway.publish("team.red.members", "bob", r#"{"own":1}"#).await;
    ann.follow("another feed's event", |tree| tree.feed("team.red.members.bob.tasks").is_some())
        .await;
    assert_eq!(ann.feed("user.ann.notes").ids(), ["1"]);
    shard.raw(&["DEL", "feed.ids:user.ann.notes"]).unwrap();
    gateway.publish("user.ann.notes", "2", r#"{"own":2}"#).await;
    ann.follow("the note", |tree| tree.feed("user.ann.notes").unwrap().ids() == ["2"]).await;
}
