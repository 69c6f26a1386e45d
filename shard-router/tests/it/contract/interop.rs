//! Beside Thoonk.py 1.0.1: its commands, in its order, read by us, and ours read as it does.

use bytes::Bytes;
use shard_router::feed::{Kind, Look};

use super::bench::Bench;

super::promises! {
    a_feed_written_by_thoonk_py_reads_as_it_should
    a_sorted_feed_written_by_thoonk_py_is_continued
    a_job_put_by_thoonk_py_is_done_here
    a_job_put_here_is_done_by_thoonk_py
    a_feed_deleted_by_thoonk_py_is_empty
}

async fn a_feed_written_by_thoonk_py_reads_as_it_should(bench: &mut Bench) {
    let mut ear = bench.ear_on("f").await;
    bench
        .lines(
            "SADD feeds f
             HSET feed.config:f max_length 2
             HSET feed.config:f type feed
             PUBLISH newfeed f\\0py
             PUBLISH conffeed f\\0py
             ZADD feed.ids:f 1700000000.25 a
             INCR feed.publishes:f
             HSET feed.items:f a 1
             PUBLISH feed.publish:f a\\01
             ZADD feed.ids:f 1700000001.5 b
             INCR feed.publishes:f
             HSET feed.items:f b 2
             PUBLISH feed.publish:f b\\02",
        )
        .await;
    assert_eq!(bench.all("f").await.unwrap().kind, Kind::Plain);
    assert_eq!(bench.ids("f").await.unwrap(), ["a", "b"]);
    bench.publish("f", Some("c"), "3").await.unwrap();
    ear.says(
        bench,
        &[
            "newfeed f|py",
            "conffeed f|py",
            "feed.publish:f a|1",
            "feed.publish:f b|2",
            "feed.retract:f a",
            "feed.publish:f c|3",
        ],
    )
    .await;
    bench.holds("ZRANGE feed.ids:f 0 -1 => b c\nGET feed.publishes:f => 3").await;
}

async fn a_sorted_feed_written_by_thoonk_py_is_continued(bench: &mut Bench) {
    bench
        .lines(
            "INCR feed.idincr:s
             RPUSH feed.ids:s 1
             INCR feed.publishes:s
             HSET feed.items:s 1 a
             INCR feed.idincr:s
             LINSERT feed.ids:s BEFORE 1 2
             HSET feed.items:s 2 b",
        )
        .await;
    assert_eq!(bench.append("s", "c").await.unwrap(), "3");
    assert_eq!(bench.ids("s").await.unwrap(), ["2", "1", "3"]);
    bench.holds("HGET feed.config:s type => sorted_feed\nSISMEMBER feeds s => 1").await;
}

async fn a_job_put_by_thoonk_py_is_done_here(bench: &mut Bench) {
    bench
        .lines(
            "SADD feeds q
             HSET feed.config:q type job
             LPUSH feed.ids:q 0a
             INCR feed.publishes:q
             HSET feed.items:q 0a work
             ZADD feed.published:q 1700000000000 0a",
        )
        .await;
    assert_eq!(bench.job_look("q", "0a").await.unwrap(), Look::Queued);
    let job = bench.job_get("q").await.unwrap().unwrap();
    assert_eq!((job.id.as_str(), &*job.item), ("0a", &b"work"[..]));
    assert!(job.age.unwrap().as_secs() > 1_000_000);
    let mut ear = bench.ear_on("q").await;
    assert!(bench.job_finish("q", "0a", Some("ok".into())).await.unwrap());
    ear.says(bench, &["job.finish:q 0a|ok"]).await;
}

async fn a_job_put_here_is_done_by_thoonk_py(bench: &mut Bench) {
    bench.job_put("q", "1", "work", false, 10).await.unwrap();
    // Its BRPOP comes before its claim: in between the job is nowhere, and still known.
    bench.holds("RPOP feed.ids:q => 1").await;
    assert_eq!(bench.job_look("q", "1").await.unwrap(), Look::Queued);
    bench
        .holds(
            "ZADD feed.claimed:q 1700000000000 1 => 1
             HGET feed.items:q 1 => work
             HGET feed.cancelled:q 1 =>",
        )
        .await;
    assert_eq!(bench.job_look("q", "1").await.unwrap(), Look::Claimed);
    let mut ear = bench.ear_on("q").await;
    bench
        .lines(
            "ZREM feed.claimed:q 1
             HDEL feed.cancelled:q 1
             ZREM feed.published:q 1
             INCR feed.finishes:q
             PUBLISH job.finish:q 1\\0ok
             HDEL feed.items:q 1",
        )
        .await;
    ear.says(bench, &["job.finish:q 1|ok"]).await;
    assert_eq!(bench.job_look("q", "1").await.unwrap(), Look::Gone);
}

async fn a_feed_deleted_by_thoonk_py_is_empty(bench: &mut Bench) {
    bench.publish("f", Some("a"), "1").await.unwrap();
    bench
        .lines(
            "SREM feeds f
             DEL feed.ids:f feed.items:f feed.publish:f feed.publishes:f feed.retract:f
             DEL feed.config:f feed.edit:f
             PUBLISH delfeed f\\0py",
        )
        .await;
    let content = bench.all("f").await.unwrap();
    assert_eq!((content.kind, content.entries), (Kind::Unknown, Vec::<(String, Bytes)>::new()));
    assert!(bench.publish("f", Some("a"), "1").await.unwrap().created);
}
