//! A client that applies events literally, to hold mirrors to what they promise.

use bytes::Bytes;
use sha1::{Digest, Sha1};
use shard_router::feed::{Content, Kind, Position};

use super::{Change, Event, Mirror};

/// What one client shows of one feed.
#[derive(Debug, Clone)]
pub(super) struct Client {
    kind: Kind,
    items: Vec<(String, Bytes)>,
}

impl Client {
    /// Shows what an `initial` or a `reset` brings.
    pub(super) fn shown(mirror: &Mirror) -> Self {
        let items =
            mirror.iter().map(|(id, item)| (id.to_owned(), Bytes::copy_from_slice(item))).collect();
        Self { kind: mirror.kind(), items }
    }

    /// Does what the event says, and holds its version against what is then shown.
    ///
    /// A client ignores what it does not hold; a mirror never sends such a thing.
    #[track_caller]
    pub(super) fn apply(&mut self, event: &Event) {
        match &event.change {
            Change::Publish { id, item, position } => {
                assert_eq!(self.find(id), None, "only what is new is published");
                let at = match position {
                    Some(position) => self.place(&position.to_string()),
                    None => self.items.len(),
                };
                assert_eq!(position.is_some(), self.kind == Kind::Sorted);
                self.items.insert(at, (id.to_string(), item.clone()));
            }
            Change::Change { id, item } => {
                let at = self.find(id).expect("only what is held changes");
                assert_ne!(self.items[at].1, item, "only what differs is told");
                self.items[at].1 = item.clone();
            }
            Change::Retract { id } => {
                self.items.remove(self.find(id).expect("only what is held is retracted"));
            }
            Change::Position { id, position } => {
                let from = self.find(id).expect("only what is held is put elsewhere");
                let item = self.items.remove(from);
                let to = self.place(&position.to_string());
                assert_ne!(from, to, "only what moves is told");
                self.items.insert(to, item);
            }
        }
        assert_eq!(event.v.to_string(), version(self.kind, &self.items));
    }

    /// Does what an event says that was missed; a feed may have got or lost its order before it.
    pub(super) fn catch_up(&mut self, event: &Event) {
        if let Change::Publish { position, .. } = &event.change {
            self.kind = if position.is_some() { Kind::Sorted } else { Kind::Plain };
        }
        self.apply(event);
    }

    /// Compares with what another client shows.
    #[track_caller]
    pub(super) fn check_same(&self, other: &Self) {
        self.check(&Content { kind: other.kind, entries: other.items.clone(), bad_ids: 0 });
    }

    /// Does what an unchecked event says, as the design has it for clients.
    pub(super) fn pass(&mut self, change: &Change) {
        match change {
            Change::Publish { id, item, position } => {
                self.take(id);
                let at = position.as_ref().map_or(Some(self.items.len()), |at| self.unchecked(at));
                let at = at.unwrap_or(self.items.len());
                self.items.insert(at, (id.to_string(), item.clone()));
            }
            Change::Change { id, item } => {
                if let Some(at) = self.find(id) {
                    self.items[at].1 = item.clone();
                }
            }
            Change::Retract { id } => drop(self.take(id)),
            Change::Position { id, position } => {
                if let Some(item) = self.take(id) {
                    let at = self.unchecked(position).unwrap_or(self.items.len());
                    self.items.insert(at, item);
                }
            }
        }
    }

    fn take(&mut self, id: &str) -> Option<(String, Bytes)> {
        self.find(id).map(|at| self.items.remove(at))
    }

    fn unchecked(&self, position: &Position) -> Option<usize> {
        match position {
            Position::Begin => Some(0),
            Position::End => Some(self.items.len()),
            Position::Before(next) => self.find(next),
            Position::After(previous) => Some(self.find(previous)? + 1),
        }
    }

    /// Takes the kind that a repair found, which no event tells.
    pub(super) fn follow(&mut self, kind: Kind) {
        self.kind = kind;
    }

    /// Compares with what is true, in a plain feed without order.
    #[track_caller]
    pub(super) fn check(&self, content: &Content) {
        let (mut shown, mut expected) = (self.items.clone(), content.entries.clone());
        if content.kind != Kind::Sorted {
            shown.sort();
            expected.sort();
        }
        assert_eq!(shown, expected);
    }

    fn find(&self, id: &str) -> Option<usize> {
        self.items.iter().position(|(held, _)| held == id)
    }

    /// Reads a place off the wire, as simply as a client would.
    fn place(&self, position: &str) -> usize {
        let held = |id| self.find(id).expect("only what is held is a neighbour");
        if position == "begin:" {
            return 0;
        }
        if let Some(next) = position.strip_prefix(':') {
            return if next == "end" { self.items.len() } else { held(next) };
        }
        held(position.strip_suffix(':').expect("a place has a colon")) + 1
    }
}

/// Computes a version from scratch, from the words of the design alone.
pub(super) fn version(kind: Kind, items: &[(String, Bytes)]) -> String {
    let mut sums = [0u64; 3];
    let mut previous: &[u8] = b"";
    for (id, item) in items {
        let text = [previous, b"\0", id.as_bytes(), b"\0", item].concat();
        let digest = Sha1::digest(&text);
        for (sum, word) in sums.iter_mut().zip(digest.chunks(4)) {
            *sum += word.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        if kind == Kind::Sorted {
            previous = id.as_bytes();
        }
    }
    sums.map(|sum| format!("{:08x}", sum % (1 << 32))).concat()
}
