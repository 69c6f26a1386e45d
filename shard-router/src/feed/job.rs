//! Jobs: items taken, claimed and finished.

use std::time::Duration;

use bytes::Bytes;
use tracing::warn;

use super::{
    FeedError, names,
    plain::{bytes, lossy},
    queue::push,
};
use crate::{
    router::{Router, verb},
    shard::{Script, ShardError},
};

/// How long a job's result is kept beside its queue, in seconds.
const KEEP: &str = "60";

/// A job that was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// What is to be done.
    pub item: Bytes,
    /// How often it was claimed and given back before.
    pub cancelled: u64,
    /// How long ago it was put, by the shard's clock; `None` where nobody noted it.
    pub age: Option<Duration>,
}

/// What became of putting a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// It is queued.
    Queued,
    /// A job of this id is in the queue, claimed or stalled; nothing was changed.
    Known,
    /// A job of this id was finished less than a minute ago, with this result.
    Kept(Bytes),
    /// The queue is too long; nothing was changed.
    Full,
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Finished less than a minute ago, with this result.
    Kept(Bytes),
    /// In the queue.
    Queued,
    /// At a worker.
    Claimed,
    /// Put to rest.
    Stalled,
    /// Finished, withdrawn, or never there.
    Gone,
}

impl Router {
    /// Puts a job, before all others where it has `priority`; a known id does nothing.
    ///
    /// Makes the queue where it does not exist. Says `id NUL item` on `feed.publishes:`.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::WrongKind`], [`FeedError::BadName`], [`FeedError::BadId`], or
    /// [`FeedError::Shard`].
    pub async fn job_put(
        &self,
        queue: &str,
        id: &str,
        item: impl Into<Bytes>,
        priority: bool,
        max_queued: u64,
    ) -> Result<Put, FeedError> {
        static PUT: Script = verb!("job_put");
        names::check_id(id)?;
        let keys = vec![
            names::ids(queue),
            names::items(queue),
            names::config(queue),
            names::publishes(queue),
            names::published(queue),
            names::FEEDS,
            names::job_result(queue, id),
        ];
        let args = vec![
            bytes(queue),
            bytes(id),
            item.into(),
            push(priority),
            Bytes::from(max_queued.to_string()),
            bytes(self.instance()),
        ];
        let mut answer = self.run_for(queue, &PUT, keys, args).await?;
        match answer.status() {
            b"known" => Ok(Put::Known),
            b"full" => Ok(Put::Full),
            b"kept" => Ok(Put::Kept(answer.word()?)),
            _ => answer.ok_for(queue).map(|_| Put::Queued),
        }
    }

    /// Claims the next job; `None` where none is queued. Says `id` on `feed.claimed:`.
    ///
    /// Ids without an item are dropped on the way. A job whose id is not UTF-8 is stalled.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::WrongKind`], [`FeedError::BadName`], or [`FeedError::Shard`].
    pub async fn job_get(&self, queue: &str) -> Result<Option<Job>, FeedError> {
        static GET: Script = verb!("job_get");
        loop {
            let keys = vec![
                names::ids(queue),
                names::items(queue),
                names::config(queue),
                names::published(queue),
                names::claimed(queue),
                names::cancelled(queue),
            ];
            let mut answer = self.run_for(queue, &GET, keys, vec![bytes(queue)]).await?;
            match answer.status() {
                b"none" => return Ok(None),
                b"again" => continue,
                _ => answer = answer.ok_for(queue)?,
            }
            let id = match String::from_utf8(answer.word()?.into()) {
                Ok(id) => id,
                Err(bad) => {
                    warn!(queue, id = ?bad.as_bytes(), "Job has an id that is not UTF-8; stalled.");
                    self.stall(queue, Bytes::from(bad.into_bytes())).await?;
                    continue;
                }
            };
            let item = answer.word()?;
            let cancelled = answer.text()?.parse().unwrap_or(0);
            let age = answer.maybe()?.and_then(|age| lossy(&age).parse().ok());
            return Ok(Some(Job { id, item, cancelled, age: age.map(Duration::from_millis) }));
        }
    }

    /// Finishes a claimed job; `false`, changing nothing, where it is not claimed.
    ///
    /// A result is said as `id NUL result` on `job.finish:` and kept for a minute.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadName`], [`FeedError::BadId`], or [`FeedError::Shard`].
    pub async fn job_finish(
        &self,
        queue: &str,
        id: &str,
        result: Option<Bytes>,
    ) -> Result<bool, FeedError> {
        static FINISH: Script = verb!("job_finish");
        names::check_id(id)?;
        let keys = vec![
            names::items(queue),
            names::published(queue),
            names::claimed(queue),
            names::cancelled(queue),
            names::finishes(queue),
            names::job_result(queue, id),
        ];
        let mut args = vec![bytes(queue), bytes(id), Bytes::from_static(KEEP.as_bytes())];
        args.extend(result);
        Ok(self.run_for(queue, &FINISH, keys, args).await?.ok()?.int()? == 1)
    }

    /// Gives a claimed job back to its queue, behind the others; `false` where it is not claimed.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadName`], [`FeedError::BadId`], or [`FeedError::Shard`].
    pub async fn job_cancel(&self, queue: &str, id: &str) -> Result<bool, FeedError> {
        static CANCEL: Script = verb!("job_cancel");
        names::check_id(id)?;
        let keys = vec![names::ids(queue), names::claimed(queue), names::cancelled(queue)];
        Ok(self.run_for(queue, &CANCEL, keys, vec![bytes(id)]).await?.ok()?.int()? == 1)
    }

    /// Puts a claimed job to rest; `false` where it is not claimed.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadName`], [`FeedError::BadId`], or [`FeedError::Shard`].
    pub async fn job_stall(&self, queue: &str, id: &str) -> Result<bool, FeedError> {
        names::check_id(id)?;
        self.stall(queue, bytes(id)).await
    }

    async fn stall(&self, queue: &str, id: Bytes) -> Result<bool, FeedError> {
        static STALL: Script = verb!("job_stall");
        let keys = vec![
            names::published(queue),
            names::claimed(queue),
            names::cancelled(queue),
            names::stalled(queue),
        ];
        Ok(self.run_for(queue, &STALL, keys, vec![id]).await?.ok()?.int()? == 1)
    }

    /// Puts a stalled job back into its queue, behind the others; `false` where it is not stalled.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadName`], [`FeedError::BadId`], or [`FeedError::Shard`].
    pub async fn job_retry(&self, queue: &str, id: &str) -> Result<bool, FeedError> {
        static RETRY: Script = verb!("job_retry");
        names::check_id(id)?;
        let keys = vec![names::ids(queue), names::published(queue), names::stalled(queue)];
        Ok(self.run_for(queue, &RETRY, keys, vec![bytes(id)]).await?.ok()?.int()? == 1)
    }

    /// Withdraws a job wherever it is; `false` where there is none of this id.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadName`], [`FeedError::BadId`], or [`FeedError::Shard`].
    pub async fn job_retract(&self, queue: &str, id: &str) -> Result<bool, FeedError> {
        static RETRACT: Script = verb!("job_retract");
        names::check_id(id)?;
        let keys = vec![
            names::ids(queue),
            names::items(queue),
            names::published(queue),
            names::claimed(queue),
            names::cancelled(queue),
            names::stalled(queue),
        ];
        Ok(self.run_for(queue, &RETRACT, keys, vec![bytes(id)]).await?.ok()?.int()? == 1)
    }

    /// Tells where a job is.
    ///
    /// One that a foreign worker popped and did not claim yet counts as queued.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadName`], [`FeedError::BadId`], or [`FeedError::Shard`].
    pub async fn job_look(&self, queue: &str, id: &str) -> Result<Look, FeedError> {
        static LOOK: Script = verb!("job_look");
        names::check_id(id)?;
        let keys = vec![
            names::items(queue),
            names::claimed(queue),
            names::stalled(queue),
            names::job_result(queue, id),
        ];
        let mut answer = self.run_for(queue, &LOOK, keys, vec![bytes(id)]).await?;
        match answer.status() {
            b"kept" => Ok(Look::Kept(answer.word()?)),
            b"queued" => Ok(Look::Queued),
            b"claimed" => Ok(Look::Claimed),
            b"stalled" => Ok(Look::Stalled),
            b"gone" => Ok(Look::Gone),
            _ => Err(answer.unknown().into()),
        }
    }

    /// Puts those of the `suspects` back that no worker and no list accounts for, and
    /// returns how many, and who is to be suspected in the next pass.
    ///
    /// A worker of another make pops first and claims then, so that passes must be
    /// seconds apart: only who was unaccounted for in two of them is lost.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadName`] or [`FeedError::Shard`].
    pub async fn job_maintain(
        &self,
        queue: &str,
        suspects: Vec<Bytes>,
    ) -> Result<(u64, Vec<Bytes>), FeedError> {
        static MAINTAIN: Script = verb!("job_maintain");
        let keys = vec![
            names::ids(queue),
            names::items(queue),
            names::claimed(queue),
            names::stalled(queue),
        ];
        let mut answer = self.run_for(queue, &MAINTAIN, keys, suspects).await?.ok()?;
        let back = u64::try_from(answer.int()?).unwrap_or(0);
        let suspects: Result<_, ShardError> = answer.strings();
        Ok((back, suspects?.into_iter().flatten().collect()))
    }
}
