//! Random histories of a shard, its connection and its users, held against what is true.
//!
//! Nothing here waits: a moment is a number of milliseconds after the beginning, and
//! every choice comes from a seed, so that a history that fails can be told again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shard_router::{
    feed::{BadFeed, Checked, Kind},
    shard::{Heard, ShardError},
};

use self::redis::{Message, Redis};
use super::{Answer, Effect, Keeper, Out, Settings, feeds::Scope};
use crate::mirror::{
    Event,
    literal::{self, Client},
};

mod link;
mod load;
mod property;
mod redis;

const FEEDS: [&str; 4] = ["a", "b", "c", "d"];
const WANTED_ITEMS: [&str; 3] = ["1", "2", "é"];
const HISTORIES: u64 = 3_000;
const STEP: u64 = 50;
const MARKS: &str = "gateway.mark.test";
/// Notices of writers that announce after they write come within this.
const LATE: u64 = 3_000;

type Answers = Result<Vec<Result<Answer, BadFeed>>, ShardError>;

/// What happens at its moment.
#[derive(Debug)]
enum Action {
    Execute(Effect),
    Answer { nonce: u64, answers: Answers },
    Verified { nonce: u64, checked: Result<Vec<Result<Checked, BadFeed>>, ShardError> },
    Probed { nonce: u64, sent: Result<(), ShardError> },
    Publish(Vec<Message>),
    Reconnect,
}

/// What a history may hold.
#[derive(Debug, Clone, Copy)]
struct Hazards {
    /// Whether some tell nobody what they write.
    silent: bool,
    faults: bool,
}

/// How much a history may hold, and how often it is compared.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    verify_every: Duration,
    max_bytes: usize,
    max_feed_bytes: usize,
}

struct World {
    rng: StdRng,
    start: Instant,
    now: u64,
    keeper: Keeper,
    redis: Redis,
    hazards: Hazards,
    actions: BTreeMap<(u64, u64), Action>,
    sequence: u64,
    /// Channels that the server has subscribed.
    subscribed: HashMap<Bytes, usize>,
    /// Tickets that wait for the connection.
    unconfirmed: Vec<(Vec<Bytes>, u64)>,
    wanted: HashMap<Bytes, usize>,
    connected: bool,
    /// Connected, but nothing comes.
    deaf: bool,
    stream: VecDeque<(u64, Heard)>,
    told_until: u64,
    /// Out and the kind of its feed after the call that brought it.
    outs: Vec<(Out, Option<Kind>)>,
    /// Those who came at different times, of whom each must end equal.
    clients: HashMap<Arc<str>, Vec<Client>>,
    items: HashMap<(Arc<str>, String), Option<Bytes>>,
    users: HashMap<Arc<str>, u32>,
    item_users: HashMap<(Arc<str>, &'static str), u32>,
    /// Whole reads under way, and which half of each is here.
    reads: HashMap<u64, (Arc<str>, bool, bool)>,
    last_read: HashMap<Arc<str>, u64>,
    asked: usize,
    seen: Seen,
}

/// What came up, to see that the histories are worth their time.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    events: usize,
    resets: usize,
    filled: usize,
    items: usize,
    reads: usize,
    settles: usize,
    deaf: usize,
    lost: usize,
    failed: usize,
    bad: usize,
    damaged: usize,
    verifies: usize,
    passed: usize,
    emptied: usize,
}

/// Names the history when an assertion in it fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("KEEPER_SEED={}", self.0);
        }
    }
}

impl World {
    fn new(seed: u64, hazards: Hazards, bounds: Bounds) -> Self {
        let start = Instant::now();
        let settings = Settings {
            settle: Duration::from_secs(1),
            linger: Duration::from_secs(2),
            verify_every: bounds.verify_every,
            max_bytes: bounds.max_bytes,
            max_feed_bytes: bounds.max_feed_bytes,
            mark_channel: MARKS.to_owned(),
            queues: Vec::new(),
        };
        let keeper = Keeper::new(settings, &["one".to_owned()], start);
        let standing = keeper.standing_channels().into_iter().map(|channel| (channel, 1));
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            start,
            now: 0,
            redis: Redis::default(),
            hazards,
            actions: BTreeMap::new(),
            sequence: 0,
            subscribed: HashMap::new(),
            unconfirmed: Vec::new(),
            wanted: standing.collect(),
            connected: false,
            deaf: false,
            stream: VecDeque::new(),
            told_until: 0,
            outs: Vec::new(),
            clients: HashMap::new(),
            items: HashMap::new(),
            users: HashMap::new(),
            item_users: HashMap::new(),
            reads: HashMap::new(),
            last_read: HashMap::new(),
            asked: 0,
            seen: Seen::default(),
            keeper,
        };
        let up = world.rng.random_range(0..500);
        world.after(up, Action::Reconnect);
        world
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        self.rng.random_ratio(per_mille, 1_000)
    }

    fn after(&mut self, delay: u64, action: Action) {
        self.sequence += 1;
        self.actions.insert((self.now + delay, self.sequence), action);
    }

    /// Lets time pass; `busy` writes and lets things break meanwhile.
    fn run(&mut self, millis: u64, busy: bool) {
        let end = self.now + millis;
        while self.now < end {
            self.now += STEP;
            if busy {
                self.disturb();
            }
            while let Some(entry) = self.actions.first_entry()
                && entry.key().0 <= self.now
            {
                let action = entry.remove();
                self.act(action);
            }
            self.hear();
            if self.now.is_multiple_of(100) {
                // What is at hand may be dropped then, and was told before.
                self.tell();
                self.keeper.tick(self.instant());
                self.drain();
            }
            self.tell();
            if self.now.is_multiple_of(500) {
                self.check_bounds();
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Execute(effect) => self.execute(effect),
            Action::Answer { nonce, answers } => {
                let failed = answers.is_err();
                self.keeper.answered(nonce, answers, self.instant());
                self.half(nonce, false, failed);
                self.drain();
            }
            Action::Verified { nonce, checked } => {
                self.keeper.verified(0, nonce, checked, self.instant());
                self.drain();
            }
            Action::Probed { nonce, sent } => {
                self.keeper.probed(0, nonce, sent, self.instant());
                self.drain();
            }
            Action::Publish(messages) => {
                for (channel, payload) in messages {
                    self.publish(&channel, payload);
                }
            }
            Action::Reconnect => self.reconnect(),
        }
    }

    /// Hears what has come, in one batch.
    fn hear(&mut self) {
        while let Some((at, _)) = self.stream.front()
            && *at <= self.now
        {
            let (_, heard) = self.stream.pop_front().expect("was just looked at");
            match &heard {
                Heard::Up | Heard::Confirmed { .. } => self.last_read.clear(),
                Heard::Lost { .. } => self.reads.clear(),
                Heard::Notice { channel, payload } if **channel == *MARKS.as_bytes() => {
                    let nonce = std::str::from_utf8(payload).expect("ours").parse().expect("ours");
                    self.half(nonce, true, false);
                }
                Heard::Notice { .. } | Heard::Refused { .. } => {}
            }
            self.keeper.heard(0, heard, self.instant());
            self.drain();
        }
    }

    /// Half of a read is here.
    fn half(&mut self, nonce: u64, is_mark: bool, failed: bool) {
        let Some((_, marked, answered)) = self.reads.get_mut(&nonce) else { return };
        *(if is_mark { &mut *marked } else { &mut *answered }) = true;
        if failed || *marked && *answered {
            self.reads.remove(&nonce);
        }
    }

    /// Takes in what one call of the keeper brought.
    fn drain(&mut self) {
        for out in self.keeper.outs() {
            let kind = match &out {
                Out::Event(feed, _) => self.keeper.mirror(feed).map(|mirror| mirror.kind()),
                _ => None,
            };
            self.outs.push((out, kind));
        }
    }

    /// Tells clients as the live state does after a batch, then carries out what is asked.
    fn tell(&mut self) {
        let (mut anew, mut come) = (BTreeSet::new(), BTreeSet::new());
        for (out, kind) in std::mem::take(&mut self.outs) {
            match out {
                Out::Filled(feed) => {
                    self.seen.filled += 1;
                    come.insert(feed);
                }
                Out::Reset(feed) => {
                    self.seen.resets += 1;
                    anew.insert(feed);
                }
                Out::Event(feed, event) if !anew.contains(&feed) => self.event(&feed, &event, kind),
                Out::Passed(feed, change) if !anew.contains(&feed) => {
                    self.seen.passed += 1;
                    self.heard_by(&feed).iter_mut().for_each(|client| client.pass(&change));
                }
                Out::Event(..) | Out::Passed(..) => {}
                Out::Emptied(_) => self.seen.emptied += 1,
                Out::ItemFilled(feed, id) | Out::Item(feed, id) => {
                    self.seen.items += 1;
                    if let Some(item) = self.keeper.item(&feed, &id) {
                        self.items.insert((feed, id), item.cloned());
                    }
                }
                Out::Finished { .. } | Out::Control(_) | Out::Shard { .. } | Out::Deaf(_) => {}
            }
        }
        for feed in anew {
            if let Some(mirror) = self.keeper.mirror(&feed) {
                let shown = Client::shown(mirror);
                self.heard_by(&feed).fill(shown);
            }
        }
        for feed in come {
            self.come(&feed);
        }
        for effect in self.keeper.effects() {
            self.carry_out(effect);
        }
    }

    fn heard_by(&mut self, feed: &Arc<str>) -> &mut Vec<Client> {
        self.clients.entry(feed.clone()).or_default()
    }

    /// Somebody is shown what is held of a feed, if anything is, and hears it from then on.
    fn come(&mut self, feed: &Arc<str>) {
        if self.users.get(feed).is_none_or(|users| *users == 0) {
            return;
        }
        let Some(shown) = self.keeper.mirror(feed).map(Client::shown) else { return };
        let clients = self.heard_by(feed);
        clients.truncate(2);
        clients.insert(0, shown);
    }

    fn event(&mut self, feed: &Arc<str>, event: &Event, kind: Option<Kind>) {
        self.seen.events += 1;
        for client in self.heard_by(feed) {
            if let Some(kind) = kind {
                client.follow(kind);
            }
            client.apply(event);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match &effect {
            Effect::Read { feed, nonce, .. } => {
                self.asked += 1;
                self.seen.reads += 1;
                let others = self.reads.values().filter(|(other, ..)| other == feed).count();
                assert_eq!(others, 0, "a feed has one read at a time");
                self.reads.insert(*nonce, (feed.clone(), false, false));
                if let Some(last) = self.last_read.insert(feed.clone(), self.now) {
                    assert!(self.now >= last + 1_000, "doubts are read once a second");
                }
            }
            Effect::Settle { .. } => {
                self.asked += 1;
                self.seen.settles += 1;
            }
            Effect::Verify { .. } => self.seen.verifies += 1,
            Effect::Subscribe { channels, .. } => {
                for channel in channels {
                    *self.wanted.entry(channel.clone()).or_default() += 1;
                }
                // The connection takes these in turn.
                return self.execute(effect);
            }
            Effect::Unsubscribe { channels, .. } => {
                // Whatever was asked about a feed that is let go is nobody's.
                self.reads.retain(|_, (feed, ..)| {
                    !channels.contains(&Bytes::from(format!("feed.publish:{feed}")))
                });
                for channel in channels {
                    let count = self.wanted.get_mut(channel).expect("only what is wanted is left");
                    *count -= 1;
                    if *count == 0 {
                        self.wanted.remove(channel);
                    }
                }
                return self.execute(effect);
            }
            Effect::Mark { .. } | Effect::Reset { .. } => {}
            Effect::Witness { .. } | Effect::Dismiss { .. } => return,
        }
        let delay = self.rng.random_range(0..300);
        self.after(delay, Action::Execute(effect));
    }

    /// Lets the faults end, and holds what everybody has then against the truth.
    fn end(mut self) -> Seen {
        // Those who write late have all announced by then.
        self.hazards = Hazards { silent: false, faults: false };
        for feed in self.redis.0.values_mut() {
            feed.is_bad = false;
        }
        self.run(LATE, false);
        // Nobody looks after what is passed through, but after a doubt it is told anew.
        if self.keeper.passed > 0 && self.connected {
            self.lose();
        }
        self.run(10_000, false);
        self.check();
        let (asked, reads) = (self.asked, self.seen.reads);
        self.run(6_000, false);
        assert_eq!(self.seen.reads, reads, "what is right is not read");
        if self.keeper.settings.verify_every > Duration::from_secs(60) {
            assert_eq!(self.asked, asked, "what is quiet is not asked about");
        }
        self.seen
    }

    fn check(&mut self) {
        assert!(self.reads.is_empty(), "no read stays open");
        // Lone items are read to verify them, which may be going on.
        let mut members = self.keeper.reads.values().flat_map(|read| &read.members);
        assert!(members.all(|(scope, _)| *scope == Scope::Items), "no read stays open");
        let wanted: Vec<Arc<str>> = self
            .users
            .iter()
            .filter(|(_, users)| **users > 0)
            .map(|(feed, _)| feed.clone())
            .collect();
        for feed in wanted {
            let content = self.redis.feed(&feed).content();
            assert!(!self.clients[&feed].is_empty());
            self.clients[&feed].iter().for_each(|client| client.check(&content));
            let is_passed = self.keeper.is_passed(&feed);
            assert_eq!(self.keeper.version(&feed).is_some(), !is_passed, "{feed}");
            let Some(mirror) = self.keeper.mirror(&feed) else {
                assert!(is_passed, "what is wanted is filled");
                continue;
            };
            Client::shown(mirror).check(&content);
            let version = literal::version(content.kind, &content.entries);
            assert_eq!(mirror.version().to_string(), version);
            if !content.entries.is_empty() {
                assert_eq!(mirror.kind(), content.kind);
            }
        }
        let wanted = self.item_users.iter().filter(|(_, users)| **users > 0);
        for ((feed, id), _) in wanted {
            let truth = self.redis.0.get(&**feed).and_then(|redis| redis.item(id));
            let item = self.keeper.item(feed, id).expect("what is wanted is known");
            assert_eq!(item, truth.as_ref());
            assert_eq!(self.items[&(feed.clone(), (*id).to_owned())], truth);
        }
        self.check_bounds();
    }

    fn check_bounds(&self) {
        let bytes = |passed: bool| -> usize {
            let tracked = self.keeper.feeds.iter();
            let tracked = tracked.filter(|(_, tracked)| tracked.passed.is_some() == passed);
            tracked.map(|(_, tracked)| tracked.body.bytes()).sum()
        };
        assert_eq!((self.keeper.bytes, self.keeper.at_hand_bytes), (bytes(false), bytes(true)));
        let mirrored = self
            .keeper
            .feeds
            .iter()
            .filter(|(key, tracked)| key.0 == Scope::Whole && tracked.passed.is_none());
        let most = self.keeper.settings.max_feed_bytes;
        assert!(mirrored.map(|(_, tracked)| tracked.bytes).all(|bytes| bytes <= most));
        // Lone items are few and never passed through.
        let items = self.keeper.feeds.iter().filter(|(key, _)| key.0 == Scope::Items);
        let items: usize = items.map(|(_, tracked)| tracked.bytes).sum();
        assert!(self.keeper.bytes <= self.keeper.settings.max_bytes.saturating_add(items));
        assert_eq!(
            self.keeper.passed,
            self.keeper.feeds.iter().filter(|(_, t)| t.passed.is_some()).count()
        );
    }
}

fn history(seed: u64) -> Seen {
    let _told = Told(seed);
    let hazards = Hazards { silent: seed % 4 == 3, faults: !seed.is_multiple_of(4) };
    let verifies = hazards.silent || seed % 4 == 1;
    let few = |is_bound: bool, bytes| if is_bound { bytes } else { usize::MAX };
    let bounds = Bounds {
        verify_every: Duration::from_secs(if verifies { 2 + seed % 3 } else { 3_600 }),
        max_bytes: few(seed % 5 >= 3, 2_500),
        max_feed_bytes: few(seed % 5 == 2 || seed % 5 == 3, 900),
    };
    let mut world = World::new(seed, hazards, bounds);
    for _ in 0..3 {
        world.change_users();
    }
    let busy = world.rng.random_range(1_000..9_000);
    world.run(busy, true);
    world.end()
}

#[test]
fn whatever_happens_clients_end_with_the_truth() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect(name));
    let seeds = match number("KEEPER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("KEEPER_SEEDS").unwrap_or(HISTORIES),
    };
    let is_one = seeds.end - seeds.start == 1;
    let mut seen = Seen::default();
    for seed in seeds {
        let one = history(seed);
        seen.events += one.events;
        seen.resets += one.resets;
        seen.filled += one.filled;
        seen.items += one.items;
        seen.reads += one.reads;
        seen.settles += one.settles;
        seen.deaf += one.deaf;
        seen.lost += one.lost;
        seen.failed += one.failed;
        seen.bad += one.bad;
        seen.damaged += one.damaged;
        seen.verifies += one.verifies;
        seen.passed += one.passed;
        seen.emptied += one.emptied;
    }
    println!("{seen:?}");
    let counts = [
        seen.events,
        seen.resets,
        seen.filled,
        seen.items,
        seen.reads,
        seen.settles,
        seen.deaf,
        seen.lost,
        seen.failed,
        seen.bad,
        seen.damaged,
        seen.verifies,
        seen.passed,
        seen.emptied,
    ];
    let holds_all = counts.iter().all(|count| *count > 100);
    assert!(is_one || holds_all, "histories hold everything: {seen:?}");
}
