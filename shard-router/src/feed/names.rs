//! Names that may be used, and the keys and channels they stand for.

use bytes::Bytes;

use super::FeedError;

/// The set that names every feed of one shard.
pub const FEEDS: Bytes = Bytes::from_static(b"feeds");

/// How long a feed's name may be, in bytes.
pub const MAX_NAME: usize = 512;

/// How long an item's or a job's id may be, in bytes.
pub const MAX_ID: usize = 256;

/// Lets through a name that a feed may have.
///
/// # Errors
///
/// Returns [`FeedError::BadName`] for a name that is empty, over [`MAX_NAME`] bytes or holds NUL.
pub fn check_feed(name: &str) -> Result<(), FeedError> {
    if name.is_empty() {
        Err(FeedError::BadName("it is empty"))
    } else if name.len() > MAX_NAME {
        Err(FeedError::BadName("it is over 512 bytes"))
    } else if name.contains('\0') {
        Err(FeedError::BadName("it holds NUL"))
    } else {
        Ok(())
    }
}

/// Lets through an id that an item of a plain feed, or a job, may have.
///
/// # Errors
///
/// Returns [`FeedError::BadId`] for an id that is empty, over [`MAX_ID`] bytes or holds NUL.
pub fn check_id(id: &str) -> Result<(), FeedError> {
    let reason = if id.is_empty() {
        "it is empty"
    } else if id.len() > MAX_ID {
        "it is over 256 bytes"
    } else if id.contains('\0') {
        "it holds NUL"
    } else {
        return Ok(());
    };
    Err(FeedError::BadId { id: id.to_owned(), reason })
}

/// Lets through an id that an item of a sorted feed may have.
///
/// # Errors
///
/// Returns [`FeedError::BadId`] where [`check_id`] does, and for an id that holds `:` or is
/// `begin` or `end`, because such a one would not be told from a position.
pub fn check_sorted_id(id: &str) -> Result<(), FeedError> {
    check_id(id)?;
    let reason = if id.contains(':') {
        "it holds a colon"
    } else if id == "begin" || id == "end" {
        "it is a word for a position"
    } else {
        return Ok(());
    };
    Err(FeedError::BadId { id: id.to_owned(), reason })
}

macro_rules! named {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(feed: &str) -> Bytes {
            Bytes::from([$prefix, feed].concat())
        }
    )*};
}

named! {
    /// Returns the key of a feed's ids: a zset, or a list for all other types.
    ids = "feed.ids:";
    /// Returns the key of the hash from id to item.
    items = "feed.items:";
    /// Returns the key of the counter of items written, for a job queue also the channel of new jobs.
    publishes = "feed.publishes:";
    /// Returns the key of the hash that holds `type` and `max_length`.
    config = "feed.config:";
    /// Returns the key of the counter that a sorted feed's ids come from.
    idincr = "feed.idincr:";
    /// Returns the key of the zset of jobs by the millisecond they were put.
    published = "feed.published:";
    /// Returns the key of the zset of jobs by the millisecond they were claimed, also a channel.
    claimed = "feed.claimed:";
    /// Returns the key of the hash of how often each job was cancelled.
    cancelled = "feed.cancelled:";
    /// Returns the key of the set of jobs that rest.
    stalled = "feed.stalled:";
    /// Returns the key of the counter of jobs finished.
    finishes = "feed.finishes:";
    /// Returns a key that Thoonk reserves for job queues.
    retried = "feed.retried:";
    /// Returns a key that Thoonk reserves for job queues.
    running = "feed.running:";
    /// Returns the channel of `id NUL item` for new items, in a sorted feed also for edited ones.
    publish_channel = "feed.publish:";
    /// Returns the channel of `id NUL item` for edited items of a plain feed.
    edit_channel = "feed.edit:";
    /// Returns the channel of ids that were taken out.
    retract_channel = "feed.retract:";
    /// Returns the channel of `id NUL position`.
    position_channel = "feed.position:";
    /// Returns the channel of `id NUL result`.
    finish_channel = "job.finish:";
}

/// Returns the key under which a job's result is kept for a minute.
#[must_use]
pub fn job_result(queue: &str, id: &str) -> Bytes {
    Bytes::from(["job.result:", queue, ":", id].concat())
}

/// Returns the key under which an edit notes for an hour that it was done.
#[must_use]
pub fn edit_done(feed: &str, job: &str) -> Bytes {
    Bytes::from(["edit.done:", feed, ":", job].concat())
}

/// Returns every key that a feed of any type may have, without those that expire by themselves.
#[must_use]
pub fn every_key(feed: &str) -> Vec<Bytes> {
    [
        ids, items, publishes, config, idincr, published, claimed, cancelled, stalled, finishes,
        retried, running,
    ]
    .map(|key| key(feed))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(id: &str, plain: bool, sorted: bool) {
        assert_eq!(check_id(id).is_ok(), plain, "{id:?} in a plain feed");
        assert_eq!(check_sorted_id(id).is_ok(), sorted, "{id:?} in a sorted feed");
    }

    #[test]
    fn ids_that_would_be_misread_are_refused() {
        check("1", true, true);
        check("é", true, true);
        check("a b\n", true, true);
        check("", false, false);
        check("a\0b", false, false);
        check(&"x".repeat(256), true, true);
        check(&"é".repeat(128), true, true);
        check(&"x".repeat(257), false, false);
        check(&"é".repeat(129), false, false);
        check("a:b", true, false);
        check(":", true, false);
        check("begin", true, false);
        check("end", true, false);
        check("ending", true, true);
    }

    #[test]
    fn feed_names_are_bounded_and_without_nul() {
        assert!(check_feed("team.1:x").is_ok());
        assert!(check_feed(&"x".repeat(512)).is_ok());
        for name in [String::new(), "x".repeat(513), "a\0".to_owned()] {
            assert!(check_feed(&name).is_err(), "{name:?}");
        }
    }
}
