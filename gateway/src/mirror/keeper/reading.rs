//! Marked reads: when a feed is asked about, and what comes of the answer.

use std::time::{Duration, Instant};

use shard_router::{
    feed::{BadFeed, Content, Touched},
    shard::ShardError,
};
use tracing::{debug, error, info, warn};

use super::{
    Answer, Effect, Keeper, Out,
    feeds::{Body, Cause, Key, News, Tracked},
};
use crate::{
    metrics,
    mirror::{Doubt, Mirror, Notice, Repair},
};

/// Doubts of one feed are read at most this often.
const READ_PAUSE: Duration = Duration::from_secs(1);
/// A feed whose key has the wrong type, or whose shard is away, is tried again after this.
pub(super) const RETRY: Duration = Duration::from_secs(2);
/// Reads of one shard under way at once: enough to fill the pipe, too few to drown it.
pub(super) const READS_AT_ONCE: usize = 64;
/// Bytes that reads of one shard under way may bring, as far as their sizes are known.
const READ_BYTES: usize = 32 << 20;
/// How many of them are kept for settling, which else would wait behind every doubt.
const SETTLES_AT_ONCE: usize = 4;
/// Ids in one settling read.
pub(super) const SETTLE_IDS: usize = 2_000;
/// Bytes of notices of one feed held behind a mark.
pub(super) const HELD_BYTES: usize = 4 << 20;
/// What a held notice takes besides its payload.
const HELD_OVERHEAD: usize = 64;

/// One script under way that reads for one or more feeds.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) shard: usize,
    pub(super) members: Vec<Key>,
    /// About how many bytes it brings.
    bytes: usize,
    pub(super) marked: bool,
    pub(super) answered: Option<Instant>,
}

/// What one feed waits for.
#[derive(Debug)]
pub(super) struct Reading {
    nonce: u64,
    cause: Cause,
    /// What is asked; nothing is named where it is the whole feed.
    asked: Option<Touched>,
    answer: Option<Result<Answer, BadFeed>>,
    pub(super) marked: bool,
    /// What was heard behind the mark.
    held: Vec<Notice>,
    held_bytes: usize,
    overflow: bool,
    /// Whether clients of a feed that is passed through are to be told anew.
    anew: bool,
}

impl Reading {
    pub(super) fn new(nonce: u64, cause: Cause, asked: Option<Touched>) -> Self {
        Self {
            nonce,
            cause,
            asked,
            answer: None,
            marked: false,
            held: Vec::new(),
            held_bytes: 0,
            overflow: false,
            anew: false,
        }
    }

    /// Whether it is about the whole feed.
    pub(super) const fn is_whole(&self) -> bool {
        self.asked.is_none()
    }

    /// Keeps a notice until the answer is here; too many are a doubt.
    pub(super) fn hold(&mut self, notice: Notice, bytes: usize) {
        self.held_bytes += bytes + HELD_OVERHEAD;
        self.overflow |= self.held_bytes > HELD_BYTES;
        if self.overflow {
            self.held = Vec::new();
        } else {
            self.held.push(notice);
        }
    }
}

impl Tracked {
    /// Takes in that a read ended without telling clients anew.
    fn doubt_again(&mut self, reading: &Reading) {
        if let Some(passed) = &mut self.passed {
            passed.doubted |= reading.anew;
        }
    }
}

impl Keeper {
    /// Has a feed read, one read at a time.
    pub(super) fn request(&mut self, key: &Key, cause: Cause, now: Instant) {
        self.feeds.at_mut(key).expect("the caller looked").require(cause);
        self.enqueue(key, now);
    }

    /// Queues a due read, unless something else comes first; that something enqueues again.
    pub(super) fn enqueue(&mut self, key: &Key, now: Instant) {
        let tracked = self.feeds.at_mut(key).expect("the caller looked");
        let connection = &mut self.shards[tracked.shard()];
        let is_blocked = tracked.reading.is_some() || tracked.ticket.is_some() || !connection.up;
        let may_be_read = tracked.may_be_read(now);
        let Some(is_ready) = may_be_read.filter(|_| !tracked.queued && !is_blocked) else {
            return;
        };
        tracked.queued = true;
        if is_ready {
            connection.queue.push_back(key.clone());
        } else {
            self.waiting.push(key.clone());
        }
    }

    /// Queues what has waited long enough.
    pub(super) fn wake(&mut self, now: Instant) {
        for key in std::mem::take(&mut self.waiting) {
            let Some(tracked) = self.feeds.at_mut(&key) else { continue };
            match tracked.may_be_read(now) {
                Some(true) => self.shards[tracked.shard()].queue.push_back(key),
                Some(false) => self.waiting.push(key),
                None => tracked.queued = false,
            }
        }
    }

    /// Forgets what feeds waited for that may be read at once by now.
    pub(super) fn end_pauses(&mut self, now: Instant) {
        for key in std::mem::take(&mut self.paced) {
            let Some(tracked) = self.feeds.at_mut(&key) else { continue };
            tracked.pace.take_if(|pace| pace.is_over(now));
            if tracked.pace.is_some() {
                self.paced.push(key);
            }
        }
    }

    /// Has a feed read no more until its shard, or whoever wrote it, had time to mend it.
    fn retry_later(&mut self, key: &Key, now: Instant) {
        let tracked = self.feeds.at_mut(key).expect("the caller looked");
        tracked.pace(now).retry_at = now + RETRY;
        self.paced.push(key.clone());
    }

    /// Starts due reads as far as the shard may be asked.
    pub(super) fn pump(&mut self, shard: usize, now: Instant) {
        let most = READS_AT_ONCE - SETTLES_AT_ONCE;
        while self.shards[shard].up && self.shards[shard].reading < most {
            let connection = &mut self.shards[shard];
            let Some(key) = connection.queue.pop_front() else { return };
            let Some(tracked) = self.feeds.at_mut(&key) else { continue };
            tracked.queued = false;
            // An entry of a feed that was let go and is wanted again says nothing.
            let is_ready = tracked.may_be_read(now) == Some(true);
            if tracked.reading.is_some() || tracked.ticket.is_some() || !is_ready {
                self.enqueue(&key, now);
                continue;
            }
            let size = match tracked.body {
                Body::Whole(_) => tracked.size().unwrap_or(connection.usual_bytes),
                Body::Items(_) => 0,
            };
            if connection.reading_bytes > 0 && connection.reading_bytes + size > READ_BYTES {
                tracked.queued = true;
                return connection.queue.push_front(key);
            }
            let due = match tracked.may_be_due(now) {
                Some(true) => tracked.due.take(),
                Some(false) | None => None,
            };
            let cause = due.unwrap_or(Cause::Fill);
            self.counter += 1;
            let nonce = self.counter;
            let (effect, asked) = match &mut tracked.body {
                Body::Whole(_) => (Effect::Read { shard, feed: key.1.clone(), nonce }, None),
                Body::Items(items) => {
                    if due.is_some() {
                        items.open_all();
                    }
                    let ids = items.take_open(SETTLE_IDS);
                    if ids.is_empty() {
                        continue;
                    }
                    let asked = Touched { feed: key.1.to_string(), ids };
                    (Effect::Settle { shard, touched: vec![asked.clone()], nonce }, Some(asked))
                }
            };
            if due.is_some() {
                tracked.pace(now).paused_until = now + READ_PAUSE;
                self.paced.push(key.clone());
            }
            tracked.reading = Some(Box::new(Reading::new(nonce, cause, asked)));
            self.start(shard, nonce, vec![key], size, effect);
        }
    }

    pub(super) fn start(
        &mut self,
        shard: usize,
        nonce: u64,
        members: Vec<Key>,
        bytes: usize,
        effect: Effect,
    ) {
        metrics::mirror_read(members.len() as u64);
        self.shards[shard].reading += 1;
        self.shards[shard].reading_bytes += bytes;
        self.reads.insert(nonce, Read { shard, members, bytes, marked: false, answered: None });
        self.effects.push(effect);
    }

    /// A mark came back: what was read holds here.
    pub(super) fn mark(&mut self, shard: usize, payload: &[u8], now: Instant) {
        let Some(nonce) =
            std::str::from_utf8(payload).ok().and_then(|text| text.parse::<u64>().ok())
        else {
            return metrics::mirror_error("mark");
        };
        self.end_halves(shard);
        if self.hears(shard, nonce, now) || self.take_check_mark(shard, nonce, now) {
            return;
        }
        let Some(read) = self.reads.get_mut(&nonce).filter(|read| read.shard == shard) else {
            return;
        };
        read.marked = true;
        for key in &read.members {
            let Some(tracked) = self.feeds.at_mut(key) else { continue };
            let Some(reading) = tracked.reading.as_mut().filter(|reading| reading.nonce == nonce)
            else {
                continue;
            };
            reading.marked = true;
            // What was heard until here is older than what was read.
            match &reading.asked {
                None => {
                    tracked.due = None;
                    if let Some(passed) = &mut tracked.passed {
                        reading.anew |= std::mem::take(&mut passed.doubted);
                    }
                    tracked.untouch();
                }
                Some(asked) => {
                    if let Some(marks) = &mut tracked.marks {
                        for id in &asked.ids {
                            marks.touched.remove(id);
                        }
                        tracked.marks.take_if(|marks| marks.is_empty());
                    }
                }
            }
            if !tracked.is_touched() {
                self.touched.remove(key);
            }
            if let Body::Whole(Some(mirror)) = &mut tracked.body {
                mirror.drop_held();
            }
        }
        if read.answered.is_some() {
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
                if std::mem::take(&mut self.shards[shard].unreadable) {
                    info!(shard = %self.shards[shard].name, "Feeds are read again.");
                }
                read.answered = Some(now);
                for (key, answer) in read.members.iter().zip(answers) {
                    let reading =
                        self.feeds.at_mut(key).and_then(|tracked| tracked.reading.as_mut());
                    if let Some(reading) = reading.filter(|reading| reading.nonce == nonce) {
                        reading.answer = Some(answer);
                    }
                }
                if read.marked {
                    self.complete(nonce, now);
                }
            }
            Err(error) => {
                let connection = &mut self.shards[shard];
                if !std::mem::replace(&mut connection.unreadable, true) {
                    warn!(shard = %connection.name, %error, "Feeds could not be read; will retry.");
                }
                metrics::shard_error(&connection.name);
                if let Some(read) = self.end(nonce) {
                    for key in &read.members {
                        if let Some(reading) = self.end_reading(key, nonce) {
                            self.abandon(key, reading, now);
                        }
                    }
                }
            }
        }
        self.pump(shard, now);
    }

    fn end(&mut self, nonce: u64) -> Option<Read> {
        let read = self.reads.remove(&nonce)?;
        self.shards[read.shard].reading -= 1;
        self.shards[read.shard].reading_bytes -= read.bytes;
        Some(read)
    }

    fn end_reading(&mut self, key: &Key, nonce: u64) -> Option<Reading> {
        let reading = self.feeds.at_mut(key)?.reading.take_if(|reading| reading.nonce == nonce);
        reading.map(|reading| *reading)
    }

    /// Follows what was held behind a mark.
    fn follow_held(&mut self, key: &Key, reading: &Reading, now: Instant) {
        for notice in &reading.held {
            self.apply(key, notice, now);
        }
        if reading.overflow {
            self.request(key, Cause::Doubt, now);
        }
    }

    /// Ends a read that brought nothing: what was asked is asked again a little later.
    fn abandon(&mut self, key: &Key, mut reading: Reading, now: Instant) {
        self.retry_later(key, now);
        let tracked = self.feeds.at_mut(key).expect("the caller looked");
        tracked.doubt_again(&reading);
        match (reading.asked.take(), &mut tracked.body) {
            (None, _) => tracked.require(reading.cause),
            (Some(asked), Body::Items(items)) => items.reopen(asked.ids),
            (Some(asked), Body::Whole(_)) => {
                if !asked.ids.is_empty() {
                    self.touched.insert(key.clone());
                }
                for id in &asked.ids {
                    tracked.marks(now).touch(id, now);
                }
            }
        }
        self.follow_held(key, &reading, now);
        self.enqueue(key, now);
    }

    /// Ends a read whose mark and answer are both here.
    fn complete(&mut self, nonce: u64, now: Instant) {
        let Some(read) = self.end(nonce) else { return };
        for key in &read.members {
            let Some(mut reading) = self.end_reading(key, nonce) else { continue };
            let tracked = self.feeds.at_mut(key).expect("its reading was just taken");
            match reading.answer.take() {
                Some(Ok(answer)) => {
                    if std::mem::take(&mut tracked.failing) {
                        info!(feed = %key.1, "A feed's keys are of the right type again.");
                    }
                    self.take(key, answer, &reading, now);
                    self.weigh(key);
                }
                Some(Err(bad)) => {
                    if !tracked.failing {
                        metrics::mirror_error("wrong_type");
                        error!(feed = %key.1, error = %bad, "A feed's key is of the wrong type; the last good state stays.");
                    }
                    tracked.failing = true;
                    tracked.doubt_again(&reading);
                    self.retry_later(key, now);
                    self.request(key, reading.cause, now);
                }
                None => {
                    metrics::mirror_error("unanswered");
                    error!(feed = %key.1, "A read was not answered for each feed that it was about; will retry.");
                    self.abandon(key, reading, now);
                    continue;
                }
            }
            self.follow_held(key, &reading, now);
            self.bound(key, now);
            self.enqueue(key, now);
        }
    }

    /// Looks at a whole feed that was read; tells whether it was mirrored and still may be.
    fn is_mirrored(&mut self, key: &Key, content: &Content) -> bool {
        let bytes = Mirror::bytes_of(content);
        let tracked = self.feeds.at_mut(key).expect("the caller looked");
        tracked.suspect = false;
        if content.bad_ids > 0 {
            metrics::mirror_error("bad_id");
        }
        let bad_ids = u32::try_from(content.bad_ids).unwrap_or(u32::MAX);
        if std::mem::replace(&mut tracked.bad_ids, bad_ids) < bad_ids {
            warn!(feed = %key.1, ids = content.bad_ids, "A feed has ids that are not UTF-8 or hold NUL; left out.");
        }
        let is_passed = tracked.passed.is_some();
        let usual_bytes = &mut self.shards[tracked.shard()].usual_bytes;
        *usual_bytes = (*usual_bytes * 7 + bytes) / 8;
        !is_passed && self.fits(key, bytes)
    }

    /// Believes what a read brought and tells the difference.
    fn take(&mut self, key: &Key, answer: Answer, reading: &Reading, now: Instant) {
        let (asked, cause) = (reading.asked.as_ref(), reading.cause);
        if let Answer::Full(content) = &answer
            && !self.is_mirrored(key, content)
        {
            let fits = self.fits(key, Mirror::bytes_of(content));
            return self.take_large(key, content, fits, reading.anew, cause, now);
        }
        let tracked = self.feeds.at_mut(key).expect("the caller looked");
        let repair = match (&mut tracked.body, answer) {
            (Body::Whole(body), Answer::Full(content)) => match body {
                Some(mirror) => mirror.replace(&content),
                None => {
                    *body = Some(Mirror::new(&content));
                    self.outs.push(Out::Filled(key.1.clone()));
                    Repair::Nothing
                }
            },
            (Body::Whole(Some(mirror)), Answer::Settled(settled)) => {
                let asked = asked.expect("a settling read names what it asked");
                match mirror.settle(asked, &settled) {
                    Ok(repair) => {
                        tracked.sift_orphans(asked, &settled);
                        repair
                    }
                    Err(Doubt::Unread(ids)) => return self.settle_orphans(key, asked, ids, now),
                    Err(doubt) => {
                        debug!(feed = %key.1, ?doubt, "Settling needs the whole feed.");
                        return self.request(key, Cause::Settle, now);
                    }
                }
            }
            (Body::Items(items), Answer::Settled(settled)) => {
                let asked = asked.expect("a read of items names what it asked");
                for (id, item) in asked.ids.iter().zip(settled.items) {
                    match items.take(id, item) {
                        News::First => {
                            self.outs.push(Out::ItemFilled(key.1.clone(), id.clone()));
                        }
                        News::Other => {
                            metrics::mirror_repaired(cause.label());
                            self.outs.push(Out::Item(key.1.clone(), id.clone()));
                        }
                        News::Same => {}
                    }
                }
                return;
            }
            (Body::Whole(None), Answer::Settled(_)) | (Body::Items(_), Answer::Full(_)) => {
                unreachable!(
                    "only filled feeds and items are settled, and items are never read whole"
                )
            }
        };
        match repair {
            Repair::Nothing => {}
            Repair::Events(events) => {
                metrics::mirror_repaired(cause.label());
                events.into_iter().for_each(|event| self.tell(key, event));
            }
            Repair::Reset => {
                metrics::mirror_repaired(cause.label());
                self.outs.push(Out::Reset(key.1.clone()));
            }
        }
    }
}
