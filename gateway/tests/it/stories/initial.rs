//! What a client is told first.

use serde_json::json;
use shard_router::feed::Position;

use super::gateway::{BOARD, TestGateway, World, user};

const NOTHING: &str = "000000000000000000000000";

#[tokio::test]
async fn initial_is_the_nested_state_in_the_words_of_the_design() {
    let gateway = TestGateway::start().await;
    gateway.publish("teams", "red", r#"{"name":"Reds",  "n":1.50e1}"#).await;
    gateway.publish("team.red.members", "ann", r#"{"name":"Ann"}"#).await;
    gateway.append("team.red.members.ann.tasks", r#"{"title":"é \u00e9","own":"id"}"#).await;
    gateway.insert("team.red.members.ann.tasks", r#"{"id":"x"}"#, Position::Begin).await;
    gateway.publish("user.ann.notes", "7", "remember").await;

    let ann = gateway.connect(user("ann").in_team("red").in_team("blue")).await;
    let expected = concat!(
        r#"{"attrs":{"id":"ann"},"models":{"user":{"id":"ann","v":"V0","attrs":{"id":"ann"},"#,
        r#""collections":{"notes":{"id":"user.ann.notes","v":"V1","models":["#,
        r#"{"id":"7","attrs":{"id":"7","value":"remember"},"collections":{}}]}}}},"#,
        r#""collections":{"teams":{"id":"teams","models":["#,
        r#"{"id":"blue","v":"V2","attrs":{"id":"blue"},"collections":{"members":"#,
        r#"{"id":"team.blue.members","v":"000000000000000000000000","models":[]}}},"#,
        r#"{"id":"red","v":"V3","attrs":{"id":"red","name":"Reds",  "n":1.50e1},"#,
        r#""collections":{"members":{"id":"team.red.members","v":"V4","models":["#,
        r#"{"id":"ann","attrs":{"id":"ann","name":"Ann"},"collections":{"tasks":"#,
        r#"{"id":"team.red.members.ann.tasks","v":"V5","models":["#,
        r#"{"id":"2","attrs":{"id":"x"},"collections":{}},"#,
        r#"{"id":"1","attrs":{"id":"1","title":"é \u00e9","own":"id"},"collections":{}}"#,
        r#"]}}}]}}}]}}}"#,
    );
    let versions = [
        version(false, &[("ann", "{}")]),
        version(false, &[("7", "remember")]),
        version(false, &[("blue", "{}")]),
        version(false, &[("red", r#"{"name":"Reds",  "n":1.50e1}"#)]),
        version(false, &[("ann", r#"{"name":"Ann"}"#)]),
        version(true, &[("2", r#"{"id":"x"}"#), ("1", r#"{"title":"é \u00e9","own":"id"}"#)]),
    ];
    let fill = |text: String, (at, v): (usize, &String)| text.replace(&format!("V{at}"), v);
    let expected = versions.iter().enumerate().fold(expected.to_owned(), fill);
    assert_eq!(ann.log[0].text(), expected);
}

/// Computes a version from the words of the design.
fn version(is_sorted: bool, items: &[(&str, &str)]) -> String {
    use sha1::{Digest, Sha1};
    let (mut sums, mut before) = ([0_u32; 3], "");
    for (id, item) in items {
        let digest = Sha1::digest(format!("{before}\0{id}\0{item}"));
        for (sum, word) in sums.iter_mut().zip(digest.chunks(4)) {
            *sum = sum.wrapping_add(u32::from_be_bytes(word.try_into().unwrap()));
        }
        if is_sorted {
            before = id;
        }
    }
    sums.map(|sum| format!("{sum:08x}")).concat()
}

#[tokio::test]
async fn a_user_without_teams_and_without_a_branch_has_an_empty_state() {
    let gateway = TestGateway::with("").await;
    let ann = gateway.connect(user("a\"n")).await;
    let expected =
        r#"{"attrs":{"id":"a\"n"},"models":{},"collections":{"teams":{"id":"teams","models":[]}}}"#;
    assert_eq!(ann.log[0].text(), expected);
}

#[tokio::test]
async fn a_user_has_attributes_where_the_tree_says_so() {
    let board = r#"
        [tree.user]
        attrs = { feed = "people", id = "{user}" }
    "#;
    let gateway = TestGateway::with(board).await;
    gateway.publish("people", "ann", r#"{"name":"Ann"}"#).await;
    let mut ann = gateway.connect(user("ann")).await;
    let mut bob = gateway.connect(user("bob")).await;
    let me = ann.tree.me.clone().unwrap();
    assert_eq!(me.attrs.get(), r#"{"id":"ann","name":"Ann"}"#);
    assert_eq!(me.v, Some(version(false, &[("ann", r#"{"name":"Ann"}"#)])));
    assert_eq!(bob.tree.me.as_ref().unwrap().attrs.get(), r#"{"id":"bob"}"#);

    gateway.edit("people", "ann", r#"{"name":"Anna"}"#).await;
    let v = version(false, &[("ann", r#"{"name":"Anna"}"#)]);
    assert_eq!(
        ann.expect("change").await,
        json!({ "feed": "people", "id": "ann", "item": { "name": "Anna" }, "v": v })
    );
    gateway.publish("people", "bob", r#"{"name":"Bob"}"#).await;
    assert_eq!(bob.expect("change").await["item"], json!({ "name": "Bob" }));
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty());
}

#[tokio::test]
async fn an_item_that_is_missing_counts_as_an_empty_object() {
    let gateway = TestGateway::start().await;
    gateway.publish("teams", "red", r#"{"name":"Reds"}"#).await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    gateway.retract("teams", "red").await;
    let v = version(false, &[("red", "{}")]);
    let expected = json!({ "feed": "teams", "id": "red", "item": {}, "v": v });
    assert_eq!(ann.expect("change").await, expected);
}

#[tokio::test]
async fn items_that_are_no_objects_are_shown_all_the_same() {
    let gateway = TestGateway::start().await;
    for (id, item) in [("1", "[1, 2]"), ("2", "{broken"), ("3", "null"), ("4", r#"{"id":9}"#)] {
        gateway.publish("user.ann.notes", id, item).await;
    }
    gateway.feeds.publish("user.ann.notes", Some("5"), vec![b'a', 0xff]).await.unwrap();
    let mut ann = gateway.connect(user("ann")).await;
    let notes = ann.feed("user.ann.notes");
    let text = |id: &str| notes.model(id).attrs.get().to_owned();
    assert_eq!(text("1"), r#"{"id":"1","value":[1, 2]}"#);
    assert_eq!(text("2"), r#"{"id":"2","value":"{broken"}"#);
    assert_eq!(text("3"), r#"{"id":"3","value":null}"#);
    assert_eq!(text("4"), r#"{"id":9}"#);
    assert_eq!(text("5"), "{\"id\":\"5\",\"value\":\"a\u{fffd}\"}");
}

#[tokio::test]
async fn ids_of_any_spelling_reach_their_own_feeds_and_no_others() {
    let gateway = TestGateway::start().await;
    gateway.publish("team.a%2Emembers.members", "é/:", r#"{}"#).await;
    gateway.append("team.a%2Emembers.members.%C3%A9%2F%3A.tasks", r#"{"t":1}"#).await;
    gateway.publish("team.a.members", "members", r#"{"secret":true}"#).await;
    let ann = gateway.connect(user("ann").in_team("a.members")).await;
    let members = ann.tree.teams.model("a.members").nested("members");
    assert_eq!(members.ids(), ["é/:"]);
    assert_eq!(members.model("é/:").nested("tasks").ids(), ["1"]);
    assert!(!ann.log[0].text().contains("secret"));
}

#[tokio::test]
async fn two_levels_of_nesting_come_whole_over_three_shards() {
    let board = format!(
        "{BOARD}\n{}",
        r#"
        [tree.team.collections.members.collections.tasks.collections.comments]
        feed = "team.{team}.members.{member}.tasks.{task}.comments"
    "#
    )
    .replace("type = \"sorted_feed\"", "type = \"sorted_feed\"\nitem = \"task\"");
    let gateway = World::new(&board, 3).gateway().await;
    for member in 0..20 {
        gateway.publish("team.red.members", &member.to_string(), "{}").await;
        let tasks = format!("team.red.members.{member}.tasks");
        for _ in 0..5 {
            let task = gateway.append(&tasks, "{}").await;
            gateway.publish(&format!("{tasks}.{task}.comments"), "c", r#""nice""#).await;
        }
    }
    let ann = gateway.connect(user("ann").in_team("red")).await;
    let members = ann.tree.teams.model("red").nested("members");
    assert_eq!(members.models.len(), 20);
    for member in &members.models {
        let tasks = member.nested("tasks");
        assert_eq!(tasks.ids(), ["1", "2", "3", "4", "5"]);
        assert!(tasks.models.iter().all(|task| task.nested("comments").ids() == ["c"]));
    }
}

#[tokio::test]
async fn an_empty_feed_has_the_version_of_nothing() {
    let gateway = TestGateway::start().await;
    let mut ann = gateway.connect(user("ann")).await;
    assert_eq!(ann.feed("user.ann.notes").v.as_deref(), Some(NOTHING));
}
