//! Random histories of topologies that come while feeds are written, read and lost, held
//! against what the last topology's shards have.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shard_router::{
    feed::{BadFeed, Content, Kind, Settled, Touched},
    router::Adopted,
    shard::{Heard, ShardError},
};

use crate::mirror::{
    keeper::{Answer, Effect, Keeper, Out, Settings},
    literal::Client,
};

const FEEDS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const NAMES: [&str; 4] = ["one", "two", "three", "four"];
const HISTORIES: u64 = 1_500;
const STEP: u64 = 50;
const MARKS: &str = "gateway.mark.test";

type Answers = Result<Vec<Result<Answer, BadFeed>>, ShardError>;

/// What happens at its moment.
enum Action {
    Execute(Effect),
    Answer(u64, Answers),
    Probed(usize, u64, Result<(), ShardError>),
    /// The connection with this number, if it is still the shard's.
    Connect(usize, u64),
}

/// One shard and our connection to it.
#[derive(Default)]
struct Server {
    feeds: BTreeMap<&'static str, BTreeMap<String, Bytes>>,
    link: u64,
    connected: bool,
    wanted: HashMap<Bytes, usize>,
    tickets: Vec<u64>,
    stream: VecDeque<(u64, Heard)>,
    told_until: u64,
}

impl Server {
    /// Makes the connection a new one that has heard nothing yet.
    fn relink(&mut self) {
        let feeds = std::mem::take(&mut self.feeds);
        *self = Self { feeds, link: self.link + 1, ..Self::default() };
    }

    fn content(&self, feed: &str) -> Content {
        let held = self.feeds.get(feed).into_iter().flatten();
        let entries = held.map(|(id, item)| (id.clone(), item.clone())).collect();
        Content { kind: Kind::Plain, entries, bad_ids: 0 }
    }

    fn settle(&self, touched: &Touched) -> Answer {
        let feed = self.feeds.get(touched.feed.as_str());
        let items = touched.ids.iter().map(|id| feed.and_then(|feed| feed.get(id)).cloned());
        Answer::Settled(Settled { kind: Kind::Plain, items: items.collect(), order: None })
    }
}

struct World {
    rng: StdRng,
    start: Instant,
    now: u64,
    keeper: Keeper,
    servers: Vec<Server>,
    /// Which shards the topology has.
    present: BTreeSet<usize>,
    owners: HashMap<&'static str, usize>,
    version: u64,
    actions: BTreeMap<(u64, u64), Action>,
    sequence: u64,
    clients: HashMap<Arc<str>, Client>,
    /// What is known of the item `1` of each feed.
    items: HashMap<Arc<str>, Option<Bytes>>,
    resets: usize,
    events: usize,
}

/// Names the history when an assertion in it fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("history of seed {}", self.0);
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let start = Instant::now();
        let settings = Settings {
            settle: Duration::from_secs(1),
            linger: Duration::from_secs(60),
            // What comes of comparing is another simulation's matter.
            verify_every: Duration::from_secs(86_400),
            max_bytes: usize::MAX,
            max_feed_bytes: usize::MAX,
            mark_channel: MARKS.to_owned(),
            queues: Vec::new(),
        };
        let names: Vec<String> = NAMES[..2].iter().map(|name| (*name).to_owned()).collect();
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            start,
            now: 0,
            keeper: Keeper::new(settings, &names, start),
            servers: names.iter().map(|_| Server::default()).collect(),
            present: BTreeSet::from([0, 1]),
            owners: FEEDS.iter().enumerate().map(|(at, feed)| (*feed, at % 2)).collect(),
            version: 1,
            actions: BTreeMap::new(),
            sequence: 0,
            clients: HashMap::new(),
            items: HashMap::new(),
            resets: 0,
            events: 0,
        };
        for shard in 0..2 {
            world.open(shard);
        }
        for feed in FEEDS {
            let (shard, now) = (world.owners[feed], world.instant());
            world.keeper.want(&feed.into(), shard, now);
            world.keeper.want_item(&feed.into(), "1", shard, now);
        }
        world
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        self.rng.random_ratio(per_mille, 1_000)
    }

    fn after(&mut self, most: u64, action: Action) {
        self.sequence += 1;
        let at = self.now + self.rng.random_range(0..=most);
        self.actions.insert((at, self.sequence), action);
    }

    /// Makes a connection that has the standing channels, and has it heard a little later.
    fn open(&mut self, shard: usize) {
        let server = &mut self.servers[shard];
        server.relink();
        for channel in self.keeper.standing_channels() {
            server.wanted.insert(channel, 1);
        }
        let link = server.link;
        self.after(800, Action::Connect(shard, link));
    }

    fn say(&mut self, shard: usize, heard: Heard) {
        let lag = self.rng.random_range(0..120);
        let server = &mut self.servers[shard];
        server.told_until = server.told_until.max(self.now + lag);
        server.stream.push_back((server.told_until, heard));
    }

    fn publish(&mut self, shard: usize, channel: &str, payload: Vec<u8>) {
        let server = &self.servers[shard];
        if server.connected && server.wanted.contains_key(channel.as_bytes()) {
            let channel = Bytes::copy_from_slice(channel.as_bytes());
            self.say(shard, Heard::Notice { channel, payload: payload.into() });
        }
    }

    /// Writes into a feed on one shard, which may not be its owner any more.
    fn write(&mut self, feed: &'static str, shard: usize) {
        let id = self.rng.random_range(1..7).to_string();
        let retracts = self.chance(300);
        let item = format!("{{\"n\":{}}}", self.rng.random_range(0..5));
        let held = self.servers[shard].feeds.entry(feed).or_default();
        if retracts {
            if held.remove(&id).is_some() {
                self.publish(shard, &format!("feed.retract:{feed}"), id.into());
            }
        } else {
            let known = held.insert(id.clone(), item.clone().into()).is_some();
            let verb = if known { "edit" } else { "publish" };
            let payload = format!("{id}\0{item}").into_bytes();
            self.publish(shard, &format!("feed.{verb}:{feed}"), payload);
        }
    }

    fn lose(&mut self, shard: usize) {
        let server = &mut self.servers[shard];
        let tickets = server.stream.drain(..).filter_map(|(_, heard)| match heard {
            Heard::Confirmed { ticket } => Some(ticket),
            _ => None,
        });
        server.tickets.extend(tickets);
        server.connected = false;
        let link = server.link;
        self.say(shard, Heard::Lost { reason: "simulated".to_owned() });
        self.after(2_000, Action::Connect(shard, link));
    }

    fn connect(&mut self, shard: usize) {
        self.servers[shard].connected = true;
        self.say(shard, Heard::Up);
        for ticket in std::mem::take(&mut self.servers[shard].tickets) {
            self.say(shard, Heard::Confirmed { ticket });
        }
    }

    /// Lets another topology come: shards appear, go, or are elsewhere, and feeds move.
    fn retopology(&mut self) {
        let (mut opened, mut closed) = (Vec::new(), Vec::new());
        let before = self.present.clone();
        match self.rng.random_range(0..4) {
            0 if self.servers.len() < NAMES.len() => {
                self.servers.push(Server::default());
                opened.push(self.servers.len() - 1);
            }
            1 if before.len() > 1 => closed.extend(self.pick(&before)),
            2 => opened.extend(self.pick(&before)),
            3 => opened.extend((0..self.servers.len()).find(|shard| !before.contains(shard))),
            _ => {}
        }
        self.present.extend(&opened);
        self.present.retain(|shard| !closed.contains(shard));
        for feed in FEEDS {
            let old = self.owners[feed];
            let new = if self.present.contains(&old) && self.chance(700) {
                old
            } else {
                self.pick(&self.present.clone()).expect("some shard is there")
            };
            self.owners.insert(feed, new);
            // The data was moved before, or only some of it, or none.
            if old != new && self.chance(800) {
                let mut data = self.servers[old].feeds.get(feed).cloned().unwrap_or_default();
                if self.chance(300) {
                    data.pop_last();
                }
                self.servers[new].feeds.insert(feed, data);
            }
        }
        for &shard in &closed {
            self.servers[shard].relink();
        }
        for &shard in &opened {
            self.open(shard);
        }
        self.version += 1;
        let names = NAMES[..self.servers.len()].iter().map(|name| (*name).to_owned()).collect();
        let adopted = Adopted { version: self.version, names, opened, closed };
        let (owners, now) = (self.owners.clone(), self.instant());
        self.keeper.retopology(&adopted, |feed| owners[feed], now);
    }

    fn pick(&mut self, among: &BTreeSet<usize>) -> Option<usize> {
        let at = self.rng.random_range(0..among.len());
        among.iter().nth(at).copied()
    }

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
            for shard in 0..self.servers.len() {
                while let Some((at, _)) = self.servers[shard].stream.front()
                    && *at <= self.now
                {
                    let (_, heard) = self.servers[shard].stream.pop_front().expect("is there");
                    self.keeper.heard(shard, heard, self.instant());
                    self.tell();
                }
            }
            if self.now.is_multiple_of(100) {
                self.keeper.tick(self.instant());
            }
            self.tell();
            for effect in self.keeper.effects() {
                self.carry_out(effect);
            }
        }
    }

    fn disturb(&mut self) {
        let feed = FEEDS[self.rng.random_range(0..FEEDS.len())];
        // Some have not heard of the topology yet, and write where the feed was.
        let strays = self.chance(100);
        let shard =
            if strays { self.rng.random_range(0..self.servers.len()) } else { self.owners[feed] };
        self.write(feed, shard);
        if self.chance(30) {
            self.retopology();
        }
        if self.chance(15) {
            let shard = self.pick(&self.present.clone()).expect("some shard is there");
            if self.servers[shard].connected {
                self.lose(shard);
            }
        }
    }

    fn act(&mut self, action: Action) {
        let now = self.instant();
        match action {
            Action::Answer(nonce, answers) => self.keeper.answered(nonce, answers, now),
            Action::Probed(shard, nonce, sent) => self.keeper.probed(shard, nonce, sent, now),
            Action::Connect(shard, link) if self.servers[shard].link == link => self.connect(shard),
            Action::Connect(..) => {}
            Action::Execute(effect) => self.execute(effect),
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Subscribe { shard, channels, ticket } => {
                for channel in channels {
                    *self.servers[shard].wanted.entry(channel).or_default() += 1;
                }
                if self.servers[shard].connected {
                    self.say(shard, Heard::Confirmed { ticket });
                } else {
                    self.servers[shard].tickets.push(ticket);
                }
            }
            Effect::Unsubscribe { shard, channels } => {
                let wanted = &mut self.servers[shard].wanted;
                for channel in channels {
                    let count = wanted.get_mut(&channel).expect("only what is wanted is left");
                    *count -= 1;
                    if *count == 0 {
                        wanted.remove(&channel);
                    }
                }
            }
            // A witness has nothing to say: the shards that are there are always heard.
            Effect::Witness { .. } | Effect::Dismiss { .. } => {}
            Effect::Reset { shard, .. } => panic!("shard {shard} is not deaf"),
            later => self.after(300, Action::Execute(later)),
        }
    }

    fn execute(&mut self, effect: Effect) {
        let away = || ShardError::Away { shard: "?".into(), reason: "simulated".to_owned() };
        let (shard, nonce) = match &effect {
            Effect::Read { shard, nonce, .. }
            | Effect::Settle { shard, nonce, .. }
            | Effect::Mark { shard, nonce } => (*shard, *nonce),
            other => panic!("{other:?} is done at once"),
        };
        let is_there = self.present.contains(&shard);
        if is_there {
            self.publish(shard, MARKS, nonce.to_string().into());
        }
        let server = &self.servers[shard];
        let answers = match &effect {
            Effect::Read { feed, .. } => vec![Ok(Answer::Full(server.content(feed)))],
            Effect::Settle { touched, .. } => {
                touched.iter().map(|touched| Ok(server.settle(touched))).collect()
            }
            _ => {
                let sent = if is_there { Ok(()) } else { Err(away()) };
                return self.after(100, Action::Probed(shard, nonce, sent));
            }
        };
        let answers = if is_there { Ok(answers) } else { Err(away()) };
        self.after(300, Action::Answer(nonce, answers));
    }

    fn tell(&mut self) {
        let mut anew = BTreeSet::new();
        for out in self.keeper.outs() {
            match out {
                Out::Filled(feed) => {
                    assert!(!self.clients.contains_key(&feed), "a feed is filled once");
                    anew.insert(feed);
                }
                Out::Reset(feed) => {
                    self.resets += 1;
                    anew.insert(feed);
                }
                // What comes behind a reset in one batch is in it already.
                Out::Event(feed, _) if anew.contains(&feed) => {}
                Out::Event(feed, event) => {
                    self.events += 1;
                    self.clients.get_mut(&feed).expect("is filled").apply(&event);
                }
                Out::ItemFilled(feed, id) | Out::Item(feed, id) => {
                    let item = self.keeper.item(&feed, &id).expect("is known").cloned();
                    self.items.insert(feed, item);
                }
                Out::Shard { .. } => {}
                Out::Deaf(_) | Out::Finished { .. } | Out::Control(_) => panic!("nobody says that"),
                Out::Passed(feed, _) | Out::Emptied(feed) => panic!("{feed} is not large"),
            }
        }
        for feed in anew {
            let client = Client::shown(self.keeper.mirror(&feed).expect("is filled"));
            self.clients.insert(feed, client);
        }
    }

    fn check(&self) {
        assert!(self.keeper.reads.is_empty(), "no read stays open");
        for feed in FEEDS {
            let shard = self.owners[feed];
            let content = self.servers[shard].content(feed);
            Client::shown(self.keeper.mirror(feed).expect("is filled")).check(&content);
            self.clients[feed].check(&content);
            let truth = self.servers[shard].feeds.get(feed).and_then(|feed| feed.get("1"));
            assert_eq!(self.items[feed].as_ref(), truth, "the item of {feed}");
        }
        let standing = self.keeper.standing_channels().len();
        for (shard, server) in self.servers.iter().enumerate() {
            let feeds = FEEDS.iter().filter(|feed| self.owners[**feed] == shard).count();
            let channels = if self.present.contains(&shard) { standing + 4 * feeds } else { 0 };
            assert_eq!(server.wanted.len(), channels, "channels on {}", NAMES[shard]);
        }
        let counts: Vec<&str> =
            self.keeper.subscriptions().into_iter().map(|(name, _)| name).collect();
        let names: Vec<&str> = self.present.iter().map(|shard| NAMES[*shard]).collect();
        assert_eq!(counts, names);
    }
}

#[test]
fn whatever_moves_clients_end_with_what_the_last_topology_has() {
    let (mut versions, mut events, mut resets) = (0, 0, 0);
    for seed in 0..HISTORIES {
        let _told = Told(seed);
        let mut world = World::new(seed);
        let busy = world.rng.random_range(2_000..8_000);
        world.run(busy, true);
        world.run(9_000, false);
        world.check();
        versions += world.version;
        events += world.events;
        resets += world.resets;
    }
    println!("{versions} topologies, {events} events, {resets} resets");
    assert!(versions > 3 * HISTORIES && events > 100 && resets > 100);
}
