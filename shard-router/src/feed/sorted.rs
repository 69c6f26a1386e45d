//! Verbs that only a sorted feed has.

use bytes::Bytes;

use super::{
    FeedError, Position, names,
    plain::{bytes, number},
};
use crate::{
    router::{Router, verb},
    shard::Script,
};

impl Router {
    /// Puts a new item at a place of a sorted feed and returns its id, a decimal number.
    ///
    /// Makes the feed where it does not exist. Of a feed over its `max_length` the first
    /// items other than the new one are retracted, at most 1,000 at once.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::UnknownNeighbour`], [`FeedError::WrongKind`],
    /// [`FeedError::BadName`], [`FeedError::BadId`] for a neighbour that no sorted feed
    /// can have, or [`FeedError::Shard`].
    pub async fn insert(
        &self,
        feed: &str,
        item: impl Into<Bytes>,
        position: &Position,
    ) -> Result<String, FeedError> {
        self.insert_new(feed, item, position, None).await
    }

    /// Puts a new item as [`Router::insert`] does; `max_length` is set where the feed is new.
    ///
    /// # Errors
    ///
    /// As [`Router::insert`].
    pub async fn insert_new(
        &self,
        feed: &str,
        item: impl Into<Bytes>,
        position: &Position,
        max_length: Option<u64>,
    ) -> Result<String, FeedError> {
        static INSERT: Script = verb!("insert");
        check_position(position)?;
        let keys = vec![
            names::ids(feed),
            names::items(feed),
            names::config(feed),
            names::publishes(feed),
            names::idincr(feed),
            names::FEEDS,
        ];
        let args = vec![
            bytes(feed),
            item.into(),
            Bytes::from(position.to_string()),
            number(max_length),
            bytes(self.instance()),
        ];
        let answer = self.run_for(feed, &INSERT, keys, args).await?;
        if answer.status() == b"neighbour" {
            return Err(unknown_neighbour(feed, position));
        }
        Ok(answer.ok_for(feed)?.text()?)
    }

    /// Puts a new item at the end of a sorted feed and returns its id.
    ///
    /// # Errors
    ///
    /// As [`Router::insert`].
    pub async fn append(&self, feed: &str, item: impl Into<Bytes>) -> Result<String, FeedError> {
        self.insert(feed, item, &Position::End).await
    }

    /// Puts a new item at the begin of a sorted feed and returns its id.
    ///
    /// # Errors
    ///
    /// As [`Router::insert`].
    pub async fn prepend(&self, feed: &str, item: impl Into<Bytes>) -> Result<String, FeedError> {
        self.insert(feed, item, &Position::Begin).await
    }

    /// Puts a new item right before `neighbour` and returns its id.
    ///
    /// # Errors
    ///
    /// As [`Router::insert`].
    pub async fn publish_before(
        &self,
        feed: &str,
        neighbour: &str,
        item: impl Into<Bytes>,
    ) -> Result<String, FeedError> {
        self.insert(feed, item, &Position::Before(neighbour.to_owned())).await
    }

    /// Puts a new item right behind `neighbour` and returns its id.
    ///
    /// # Errors
    ///
    /// As [`Router::insert`].
    pub async fn publish_after(
        &self,
        feed: &str,
        neighbour: &str,
        item: impl Into<Bytes>,
    ) -> Result<String, FeedError> {
        self.insert(feed, item, &Position::After(neighbour.to_owned())).await
    }

    /// Moves an item of a sorted feed and says where, also where it already was there.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::SameItem`] for a place next to itself, [`FeedError::UnknownItem`],
    /// [`FeedError::UnknownNeighbour`], [`FeedError::WrongKind`], [`FeedError::BadName`],
    /// [`FeedError::BadId`], or [`FeedError::Shard`].
    pub async fn position(
        &self,
        feed: &str,
        id: &str,
        position: &Position,
    ) -> Result<(), FeedError> {
        static POSITION: Script = verb!("position");
        names::check_id(id)?;
        check_move(id, position)?;
        let keys = vec![names::ids(feed), names::items(feed), names::config(feed)];
        let args = vec![bytes(feed), bytes(id), Bytes::from(position.to_string())];
        let answer = self.run_for(feed, &POSITION, keys, args).await?;
        match answer.status() {
            b"unknown" => Err(FeedError::UnknownItem { feed: feed.to_owned(), id: id.to_owned() }),
            b"neighbour" => Err(unknown_neighbour(feed, position)),
            _ => answer.ok_for(feed).map(drop),
        }
    }
}

/// Lets through a place whose neighbour a sorted feed can have.
pub(crate) fn check_position(position: &Position) -> Result<(), FeedError> {
    position.neighbour().map_or(Ok(()), names::check_sorted_id)
}

/// Lets through a place that this item can be moved to.
pub(crate) fn check_move(id: &str, position: &Position) -> Result<(), FeedError> {
    check_position(position)?;
    if position.neighbour() == Some(id) {
        return Err(FeedError::SameItem(id.to_owned()));
    }
    Ok(())
}

fn unknown_neighbour(feed: &str, position: &Position) -> FeedError {
    let id = position.neighbour().unwrap_or_default().to_owned();
    FeedError::UnknownNeighbour { feed: feed.to_owned(), id }
}
