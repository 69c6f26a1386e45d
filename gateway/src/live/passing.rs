//! Feeds that are too large to be mirrored: their content is there only while somebody is told.

use std::{sync::Arc, time::Instant};

use super::{state::State, view::Owner, waiting::Until};

impl State {
    /// Has those feeds of a view read which somebody is about to be told and nobody holds.
    pub(super) fn fetch(&mut self, owner: &Owner, now: Instant) {
        let Some(view) = self.views.get(owner) else { return };
        for feed in view.unfilled_feeds() {
            self.keeper.fetch(&feed, now);
        }
    }

    /// Takes in that the content of a feed is dropped; its rooms go on to hear its events.
    pub(super) fn emptied(&mut self, feed: &Arc<str>, now: Instant) {
        let mut is_awaited =
            self.waiting.awaits(&Until::Filled(feed.clone())) || self.untold.contains_key(feed);
        for (owner, place) in self.places(feed) {
            let Some(view) = self.views.get_mut(&owner) else { continue };
            view.unfill(place);
            is_awaited |= !view.hears(place) || self.waiting.awaits(&Until::Ready(owner));
        }
        self.acks.remove(feed);
        if is_awaited {
            self.keeper.fetch(feed, now);
        }
    }
}
