//! A feed's recent versions, and the events that led from each to the next.
//!
//! Whoever holds one of these versions needs only the events since; for any other version
//! the feed is sent anew. So this may forget whenever it likes.

use std::collections::{VecDeque, vec_deque};

use super::{Change, Event, Version};

/// Events kept of one feed.
pub const HISTORY_EVENTS: usize = 500;
/// Bytes kept of one feed's events: ids, items and [`EVENT_OVERHEAD`] for each.
pub const HISTORY_BYTES: usize = 64 << 10;
/// What an event takes besides the bytes of its id and its item.
pub const EVENT_OVERHEAD: usize = 128;

/// The events between the versions that a mirror had of late, the oldest first.
#[derive(Debug, Clone)]
pub(super) struct History {
    /// The version before the first event.
    first: Version,
    events: VecDeque<Event>,
    bytes: usize,
}

impl History {
    /// Knows one version, and nothing of what led to it.
    pub(super) fn new(v: Version) -> Self {
        Self { first: v, events: VecDeque::new(), bytes: 0 }
    }

    /// About how much memory the events take; an item that the mirror still holds is counted too.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps one event more, and forgets the oldest where they are too many or too long.
    pub(super) fn record(&mut self, event: &Event) {
        self.bytes += weight(event);
        self.events.push_back(event.clone());
        while self.events.len() > HISTORY_EVENTS || self.bytes > HISTORY_BYTES {
            let oldest = self.events.pop_front().expect("something is over a bound");
            self.bytes -= weight(&oldest);
            self.first = oldest.v;
        }
    }

    /// Returns the events since the latest time at which the feed had this version.
    pub(super) fn since(&self, v: Version) -> Option<vec_deque::Iter<'_, Event>> {
        let behind = match self.events.iter().rposition(|event| event.v == v) {
            Some(at) => at + 1,
            None if self.first == v => 0,
            None => return None,
        };
        Some(self.events.range(behind..))
    }
}

fn weight(event: &Event) -> usize {
    EVENT_OVERHEAD
        + match &event.change {
            Change::Publish { id, item, .. } | Change::Change { id, item } => id.len() + item.len(),
            Change::Retract { id } | Change::Position { id, .. } => id.len(),
        }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn version(number: usize) -> Version {
        Version::of_one(&number.to_string(), b"")
    }

    fn event(number: usize, bytes: usize) -> Event {
        let item = Bytes::from(vec![b'x'; bytes]);
        Event { change: Change::Change { id: "1".into(), item }, v: version(number) }
    }

    fn since(history: &History, number: usize) -> Option<Vec<Version>> {
        Some(history.since(version(number))?.map(|event| event.v).collect())
    }

    #[test]
    fn a_version_that_came_twice_is_held_since_the_latest_time() {
        let mut history = History::new(version(0));
        for number in [1, 0, 2] {
            history.record(&event(number, 0));
        }
        assert_eq!(since(&history, 0), Some(vec![version(2)]));
        assert_eq!(since(&history, 1), Some(vec![version(0), version(2)]));
        assert_eq!(since(&history, 2), Some(vec![]));
        assert_eq!(since(&history, 3), None);
    }

    #[test]
    fn it_is_bounded_by_count_and_by_bytes() {
        let mut history = History::new(version(0));
        for number in 1..=HISTORY_EVENTS + 1 {
            history.record(&event(number, 0));
        }
        assert_eq!(since(&history, 0), None);
        assert_eq!(since(&history, 1).map(|events| events.len()), Some(HISTORY_EVENTS));
        let last = HISTORY_EVENTS + 2;
        history.record(&event(last, HISTORY_BYTES));
        assert_eq!((history.events.len(), history.bytes()), (0, 0));
        assert_eq!(since(&history, last), Some(vec![]));
        assert_eq!(since(&history, last - 1), None);
    }
}
