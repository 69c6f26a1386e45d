//! The contract: how a feed's keys and channels are named, and what notices say.
//!
//! Source: Thoonk 1.0.1 (`contract.txt`, and `thoonk/feeds/*.py` where they differ).

use std::fmt;

use bytes::Bytes;

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

impl std::str::FromStr for Position {
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
