//! Shards that go away, lie, lag and fall silent, and clients that do not listen.

use std::time::{Duration, Instant};

use gateway::outbox::CloseReason;
use serde_json::json;

use super::{
    client::{TestClient, eventually},
    gateway::{BOARD, TestGateway, World, user},
};

const TASKS: &str = "team.red.members.ann.tasks";

async fn board(shards: usize) -> (World, TestGateway) {
    let world = World::new(BOARD, shards);
    let gateway = world.gateway().await;
    gateway.publish("teams", "red", r#"{"name":"Reds"}"#).await;
    gateway.publish("team.red.members", "ann", r#"{"own":1}"#).await;
    for number in 0..3 {
        gateway.append(TASKS, format!(r#"{{"own":{number}}}"#)).await;
    }
    (world, gateway)
}

/// Finds a name under which a team's feeds are spread as a story needs them.
fn team_where(world: &World, fits: impl Fn(&dyn Fn(&str) -> usize) -> bool) -> String {
    let names = (0..1_000).map(|number| format!("t{number}"));
    let fits =
        |team: &String| fits(&|feed: &str| world.config.shards.owner(&feed.replace("TEAM", team)));
    names.into_iter().find(fits).expect("some team is spread like this")
}

#[tokio::test]
async fn a_feed_that_cannot_be_read_is_unavailable_within_two_seconds_and_follows() {
    let world = World::new(BOARD, 3);
    let team = team_where(&world, |owner| {
        let members = owner("team.TEAM.members");
        let tasks = owner("team.TEAM.members.ann.tasks");
        members != tasks && owner("teams") != tasks && owner("user.ann.notes") != tasks
    });
    let tasks = format!("team.{team}.members.ann.tasks");
    let gateway = world.gateway().await;
    gateway.publish(&format!("team.{team}.members"), "ann", r#"{"own":1}"#).await;
    gateway.append(&tasks, r#"{"own":1}"#).await;
    world.shard_of(&tasks).set_away(true);

    let began = Instant::now();
    let mut ann = gateway.connect(user("ann").in_team(&team)).await;
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(1_800)..Duration::from_millis(2_800)).contains(&took),
        "{took:?}"
    );
    assert!(ann.feed(&tasks).unavailable);
    assert_eq!(ann.feed(&tasks).v, None);
    assert!(!ann.feed(&format!("team.{team}.members")).unavailable);

    // What can be read is heard at once.
    gateway.edit(&format!("team.{team}.members"), "ann", r#"{"own":2}"#).await;
    ann.expect("change").await;

    world.shard_of(&tasks).set_away(false);
    let reset = ann.expect("reset").await;
    assert_eq!(reset["feed"], tasks.as_str());
    assert_eq!(reset["collection"]["models"][0]["id"], "1");
    gateway.append(&tasks, r#"{"own":2}"#).await;
    ann.expect("publish").await;
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty(), "{:?}", ann.names());
    ann.check_faults();
}

#[tokio::test]
async fn a_whole_world_that_is_away_is_shown_as_such_and_follows() {
    let (world, gateway) = board(1).await;
    world.shards[0].set_away(true);
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    assert!(ann.feed("team.red.members").unavailable);
    assert!(ann.feed("user.ann.notes").unavailable);
    assert_eq!(ann.tree.teams.model("red").json(), json!({ "id": "red" }));
    let mut bob = gateway.connect(user("bob").in_team("red")).await;
    world.shards[0].set_away(false);
    for client in [&mut ann, &mut bob] {
        client
            .follow("all of it", |tree| {
                tree.feed(TASKS).is_some_and(|tasks| tasks.ids() == ["1", "2", "3"])
                    && tree.teams.model("red").json()["name"] == "Reds"
            })
            .await;
        client.check_faults();
    }
    assert!(!ann.feed("user.ann.notes").unavailable);
    gateway.append(TASKS, r#"{"own":4}"#).await;
    ann.until("publish").await;
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty());
}

#[tokio::test]
async fn what_is_shown_while_the_rest_is_still_read_is_heard_from_then_on() {
    let world = World::new(BOARD, 3);
    let team = team_where(&world, |owner| {
        let (members, tasks) = (owner("team.TEAM.members"), owner("team.TEAM.members.ann.tasks"));
        members != tasks && ![members, tasks].contains(&owner("teams"))
    });
    let (members, tasks) =
        (format!("team.{team}.members"), format!("team.{team}.members.ann.tasks"));
    let gateway = world.gateway().await;
    gateway.publish(&members, "ann", r#"{"own":1}"#).await;
    gateway.append(&tasks, r#"{"own":1}"#).await;
    world.shard_of(&tasks).set_away(true);
    world.shard_of(&members).set_away(true);
    let mut ann = gateway.join(user("ann").in_team(&team));
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.shard_of(&members).set_away(false);
    ann.expect("initial").await;
    assert_eq!(ann.feed(&members).ids(), ["ann"]);
    assert!(ann.feed(&tasks).unavailable);
    gateway.edit(&members, "ann", r#"{"own":2}"#).await;
    ann.expect("change").await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    world.shard_of(&tasks).set_away(false);
    assert_eq!(ann.expect("reset").await["feed"], tasks.as_str());
    gateway.append(&tasks, r#"{"own":2}"#).await;
    ann.expect("publish").await;
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty(), "told once: {:?}", ann.names());
}

#[tokio::test]
async fn a_member_whose_tasks_cannot_be_read_is_told_so_and_then_what_they_are() {
    let world = World::new(BOARD, 3);
    let team = team_where(&world, |owner| {
        let tasks = owner("team.TEAM.members.bob.tasks");
        owner("team.TEAM.members") != tasks && owner("teams") != tasks
    });
    let gateway = world.gateway().await;
    let (members, tasks) =
        (format!("team.{team}.members"), format!("team.{team}.members.bob.tasks"));
    let mut ann = gateway.connect(user("ann").in_team(&team)).await;
    gateway.append(&tasks, r#"{"own":1}"#).await;
    world.shard_of(&tasks).set_away(true);
    gateway.publish(&members, "bob", r#"{"own":1}"#).await;
    ann.expect("publish").await;
    assert_eq!(ann.expect("reset").await["collection"]["unavailable"], true);
    world.shard_of(&tasks).set_away(false);
    assert_eq!(ann.expect("reset").await["collection"]["models"][0]["id"], "1");
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty());
}

/// Writes a while; whatever happens to the connections, clients end equal and hear nothing twice.
async fn survives(what: &str, strike: impl Fn(&World, usize)) {
    let (world, gateway) = board(3).await;
    let other = world.gateway().await;
    let mut clients = vec![
        gateway.connect(user("ann").in_team("red")).await,
        other.connect(user("bob").in_team("red")).await,
    ];
    for round in 0..30 {
        let id = gateway.append(TASKS, format!(r#"{{"own":{round}}}"#)).await;
        strike(&world, round);
        gateway.shift(TASKS, &id, "begin:").await;
        gateway.edit("team.red.members", "ann", format!(r#"{{"own":"{round}"}}"#)).await;
        if round % 3 == 0 {
            gateway.retract(TASKS, &id).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    strike(&world, usize::MAX);
    let expected = gateway.feeds.ids(TASKS).await.unwrap();
    for client in &mut clients {
        let held = |client: &mut TestClient| {
            client.feed("team.red.members").model("ann").json()["own"] == "29"
                && client.feed(TASKS).ids() == expected
        };
        let until = Instant::now() + Duration::from_secs(15);
        while !held(client) {
            assert!(Instant::now() < until, "{what}: {:?}", client.feed(TASKS).ids());
            tokio::time::sleep(Duration::from_millis(20)).await;
            client.drain();
        }
        client.check_faults();
    }
}

#[tokio::test]
async fn connections_that_drop_lose_nothing() {
    survives("drops", |world, round| {
        if round % 4 == 0 {
            world.shards.iter().for_each(|shard| shard.drop_connections());
        }
    })
    .await;
}

#[tokio::test]
async fn connections_that_fall_deaf_are_noticed_within_five_seconds() {
    survives("deaf", |world, round| {
        if round == 10 {
            world.shards.iter().for_each(|shard| shard.deafen_connections());
        }
    })
    .await;
}

#[tokio::test]
async fn notices_that_nobody_sends_are_missed_no_longer_than_the_next_reconnect() {
    survives("muted", |world, round| {
        let muted = (5..25).contains(&round);
        world.shards.iter().for_each(|shard| shard.set_muted(muted));
        if round == 25 {
            world.shards.iter().for_each(|shard| shard.drop_connections());
        }
    })
    .await;
}

#[tokio::test]
async fn a_shard_that_lags_is_late_and_no_more() {
    survives("lag", |world, round| {
        let lag = if round == usize::MAX { 0 } else { (round as u64 % 5) * 10 };
        world.shards.iter().for_each(|shard| shard.lag(Duration::from_millis(lag)));
    })
    .await;
}

#[tokio::test]
async fn a_listener_that_a_shard_cuts_off_for_its_slowness_comes_back_complete() {
    survives("buffer", |world, round| {
        let limit = if round == usize::MAX { 32 << 20 } else { 300 };
        world.shards.iter().for_each(|shard| {
            shard.set_buffer_limit(limit);
            shard.lag(if limit == 300 { Duration::from_millis(20) } else { Duration::ZERO });
        });
    })
    .await;
}

#[tokio::test]
async fn a_shard_that_goes_and_comes_back_leaves_clients_as_they_were() {
    let (world, gateway) = board(1).await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    world.shards[0].set_away(true);
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.shards[0].set_away(false);
    gateway.append(TASKS, r#"{"own":4}"#).await;
    ann.follow("the task", |tree| tree.feed(TASKS).unwrap().ids().len() == 4).await;
    assert_eq!(ann.log.iter().filter(|got| got.name == "publish").count(), 1);
    assert!(!ann.log.iter().any(|got| got.name == "reset"), "nothing is reloaded");
    ann.check_faults();
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_the_others_lose_nothing() {
    let (_, gateway) = board(1).await;
    let mut slow = gateway.connect(user("slow").in_team("red").with_outbox(20_000)).await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    let text = "x".repeat(1_000);
    for number in 0..50 {
        let item = format!(r#"{{"own":"{text}"}}"#);
        gateway.publish("team.red.members", &number.to_string(), item).await;
        ann.expect("publish").await;
        ann.expect("reset").await;
    }
    assert_eq!(slow.closes().await, CloseReason::Slow);
    slow.leave();
    eventually("the slow client is forgotten", async || {
        let (_, _, body) = gateway.request("GET", "/api/users/slow", "").await;
        body.contains(r#""sockets":[]"#)
    })
    .await;
    gateway.edit("team.red.members", "0", r#"{"own":"last"}"#).await;
    ann.expect("change").await;
    ann.check_faults();
}

#[tokio::test]
async fn a_client_that_does_not_read_what_changes_all_the_time_ends_equal() {
    let (_, gateway) = board(1).await;
    let members = "team.red.members";
    let mut slow = gateway.connect(user("slow").in_team("red").with_outbox(20_000)).await;
    let mut ann = gateway.connect(user("ann").in_team("red")).await;
    let text = "x".repeat(1_000);
    gateway.publish(members, "other", r#"{"own":0}"#).await;
    for number in 0..200 {
        let item = format!(r#"{{"own":"{number}{text}"}}"#);
        gateway.edit(members, "ann", &item).await;
        gateway.publish("teams", "red", &item).await;
        match number {
            10 => gateway.publish(members, "new", r#"{"own":1}"#).await,
            30 => gateway.retract(members, "other").await,
            _ => {}
        }
        hears(&mut ann, "teams", &item).await;
    }
    gateway.edit(members, "new", r#"{"own":2}"#).await;
    hears(&mut ann, members, r#"{"own":2}"#).await;
    hears(&mut slow, members, r#"{"own":2}"#).await;
    let (held, right) = (slow.feed(members), ann.feed(members));
    assert_eq!((held.ids(), &held.v), (right.ids(), &right.v));
    assert!(held.v.is_some());
    for id in right.ids() {
        assert_eq!(held.model(id).json(), right.model(id).json());
    }
    let (held, right) = (slow.feed("teams"), ann.feed("teams"));
    let (held, right) = (held.model("red"), right.model("red"));
    assert_eq!((held.json(), &held.v), (right.json(), &right.v));
    assert!(slow.log.len() < 40 && slow.tree.nulls > 0, "{}", slow.log.len());
    assert_eq!((ann.tree.nulls, slow.closed), (0, None));
    // Between a change that was dropped and the newer one there is no version.
    slow.tree.faults.retain(|fault| !fault.starts_with("the version is lost"));
    slow.check_faults();
    ann.check_faults();
}

/// Reads until an item of a feed is this.
async fn hears(client: &mut TestClient, feed: &str, item: &str) {
    let tail = format!(r#""item":{item},"#);
    let head = format!(r#"{{"feed":"{feed}","#);
    while let Some(got) = client.next().await {
        if got.text().starts_with(&head) && got.text().contains(&tail) {
            return;
        }
    }
    panic!("{feed} never has {item}; closed {:?}", client.closed);
}

#[tokio::test]
async fn a_channel_that_is_granted_later_is_heard_without_a_new_connection() {
    let world = World::new(BOARD, 1);
    world.shards[0].deny_channel("feed.publish:user.ann.notes");
    let gateway = world.gateway().await;
    let mut ann = gateway.connect(user("ann")).await;
    gateway.publish("user.ann.notes", "1", r#"{"own":1}"#).await;
    assert!(!ann.hears("publish", Duration::from_millis(500)).await);
    world.shards[0].grant_channel(b"feed.publish:user.ann.notes");
    // What was said in between is read once the channel is heard.
    assert_eq!(ann.expect("publish").await["id"], "1");
    gateway.publish("user.ann.notes", "2", r#"{"own":2}"#).await;
    assert_eq!(ann.expect("publish").await["id"], "2");
    ann.quiet(&gateway).await;
    assert!(ann.names().is_empty());
    ann.check_faults();
}

#[tokio::test]
async fn a_large_initial_does_not_count_in_a_small_outbox() {
    let (_, gateway) = board(1).await;
    for number in 0..100 {
        let item = format!(r#"{{"own":"{}"}}"#, "x".repeat(500));
        gateway.publish("team.red.members", &number.to_string(), item).await;
    }
    let mut ann = gateway.connect(user("ann").in_team("red").with_outbox(5_000)).await;
    gateway.edit("team.red.members", "1", r#"{"own":1}"#).await;
    ann.expect("change").await;
}

#[tokio::test]
async fn a_client_that_leaves_before_its_initial_leaves_nothing_behind() {
    let (world, gateway) = board(1).await;
    world.shards[0].set_away(true);
    let mut ann = gateway.join(user("ann").in_team("red"));
    ann.ask("subscribe", json!({ "feed": "public.news" }));
    ann.leave();
    let mut bob = gateway.join(user("bob").in_team("red"));
    world.shards[0].set_away(false);
    bob.expect("initial").await;
    let (_, _, body) = gateway.request("GET", "/api/users/ann", "").await;
    assert_eq!(body, r#"{"user":"ann","sockets":[]}"#);
    bob.check_faults();
}

#[tokio::test]
async fn a_crowd_gets_its_state_although_a_shard_is_away() {
    let world = World::new(BOARD, 2);
    let team = team_where(&world, |owner| owner("team.TEAM.members") != owner("teams"));
    let members = format!("team.{team}.members");
    let gateway = world.gateway().await;
    gateway.publish("teams", &team, r#"{"name":"Reds"}"#).await;
    gateway.publish(&members, "ann", r#"{"own":1}"#).await;
    world.shard_of(&members).set_away(true);
    let crowd = (0..500).map(|number| gateway.join(user(&format!("u{number}")).in_team(&team)));
    let mut crowd: Vec<TestClient> = crowd.collect();
    for client in &mut crowd {
        client.expect("initial").await;
        assert!(client.feed(&members).unavailable);
    }
    world.shard_of(&members).set_away(false);
    for client in &mut crowd {
        client.until("reset").await;
        client.check_faults();
    }
}
