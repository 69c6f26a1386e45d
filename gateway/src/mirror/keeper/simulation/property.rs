//! The same world, told by a list of what happens, so that a list that fails shrinks.

use std::time::Duration;

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::{Bounds, FEEDS, Hazards, World};

/// One thing that happens; its number decides the rest, and nothing else does.
#[derive(Debug, Clone)]
enum Event {
    /// Somebody writes, and announces it at once, late, in two parts, or never.
    Write(u64),
    /// Somebody changes a key by hand.
    Damage(u64),
    /// Somebody comes or goes.
    Users(u64),
    /// The connection breaks.
    Lose(u64),
    /// The connection lives and delivers nothing.
    Deafen,
    /// What was published comes late.
    Lag(u64),
    /// A key becomes one of a wrong type, or a right one again.
    Spoil(usize),
    /// Time passes.
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => any::<u64>().prop_map(Event::Write),
        1 => any::<u64>().prop_map(Event::Damage),
        2 => any::<u64>().prop_map(Event::Users),
        1 => any::<u64>().prop_map(Event::Lose),
        1 => Just(Event::Deafen),
        1 => (0..1_500_u64).prop_map(Event::Lag),
        1 => (0..FEEDS.len()).prop_map(Event::Spoil),
        6 => (1..30_u64).prop_map(|steps| Event::Wait(steps * 50)),
    ]
}

fn bounds() -> impl Strategy<Value = Bounds> {
    let most = || prop_oneof![2 => Just(usize::MAX), 1 => 300..4_000_usize];
    (1..5_u64, most(), most()).prop_map(|(seconds, max_bytes, max_feed_bytes)| Bounds {
        verify_every: Duration::from_secs(seconds),
        max_bytes,
        max_feed_bytes,
    })
}

impl World {
    fn happen(&mut self, event: &Event) {
        let seed = |world: &mut Self, seed: &u64| world.rng = StdRng::seed_from_u64(*seed);
        match event {
            Event::Write(number) => {
                seed(self, number);
                self.write();
            }
            Event::Damage(number) => {
                seed(self, number);
                self.damage();
            }
            Event::Users(number) => {
                seed(self, number);
                self.change_users();
            }
            Event::Lose(number) if self.connected => {
                seed(self, number);
                self.lose();
            }
            Event::Deafen => self.deaf = self.connected,
            Event::Lag(millis) => self.told_until = self.told_until.max(self.now) + millis,
            Event::Spoil(feed) => {
                let feed = self.redis.feed(FEEDS[*feed]);
                feed.is_bad = !feed.is_bad;
            }
            Event::Wait(millis) => self.run(*millis, false),
            Event::Lose(_) => {}
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_told_clients_end_with_the_truth(
        bounds in bounds(),
        events in proptest::collection::vec(event(), 0..80),
    ) {
        let mut world = World::new(0, Hazards { silent: true, faults: true }, bounds);
        for _ in 0..6 {
            world.change_users();
        }
        events.iter().for_each(|event| world.happen(event));
        world.end();
    }
}
