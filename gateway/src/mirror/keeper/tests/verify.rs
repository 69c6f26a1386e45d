//! What was never announced is found, at an even rate.

use std::time::{Duration, Instant};

use bytes::Bytes;
use shard_router::feed::{BadFeed, Checked, Content, Kind};

use super::bench::{Bench, content, settled};
use crate::mirror::{
    Mirror,
    keeper::{Answer, Effect},
};

fn checked(content: &Content) -> Result<Checked, BadFeed> {
    Ok(Checked { kind: content.kind, version: Mirror::new(content).version().to_string() })
}

/// Waits for a script that compares one feed alone; returns when it came and its number.
#[track_caller]
fn verify(bench: &mut Bench, within: u64) -> (u64, u64) {
    let effects = bench.pass(within, false);
    let [(at, Effect::Verify { shard: 0, feeds, nonce })] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(feeds[..], ["f"]);
    (*at, *nonce)
}

impl Bench {
    fn verified(&mut self, nonce: u64, answers: Vec<Result<Checked, BadFeed>>) {
        self.keeper.verified(0, nonce, Ok(answers), self.now);
    }

    /// Says that the feed holds this.
    fn found(&mut self, nonce: u64, content: &Content) {
        self.mark(nonce);
        self.verified(nonce, vec![checked(content)]);
    }
}

#[test]
fn what_nobody_announced_is_read_when_it_still_differs_a_moment_later() {
    let mut bench = Bench::verifying(Duration::from_secs(20));
    bench.fill("f", content(Kind::Plain, "1=a"));
    let truth = content(Kind::Plain, "1=b");
    let (at, nonce) = verify(&mut bench, 18_000);
    assert_eq!(at, 18_000, "nine tenths of the time are for all of them");
    bench.found(nonce, &truth);
    let (at, nonce) = verify(&mut bench, 1_000);
    assert_eq!(at, 1_000, "a notice may be on its way for as long as settling waits");
    bench.found(nonce, &truth);
    let (feed, nonce) = bench.read();
    assert_eq!(feed, "f");
    bench.mark(nonce);
    bench.answer(nonce, Answer::Full(truth.clone()));
    assert_eq!(bench.outs(), ["change f 1"]);
    let (_, nonce) = verify(&mut bench, 18_000);
    bench.found(nonce, &truth);
    assert_eq!(bench.pass(10_000, false), [], "what is the same is left alone");
}

#[test]
fn a_notice_on_its_way_explains_a_difference() {
    let mut bench = Bench::verifying(Duration::from_secs(20));
    bench.fill("f", content(Kind::Plain, "1=a"));
    let truth = content(Kind::Plain, "1=b");
    let (_, nonce) = verify(&mut bench, 18_000);
    bench.found(nonce, &truth);
    bench.notice("feed.edit:f", "1\0b");
    assert_eq!(bench.outs(), ["change f 1"]);
    let effects = bench.pass(1_000, false);
    let [(_, Effect::Settle { nonce: settle, .. }), (_, Effect::Verify { nonce, .. })] =
        effects[..]
    else {
        panic!("{effects:?}")
    };
    bench.found(nonce, &truth);
    bench.mark(settle);
    bench.answer(settle, settled(&[Some("b")]));
    assert_eq!(bench.pass(16_000, false), []);
    assert_eq!(bench.outs(), [""; 0]);
}

#[test]
fn what_a_mirror_held_at_the_mark_is_compared() {
    for answered_first in [true, false] {
        let mut bench = Bench::verifying(Duration::from_secs(20));
        bench.fill("f", content(Kind::Plain, "1=a"));
        let (_, nonce) = verify(&mut bench, 18_000);
        let answers = vec![checked(&content(Kind::Plain, "1=b"))];
        bench.notice("feed.edit:f", "1\0b");
        if answered_first {
            bench.verified(nonce, answers.clone());
        }
        bench.mark(nonce);
        bench.notice("feed.edit:f", "1\0c");
        if !answered_first {
            bench.verified(nonce, answers);
        }
        let effects = bench.pass(1_500, false);
        assert!(matches!(effects[..], [(_, Effect::Settle { .. })]), "{effects:?}");
    }
}

#[test]
fn a_kind_that_is_another_is_a_difference() {
    let mut bench = Bench::verifying(Duration::from_secs(20));
    bench.fill("f", content(Kind::Plain, "1=a"));
    let truth = content(Kind::Sorted, "1=a");
    for within in [18_000, 1_000] {
        let (_, nonce) = verify(&mut bench, within);
        bench.found(nonce, &truth);
    }
    assert_eq!(bench.read().0, "f");
}

#[test]
fn feeds_are_compared_at_an_even_rate_and_one_script_at_a_time() {
    const FEEDS: usize = 1_000;
    let mut bench = Bench::verifying(Duration::from_secs(20));
    for feed in 0..FEEDS {
        bench.fill(&format!("f{feed}"), content(Kind::Plain, "1=a"));
    }
    let mut seen = vec![0; FEEDS];
    let mut times = Vec::new();
    for tick in 0..200 {
        for (_, effect) in bench.pass(100, false) {
            let Effect::Verify { feeds, nonce, .. } = effect else { panic!("{effect:?}") };
            assert_eq!(bench.keeper.effects(), [], "one is under way at a time");
            let same = checked(&content(Kind::Plain, "1=a"));
            bench.mark(nonce);
            bench.verified(nonce, vec![same; feeds.len()]);
            times.push((tick, feeds.len()));
            for feed in feeds {
                seen[feed[1..].parse::<usize>().expect("is a number")] += 1;
            }
        }
    }
    assert!(seen.iter().all(|times| *times >= 1), "each was compared");
    assert!(seen.iter().all(|times| *times <= 2), "and none without need");
    assert!(times.iter().all(|(_, count)| *count <= 60), "{times:?}");
    assert!(times.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 5), "{times:?}");
}

#[test]
fn large_feeds_are_compared_alone() {
    let mut bench = Bench::verifying(Duration::from_secs(2));
    let large = content(Kind::Plain, &format!("1={}", "x".repeat(300 << 10)));
    for feed in ["f0", "f1", "f2"] {
        bench.fill(feed, large.clone());
    }
    let mut compared = Vec::new();
    for _ in 0..100 {
        for (_, effect) in bench.pass(100, false) {
            let Effect::Verify { feeds, nonce, .. } = effect else { panic!("{effect:?}") };
            assert_eq!(feeds.len(), 1);
            bench.mark(nonce);
            bench.verified(nonce, vec![checked(&large)]);
            compared.extend(feeds);
        }
    }
    assert!((15..=18).contains(&compared.len()), "{compared:?}");
}

#[test]
fn a_feed_that_is_always_busy_is_compared_every_other_round() {
    let mut bench = Bench::verifying(Duration::from_secs(2));
    bench.fill("f", content(Kind::Plain, "1=a 2=a"));
    let mut times = Vec::new();
    let mut number = 0_u64;
    while times.len() < 3 {
        number += 1;
        assert!(number < 100, "it is compared at times: {times:?}");
        bench.notice("feed.edit:f", format!("1\0{number}"));
        let truth = content(Kind::Plain, &format!("1={number} 2=a"));
        for (passed, effect) in bench.pass(200, false) {
            match effect {
                Effect::Settle { nonce, .. } => {
                    bench.mark(nonce);
                    let item = Some(Bytes::from(number.to_string()));
                    let found = shard_router::feed::Settled {
                        kind: Kind::Plain,
                        items: vec![item],
                        order: None,
                    };
                    bench.answer(nonce, Answer::Settled(found));
                }
                Effect::Verify { nonce, .. } => {
                    times.push(number * 200 + passed);
                    bench.found(nonce, &truth);
                }
                other => panic!("{other:?} was not expected"),
            }
        }
    }
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (3_400..=3_800).contains(gap)), "{times:?}");
}

#[test]
fn lone_items_are_read_again() {
    let mut bench = Bench::verifying(Duration::from_secs(20));
    let feed = "teams".into();
    bench.keeper.want_item(&feed, "1", 0, bench.now);
    bench.keeper.want_item(&feed, "2", 0, bench.now);
    let (asked, nonce) = bench.read();
    assert_eq!(asked, "teams:1+2");
    bench.mark(nonce);
    bench.answer(nonce, settled(&[Some("a"), Some("a")]));
    bench.outs();
    let effects = bench.pass(18_100, false);
    let [(_, Effect::Settle { touched, nonce, .. })] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(touched[0].ids, ["1", "2"]);
    bench.mark(*nonce);
    bench.answer(*nonce, settled(&[Some("a"), Some("b")]));
    assert_eq!(bench.outs(), ["item teams/2"]);
}

#[test]
fn a_key_of_the_wrong_type_is_read_and_leaves_the_last_good_state() {
    let mut bench = Bench::verifying(Duration::from_secs(20));
    bench.fill("f", content(Kind::Plain, "1=a"));
    let bad = BadFeed { feed: "f".to_owned(), reason: "`feed.ids:f` is a set".to_owned() };
    let (_, nonce) = verify(&mut bench, 18_000);
    bench.mark(nonce);
    bench.verified(nonce, vec![Err(bad.clone())]);
    let (_, nonce) = bench.read();
    bench.mark(nonce);
    bench.keeper.answered(nonce, Ok(vec![Err(bad)]), bench.now);
    assert_eq!((bench.outs(), bench.held("f")), (Vec::new(), "1=a".to_owned()));
    let effects = bench.pass(2_000, false);
    let [(_, Effect::Read { nonce, .. })] = effects[..] else { panic!("{effects:?}") };
    bench.mark(nonce);
    bench.answer(nonce, Answer::Full(content(Kind::Plain, "")));
    assert_eq!(bench.outs(), ["reset f"], "what is gone is gone for clients too");
}

#[test]
fn a_script_that_fails_or_whose_mark_is_lost_ends_nothing() {
    let mut bench = Bench::verifying(Duration::from_secs(2));
    bench.fill("f", content(Kind::Plain, "1=a"));
    let (_, nonce) = verify(&mut bench, 2_000);
    let error =
        shard_router::shard::ShardError::Away { shard: "one".into(), reason: String::new() };
    bench.keeper.verified(0, nonce, Err(error), bench.now);
    let (_, nonce) = verify(&mut bench, 4_000);
    bench.verified(nonce, vec![checked(&content(Kind::Plain, "1=a"))]);
    let effects = bench.pass(4_000, false);
    assert!(matches!(effects[..], [(_, Effect::Reset { shard: 0, .. })]), "{effects:?}");
}

/// What the gateway itself spends on comparing, without the shard.
///
/// `cargo test --release -p gateway --lib cost_of_verifying -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
fn cost_of_verifying() {
    const FEEDS: usize = 100_000;
    let mut bench = Bench::verifying(Duration::from_secs(30));
    let text = "x".repeat(100);
    let items: Vec<String> = (0..20).map(|id| format!("{id}={text}")).collect();
    let content = content(Kind::Plain, &items.join(" "));
    for feed in 0..FEEDS {
        bench.fill(&format!("team.{feed}.members"), content.clone());
    }
    let answer = checked(&content);
    let (mut compared, mut scripts, mut spent) = (0, 0, Duration::ZERO);
    for _ in 0..300 {
        bench.now += Duration::from_millis(100);
        let began = Instant::now();
        bench.keeper.tick(bench.now);
        spent += began.elapsed();
        let mut open = bench.keeper.effects();
        while let Some(effect) = open.pop() {
            match effect {
                Effect::Mark { shard, nonce } => {
                    bench.keeper.probed(shard, nonce, Ok(()), bench.now);
                    let channel = Bytes::from(super::bench::MARKS);
                    let payload = nonce.to_string().into();
                    bench.heard(shard, shard_router::shard::Heard::Notice { channel, payload });
                }
                Effect::Verify { feeds, nonce, .. } => {
                    scripts += 1;
                    compared += feeds.len();
                    let answers = vec![answer.clone(); feeds.len()];
                    let began = Instant::now();
                    bench.mark(nonce);
                    bench.verified(nonce, answers);
                    spent += began.elapsed();
                    open.extend(bench.keeper.effects());
                }
                other => panic!("{other:?} was not expected"),
            }
        }
    }
    println!(
        "{compared} feeds in {scripts} scripts took {spent:?}, {:?} each",
        spent / u32::try_from(compared).expect("they are few")
    );
    assert!(compared >= FEEDS);
}
