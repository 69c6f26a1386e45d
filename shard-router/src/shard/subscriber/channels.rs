//! Many channels in little memory.
//!
//! A feed has four channels, and a gateway hears tens of thousands of feeds: so a feed's name
//! is kept once, and beside it a number for each of its channels.

use std::collections::HashMap;

use bytes::Bytes;

/// What the channels of a feed begin with; the empty one stands for any other channel.
const PREFIXES: [&[u8]; 5] =
    [b"feed.publish:", b"feed.edit:", b"feed.retract:", b"feed.position:", b""];

/// How often each channel is counted in.
#[derive(Debug, Default)]
pub(super) struct Channels {
    counts: HashMap<Box<[u8]>, [u16; PREFIXES.len()]>,
}

impl Channels {
    /// Counts a channel once more; tells whether it is new.
    ///
    /// # Panics
    ///
    /// Panics when it is counted 65,536 times.
    pub(super) fn add(&mut self, channel: &[u8]) -> bool {
        let (kind, name) = split(channel);
        let count = match self.counts.get_mut(name) {
            Some(counts) => &mut counts[kind],
            None => &mut self.counts.entry(name.into()).or_default()[kind],
        };
        *count = count.checked_add(1).expect("a channel is wanted by few");
        *count == 1
    }

    /// Counts a channel once less; tells whether it is gone. One that is not there stays away.
    pub(super) fn remove(&mut self, channel: &[u8]) -> bool {
        let (kind, name) = split(channel);
        let Some(counts) = self.counts.get_mut(name).filter(|counts| counts[kind] > 0) else {
            return false;
        };
        counts[kind] -= 1;
        let is_gone = counts[kind] == 0;
        if counts.iter().all(|count| *count == 0) {
            self.counts.remove(name);
        }
        is_gone
    }

    pub(super) fn contains(&self, channel: &[u8]) -> bool {
        let (kind, name) = split(channel);
        self.counts.get(name).is_some_and(|counts| counts[kind] > 0)
    }

    /// Lists the channels, each once.
    pub(super) fn iter(&self) -> impl Iterator<Item = Bytes> {
        self.counts.iter().flat_map(|(name, counts)| {
            let there = PREFIXES.iter().zip(counts).filter(|(_, count)| **count > 0);
            there.map(move |(prefix, _)| [*prefix, &**name].concat().into())
        })
    }
}

fn split(channel: &[u8]) -> (usize, &[u8]) {
    let mut kinds = PREFIXES.iter().enumerate();
    let found = kinds.find_map(|(kind, prefix)| Some((kind, channel.strip_prefix(*prefix)?)));
    found.expect("everything begins with nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_counted_each_for_itself() {
        let mut channels = Channels::default();
        let all: [&[u8]; 6] =
            [b"feed.publish:a", b"feed.edit:a", b"a", b"", b"feed.edit:", b"feed.edit:feed.edit:a"];
        for channel in all {
            assert!(!channels.contains(channel) && !channels.remove(channel));
            assert!(channels.add(channel) && !channels.add(channel));
        }
        let mut listed: Vec<Bytes> = channels.iter().collect();
        let mut expected: Vec<Bytes> = all.map(Bytes::from_static).to_vec();
        listed.sort();
        expected.sort();
        assert_eq!(listed, expected);
        for channel in all {
            assert!(!channels.remove(channel) && channels.contains(channel));
            assert!(channels.remove(channel) && !channels.contains(channel));
        }
        assert!(channels.counts.is_empty());
    }
}
