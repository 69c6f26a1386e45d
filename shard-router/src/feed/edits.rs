//! Edits that are done once, however often they are tried.
//!
//! The edit worker reads an item, merges outside, and writes only if the item is still
//! what it read. The same script notes the job beside the feed for an hour, so that a
//! worker that died behind the write and before its answer changes nothing twice.

use bytes::Bytes;

use super::{
    FeedError, Found, NewFeed, Position, names,
    plain::{bytes, generated, lossy, number},
    sorted::{check_move, check_position},
};
use crate::{
    router::{Answer, Router, verb},
    shard::Script,
};

/// How long an edit is remembered, in seconds.
const KEEP: &str = "3600";

/// What is noted beside the feed when an edit is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The id of the edit's job.
    pub job: String,
    /// What a second try is told; an [`Router::edit_add`] notes the new id instead.
    pub result: Bytes,
}

/// What became of an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edited {
    /// It is done, to the item of this id.
    Done {
        /// The id, for an add the new one.
        id: String,
    },
    /// It was done by an earlier try, which noted this.
    AlreadyDone(Bytes),
    /// The item is not what was expected any more, but this; nothing was changed.
    Changed(Bytes),
    /// The feed does not have the item; nothing was changed.
    Unknown,
    /// The feed does not have the neighbour that the position names; nothing was changed.
    UnknownNeighbour,
    /// The feed is of a type without such an edit; nothing was changed.
    WrongKind(Found),
}

impl Router {
    /// Writes `new` if the item is still `expected`, byte for byte.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadName`], [`FeedError::BadId`], or [`FeedError::Shard`].
    pub async fn cas_item(
        &self,
        feed: &str,
        id: &str,
        expected: &[u8],
        new: &[u8],
        note: &Note,
    ) -> Result<Edited, FeedError> {
        names::check_id(id)?;
        let expected = Bytes::copy_from_slice(expected);
        let new = Bytes::copy_from_slice(new);
        self.edited(feed, note, "set", [bytes(id), expected, new].into()).await
    }

    /// Adds an item; a plain feed gives it a generated id, a sorted one the next number.
    ///
    /// `position` is for sorted feeds, the end where there is none. A feed that does not
    /// exist is made as `new` says. The note keeps the new id.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadName`], [`FeedError::BadId`], or [`FeedError::Shard`].
    pub async fn edit_add(
        &self,
        feed: &str,
        item: impl Into<Bytes>,
        position: Option<&Position>,
        new: NewFeed,
        note: &Note,
    ) -> Result<Edited, FeedError> {
        position.map_or(Ok(()), check_position)?;
        let place = position.map_or_else(Bytes::new, |position| position.to_string().into());
        let id = Bytes::from(generated());
        let feed_type = Bytes::from_static(new.feed_type.as_str().as_bytes());
        let args = [id, item.into(), place, feed_type, number(new.max_length)];
        self.edited(feed, note, "add", args.into()).await
    }

    /// Takes an item out.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadName`], [`FeedError::BadId`], or [`FeedError::Shard`].
    pub async fn edit_delete(
        &self,
        feed: &str,
        id: &str,
        note: &Note,
    ) -> Result<Edited, FeedError> {
        names::check_id(id)?;
        self.edited(feed, note, "delete", vec![bytes(id)]).await
    }

    /// Moves an item of a sorted feed.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::SameItem`] for a place next to itself, [`FeedError::BadName`],
    /// [`FeedError::BadId`], or [`FeedError::Shard`].
    pub async fn edit_move(
        &self,
        feed: &str,
        id: &str,
        position: &Position,
        note: &Note,
    ) -> Result<Edited, FeedError> {
        names::check_id(id)?;
        check_move(id, position)?;
        let place = Bytes::from(position.to_string());
        self.edited(feed, note, "move", [bytes(id), place].into()).await
    }

    async fn edited(
        &self,
        feed: &str,
        note: &Note,
        verb: &'static str,
        rest: Vec<Bytes>,
    ) -> Result<Edited, FeedError> {
        static EDITED: Script = verb!("edited");
        names::check_id(&note.job)?;
        let keys = vec![
            names::ids(feed),
            names::items(feed),
            names::config(feed),
            names::publishes(feed),
            names::idincr(feed),
            names::FEEDS,
            names::edit_done(feed, &note.job),
        ];
        let mut args = vec![
            bytes(feed),
            bytes(self.instance()),
            Bytes::from_static(KEEP.as_bytes()),
            note.result.clone(),
            Bytes::from_static(verb.as_bytes()),
        ];
        args.extend(rest);
        outcome(self.run_for(feed, &EDITED, keys, args).await?)
    }
}

fn outcome(mut answer: Answer) -> Result<Edited, FeedError> {
    Ok(match answer.status() {
        b"done" => Edited::AlreadyDone(answer.word()?),
        b"changed" => Edited::Changed(answer.word()?),
        b"unknown" => Edited::Unknown,
        b"neighbour" => Edited::UnknownNeighbour,
        b"kind" => Edited::WrongKind(Found::of(&answer.word()?)),
        _ => Edited::Done { id: lossy(&answer.ok()?.word()?) },
    })
}
