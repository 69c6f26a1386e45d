//! Verbs that a plain feed has, and those that all feeds share.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use super::{FeedError, FeedType, Found, NewFeed, Position, names};
use crate::{
    router::{Router, verb},
    shard::{Script, ShardError},
};

/// An item that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its id, given or generated.
    pub id: String,
    /// Whether the feed did not have the id before.
    pub created: bool,
}

/// An item to write into a feed of either kind.
#[derive(Debug, Clone, Default)]
pub struct Post {
    /// The item, byte for byte.
    pub item: Bytes,
    /// Its id; only for plain feeds, generated where there is none.
    pub id: Option<String>,
    /// Its place; only for sorted feeds, the end where there is none.
    pub position: Option<Position>,
    /// What the feed becomes where it does not exist.
    pub new: NewFeed,
}

impl Router {
    /// Creates a feed: enters it into `feeds`, sets its config, says `newfeed` and `conffeed`.
    ///
    /// Answers `false`, changing nothing, where a feed of that name exists.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::WrongKind`] where keys of another type wait under the name,
    /// [`FeedError::BadName`], or [`FeedError::Shard`].
    pub async fn create_feed(
        &self,
        feed: &str,
        feed_type: FeedType,
        max_length: Option<u64>,
    ) -> Result<bool, FeedError> {
        static CREATE: Script = verb!("create_feed");
        let keys = vec![names::ids(feed), names::items(feed), names::config(feed), names::FEEDS];
        let args = vec![
            bytes(feed),
            Bytes::from_static(feed_type.as_str().as_bytes()),
            number(max_length),
            bytes(self.instance()),
        ];
        let answer = self.run_for(feed, &CREATE, keys, args).await?;
        Ok(answer.ok_for(feed)?.int()? == 1)
    }

    /// Deletes a feed of any type with all its keys and says `delfeed`.
    ///
    /// Answers `false` where there was nothing under the name.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadName`] or [`FeedError::Shard`].
    pub async fn delete_feed(&self, feed: &str) -> Result<bool, FeedError> {
        static DELETE: Script = verb!("delete_feed");
        let mut keys = vec![names::FEEDS];
        keys.extend(names::every_key(feed));
        let args = vec![bytes(feed), bytes(self.instance())];
        Ok(self.run_for(feed, &DELETE, keys, args).await?.ok()?.int()? > 0)
    }

    /// Sets fields of a feed's config and says `conffeed`; `false` where the feed does not exist.
    ///
    /// Fields that are not named stay, `type` too (Thoonk.py would make it `feed`).
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadName`] or [`FeedError::Shard`].
    pub async fn set_config(&self, feed: &str, fields: &[(&str, &str)]) -> Result<bool, FeedError> {
        static SET: Script = verb!("set_config");
        let mut args = vec![bytes(feed), bytes(self.instance())];
        args.extend(fields.iter().flat_map(|(field, value)| [bytes(field), bytes(value)]));
        let keys = vec![names::config(feed), names::FEEDS];
        Ok(self.run_for(feed, &SET, keys, args).await?.ok()?.int()? == 1)
    }

    /// Returns a feed's config; empty where it has none. Broken UTF-8 is replaced.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadName`] or [`FeedError::Shard`].
    pub async fn config(&self, feed: &str) -> Result<BTreeMap<String, String>, FeedError> {
        static CONFIG: Script = verb!("config");
        let mut answer =
            self.run_for(feed, &CONFIG, vec![names::config(feed)], Vec::new()).await?.ok()?;
        let mut texts = answer.strings()?.into_iter().flatten();
        let mut config = BTreeMap::new();
        while let (Some(field), Some(value)) = (texts.next(), texts.next()) {
            config.insert(lossy(&field), lossy(&value));
        }
        Ok(config)
    }

    /// Returns the names in the set `feeds` of one shard, in no order; those not UTF-8 are left out.
    ///
    /// # Errors
    ///
    /// Returns [`ShardError`] when the shard is away or refuses.
    pub async fn feed_names(&self, shard: usize) -> Result<Vec<String>, ShardError> {
        static NAMES: Script = verb!("feed_names");
        let mut answer = self.run(shard, &NAMES, vec![names::FEEDS], Vec::new()).await?.ok()?;
        let names = answer.strings()?.into_iter().flatten();
        Ok(names.filter_map(|name| String::from_utf8(name.into()).ok()).collect())
    }

    /// Returns what a feed is, by its keys first and its config then; `None` where nothing says.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadName`] or [`FeedError::Shard`].
    pub async fn feed_type(&self, feed: &str) -> Result<Option<Found>, FeedError> {
        static LOOK: Script = verb!("look");
        let keys = vec![names::ids(feed), names::items(feed), names::config(feed)];
        let word = self.run_for(feed, &LOOK, keys, Vec::new()).await?.ok()?.word()?;
        Ok(match &*word {
            b"none" => None,
            b"list" => Some(Found::Type(FeedType::SortedFeed)),
            _ => Some(Found::of(&word)),
        })
    }

    /// Writes an item of a plain feed; a known id is an edit, and moves to the end.
    ///
    /// Makes the feed where it does not exist. An id of 32 hexadecimal digits is
    /// generated where none is given. Of a feed over its `max_length` the oldest items
    /// are retracted, at most 1,000 at once.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::WrongKind`], [`FeedError::BadName`], [`FeedError::BadId`], or
    /// [`FeedError::Shard`].
    pub async fn publish(
        &self,
        feed: &str,
        id: Option<&str>,
        item: impl Into<Bytes>,
    ) -> Result<Published, FeedError> {
        self.publish_new(feed, id, item, None).await
    }

    /// Writes an item as [`Router::publish`] does; `max_length` is set where the feed is new.
    ///
    /// # Errors
    ///
    /// As [`Router::publish`].
    pub async fn publish_new(
        &self,
        feed: &str,
        id: Option<&str>,
        item: impl Into<Bytes>,
        max_length: Option<u64>,
    ) -> Result<Published, FeedError> {
        static PUBLISH: Script = verb!("publish");
        let id = id.map_or_else(generated, str::to_owned);
        names::check_id(&id)?;
        let keys = vec![
            names::ids(feed),
            names::items(feed),
            names::config(feed),
            names::publishes(feed),
            names::FEEDS,
        ];
        let args =
            vec![bytes(feed), bytes(&id), item.into(), number(max_length), bytes(self.instance())];
        let answer = self.run_for(feed, &PUBLISH, keys, args).await?;
        let created = answer.ok_for(feed)?.int()? == 1;
        Ok(Published { id, created })
    }

    /// Writes an item into a feed of either kind, or into a new one as `post.new` says.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::WrongKind`] where an id is given for a sorted feed or a place
    /// for a plain one, and whatever [`Router::publish`] and [`Router::insert`] do.
    pub async fn post(&self, feed: &str, post: Post) -> Result<Published, FeedError> {
        let Post { item, id, position, new } = post;
        // Most feeds exist and are what the post expects. Where one is not, the first
        // verb changed nothing, and the feed is what it is: the other verb is right.
        let sorted_first = position.is_some() || new.feed_type == FeedType::SortedFeed;
        let mut sorted = sorted_first && id.is_none();
        loop {
            let outcome = if sorted {
                let place = position.clone().unwrap_or(Position::End);
                let inserted = self.insert_new(feed, item.clone(), &place, new.max_length).await;
                inserted.map(|id| Published { id, created: true })
            } else if position.is_some() {
                let found = Found::Type(FeedType::Feed);
                Err(FeedError::WrongKind { feed: feed.to_owned(), found })
            } else {
                self.publish_new(feed, id.as_deref(), item.clone(), new.max_length).await
            };
            let other = if sorted { FeedType::Feed } else { FeedType::SortedFeed };
            let may_turn = sorted == sorted_first && id.is_none() && position.is_none();
            match outcome {
                Err(FeedError::WrongKind { found: Found::Type(found), .. })
                    if found == other && may_turn =>
                {
                    sorted = !sorted;
                }
                outcome => return outcome,
            }
        }
    }

    /// Writes an item under an id: in a plain or new feed as [`Router::publish`], in a
    /// sorted one as [`Router::edit`].
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::UnknownItem`] where a sorted feed does not have the id, and
    /// whatever those verbs do.
    pub async fn put(
        &self,
        feed: &str,
        id: &str,
        item: impl Into<Bytes>,
    ) -> Result<Published, FeedError> {
        let item = item.into();
        match self.publish(feed, Some(id), item.clone()).await {
            Err(FeedError::WrongKind { found, .. }) if found.is_sorted() => {
                self.edit(feed, id, item).await?;
                Ok(Published { id: id.to_owned(), created: false })
            }
            outcome => outcome,
        }
    }

    /// Writes another item under an id that a plain or sorted feed has.
    ///
    /// In a plain feed this is said on `feed.edit:` and moves the id to the end; in a
    /// sorted feed it is said on `feed.publish:` without a position, and the place stays.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::UnknownItem`], [`FeedError::WrongKind`], [`FeedError::BadName`],
    /// [`FeedError::BadId`], or [`FeedError::Shard`].
    pub async fn edit(
        &self,
        feed: &str,
        id: &str,
        item: impl Into<Bytes>,
    ) -> Result<(), FeedError> {
        static EDIT: Script = verb!("edit");
        names::check_id(id)?;
        let keys =
            vec![names::ids(feed), names::items(feed), names::config(feed), names::publishes(feed)];
        let answer =
            self.run_for(feed, &EDIT, keys, vec![bytes(feed), bytes(id), item.into()]).await?;
        if answer.status() == b"unknown" {
            return Err(FeedError::UnknownItem { feed: feed.to_owned(), id: id.to_owned() });
        }
        answer.ok_for(feed).map(drop)
    }

    /// Takes an item out of a plain or sorted feed; `false` where the feed does not have it.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::WrongKind`], [`FeedError::BadName`], [`FeedError::BadId`], or
    /// [`FeedError::Shard`].
    pub async fn retract(&self, feed: &str, id: &str) -> Result<bool, FeedError> {
        static RETRACT: Script = verb!("retract");
        names::check_id(id)?;
        let keys = vec![names::ids(feed), names::items(feed), names::config(feed)];
        let answer = self.run_for(feed, &RETRACT, keys, vec![bytes(feed), bytes(id)]).await?;
        Ok(answer.ok_for(feed)?.int()? > 0)
    }

    /// Returns one item; `None` where `feed.items` does not have it.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadName`] or [`FeedError::Shard`].
    pub async fn item(&self, feed: &str, id: &str) -> Result<Option<Bytes>, FeedError> {
        static ITEM: Script = verb!("item");
        let keys = vec![names::items(feed)];
        Ok(self.run_for(feed, &ITEM, keys, vec![bytes(id)]).await?.ok()?.maybe()?)
    }
}

impl Found {
    /// Tells whether this is a list that reads as a sorted feed.
    pub(crate) fn is_sorted(&self) -> bool {
        match self {
            Self::Type(found) => *found == FeedType::SortedFeed,
            Self::Other(word) => word == "list",
        }
    }
}

/// Makes an id as Thoonk does.
pub(crate) fn generated() -> String {
    Uuid::new_v4().simple().to_string()
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn number(number: Option<u64>) -> Bytes {
    number.map_or_else(Bytes::new, |number| Bytes::from(number.to_string()))
}

pub(crate) fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}
