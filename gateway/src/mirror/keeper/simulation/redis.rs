//! The truth: feeds as a shard holds them, and what their writers announce.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::{RngExt, rngs::StdRng};
use shard_router::feed::{BadFeed, Checked, Content, Kind, Settled, Touched};

use crate::mirror::{keeper::Answer, literal};

/// Few ids, so that histories meet; one is not UTF-8, and behind one no place can be told.
const IDS: [&[u8]; 9] = [b"1", b"2", b"3", b"4", b"5", b"6", "é".as_bytes(), b"begin", b"\xff7"];

/// One message on a channel.
pub(super) type Message = (String, Vec<u8>);

/// One feed in Redis: its two keys, its config, and whether they can be read.
#[derive(Debug, Default)]
pub(super) struct Feed {
    config: Option<Kind>,
    kind: Option<Kind>,
    ids: Vec<Vec<u8>>,
    items: BTreeMap<Vec<u8>, Bytes>,
    /// Whether its key is of a wrong type for now.
    pub(super) is_bad: bool,
}

impl Feed {
    fn kind(&self) -> Kind {
        match self.kind {
            Some(kind) if !self.ids.is_empty() => kind,
            _ => self.config.unwrap_or(Kind::Unknown),
        }
    }

    fn held(&self, id: &[u8]) -> Option<&Bytes> {
        self.items.get(id).filter(|_| self.ids.iter().any(|listed| listed == id))
    }

    /// The whole feed, in the sense of the design.
    pub(super) fn content(&self) -> Content {
        let held = self.ids.iter().filter_map(|id| Some((id, self.items.get(id)?)));
        let texts =
            held.filter_map(|(id, item)| Some((String::from_utf8(id.clone()).ok()?, item.clone())));
        let bad_ids = self.ids.iter().filter(|id| std::str::from_utf8(id).is_err()).count();
        Content { kind: self.kind(), entries: texts.collect(), bad_ids }
    }

    pub(super) fn item(&self, id: &str) -> Option<Bytes> {
        self.held(id.as_bytes()).cloned()
    }

    /// Changes it as somebody does by hand who tells nobody.
    pub(super) fn damage(&mut self, rng: &mut StdRng) {
        match rng.random_range(0..5) {
            0 => self.ids.clear(),
            1 => self.items.clear(),
            2 => drop(self.items.pop_first()),
            3 => *self = Self { is_bad: self.is_bad, ..Self::default() },
            _ => {
                if let Some(mut entry) = self.items.first_entry() {
                    entry.insert(Bytes::from_static(b"by hand"));
                }
            }
        }
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
        let known = self.held(id).is_some();
        match (rng.random_range(0..6), known) {
            (0..=1, true) => {
                self.items.insert(id.to_vec(), item.clone());
                let verb = if rng.random() { "feed.publish" } else { "feed.edit" };
                messages.push(message(verb, id, Some(&item)));
            }
            (2, true) => {
                self.unlist(id);
                self.items.remove(id);
                messages.push(message("feed.retract", id, None));
            }
            (_, true) if kind == Kind::Sorted => {
                self.unlist(id);
                let place = self.insert(id, rng);
                messages.push(message("feed.position", id, Some(&place)));
            }
            (_, true) => {}
            (_, false) => {
                self.unlist(id);
                self.items.insert(id.to_vec(), item.clone());
                messages.push(message("feed.publish", id, Some(&item)));
                if kind == Kind::Sorted {
                    let place = self.insert(id, rng);
                    messages.push(message("feed.position", id, Some(&place)));
                } else {
                    self.ids.push(id.to_vec());
                }
            }
        }
        messages
    }

    fn unlist(&mut self, id: &[u8]) {
        self.ids.retain(|listed| listed != id);
    }

    fn insert(&mut self, id: &[u8], rng: &mut StdRng) -> Vec<u8> {
        let neighbour = rng.random_range(0..=self.ids.len());
        let (at, place) = match (rng.random_range(0..4), self.ids.get(neighbour)) {
            (0, Some(next)) => (neighbour, [b":", next.as_slice()].concat()),
            (1, Some(previous)) => (neighbour + 1, [previous.as_slice(), b":"].concat()),
            (2, _) => (0, b"begin:".to_vec()),
            _ => (self.ids.len(), b":end".to_vec()),
        };
        // A neighbour named `begin` would be read as the place before all others.
        let place = if place == b"begin:" && at != 0 { b":end".to_vec() } else { place };
        let at = if place == b":end" { self.ids.len() } else { at };
        self.ids.insert(at, id.to_vec());
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
        let order = || feed.ids.iter().map(|id| Bytes::from(id.clone())).collect();
        let kind = feed.kind();
        let order = (kind == Kind::Sorted).then(order);
        Ok(Answer::Settled(Settled { kind, items, order }))
    }

    pub(super) fn verify(&mut self, name: &str) -> Result<Checked, BadFeed> {
        let feed = self.feed(name);
        feed.bad(name)?;
        let Content { kind, entries, .. } = feed.content();
        Ok(Checked { kind, version: literal::version(kind, &entries) })
    }
}
