//! Queues: items taken once, nothing announced.

use bytes::Bytes;

use super::{
    FeedError, names,
    plain::{bytes, generated, lossy},
};
use crate::{
    router::{Router, verb},
    shard::Script,
};

impl Router {
    /// Puts an item into a queue, before all others where it has `priority`; returns its id.
    ///
    /// Makes the queue where it does not exist.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::WrongKind`], [`FeedError::BadName`], or [`FeedError::Shard`].
    pub async fn queue_put(
        &self,
        queue: &str,
        item: impl Into<Bytes>,
        priority: bool,
    ) -> Result<String, FeedError> {
        static PUT: Script = verb!("queue_put");
        let id = generated();
        let keys = vec![
            names::ids(queue),
            names::items(queue),
            names::config(queue),
            names::publishes(queue),
            names::FEEDS,
        ];
        let args =
            vec![bytes(queue), bytes(&id), item.into(), push(priority), bytes(self.instance())];
        self.run_for(queue, &PUT, keys, args).await?.ok_for(queue)?;
        Ok(id)
    }

    /// Takes the next item, with its id, out of a queue; `None` where it is empty.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::WrongKind`], [`FeedError::BadName`], or [`FeedError::Shard`].
    pub async fn queue_get(&self, queue: &str) -> Result<Option<(String, Bytes)>, FeedError> {
        static GET: Script = verb!("queue_get");
        loop {
            let keys = vec![names::ids(queue), names::items(queue), names::config(queue)];
            let mut answer = self.run_for(queue, &GET, keys, Vec::new()).await?;
            match answer.status() {
                b"none" => return Ok(None),
                b"again" => {}
                _ => {
                    answer = answer.ok_for(queue)?;
                    return Ok(Some((lossy(&answer.word()?), answer.word()?)));
                }
            }
        }
    }
}

/// Returns the command that puts an id where pops come last, or next with `priority`.
pub(crate) fn push(priority: bool) -> Bytes {
    Bytes::from_static(if priority { b"RPUSH" } else { b"LPUSH" })
}
