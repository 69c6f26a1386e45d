//! What a writer announced about one item.

use std::{borrow::Cow, str};

use bytes::Bytes;
use shard_router::feed::{BadPosition, Position};

/// What the channel of a notice says was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `feed.publish:NAME`.
    Publish,
    /// `feed.edit:NAME`.
    Edit,
    /// `feed.retract:NAME`.
    Retract,
    /// `feed.position:NAME`.
    Position,
}

/// One notice; its item is still a slice of the buffer that it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// An item was written; in a sorted feed this may also be an edit.
    Publish {
        /// Its id.
        id: String,
        /// Its new bytes.
        item: Bytes,
    },
    /// A known item was written.
    Edit {
        /// Its id.
        id: String,
        /// Its new bytes.
        item: Bytes,
    },
    /// An item was taken out.
    Retract {
        /// Its id.
        id: String,
    },
    /// An item of a sorted feed was put somewhere.
    Position {
        /// Its id.
        id: String,
        /// Where to.
        position: Position,
    },
}

/// Why a payload says nothing that can be followed; its feed is to be read instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNotice {
    /// Nothing parts the id from what follows.
    #[error("notice has no NUL behind its id")]
    NoNul,
    /// The id is not UTF-8, or a retracted one holds NUL.
    #[error("id in notice is not UTF-8 without NUL")]
    BadId,
    /// The place is none that the contract knows.
    #[error("place in notice cannot be read")]
    BadPosition(#[source] BadPosition),
}

impl Notice {
    /// Reads the payload of a notice.
    ///
    /// Only the first NUL parts id and item: an item may hold more.
    ///
    /// # Errors
    ///
    /// Returns [`BadNotice`] when the payload is not as the contract has it.
    pub fn parse(verb: Verb, payload: &Bytes) -> Result<Self, BadNotice> {
        match verb {
            Verb::Publish => {
                let (id, item) = parted(payload)?;
                Ok(Self::Publish { id, item })
            }
            Verb::Edit => {
                let (id, item) = parted(payload)?;
                Ok(Self::Edit { id, item })
            }
            Verb::Retract if payload.contains(&0) => Err(BadNotice::BadId),
            Verb::Retract => Ok(Self::Retract { id: id(payload)? }),
            Verb::Position => {
                let (id, place) = parted(payload)?;
                Ok(Self::Position { id, position: position(&place)? })
            }
        }
    }

    /// The item that it is about.
    pub fn id(&self) -> &str {
        match self {
            Self::Publish { id, .. }
            | Self::Edit { id, .. }
            | Self::Retract { id }
            | Self::Position { id, .. } => id,
        }
    }
}

fn parted(payload: &Bytes) -> Result<(String, Bytes), BadNotice> {
    let nul = payload.iter().position(|&byte| byte == 0).ok_or(BadNotice::NoNul)?;
    Ok((id(&payload[..nul])?, payload.slice(nul + 1..)))
}

fn id(bytes: &[u8]) -> Result<String, BadNotice> {
    str::from_utf8(bytes).map(str::to_owned).map_err(|_| BadNotice::BadId)
}

fn position(bytes: &[u8]) -> Result<Position, BadNotice> {
    let place = String::from_utf8_lossy(bytes);
    match place {
        Cow::Borrowed(place) => place.parse().map_err(BadNotice::BadPosition),
        // What was replaced to make this UTF-8 must not meet an id that looks the same.
        Cow::Owned(place) => Err(BadNotice::BadPosition(BadPosition(place))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(verb: Verb, payload: &'static [u8], expected: Result<Notice, BadNotice>) {
        assert_eq!(Notice::parse(verb, &Bytes::from_static(payload)), expected);
    }

    #[test]
    fn notices_are_parted_at_their_first_nul() {
        let (id, item) = ("1".to_owned(), Bytes::from_static(b"a\0b\xff"));
        check(
            Verb::Publish,
            b"1\0a\0b\xff",
            Ok(Notice::Publish { id: id.clone(), item: item.clone() }),
        );
        check(Verb::Edit, b"1\0a\0b\xff", Ok(Notice::Edit { id: id.clone(), item }));
        check(Verb::Edit, b"1\0", Ok(Notice::Edit { id: id.clone(), item: Bytes::new() }));
        check(Verb::Retract, b"1", Ok(Notice::Retract { id: id.clone() }));
        let position = Position::Before("2".to_owned());
        check(Verb::Position, b"1\0:2", Ok(Notice::Position { id, position }));
    }

    #[test]
    fn a_payload_that_breaks_the_contract_is_named() {
        check(Verb::Publish, b"1", Err(BadNotice::NoNul));
        check(Verb::Position, b"", Err(BadNotice::NoNul));
        check(Verb::Edit, b"\xff\0item", Err(BadNotice::BadId));
        check(Verb::Retract, b"\xff", Err(BadNotice::BadId));
        check(Verb::Retract, b"1\0", Err(BadNotice::BadId));
        let bad = |place: &str| Err(BadNotice::BadPosition(BadPosition(place.to_owned())));
        check(Verb::Position, b"1\0end", bad("end"));
        check(Verb::Position, b"1\0\xff:", bad("\u{fffd}:"));
    }
}
