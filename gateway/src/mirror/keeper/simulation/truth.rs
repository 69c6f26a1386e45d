//! What everybody holds in the end, against what is true; and what is held meanwhile.

use std::{sync::Arc, time::Duration};

use super::{Hazards, LATE, Seen, World};
use crate::mirror::{
    keeper::feeds::Scope,
    literal::{self, Client},
};

impl World {
    /// Lets the faults end, and holds what everybody has then against the truth.
    pub(super) fn end(mut self) -> Seen {
        // Those who write late have all announced by then.
        self.hazards = Hazards { silent: false, faults: false };
        for feed in self.redis.0.values_mut() {
            feed.is_bad = false;
        }
        self.run(LATE, false);
        // Nobody looks after what is passed through, but after a doubt it is told anew.
        if self.keeper.passed > 0 && self.connected {
            self.lose();
        }
        self.run(10_000, false);
        self.check();
        let (asked, reads) = (self.asked, self.seen.reads);
        self.run(6_000, false);
        assert_eq!(self.seen.reads, reads, "what is right is not read");
        if self.keeper.settings.verify_every > Duration::from_secs(60) {
            assert_eq!(self.asked, asked, "what is quiet is not asked about");
        }
        self.seen
    }

    fn check(&mut self) {
        assert!(self.reads.is_empty(), "no read stays open");
        // Lone items are read to verify them, which may be going on.
        let mut members = self.keeper.reads.values().flat_map(|read| &read.members);
        assert!(members.all(|(scope, _)| *scope == Scope::Items), "no read stays open");
        let wanted: Vec<Arc<str>> = self
            .users
            .iter()
            .filter(|(_, users)| **users > 0)
            .map(|(feed, _)| feed.clone())
            .collect();
        for feed in wanted {
            let content = self.redis.feed(&feed).content();
            assert!(!self.clients[&feed].is_empty());
            self.clients[&feed].iter().for_each(|client| client.check(&content));
            let is_passed = self.keeper.is_passed(&feed);
            assert_eq!(self.keeper.version(&feed).is_some(), !is_passed, "{feed}");
            let Some(mirror) = self.keeper.mirror(&feed) else {
                assert!(is_passed, "what is wanted is filled");
                continue;
            };
            Client::shown(mirror).check(&content);
            let version = literal::version(content.kind, &content.entries);
            assert_eq!(mirror.version().to_string(), version);
            if !content.entries.is_empty() {
                assert_eq!(mirror.kind(), content.kind);
            }
        }
        let wanted = self.item_users.iter().filter(|(_, users)| **users > 0);
        for ((feed, id), _) in wanted {
            let truth = self.redis.0.get(&**feed).and_then(|redis| redis.item(id));
            let item = self.keeper.item(feed, id).expect("what is wanted is known");
            assert_eq!(item, truth.as_ref());
            assert_eq!(self.items[&(feed.clone(), (*id).to_owned())], truth);
        }
        self.check_bounds();
    }

    pub(super) fn check_bounds(&self) {
        let bytes = |passed: bool| -> usize {
            let tracked = self.keeper.feeds.iter();
            let tracked = tracked.filter(|(_, tracked)| tracked.passed.is_some() == passed);
            tracked.map(|(_, tracked)| tracked.body.bytes()).sum()
        };
        assert_eq!((self.keeper.bytes, self.keeper.at_hand_bytes), (bytes(false), bytes(true)));
        let mirrored = self
            .keeper
            .feeds
            .iter()
            .filter(|(key, tracked)| key.0 == Scope::Whole && tracked.passed.is_none());
        let most = self.keeper.settings.max_feed_bytes;
        assert!(
            mirrored.map(|(_, tracked)| tracked.bytes - tracked.history).all(|bytes| bytes <= most)
        );
        // Lone items are few and never passed through.
        let items = self.keeper.feeds.iter().filter(|(key, _)| key.0 == Scope::Items);
        let items: usize = items.map(|(_, tracked)| tracked.bytes).sum();
        assert!(self.keeper.bytes <= self.keeper.settings.max_bytes.saturating_add(items));
        assert_eq!(
            self.keeper.passed,
            self.keeper.feeds.iter().filter(|(_, t)| t.passed.is_some()).count()
        );
    }
}
