//! Plain and sorted feeds, and the edits that are done once.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use shard_router::feed::{
    Edited, FeedError, FeedType, Found, NewFeed, Note, Position, Post, Published,
};
use tokio::task::JoinSet;

use super::bench::Bench;

super::promises! {
    a_feed_is_created_once_and_deleted_whole
    config_is_set_and_said
    a_publish_makes_the_feed_and_an_edit_moves_the_item
    an_old_feed_keeps_its_config
    a_full_feed_retracts_its_oldest_items_first
    an_edit_in_a_full_feed_retracts_nothing
    very_long_feeds_are_trimmed_step_by_step
    equal_scores_are_ordered_by_bytes
    scores_are_seconds_with_a_fraction
    retracting_twice_says_so_once
    sorted_items_are_said_as_publish_and_position
    sorted_ids_that_exist_are_skipped
    a_full_sorted_feed_retracts_from_its_begin
    moves_say_where_and_refuse_what_is_not_there
    an_edit_of_a_sorted_item_has_no_position
    ids_and_names_that_would_be_misread_are_refused
    a_verb_on_another_type_changes_nothing
    a_post_goes_by_what_the_feed_is
    a_put_edits_or_publishes
    items_are_opaque_bytes
    writers_at_once_lose_nothing
    an_edit_is_written_only_over_what_was_read
    an_edit_is_done_once
    an_added_item_is_noted_with_its_id
    edits_of_what_is_not_there_change_nothing
    a_flushed_shard_just_works
}

/// A generated id and an instance: 32 hexadecimal digits.
fn is_hex(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

fn note(job: &str) -> Note {
    Note { job: job.to_owned(), result: Bytes::from_static(b"{\"code\":200}") }
}

fn before(id: &str) -> Position {
    Position::Before(id.to_owned())
}

fn after(id: &str) -> Position {
    Position::After(id.to_owned())
}

async fn a_feed_is_created_once_and_deleted_whole(bench: &mut Bench) {
    assert!(is_hex(bench.instance()));
    let mut ear = bench.ear_on("news").await;
    assert!(bench.create_feed("news", FeedType::SortedFeed, Some(5)).await.unwrap());
    assert!(!bench.create_feed("news", FeedType::Feed, None).await.unwrap());
    ear.says(bench, &["newfeed news|ME", "conffeed news|ME"]).await;
    bench
        .holds(
            "SMEMBERS feeds => news
             HGET feed.config:news type => sorted_feed
             HGET feed.config:news max_length => 5
             DBSIZE => 2",
        )
        .await;
    assert_eq!(bench.feed_names(0).await.unwrap(), ["news"]);

    for key in ["ids", "items", "published", "claimed", "retried", "running", "idincr"] {
        bench.raw(&["SET", &format!("feed.{key}:news"), "1"]).await;
    }
    for key in ["publishes", "cancelled", "stalled", "finishes"] {
        bench.raw(&["SET", &format!("feed.{key}:news"), "1"]).await;
    }
    bench.raw(&["SET", "feed.ids:news.other", "1"]).await;
    assert!(bench.delete_feed("news").await.unwrap());
    assert!(!bench.delete_feed("news").await.unwrap());
    ear.says(bench, &["delfeed news|ME"]).await;
    bench.holds("DBSIZE => 1").await;
}

async fn config_is_set_and_said(bench: &mut Bench) {
    assert!(!bench.set_config("news", &[("max_length", "3")]).await.unwrap());
    assert!(bench.config("news").await.unwrap().is_empty());
    bench.create_feed("news", FeedType::SortedFeed, None).await.unwrap();
    let mut ear = bench.ear_on("news").await;
    assert!(bench.set_config("news", &[("max_length", "3"), ("x", "y")]).await.unwrap());
    ear.says(bench, &["conffeed news|ME"]).await;
    let config: Vec<_> = bench.config("news").await.unwrap().into_iter().collect();
    let wanted = [("max_length", "3"), ("type", "sorted_feed"), ("x", "y")];
    assert_eq!(config, wanted.map(|(field, value)| (field.to_owned(), value.to_owned())));
}

async fn a_publish_makes_the_feed_and_an_edit_moves_the_item(bench: &mut Bench) {
    let mut ear = bench.ear_on("news").await;
    let published = bench.publish("news", Some("b"), "one").await.unwrap();
    assert_eq!(published, Published { id: "b".to_owned(), created: true });
    bench.publish("news", Some("a"), "two").await.unwrap();
    let edited = bench.publish("news", Some("b"), "three\0!").await.unwrap();
    assert_eq!(edited, Published { id: "b".to_owned(), created: false });
    ear.says(
        bench,
        &[
            "newfeed news|ME",
            "conffeed news|ME",
            "feed.publish:news b|one",
            "feed.publish:news a|two",
            "feed.edit:news b|three|!",
        ],
    )
    .await;
    bench
        .holds(
            "ZRANGE feed.ids:news 0 -1 => a b
             HGET feed.items:news a => two
             HLEN feed.items:news => 2
             GET feed.publishes:news => 3
             HGETALL feed.config:news => type feed
             SMEMBERS feeds => news",
        )
        .await;

    let generated = bench.publish("news", None, "four").await.unwrap();
    assert!(generated.created && is_hex(&generated.id));
    assert_eq!(bench.item("news", &generated.id).await.unwrap().unwrap(), "four");
    assert_eq!(bench.item("news", "x").await.unwrap(), None);
    assert_eq!(bench.ids("news").await.unwrap(), ["a", "b", &generated.id]);

    bench.edit("news", "a", "five").await.unwrap();
    let unknown = bench.edit("news", "x", "six").await;
    assert!(matches!(unknown, Err(FeedError::UnknownItem { id, .. }) if id == "x"));
    ear.says(
        bench,
        &[&format!("feed.publish:news {}|four", generated.id), "feed.edit:news a|five"],
    )
    .await;
    bench.holds("GET feed.publishes:news => 5").await;
}

async fn an_old_feed_keeps_its_config(bench: &mut Bench) {
    bench.publish_new("news", Some("1"), "a", Some(2)).await.unwrap();
    bench.publish_new("news", Some("2"), "b", Some(9)).await.unwrap();
    bench.holds("HGET feed.config:news max_length => 2").await;
    // A writer that registers nothing: announced late, and its length is its own affair.
    bench.lines("ZADD feed.ids:quiet 1 a\nHSET feed.items:quiet a 1").await;
    let mut ear = bench.ear_on("quiet").await;
    bench.publish_new("quiet", Some("b"), "2", Some(1)).await.unwrap();
    ear.says(bench, &["newfeed quiet|ME", "conffeed quiet|ME", "feed.publish:quiet b|2"]).await;
    bench.holds("ZRANGE feed.ids:quiet 0 -1 => a b\nHGETALL feed.config:quiet => type feed").await;
}

async fn a_full_feed_retracts_its_oldest_items_first(bench: &mut Bench) {
    bench.create_feed("news", FeedType::Feed, Some(2)).await.unwrap();
    for id in ["a", "b"] {
        bench.publish("news", Some(id), id).await.unwrap();
    }
    let mut ear = bench.ear_on("news").await;
    bench.publish("news", Some("c"), "c").await.unwrap();
    ear.says(bench, &["feed.retract:news a", "feed.publish:news c|c"]).await;
    bench
        .holds(
            "ZRANGE feed.ids:news 0 -1 => b c
             HLEN feed.items:news => 2
             GET feed.publishes:news => 3",
        )
        .await;
    bench.set_config("news", &[("max_length", "1")]).await.unwrap();
    bench.publish("news", Some("d"), "d").await.unwrap();
    ear.says(
        bench,
        &[
            "conffeed news|ME",
            "feed.retract:news b",
            "feed.retract:news c",
            "feed.publish:news d|d",
        ],
    )
    .await;
    bench.set_config("news", &[("max_length", "many")]).await.unwrap();
    bench.publish("news", Some("e"), "e").await.unwrap();
    bench.holds("ZRANGE feed.ids:news 0 -1 => d e").await;
}

async fn an_edit_in_a_full_feed_retracts_nothing(bench: &mut Bench) {
    bench.create_feed("news", FeedType::Feed, Some(2)).await.unwrap();
    for id in ["a", "b", "a", "b", "b"] {
        bench.publish("news", Some(id), id).await.unwrap();
    }
    bench.holds("ZRANGE feed.ids:news 0 -1 => a b").await;
    // Shorter now: the oldest go, but never the one that is edited.
    bench.publish("news", Some("c"), "c").await.unwrap();
    bench.set_config("news", &[("max_length", "1")]).await.unwrap();
    bench.publish("news", Some("b"), "b2").await.unwrap();
    bench.holds("ZRANGE feed.ids:news 0 -1 => b\nHGETALL feed.items:news => b b2").await;
}

async fn very_long_feeds_are_trimmed_step_by_step(bench: &mut Bench) {
    bench.create_feed("news", FeedType::Feed, None).await.unwrap();
    let mut scores = vec!["ZADD".to_owned(), "feed.ids:news".to_owned()];
    let mut items = vec!["HSET".to_owned(), "feed.items:news".to_owned()];
    for number in 0..2_500 {
        scores.extend([number.to_string(), format!("id{number}")]);
        items.extend([format!("id{number}"), "x".to_owned()]);
    }
    for command in [scores, items] {
        bench.raw(&command.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    bench.set_config("news", &[("max_length", "10")]).await.unwrap();
    for (id, left) in [("a", 1_501), ("b", 502), ("c", 10), ("d", 10)] {
        bench.publish("news", Some(id), "y").await.unwrap();
        assert_eq!(bench.raw(&["ZCARD", "feed.ids:news"]).await, left.to_string());
        assert_eq!(bench.raw(&["HLEN", "feed.items:news"]).await, left.to_string());
    }
}

async fn equal_scores_are_ordered_by_bytes(bench: &mut Bench) {
    bench.lines("ZADD feed.ids:t 5 b 5 é 5 B 4 z 5 a\nHSET feed.items:t a 1 b 1 B 1 é 1 z 1").await;
    assert_eq!(bench.ids("t").await.unwrap(), ["z", "B", "a", "b", "é"]);
}

async fn scores_are_seconds_with_a_fraction(bench: &mut Bench) {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let earliest = now().as_secs_f64() - 0.01;
    let mut scores = BTreeSet::new();
    for id in ["a", "b", "c", "d"] {
        bench.publish("news", Some(id), "x").await.unwrap();
        let score = bench.raw(&["ZSCORE", "feed.ids:news", id]).await;
        let seconds: f64 = score.parse().unwrap();
        assert!((earliest..=now().as_secs_f64() + 0.01).contains(&seconds), "{score}");
        scores.insert(score);
    }
    assert_eq!(scores.len(), 4, "microseconds tell them apart");
}

async fn retracting_twice_says_so_once(bench: &mut Bench) {
    bench.publish("plain", Some("a"), "1").await.unwrap();
    let id = bench.append("sorted", "1").await.unwrap();
    let mut ear = bench.ear(&["feed.retract:plain", "feed.retract:sorted"]).await;
    assert!(bench.retract("plain", "a").await.unwrap());
    assert!(!bench.retract("plain", "a").await.unwrap());
    assert!(bench.retract("sorted", &id).await.unwrap());
    assert!(!bench.retract("sorted", &id).await.unwrap());
    assert!(!bench.retract("nothing", "a").await.unwrap());
    ear.says(bench, &["feed.retract:plain a", "feed.retract:sorted 1"]).await;
    bench
        .holds(
            "EXISTS feed.ids:plain feed.items:plain feed.ids:sorted feed.items:sorted => 0
             GET feed.publishes:plain => 1
             SISMEMBER feeds nothing => 0",
        )
        .await;
}

async fn sorted_items_are_said_as_publish_and_position(bench: &mut Bench) {
    let mut ear = bench.ear_on("list").await;
    assert_eq!(bench.append("list", "a").await.unwrap(), "1");
    assert_eq!(bench.prepend("list", "b").await.unwrap(), "2");
    assert_eq!(bench.publish_before("list", "1", "c").await.unwrap(), "3");
    assert_eq!(bench.publish_after("list", "2", "d").await.unwrap(), "4");
    ear.says(
        bench,
        &[
            "newfeed list|ME",
            "conffeed list|ME",
            "feed.publish:list 1|a",
            "feed.position:list 1|:end",
            "feed.publish:list 2|b",
            "feed.position:list 2|begin:",
            "feed.publish:list 3|c",
            "feed.position:list 3|:1",
            "feed.publish:list 4|d",
            "feed.position:list 4|2:",
        ],
    )
    .await;
    bench
        .holds(
            "LRANGE feed.ids:list 0 -1 => 2 4 3 1
             HGET feed.items:list 4 => d
             GET feed.publishes:list => 4
             GET feed.idincr:list => 4
             HGETALL feed.config:list => type sorted_feed",
        )
        .await;
    let unknown = bench.publish_after("list", "9", "x").await;
    assert!(matches!(unknown, Err(FeedError::UnknownNeighbour { id, .. }) if id == "9"));
    let unknown = bench.publish_after("new", "9", "x").await;
    assert!(matches!(unknown, Err(FeedError::UnknownNeighbour { .. })));
    // Held, but not listed: no neighbour.
    bench.lines("HSET feed.items:list 8 torn").await;
    let unknown = bench.publish_before("list", "8", "x").await;
    assert!(matches!(unknown, Err(FeedError::UnknownNeighbour { .. })));
    ear.says(bench, &[]).await;
    bench.holds("GET feed.publishes:list => 4\nSISMEMBER feeds new => 0").await;
}

async fn sorted_ids_that_exist_are_skipped(bench: &mut Bench) {
    bench.lines("RPUSH feed.ids:list 1 2\nHSET feed.items:list 1 a 2 b").await;
    assert_eq!(bench.append("list", "c").await.unwrap(), "3");
    bench.lines("SET feed.idincr:list 999999999999998").await;
    assert_eq!(bench.append("list", "d").await.unwrap(), "999999999999999");
    assert_eq!(bench.append("list", "e").await.unwrap(), "1000000000000000");
    assert_eq!(bench.append("list", "f").await.unwrap(), "1000000000000001");
    let mut items = vec!["HSET".to_owned(), "feed.items:long".to_owned()];
    items.extend((1..=50_000).flat_map(|id: u32| [id.to_string(), "x".to_owned()]));
    bench.raw(&items.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let id: u32 = bench.append("long", "g").await.unwrap().parse().unwrap();
    assert!((50_001..200_000).contains(&id), "{id}");
}

async fn a_full_sorted_feed_retracts_from_its_begin(bench: &mut Bench) {
    bench.insert_new("list", "a", &Position::End, Some(2)).await.unwrap();
    bench.append("list", "b").await.unwrap();
    let mut ear = bench.ear_on("list").await;
    bench.append("list", "c").await.unwrap();
    // The neighbour that the position names goes behind it; a new first item stays.
    bench.publish_before("list", "2", "d").await.unwrap();
    bench.prepend("list", "e").await.unwrap();
    ear.says(
        bench,
        &[
            "feed.publish:list 3|c",
            "feed.position:list 3|:end",
            "feed.retract:list 1",
            "feed.publish:list 4|d",
            "feed.position:list 4|:2",
            "feed.retract:list 2",
            "feed.publish:list 5|e",
            "feed.position:list 5|begin:",
            "feed.retract:list 4",
        ],
    )
    .await;
    bench.holds("LRANGE feed.ids:list 0 -1 => 5 3\nHLEN feed.items:list => 2").await;
}

async fn moves_say_where_and_refuse_what_is_not_there(bench: &mut Bench) {
    for item in ["a", "b", "c"] {
        bench.append("list", item).await.unwrap();
    }
    let mut ear = bench.ear_on("list").await;
    bench.position("list", "3", &Position::Begin).await.unwrap();
    bench.position("list", "3", &after("2")).await.unwrap();
    bench.position("list", "1", &Position::End).await.unwrap();
    bench.position("list", "1", &before("3")).await.unwrap();
    ear.says(
        bench,
        &[
            "feed.position:list 3|begin:",
            "feed.position:list 3|2:",
            "feed.position:list 1|:end",
            "feed.position:list 1|:3",
        ],
    )
    .await;
    bench.holds("LRANGE feed.ids:list 0 -1 => 2 1 3\nGET feed.publishes:list => 3").await;

    let unknown = bench.position("list", "9", &Position::End).await;
    assert!(matches!(unknown, Err(FeedError::UnknownItem { .. })));
    let unknown = bench.position("none", "9", &Position::End).await;
    assert!(matches!(unknown, Err(FeedError::UnknownItem { .. })));
    let unknown = bench.position("list", "1", &before("9")).await;
    assert!(matches!(unknown, Err(FeedError::UnknownNeighbour { .. })));
    let same = bench.position("list", "1", &after("1")).await;
    assert!(matches!(same, Err(FeedError::SameItem(id)) if id == "1"));
    ear.says(bench, &[]).await;
    bench.holds("LRANGE feed.ids:list 0 -1 => 2 1 3").await;

    // Listed twice, it counts at its first place; a move leaves it at one.
    bench.lines("RPUSH feed.ids:list 2").await;
    bench.position("list", "2", &after("1")).await.unwrap();
    bench.holds("LRANGE feed.ids:list 0 -1 => 1 2 3").await;
}

async fn an_edit_of_a_sorted_item_has_no_position(bench: &mut Bench) {
    for item in ["a", "b"] {
        bench.append("list", item).await.unwrap();
    }
    let mut ear = bench.ear_on("list").await;
    bench.edit("list", "1", "A").await.unwrap();
    let unknown = bench.edit("list", "9", "x").await;
    assert!(matches!(unknown, Err(FeedError::UnknownItem { .. })));
    let unknown = bench.edit("none", "9", "x").await;
    assert!(matches!(unknown, Err(FeedError::UnknownItem { .. })));
    ear.says(bench, &["feed.publish:list 1|A"]).await;
    bench.holds("LRANGE feed.ids:list 0 -1 => 1 2\nGET feed.publishes:list => 3").await;
}

async fn ids_and_names_that_would_be_misread_are_refused(bench: &mut Bench) {
    for id in ["", "a\0b", &"x".repeat(257)] {
        assert!(matches!(bench.publish("news", Some(id), "x").await, Err(FeedError::BadId { .. })));
        assert!(matches!(
            bench.job_put("q", id, "x", false, 9).await,
            Err(FeedError::BadId { .. })
        ));
    }
    for id in ["", "begin", "end", "a:b", "a\0"] {
        let refused = bench.publish_before("list", id, "x").await;
        assert!(matches!(refused, Err(FeedError::BadId { .. })), "{id:?}");
    }
    for name in ["", "a\0b", &"x".repeat(513)] {
        assert!(matches!(bench.append(name, "x").await, Err(FeedError::BadName(_))));
        assert!(matches!(bench.all(name).await, Err(FeedError::BadName(_))));
    }
    bench.holds("DBSIZE => 0").await;
    bench.publish("n", Some(&"é".repeat(128)), "x").await.unwrap();
    bench.publish(&"n".repeat(512), Some("begin:"), "x").await.unwrap();
}

async fn a_verb_on_another_type_changes_nothing(bench: &mut Bench) {
    #[track_caller]
    fn wrong<T: std::fmt::Debug>(outcome: Result<T, FeedError>, word: &str) {
        match outcome {
            Err(FeedError::WrongKind { found, .. }) => assert_eq!(found.to_string(), word),
            other => panic!("{other:?} where {word} should be in the way"),
        }
    }
    bench.create_feed("f", FeedType::Feed, None).await.unwrap();
    bench.create_feed("s", FeedType::SortedFeed, None).await.unwrap();
    bench.create_feed("q", FeedType::Queue, None).await.unwrap();
    bench.job_put("j", "1", "x", false, 9).await.unwrap();
    bench.lines("ZADD feed.ids:z 1 a\nHSET feed.config:z type sorted_feed").await;
    bench.lines("SADD feed.ids:set a\nSET feed.items:str a\nSADD feed.config:cfg a").await;
    bench.lines("HSET feed.config:odd type strange").await;
    let before = bench.raw(&["DBSIZE"]).await;
    let mut ear = bench.ear(&["newfeed", "conffeed"]).await;

    wrong(bench.append("f", "x").await, "feed");
    wrong(bench.publish("s", None, "x").await, "sorted_feed");
    wrong(bench.publish("q", None, "x").await, "queue");
    wrong(bench.append("j", "x").await, "job");
    wrong(bench.retract("j", "1").await, "job");
    wrong(bench.edit("j", "1", "x").await, "job");
    wrong(bench.position("f", "1", &Position::End).await, "feed");
    wrong(bench.queue_put("j", "x", false).await, "job");
    wrong(bench.queue_get("j").await, "job");
    wrong(bench.job_get("q").await, "queue");
    wrong(bench.job_put("s", "1", "x", false, 9).await, "sorted_feed");
    wrong(bench.append("z", "x").await, "feed");
    wrong(bench.publish("set", None, "x").await, "feed.ids:set");
    wrong(bench.append("str", "x").await, "feed.items:string");
    wrong(bench.queue_put("cfg", "x", false).await, "feed.config:set");
    wrong(bench.publish("odd", None, "x").await, "strange");
    wrong(bench.create_feed("odd", FeedType::Feed, None).await, "strange");
    assert_eq!(bench.raw(&["DBSIZE"]).await, before);
    ear.says(bench, &[]).await;

    bench.lines("SADD feed.publishes:c x").await;
    assert!(matches!(bench.publish("c", None, "x").await, Err(FeedError::Shard(_))));
    bench.holds("EXISTS feed.ids:c feed.items:c feed.config:c => 0\nSISMEMBER feeds c => 0").await;

    let found = Some(Found::Type(FeedType::Job));
    assert_eq!(bench.feed_type("j").await.unwrap(), found);
    assert_eq!(bench.feed_type("z").await.unwrap(), Some(Found::Type(FeedType::Feed)));
    assert_eq!(bench.feed_type("nothing").await.unwrap(), None);
}

async fn a_post_goes_by_what_the_feed_is(bench: &mut Bench) {
    let post = |item: &'static str| Post { item: item.into(), ..Post::default() };
    let sorted = NewFeed { feed_type: FeedType::SortedFeed, max_length: Some(7) };

    let new = bench.post("s", Post { new: sorted, ..post("a") }).await.unwrap();
    assert_eq!(new, Published { id: "1".to_owned(), created: true });
    bench.holds("HGET feed.config:s max_length => 7").await;
    // The type is for a new feed only.
    assert_eq!(bench.post("s", post("b")).await.unwrap().id, "2");
    let first = Post { position: Some(Position::Begin), ..post("c") };
    assert_eq!(bench.post("s", first.clone()).await.unwrap().id, "3");
    let with_id = Post { id: Some("x".to_owned()), ..post("d") };
    let refused = bench.post("s", with_id.clone()).await;
    assert!(matches!(refused, Err(FeedError::WrongKind { .. })));
    let refused = bench.post("s", Post { new: sorted, ..with_id.clone() }).await;
    assert!(matches!(refused, Err(FeedError::WrongKind { .. })));

    assert!(bench.post("f", with_id.clone()).await.unwrap().created);
    assert!(!bench.post("f", Post { new: sorted, ..with_id }).await.unwrap().created);
    assert!(is_hex(&bench.post("f", Post { new: sorted, ..post("e") }).await.unwrap().id));
    let refused = bench.post("f", first).await;
    assert!(matches!(refused, Err(FeedError::WrongKind { .. })));
    bench.holds("ZCARD feed.ids:f => 2\nLRANGE feed.ids:s 0 -1 => 3 1 2").await;

    bench.create_feed("q", FeedType::Queue, None).await.unwrap();
    for new in [NewFeed::default(), sorted] {
        let refused = bench.post("q", Post { new, ..post("x") }).await;
        assert!(
            matches!(refused, Err(FeedError::WrongKind { found, .. }) if found == Found::Type(FeedType::Queue))
        );
    }
}

async fn a_put_edits_or_publishes(bench: &mut Bench) {
    assert!(bench.put("f", "a", "1").await.unwrap().created);
    assert!(!bench.put("f", "a", "2").await.unwrap().created);
    bench.append("s", "1").await.unwrap();
    assert!(!bench.put("s", "1", "2").await.unwrap().created);
    assert!(matches!(bench.put("s", "9", "2").await, Err(FeedError::UnknownItem { .. })));
    // Written by somebody who keeps no config.
    bench.lines("RPUSH feed.ids:bare 5\nHSET feed.items:bare 5 x").await;
    assert!(!bench.put("bare", "5", "2").await.unwrap().created);
    bench.holds("HGET feed.items:bare 5 => 2\nHGET feed.items:s 1 => 2").await;
}

async fn items_are_opaque_bytes(bench: &mut Bench) {
    let item = Bytes::from_static(b"\0\xff\r\n\"{\xc3");
    bench.publish("f", Some("a"), item.clone()).await.unwrap();
    let id = bench.append("s", Bytes::new()).await.unwrap();
    assert_eq!(bench.item("f", "a").await.unwrap().unwrap(), item);
    assert_eq!(bench.all("f").await.unwrap().entries, [("a".to_owned(), item)]);
    assert_eq!(bench.item("s", &id).await.unwrap().unwrap(), "");
}

async fn writers_at_once_lose_nothing(bench: &mut Bench) {
    let mut ear = bench.ear_on("list").await;
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let router = Arc::clone(&bench.router);
        writers.spawn(async move {
            for number in 0..25 {
                let item = format!("{writer}.{number}");
                let position = if number % 2 == 0 { Position::End } else { Position::Begin };
                router.insert("list", item, &position).await.unwrap();
                router.publish("feed", Some(&number.to_string()), "x").await.unwrap();
            }
        });
    }
    writers.join_all().await;
    bench
        .holds(
            "LLEN feed.ids:list => 200
             HLEN feed.items:list => 200
             GET feed.publishes:list => 200
             GET feed.idincr:list => 200
             ZCARD feed.ids:feed => 25
             GET feed.publishes:feed => 200",
        )
        .await;

    // Whoever applies the notices in their order ends with the same list.
    let mut list: Vec<String> = Vec::new();
    let notices = ear.notices(bench).await;
    for pair in notices.windows(2) {
        let Some(published) = pair[0].strip_prefix("feed.publish:list ") else { continue };
        let (id, _) = published.split_once('|').unwrap();
        match pair[1].strip_prefix(&format!("feed.position:list {id}|")) {
            Some(":end") => list.push(id.to_owned()),
            Some("begin:") => list.insert(0, id.to_owned()),
            _ => panic!("{pair:?} are not one insert"),
        }
    }
    assert_eq!(bench.ids("list").await.unwrap(), list);
}

async fn an_edit_is_written_only_over_what_was_read(bench: &mut Bench) {
    bench.append("s", "old").await.unwrap();
    bench.publish("f", Some("a"), "old").await.unwrap();
    bench.publish("f", Some("b"), "b").await.unwrap();
    let mut ear =
        bench.ear(&["feed.publish:s", "feed.position:s", "feed.publish:f", "feed.edit:f"]).await;
    let changed = bench.cas_item("s", "1", b"other", b"new", &note("1")).await.unwrap();
    assert_eq!(changed, Edited::Changed("old".into()));
    let done = bench.cas_item("s", "1", b"old", b"new", &note("1")).await.unwrap();
    assert_eq!(done, Edited::Done { id: "1".to_owned() });
    let done = bench.cas_item("f", "a", b"old", b"new", &note("1")).await.unwrap();
    assert_eq!(done, Edited::Done { id: "a".to_owned() });
    ear.says(bench, &["feed.publish:s 1|new", "feed.edit:f a|new"]).await;
    bench
        .holds(
            "GET edit.done:s:1 => {\"code\":200}
             TTL edit.done:s:1 => 3600
             GET feed.publishes:s => 2
             ZRANGE feed.ids:f 0 -1 => b a",
        )
        .await;
}

async fn an_edit_is_done_once(bench: &mut Bench) {
    for item in ["a", "b"] {
        bench.append("s", item).await.unwrap();
    }
    let done_before = Edited::AlreadyDone(Bytes::from_static(b"{\"code\":200}"));
    bench.cas_item("s", "1", b"a", b"x", &note("set")).await.unwrap();
    bench.cas_item("s", "1", b"x", b"a", &note("back")).await.unwrap();
    assert_eq!(bench.cas_item("s", "1", b"a", b"x", &note("set")).await.unwrap(), done_before);
    bench.edit_move("s", "1", &Position::End, &note("move")).await.unwrap();
    bench.position("s", "1", &Position::Begin).await.unwrap();
    let moved = bench.edit_move("s", "1", &Position::End, &note("move")).await.unwrap();
    assert_eq!(moved, done_before);
    bench.holds("LRANGE feed.ids:s 0 -1 => 1 2\nHGET feed.items:s 1 => a").await;

    let mut ear = bench.ear_on("s").await;
    assert_eq!(
        bench.edit_delete("s", "1", &note("delete")).await.unwrap(),
        Edited::Done { id: "1".to_owned() }
    );
    assert_eq!(bench.edit_delete("s", "1", &note("delete")).await.unwrap(), done_before);
    assert_eq!(bench.edit_delete("s", "1", &note("other")).await.unwrap(), Edited::Unknown);
    ear.says(bench, &["feed.retract:s 1"]).await;
}

async fn an_added_item_is_noted_with_its_id(bench: &mut Bench) {
    let sorted = NewFeed { feed_type: FeedType::SortedFeed, max_length: Some(3) };
    let mut ear = bench.ear_on("s").await;
    let done = bench.edit_add("s", "a", None, sorted, &note("1")).await.unwrap();
    assert_eq!(done, Edited::Done { id: "1".to_owned() });
    let again = bench.edit_add("s", "a", None, sorted, &note("1")).await.unwrap();
    assert_eq!(again, Edited::AlreadyDone("1".into()));
    let done = bench.edit_add("s", "b", Some(&before("1")), sorted, &note("2")).await.unwrap();
    assert_eq!(done, Edited::Done { id: "2".to_owned() });
    ear.says(
        bench,
        &[
            "newfeed s|ME",
            "conffeed s|ME",
            "feed.publish:s 1|a",
            "feed.position:s 1|:end",
            "feed.publish:s 2|b",
            "feed.position:s 2|:1",
        ],
    )
    .await;
    bench.holds("LRANGE feed.ids:s 0 -1 => 2 1\nGET feed.publishes:s => 2").await;

    let Edited::Done { id } =
        bench.edit_add("f", "a", None, NewFeed::default(), &note("1")).await.unwrap()
    else {
        panic!("a new feed takes an item");
    };
    assert!(is_hex(&id));
    let again = bench.edit_add("f", "a", None, NewFeed::default(), &note("1")).await.unwrap();
    assert_eq!(again, Edited::AlreadyDone(id.into()));
    bench.holds("ZCARD feed.ids:f => 1\nHGET feed.config:f type => feed").await;
}

async fn edits_of_what_is_not_there_change_nothing(bench: &mut Bench) {
    bench.append("s", "a").await.unwrap();
    bench.publish("f", Some("a"), "a").await.unwrap();
    bench.create_feed("q", FeedType::Queue, None).await.unwrap();
    let keys = bench.raw(&["DBSIZE"]).await;
    let new = NewFeed::default();
    let plain = Edited::WrongKind(Found::Type(FeedType::Feed));
    let queue = Edited::WrongKind(Found::Type(FeedType::Queue));
    let job = note("1");

    let edited = bench.cas_item("s", "9", b"a", b"b", &job).await.unwrap();
    assert_eq!(edited, Edited::Unknown);
    let edited = bench.cas_item("none", "9", b"a", b"b", &job).await.unwrap();
    assert_eq!(edited, Edited::Unknown);
    let edited = bench.edit_move("s", "9", &Position::End, &job).await.unwrap();
    assert_eq!(edited, Edited::Unknown);
    let edited = bench.edit_move("s", "1", &before("9"), &job).await.unwrap();
    assert_eq!(edited, Edited::UnknownNeighbour);
    let edited = bench.edit_move("f", "a", &Position::End, &job).await.unwrap();
    assert_eq!(edited, plain);
    let edited = bench.edit_add("f", "x", Some(&Position::End), new, &job).await.unwrap();
    assert_eq!(edited, plain);
    let edited = bench.edit_add("s", "x", Some(&after("9")), new, &job).await.unwrap();
    assert_eq!(edited, Edited::UnknownNeighbour);
    assert_eq!(bench.edit_add("q", "x", None, new, &job).await.unwrap(), queue);
    assert_eq!(bench.edit_delete("q", "x", &job).await.unwrap(), queue);
    let same = bench.edit_move("s", "1", &after("1"), &job).await;
    assert!(matches!(same, Err(FeedError::SameItem(_))));
    assert_eq!(bench.raw(&["DBSIZE"]).await, keys, "nothing was noted either");
}

async fn a_flushed_shard_just_works(bench: &mut Bench) {
    bench.publish("f", Some("a"), "1").await.unwrap();
    bench.flush().await;
    assert!(bench.publish("f", Some("a"), "1").await.unwrap().created);
    bench.holds("GET feed.publishes:f => 1").await;
}
