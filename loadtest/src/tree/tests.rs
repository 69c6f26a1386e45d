use serde_json::{Value, json};

use super::*;

const V: &str = "0123456789abcdef01234567";
const W: &str = "89abcdef0123456701234567";

fn task(id: &str, title: &str) -> Value {
    json!({ "id": id, "attrs": { "id": id, "title": title }, "collections": {} })
}

fn tasks(member: &str, v: Option<&str>, models: &[Value]) -> Value {
    json!({ "id": format!("red.{member}"), "v": v, "models": models })
}

fn member(id: &str, tasks: Value) -> Value {
    json!({ "id": id, "attrs": { "id": id }, "collections": { "tasks": tasks } })
}

fn initial() -> Value {
    let ann = member("ann", tasks("ann", Some(V), &[task("1", "one"), task("2", "two")]));
    json!({
        "attrs": { "id": "ann" },
        "models": { "user": { "id": "ann", "v": V, "attrs": { "id": "ann" }, "collections": {
            "notes": { "id": "notes", "v": V, "models": [] } } } },
        "collections": { "teams": { "id": "teams", "models": [
            { "id": "red", "v": V, "attrs": { "id": "red", "name": "Red" }, "collections": {
                "members": { "id": "red", "v": V, "models": [
                    ann, member("bob", tasks("bob", None, &[])) ] } } } ] } },
    })
}

fn tree() -> Tree {
    let mut tree = Tree::new("users");
    assert_eq!(apply(&mut tree, "initial", &initial()), Effect::Changed);
    tree
}

#[track_caller]
fn apply(tree: &mut Tree, event: &str, argument: &Value) -> Effect {
    tree.apply(event, &argument.to_string()).unwrap()
}

#[track_caller]
fn check_ids(tree: &Tree, feed: &str, expected: &str) {
    let ids: Vec<&str> = tree.feed(feed).unwrap().models.keys().map(|id| &**id).collect();
    assert_eq!(ids.join(" "), expected);
}

fn feeds(tree: &Tree) -> String {
    let mut feeds: Vec<&str> = tree.feeds().map(|(feed, _)| feed).collect();
    feeds.sort_unstable();
    feeds.join(" ")
}

#[test]
fn an_initial_is_held_with_its_versions() {
    let tree = tree();
    assert_eq!((tree.root(), tree.teams_feed()), (Some("ann"), "teams"));
    assert_eq!(feeds(&tree), "notes red red.ann red.bob");
    check_ids(&tree, "red", "ann bob");
    check_ids(&tree, "red.ann", "1 2");
    let red = &tree.teams()["red"];
    assert_eq!(red.content, Content::of_item("red", br#"{"name":"Red"}"#));
    assert_eq!(red.v.unwrap().as_str(), V);
    assert_eq!(tree.feed("red.bob").unwrap().v, None);
    let place = Place { feed: "red".into(), id: "ann".into(), name: "tasks".into() };
    assert_eq!(tree.feed("red.ann").unwrap().places, [place]);
    assert_eq!(tree.user().unwrap().collections, [("notes".into(), "notes".into())]);
}

#[test]
fn items_are_put_where_each_form_of_position_says() {
    let mut tree = Tree::new("user");
    tree.subscribed(&json!({ "id": "x", "v": V, "models": [] }).to_string()).unwrap();
    let mut publish = |id: &str, position: Value, expected: Effect, ids: &str| {
        let event =
            json!({ "feed": "x", "id": id, "item": { "n": id }, "position": position, "v": W });
        assert_eq!(apply(&mut tree, "publish", &event), expected, "{id} {position}");
        check_ids(&tree, "x", ids);
    };
    publish("a", json!("begin:"), Effect::Changed, "a");
    publish("b", json!(":end"), Effect::Changed, "a b");
    publish("c", json!(":a"), Effect::Changed, "c a b");
    publish("d", json!("a:"), Effect::Changed, "c a d b");
    publish("e", Value::Null, Effect::Changed, "c a d b e");
    publish("d", json!("a:"), Effect::Same, "c a d b e");
    publish("d", json!("e:"), Effect::Changed, "c a b e d");
    publish("a", Value::Null, Effect::Same, "c b e d a");
    publish("f", json!("none:"), Effect::NoItem, "c b e d a");
    publish("c", json!("c:"), Effect::NoItem, "c b e d a");

    let mut position = |id: &str, position: &str, expected: Effect, ids: &str| {
        let event = json!({ "feed": "x", "id": id, "position": position, "v": V });
        assert_eq!(apply(&mut tree, "position", &event), expected, "{id} {position}");
        check_ids(&tree, "x", ids);
    };
    position("c", "b:", Effect::Changed, "b c e d a");
    position("c", "b:", Effect::Same, "b c e d a");
    position("a", ":c", Effect::Changed, "b a c e d");
    position("b", ":end", Effect::Changed, "a c e d b");
    position("d", "begin:", Effect::Changed, "d a c e b");
    position("none", "begin:", Effect::NoItem, "d a c e b");
    position("d", "none:", Effect::NoItem, "d a c e b");
    assert_eq!(tree.feed("x").unwrap().v.unwrap().as_str(), V);
}

#[test]
fn what_leaves_the_tree_as_it_was_is_told() {
    let mut tree = tree();
    let mut check = |event: &str, argument: Value, expected: Effect| {
        assert_eq!(apply(&mut tree, event, &argument), expected, "{event} {argument}");
        assert_eq!(apply(&mut tree, event, &argument).is_repeat(), expected == Effect::Changed);
    };
    let item = json!({ "title": "new" });
    check("change", json!({ "feed": "red.ann", "id": "1", "item": item, "v": W }), Effect::Changed);
    check("change", json!({ "feed": "users", "id": "ann", "item": item, "v": W }), Effect::Changed);
    check("change", json!({ "feed": "teams", "id": "red", "item": item, "v": W }), Effect::Changed);
    check("retract", json!({ "feed": "red.ann", "id": "2", "v": null }), Effect::Changed);
    check("change", json!({ "feed": "blue", "id": "1", "item": item, "v": W }), Effect::NoFeed);
    check("retract", json!({ "feed": "blue", "id": "1", "v": W }), Effect::NoFeed);
    assert_eq!(tree.feed("red.ann").unwrap().v, None);
    assert_eq!(tree.teams()["red"].v.unwrap().as_str(), W);
    assert_eq!(tree.user().unwrap().v.unwrap().as_str(), W);
    assert!(!tree.feed("red").unwrap().models["ann"].collections.is_empty());
}

#[test]
fn what_hangs_below_goes_with_its_item_and_comes_by_reset() {
    let mut tree = tree();
    let parent = json!({ "feed": "red", "id": "ann" });
    let reset = json!({ "feed": "red.ann", "parent": parent, "name": "tasks",
        "collection": tasks("ann", Some(W), &[task("9", "nine")]) });
    assert_eq!(apply(&mut tree, "reset", &reset), Effect::Changed);
    assert_eq!(apply(&mut tree, "reset", &reset), Effect::Same);
    check_ids(&tree, "red.ann", "9");
    assert_eq!(tree.feed("red.ann").unwrap().places.len(), 1);

    let publish = json!({ "feed": "red", "id": "ann", "item": {}, "v": V });
    assert_eq!(apply(&mut tree, "publish", &publish), Effect::Same);
    assert_eq!(feeds(&tree), "notes red red.bob");
    assert_eq!(apply(&mut tree, "reset", &reset), Effect::Changed);
    assert_eq!(feeds(&tree), "notes red red.ann red.bob");

    apply(&mut tree, "retract", &json!({ "feed": "red", "id": "ann", "v": V }));
    assert_eq!(apply(&mut tree, "reset", &reset), Effect::NoFeed);
    assert_eq!(feeds(&tree), "notes red red.bob");

    let parent = json!({ "feed": "teams", "id": "red" });
    let all = json!({ "id": "red", "v": W, "models": [
        member("eve", tasks("eve", Some(V), &[])), member("bob", tasks("bob", Some(V), &[])) ] });
    let reset = json!({ "feed": "red", "parent": parent, "name": "members", "collection": all });
    assert_eq!(apply(&mut tree, "reset", &reset), Effect::Changed);
    assert_eq!(apply(&mut tree, "reset", &reset), Effect::Same);
    assert_eq!(feeds(&tree), "notes red red.bob red.eve");
    assert_eq!(tree.feed("red.bob").unwrap().places.len(), 1);
    let gone = json!({ "feed": "red", "parent": parent, "name": "members", "collection": null });
    assert_eq!(apply(&mut tree, "reset", &gone), Effect::Changed);
    assert_eq!(apply(&mut tree, "reset", &gone), Effect::Same);
    assert_eq!(feeds(&tree), "notes");
}

#[test]
fn teams_come_and_go() {
    let mut tree = tree();
    let publish = json!({ "feed": "teams", "id": "blue", "item": { "name": "Blue" }, "v": W });
    assert_eq!(apply(&mut tree, "publish", &publish), Effect::Changed);
    let parent = json!({ "feed": "teams", "id": "blue" });
    let members = json!({ "id": "blue", "v": V, "models": [member("ann", tasks("x", None, &[]))] });
    let reset =
        json!({ "feed": "blue", "parent": parent, "name": "members", "collection": members });
    assert_eq!(apply(&mut tree, "reset", &reset), Effect::Changed);
    assert_eq!(tree.teams()["blue"].v.unwrap().as_str(), W);
    apply(&mut tree, "retract", &json!({ "feed": "teams", "id": "red", "v": null }));
    assert_eq!(feeds(&tree), "blue notes red.x");
}

#[test]
fn a_feed_that_hangs_twice_is_one_and_held_until_it_hangs_nowhere() {
    let mut tree = tree();
    let shared = |v: &str, id: &str| json!({ "id": "shared", "v": v, "models": [task(id, "x")] });
    for member in ["ann", "bob"] {
        let reset = json!({ "feed": "shared", "parent": { "feed": "red", "id": member },
            "name": "more", "collection": shared(V, "1") });
        apply(&mut tree, "reset", &reset);
    }
    tree.subscribed(&shared(W, "2").to_string()).unwrap();
    check_ids(&tree, "shared", "2");
    assert_eq!(tree.feed("shared").unwrap().places.len(), 2);
    for member in ["ann", "bob"] {
        apply(&mut tree, "retract", &json!({ "feed": "red", "id": member, "v": V }));
    }
    assert_eq!(feeds(&tree), "notes red shared");
    tree.unsubscribed("shared");
    assert_eq!(feeds(&tree), "notes red");
}

#[test]
fn a_reset_without_a_place_fills_or_ends_a_feed_wherever_it_is_held() {
    let mut tree = tree();
    let nowhere = |feed: &str, collection: Value| json!({ "feed": feed, "parent": null, "name": null, "collection": collection });
    tree.subscribed(&json!({"id": "x", "v": null, "models": [], "unavailable": true}).to_string())
        .unwrap();
    assert!(tree.feed("x").unwrap().unavailable);
    let reset = nowhere("x", json!({ "id": "x", "v": V, "models": [task("1", "one")] }));
    assert_eq!(apply(&mut tree, "reset", &reset), Effect::Changed);
    check_ids(&tree, "x", "1");
    for feed in ["x", "red.ann"] {
        assert_eq!(apply(&mut tree, "reset", &nowhere(feed, Value::Null)), Effect::Changed);
        assert_eq!(apply(&mut tree, "reset", &nowhere(feed, Value::Null)), Effect::NoFeed);
    }
    assert_eq!(feeds(&tree), "notes red red.bob");
    assert!(tree.feed("red").unwrap().models["ann"].collections.is_empty());
    assert_eq!(apply(&mut tree, "reset", &reset), Effect::NoFeed);
}

#[test]
fn a_resume_names_what_is_held_parents_first() {
    assert_eq!(Tree::new("users").resume(1000), r#"{"feeds":{}}"#);
    let mut tree = tree();
    tree.subscribed(&json!({ "id": "x", "v": W, "models": [] }).to_string()).unwrap();
    let head = format!(r#"{{"feeds":{{"user":{{"ann":"{V}"}},"teams":{{"red":"{V}"}},"x":"{W}""#);
    let middle = format!(r#","notes":"{V}","red":"{V}""#);
    let tail = format!(r#","red.ann":"{V}","red.bob":null"#);
    assert_eq!(tree.resume(1000), format!("{head}{middle}{tail}}}}}"));
    assert_eq!(tree.resume(head.len() + middle.len() + 2), format!("{head}{middle}}}}}"));
}

#[test]
fn what_no_server_may_send_changes_nothing() {
    let mut tree = tree();
    for (event, argument) in [
        ("publish", json!({ "feed": "red", "id": "x", "v": V })),
        ("publish", json!({ "feed": "red", "id": "x", "item": 1, "position": "x", "v": V })),
        ("position", json!({ "feed": "red", "id": "ann", "v": V })),
        ("change", json!({ "feed": "red", "id": "ann", "item": 1, "v": "short" })),
        ("initial", json!({})),
        ("reset", json!({ "feed": 7 })),
        ("other", json!({})),
    ] {
        assert!(tree.apply(event, &argument.to_string()).is_err(), "{event} {argument}");
    }
    assert_eq!(tree.resume(9999), self::tree().resume(9999));
    let null = json!({ "feed": "red.ann", "id": "1", "item": null, "v": V });
    assert_eq!(apply(&mut tree, "change", &null), Effect::Changed);
}
