//! Feeds that move from shard to shard while they are followed.

use bytes::Bytes;
use shard_router::{feed::Kind, router::Adopted, shard::Heard};

use super::bench::{Bench, MARKS, content, settled};
use crate::mirror::keeper::{Answer, Effect};

/// A topology of shards `one`, `two` and perhaps more, these opened and these closed.
fn adopted(names: &[&str], opened: &[usize], closed: &[usize]) -> Adopted {
    Adopted {
        version: 2,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        opened: opened.to_vec(),
        closed: closed.to_vec(),
    }
}

impl Bench {
    fn retopology(&mut self, adopted: &Adopted, owner: impl Fn(&str) -> usize) -> usize {
        self.keeper.retopology(adopted, owner, self.now)
    }

    fn notice_of(&mut self, shard: usize, channel: &str, payload: &str) {
        let channel = Bytes::copy_from_slice(channel.as_bytes());
        self.heard(shard, Heard::Notice { channel, payload: Bytes::from(payload.to_owned()) });
    }

    /// Takes the ticket of the one subscription, and the shards that are left.
    #[track_caller]
    fn moves(&mut self) -> ((usize, u64), Vec<usize>) {
        let (mut subscribed, mut left) = (Vec::new(), Vec::new());
        for effect in self.keeper.effects() {
            match effect {
                Effect::Subscribe { shard, ticket, .. } => subscribed.push((shard, ticket)),
                Effect::Unsubscribe { shard, .. } => left.push(shard),
                other => panic!("{other:?} was not expected"),
            }
        }
        assert_eq!(subscribed.len(), 1, "{subscribed:?}");
        (subscribed[0], left)
    }

    fn read_of(&mut self, shard: usize, feed: &str) -> u64 {
        match &self.keeper.effects()[..] {
            [Effect::Read { shard: of, feed: asked, nonce }]
                if *of == shard && **asked == *feed =>
            {
                *nonce
            }
            other => panic!("{other:?} is no read of {feed} on {shard}"),
        }
    }
}

#[test]
fn a_feed_that_moves_stays_as_it_is_until_it_is_read_where_it_is_now() {
    let mut bench = Bench::up();
    bench.fill("f", content(Kind::Plain, "1=a 2=a"));
    bench.fill("g", content(Kind::Plain, "1=a"));
    bench.keeper.effects();
    let owner = |feed: &str| usize::from(feed == "f") * 2;
    let third = adopted(&["one", "two", "three"], &[2], &[]);
    assert_eq!(bench.retopology(&third, owner), 1, "what stays is not read");

    // The new shard is not heard yet, and the old one has no say any more.
    let ((shard, ticket), left) = bench.moves();
    assert_eq!((shard, &left[..]), (2, &[0][..]));
    bench.notice_of(0, "feed.retract:f", "1");
    bench.notice_of(0, "delfeed", "f\0me");
    bench.notice_of(2, "feed.edit:f", "1\0b");
    assert_eq!(bench.pass(2_000, false), []);
    bench.heard(2, Heard::Up);
    assert_eq!(bench.outs(), ["shard 2 true"]);

    bench.heard(2, Heard::Confirmed { ticket });
    let nonce = bench.read_of(2, "f");
    bench.notice_of(2, "feed.edit:f", "1\0early");
    bench.outs();
    bench.notice_of(2, MARKS, &nonce.to_string());
    bench.notice_of(2, "feed.publish:f", "9\0z");
    bench.answer(nonce, Answer::Full(content(Kind::Plain, "1=early 3=c")));
    assert_eq!(bench.outs(), ["retract f 2", "publish f 3", "publish f 9"]);
    assert_eq!((bench.held("f").as_str(), bench.held("g").as_str()), ("1=early 3=c 9=z", "1=a"));
}

#[test]
fn an_answer_of_the_old_shard_comes_to_nobody() {
    for is_marked in [false, true] {
        let mut bench = Bench::up();
        bench.want("f");
        let (_, nonce) = bench.read();
        if is_marked {
            bench.mark(nonce);
        }
        bench.retopology(&adopted(&["one", "two"], &[], &[]), |_| 1);
        let ((shard, ticket), left) = bench.moves();
        assert_eq!((shard, &left[..]), (1, &[0][..]));
        bench.answer(nonce, Answer::Full(content(Kind::Plain, "1=old")));
        bench.mark(nonce);
        assert!(bench.outs().is_empty());
        assert!(bench.keeper.mirror("f").is_none());

        bench.heard(1, Heard::Confirmed { ticket });
        let nonce = bench.read_of(1, "f");
        bench.notice_of(1, MARKS, &nonce.to_string());
        bench.answer(nonce, Answer::Full(content(Kind::Plain, "1=new")));
        assert_eq!(bench.outs(), ["filled f"]);
        assert_eq!(bench.held("f"), "1=new");
        assert!(bench.pass(5_000, false).is_empty(), "nothing is left of the old read");
    }
}

#[test]
fn a_shard_that_is_elsewhere_now_is_read_anew_behind_its_new_connection() {
    let mut bench = Bench::up();
    bench.fill("f", content(Kind::Plain, "1=a"));
    bench.notice("feed.edit:f", "1\0b");
    bench.keeper.effects();
    assert_eq!(bench.outs(), ["change f 1"]);
    assert_eq!(bench.retopology(&adopted(&["one", "two"], &[0], &[]), |_| 0), 1);
    assert_eq!(bench.outs(), ["shard 0 false"]);
    let ((shard, ticket), left) = bench.moves();
    assert_eq!((shard, left.len()), (0, 0), "the old connection is gone with all it had");
    assert!(bench.pass(3_000, false).is_empty(), "what was touched there is not asked about here");

    bench.heard(0, Heard::Up);
    assert_eq!(bench.outs(), ["shard 0 true"]);
    bench.heard(0, Heard::Confirmed { ticket });
    let nonce = bench.read_of(0, "f");
    bench.mark(nonce);
    bench.answer(nonce, Answer::Full(content(Kind::Plain, "1=c")));
    assert_eq!(bench.outs(), ["change f 1"]);
}

#[test]
fn a_shard_that_is_gone_is_counted_no_more_and_may_come_back() {
    let mut bench = Bench::up();
    bench.fill("f", content(Kind::Plain, "1=a"));
    bench.keeper.effects();
    bench.retopology(&adopted(&["one", "two"], &[], &[0]), |_| 1);
    assert_eq!(bench.outs(), ["shard 0 false"]);
    let ((shard, ticket), left) = bench.moves();
    assert_eq!((shard, left.len()), (1, 0));
    let names: Vec<_> = bench.keeper.subscriptions().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["two"]);

    // Before it was ever read there, the feed goes back.
    bench.retopology(&adopted(&["one", "two"], &[0], &[]), |_| 0);
    bench.heard(1, Heard::Confirmed { ticket });
    let ((shard, ticket), left) = bench.moves();
    assert_eq!((shard, &left[..]), (0, &[1][..]));
    bench.heard(0, Heard::Up);
    bench.heard(0, Heard::Confirmed { ticket });
    let nonce = bench.read_of(0, "f");
    bench.mark(nonce);
    bench.answer(nonce, Answer::Full(content(Kind::Plain, "1=a")));
    assert_eq!(bench.outs(), ["shard 0 true"], "nothing differs, so nothing is sent");
    assert_eq!(bench.keeper.subscriptions().len(), 2);
}

#[test]
fn an_item_of_a_shared_feed_moves_like_a_feed() {
    let mut bench = Bench::up();
    bench.keeper.want_item(&"teams".into(), "red", 0, bench.now);
    let (asked, nonce) = bench.read();
    assert_eq!(asked, "teams:red");
    bench.mark(nonce);
    bench.answer(nonce, settled(&[Some("a")]));
    assert_eq!(bench.outs(), ["filled teams/red"]);

    bench.retopology(&adopted(&["one", "two"], &[], &[]), |_| 1);
    let ((_, ticket), _) = bench.moves();
    bench.notice_of(0, "feed.retract:teams", "red");
    bench.heard(1, Heard::Confirmed { ticket });
    let (asked, nonce) = bench.read();
    assert_eq!(asked, "teams:red");
    bench.notice_of(1, MARKS, &nonce.to_string());
    bench.answer(nonce, settled(&[Some("b")]));
    assert_eq!(bench.outs(), ["item teams/red"]);
}

#[test]
fn a_read_that_waits_for_its_turn_is_made_where_the_feed_is_by_then() {
    let mut bench = Bench::up();
    for number in 0..100 {
        bench.want(&format!("f{number}"));
    }
    let before = bench.reads();
    assert!(before.len() < 100, "some wait for their turn");
    assert_eq!(bench.retopology(&adopted(&["one", "two"], &[], &[]), |_| 1), 100);
    let mut read = 0;
    let mut asked = bench.asked();
    for (_, nonce) in before {
        bench.mark(nonce);
        bench.answer(nonce, Answer::Full(content(Kind::Plain, "1=old")));
    }
    loop {
        asked.extend(bench.asked());
        let reads: Vec<u64> = asked
            .iter()
            .filter_map(|effect| match effect {
                Effect::Read { shard, nonce, .. } => {
                    assert_eq!(*shard, 1);
                    Some(*nonce)
                }
                _ => None,
            })
            .collect();
        asked.clear();
        if reads.is_empty() {
            break;
        }
        read += reads.len();
        for nonce in reads {
            bench.notice_of(1, MARKS, &nonce.to_string());
            bench.answer(nonce, Answer::Full(content(Kind::Plain, "1=new")));
        }
    }
    assert_eq!(read, 100);
    assert!((0..100).all(|number| bench.held(&format!("f{number}")) == "1=new"));
}
