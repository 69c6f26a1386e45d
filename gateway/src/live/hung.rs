//! Where each feed hangs.

use std::{collections::HashMap, slice, sync::Arc};

use super::view::{Owner, PlaceId};

/// The places of each feed; hardly any has two, so one needs no list.
#[derive(Debug, Default)]
pub(super) struct Hung(HashMap<Arc<str>, Places>);

type Place = (Owner, PlaceId);

#[derive(Debug)]
enum Places {
    One(Place),
    /// Never none.
    Many(Vec<Place>),
}

impl Hung {
    /// Notes that a feed hangs at a place.
    pub(super) fn hang(&mut self, feed: Arc<str>, owner: Owner, place: PlaceId) {
        let hangs = (owner, place);
        match self.0.remove(&feed) {
            None => self.0.insert(feed, Places::One(hangs)),
            Some(Places::One(other)) => self.0.insert(feed, Places::Many(vec![other, hangs])),
            Some(Places::Many(mut places)) => {
                places.push(hangs);
                self.0.insert(feed, Places::Many(places))
            }
        };
    }

    /// Notes that a feed hangs at a place no longer.
    pub(super) fn drop(&mut self, feed: &str, owner: &Owner, place: PlaceId) {
        let is_it = |hangs: &Place| hangs.1 == place && hangs.0 == *owner;
        let is_last = match self.0.get_mut(feed) {
            None => false,
            Some(Places::One(hangs)) => is_it(hangs),
            Some(Places::Many(places)) => {
                places.retain(|hangs| !is_it(hangs));
                places.is_empty()
            }
        };
        if is_last {
            self.0.remove(feed);
        }
    }

    /// Lists where a feed hangs.
    pub(super) fn places(&self, feed: &str) -> &[Place] {
        match self.0.get(feed) {
            None => &[],
            Some(Places::One(place)) => slice::from_ref(place),
            Some(Places::Many(places)) => places,
        }
    }

    /// Lists the feeds that hang somewhere.
    pub(super) fn feeds(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{TeamId, UserId};

    #[test]
    fn a_feed_hangs_where_it_was_hung_and_not_dropped() {
        let mut hung = Hung::default();
        let feed: Arc<str> = "feed".into();
        let team = Owner::Team(TeamId::new("red"));
        let user = Owner::User(UserId::new("red"));
        let all = [(team.clone(), 1), (team.clone(), 2), (user.clone(), 1)];
        for (at, (owner, place)) in all.iter().enumerate() {
            hung.hang(feed.clone(), owner.clone(), *place);
            assert_eq!(hung.places("feed"), &all[..=at]);
        }
        hung.drop("feed", &user, 2);
        hung.drop("other", &user, 1);
        hung.drop("feed", &team, 1);
        assert_eq!(hung.places("feed"), &all[1..]);
        hung.drop("feed", &user, 1);
        hung.drop("feed", &team, 2);
        assert!(hung.places("feed").is_empty());
        assert_eq!(hung.feeds().count(), 0);
        hung.hang(feed.clone(), team.clone(), 1);
        hung.drop("feed", &team, 2);
        assert_eq!(hung.places("feed"), &all[..1]);
        hung.drop("feed", &team, 1);
        assert_eq!(hung.feeds().count(), 0);
    }
}
