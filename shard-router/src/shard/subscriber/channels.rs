//! Many channels in little memory.
//!
//! A feed has four channels, and a gateway hears tens of thousands of feeds: so a feed's name
//! is kept once, and beside it a number for each of its channels, and whether it is said.

use std::collections::HashMap;

use bytes::Bytes;

/// What the channels of a feed begin with; the empty one stands for any other channel.
const PREFIXES: [&[u8]; 5] =
    [b"feed.publish:", b"feed.edit:", b"feed.retract:", b"feed.position:", b""];

/// How often each channel is counted in, and which the present connection subscribes.
#[derive(Debug, Default)]
pub(super) struct Channels {
    names: HashMap<Box<[u8]>, Known>,
}

/// What is known of the channels of one name, never nothing.
#[derive(Debug, Default)]
struct Known {
    counts: [u16; PREFIXES.len()],
    /// One bit for each.
    said: u8,
}

impl Known {
    fn is_nothing(&self) -> bool {
        self.said == 0 && !self.is_counted()
    }

    fn is_counted(&self) -> bool {
        self.counts.iter().any(|count| *count > 0)
    }
}

impl Channels {
    /// Counts a channel once more; tells whether it is new.
    ///
    /// # Panics
    ///
    /// Panics when it is counted 65,536 times.
    pub(super) fn add(&mut self, channel: &[u8]) -> bool {
        let (kind, name) = split(channel);
        let count = &mut self.known(name).counts[kind];
        *count = count.checked_add(1).expect("a channel is wanted by few");
        *count == 1
    }

    /// Counts a channel once less; tells whether it is gone. One that is not there stays away.
    pub(super) fn remove(&mut self, channel: &[u8]) -> bool {
        let (kind, name) = split(channel);
        let Some(known) = self.names.get_mut(name).filter(|known| known.counts[kind] > 0) else {
            return false;
        };
        known.counts[kind] -= 1;
        let is_gone = known.counts[kind] == 0;
        if known.is_nothing() {
            self.names.remove(name);
        }
        is_gone
    }

    pub(super) fn contains(&self, channel: &[u8]) -> bool {
        let (kind, name) = split(channel);
        self.names.get(name).is_some_and(|known| known.counts[kind] > 0)
    }

    fn known(&mut self, name: &[u8]) -> &mut Known {
        if !self.names.contains_key(name) {
            self.names.insert(name.into(), Known::default());
        }
        self.names.get_mut(name).expect("was inserted above")
    }

    /// Notes that a channel is to be subscribed by the present connection; tells whether that
    /// is new. To be subscribed and to be counted have nothing to do with each other.
    pub(super) fn say(&mut self, channel: &[u8]) -> bool {
        let (kind, name) = split(channel);
        let known = self.known(name);
        let is_new = known.said & 1 << kind == 0;
        known.said |= 1 << kind;
        is_new
    }

    /// Notes that a channel is not to be subscribed any more; tells whether that is new.
    pub(super) fn unsay(&mut self, channel: &[u8]) -> bool {
        let (kind, name) = split(channel);
        let is_said = |known: &&mut Known| known.said & 1 << kind > 0;
        let Some(known) = self.names.get_mut(name).filter(is_said) else { return false };
        known.said &= !(1 << kind);
        if known.is_nothing() {
            self.names.remove(name);
        }
        true
    }

    pub(super) fn is_said(&self, channel: &[u8]) -> bool {
        let (kind, name) = split(channel);
        self.names.get(name).is_some_and(|known| known.said & 1 << kind > 0)
    }

    /// Notes that there is no connection any more.
    pub(super) fn unsay_all(&mut self) {
        self.names.retain(|_, known| {
            known.said = 0;
            known.is_counted()
        });
    }

    /// Lists the channels that are counted, each once.
    pub(super) fn iter(&self) -> impl Iterator<Item = Bytes> {
        self.names.iter().flat_map(|(name, known)| {
            let there = PREFIXES.iter().zip(&known.counts).filter(|(_, count)| **count > 0);
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
        assert!(channels.names.is_empty());
    }

    #[test]
    fn what_is_said_is_kept_beside_what_is_counted() {
        let mut channels = Channels::default();
        let (publish, edit): (&[u8], &[u8]) = (b"feed.publish:a", b"feed.edit:a");
        assert!(!channels.unsay(publish) && channels.add(publish));
        assert!(channels.say(publish) && !channels.say(publish) && channels.say(edit));
        assert!(channels.remove(publish) && !channels.contains(publish));
        assert!(channels.is_said(publish) && channels.is_said(edit));
        assert_eq!(channels.iter().count(), 0);
        assert!(channels.unsay(publish) && !channels.unsay(publish));
        assert!(channels.is_said(edit) && channels.add(publish));
        channels.unsay_all();
        assert!(!channels.is_said(edit) && channels.contains(publish));
        assert!(channels.say(edit) && channels.unsay(edit) && channels.remove(publish));
        assert!(channels.names.is_empty());
        channels.say(edit);
        channels.unsay_all();
        assert!(channels.names.is_empty());
    }
}
