//! How much of what was encoded for clients is kept for the next who come.
//!
//! What a view shows is encoded once for all who come until something of it changes; but it is
//! as much text again as its mirrors hold, and idle clients need none of it. So what was encoded
//! first is forgotten where all of it is more than a part of what storms of clients ask for.

use std::collections::{HashMap, VecDeque};

use super::view::{Owner, View};

/// How many bytes are kept.
const KEPT: usize = 8 << 20;

/// What is encoded, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    encoded: VecDeque<(Owner, usize)>,
    bytes: usize,
}

impl Shelf {
    /// Counts what a view has encoded since the last time, and forgets what is too much.
    pub(super) fn put(&mut self, owner: &Owner, views: &mut HashMap<Owner, Box<View>>) {
        let bytes = views.get_mut(owner).map_or(0, |view| view.take_encoded());
        if bytes == 0 {
            return;
        }
        self.bytes += bytes;
        self.encoded.push_back((owner.clone(), bytes));
        while self.bytes > KEPT
            && let Some((oldest, bytes)) = self.encoded.pop_front()
        {
            self.bytes -= bytes;
            if let Some(view) = views.get_mut(&oldest) {
                view.forget_encoded();
            }
        }
    }
}
