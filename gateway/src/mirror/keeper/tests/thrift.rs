//! How little is asked.

use std::sync::Arc;

use bytes::Bytes;
use shard_router::{
    feed::{Kind, Settled},
    shard::Heard,
};

use super::bench::{Bench, content, settled};
use crate::mirror::keeper::{Answer, Effect, reading};

#[test]
fn a_shard_is_asked_so_much_at_once_and_no_more() {
    let mut bench = Bench::up();
    let count = reading::READS_AT_ONCE * 3;
    for feed in 0..count {
        bench.want(&format!("f{feed}"));
    }
    let mut open: Vec<(String, u64)> = bench.reads();
    let mut filled = 0;
    while let Some((_, nonce)) = open.pop() {
        assert!(open.len() < reading::READS_AT_ONCE);
        bench.mark(nonce);
        bench.answer(nonce, Answer::Full(content(Kind::Plain, "1=a")));
        filled += bench.outs().len();
        open.extend(bench.reads());
    }
    assert_eq!(filled, count);

    // Settling has a few places of its own, and no more.
    for feed in 0..count {
        bench.notice(&format!("feed.edit:f{feed}"), "1\0b");
        bench.notice(&format!("feed.position:f{feed}"), "1\0begin:");
    }
    let asked = bench.pass(10_000, false);
    assert!(asked.len() <= reading::READS_AT_ONCE, "{}", asked.len());
}

#[test]
fn many_ids_of_one_feed_are_asked_in_parts() {
    let mut bench = Bench::up();
    let feed: Arc<str> = "teams".into();
    for id in 0..reading::SETTLE_IDS + 5 {
        bench.keeper.want_item(&feed, &id.to_string(), 0, bench.now);
    }
    let mut known = 0;
    for expected in [reading::SETTLE_IDS, 5] {
        let asked = bench.asked();
        let [Effect::Settle { touched, nonce, .. }] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!(touched[0].ids.len(), expected);
        bench.mark(*nonce);
        bench.answer(*nonce, settled(&vec![Some("{}"); expected]));
        known += bench.outs().len();
    }
    assert_eq!(known, reading::SETTLE_IDS + 5);
    bench.keeper.want_item(&feed, "new", 0, bench.now);
    assert_eq!(bench.read().0, "teams:new", "what is known is not asked again");
}

#[test]
fn doubts_are_read_once_a_second() {
    let mut bench = Bench::up();
    bench.fill("f", content(Kind::Sorted, "1=a"));
    let mut times = Vec::new();
    for round in 0..50_u64 {
        bench.notice("feed.position:f", "9\0:1");
        for (passed, effect) in bench.pass(100, false) {
            let Effect::Read { nonce, .. } = effect else { panic!("{effect:?}") };
            times.push(round * 100 + passed);
            bench.mark(nonce);
            bench.answer(nonce, Answer::Full(content(Kind::Sorted, "1=a")));
        }
    }
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 1_000), "{times:?}");
    assert!((4..=5).contains(&times.len()), "{times:?}");
}

#[test]
fn what_is_heard_before_a_mark_needs_no_second_read() {
    let mut bench = Bench::up();
    bench.fill("f", content(Kind::Sorted, "1=a"));
    bench.pass(1_000, false);
    bench.notice("feed.position:f", "9\0:1");
    let (_, nonce) = bench.read();
    bench.notice("feed.edit:f", "1\0b");
    bench.notice("feed.position:f", "9\0:1");
    bench.mark(nonce);
    bench.answer(nonce, Answer::Full(content(Kind::Sorted, "9=c 1=b")));
    assert_eq!(bench.outs(), ["change f 1", "publish f 9"]);
    assert_eq!(bench.pass(10_000, false), []);

    let mut bench = Bench::up();
    bench.fill("f", content(Kind::Plain, "1=a"));
    bench.notice("feed.edit:f", "1\0b");
    let effects = bench.pass(1_000, false);
    let [(_, Effect::Settle { nonce, .. })] = effects[..] else { panic!("{effects:?}") };
    bench.notice("feed.edit:f", "1\0c");
    bench.mark(nonce);
    bench.answer(nonce, settled(&[Some("c")]));
    assert_eq!(bench.pass(10_000, false), []);
}

#[test]
fn a_settling_read_that_fails_behind_its_mark_forgets_nothing() {
    let mut bench = Bench::up();
    bench.fill("f", content(Kind::Plain, "1=a"));
    bench.notice("feed.edit:f", "1\0b");
    let effects = bench.pass(1_000, false);
    let [(_, Effect::Settle { nonce, .. })] = effects[..] else { panic!("{effects:?}") };
    bench.mark(nonce);
    bench.notice("feed.publish:f", "2\0b");
    bench.fail(nonce);
    assert_eq!(bench.outs(), ["change f 1", "publish f 2"]);
    let effects = bench.pass(5_000, false);
    let [(2_000, Effect::Settle { touched, .. })] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(touched[0].ids, ["1", "2"]);
}

#[test]
fn a_place_in_the_queue_ends_with_the_feed_that_had_it() {
    let mut bench = Bench::up();
    let feed: Arc<str> = "teams".into();
    for other in 0..reading::READS_AT_ONCE {
        bench.want(&format!("f{other}"));
    }
    let open = bench.reads();
    bench.keeper.want_item(&feed, "1", 0, bench.now);
    assert_eq!(bench.reads(), []);
    bench.keeper.unwant_item(&feed, "1", bench.now);
    bench.pass(60_000, false);
    bench.keeper.want_item(&feed, "1", 0, bench.now);
    for (_, nonce) in open {
        bench.mark(nonce);
        bench.answer(nonce, Answer::Full(content(Kind::Plain, "1=a")));
    }
    let effects = bench.keeper.effects();
    let tickets: Vec<u64> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Subscribe { ticket, .. } => Some(*ticket),
            _ => None,
        })
        .collect();
    let is_read = |effect: &Effect| matches!(effect, Effect::Settle { .. });
    assert!(!effects.iter().any(is_read), "what is not subscribed is not read");
    bench.heard(0, Heard::Confirmed { ticket: tickets[0] });
    assert_eq!(bench.read().0, "teams:1");
}

#[test]
fn a_feed_with_very_many_touched_items_is_read_whole() {
    let mut bench = Bench::up();
    bench.fill("f", content(Kind::Plain, ""));
    for id in 0..=reading::SETTLE_IDS {
        bench.notice("feed.publish:f", format!("{id}\0a"));
    }
    let effects = bench.pass(1_500, false);
    assert!(matches!(effects[..], [(_, Effect::Read { .. })]), "{effects:?}");
}

#[test]
fn an_item_that_comes_to_be_wanted_does_not_wait_for_the_pause_of_doubts() {
    let mut bench = Bench::up();
    let feed: Arc<str> = "teams".into();
    bench.keeper.want_item(&feed, "1", 0, bench.now);
    let (_, nonce) = bench.read();
    bench.mark(nonce);
    bench.answer(nonce, settled(&[Some("{}")]));
    bench.notice("delfeed", "teams\0me");
    assert_eq!(bench.reads(), [], "the doubt waits");
    bench.keeper.want_item(&feed, "2", 0, bench.now);
    let effects = bench.pass(100, false);
    let [(_, Effect::Settle { touched, nonce, .. })] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(touched[0].ids, ["2"]);
    bench.mark(*nonce);
    bench.answer(*nonce, settled(&[None]));
    assert_eq!(bench.outs(), ["filled teams/1", "filled teams/2"]);
    let effects = bench.pass(1_000, false);
    let [(_, Effect::Settle { touched, .. })] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(touched[0].ids, ["1", "2"]);
}

#[test]
fn an_id_that_is_listed_without_an_item_costs_no_whole_reads() {
    let mut bench = Bench::up();
    bench.fill("f", content(Kind::Sorted, "1=a 2=b"));
    let order = |ids: &[&'static str]| {
        Some(ids.iter().map(|id| Bytes::from_static(id.as_bytes())).collect::<Vec<_>>())
    };
    let listed = ["1", "orphan", "2", "come"];
    let mut asked = Vec::new();
    for round in 0..3 {
        bench.notice("feed.publish:f", format!("1\0{round}"));
        for (_, effect) in bench.pass(1_500, false) {
            let Effect::Settle { touched, nonce, .. } = effect else { panic!("{effect:?}") };
            asked.push(touched[0].ids.join(" "));
            let item = |id: &String| match id.as_str() {
                "orphan" => None,
                id => Some(Bytes::from(format!("{id}{round}"))),
            };
            let items = touched[0].ids.iter().map(item).collect();
            let found = Settled { kind: Kind::Sorted, items, order: order(&listed) };
            bench.mark(nonce);
            bench.answer(nonce, Answer::Settled(found));
        }
    }
    assert_eq!(asked, ["1", "1 come orphan", "1 orphan"]);
    assert_eq!(bench.held("f"), "1=12 2=b come=come1");
}
