//! How much of what was encoded for clients is kept for the next who come.
//!
//! What a team sees is encoded once for all of its members who come until something of it
//! changes; but it is as much text again as its mirrors hold, and idle clients need none of it.
//! So it is kept for some seconds, as storms of clients ask for it, and what was encoded first is
//! forgotten sooner where all of it is too much.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    time::{Duration, Instant},
};

use super::view::{Owner, View};

/// How many bytes are kept.
const MOST: usize = 8 << 20;

/// How long what was encoded is kept.
const KEPT: Duration = Duration::from_secs(5);

/// What is encoded, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    encoded: VecDeque<Encoded>,
    bytes: usize,
}

#[derive(Debug)]
struct Encoded {
    owner: Owner,
    bytes: usize,
    at: Instant,
}

impl Shelf {
    /// Counts what a view has encoded since the last time, and forgets what is too much.
    pub(super) fn put(
        &mut self,
        owner: &Owner,
        views: &mut HashMap<Owner, Box<View>>,
        now: Instant,
    ) {
        let bytes = views.get_mut(owner).map_or(0, |view| view.take_encoded());
        if bytes == 0 {
            return;
        }
        self.bytes += bytes;
        self.encoded.push_back(Encoded { owner: owner.clone(), bytes, at: now });
        self.forget(views, |shelf, _| shelf.bytes > MOST);
    }

    /// Forgets what was kept long enough.
    pub(super) fn expire(&mut self, now: Instant, views: &mut HashMap<Owner, Box<View>>) {
        self.forget(views, |_, oldest| now >= oldest.at + KEPT);
        if self.encoded.is_empty() {
            mem::take(&mut self.encoded);
        }
    }

    /// Forgets the oldest, as long as it is to be forgotten.
    fn forget(
        &mut self,
        views: &mut HashMap<Owner, Box<View>>,
        is_over: impl Fn(&Self, &Encoded) -> bool,
    ) {
        while let Some(oldest) = self.encoded.front()
            && is_over(self, oldest)
            && let Some(Encoded { owner, bytes, .. }) = self.encoded.pop_front()
        {
            self.bytes -= bytes;
            if let Some(view) = views.get_mut(&owner) {
                view.forget_encoded();
            }
        }
    }
}
