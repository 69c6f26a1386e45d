//! Marked reads: what was read, at a known place among the notices.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bytes::Bytes;

use super::{BadFeed, Content, FeedError, Kind, Settled, Touched, names, plain::bytes};
use crate::{
    router::{Answer, Router, verb},
    shard::{Script, ShardError, Value},
};

/// What a verifying read found of one feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// How the feed is to be followed.
    pub kind: Kind,
    /// The version of its content, 24 hexadecimal digits: of each item the SHA-1 of
    /// `PREV NUL id NUL item`, of each digest three 32-bit words, each summed modulo 2³².
    pub version: String,
}

impl Router {
    /// Reads a feed and publishes `nonce` on `mark_channel` of its shard, in one step.
    ///
    /// # Errors
    ///
    /// Returns [`ShardError`] when the shard is away or refuses; inside, [`BadFeed`] when
    /// a key is of a wrong type (the mark was published then too).
    pub async fn read(
        &self,
        feed: &str,
        mark_channel: impl Into<Bytes>,
        nonce: impl Into<Bytes>,
    ) -> Result<Result<Content, BadFeed>, ShardError> {
        self.read_on(self.owner(feed), feed, mark_channel, nonce).await
    }

    /// Reads a feed as [`Router::read`] does, from a shard that may not be its owner.
    ///
    /// # Errors
    ///
    /// As [`Router::read`].
    pub async fn read_on(
        &self,
        shard: usize,
        feed: &str,
        mark_channel: impl Into<Bytes>,
        nonce: impl Into<Bytes>,
    ) -> Result<Result<Content, BadFeed>, ShardError> {
        static READ: Script = verb!("read");
        let keys = vec![names::ids(feed), names::items(feed), names::config(feed)];
        let args = vec![mark_channel.into(), nonce.into()];
        let mut answer = self.run(shard, &READ, keys, args).await?.ok()?;
        let kind = match kind_of(feed, &mut answer)? {
            Ok(kind) => kind,
            Err(bad) => return Ok(Err(bad)),
        };
        let order = answer.strings()?.into_iter().flatten().collect();
        let items = answer.strings()?;
        Ok(Ok(content(kind, order, items)))
    }

    /// Reads a feed without a mark.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadFeed`], [`FeedError::BadName`], or [`FeedError::Shard`].
    pub async fn all(&self, feed: &str) -> Result<Content, FeedError> {
        names::check_feed(feed)?;
        Ok(self.read(feed, Bytes::new(), Bytes::new()).await??)
    }

    /// Reads the ids of a feed's content, in their order.
    ///
    /// # Errors
    ///
    /// As [`Router::all`].
    pub async fn ids(&self, feed: &str) -> Result<Vec<String>, FeedError> {
        Ok(self.all(feed).await?.entries.into_iter().map(|(id, _)| id).collect())
    }

    /// Reads a feed's content as a map.
    ///
    /// # Errors
    ///
    /// As [`Router::all`].
    pub async fn items(&self, feed: &str) -> Result<HashMap<String, Bytes>, FeedError> {
        Ok(self.all(feed).await?.entries.into_iter().collect())
    }

    /// Reads what was touched in many feeds of one shard, and publishes one mark, in one step.
    ///
    /// The answers are in the order of the questions.
    ///
    /// # Errors
    ///
    /// Returns [`ShardError`] when the shard is away or refuses; inside, a [`BadFeed`] for
    /// each feed with a key of a wrong type.
    pub async fn settle(
        &self,
        shard: usize,
        touched: Vec<Touched>,
        mark_channel: impl Into<Bytes>,
        nonce: impl Into<Bytes>,
    ) -> Result<Vec<Result<Settled, BadFeed>>, ShardError> {
        static SETTLE: Script = verb!("settle");
        let mut keys = Vec::with_capacity(touched.len() * 3);
        let mut args = vec![mark_channel.into(), nonce.into()];
        for Touched { feed, ids } in &touched {
            keys.extend([names::ids(feed), names::items(feed), names::config(feed)]);
            args.push(Bytes::from(ids.len().to_string()));
            args.extend(ids.iter().map(|id| bytes(id)));
        }
        let mut answer = self.run(shard, &SETTLE, keys, args).await?.ok()?;
        let answers = answer.array()?;
        touched
            .iter()
            .zip(answers)
            .map(|(touched, values)| match values {
                Value::Array(values) => settled(touched, answer.part(values)),
                _ => Err(answer.unknown()),
            })
            .collect()
    }

    /// Computes the versions of many feeds on their shard, and publishes one mark, in one step.
    ///
    /// The answers are in the order of the questions. The shard does nothing else
    /// meanwhile: a batch whose feeds have a [`cost_of_verifying`] of 2 ms together, such
    /// as 40 feeds of 20 items of 100 bytes, is not felt.
    ///
    /// # Errors
    ///
    /// Returns [`ShardError`] when the shard is away or refuses; inside, a [`BadFeed`] for
    /// each feed with a key of a wrong type.
    pub async fn verify(
        &self,
        shard: usize,
        feeds: &[String],
        mark_channel: impl Into<Bytes>,
        nonce: impl Into<Bytes>,
    ) -> Result<Vec<Result<Checked, BadFeed>>, ShardError> {
        static VERIFY: Script = verb!("verify");
        let keys = feeds
            .iter()
            .flat_map(|feed| [names::ids(feed), names::items(feed), names::config(feed)]);
        let args = vec![mark_channel.into(), nonce.into()];
        let mut answer = self.run(shard, &VERIFY, keys.collect(), args).await?.ok()?;
        let answers = answer.array()?;
        feeds
            .iter()
            .zip(answers)
            .map(|(feed, values)| match values {
                Value::Array(values) => checked(feed, answer.part(values)),
                _ => Err(answer.unknown()),
            })
            .collect()
    }
}

/// Estimates how long verifying one feed keeps its shard from anything else.
///
/// It is what a Redis 7 took on a common server in `examples/verify_cost.rs`; others take
/// up to half or twice that.
#[must_use]
pub const fn cost_of_verifying(items: usize, bytes: usize) -> Duration {
    const FEED: u64 = 4_000;
    const ITEM: u64 = 1_500;
    const BYTES_16: u64 = 55;
    let nanos = FEED + ITEM * items as u64 + BYTES_16 * (bytes as u64 / 16);
    Duration::from_nanos(nanos)
}

/// Takes what `ids` is, the shape and the config's type from an answer.
fn kind_of(feed: &str, answer: &mut Answer) -> Result<Result<Kind, BadFeed>, ShardError> {
    let (held, shape, typed) = (answer.word()?, answer.text()?, answer.word()?);
    if let Some((key, held)) = shape.split_once(':')
        && shape.starts_with("feed.")
    {
        let reason = format!("`{key}:{feed}` is a {held}");
        return Ok(Err(BadFeed { feed: feed.to_owned(), reason }));
    }
    Ok(Ok(match (&*held, &*typed) {
        (b"zset", _) | (b"none", b"feed") => Kind::Plain,
        (b"list", _) | (b"none", b"sorted_feed") => Kind::Sorted,
        _ => Kind::Unknown,
    }))
}

fn checked(feed: &str, mut answer: Answer) -> Result<Result<Checked, BadFeed>, ShardError> {
    Ok(match kind_of(feed, &mut answer)? {
        Ok(kind) => Ok(Checked { kind, version: answer.text()? }),
        Err(bad) => Err(bad),
    })
}

fn settled(touched: &Touched, mut answer: Answer) -> Result<Result<Settled, BadFeed>, ShardError> {
    let kind = match kind_of(&touched.feed, &mut answer)? {
        Ok(kind) => kind,
        Err(bad) => return Ok(Err(bad)),
    };
    let mut items = answer.strings()?;
    items.resize(touched.ids.len(), None);
    let list: Vec<Bytes> = answer.strings()?.into_iter().flatten().collect();
    let order = match kind {
        Kind::Sorted => {
            let listed: HashSet<&[u8]> = list.iter().map(|id| &**id).collect();
            for (id, item) in touched.ids.iter().zip(&mut items) {
                if !listed.contains(id.as_bytes()) {
                    *item = None;
                }
            }
            Some(list)
        }
        Kind::Plain | Kind::Unknown => None,
    };
    Ok(Ok(Settled { kind, items, order }))
}

/// Makes content of the ids as they are listed, and the items beside them.
fn content(kind: Kind, order: Vec<Bytes>, items: Vec<Option<Bytes>>) -> Content {
    let mut seen = HashSet::with_capacity(order.len());
    let mut entries = Vec::with_capacity(order.len());
    let mut bad_ids = 0;
    for (id, item) in order.into_iter().zip(items) {
        if !seen.insert(id.clone()) {
            continue;
        }
        match std::str::from_utf8(&id) {
            Ok(text) if !text.contains('\0') => {
                if let Some(item) = item {
                    entries.push((text.to_owned(), item));
                }
            }
            _ => bad_ids += 1,
        }
    }
    Content { kind, entries, bad_ids }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(
        listed: &[(&'static [u8], Option<&'static str>)],
        entries: &[(&str, &str)],
        bad: usize,
    ) {
        let order = listed.iter().map(|(id, _)| Bytes::from_static(id)).collect();
        let items =
            listed.iter().map(|(_, item)| item.map(|item| Bytes::from_static(item.as_bytes())));
        let content = content(Kind::Sorted, order, items.collect());
        let found: Vec<_> = content
            .entries
            .iter()
            .map(|(id, item)| (id.as_str(), std::str::from_utf8(item).expect("cases are text")))
            .collect();
        assert_eq!(found, entries);
        assert_eq!(content.bad_ids, bad);
    }

    #[test]
    fn content_is_what_is_listed_and_held() {
        check(&[], &[], 0);
        check(&[(b"1", Some("a")), (b"2", Some("b"))], &[("1", "a"), ("2", "b")], 0);
        check(&[(b"1", None), (b"2", Some("b"))], &[("2", "b")], 0);
        check(
            &[(b"1", Some("a")), (b"2", Some("b")), (b"1", Some("a"))],
            &[("1", "a"), ("2", "b")],
            0,
        );
        check(&[(b"\xff", Some("a")), (b"x\0y", Some("b")), (b"\xff", None)], &[], 2);
    }
}
