//! The truth: feeds as a shard holds them, and what their writers announce.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::{RngExt, rngs::StdRng};
use shard_router::feed::{BadFeed, Content, Kind, Settled, Touched};

use crate::mirror::keeper::Answer;

/// Few ids, so that histories meet; one is not UTF-8, and behind one no place can be told.
const IDS: [&[u8]; 9] = [b"1", b"2", b"3", b"4", b"5", b"6", "é".as_bytes(), b"begin", b"\xff7"];

/// One message on a channel.
pub(super) type Message = (String, Vec<u8>);

/// One feed in Redis.
#[derive(Debug, Default)]
pub(super) struct Feed {
    config: Option<Kind>,
    kind: Option<Kind>,
    entries: Vec<(Vec<u8>, Bytes)>,
    /// Whether its key is of a wrong type for now.
    pub(super) is_bad: bool,
}

impl Feed {
    fn kind(&self) -> Kind {
        match self.kind {
            Some(kind) if !self.entries.is_empty() => kind,
            _ => self.config.unwrap_or(Kind::Unknown),
        }
    }

    /// The whole feed, in the sense of the design.
    pub(super) fn content(&self) -> Content {
        let texts = self
            .entries
            .iter()
            .filter_map(|(id, item)| Some((String::from_utf8(id.clone()).ok()?, item.clone())));
        let entries: Vec<_> = texts.collect();
        let bad_ids = self.entries.len() - entries.len();
        Content { kind: self.kind(), entries, bad_ids }
    }

    pub(super) fn item(&self, id: &str) -> Option<Bytes> {
        let entry = self.entries.iter().find(|(held, _)| *held == id.as_bytes())?;
        Some(entry.1.clone())
    }

    /// Carries out a random write of `name` and returns what is to be announced.
    pub(super) fn write(&mut self, name: &str, rng: &mut StdRng) -> Vec<Message> {
        let message = |verb: &str, id: &[u8], rest: Option<&[u8]>| {
            let payload = match rest {
                Some(rest) => [id, b"\0", rest].concat(),
                None => id.to_vec(),
            };
            (format!("{verb}:{name}"), payload)
        };
        let existence = |channel: &str| (channel.to_owned(), [name.as_bytes(), b"\0me"].concat());
        let mut messages = Vec::new();
        if self.kind() == Kind::Unknown {
            let kind = if rng.random() { Kind::Plain } else { Kind::Sorted };
            self.kind = Some(kind);
            // Plain writers need not announce a type.
            if rng.random() {
                self.config = Some(kind);
                messages.push(existence("newfeed"));
            }
            if rng.random_ratio(1, 3) {
                return messages;
            }
        }
        let kind = self.kind.or(self.config).expect("was chosen above");
        if rng.random_ratio(1, 60) {
            *self = Self { is_bad: self.is_bad, ..Self::default() };
            return vec![existence("delfeed")];
        }
        let id = IDS[rng.random_range(0..IDS.len())];
        let item = Bytes::from(format!("{{\"n\":{}}}", rng.random_range(0..4)));
        let known = self.entries.iter().position(|(held, _)| held == id);
        match (rng.random_range(0..6), known) {
            (0..=1, Some(at)) => {
                self.entries[at].1 = item.clone();
                let verb = if rng.random() { "feed.publish" } else { "feed.edit" };
                messages.push(message(verb, id, Some(&item)));
            }
            (2, Some(at)) => {
                self.entries.remove(at);
                messages.push(message("feed.retract", id, None));
            }
            (_, Some(at)) if kind == Kind::Sorted => {
                let entry = self.entries.remove(at);
                let place = self.insert(entry, rng);
                messages.push(message("feed.position", id, Some(&place)));
            }
            (_, Some(_)) => {}
            (_, None) => {
                messages.push(message("feed.publish", id, Some(&item)));
                if kind == Kind::Sorted {
                    let place = self.insert((id.to_vec(), item), rng);
                    messages.push(message("feed.position", id, Some(&place)));
                } else {
                    self.entries.push((id.to_vec(), item));
                }
            }
        }
        messages
    }

    fn insert(&mut self, entry: (Vec<u8>, Bytes), rng: &mut StdRng) -> Vec<u8> {
        let neighbour = rng.random_range(0..=self.entries.len());
        let (at, place) = match (rng.random_range(0..4), self.entries.get(neighbour)) {
            (0, Some((next, _))) => (neighbour, [b":", next.as_slice()].concat()),
            (1, Some((previous, _))) => (neighbour + 1, [previous.as_slice(), b":"].concat()),
            (2, _) => (0, b"begin:".to_vec()),
            _ => (self.entries.len(), b":end".to_vec()),
        };
        // A neighbour named `begin` would be read as the place before all others.
        let place = if place == b"begin:" && at != 0 { b":end".to_vec() } else { place };
        let at = if place == b":end" { self.entries.len() } else { at };
        self.entries.insert(at, entry);
        place
    }

    fn bad(&self, name: &str) -> Result<(), BadFeed> {
        if self.is_bad {
            return Err(BadFeed { feed: name.to_owned(), reason: "a string".to_owned() });
        }
        Ok(())
    }
}

/// All feeds of one shard.
#[derive(Debug, Default)]
pub(super) struct Redis(pub(super) BTreeMap<String, Feed>);

impl Redis {
    pub(super) fn feed(&mut self, name: &str) -> &mut Feed {
        self.0.entry(name.to_owned()).or_default()
    }

    pub(super) fn read(&mut self, name: &str) -> Result<Answer, BadFeed> {
        let feed = self.feed(name);
        feed.bad(name).map(|()| Answer::Full(feed.content()))
    }

    pub(super) fn settle(&mut self, touched: &Touched) -> Result<Answer, BadFeed> {
        let feed = self.feed(&touched.feed);
        feed.bad(&touched.feed)?;
        let items = touched.ids.iter().map(|id| feed.item(id)).collect();
        let order = || feed.entries.iter().map(|(id, _)| Bytes::from(id.clone())).collect();
        let kind = feed.kind();
        let order = (kind == Kind::Sorted).then(order);
        Ok(Answer::Settled(Settled { kind, items, order }))
    }
}
