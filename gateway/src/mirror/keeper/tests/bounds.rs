//! What is held when there is too much.

use shard_router::feed::{BadFeed, Kind};

use super::bench::{Bench, content, settings};
use crate::mirror::keeper::{Answer, Effect, Settings};

/// A keeper whose feeds may have four small items, and eight in all.
fn small() -> Bench {
    Bench::up_with(Settings { max_bytes: 8 * 196, max_feed_bytes: 4 * 196, ..settings() })
}

const LARGE: &str = "1=a 2=a 3=a 4=a 5=a";

/// Answers the read that is asked for.
#[track_caller]
fn answer(bench: &mut Bench, kind: Kind, text: &str) {
    let (_, nonce) = bench.read();
    bench.mark(nonce);
    bench.answer(nonce, Answer::Full(content(kind, text)));
}

#[test]
fn a_feed_that_is_too_large_is_told_and_then_passed_through() {
    let mut bench = small();
    bench.fill("f", content(Kind::Plain, LARGE));
    assert!(bench.keeper.is_passed("f") && bench.keeper.mirror("f").is_some());
    assert_eq!(bench.keeper.version("f"), None);
    assert_eq!(bench.keeper.size().1, 0, "it is not mirrored");
    bench.notice("feed.edit:f", "1\0a");
    bench.notice("feed.edit:f", "1\0b");
    assert_eq!(bench.outs(), ["pass change f 1"], "what is at hand is followed");
    bench.pass(3_000, false);
    assert_eq!(bench.outs(), ["emptied f"]);
    assert!(bench.keeper.mirror("f").is_none());
    for notice in ["publish:f 6=b", "edit:f 9=b", "publish:f 6=b"] {
        let (channel, payload) = notice.split_once(' ').expect("has both");
        bench.notice(&format!("feed.{channel}"), payload.replace('=', "\0"));
    }
    bench.notice("feed.retract:f", "7");
    let expected = ["publish f 6", "change f 9", "publish f 6", "retract f 7"];
    assert_eq!(bench.outs(), expected.map(|out| format!("pass {out}")), "unchecked");
    assert_eq!(bench.pass(20_000, false), [], "nothing is settled or compared");

    // Who comes has it read, once for all who come meanwhile.
    bench.keeper.fetch("f", bench.now);
    bench.want("f");
    answer(&mut bench, Kind::Plain, LARGE);
    assert_eq!(bench.outs(), ["filled f"], "the others are told nothing");
}

#[test]
fn halves_of_a_sorted_feed_that_is_passed_through_meet() {
    let mut bench = small();
    bench.fill("f", content(Kind::Sorted, LARGE));
    bench.pass(3_000, false);
    bench.outs();
    bench.notice("feed.publish:f", "6\0a");
    bench.notice("feed.position:f", "6\0:1");
    bench.notice("feed.publish:f", "1\0b");
    bench.notice("feed.position:f", "2\0:end");
    assert_eq!(bench.outs(), ["pass publish f 6 :1", "pass change f 1", "pass position f 2 :end"]);
    bench.notice("feed.publish:f", "1\0c");
    assert_eq!(bench.outs(), [""; 0], "its place may come next");
    bench.pass(1_000, false);
    assert_eq!(bench.outs(), ["pass change f 1"], "behind a mark it cannot");
    bench.notice("feed.publish:f", "7\0c");
    bench.lost(0);
    bench.outs();
    bench.heard(0, shard_router::shard::Heard::Up);
    answer(&mut bench, Kind::Sorted, LARGE);
    assert_eq!(bench.outs(), ["shard 0 true", "filled f", "reset f"]);
}

#[test]
fn after_a_doubt_a_feed_that_is_passed_through_is_told_anew_once() {
    for doubt in [("delfeed", "f\0me"), ("feed.edit:f", "no nul"), ("feed.position:f", "1\0:2")] {
        let mut bench = small();
        bench.fill("f", content(Kind::Plain, LARGE));
        bench.pass(3_000, false);
        bench.outs();
        bench.notice(doubt.0, doubt.1);
        let (_, nonce) = bench.read();
        // A read that fails, or finds a wrong type, leaves the doubt.
        bench.mark(nonce);
        bench.fail(nonce);
        let effects = bench.pass(2_000, false);
        let [(_, Effect::Read { nonce, .. })] = effects[..] else { panic!("{effects:?}") };
        bench.mark(nonce);
        let bad = BadFeed { feed: "f".to_owned(), reason: "a set".to_owned() };
        bench.keeper.answered(nonce, Ok(vec![Err(bad)]), bench.now);
        let effects = bench.pass(2_000, false);
        let [(_, Effect::Read { nonce, .. })] = effects[..] else { panic!("{effects:?}") };
        bench.mark(nonce);
        bench.notice("feed.edit:f", "1\0c");
        bench.answer(nonce, Answer::Full(content(Kind::Plain, LARGE)));
        assert_eq!(bench.outs(), ["filled f", "reset f", "pass change f 1"], "{doubt:?}");
        bench.pass(4_000, false);
        assert_eq!(bench.outs(), ["emptied f"]);
    }
}

#[test]
fn a_feed_that_grows_is_passed_through_without_a_word_and_comes_back() {
    let mut bench = small();
    bench.fill("f", content(Kind::Plain, "1=a 2=a 3=a 4=a"));
    bench.notice("feed.publish:f", "5\0a");
    assert_eq!(bench.outs(), ["publish f 5"]);
    assert!(bench.keeper.is_passed("f"));
    bench.notice("feed.retract:f", "5");
    assert_eq!(bench.outs(), ["pass retract f 5"]);
    let effects = bench.pass(3_000, false);
    let [(_, Effect::Settle { nonce, .. })] = effects[..] else { panic!("{effects:?}") };
    bench.mark(nonce);
    bench.answer(nonce, super::bench::settled(&[None]));
    bench.pass(100, false);
    assert_eq!(bench.outs(), ["emptied f"], "when it was settled");
    bench.keeper.fetch("f", bench.now);
    answer(&mut bench, Kind::Plain, "1=a 2=a 3=a");
    assert_eq!(bench.outs(), ["filled f", "reset f"], "its version is known again");
    assert!(bench.keeper.version("f").is_some() && !bench.keeper.is_passed("f"));
    assert_eq!(bench.held("f"), "1=a 2=a 3=a");
}

#[test]
fn mirrors_without_clients_go_first_and_those_longest_without_before_others() {
    let mut bench = small();
    for feed in ["old", "new", "used"] {
        bench.fill(feed, content(Kind::Plain, "1=a 2=a"));
    }
    bench.keeper.unwant(&"old".into(), bench.now);
    bench.pass(100, false);
    bench.keeper.unwant(&"new".into(), bench.now);
    bench.fill("more", content(Kind::Plain, "1=a 2=a 3=a"));
    assert!(bench.keeper.mirror("old").is_none(), "long before it has lingered");
    assert!(bench.keeper.mirror("new").is_some() && bench.keeper.mirror("used").is_some());
    bench.fill("last", content(Kind::Plain, "1=a 2=a 3=a"));
    assert!(bench.keeper.mirror("new").is_none());
    assert!(!bench.keeper.is_passed("last"));
    // Now everything has clients.
    bench.fill("over", content(Kind::Plain, "1=a"));
    assert!(bench.keeper.is_passed("over") && !bench.keeper.is_passed("used"));
    assert!(bench.keeper.size().1 <= 8 * 196);
    bench.fill("empty", content(Kind::Plain, ""));
    assert!(!bench.keeper.is_passed("empty"), "what takes nothing is held");
}

#[test]
fn large_feeds_are_not_read_all_at_once() {
    let mut bench = Bench::up();
    let large = content(Kind::Plain, &format!("1={}", "x".repeat(12 << 20)));
    for feed in 0..5 {
        bench.fill(&format!("f{feed}"), large.clone());
    }
    bench.lost(0);
    bench.heard(0, shard_router::shard::Heard::Up);
    let mut open = bench.reads();
    assert_eq!(open.len(), 2, "as many as are known to be few enough");
    let mut read = 0;
    while let Some((_, nonce)) = open.pop() {
        bench.mark(nonce);
        bench.answer(nonce, Answer::Full(large.clone()));
        read += 1;
        open.extend(bench.reads());
        assert!(open.len() <= 2);
    }
    assert_eq!(read, 5);
}
