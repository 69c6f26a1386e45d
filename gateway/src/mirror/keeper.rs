//! Keeps the mirrors true: fills, follows, settles, repairs, lets go.
//!
//! A state machine without a clock and without I/O: what was heard and what was read
//! go in, [`Effect`]s to carry out and [`Out`]s for the clients come out. `live` is the
//! one task that drives it.
//!
//! Every read is *marked*: the script that reads also publishes a number to us. Notices
//! before that mark are part of what was read, notices behind it are held until the
//! answer is here and then applied on top. So a read needs no pause of the writers.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use shard_router::{
    feed::{BadFeed, Content, Settled, Touched},
    shard::{Heard, ShardError},
};
use tracing::{debug, error, info, warn};

use super::{Applied, Event, Mirror, Notice, Repair, Verb, Version};
use crate::metrics;

/// How the keeper behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Quiet time after which what a notice touched is read again.
    pub settle: Duration,
    /// How long a mirror without clients is kept.
    pub linger: Duration,
    /// The channel on which the shards answer with marks; ours alone.
    pub mark_channel: String,
    /// The job queues whose `job.finish` is heard from the start.
    pub queues: Vec<String>,
}

/// A feed that never grows quiet is settled this often all the same.
const SETTLE_AT_LEAST: Duration = Duration::from_secs(5);
/// Doubts of one feed are read at most this often.
const READ_PAUSE: Duration = Duration::from_secs(1);
/// A feed whose key has the wrong type, or whose shard is away, is tried again after this.
const RETRY: Duration = Duration::from_secs(2);
/// Reads of one shard under way at once: enough to fill the pipe, too few to drown it.
const READS_AT_ONCE: usize = 64;
/// Feeds in one settling read.
const SETTLE_BATCH: usize = 200;
/// Ids in one settling read.
const SETTLE_IDS: usize = 2_000;
/// Bytes of notices of one feed held behind a mark.
const HELD_BYTES: usize = 4 << 20;
/// Each shard is asked for a mark this often.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// A mark that the shard has sent is heard within this, or the connection is deaf.
const MARK_WITHIN: Duration = Duration::from_secs(3);

/// What the keeper asks to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read a whole feed; answer by [`Keeper::answered`].
    Read { shard: usize, feed: Arc<str>, nonce: u64 },
    /// Read some items; answer by [`Keeper::answered`].
    Settle { shard: usize, touched: Vec<Touched>, nonce: u64 },
    /// Publish a mark; answer by [`Keeper::probed`].
    Mark { shard: usize, nonce: u64 },
    /// Subscribe channels.
    Subscribe { shard: usize, channels: Vec<Bytes>, ticket: u64 },
    /// Leave channels.
    Unsubscribe { shard: usize, channels: Vec<Bytes> },
    /// Give the subscription connection up and make a new one.
    Reset { shard: usize, reason: &'static str },
}

/// What the keeper found out, in the order in which clients must learn it.
#[derive(Debug)]
pub enum Out {
    /// A feed has its first content.
    Filled(Arc<str>),
    /// One change of a feed; the mirror holds it already.
    Event(Arc<str>, Event),
    /// The difference is longer than the feed: it is to be sent anew.
    Reset(Arc<str>),
    /// The item of a shared feed is known for the first time.
    ItemFilled(Arc<str>, String),
    /// The item of a shared feed is another now.
    Item(Arc<str>, String),
    /// A job is finished.
    Finished { queue: String, id: String, result: Bytes },
    /// A message on `gateway.control`.
    Control(Bytes),
    /// A shard is heard, or not any more.
    Shard { shard: usize, up: bool },
}

/// What a read brought for one feed.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The whole feed.
    Full(Content),
    /// The items that were asked for.
    Settled(Settled),
}

/// Whether a feed is mirrored whole or by some of its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Scope {
    Whole,
    Items,
}

/// Why a feed is read; a label of `mirror_repairs_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Fill,
    Reconnect,
    Doubt,
    Settle,
}

impl Cause {
    const fn label(self) -> &'static str {
        match self {
            Self::Fill => "fill",
            Self::Reconnect => "reconnect",
            Self::Doubt => "doubt",
            Self::Settle => "settle",
        }
    }
}

/// All mirrors of this gateway.
#[derive(Debug)]
pub struct Keeper {
    settings: Settings,
    shards: Vec<Shard>,
    tracked: HashMap<(Scope, Arc<str>), Tracked>,
    reads: HashMap<u64, Read>,
    tickets: HashMap<u64, Key>,
    touched: BTreeSet<Key>,
    waiting: Vec<Key>,
    idle: BTreeSet<Key>,
    counter: u64,
    outs: Vec<Out>,
    effects: Vec<Effect>,
}

type Key = (Scope, Arc<str>);

impl PartialOrd for Scope {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scope {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (*self as u8).cmp(&(*other as u8))
    }
}

#[derive(Debug)]
struct Shard {
    name: String,
    up: bool,
    queue: VecDeque<Key>,
    reading: usize,
    probe: Option<Probe>,
    next_probe: Instant,
}

#[derive(Debug)]
struct Probe {
    nonce: u64,
    sent: Instant,
    answered: Option<Instant>,
}

/// One script under way that reads for one or more feeds.
#[derive(Debug)]
struct Read {
    shard: usize,
    members: Vec<Key>,
    marked: bool,
    answered: Option<Instant>,
}

#[derive(Debug)]
struct Tracked {
    shard: usize,
    body: Body,
    /// The ticket of the subscription that is not confirmed yet.
    ticket: Option<u64>,
    reading: Option<Reading>,
    /// A read that is due, and why.
    due: Option<Cause>,
    /// Whether it stands in its shard's queue or among the waiting.
    queued: bool,
    not_before: Instant,
    touched: BTreeSet<String>,
    touched_first: Instant,
    touched_last: Instant,
    users: usize,
    idle_since: Instant,
    failing: bool,
}

#[derive(Debug)]
enum Body {
    Whole(Option<Mirror>),
    /// Wanted ids, how often each is wanted, and what is known: not yet, missing, or the item.
    Items(HashMap<String, (usize, Option<Option<Bytes>>)>),
}

#[derive(Debug)]
struct Reading {
    nonce: u64,
    cause: Cause,
    asked: Option<Touched>,
    answer: Option<Result<Answer, BadFeed>>,
    marked: bool,
    held: Vec<Notice>,
    held_bytes: usize,
    overflow: bool,
}

impl Keeper {
    /// Makes a keeper for shards of these names; none is heard yet.
    #[must_use]
    pub fn new(settings: Settings, shards: &[String], now: Instant) -> Self {
        let shard = |name: &String| Shard {
            name: name.clone(),
            up: false,
            queue: VecDeque::new(),
            reading: 0,
            probe: None,
            next_probe: now,
        };
        for name in shards {
            metrics::shard_up(name, false);
        }
        Self {
            settings,
            shards: shards.iter().map(shard).collect(),
            tracked: HashMap::new(),
            reads: HashMap::new(),
            tickets: HashMap::new(),
            touched: BTreeSet::new(),
            waiting: Vec::new(),
            idle: BTreeSet::new(),
            counter: 0,
            outs: Vec::new(),
            effects: Vec::new(),
        }
    }

    /// Returns the channels that every shard connection has from its start.
    #[must_use]
    pub fn standing_channels(&self) -> Vec<Bytes> {
        let standing =
            [self.settings.mark_channel.as_str(), CONTROL, "newfeed", "delfeed", "conffeed"];
        standing
            .iter()
            .map(|name| Bytes::copy_from_slice(name.as_bytes()))
            .chain(
                self.settings.queues.iter().map(|queue| Bytes::from(format!("job.finish:{queue}"))),
            )
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

    /// Returns the mirror of a feed, once it is filled.
    #[must_use]
    pub fn mirror(&self, feed: &str) -> Option<&Mirror> {
        match &self.tracked.get(&(Scope::Whole, feed.into()))?.body {
            Body::Whole(mirror) => mirror.as_ref(),
            Body::Items(_) => None,
        }
    }

    /// Returns the item of a shared feed: `None` while it is not known, `Some(None)` if it is missing.
    #[must_use]
    pub fn item(&self, feed: &str, id: &str) -> Option<Option<&Bytes>> {
        match &self.tracked.get(&(Scope::Items, feed.into()))?.body {
            Body::Items(items) => items.get(id)?.1.as_ref().map(Option::as_ref),
            Body::Whole(_) => None,
        }
    }

    /// Tells whether a shard is heard now.
    #[must_use]
    pub fn is_up(&self, shard: usize) -> bool {
        self.shards[shard].up
    }

    /// Returns how many mirrors there are and their bytes.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let bytes = |tracked: &Tracked| match &tracked.body {
            Body::Whole(mirror) => mirror.as_ref().map_or(0, Mirror::bytes),
            Body::Items(items) => {
                items.values().flat_map(|(_, item)| item.iter().flatten()).map(Bytes::len).sum()
            }
        };
        (self.tracked.len(), self.tracked.values().map(bytes).sum())
    }

    /// Wants a feed mirrored; [`Out::Filled`] follows when it is not filled yet.
    pub fn want(&mut self, feed: &Arc<str>, shard: usize, now: Instant) {
        let key = (Scope::Whole, feed.clone());
        self.track(&key, shard, Body::Whole(None), now).users += 1;
        self.idle.remove(&key);
    }

    /// Wants a feed once less; without users it lingers.
    pub fn unwant(&mut self, feed: &Arc<str>, now: Instant) {
        self.release((Scope::Whole, feed.clone()), now);
    }

    /// Wants one item of a shared feed; [`Out::ItemFilled`] follows when it is not known yet.
    pub fn want_item(&mut self, feed: &Arc<str>, id: &str, shard: usize, now: Instant) {
        let key = (Scope::Items, feed.clone());
        let tracked = self.track(&key, shard, Body::Items(HashMap::new()), now);
        tracked.users += 1;
        let Body::Items(items) = &mut tracked.body else {
            unreachable!("an Items key has an Items body")
        };
        let entry = items.entry(id.to_owned()).or_insert((0, None));
        entry.0 += 1;
        let unknown = entry.1.is_none();
        self.idle.remove(&key);
        if unknown {
            self.request(&key, Cause::Fill, now);
        }
        self.pump(shard, now);
    }

    /// Wants an item once less.
    pub fn unwant_item(&mut self, feed: &Arc<str>, id: &str, now: Instant) {
        let key = (Scope::Items, feed.clone());
        if let Some(Tracked { body: Body::Items(items), .. }) = self.tracked.get_mut(&key)
            && let Some(entry) = items.get_mut(id)
        {
            entry.0 -= 1;
            if entry.0 == 0 {
                items.remove(id);
            }
        }
        self.release(key, now);
    }

    fn track(&mut self, key: &Key, shard: usize, body: Body, now: Instant) -> &mut Tracked {
        if !self.tracked.contains_key(key) {
            self.counter += 1;
            let ticket = self.counter;
            self.tickets.insert(ticket, key.clone());
            self.effects.push(Effect::Subscribe { shard, channels: channels(&key.1), ticket });
            let tracked = Tracked {
                shard,
                body,
                ticket: Some(ticket),
                reading: None,
                due: None,
                queued: false,
                not_before: now,
                touched: BTreeSet::new(),
                touched_first: now,
                touched_last: now,
                users: 0,
                idle_since: now,
                failing: false,
            };
            self.tracked.insert(key.clone(), tracked);
        }
        self.tracked.get_mut(key).expect("was inserted above")
    }

    fn release(&mut self, key: Key, now: Instant) {
        if let Some(tracked) = self.tracked.get_mut(&key) {
            tracked.users -= 1;
            if tracked.users == 0 {
                tracked.idle_since = now;
                self.idle.insert(key);
            }
        }
    }

    /// Takes in what a shard connection tells.
    pub fn heard(&mut self, shard: usize, heard: Heard, now: Instant) {
        match heard {
            Heard::Up => self.up(shard, now),
            Heard::Lost { reason } => self.lost(shard, &reason),
            Heard::Confirmed { ticket } => {
                if let Some(key) = self.tickets.remove(&ticket)
                    && let Some(tracked) = self.tracked.get_mut(&key)
                {
                    tracked.ticket = None;
                    self.request(&key, Cause::Fill, now);
                }
            }
            Heard::Refused { channel, error } => {
                metrics::mirror_error("channel_refused");
                let (name, channel) = (&self.shards[shard].name, String::from_utf8_lossy(&channel));
                error!(shard = %name, %channel, %error, "Shard refuses a channel; grant it to the gateway's user.");
            }
            Heard::Notice { channel, payload } => self.notice(shard, &channel, &payload, now),
        }
        self.pump(shard, now);
    }

    fn up(&mut self, shard: usize, now: Instant) {
        self.shards[shard].up = true;
        self.shards[shard].probe = None;
        self.shards[shard].next_probe = now;
        info!(shard = %self.shards[shard].name, "Shard is heard.");
        metrics::shard_up(&self.shards[shard].name, true);
        self.outs.push(Out::Shard { shard, up: true });
        let confirmed = |tracked: &Tracked| tracked.shard == shard && tracked.ticket.is_none();
        let keys: Vec<Key> = self
            .tracked
            .iter()
            .filter(|(_, tracked)| confirmed(tracked))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            let tracked = self.tracked.get_mut(&key).expect("was just listed");
            // Whatever kept it waiting was said of the connection before.
            tracked.not_before = now;
            self.request(&key, Cause::Reconnect, now);
        }
    }

    fn lost(&mut self, shard: usize, reason: &str) {
        warn!(shard = %self.shards[shard].name, reason, "Shard is not heard any more; its feeds stay as they are.");
        metrics::shard_up(&self.shards[shard].name, false);
        self.shards[shard].up = false;
        self.shards[shard].probe = None;
        self.shards[shard].queue.clear();
        self.shards[shard].reading = 0;
        self.outs.push(Out::Shard { shard, up: false });
        self.reads.retain(|_, read| read.shard != shard);
        for tracked in self.tracked.values_mut().filter(|tracked| tracked.shard == shard) {
            tracked.reading = None;
            tracked.due = None;
            tracked.queued = false;
        }
        let tracked = &self.tracked;
        self.waiting.retain(|key| tracked.get(key).is_some_and(|tracked| tracked.shard != shard));
    }

    fn notice(&mut self, shard: usize, channel: &[u8], payload: &Bytes, now: Instant) {
        let Ok(channel) = std::str::from_utf8(channel) else {
            return metrics::mirror_error("channel_name");
        };
        if channel == self.settings.mark_channel {
            return self.mark(shard, payload, now);
        }
        if channel == CONTROL {
            return self.outs.push(Out::Control(payload.clone()));
        }
        match channel.split_once(':') {
            Some(("job.finish", queue)) => self.finished(queue, payload),
            Some((verb, feed)) => {
                let Some((_, verb)) = VERBS.iter().find(|(name, _)| *name == verb) else { return };
                for scope in [Scope::Whole, Scope::Items] {
                    let key = (scope, Arc::from(feed));
                    if self.tracked.contains_key(&key) {
                        self.feed_notice(&key, *verb, payload, now);
                    }
                }
            }
            None => self.existence(channel, payload, now),
        }
    }

    fn finished(&mut self, queue: &str, payload: &Bytes) {
        let cut = payload.iter().position(|byte| *byte == 0);
        let Some((cut, id)) =
            cut.and_then(|cut| Some((cut, std::str::from_utf8(&payload[..cut]).ok()?)))
        else {
            metrics::mirror_error("job_finish");
            return warn!(queue, "A job.finish notice has no NUL or no readable id; ignored.");
        };
        let result = payload.slice(cut + 1..);
        self.outs.push(Out::Finished { queue: queue.to_owned(), id: id.to_owned(), result });
    }

    /// `newfeed`, `delfeed` and `conffeed`: the feed may be another than it was.
    fn existence(&mut self, channel: &str, payload: &[u8], now: Instant) {
        let Some(name) =
            payload.split(|byte| *byte == 0).next().filter(|name| name.len() < payload.len())
        else {
            metrics::mirror_error("notice");
            return warn!(channel, "A notice has no NUL; ignored.");
        };
        let Ok(name) = std::str::from_utf8(name) else { return };
        for scope in [Scope::Whole, Scope::Items] {
            let key = (scope, Arc::from(name));
            let Some(tracked) = self.tracked.get(&key) else { continue };
            let settled = match &tracked.body {
                Body::Whole(Some(mirror)) => mirror.kind() != shard_router::feed::Kind::Unknown,
                _ => true,
            };
            if channel == "delfeed" || !settled {
                self.request(&key, Cause::Doubt, now);
            }
        }
    }

    fn feed_notice(&mut self, key: &Key, verb: Verb, payload: &Bytes, now: Instant) {
        let tracked = self.tracked.get_mut(key).expect("the caller looked");
        let notice = match Notice::parse(verb, payload) {
            Ok(notice) => notice,
            Err(error) => {
                metrics::mirror_error("notice");
                warn!(feed = %key.1, ?verb, %error, "A notice does not fit the contract; the feed is read again.");
                return self.request(key, Cause::Doubt, now);
            }
        };
        if let Some(reading) = &mut tracked.reading
            && reading.marked
        {
            reading.held_bytes += payload.len();
            if reading.held_bytes > HELD_BYTES {
                reading.overflow = true;
                reading.held.clear();
            } else {
                reading.held.push(notice);
            }
            return;
        }
        self.apply(key, &notice, now);
    }

    /// Follows one notice; a doubt changes nothing and is read.
    fn apply(&mut self, key: &Key, notice: &Notice, now: Instant) {
        let tracked = self.tracked.get_mut(key).expect("the caller looked");
        let concerns = match &tracked.body {
            Body::Whole(mirror) => mirror.is_some(),
            Body::Items(items) => items.contains_key(notice.id()),
        };
        if !concerns {
            return;
        }
        if tracked.touched.is_empty() {
            tracked.touched_first = now;
            self.touched.insert(key.clone());
        }
        tracked.touched_last = now;
        tracked.touched.insert(notice.id().to_owned());
        match &mut tracked.body {
            Body::Whole(Some(mirror)) => match mirror.apply(notice) {
                Applied::Nothing | Applied::Held => {}
                Applied::Event(event) => self.outs.push(Out::Event(key.1.clone(), event)),
                Applied::Doubt(doubt) => {
                    debug!(feed = %key.1, ?doubt, "A notice does not fit; the feed is read again.");
                    self.request(key, Cause::Doubt, now);
                }
            },
            Body::Whole(None) => {}
            Body::Items(items) => {
                let item = match notice {
                    Notice::Publish { item, .. } | Notice::Edit { item, .. } => {
                        Some(Bytes::copy_from_slice(item))
                    }
                    Notice::Retract { .. } => None,
                    Notice::Position { .. } => return,
                };
                let known = &mut items.get_mut(notice.id()).expect("concerns us").1;
                if known.as_ref().is_some_and(|known| *known != item) {
                    *known = Some(item);
                    self.outs.push(Out::Item(key.1.clone(), notice.id().to_owned()));
                }
            }
        }
    }

    /// Has a feed read, one read at a time.
    fn request(&mut self, key: &Key, cause: Cause, now: Instant) {
        let tracked = self.tracked.get_mut(key).expect("the caller looked");
        tracked.due = Some(match tracked.due {
            Some(Cause::Fill) => Cause::Fill,
            _ => cause,
        });
        self.enqueue(key, now);
    }

    /// Queues a due read, unless something else comes first; that something enqueues again.
    fn enqueue(&mut self, key: &Key, now: Instant) {
        let tracked = self.tracked.get_mut(key).expect("the caller looked");
        let state = &mut self.shards[tracked.shard];
        let blocked = tracked.reading.is_some() || tracked.ticket.is_some() || !state.up;
        if tracked.due.is_none() || tracked.queued || blocked {
            return;
        }
        tracked.queued = true;
        if tracked.not_before > now {
            self.waiting.push(key.clone());
        } else {
            state.queue.push_back(key.clone());
        }
    }

    /// Starts due reads as far as the shard may be asked.
    fn pump(&mut self, shard: usize, now: Instant) {
        while self.shards[shard].up && self.shards[shard].reading < READS_AT_ONCE {
            let Some(key) = self.shards[shard].queue.pop_front() else { return };
            let Some(tracked) = self.tracked.get_mut(&key) else { continue };
            tracked.queued = false;
            if tracked.reading.is_some() {
                continue;
            }
            let Some(cause) = tracked.due.take() else { continue };
            self.counter += 1;
            let nonce = self.counter;
            let (effect, asked) = match &tracked.body {
                Body::Whole(_) => (Effect::Read { shard, feed: key.1.clone(), nonce }, None),
                Body::Items(items) => {
                    let asked =
                        Touched { feed: key.1.to_string(), ids: items.keys().cloned().collect() };
                    (Effect::Settle { shard, touched: vec![asked.clone()], nonce }, Some(asked))
                }
            };
            tracked.touched.clear();
            self.touched.remove(&key);
            tracked.not_before = now + READ_PAUSE;
            tracked.reading = Some(Reading::new(nonce, cause, asked));
            self.effects.push(effect);
            self.shards[shard].reading += 1;
            metrics::mirror_read(1);
            self.reads
                .insert(nonce, Read { shard, members: vec![key], marked: false, answered: None });
        }
    }

    /// A mark came back: what was read holds here.
    fn mark(&mut self, shard: usize, payload: &[u8], now: Instant) {
        let Some(nonce) =
            std::str::from_utf8(payload).ok().and_then(|text| text.parse::<u64>().ok())
        else {
            return metrics::mirror_error("mark");
        };
        let state = &mut self.shards[shard];
        if let Some(probe) = &state.probe
            && probe.nonce == nonce
        {
            metrics::shard_probe(&state.name, now - probe.sent);
            state.probe = None;
            return;
        }
        let Some(read) = self.reads.get_mut(&nonce).filter(|read| read.shard == shard) else {
            return;
        };
        read.marked = true;
        let answered = read.answered.is_some();
        for key in read.members.clone() {
            let Some(tracked) = self.tracked.get_mut(&key) else { continue };
            if let Some(reading) = tracked.reading.as_mut().filter(|reading| reading.nonce == nonce)
            {
                reading.marked = true;
                if let Body::Whole(Some(mirror)) = &mut tracked.body {
                    mirror.drop_held();
                }
            }
        }
        if answered {
            self.complete(nonce, now);
        }
    }

    /// Takes in what a read brought, one answer for each feed that it was about.
    pub fn answered(
        &mut self,
        nonce: u64,
        answers: Result<Vec<Result<Answer, BadFeed>>, ShardError>,
        now: Instant,
    ) {
        let Some(read) = self.reads.get_mut(&nonce) else { return };
        let shard = read.shard;
        match answers {
            Ok(answers) => {
                read.answered = Some(now);
                let marked = read.marked;
                for (key, answer) in read.members.clone().iter().zip(answers) {
                    if let Some(reading) = self.reading(key, nonce) {
                        reading.answer = Some(answer);
                    }
                }
                if marked {
                    self.complete(nonce, now);
                }
            }
            Err(error) => {
                warn!(shard = %self.shards[shard].name, %error, "A feed could not be read; will retry.");
                metrics::shard_error(&self.shards[shard].name);
                self.abandon(nonce, now);
            }
        }
        self.pump(shard, now);
    }

    fn reading(&mut self, key: &Key, nonce: u64) -> Option<&mut Reading> {
        self.tracked.get_mut(key)?.reading.as_mut().filter(|reading| reading.nonce == nonce)
    }

    /// Ends a read that brought nothing: what was held is followed, and the feed stays due.
    fn abandon(&mut self, nonce: u64, now: Instant) {
        let Some(read) = self.reads.remove(&nonce) else { return };
        self.shards[read.shard].reading -= 1;
        for key in read.members {
            let Some(tracked) = self.tracked.get_mut(&key) else { continue };
            let Some(reading) = tracked.reading.take_if(|reading| reading.nonce == nonce) else {
                continue;
            };
            tracked.not_before = now + RETRY;
            for notice in &reading.held {
                self.apply(&key, notice, now);
            }
            self.request(&key, reading.cause, now);
        }
    }

    /// Ends a read whose mark and answer are both here.
    fn complete(&mut self, nonce: u64, now: Instant) {
        let Some(read) = self.reads.remove(&nonce) else { return };
        self.shards[read.shard].reading -= 1;
        for key in read.members {
            let Some(tracked) = self.tracked.get_mut(&key) else { continue };
            let Some(reading) = tracked.reading.take_if(|reading| reading.nonce == nonce) else {
                continue;
            };
            match reading.answer.expect("an answered read has an answer for each member") {
                Ok(answer) => {
                    tracked.failing = false;
                    self.take(&key, answer, reading.asked.as_ref(), reading.cause, now);
                }
                Err(bad) => {
                    if !tracked.failing {
                        metrics::mirror_error("wrong_type");
                        error!(feed = %key.1, error = %bad, "A feed's key is of the wrong type; the last good state stays.");
                    }
                    tracked.failing = true;
                    tracked.not_before = now + RETRY;
                    self.request(&key, reading.cause, now);
                }
            }
            for notice in &reading.held {
                self.apply(&key, notice, now);
            }
            let tracked = self.tracked.get_mut(&key).expect("nothing above removes it");
            if reading.overflow {
                tracked.due = Some(Cause::Doubt);
            }
            self.enqueue(&key, now);
        }
    }

    /// Believes what a read brought and tells the difference.
    fn take(
        &mut self,
        key: &Key,
        answer: Answer,
        asked: Option<&Touched>,
        cause: Cause,
        now: Instant,
    ) {
        let tracked = self.tracked.get_mut(key).expect("the caller looked");
        let repair = match (&mut tracked.body, answer) {
            (Body::Whole(body), Answer::Full(content)) => {
                if content.bad_ids > 0 {
                    metrics::mirror_error("bad_id");
                    warn!(feed = %key.1, ids = content.bad_ids, "A feed has ids that are not UTF-8 or hold NUL; left out.");
                }
                match body {
                    Some(mirror) => mirror.replace(&content),
                    None => {
                        *body = Some(Mirror::new(&content));
                        self.outs.push(Out::Filled(key.1.clone()));
                        Repair::Nothing
                    }
                }
            }
            (Body::Whole(Some(mirror)), Answer::Settled(settled)) => {
                let asked = asked.expect("a settling read names what it asked");
                match mirror.settle(asked, &settled) {
                    Ok(repair) => repair,
                    Err(doubt) => {
                        debug!(feed = %key.1, ?doubt, "Settling needs the whole feed.");
                        return self.request(key, Cause::Settle, now);
                    }
                }
            }
            (Body::Whole(None), Answer::Settled(_)) => return,
            (Body::Items(items), Answer::Settled(settled)) => {
                let asked = asked.expect("a read of items names what it asked");
                for (id, item) in asked.ids.iter().zip(settled.items) {
                    let Some((_, known)) = items.get_mut(id) else { continue };
                    let out = match known {
                        None => Out::ItemFilled(key.1.clone(), id.clone()),
                        Some(known) if *known != item => {
                            metrics::mirror_repaired(cause.label());
                            Out::Item(key.1.clone(), id.clone())
                        }
                        Some(_) => continue,
                    };
                    *known = Some(item);
                    self.outs.push(out);
                }
                // Ids that came to be wanted while the read was under way.
                if items.values().any(|(_, known)| known.is_none()) {
                    tracked.not_before = now;
                    self.request(key, Cause::Fill, now);
                }
                return;
            }
            (Body::Items(_), Answer::Full(_)) => unreachable!("items are read by settling reads"),
        };
        match repair {
            Repair::Nothing => {}
            Repair::Events(events) => {
                metrics::mirror_repaired(cause.label());
                self.outs.extend(events.into_iter().map(|event| Out::Event(key.1.clone(), event)));
            }
            Repair::Reset => {
                metrics::mirror_repaired(cause.label());
                self.outs.push(Out::Reset(key.1.clone()));
            }
        }
    }

    /// Takes in that the shard has sent a mark, or could not.
    pub fn probed(&mut self, shard: usize, nonce: u64, sent: Result<(), ShardError>, now: Instant) {
        let state = &mut self.shards[shard];
        let Some(probe) = state.probe.as_mut().filter(|probe| probe.nonce == nonce) else { return };
        match sent {
            Ok(()) => probe.answered = Some(now),
            Err(error) => {
                debug!(shard = %state.name, %error, "Shard could not be asked for a mark.");
                metrics::shard_error(&state.name);
                state.probe = None;
            }
        }
    }

    /// Does what time brings; to be called every 100 ms or so.
    pub fn tick(&mut self, now: Instant) {
        for key in std::mem::take(&mut self.waiting) {
            let Some(tracked) = self.tracked.get(&key) else { continue };
            if tracked.not_before <= now {
                self.shards[tracked.shard].queue.push_back(key);
            } else {
                self.waiting.push(key);
            }
        }
        self.settle(now);
        let late =
            |read: &Read| !read.marked && read.answered.is_some_and(|at| now > at + MARK_WITHIN);
        let deaf: BTreeSet<usize> =
            self.reads.values().filter(|read| late(read)).map(|read| read.shard).collect();
        for shard in 0..self.shards.len() {
            self.probe(shard, deaf.contains(&shard), now);
            self.pump(shard, now);
        }
        self.let_go(now);
        let (count, bytes) = self.size();
        metrics::mirrors(count, bytes);
    }

    fn probe(&mut self, shard: usize, deaf: bool, now: Instant) {
        let state = &mut self.shards[shard];
        if !state.up {
            return;
        }
        let late = |probe: &Probe| probe.answered.is_some_and(|at| now > at + MARK_WITHIN);
        if deaf || state.probe.as_ref().is_some_and(late) {
            state.probe = None;
            state.next_probe = now + PROBE_EVERY;
            let reason = "a mark that the shard has sent was not heard";
            return self.effects.push(Effect::Reset { shard, reason });
        }
        if state.probe.is_none() && state.next_probe <= now {
            self.counter += 1;
            state.probe = Some(Probe { nonce: self.counter, sent: now, answered: None });
            state.next_probe = now + PROBE_EVERY;
            self.effects.push(Effect::Mark { shard, nonce: self.counter });
        }
    }

    /// Reads again what notices touched and what is quiet by now, many feeds in one script.
    fn settle(&mut self, now: Instant) {
        let mut batches: HashMap<usize, Vec<(Key, Touched)>> = HashMap::new();
        let quiet = |tracked: &Tracked| {
            now >= tracked.touched_last + self.settings.settle
                || now >= tracked.touched_first + SETTLE_AT_LEAST
        };
        let due: Vec<Key> = self
            .touched
            .iter()
            .filter(|key| {
                let tracked = &self.tracked[*key];
                let free =
                    tracked.reading.is_none() && tracked.due.is_none() && tracked.ticket.is_none();
                free && self.shards[tracked.shard].up && quiet(tracked)
            })
            .cloned()
            .collect();
        for key in due {
            self.touched.remove(&key);
            let tracked = self.tracked.get_mut(&key).expect("was just listed");
            let ids = std::mem::take(&mut tracked.touched).into_iter().collect();
            let touched = Touched { feed: key.1.to_string(), ids };
            batches.entry(tracked.shard).or_default().push((key, touched));
        }
        for (shard, batch) in batches {
            let mut rest = batch.into_iter().peekable();
            while rest.peek().is_some() {
                self.counter += 1;
                let nonce = self.counter;
                let (mut members, mut touched, mut ids) = (Vec::new(), Vec::new(), 0);
                while let Some((_, next)) = rest.peek()
                    && (members.is_empty() || ids + next.ids.len() <= SETTLE_IDS)
                    && members.len() < SETTLE_BATCH
                {
                    ids += next.ids.len();
                    let (key, asked) = rest.next().expect("was just peeked");
                    let tracked = self.tracked.get_mut(&key).expect("was just listed");
                    tracked.reading = Some(Reading::new(nonce, Cause::Settle, Some(asked.clone())));
                    members.push(key);
                    touched.push(asked);
                }
                metrics::mirror_read(members.len() as u64);
                self.shards[shard].reading += 1;
                self.reads.insert(nonce, Read { shard, members, marked: false, answered: None });
                self.effects.push(Effect::Settle { shard, touched, nonce });
            }
        }
    }

    /// Drops mirrors that nobody wanted for a while.
    fn let_go(&mut self, now: Instant) {
        let over: Vec<Key> = self
            .idle
            .iter()
            .filter(|key| now >= self.tracked[*key].idle_since + self.settings.linger)
            .cloned()
            .collect();
        for key in over {
            self.idle.remove(&key);
            self.touched.remove(&key);
            if let Some(tracked) = self.tracked.remove(&key) {
                if let Some(ticket) = tracked.ticket {
                    self.tickets.remove(&ticket);
                }
                self.effects
                    .push(Effect::Unsubscribe { shard: tracked.shard, channels: channels(&key.1) });
            }
        }
    }

    /// Returns how many channels each shard connection carries.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<(&str, usize)> {
        let standing = self.standing_channels().len();
        let mut counts = vec![standing; self.shards.len()];
        for tracked in self.tracked.values() {
            counts[tracked.shard] += VERBS.len();
        }
        self.shards.iter().map(|shard| shard.name.as_str()).zip(counts).collect()
    }
}

impl Reading {
    fn new(nonce: u64, cause: Cause, asked: Option<Touched>) -> Self {
        Self {
            nonce,
            cause,
            asked,
            answer: None,
            marked: false,
            held: Vec::new(),
            held_bytes: 0,
            overflow: false,
        }
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
