//! A keeper whose shards are played by hand.

use std::time::{Duration, Instant};

use bytes::Bytes;
use shard_router::{
    feed::{Content, Kind, Settled},
    shard::{Heard, ShardError},
};

use crate::mirror::{
    Change,
    keeper::{Answer, Effect, Keeper, Out, Settings},
};

pub(super) const MARKS: &str = "gateway.mark.test";

/// A keeper, its two shards by hand, and a clock that stands.
pub(super) struct Bench {
    pub(super) keeper: Keeper,
    pub(super) now: Instant,
    /// Whether a second connection hears what the shards publish.
    pub(super) witness_hears: bool,
}

impl Bench {
    /// Both shards are heard.
    pub(super) fn up() -> Self {
        Self::up_with(settings())
    }

    /// Both shards are heard, and feeds are compared at this rate.
    pub(super) fn verifying(verify_every: Duration) -> Self {
        Self::up_with(Settings { verify_every, ..settings() })
    }

    pub(super) fn up_with(settings: Settings) -> Self {
        let mut bench = Self::down_with(settings);
        bench.heard(0, Heard::Up);
        bench.heard(1, Heard::Up);
        bench.keeper.outs();
        bench
    }

    pub(super) fn down() -> Self {
        Self::down_with(settings())
    }

    fn down_with(settings: Settings) -> Self {
        let now = Instant::now();
        let keeper = Keeper::new(settings, &["one".to_owned(), "two".to_owned()], now);
        Self { keeper, now, witness_hears: false }
    }

    pub(super) fn heard(&mut self, shard: usize, heard: Heard) {
        self.keeper.heard(shard, heard, self.now);
    }

    pub(super) fn lost(&mut self, shard: usize) {
        self.heard(shard, Heard::Lost { reason: "a test".to_owned() });
    }

    pub(super) fn notice(&mut self, channel: &str, payload: impl Into<Vec<u8>>) {
        let channel = Bytes::copy_from_slice(channel.as_bytes());
        self.heard(0, Heard::Notice { channel, payload: Bytes::from(payload.into()) });
    }

    pub(super) fn mark(&mut self, nonce: u64) {
        self.notice(MARKS, nonce.to_string());
    }

    pub(super) fn answer(&mut self, nonce: u64, answer: Answer) {
        self.keeper.answered(nonce, Ok(vec![Ok(answer)]), self.now);
    }

    pub(super) fn fail(&mut self, nonce: u64) {
        let error = ShardError::Away { shard: "one".into(), reason: "a test".to_owned() };
        self.keeper.answered(nonce, Err(error), self.now);
    }

    pub(super) fn want(&mut self, feed: &str) {
        self.keeper.want(&feed.into(), 0, self.now);
    }

    /// Confirms what is to be subscribed and returns the reads that are asked for.
    pub(super) fn reads(&mut self) -> Vec<(String, u64)> {
        let mut reads = Vec::new();
        for effect in self.asked() {
            match effect {
                Effect::Read { feed, nonce, .. } => reads.push((feed.to_string(), nonce)),
                Effect::Settle { touched, nonce, .. } => {
                    let ids = touched.iter().map(|t| format!("{}:{}", t.feed, t.ids.join("+")));
                    reads.push((ids.collect::<Vec<_>>().join(" "), nonce));
                }
                Effect::Mark { .. } | Effect::Unsubscribe { .. } => {}
                other => panic!("{other:?} was not expected"),
            }
        }
        reads
    }

    /// Confirms what is to be subscribed and returns all else that is asked for.
    pub(super) fn asked(&mut self) -> Vec<Effect> {
        let mut asked = Vec::new();
        loop {
            let effects = self.keeper.effects();
            if effects.is_empty() {
                return asked;
            }
            for effect in effects {
                match effect {
                    Effect::Subscribe { shard, ticket, .. } => {
                        self.heard(shard, Heard::Confirmed { ticket });
                    }
                    other => asked.push(other),
                }
            }
        }
    }

    #[track_caller]
    pub(super) fn read(&mut self) -> (String, u64) {
        let mut reads = self.reads();
        assert_eq!(reads.len(), 1, "{reads:?}");
        reads.remove(0)
    }

    /// Wants a feed and fills it.
    #[track_caller]
    pub(super) fn fill(&mut self, feed: &str, content: Content) {
        self.want(feed);
        let (_, nonce) = self.read();
        self.mark(nonce);
        self.answer(nonce, Answer::Full(content));
        assert_eq!(self.outs(), [format!("filled {feed}")]);
    }

    /// Lets time pass as `live` does; answers probes and hears their marks unless `deaf`.
    pub(super) fn pass(&mut self, millis: u64, deaf: bool) -> Vec<(u64, Effect)> {
        let mut effects = Vec::new();
        for passed in (100..=millis).step_by(100) {
            self.now += Duration::from_millis(100);
            self.keeper.tick(self.now);
            for effect in self.keeper.effects() {
                match effect {
                    Effect::Mark { shard, nonce } => {
                        self.keeper.probed(shard, nonce, Ok(()), self.now);
                        let (channel, payload) = (Bytes::from(MARKS), nonce.to_string().into());
                        let mark = Heard::Notice { channel, payload };
                        if self.witness_hears {
                            self.keeper.witnessed(shard, &mark);
                        }
                        if !deaf {
                            self.heard(shard, mark);
                        }
                    }
                    Effect::Witness { shard } => self.keeper.witnessed(shard, &Heard::Up),
                    Effect::Dismiss { .. } => {}
                    other => effects.push((passed, other)),
                }
            }
        }
        effects
    }

    pub(super) fn outs(&mut self) -> Vec<String> {
        let told = |out| match out {
            Out::Filled(feed) => format!("filled {feed}"),
            Out::Reset(feed) => format!("reset {feed}"),
            Out::Event(feed, event) => match event.change {
                Change::Publish { id, .. } => format!("publish {feed} {id}"),
                Change::Change { id, .. } => format!("change {feed} {id}"),
                Change::Retract { id } => format!("retract {feed} {id}"),
                Change::Position { id, position } => format!("position {feed} {id} {position}"),
            },
            Out::ItemFilled(feed, id) => format!("filled {feed}/{id}"),
            Out::Item(feed, id) => format!("item {feed}/{id}"),
            Out::Finished { queue, id, result } => {
                format!("finished {queue} {id} {}", String::from_utf8_lossy(&result))
            }
            Out::Control(message) => format!("control {}", String::from_utf8_lossy(&message)),
            Out::Passed(feed, Change::Publish { id, position, .. }) => {
                let position = position.map(|position| format!(" {position}"));
                format!("pass publish {feed} {id}{}", position.unwrap_or_default())
            }
            Out::Passed(feed, Change::Change { id, .. }) => format!("pass change {feed} {id}"),
            Out::Passed(feed, Change::Retract { id }) => format!("pass retract {feed} {id}"),
            Out::Passed(feed, Change::Position { id, position }) => {
                format!("pass position {feed} {id} {position}")
            }
            Out::Emptied(feed) => format!("emptied {feed}"),
            Out::Deaf(is_deaf) => format!("deaf {is_deaf}"),
            Out::Shard { shard, up } => format!("shard {shard} {up}"),
        };
        self.keeper.outs().into_iter().map(told).collect()
    }

    /// Returns what a mirror holds, as `1=a 2=b`.
    pub(super) fn held(&self, feed: &str) -> String {
        let mirror = self.keeper.mirror(feed).expect("is filled");
        let items =
            mirror.iter().map(|(id, item)| format!("{id}={}", String::from_utf8_lossy(item)));
        items.collect::<Vec<_>>().join(" ")
    }
}

/// Verifying is so rare that it does not come up.
pub(super) fn settings() -> Settings {
    Settings {
        settle: Duration::from_secs(1),
        linger: Duration::from_secs(60),
        verify_every: Duration::from_secs(3_600),
        max_bytes: usize::MAX,
        max_feed_bytes: usize::MAX,
        mark_channel: MARKS.to_owned(),
        queues: vec!["ship".to_owned()],
    }
}

/// Reads `1=a 2=b`.
pub(super) fn content(kind: Kind, text: &str) -> Content {
    let entries = text.split_whitespace().map(|entry| {
        let (id, item) = entry.split_once('=').expect("an entry has an item");
        (id.to_owned(), Bytes::from(item.to_owned()))
    });
    Content { kind, entries: entries.collect(), bad_ids: 0 }
}

pub(super) fn settled(items: &[Option<&'static str>]) -> Answer {
    let items = items.iter().map(|item| item.map(|item| Bytes::from_static(item.as_bytes())));
    Answer::Settled(Settled { kind: Kind::Plain, items: items.collect(), order: None })
}
