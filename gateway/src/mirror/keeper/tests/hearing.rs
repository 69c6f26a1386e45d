//! Who hears, who does not, and whose fault it is.

use shard_router::{
    feed::Kind,
    shard::{Heard, ShardError},
};

use super::bench::{Bench, content};
use crate::mirror::keeper::{Answer, Effect};

#[test]
fn a_deaf_connection_is_given_up_once_and_in_time() {
    let mut bench = Bench::up();
    let resets = bench.pass(9_000, true);
    let (times, resets): (Vec<u64>, Vec<Effect>) = resets.into_iter().unzip();
    assert!(times.iter().all(|time| *time <= 5_000), "{times:?}");
    let shards: Vec<usize> = resets
        .iter()
        .map(|effect| match effect {
            Effect::Reset { shard, .. } => *shard,
            other => panic!("{other:?} was not expected"),
        })
        .collect();
    assert_eq!(shards, [0, 1], "a connection that is being made anew is left alone");

    bench.lost(0);
    bench.heard(0, Heard::Up);
    let again = bench.pass(5_000, true);
    assert!(matches!(again[..], [(_, Effect::Reset { shard: 0, .. })]), "{again:?}");
}

#[test]
fn a_read_whose_mark_does_not_come_makes_its_connection_deaf() {
    let mut bench = Bench::up();
    bench.want("f");
    let (_, nonce) = bench.read();
    bench.answer(nonce, Answer::Full(content(Kind::Plain, "1=a")));
    let resets = bench.pass(4_000, false);
    assert!(matches!(resets[..], [(..=3_200, Effect::Reset { shard: 0, .. })]), "{resets:?}");

    bench.lost(0);
    bench.heard(0, Heard::Up);
    let (_, again) = bench.read();
    bench.mark(nonce);
    bench.mark(again);
    bench.answer(again, Answer::Full(content(Kind::Plain, "1=b")));
    assert_eq!(bench.held("f"), "1=b");
}

#[test]
fn a_gateway_is_deaf_while_another_connection_hears_and_its_own_does_not() {
    let mut bench = Bench::up();
    bench.witness_hears = true;
    let resets = bench.pass(4_000, true);
    assert!(
        matches!(
            resets[..],
            [(..=3_800, Effect::Reset { shard: 0, .. }), (_, Effect::Reset { .. })]
        ),
        "{resets:?}"
    );
    assert_eq!(bench.outs(), ["deaf true"], "once for all shards");
    bench.lost(0);
    bench.heard(0, Heard::Up);
    bench.pass(200, false);
    assert_eq!(
        bench.outs(),
        ["shard 0 false", "shard 0 true"],
        "the other shard is still not heard"
    );
    bench.lost(1);
    bench.heard(1, Heard::Up);
    bench.pass(200, false);
    assert_eq!(bench.outs(), ["shard 1 false", "shard 1 true", "deaf false"]);
}

#[test]
fn a_gateway_stays_deaf_as_long_as_that_is_found_again() {
    let mut bench = Bench::up();
    bench.witness_hears = true;
    for round in 0..5 {
        let effects = bench.pass(4_000, true);
        assert!(effects.iter().any(|(_, effect)| matches!(effect, Effect::Reset { .. })));
        let deaf = bench.outs().into_iter().filter(|out| out.starts_with("deaf"));
        assert_eq!(deaf.count(), usize::from(round == 0));
        for shard in [0, 1] {
            bench.lost(shard);
            bench.heard(shard, Heard::Up);
        }
    }
}

#[test]
fn a_shard_that_nobody_hears_makes_no_gateway_unready() {
    let mut bench = Bench::up();
    for _ in 0..3 {
        let effects = bench.pass(4_000, true);
        assert!(effects.iter().any(|(_, effect)| matches!(effect, Effect::Reset { .. })));
        assert_eq!(bench.outs(), [""; 0]);
        assert!(!bench.keeper.is_up(0));
        for shard in [0, 1] {
            bench.lost(shard);
            bench.heard(shard, Heard::Up);
        }
        bench.outs();
        assert!(!bench.keeper.is_up(0), "a connection is not enough");
    }
    bench.pass(200, false);
    assert!(bench.keeper.is_up(0));
}

#[test]
fn a_deaf_gateway_whose_shard_goes_away_is_ready_again() {
    let mut bench = Bench::up();
    bench.witness_hears = true;
    bench.pass(4_000, true);
    bench.lost(0);
    bench.lost(1);
    assert_eq!(bench.outs()[0], "deaf true");
    bench.pass(5_000, true);
    assert_eq!(bench.outs(), ["deaf false"]);
    assert!(!bench.keeper.is_up(0));
}

#[test]
fn one_mark_that_is_lost_costs_a_connection_and_no_more() {
    let mut bench = Bench::up();
    bench.witness_hears = true;
    bench.fill("f", content(Kind::Plain, "1=a"));
    bench.notice("delfeed", "f\0me");
    let effects = bench.pass(1_000, false);
    let [(_, Effect::Read { nonce, .. })] = effects[..] else { panic!("{effects:?}") };
    bench.answer(nonce, Answer::Full(content(Kind::Plain, "1=b")));
    let effects = bench.pass(3_000, false);
    assert!(matches!(effects[..], [(_, Effect::Reset { shard: 0, .. })]), "{effects:?}");
    assert_eq!(bench.outs(), [""; 0]);
    assert!(bench.keeper.is_up(0));
}

#[test]
fn a_shard_that_cannot_be_asked_is_not_heard() {
    let mut bench = Bench::up();
    bench.pass(200, false);
    assert!(bench.keeper.is_up(0));
    bench.now += std::time::Duration::from_secs(1);
    bench.keeper.tick(bench.now);
    for effect in bench.keeper.effects() {
        let Effect::Mark { shard, nonce } = effect else { panic!("{effect:?}") };
        let error = ShardError::Away { shard: "one".into(), reason: "a test".to_owned() };
        bench.keeper.probed(shard, nonce, Err(error), bench.now);
    }
    assert!(!bench.keeper.is_up(0));
    bench.pass(1_100, false);
    assert!(bench.keeper.is_up(0));
    assert_eq!(bench.outs(), [""; 0]);
}
