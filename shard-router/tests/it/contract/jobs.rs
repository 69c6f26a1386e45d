//! Queues, jobs, and the worker.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use shard_router::{
    feed::{FeedError, Look, Put},
    worker::Worker,
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::bench::{Bench, PATIENCE};

super::promises! {
    a_queue_gives_each_item_once_and_priority_first
    a_job_goes_from_put_to_result
    a_known_job_is_not_put_again
    a_long_queue_refuses
    a_cancelled_job_comes_back_behind_the_others
    stalled_jobs_rest_until_they_are_retried
    ids_without_an_item_are_dropped
    a_retracted_job_is_gone
    lost_jobs_are_put_back_in_the_second_pass
    each_job_is_claimed_by_one
    a_waiter_wakes_when_a_job_comes_and_takes_nothing
    a_worker_answers_and_stops_clean
    a_job_whose_handler_panics_is_answered_all_the_same
}

async fn a_queue_gives_each_item_once_and_priority_first(bench: &mut Bench) {
    let mut ear = bench.ear_on("q").await;
    assert_eq!(bench.queue_get("q").await.unwrap(), None);
    let first = bench.queue_put("q", "a", false).await.unwrap();
    bench.queue_put("q", "b", false).await.unwrap();
    bench.queue_put("q", "c", true).await.unwrap();
    bench
        .holds(
            "LLEN feed.ids:q => 3
             GET feed.publishes:q => 3
             HGETALL feed.config:q => type queue",
        )
        .await;
    bench.lines("RPUSH feed.ids:q torn").await;
    assert_eq!(bench.queue_get("q").await.unwrap().unwrap().1, "c");
    assert_eq!(bench.queue_get("q").await.unwrap(), Some((first, Bytes::from_static(b"a"))));
    assert_eq!(bench.queue_get("q").await.unwrap().unwrap().1, "b");
    assert_eq!(bench.queue_get("q").await.unwrap(), None);
    ear.says(bench, &["newfeed q|ME", "conffeed q|ME"]).await;
    bench.holds("EXISTS feed.ids:q feed.items:q => 0").await;
}

async fn a_job_goes_from_put_to_result(bench: &mut Bench) {
    let mut ear = bench.ear_on("ship").await;
    assert_eq!(bench.job_look("ship", "7").await.unwrap(), Look::Gone);
    assert_eq!(bench.job_put("ship", "7", "box", false, 10).await.unwrap(), Put::Queued);
    assert_eq!(bench.job_look("ship", "7").await.unwrap(), Look::Queued);
    bench
        .holds(
            "LRANGE feed.ids:ship 0 -1 => 7
             HGETALL feed.items:ship => 7 box
             ZRANGE feed.published:ship 0 -1 => 7
             GET feed.publishes:ship => 1
             HGETALL feed.config:ship => type job
             SMEMBERS feeds => ship",
        )
        .await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let score: f64 = bench.raw(&["ZSCORE", "feed.published:ship", "7"]).await.parse().unwrap();
    assert_eq!(score.fract(), 0.0, "whole milliseconds");
    assert!((now.as_millis() as f64 - score).abs() < 20_000.0);

    let job = bench.job_get("ship").await.unwrap().unwrap();
    assert_eq!((job.id.as_str(), &*job.item, job.cancelled), ("7", &b"box"[..], 0));
    assert!(job.age.unwrap() < PATIENCE);
    assert_eq!(bench.job_get("ship").await.unwrap(), None);
    assert_eq!(bench.job_look("ship", "7").await.unwrap(), Look::Claimed);
    bench.holds("ZRANGE feed.claimed:ship 0 -1 => 7\nHLEN feed.items:ship => 1").await;

    let result = Bytes::from_static(b"done\0!");
    assert!(bench.job_finish("ship", "7", Some(result.clone())).await.unwrap());
    assert!(!bench.job_finish("ship", "7", Some(result.clone())).await.unwrap());
    assert_eq!(bench.job_look("ship", "7").await.unwrap(), Look::Kept(result));
    bench
        .holds(
            "EXISTS feed.ids:ship feed.items:ship feed.claimed:ship feed.published:ship => 0
             GET feed.finishes:ship => 1
             TTL job.result:ship:7 => 60",
        )
        .await;
    ear.says(
        bench,
        &[
            "newfeed ship|ME",
            "conffeed ship|ME",
            "feed.publishes:ship 7|box",
            "feed.claimed:ship 7",
            "job.finish:ship 7|done|!",
        ],
    )
    .await;

    // Without a result nothing is said or kept.
    bench.job_put("ship", "8", "x", false, 10).await.unwrap();
    assert!(!bench.job_finish("ship", "8", None).await.unwrap(), "it is not claimed");
    bench.job_get("ship").await.unwrap();
    assert!(bench.job_finish("ship", "8", None).await.unwrap());
    assert_eq!(bench.job_look("ship", "8").await.unwrap(), Look::Gone);
    ear.says(bench, &["feed.publishes:ship 8|x", "feed.claimed:ship 8"]).await;
}

async fn a_known_job_is_not_put_again(bench: &mut Bench) {
    bench.job_put("q", "1", "a", false, 10).await.unwrap();
    assert_eq!(bench.job_put("q", "1", "b", false, 10).await.unwrap(), Put::Known);
    bench.job_get("q").await.unwrap();
    assert_eq!(bench.job_put("q", "1", "b", false, 10).await.unwrap(), Put::Known);
    bench.job_finish("q", "1", Some("r".into())).await.unwrap();
    assert_eq!(bench.job_put("q", "1", "b", false, 10).await.unwrap(), Put::Kept("r".into()));
    bench.holds("GET feed.publishes:q => 1\nEXISTS feed.ids:q feed.items:q => 0").await;
}

async fn a_long_queue_refuses(bench: &mut Bench) {
    assert_eq!(bench.job_put("q", "0", "x", false, 0).await.unwrap(), Put::Full);
    bench.holds("DBSIZE => 0").await;
    bench.job_put("q", "1", "x", false, 2).await.unwrap();
    bench.job_put("q", "2", "x", false, 2).await.unwrap();
    assert_eq!(bench.job_put("q", "3", "x", false, 2).await.unwrap(), Put::Full);
    assert_eq!(bench.job_put("q", "2", "x", false, 2).await.unwrap(), Put::Known);
    bench.job_get("q").await.unwrap();
    assert_eq!(bench.job_put("q", "3", "x", false, 2).await.unwrap(), Put::Queued);
    bench.holds("LRANGE feed.ids:q 0 -1 => 3 2").await;
}

async fn a_cancelled_job_comes_back_behind_the_others(bench: &mut Bench) {
    for id in ["1", "2"] {
        bench.job_put("q", id, "x", false, 10).await.unwrap();
    }
    bench.job_put("q", "0", "x", true, 10).await.unwrap();
    assert!(!bench.job_cancel("q", "0").await.unwrap(), "it is not claimed");
    assert_eq!(bench.job_get("q").await.unwrap().unwrap().id, "0", "it has priority");
    assert!(bench.job_cancel("q", "0").await.unwrap());
    assert_eq!(bench.job_look("q", "0").await.unwrap(), Look::Queued);
    assert_eq!(bench.job_get("q").await.unwrap().unwrap().id, "1");
    assert_eq!(bench.job_get("q").await.unwrap().unwrap().id, "2");
    let job = bench.job_get("q").await.unwrap().unwrap();
    assert_eq!((job.id.as_str(), job.cancelled), ("0", 1));
    bench.holds("HGETALL feed.cancelled:q => 0 1").await;
}

async fn stalled_jobs_rest_until_they_are_retried(bench: &mut Bench) {
    bench.job_put("q", "1", "x", false, 10).await.unwrap();
    assert!(!bench.job_stall("q", "1").await.unwrap(), "it is not claimed");
    bench.job_get("q").await.unwrap();
    assert!(bench.job_stall("q", "1").await.unwrap());
    assert_eq!(bench.job_look("q", "1").await.unwrap(), Look::Stalled);
    assert_eq!(bench.job_get("q").await.unwrap(), None);
    bench.holds("SMEMBERS feed.stalled:q => 1\nEXISTS feed.published:q feed.claimed:q => 0").await;
    assert!(bench.job_retry("q", "1").await.unwrap());
    assert!(!bench.job_retry("q", "1").await.unwrap());
    assert_eq!(bench.job_get("q").await.unwrap().unwrap().id, "1");
}

async fn ids_without_an_item_are_dropped(bench: &mut Bench) {
    let mut push = vec!["RPUSH".to_owned(), "feed.ids:q".to_owned()];
    push.extend((0..2_500).map(|number| format!("torn{number}")));
    bench.job_put("q", "1", "x", false, 10).await.unwrap();
    bench.raw(&push.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(bench.job_get("q").await.unwrap().unwrap().id, "1");
    bench.holds("EXISTS feed.ids:q => 0\nZCARD feed.claimed:q => 1").await;
}

async fn a_retracted_job_is_gone(bench: &mut Bench) {
    assert!(!bench.job_retract("q", "1").await.unwrap());
    bench.job_put("q", "1", "x", false, 10).await.unwrap();
    assert!(bench.job_retract("q", "1").await.unwrap());
    assert_eq!(bench.job_look("q", "1").await.unwrap(), Look::Gone);
    bench.holds("EXISTS feed.ids:q feed.items:q feed.published:q => 0").await;
}

async fn lost_jobs_are_put_back_in_the_second_pass(bench: &mut Bench) {
    for id in ["1", "2", "3", "4"] {
        bench.job_put("q", id, "x", false, 10).await.unwrap();
    }
    bench.job_get("q").await.unwrap();
    // Two workers of another make, between their pop and their claim.
    bench.lines("RPOP feed.ids:q\nRPOP feed.ids:q").await;
    let (back, mut suspects) = bench.job_maintain("q", Vec::new()).await.unwrap();
    suspects.sort();
    assert_eq!((back, suspects.as_slice()), (0, &[Bytes::from("2"), Bytes::from("3")][..]));
    bench.lines("ZADD feed.claimed:q 1 3").await;
    assert_eq!(bench.job_maintain("q", suspects).await.unwrap(), (1, Vec::new()));
    bench.holds("LRANGE feed.ids:q 0 -1 => 2 4").await;
}

async fn each_job_is_claimed_by_one(bench: &mut Bench) {
    for number in 0..100 {
        bench.job_put("q", &number.to_string(), "x", false, 1_000).await.unwrap();
    }
    let mut workers = JoinSet::new();
    for _ in 0..8 {
        let router = Arc::clone(&bench.router);
        workers.spawn(async move {
            let mut claimed = Vec::new();
            while let Some(job) = router.job_get("q").await.unwrap() {
                claimed.push(job.id.parse::<usize>().unwrap());
            }
            claimed
        });
    }
    let mut claimed: Vec<usize> = workers.join_all().await.into_iter().flatten().collect();
    claimed.sort_unstable();
    assert_eq!(claimed, (0..100).collect::<Vec<_>>());
}

async fn a_waiter_wakes_when_a_job_comes_and_takes_nothing(bench: &mut Bench) {
    let mut waiter = bench.waiter("q").unwrap();
    assert!(!waiter.wait(Duration::from_millis(100)).await.unwrap());
    let router = Arc::clone(&bench.router);
    let waiting = tokio::spawn(async move {
        let woken = waiter.wait(PATIENCE).await.unwrap();
        (woken, waiter)
    });
    router.job_put("q", "1", "x", false, 10).await.unwrap();
    let (woken, mut waiter) = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert!(woken);
    assert!(waiter.wait(PATIENCE).await.unwrap(), "it is still there");
    bench.holds("LRANGE feed.ids:q 0 -1 => 1").await;
    let refused = bench.waiter("");
    assert!(matches!(refused, Err(FeedError::BadName(_))));
}

async fn a_worker_answers_and_stops_clean(bench: &mut Bench) {
    let mut ear = bench.ear(&["job.finish:q"]).await;
    let stop = CancellationToken::new();
    let go = Arc::new(Notify::new());
    let (begun, mut has_begun) = mpsc::unbounded_channel();
    let handler = {
        let go = go.clone();
        move |job: shard_router::feed::Job| -> futures_util::future::BoxFuture<'static, Vec<u8>> {
            let (go, begun) = (go.clone(), begun.clone());
            Box::pin(async move {
                if job.id == "slow" {
                    begun.send(()).unwrap();
                    go.notified().await;
                }
                [b"did ", &*job.item].concat()
            })
        }
    };
    let worker = Worker::new(Arc::clone(&bench.router), "q", handler).concurrency(2);
    let working = tokio::spawn(worker.run(stop.clone()));

    bench.job_put("q", "slow", "s", false, 10).await.unwrap();
    timeout(PATIENCE, has_begun.recv()).await.unwrap();
    bench.job_put("q", "1", "a", false, 10).await.unwrap();
    ear.until(notice("job.finish:q", b"1\0did a")).await;
    stop.cancel();
    tokio::task::yield_now().await;
    assert!(!working.is_finished(), "it has a job");
    go.notify_one();
    timeout(PATIENCE, working).await.unwrap().unwrap().unwrap();
    ear.until(notice("job.finish:q", b"slow\0did s")).await;
    bench.job_put("q", "2", "b", false, 10).await.unwrap();
    assert_eq!(bench.job_look("q", "2").await.unwrap(), Look::Queued);
    assert_eq!(bench.job_look("q", "slow").await.unwrap(), Look::Kept("did s".into()));
}

async fn a_job_whose_handler_panics_is_answered_all_the_same(bench: &mut Bench) {
    let mut ear = bench.ear(&["job.finish:q"]).await;
    let stop = CancellationToken::new();
    let worker = Worker::new(Arc::clone(&bench.router), "q", |job| {
        assert_ne!(job.id, "bad", "this handler panics on purpose");
        Box::pin(async { b"fine".to_vec() })
    });
    let working = tokio::spawn(worker.run(stop.clone()));
    bench.job_put("q", "bad", "x", false, 10).await.unwrap();
    bench.job_put("q", "good", "x", false, 10).await.unwrap();
    let failed = b"bad\0{\"code\":500,\"error\":\"the worker failed\"}";
    ear.until(notice("job.finish:q", failed)).await;
    ear.until(notice("job.finish:q", b"good\0fine")).await;
    stop.cancel();
    timeout(PATIENCE, working).await.unwrap().unwrap().unwrap();
}

fn notice(channel: &'static str, payload: &'static [u8]) -> shard_router::shard::Heard {
    shard_router::shard::Heard::Notice {
        channel: Bytes::from_static(channel.as_bytes()),
        payload: Bytes::from_static(payload),
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_puts_lost_jobs_back() {
    let bench = Bench::memory();
    let mut ear = bench.ear(&["job.finish:q"]).await;
    bench.job_put("q", "1", "x", false, 10).await.unwrap();
    bench.holds("RPOP feed.ids:q => 1").await;
    let start = tokio::time::Instant::now();
    let stop = CancellationToken::new();
    let worker = Worker::new(Arc::clone(&bench.router), "q", |_| Box::pin(async { Vec::new() }));
    let working = tokio::spawn(worker.run(stop.clone()));
    ear.until(notice("job.finish:q", b"1\0")).await;
    assert!(start.elapsed() >= Duration::from_secs(20));
    stop.cancel();
    working.await.unwrap().unwrap();
}
