//! What waits for one client, in order, and what is dropped of it when it is too much.
//!
//! Pure: no lock, no clock, no socket.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{Outgoing, crowd::Crowd};
use crate::{
    hub::frame::{About, Frame},
    metrics,
};

/// So many places of dropped changes may be more than what waits before they are taken out.
const GAPS: usize = 1_024;

/// More waits than may, and nothing can be dropped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overflow;

/// What waits for one client.
///
/// While it is within its bound nothing is looked at. When the bound is passed, a change is
/// dropped where a newer one of the same item waits; from there to the newer one the client does
/// not hold what any version tells, so the feed's events between them lose their `v`. What a
/// client ends with is the same: nothing but the newer change depends on the bytes of the older.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Place>,
    /// The number of the place in front; each place keeps its number until places are taken out.
    front: u64,
    /// Places of dropped changes.
    gaps: usize,
    /// What counts of all that waits.
    bytes: usize,
    /// Bytes of the snapshots that wait or are on their way.
    snapshots: usize,
    /// How much more than the bound may wait for now.
    extension: usize,
    /// Knows the changes that wait; there since the bound was passed, and until half of it is free.
    crowd: Option<Box<Crowd>>,
    /// Feeds whose events come without `v`, up to the place of this number.
    blind: HashMap<Arc<str>, u64>,
}

#[derive(Debug)]
enum Place {
    Taken(Outgoing),
    /// A change stood here until a newer one, which has or had this number, made it superfluous.
    Gap {
        feed: Option<Arc<str>>,
        newer: u64,
    },
}

impl Queue {
    /// Adds something; what is too much is dropped where it may be.
    pub(super) fn push(&mut self, outgoing: Outgoing, bound: usize) -> Result<(), Overflow> {
        let weight = outgoing.weight();
        self.bytes += weight;
        self.snapshots += outgoing.snapshot_bytes();
        // The largest one, not all: many small ones must not add up to a queue without a bound.
        self.extension = self.extension.max(outgoing.snapshot_bytes());
        if let (Some(crowd), Some(about)) = (&mut self.crowd, outgoing.about()) {
            crowd.add(about, self.front + self.waiting.len() as u64);
        }
        self.waiting.push_back(Place::Taken(outgoing));
        let allowed = bound + self.extension;
        if weight == 0 || self.bytes <= allowed { Ok(()) } else { self.make_room(allowed) }
    }

    /// Takes what is first.
    pub(super) fn pop(&mut self, bound: usize) -> Option<Outgoing> {
        loop {
            let number = self.front;
            let place = self.waiting.pop_front()?;
            self.front += 1;
            let outgoing = match place {
                Place::Taken(outgoing) => outgoing,
                Place::Gap { feed, newer } => {
                    self.gaps -= 1;
                    note_gap(&mut self.blind, feed, newer);
                    continue;
                }
            };
            self.bytes -= outgoing.weight();
            self.calm_down(&outgoing, number, bound);
            let is_blind = !self.blind.is_empty() && is_blind(&mut self.blind, &outgoing, number);
            return Some(if is_blind { outgoing.without_version() } else { outgoing });
        }
    }

    /// Notes that so many bytes of snapshots have gone out.
    pub(super) fn let_go(&mut self, snapshots: usize, bound: usize) {
        self.snapshots -= snapshots;
        self.shrink(bound);
    }

    /// Tells whether nothing waits and no snapshot is on its way.
    ///
    /// Then nothing comes without `v` either: what ends that has been taken out.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.snapshots == 0
    }

    /// Ends what a full queue needs, once it is not any more.
    fn calm_down(&mut self, popped: &Outgoing, number: u64, bound: usize) {
        self.shrink(bound);
        if self.bytes <= bound / 2 {
            self.crowd = None;
        } else if let (Some(crowd), Some(about)) = (&mut self.crowd, popped.about()) {
            crowd.remove(about, number);
        }
    }

    /// Takes the extension back, but not from what waits because of the snapshot.
    ///
    /// Much may have come while the snapshot was on its way; who reads faster than its feeds
    /// talk works that off afterwards.
    fn shrink(&mut self, bound: usize) {
        if self.bytes <= bound {
            self.extension = self.extension.min(self.snapshots);
        }
    }

    fn make_room(&mut self, allowed: usize) -> Result<(), Overflow> {
        let before = self.gaps;
        let mut crowd = self.crowd.take().unwrap_or_else(|| Box::new(self.crowded()));
        while self.bytes > allowed {
            let Some((older, newer)) = crowd.next_superseded(self.front) else {
                return Err(Overflow);
            };
            let at = usize::try_from(older - self.front).expect("what waits fits into memory");
            let Place::Taken(dropped) = &self.waiting[at] else { continue };
            self.bytes -= dropped.weight();
            let feed = dropped.about().and_then(About::feed).cloned();
            self.waiting[at] = Place::Gap { feed, newer };
            self.gaps += 1;
        }
        self.crowd = Some(crowd);
        metrics::changes_dropped((self.gaps - before) as u64);
        // Looking at everything is paid for by the drops since the last time.
        if self.gaps > self.waiting.len() - self.gaps + GAPS {
            self.close_gaps();
        }
        Ok(())
    }

    /// Looks at all that waits.
    fn crowded(&self) -> Crowd {
        let mut crowd = Crowd::default();
        for (place, number) in self.waiting.iter().zip(self.front..) {
            if let Place::Taken(outgoing) = place
                && let Some(about) = outgoing.about()
            {
                crowd.add(about, number);
            }
        }
        crowd
    }

    /// Takes the places of dropped changes out, and the versions from what stands between.
    fn close_gaps(&mut self) {
        let mut kept = VecDeque::with_capacity(self.waiting.len() - self.gaps);
        let mut bytes = 0;
        for (place, number) in std::mem::take(&mut self.waiting).into_iter().zip(self.front..) {
            match place {
                Place::Gap { feed, newer } => note_gap(&mut self.blind, feed, newer),
                Place::Taken(outgoing) => {
                    let is_blind = is_blind(&mut self.blind, &outgoing, number);
                    let outgoing = if is_blind { outgoing.without_version() } else { outgoing };
                    bytes += outgoing.weight();
                    kept.push_back(Place::Taken(outgoing));
                }
            }
        }
        // Every gap ends at a change that waits, so nobody behind it is blind.
        self.blind.clear();
        (self.waiting, self.bytes, self.gaps) = (kept, bytes, 0);
        self.crowd = Some(Box::new(self.crowded()));
    }
}

/// Notes that a feed's events come without `v` up to a number.
fn note_gap(blind: &mut HashMap<Arc<str>, u64>, feed: Option<Arc<str>>, newer: u64) {
    if let Some(feed) = feed {
        let until = blind.entry(feed).or_insert(newer);
        *until = newer.max(*until);
    }
}

/// Tells whether what has this number comes without `v`; what ends this forgets it.
fn is_blind(blind: &mut HashMap<Arc<str>, u64>, outgoing: &Outgoing, number: u64) -> bool {
    let Some(feed) = outgoing.about().and_then(About::feed) else { return false };
    match blind.get(feed) {
        Some(until) if number < *until => true,
        Some(_) => {
            blind.remove(feed);
            false
        }
        None => false,
    }
}

impl Outgoing {
    /// Returns the event, if it is one.
    fn event(&self) -> Option<&Frame> {
        match self {
            Self::Event(frame) => Some(frame),
            Self::Ack(..) | Self::Letter(_) | Self::Close(_) => None,
        }
    }

    fn about(&self) -> Option<&About> {
        self.event()?.about()
    }

    /// Returns the bytes of an `initial` or a `reset`. An answer is none: clients make as many
    /// as they like.
    pub(super) fn snapshot_bytes(&self) -> usize {
        self.event().map_or(0, Frame::snapshot_bytes)
    }

    fn without_version(self) -> Self {
        match self {
            Self::Event(frame) => Self::Event(frame.without_version()),
            other => other,
        }
    }
}
