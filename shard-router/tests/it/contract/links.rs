//! Subscription connections: confirmed, lost, up again, cut when they do not read.

use std::time::Duration;

use bytes::Bytes;
use shard_router::shard::{Heard, Shard, memory::MemoryShard};
use tokio::{sync::mpsc, time::timeout};

use super::bench::{Bench, PATIENCE};

super::promises! {
    what_is_published_after_the_confirmation_is_heard
    a_lost_connection_comes_back_with_its_channels
    what_is_not_wanted_any_more_is_not_heard
    a_payload_is_relayed_byte_for_byte
}

async fn what_is_published_after_the_confirmation_is_heard(bench: &mut Bench) {
    let mut ear = bench.ear(&["a"]).await;
    for ticket in 2..50 {
        let channel = Bytes::from(format!("c{ticket}"));
        ear.link.subscribe(vec![channel.clone()], ticket);
        ear.until(Heard::Confirmed { ticket }).await;
        bench.relay(0, channel.clone(), "x").await.unwrap();
        let notice = Heard::Notice { channel, payload: Bytes::from_static(b"x") };
        assert_eq!(ear.next().await, notice);
    }
}

async fn a_lost_connection_comes_back_with_its_channels(bench: &mut Bench) {
    let mut ear = bench.ear(&["a", "b"]).await;
    bench.drop_connections().await;
    ear.until_lost_and_up().await;
    bench.relay(0, "b", "1").await.unwrap();
    ear.says(bench, &["b 1"]).await;
    ear.link.reset("it is deaf");
    ear.until_lost_and_up().await;
    bench.relay(0, "a", "2").await.unwrap();
    ear.says(bench, &["a 2"]).await;
}

async fn what_is_not_wanted_any_more_is_not_heard(bench: &mut Bench) {
    let mut ear = bench.ear(&["a", "b"]).await;
    ear.link.unsubscribe(vec![Bytes::from_static(b"a")]);
    ear.link.subscribe(vec![Bytes::from_static(b"c")], 2);
    ear.until(Heard::Confirmed { ticket: 2 }).await;
    for channel in ["a", "b", "c"] {
        bench.relay(0, channel, "1").await.unwrap();
    }
    ear.says(bench, &["b 1", "c 1"]).await;
}

async fn a_payload_is_relayed_byte_for_byte(bench: &mut Bench) {
    let mut ear = bench.ear(&["a"]).await;
    let payload = Bytes::from_static(b"\0\xff\r\n");
    bench.relay(0, "a", payload.clone()).await.unwrap();
    assert_eq!(ear.next().await, Heard::Notice { channel: "a".into(), payload });
}

#[tokio::test]
async fn a_shard_in_memory_can_be_away_and_comes_back_with_its_keys() {
    let shard = MemoryShard::new("m");
    let bench = Bench::memory_of(shard.clone());
    bench.publish("f", Some("a"), "1").await.unwrap();
    let mut ear = bench.ear(&[]).await;
    shard.set_away(true);
    let away = bench.publish("f", Some("a"), "2").await;
    assert!(matches!(away, Err(shard_router::feed::FeedError::Shard(why)) if why.is_away()));
    assert!(bench.waiter("q").unwrap().wait(PATIENCE).await.is_err());
    while !matches!(ear.next().await, Heard::Lost { .. }) {}
    shard.set_away(false);
    ear.until(Heard::Up).await;
    assert_eq!(bench.item("f", "a").await.unwrap().unwrap(), "1");
}

#[tokio::test]
async fn a_waiter_of_a_shard_that_goes_away_wakes() {
    let shard = MemoryShard::new("m");
    let bench = Bench::memory_of(shard.clone());
    let mut waiter = bench.waiter("q").unwrap();
    let waiting = tokio::spawn(async move { waiter.wait(PATIENCE * 10).await });
    tokio::task::yield_now().await;
    shard.set_away(true);
    assert!(timeout(PATIENCE, waiting).await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn a_listener_in_memory_that_does_not_read_is_cut() {
    let shard = MemoryShard::new("m");
    shard.set_buffer_limit(100_000);
    let bench = Bench::memory_of(shard.clone());
    let (heard, mut rx) = mpsc::channel(1);
    let link = shard.link(0, heard);
    link.subscribe(vec![Bytes::from_static(b"a")], 1);
    while rx.recv().await.unwrap().1 != (Heard::Confirmed { ticket: 1 }) {}
    let payload = Bytes::from(vec![0; 1_000]);
    for _ in 0..200 {
        bench.relay(0, "a", payload.clone()).await.unwrap();
    }
    let mut notices = 0;
    loop {
        match timeout(PATIENCE, rx.recv()).await.unwrap().unwrap().1 {
            Heard::Notice { .. } => notices += 1,
            Heard::Lost { .. } => break,
            other => panic!("{other:?} is not due"),
        }
    }
    assert!(notices < 100, "{notices} of 200 were heard");
}

#[tokio::test]
async fn a_denied_channel_is_refused_and_the_others_work() {
    let shard = MemoryShard::new("m");
    shard.deny_channel("secret");
    let bench = Bench::memory_of(shard.clone());
    let mut ear = bench.ear(&["a"]).await;
    let channels = ["b", "secret", "c"].map(|name| Bytes::from_static(name.as_bytes()));
    ear.link.subscribe(channels.into(), 2);
    assert!(matches!(ear.next().await, Heard::Refused { channel, .. } if channel == "secret"));
    ear.until(Heard::Confirmed { ticket: 2 }).await;
    for channel in ["a", "b", "secret", "c"] {
        bench.relay(0, channel, "1").await.unwrap();
    }
    ear.says(&bench, &["a 1", "b 1", "c 1"]).await;
}

#[tokio::test]
async fn deaf_connections_and_muted_shards_say_nothing() {
    let shard = MemoryShard::new("m");
    let bench = Bench::memory_of(shard.clone());
    let mut old = bench.ear(&["a"]).await;
    shard.deafen_connections();
    let mut new = bench.ear(&["a"]).await;
    bench.relay(0, "a", "1").await.unwrap();
    new.says(&bench, &["a 1"]).await;
    shard.set_muted(true);
    bench.relay(0, "a", "2").await.unwrap();
    shard.set_muted(false);
    bench.relay(0, "a", "3").await.unwrap();
    new.says(&bench, &["a 3"]).await;
    old.link.reset("it is deaf");
    old.until_lost_and_up().await;
    old.says(&bench, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn lag_delays_what_is_heard() {
    let shard = MemoryShard::new("m");
    let bench = Bench::memory_of(shard.clone());
    let mut ear = bench.ear(&["a"]).await;
    shard.lag(Duration::from_millis(700));
    let start = tokio::time::Instant::now();
    bench.relay(0, "a", "1").await.unwrap();
    ear.says(&bench, &["a 1"]).await;
    assert!(start.elapsed() >= Duration::from_millis(700));
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_for_a_while_vanishes() {
    let bench = Bench::memory();
    bench.job_put("q", "1", "x", false, 9).await.unwrap();
    bench.job_get("q").await.unwrap();
    bench.job_finish("q", "1", Some("r".into())).await.unwrap();
    tokio::time::advance(Duration::from_secs(59)).await;
    bench.holds("EXISTS job.result:q:1 => 1").await;
    tokio::time::advance(Duration::from_secs(1)).await;
    bench.holds("EXISTS job.result:q:1 => 0").await;
}
