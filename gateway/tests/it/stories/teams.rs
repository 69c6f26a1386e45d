//! Teams gained and lost while a client is connected.

use serde_json::json;

use super::{
    client::eventually,
    gateway::{BOARD, TestGateway, World, user},
};

#[tokio::test]
async fn a_gained_team_is_a_publish_and_then_what_hangs_below_it() {
    let gateway = TestGateway::start().await;
    gateway.publish("teams", "blue", r#"{"name":"Blues"}"#).await;
    gateway.publish("team.blue.members", "bob", r#"{"own":1}"#).await;
    gateway.append("team.blue.members.bob.tasks", r#"{"own":1}"#).await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    gateway.set_teams(&ann.user, &["red", "blue"]).await;
    let publish = ann.expect("publish").await;
    let expected = json!({
        "feed": "teams", "id": "blue", "item": { "name": "Blues" }, "v": publish["v"],
    });
    assert_eq!(publish, expected);
    let reset = ann.expect("reset").await;
    assert_eq!(reset["parent"], json!({ "feed": "teams", "id": "blue" }));
    assert_eq!((&reset["feed"], &reset["name"]), (&json!("team.blue.members"), &json!("members")));
    assert_eq!(ann.feed("team.blue.members.bob.tasks").ids(), ["1"]);
    gateway.append("team.blue.members.bob.tasks", r#"{"own":2}"#).await;
    ann.expect("publish").await;
    gateway.edit("teams", "blue", r#"{"name":"The Blues"}"#).await;
    assert_eq!(ann.expect("change").await["feed"], "teams");
    ann.check_faults();
}

#[tokio::test]
async fn a_lost_team_is_a_retract_and_nothing_after_it() {
    let gateway = TestGateway::start().await;
    gateway.publish("team.red.members", "bob", r#"{"own":1}"#).await;
    let mut ann = gateway.connect(user("ann").in_team("red").in_team("blue")).await;
    let mut bob = gateway.connect(user("bob").in_team("red")).await;
    ann.call("subscribe", json!({ "feed": "team.red.chat" })).await;
    gateway.set_teams(&ann.user, &["blue"]).await;
    ann.until("retract").await;
    for number in 0..20 {
        gateway.publish("team.red.members", &number.to_string(), r#"{"own":1}"#).await;
        gateway.publish("team.red.chat", &number.to_string(), r#"{"own":1}"#).await;
    }
    gateway.publish("teams", "red", r#"{"secret":1}"#).await;
    bob.follow("all members", |tree| tree.feed("team.red.members").unwrap().ids().len() == 21)
        .await;
    ann.quiet(&gateway).await;
    assert_eq!(ann.tree.teams.ids(), ["blue"]);
    assert!(ann.tree.flat.is_empty());
    let lost = ann.log.iter().position(|got| got.name == "retract").unwrap();
    assert_eq!(ann.log[lost].json(), json!({ "feed": "teams", "id": "red", "v": null }));
    assert_eq!(ann.log.len(), lost + 1, "nothing follows");
}

#[tokio::test]
async fn a_team_that_was_lost_can_be_gained_again() {
    let gateway = TestGateway::start().await;
    gateway.publish("team.red.members", "ann", r#"{"own":1}"#).await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    for _ in 0..3 {
        gateway.set_teams(&ann.user, &[]).await;
        ann.until("retract").await;
        gateway.set_teams(&ann.user, &["red"]).await;
        ann.until("publish").await;
        ann.until("reset").await;
    }
    gateway.edit("team.red.members", "ann", r#"{"own":2}"#).await;
    ann.expect("change").await;
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty(), "heard once however often it joined");
    ann.check_faults();
}

#[tokio::test]
async fn a_client_whose_teams_change_before_its_initial_gets_the_teams_of_then() {
    let world = World::new(BOARD, 1);
    let gateway = world.gateway().await;
    gateway.publish("team.red.members", "ann", r#"{"own":1}"#).await;
    world.shards[0].set_away(true);
    let mut ann = gateway.join(user("ann").in_team("red").in_team("green"));
    world.sessions.put(&ann.user.session, "ann", &["blue", "green"]);
    // The shard that would bring a control message is away; an operator asks this gateway.
    eventually("the client is there", async || {
        let (_, _, body) = gateway.request("POST", "/api/users/ann/refresh", "").await;
        body == r#"{"sockets":1}"#
    })
    .await;
    world.shards[0].set_away(false);
    let initial = ann.expect("initial").await;
    let teams = &initial["collections"]["teams"]["models"];
    let ids: Vec<_> = teams.as_array().unwrap().iter().map(|team| &team["id"]).collect();
    assert_eq!(ids, ["blue", "green"]);
    assert!(!initial.to_string().contains("red"));
    gateway.publish("team.red.members", "bob", r#"{"own":1}"#).await;
    gateway.publish("team.blue.members", "bob", r#"{"own":1}"#).await;
    ann.follow("the new team", |tree| {
        tree.feed("team.blue.members").is_some_and(|members| members.ids() == ["bob"])
    })
    .await;
    assert!(!ann.log.iter().any(|got| got.text().contains("red")));
}

#[tokio::test]
async fn attributes_change_in_their_own_teams_room_only() {
    let gateway = TestGateway::start().await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    let mut eve = gateway.connect(user("eve").in_team("blue")).await;
    gateway.publish("teams", "red", r#"{"name":"Reds"}"#).await;
    let change = ann.expect("change").await;
    let expected = json!({
        "feed": "teams", "id": "red", "item": { "name": "Reds" }, "v": change["v"],
    });
    assert_eq!(change, expected);
    gateway.publish("teams", "blue", r#"{"name":"Blues"}"#).await;
    assert_eq!(eve.expect("change").await["id"], "blue");
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty());
}

#[tokio::test]
async fn a_session_that_changes_between_its_look_up_and_the_join_is_noticed() {
    use gateway::outbox::CloseReason;
    let gateway = TestGateway::start().await;
    let ann = user("ann").in_team("red");
    gateway.world.sessions.put(&ann.session, "ann", &["blue"]);
    let mut ann = gateway.join_as_found(ann);
    ann.follow("the team of now", |tree| tree.teams.ids() == ["blue"]).await;
    let mut bob = gateway.join_as_found(user("bob"));
    assert_eq!(bob.closes().await, CloseReason::SessionEnded);
}

#[tokio::test]
async fn a_session_that_has_ended_or_is_anothers_closes_its_sockets() {
    use gateway::outbox::CloseReason;
    let gateway = TestGateway::start().await;
    let mut ann = gateway.connect(user("ann")).await;
    let mut bob = gateway.connect(user("bob")).await;
    let mut cleo = gateway.connect(user("cleo")).await;
    gateway.world.sessions.end(&ann.user.session);
    gateway.world.sessions.put(&bob.user.session, "mallory", &[]);
    for name in ["ann", "bob"] {
        gateway.control(0, json!({ "op": "refresh", "user": name })).await;
    }
    assert_eq!(ann.closes().await, CloseReason::SessionEnded);
    assert_eq!(bob.closes().await, CloseReason::SessionEnded);
    // A store that cannot answer says nothing about a session.
    gateway.world.sessions.set_away(true);
    gateway.control(0, json!({ "op": "refresh", "user": "cleo" })).await;
    cleo.quiet(&gateway).await;
    assert_eq!(cleo.closed, None);
}
