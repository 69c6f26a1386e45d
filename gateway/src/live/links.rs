//! The subscription connections: one for each shard that the topology has.

use std::collections::HashMap;

use bytes::Bytes;
use shard_router::shard::{Heard, Link, Shard};
use tokio::sync::mpsc;

/// The ticket of the channels that a connection has from its start; the keeper's begin at 1.
const STANDING: u64 = 0;

/// The connections of all shards, found by the index of the shard.
///
/// Each connection has a number of its own, which what it tells bears: what a connection
/// told before it was let go may still wait, and is not what the shard says now.
#[derive(Debug)]
pub(super) struct Links {
    told: mpsc::Sender<(usize, Heard)>,
    links: Vec<Option<(usize, Link)>>,
    /// Second connections of shards whose own is in doubt.
    witnesses: HashMap<usize, (usize, Link)>,
    /// Who tells something under each number.
    numbers: Vec<Voice>,
}

/// Who tells something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    /// The connection of the shard with this index.
    Shard(usize),
    /// The second connection of the shard with this index.
    Witness(usize),
}

impl Links {
    /// Makes the way for what `most` messages tell, without a connection.
    pub(super) fn new(most: usize) -> (Self, mpsc::Receiver<(usize, Heard)>) {
        let (told, heard) = mpsc::channel(most);
        let links =
            Self { told, links: Vec::new(), witnesses: HashMap::new(), numbers: Vec::new() };
        (links, heard)
    }

    /// Connects to a shard, anew where there is a connection.
    pub(super) fn open(&mut self, index: usize, shard: &dyn Shard, standing: Vec<Bytes>) {
        if self.links.len() <= index {
            self.links.resize_with(index + 1, || None);
        }
        self.links[index] = Some(self.connect(Voice::Shard(index), shard, standing));
        self.dismiss(index);
    }

    /// Connects to a shard a second time, to hear its marks alone.
    pub(super) fn witness(&mut self, index: usize, shard: &dyn Shard, marks: Bytes) {
        let witness = self.connect(Voice::Witness(index), shard, vec![marks]);
        self.witnesses.insert(index, witness);
    }

    fn connect(&mut self, voice: Voice, shard: &dyn Shard, channels: Vec<Bytes>) -> (usize, Link) {
        let number = self.numbers.len();
        self.numbers.push(voice);
        let link = shard.link(number, self.told.clone());
        link.subscribe(channels, STANDING);
        (number, link)
    }

    /// Lets the connections to a shard go.
    pub(super) fn close(&mut self, index: usize) {
        self.links[index] = None;
        self.dismiss(index);
    }

    /// Lets the second connection to a shard go.
    pub(super) fn dismiss(&mut self, index: usize) {
        self.witnesses.remove(&index);
    }

    /// Returns who tells something under this number, if that still counts.
    pub(super) fn voice(&self, number: usize) -> Option<Voice> {
        let voice = self.numbers[number];
        let present = match voice {
            Voice::Shard(shard) => self.links[shard].as_ref(),
            Voice::Witness(shard) => self.witnesses.get(&shard),
        };
        (present?.0 == number).then_some(voice)
    }

    pub(super) fn subscribe(&self, shard: usize, channels: Vec<Bytes>, ticket: u64) {
        if let Some(link) = self.link(shard) {
            link.subscribe(channels, ticket);
        }
    }

    pub(super) fn unsubscribe(&self, shard: usize, channels: Vec<Bytes>) {
        if let Some(link) = self.link(shard) {
            link.unsubscribe(channels);
        }
    }

    pub(super) fn reset(&self, shard: usize, reason: &'static str) {
        if let Some(link) = self.link(shard) {
            link.reset(reason);
        }
    }

    fn link(&self, shard: usize) -> Option<&Link> {
        self.links[shard].as_ref().map(|(_, link)| link)
    }
}

#[cfg(test)]
mod tests {
    use shard_router::shard::memory::MemoryShard;

    use super::*;

    #[tokio::test]
    async fn what_an_old_connection_told_does_not_count() {
        let (mut links, mut heard) = Links::new(8);
        let (old, new) = (MemoryShard::new("old"), MemoryShard::new("new"));
        links.open(0, &old, Vec::new());
        let (number, up) = heard.recv().await.expect("a connection tells");
        assert_eq!((links.voice(number), up), (Some(Voice::Shard(0)), Heard::Up));
        links.open(0, &new, Vec::new());
        assert_eq!(links.voice(number), None);
        let mut tells = async || loop {
            if let Some(voice) = links.voice(heard.recv().await.expect("a connection tells").0) {
                return voice;
            }
        };
        assert_eq!(tells().await, Voice::Shard(0));
        links.witness(0, &new, Bytes::from_static(b"marks"));
        assert_eq!(links.voice(2), Some(Voice::Witness(0)));
        links.close(0);
        assert_eq!((0..3).find_map(|number| links.voice(number)), None);
    }
}
