//! The contract: how a feed's keys and channels are named, and what notices say.
//!
//! Source: Thoonk 1.0.1 (`contract.txt`, and `thoonk/feeds/*.py` where they differ).

use std::{fmt, str::FromStr};

use bytes::Bytes;

use crate::shard::ShardError;

mod edits;
mod job;
pub mod names;
mod plain;
mod queue;
mod read;
mod sorted;

pub use edits::{Edited, Note};
pub use job::{Job, Look, Put};
pub use plain::{Post, Published};
pub use read::{Checked, cost_of_verifying};

/// What kind of feed a name stands for, as `feed.config:NAME` says in `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FeedType {
    /// Items by id, a zset scored by publish time.
    Feed,
    /// Items in an order that writers choose, a list.
    SortedFeed,
    /// Items taken once.
    Queue,
    /// Items taken, claimed and finished.
    Job,
}

impl FeedType {
    /// Returns the word that stands in `feed.config:NAME`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Feed => "feed",
            Self::SortedFeed => "sorted_feed",
            Self::Queue => "queue",
            Self::Job => "job",
        }
    }
}

impl fmt::Display for FeedType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// A word is no type of feed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of `feed`, `sorted_feed`, `queue` and `job`")]
pub struct BadFeedType(pub String);

impl FromStr for FeedType {
    type Err = BadFeedType;

    fn from_str(text: &str) -> Result<Self, BadFeedType> {
        match text {
            "feed" => Ok(Self::Feed),
            "sorted_feed" => Ok(Self::SortedFeed),
            "queue" => Ok(Self::Queue),
            "job" => Ok(Self::Job),
            _ => Err(BadFeedType(text.to_owned())),
        }
    }
}

/// What a verb found under a feed's name, where it could not do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A feed of this type.
    Type(FeedType),
    /// Something the contract does not know, such as `feed.ids:set`.
    Other(String),
}

impl Found {
    /// Reads the word that the scripts answer.
    pub(crate) fn of(word: &[u8]) -> Self {
        let word = String::from_utf8_lossy(word);
        word.parse().map_or_else(|_| Self::Other(word.into_owned()), Self::Type)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type(feed_type) => feed_type.fmt(out),
            Self::Other(word) => out.write_str(word),
        }
    }
}

/// What a feed becomes where a verb is the first to write it; ignored where it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewFeed {
    /// Its type, for verbs that can make several.
    pub feed_type: FeedType,
    /// How many items it keeps: a plain feed the newest, a sorted feed the last ones.
    pub max_length: Option<u64>,
}

impl Default for NewFeed {
    fn default() -> Self {
        Self { feed_type: FeedType::Feed, max_length: None }
    }
}

/// Why a verb was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// No feed may have this name.
    #[error("bad feed name: {0}")]
    BadName(&'static str),
    /// No item or job may have this id.
    #[error("bad id {id:?}: {reason}")]
    BadId {
        /// The id.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The feed is of a type that this verb is not for.
    #[error("feed `{feed}` is of another type: {found}")]
    WrongKind {
        /// The feed.
        feed: String,
        /// What it is.
        found: Found,
    },
    /// The feed has no item of this id.
    #[error("feed `{feed}` has no item {id:?}")]
    UnknownItem {
        /// The feed.
        feed: String,
        /// The id.
        id: String,
    },
    /// The item that a position names is not in the feed.
    #[error("feed `{feed}` has no neighbour {id:?}")]
    UnknownNeighbour {
        /// The feed.
        feed: String,
        /// The id of the neighbour.
        id: String,
    },
    /// An item cannot be put next to itself.
    #[error("item {0:?} cannot be put next to itself")]
    SameItem(String),
    /// The feed's keys are not what the contract says.
    #[error(transparent)]
    BadFeed(#[from] BadFeed),
    /// The shard did not do it.
    #[error("shard did not carry it out")]
    Shard(#[from] ShardError),
}

/// Where an item goes, relative to its neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Position {
    /// `begin:`, before every other item.
    Begin,
    /// `:end`, behind every other item.
    End,
    /// `:ID`, right before ID.
    Before(String),
    /// `ID:`, right behind ID.
    After(String),
}

/// A place is none of `begin:`, `:end`, `:ID`, `ID:`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("position {0:?} is none of `begin:`, `:end`, `:ID` (before ID) and `ID:` (after ID)")]
pub struct BadPosition(pub String);

impl FromStr for Position {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, BadPosition> {
        let bad = || BadPosition(text.to_owned());
        let position = match text {
            "begin:" => Self::Begin,
            ":end" => Self::End,
            _ => match (text.strip_prefix(':'), text.strip_suffix(':')) {
                (Some(id), None) => Self::Before(id.to_owned()),
                (None, Some(id)) => Self::After(id.to_owned()),
                _ => return Err(bad()),
            },
        };
        match &position {
            Self::Before(id) | Self::After(id) if id.is_empty() || id.contains(':') => Err(bad()),
            _ => Ok(position),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin => out.write_str("begin:"),
            Self::End => out.write_str(":end"),
            Self::Before(id) => write!(out, ":{id}"),
            Self::After(id) => write!(out, "{id}:"),
        }
    }
}

impl Position {
    /// Returns the id of the neighbour it names.
    #[must_use]
    pub fn neighbour(&self) -> Option<&str> {
        match self {
            Self::Begin | Self::End => None,
            Self::Before(id) | Self::After(id) => Some(id),
        }
    }
}

/// What kind of key a feed's ids are in; this, not its config, decides how it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No key and no config yet: anything may come.
    Unknown,
    /// A zset, or none and the config says `feed`.
    Plain,
    /// A list, or none and the config says `sorted_feed`.
    Sorted,
}

/// A feed as one read found it: *content* in the sense of the design, section 4.
///
/// An id listed twice is here once, at its first place; an id without an item, not
/// UTF-8 or with NUL is left out. A plain feed's entries are in the order of their scores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// How to follow it.
    pub kind: Kind,
    /// Ids and items, byte for byte.
    pub entries: Vec<(String, Bytes)>,
    /// How many ids were left out because they are not UTF-8 or hold NUL.
    pub bad_ids: usize,
}

/// What is asked about one feed in a settling read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// The feed.
    pub feed: String,
    /// The ids whose items are read again.
    pub ids: Vec<String>,
}

/// What a settling read found of one feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// How the feed is to be followed now.
    pub kind: Kind,
    /// For each id that was asked, in that order, its item; `None` if it is not part of the content.
    pub items: Vec<Option<Bytes>>,
    /// For a sorted feed, the whole list as it is (it may name ids without items, or twice).
    pub order: Option<Vec<Bytes>>,
}

/// Why one feed could not be read although its shard answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("feed `{feed}` cannot be read: {reason}")]
pub struct BadFeed {
    /// The feed.
    pub feed: String,
    /// Which key is of which wrong type.
    pub reason: String,
}
