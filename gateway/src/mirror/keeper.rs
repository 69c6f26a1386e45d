//! Keeps the mirrors true: fills, follows, settles, verifies, repairs, lets go.
//!
//! A state machine without a clock and without I/O: what was heard and what was read
//! go in, [`Effect`]s to carry out and [`Out`]s for the clients come out. `live` is the
//! one task that drives it.
//!
//! Every read is *marked*: the script that reads also publishes a number to us. Notices
//! before that mark are part of what was read, notices behind it are held until the
//! answer is here and then applied on top. So a read needs no pause of the writers.

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroU64,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use shard_router::{
    feed::{Content, Settled, Touched},
    shard::Heard,
};

use self::{
    connection::Connection,
    feeds::{Body, Cause, Feeds, Key, Scope, Tracked, Users},
    reading::Read,
    refused::Refused,
};
use super::{Change, Event, Mirror, Verb, Version};
use crate::metrics;

mod connection;
mod feeds;
mod hearing;
mod marks;
mod notices;
mod passing;
mod reading;
mod refused;
mod settling;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod topology;
mod verifying;

/// How the keeper behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Quiet time after which what a notice touched is read again.
    pub settle: Duration,
    /// How long a mirror without clients is kept.
    pub linger: Duration,
    /// Each mirror is compared with its feed at least this often.
    pub verify_every: Duration,
    /// What all mirrors together may take.
    pub max_bytes: usize,
    /// What one mirror may take.
    pub max_feed_bytes: usize,
    /// The channel on which the shards answer with marks; ours alone.
    pub mark_channel: String,
    /// The job queues whose `job.finish` is heard from the start.
    pub queues: Vec<String>,
}

/// Feeds without content that linger; more are let go at once, the oldest first.
const IDLE_EMPTY: usize = 10_000;

/// What the keeper asks to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read a whole feed; answer by [`Keeper::answered`].
    Read {
        /// The shard.
        shard: usize,
        /// The feed.
        feed: Arc<str>,
        /// What its mark says.
        nonce: u64,
    },
    /// Read some items; answer by [`Keeper::answered`].
    Settle {
        /// The shard.
        shard: usize,
        /// What is asked of each feed.
        touched: Vec<Touched>,
        /// What its mark says.
        nonce: u64,
    },
    /// Compute the versions of feeds; answer by [`Keeper::verified`].
    Verify {
        /// The shard.
        shard: usize,
        /// The feeds.
        feeds: Vec<String>,
        /// What its mark says.
        nonce: u64,
    },
    /// Publish a mark; answer by [`Keeper::probed`].
    Mark {
        /// The shard.
        shard: usize,
        /// What its mark says.
        nonce: u64,
    },
    /// Subscribe channels.
    Subscribe {
        /// The shard.
        shard: usize,
        /// The channels.
        channels: Vec<Bytes>,
        /// What [`Heard::Confirmed`] is to say.
        ticket: u64,
    },
    /// Leave channels.
    Unsubscribe {
        /// The shard.
        shard: usize,
        /// The channels.
        channels: Vec<Bytes>,
    },
    /// Open a second subscription connection that hears marks alone; what it tells goes to
    /// [`Keeper::witnessed`].
    Witness {
        /// The shard.
        shard: usize,
    },
    /// Close the second connection.
    Dismiss {
        /// The shard.
        shard: usize,
    },
    /// Give the subscription connection up and make a new one.
    Reset {
        /// The shard.
        shard: usize,
        /// What is wrong with the old one.
        reason: &'static str,
    },
}

/// What the keeper found out, in the order in which clients must learn it.
#[derive(Debug)]
pub enum Out {
    /// A feed has its first content.
    Filled(Arc<str>),
    /// One change of a feed; the mirror holds it already.
    Event(Arc<str>, Event),
    /// One change of a feed that is passed through, unchecked.
    Passed(Arc<str>, Change),
    /// What was at hand of a feed that is passed through is dropped; its clients hold it.
    Emptied(Arc<str>),
    /// The difference is longer than the feed: it is to be sent anew.
    Reset(Arc<str>),
    /// The item of a shared feed is known for the first time.
    ItemFilled(Arc<str>, String),
    /// The item of a shared feed is another now.
    Item(Arc<str>, String),
    /// A job is finished.
    Finished {
        /// The queue.
        queue: String,
        /// The job.
        id: String,
        /// What its worker says.
        result: Bytes,
    },
    /// A message on `gateway.control`.
    Control(Bytes),
    /// A shard is heard, or not any more.
    Shard {
        /// The shard.
        shard: usize,
        /// Whether it is heard.
        up: bool,
    },
    /// A connection of ours is deaf where another would hear, or none is any more.
    Deaf(bool),
}

/// What a read brought for one feed.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The whole feed.
    Full(Content),
    /// The items that were asked for.
    Settled(Settled),
}

/// All mirrors of this gateway.
#[derive(Debug)]
pub struct Keeper {
    settings: Settings,
    shards: Vec<Connection>,
    /// Whether a connection of ours is deaf where another would hear.
    is_deaf: bool,
    /// When time last passed, and since when it has without a gap.
    ticked: Instant,
    awake: Instant,
    feeds: Feeds,
    /// The bytes of all mirrors.
    bytes: usize,
    /// How many feeds are passed through, what of them is at hand until when, and its bytes.
    passed: usize,
    at_hand: BTreeSet<(Instant, Key)>,
    at_hand_bytes: usize,
    /// What recent versions take of all this.
    history_bytes: usize,
    reads: HashMap<u64, Read>,
    /// Channels that a shard refuses.
    refused: Refused,
    /// Subscriptions that are not confirmed yet.
    tickets: HashMap<u64, Key>,
    /// Feeds with something to settle.
    touched: BTreeSet<Key>,
    /// Feeds with a read that is due later.
    waiting: Vec<Key>,
    /// Feeds that may not be read at once.
    paced: Vec<Key>,
    /// Feeds that nobody wants, and since when.
    idle: BTreeSet<(Instant, Key)>,
    /// Those of the idle that hold nothing: any name can make one, so there are not many.
    idle_empty: BTreeSet<(Instant, Key)>,
    counter: u64,
    outs: Vec<Out>,
    effects: Vec<Effect>,
}

impl Keeper {
    /// Makes a keeper for shards of these names; none is heard yet.
    #[must_use]
    pub fn new(settings: Settings, shards: &[String], now: Instant) -> Self {
        Self {
            settings,
            shards: shards.iter().map(|name| Connection::new(name, now)).collect(),
            is_deaf: false,
            ticked: now,
            awake: now,
            feeds: Feeds::default(),
            bytes: 0,
            passed: 0,
            at_hand: BTreeSet::new(),
            at_hand_bytes: 0,
            history_bytes: 0,
            reads: HashMap::new(),
            refused: Refused::default(),
            tickets: HashMap::new(),
            touched: BTreeSet::new(),
            waiting: Vec::new(),
            paced: Vec::new(),
            idle: BTreeSet::new(),
            idle_empty: BTreeSet::new(),
            counter: 0,
            outs: Vec::new(),
            effects: Vec::new(),
        }
    }

    /// Returns the channels that every shard connection has from its start.
    #[must_use]
    pub fn standing_channels(&self) -> Vec<Bytes> {
        let finishes =
            self.settings.queues.iter().map(|queue| Bytes::from(format!("job.finish:{queue}")));
        std::iter::once(Bytes::from(self.settings.mark_channel.clone()))
            .chain(STANDING.map(Bytes::from_static))
            .chain(finishes)
            .collect()
    }

    /// Takes what is to be told to clients.
    pub fn outs(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.outs)
    }

    /// Takes what is to be done.
    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Returns the mirror of a feed, once it is filled; of one that is passed through, what is
    /// at hand.
    #[must_use]
    pub fn mirror(&self, feed: &str) -> Option<&Mirror> {
        match &self.feeds.get(Scope::Whole, feed)?.body {
            Body::Whole(mirror) => mirror.as_ref(),
            Body::Items(_) => None,
        }
    }

    /// Returns the item of a shared feed: `None` while it is not known, `Some(None)` if it is missing.
    #[must_use]
    pub fn item(&self, feed: &str, id: &str) -> Option<Option<&Bytes>> {
        match &self.feeds.get(Scope::Items, feed)?.body {
            Body::Items(items) => items.get(id),
            Body::Whole(_) => None,
        }
    }

    /// Tells whether a shard is heard now.
    #[must_use]
    pub fn is_up(&self, shard: usize) -> bool {
        self.shards[shard].is_heard()
    }

    /// Returns how many feeds are tracked and the bytes of their mirrors.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.feeds.len(), self.bytes)
    }

    /// Returns how many channels each shard connection carries.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<(&str, usize)> {
        let standing = STANDING.len() + 1 + self.settings.queues.len();
        let count = |shard: &Connection| standing + shard.members.len() * VERBS.len();
        let shards = self.shards.iter().filter(|shard| !shard.gone);
        shards.map(|shard| (shard.name.as_str(), count(shard))).collect()
    }

    /// Wants a feed mirrored; [`Out::Filled`] follows when it is not filled yet.
    pub fn want(&mut self, feed: &Arc<str>, shard: usize, now: Instant) {
        self.track(&(Scope::Whole, feed.clone()), shard, now);
        self.fetch(feed, now);
    }

    /// Wants a feed once less; without users it lingers.
    pub fn unwant(&mut self, feed: &Arc<str>, now: Instant) {
        self.release((Scope::Whole, feed.clone()), now);
    }

    /// Wants one item of a shared feed; [`Out::ItemFilled`] follows when it is not known yet.
    pub fn want_item(&mut self, feed: &Arc<str>, id: &str, shard: usize, now: Instant) {
        let key = (Scope::Items, feed.clone());
        if let Body::Items(items) = &mut self.track(&key, shard, now).body {
            items.want(id);
        }
        self.enqueue(&key, now);
        self.pump(shard, now);
    }

    /// Wants an item once less.
    pub fn unwant_item(&mut self, feed: &Arc<str>, id: &str, now: Instant) {
        let key = (Scope::Items, feed.clone());
        if let Some(Tracked { body: Body::Items(items), .. }) = self.feeds.at_mut(&key)
            && items.unwant(id)
        {
            self.weigh(&key);
            self.release(key, now);
        }
    }

    /// Counts one who wants a feed, and subscribes what nobody wanted.
    fn track(&mut self, key: &Key, shard: usize, now: Instant) -> &mut Tracked {
        if self.feeds.at(key).is_none() {
            self.counter += 1;
            let ticket = self.counter;
            self.tickets.insert(ticket, key.clone());
            self.effects.push(Effect::Subscribe { shard, channels: channels(&key.1), ticket });
            self.shards[shard].members.insert(key.clone());
            self.feeds.insert(key.clone(), Tracked::new(shard, Body::empty(key.0), ticket, now));
        }
        let tracked = self.feeds.at_mut(key).expect("was inserted above");
        tracked.users = Users::Some(match tracked.users {
            Users::Some(users) => users.saturating_add(1),
            Users::NoneSince(since) => {
                let idle = (since, key.clone());
                self.idle.remove(&idle);
                self.idle_empty.remove(&idle);
                NonZeroU64::MIN
            }
        });
        tracked
    }

    fn release(&mut self, key: Key, now: Instant) {
        let Some(tracked) = self.feeds.at_mut(&key) else { return };
        let Users::Some(users) = tracked.users else { return };
        if let Some(fewer) = NonZeroU64::new(users.get() - 1) {
            tracked.users = Users::Some(fewer);
        } else {
            tracked.users = Users::NoneSince(now);
            if tracked.body.bytes() == 0 {
                self.idle_empty.insert((now, key.clone()));
            }
            self.idle.insert((now, key));
        }
        if self.idle_empty.len() > IDLE_EMPTY {
            let (_, oldest) = self.idle_empty.first().expect("is not empty").clone();
            self.forget(&oldest);
        }
    }

    /// Brings the totals in line with what a feed takes now.
    fn weigh(&mut self, key: &Key) {
        let tracked = self.feeds.at_mut(key).expect("the caller looked");
        let (bytes, history) = (tracked.body.bytes(), tracked.body.history_bytes());
        let before = std::mem::replace(&mut tracked.history, history);
        self.history_bytes = self.history_bytes + history - before;
        let (bytes, at_hand) = if tracked.passed.is_some() { (0, bytes) } else { (bytes, 0) };
        self.bytes = self.bytes + bytes - std::mem::replace(&mut tracked.bytes, bytes);
        let before = std::mem::replace(&mut tracked.at_hand, at_hand);
        self.at_hand_bytes = self.at_hand_bytes + at_hand - before;
    }

    /// Takes in what a shard connection tells.
    pub fn heard(&mut self, shard: usize, heard: Heard, now: Instant) {
        match heard {
            Heard::Up => self.up(shard, now),
            Heard::Lost { reason } => self.lost(shard, &reason, now),
            Heard::Confirmed { ticket } => {
                self.granted(shard, ticket, now);
                if let Some(key) = self.tickets.remove(&ticket)
                    && let Some(tracked) = self.feeds.at_mut(&key)
                {
                    tracked.ticket = None;
                    self.request(&key, Cause::Fill, now);
                }
            }
            Heard::Refused { channel, error } => self.refused(shard, channel, &error, now),
            Heard::Notice { channel, payload } => self.notice(shard, &channel, &payload, now),
        }
        self.pump(shard, now);
    }

    /// Does what time brings; to be called every 100 ms or so.
    pub fn tick(&mut self, now: Instant) {
        self.wake(now);
        self.end_pauses(now);
        self.settle(now);
        self.listen(now);
        self.ask_again(now);
        for shard in 0..self.shards.len() {
            self.verify(shard, now);
            self.pump(shard, now);
        }
        self.let_go(now);
        self.drop_at_hand(now);
        metrics::mirrors(self.feeds.len(), self.bytes + self.at_hand_bytes, self.passed);
    }

    /// Drops mirrors that nobody wanted for a while.
    fn let_go(&mut self, now: Instant) {
        while let Some((since, _)) = self.idle.first()
            && now >= *since + self.settings.linger
        {
            let (_, key) = self.idle.first().expect("was just looked at").clone();
            self.forget(&key);
        }
    }

    /// Drops a feed that nobody wants.
    fn forget(&mut self, key: &Key) {
        self.end_passing(key);
        let tracked = self.feeds.remove(key).expect("what is idle is tracked");
        if let Users::NoneSince(since) = tracked.users {
            let idle = (since, key.clone());
            self.idle.remove(&idle);
            self.idle_empty.remove(&idle);
        }
        self.touched.remove(key);
        if let Some(ticket) = tracked.ticket {
            self.tickets.remove(&ticket.get());
        }
        self.bytes -= tracked.bytes;
        self.at_hand_bytes -= tracked.at_hand;
        self.history_bytes -= tracked.history;
        self.shards[tracked.shard()].members.remove(key);
        let channels = channels(&key.1);
        self.effects.push(Effect::Unsubscribe { shard: tracked.shard(), channels });
    }
}

/// The version of one lone item; a missing one counts as `{}`.
#[must_use]
pub fn item_version(id: &str, item: Option<&Bytes>) -> Version {
    Version::of_one(id, item.map_or(MISSING, |item| item))
}

/// What a missing item counts as.
pub const MISSING: &[u8] = b"{}";

/// The channel on which gateways tell each other what concerns users and rooms.
pub const CONTROL: &str = "gateway.control";

/// Channels that are heard whatever is wanted, besides the marks and our queues'.
const STANDING: [&[u8]; 4] = [CONTROL.as_bytes(), b"newfeed", b"delfeed", b"conffeed"];

const VERBS: [(&str, Verb); 4] = [
    ("feed.publish", Verb::Publish),
    ("feed.edit", Verb::Edit),
    ("feed.retract", Verb::Retract),
    ("feed.position", Verb::Position),
];

/// A feed that does not exist yet has no type, so all channels of its items are heard.
fn channels(feed: &str) -> Vec<Bytes> {
    VERBS.iter().map(|(verb, _)| Bytes::from(format!("{verb}:{feed}"))).collect()
}
