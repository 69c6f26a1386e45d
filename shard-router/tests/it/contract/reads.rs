//! Marked reads: what was read holds at its mark.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use shard_router::feed::{FeedType, Kind, Touched};
use tokio::task::JoinSet;

use super::{bench::Bench, versions::version};

super::promises! {
    a_read_finds_content_and_kind
    a_key_of_another_type_is_an_error_of_its_feed_and_marked
    what_was_read_holds_at_its_mark
    a_long_feed_is_read_whole
    settling_reads_what_was_touched
    verifying_computes_the_version_of_the_content
    verifying_leaves_out_ids_that_are_no_text
}

fn entries(all: &[(&str, &str)]) -> Vec<(String, Bytes)> {
    all.iter().map(|(id, item)| ((*id).to_owned(), Bytes::from((*item).to_owned()))).collect()
}

async fn a_read_finds_content_and_kind(bench: &mut Bench) {
    let content = bench.all("nothing").await.unwrap();
    assert_eq!((content.kind, content.entries.len()), (Kind::Unknown, 0));
    bench.create_feed("f", FeedType::Feed, None).await.unwrap();
    bench.create_feed("s", FeedType::SortedFeed, None).await.unwrap();
    assert_eq!(bench.all("f").await.unwrap().kind, Kind::Plain);
    assert_eq!(bench.all("s").await.unwrap().kind, Kind::Sorted);

    bench.lines("ZADD feed.ids:f 1 a 2 b 3 c\nHSET feed.items:f b B a A stray X").await;
    let content = bench.all("f").await.unwrap();
    assert_eq!(content.entries, entries(&[("a", "A"), ("b", "B")]));

    bench.lines("RPUSH feed.ids:s 3 1 3 4 2 1 a\\0b\nHSET feed.items:s 1 A 2 B 3 C a\\0b X").await;
    let content = bench.all("s").await.unwrap();
    assert_eq!(content.entries, entries(&[("3", "C"), ("1", "A"), ("2", "B")]));
    assert_eq!(content.bad_ids, 1);

    // The key decides, whatever the config says.
    bench.lines("HSET feed.config:f type sorted_feed").await;
    assert_eq!(bench.all("f").await.unwrap().kind, Kind::Plain);
    bench.lines("HSET feed.config:s type job").await;
    assert_eq!(bench.all("s").await.unwrap().kind, Kind::Sorted);
    bench.lines("HSET feed.items:torn a A").await;
    assert_eq!(bench.all("torn").await.unwrap().kind, Kind::Unknown);
    assert_eq!(bench.items("s").await.unwrap().len(), 3);
}

async fn a_key_of_another_type_is_an_error_of_its_feed_and_marked(bench: &mut Bench) {
    bench.lines("SET feed.ids:a x\nRPUSH feed.items:b x\nSADD feed.config:c x").await;
    let mut ear = bench.ear(&[]).await;
    for (feed, reason) in [
        ("a", "`feed.ids:a` is a string"),
        ("b", "`feed.items:b` is a list"),
        ("c", "`feed.config:c` is a set"),
    ] {
        let bad = bench.read(feed, "mark", feed).await.unwrap().unwrap_err();
        assert_eq!((bad.feed.as_str(), bad.reason.as_str()), (feed, reason));
        assert!(ear.until_mark(feed).await.is_empty());
    }
    let touched = ["a", "ok", "b"].map(|feed| Touched { feed: feed.to_owned(), ids: Vec::new() });
    let settled = bench.settle(0, touched.into(), "mark", "all").await.unwrap();
    assert_eq!(settled.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false]);
    ear.until_mark("all").await;
}

/// A mirror as simple as can be: notices behind the mark, applied to what was read.
async fn what_was_read_holds_at_its_mark(bench: &mut Bench) {
    let mut ear = bench.ear_on("f").await;
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let router = Arc::clone(&bench.router);
        writers.spawn(async move {
            for number in 0..100_u32 {
                let id = (number * 7 % 10).to_string();
                if number % 3 == 2 {
                    router.retract("f", &id).await.unwrap();
                } else {
                    let item = format!("{writer}.{number}");
                    router.publish("f", Some(&id), item).await.unwrap();
                }
            }
        });
    }
    let mut reads = Vec::new();
    for number in 0..30 {
        let nonce = format!("m{number}");
        let content = bench.read("f", "mark", nonce.clone()).await.unwrap().unwrap();
        reads.push((nonce, BTreeMap::from_iter(content.entries)));
        tokio::task::yield_now().await;
    }
    writers.join_all().await;

    let mut mirror: BTreeMap<String, Bytes> = BTreeMap::new();
    for (nonce, content) in reads {
        apply(&mut mirror, &ear.until_mark(&nonce).await);
        assert_eq!(mirror, content, "at mark {nonce}");
    }
    apply(&mut mirror, &ear.notices(bench).await);
    assert_eq!(mirror, BTreeMap::from_iter(bench.all("f").await.unwrap().entries));
}

fn apply(mirror: &mut BTreeMap<String, Bytes>, notices: &[String]) {
    for notice in notices {
        let (channel, payload) = notice.split_once(' ').unwrap();
        match (channel, payload.split_once('|')) {
            ("feed.publish:f" | "feed.edit:f", Some((id, item))) => {
                mirror.insert(id.to_owned(), Bytes::from(item.to_owned()));
            }
            ("feed.retract:f", None) => assert!(mirror.remove(payload).is_some(), "{payload}"),
            ("newfeed" | "conffeed", _) => {}
            _ => panic!("{notice:?} should not be said"),
        }
    }
}

async fn a_long_feed_is_read_whole(bench: &mut Bench) {
    let mut push = vec!["RPUSH".to_owned(), "feed.ids:s".to_owned()];
    let mut set = vec!["HSET".to_owned(), "feed.items:s".to_owned()];
    for number in 0..12_345 {
        push.push(number.to_string());
        set.extend([number.to_string(), format!("item {number}")]);
    }
    for command in [push, set] {
        bench.raw(&command.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let entries = bench.all("s").await.unwrap().entries;
    assert_eq!(entries.len(), 12_345);
    for (number, (id, item)) in entries.iter().enumerate() {
        assert_eq!(*id, number.to_string());
        assert_eq!(*item, format!("item {number}"));
    }
}

async fn settling_reads_what_was_touched(bench: &mut Bench) {
    bench.lines("ZADD feed.ids:f 1 a 2 b\nHSET feed.items:f a A stray X").await;
    bench.lines("RPUSH feed.ids:s 2 1 1\nHSET feed.items:s 1 A 9 X").await;
    bench.lines("HSET feed.items:torn a A\nHSET feed.config:torn type feed").await;
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let touched = vec![
        Touched { feed: "f".to_owned(), ids: ids(&["b", "a", "stray", "x"]) },
        Touched { feed: "s".to_owned(), ids: ids(&["9", "1"]) },
        Touched { feed: "none".to_owned(), ids: ids(&["1"]) },
        Touched { feed: "torn".to_owned(), ids: ids(&["a"]) },
        Touched { feed: "s".to_owned(), ids: ids(&[]) },
    ];
    let mut ear = bench.ear(&[]).await;
    let settled = bench.settle(0, touched, "mark", "n").await.unwrap();
    let settled: Vec<_> = settled.into_iter().map(|one| one.unwrap()).collect();
    ear.until_mark("n").await;
    let a = Some(Bytes::from_static(b"A"));
    let order: Option<Vec<Bytes>> = Some(["2", "1", "1"].map(Bytes::from).into());
    assert_eq!(settled[0].items, [None, a.clone(), None, None]);
    assert_eq!((settled[0].kind, &settled[0].order), (Kind::Plain, &None));
    assert_eq!(settled[1].items, [None, a]);
    assert_eq!((settled[1].kind, &settled[1].order), (Kind::Sorted, &order));
    assert_eq!((settled[2].kind, &settled[2].items[..]), (Kind::Unknown, &[None][..]));
    assert_eq!((settled[3].kind, &settled[3].items[..]), (Kind::Plain, &[None][..]));
    assert_eq!(settled[4].order, order);
}

async fn verifying_computes_the_version_of_the_content(bench: &mut Bench) {
    for number in 0..50 {
        bench.publish("f", None, format!("item {number}")).await.unwrap();
        bench.prepend("s", Bytes::from(vec![number, 0, 255])).await.unwrap();
    }
    bench.lines("RPUSH feed.ids:s torn 7 7\nHSET feed.items:s stray x\nSET feed.ids:bad x").await;
    bench.create_feed("empty", FeedType::SortedFeed, None).await.unwrap();
    let feeds = ["f", "none", "bad", "s", "empty"].map(str::to_owned);
    let mut ear = bench.ear(&[]).await;
    let checked = bench.verify(0, &feeds, "mark", "n").await.unwrap();
    ear.until_mark("n").await;
    for (feed, checked) in feeds.iter().zip(checked) {
        match bench.all(feed).await {
            Ok(content) => {
                let checked = checked.unwrap();
                assert_eq!((checked.kind, checked.version), (content.kind, version(&content)));
            }
            Err(_) => assert_eq!(checked.unwrap_err().reason, "`feed.ids:bad` is a string"),
        }
    }
    let empty = bench.verify(0, &feeds[1..2], "mark", "n").await.unwrap().remove(0).unwrap();
    assert_eq!(empty.version, "0".repeat(24));
}

async fn verifying_leaves_out_ids_that_are_no_text(bench: &mut Bench) {
    let ids: &[&[u8]] = &[
        b"plain",
        b"nul\0in",
        "é€😀\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}\u{d7ff}\u{e000}".as_bytes(),
        b"\xff",
        b"\x80",
        b"a\xc3",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xe0\xa0\x80",
        b"\xed\xa0\x80",
        b"\xef\xbf\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xe2\x82",
        b"\xe2\x28\xa1",
        b"",
    ];
    for id in ids {
        bench.raw_bytes(&[b"RPUSH", b"feed.ids:s", id]).await;
        bench.raw_bytes(&[b"HSET", b"feed.items:s", id, b"x"]).await;
    }
    let content = bench.all("s").await.unwrap();
    let text = ids.iter().filter(|id| std::str::from_utf8(id).is_ok_and(|id| !id.contains('\0')));
    assert_eq!(content.entries.len(), text.count());
    assert_eq!(content.entries.len() + content.bad_ids, ids.len());
    let checked = bench.verify(0, &["s".to_owned()], "mark", "n").await.unwrap().remove(0);
    assert_eq!(checked.unwrap().version, version(&content));
}
