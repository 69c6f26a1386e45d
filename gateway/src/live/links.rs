//! The subscription connections: one for each shard that the topology has.

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
    /// The shard of each number.
    numbers: Vec<usize>,
}

impl Links {
    /// Makes the way for what `most` messages tell, without a connection.
    pub(super) fn new(most: usize) -> (Self, mpsc::Receiver<(usize, Heard)>) {
        let (told, heard) = mpsc::channel(most);
        (Self { told, links: Vec::new(), numbers: Vec::new() }, heard)
    }

    /// Connects to a shard, anew where there is a connection.
    pub(super) fn open(&mut self, index: usize, shard: &dyn Shard, standing: Vec<Bytes>) {
        let number = self.numbers.len();
        self.numbers.push(index);
        if self.links.len() <= index {
            self.links.resize_with(index + 1, || None);
        }
        let link = shard.link(number, self.told.clone());
        link.subscribe(standing, STANDING);
        self.links[index] = Some((number, link));
    }

    /// Lets the connection to a shard go.
    pub(super) fn close(&mut self, index: usize) {
        self.links[index] = None;
    }

    /// Returns the shard that tells something under this number, if that still counts.
    pub(super) fn shard(&self, number: usize) -> Option<usize> {
        let shard = self.numbers[number];
        let (present, _) = self.links[shard].as_ref()?;
        (*present == number).then_some(shard)
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
        assert_eq!((links.shard(number), up), (Some(0), Heard::Up));
        links.open(0, &new, Vec::new());
        assert_eq!(links.shard(number), None);
        let mut tells = async || loop {
            if let Some(shard) = links.shard(heard.recv().await.expect("a connection tells").0) {
                return shard;
            }
        };
        assert_eq!(tells().await, 0);
        links.close(0);
        assert_eq!((0..2).find_map(|number| links.shard(number)), None);
    }
}
