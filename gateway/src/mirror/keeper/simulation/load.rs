//! Writers, users, and what breaks.

use std::sync::Arc;

use rand::RngExt;

use super::{Action, FEEDS, LATE, WANTED_ITEMS, World};

impl World {
    pub(super) fn disturb(&mut self) {
        for _ in 0..self.rng.random_range(0..3) {
            self.write();
        }
        if self.chance(100) {
            self.change_users();
        }
        if self.hazards.silent && self.chance(20) {
            self.damage();
        }
        if !self.hazards.faults {
            return;
        }
        if self.chance(10) {
            let name = FEEDS[self.rng.random_range(0..FEEDS.len())];
            let feed = self.redis.feed(name);
            feed.is_bad = !feed.is_bad;
        }
        if self.connected && self.chance(6) {
            self.lose();
        }
        if self.connected && self.chance(2) {
            self.deaf = true;
            self.seen.deaf += 1;
        }
        if self.chance(5) {
            // A lag: nothing is heard for a while, then everything.
            self.told_until = self.told_until.max(self.now) + self.rng.random_range(0..1_500);
        }
    }

    /// Somebody changes keys by hand, or a whole shard is emptied.
    pub(super) fn damage(&mut self) {
        self.seen.damaged += 1;
        if self.chance(200) {
            self.redis.0.clear();
            return;
        }
        let name = FEEDS[self.rng.random_range(0..FEEDS.len())];
        self.redis.feed(name).damage(&mut self.rng);
    }

    pub(super) fn write(&mut self) {
        let name = FEEDS[self.rng.random_range(0..FEEDS.len())];
        if self.redis.feed(name).is_bad {
            return;
        }
        let mut messages = self.redis.feed(name).write(name, &mut self.rng);
        match self.rng.random_range(0..20) {
            0 if self.hazards.silent => {}
            1..=6 => {
                // Written first, announced later, sometimes in two parts or twice.
                let delay = self.rng.random_range(0..LATE);
                if self.chance(200) {
                    let again = self.rng.random_range(0..LATE);
                    self.after(again, Action::Publish(messages.clone()));
                }
                if self.chance(200) && messages.len() > 1 {
                    let part = vec![messages.pop().expect("there are two")];
                    let other = self.rng.random_range(0..LATE);
                    self.after(other, Action::Publish(part));
                }
                self.after(delay, Action::Publish(messages));
            }
            _ => self.act(Action::Publish(messages)),
        }
    }

    pub(super) fn change_users(&mut self) {
        let feed: Arc<str> = FEEDS[self.rng.random_range(0..FEEDS.len())].into();
        let id = WANTED_ITEMS[self.rng.random_range(0..WANTED_ITEMS.len())];
        let now = self.instant();
        let (whole, more) = (self.chance(600), self.chance(600));
        if whole {
            let users = self.users.entry(feed.clone()).or_default();
            if more {
                *users += 1;
                self.keeper.want(&feed, 0, now);
                self.drain();
                self.tell();
                self.come(&feed);
            } else if *users > 0 {
                *users -= 1;
                if *users == 0 {
                    self.clients.remove(&feed);
                }
                self.keeper.unwant(&feed, now);
            }
        } else {
            let users = self.item_users.entry((feed.clone(), id)).or_default();
            if more {
                *users += 1;
                self.keeper.want_item(&feed, id, 0, now);
            } else if *users > 0 {
                *users -= 1;
                if *users == 0 {
                    self.items.remove(&(feed.clone(), id.to_owned()));
                }
                self.keeper.unwant_item(&feed, id, now);
            }
        }
        self.drain();
        self.tell();
    }
}
