//! What comes of a notice or a read: events for clients, or a doubt.

use std::sync::Arc;

use bytes::Bytes;
use shard_router::feed::{Kind, Position};

use super::Version;

/// What a notice did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It told what was known already.
    Nothing,
    /// It changed the mirror.
    Event(Event),
    /// It is the first half of an insert; the feed's next notice must be the second.
    Held,
    /// It does not fit and changed nothing; the feed is to be read.
    Doubt(Doubt),
}

/// What a read changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// The mirror was right.
    Nothing,
    /// These events, never none, lead from what it held to what it holds.
    Events(Vec<Event>),
    /// Too much for events: clients are to be given the collection anew.
    Reset,
}

/// One change of a mirror, and what it led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What was done.
    pub change: Change,
    /// The version of exactly what a client holds that applied it.
    pub v: Version,
}

impl Event {
    /// Returns the id of the item that it lets appear, if it does.
    pub fn published(&self) -> Option<&str> {
        match &self.change {
            Change::Publish { id, .. } => Some(id),
            Change::Change { .. } | Change::Retract { .. } | Change::Position { .. } => None,
        }
    }
}

/// What an event does to a collection; a place is `Begin`, or `After` the item just before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An item appeared.
    Publish {
        /// Its id.
        id: Arc<str>,
        /// Its bytes.
        item: Bytes,
        /// In a sorted feed, where it stands.
        position: Option<Position>,
    },
    /// An item has other bytes.
    Change {
        /// Its id.
        id: Arc<str>,
        /// Its new bytes.
        item: Bytes,
    },
    /// An item is gone.
    Retract {
        /// Its id.
        id: Arc<str>,
    },
    /// An item stands elsewhere.
    Position {
        /// Its id.
        id: Arc<str>,
        /// Where it stands now.
        position: Position,
    },
}

/// Why a feed must be read before it can be followed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// Something came while nobody knew what kind of feed this is.
    #[error("feed's kind is not known yet")]
    UnknownKind,
    /// A place was announced in a feed without order.
    #[error("item `{0}` of a plain feed was given a place")]
    PlaceInPlain(String),
    /// An unknown item was not followed by its place.
    #[error("item `{0}` was published without its place right behind it")]
    NoPlace(String),
    /// An edit or a place of an item that the mirror does not hold.
    #[error("item `{0}` is not known")]
    UnknownItem(String),
    /// A place next to an item that the mirror does not hold.
    #[error("neighbour `{0}` is not known")]
    UnknownNeighbour(String),
    /// A place next to the item itself.
    #[error("item `{0}` was put next to itself")]
    NextToItself(String),
    /// A place behind an id that makes it read as another place, as `begin` does.
    #[error("place behind item `{0}` cannot be told")]
    Untellable(String),
    /// A settling read found another kind of feed.
    #[error("feed is {is:?} and was {was:?}")]
    OtherKind {
        /// As the mirror has it.
        was: Kind,
        /// As it was read.
        is: Kind,
    },
    /// A settling read listed ids whose items were neither known nor asked for.
    #[error("items {0:?} are listed and were not read")]
    Unread(Vec<String>),
    /// A settling read does not answer what was asked.
    #[error("settling read does not answer what was asked")]
    Unanswered,
}
