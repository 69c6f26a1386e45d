//! Calls of clients that become jobs: schema, identity, queue, answer.
//!
//! The answer is what `job.finish` says. That is a notice like any other and can be lost,
//! so at the time-out, and whenever the shard's connection was lost meanwhile, the
//! gateway looks what became of the job.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use shard_router::{
    feed::{FeedError, Look, Put},
    router::Router,
};
use tokio::sync::{oneshot, watch};
use tracing::warn;
use uuid::Uuid;

use crate::{
    config,
    identity::Identity,
    metrics,
    protocol::{CallError, Edit, Object},
};

pub mod edit;

/// The longest `_key`, in characters.
const KEY_CHARS: usize = 64;

/// Turns calls into jobs and waits for what becomes of them.
#[derive(Debug)]
pub struct Rpc {
    router: Arc<Router>,
    jobs: BTreeMap<String, config::Job>,
    edits: config::Edits,
    waiting: Waiting,
    /// For each shard, whether it is heard; calls under way watch it. Held to find one, and
    /// to add what a new topology has.
    shards: Mutex<Vec<watch::Sender<Heard>>>,
}

/// Whether a shard is heard, and how often it was lost before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Heard {
    up: bool,
    losses: u64,
}

/// Calls by the queue and the id of their job.
#[derive(Debug, Default)]
struct Waiting {
    /// Held for a map operation: the live state hands results over and must not wait.
    calls: Mutex<HashMap<QueuedJob, Vec<oneshot::Sender<Bytes>>>>,
}

/// A queue and the id of a job in it.
type QueuedJob = (String, String);

/// A job as it is put.
struct Call<'a> {
    name: &'a str,
    queue: String,
    id: String,
    item: Vec<u8>,
    timeout: Duration,
    max_queued: u64,
}

impl Rpc {
    /// Makes the calls of a configuration.
    #[must_use]
    pub fn new(
        router: Arc<Router>,
        jobs: BTreeMap<String, config::Job>,
        edits: config::Edits,
    ) -> Self {
        Self { router, jobs, edits, waiting: Waiting::default(), shards: Mutex::default() }
    }

    /// Tells whether a job has this name.
    #[must_use]
    pub fn is_job(&self, name: &str) -> bool {
        self.jobs.contains_key(name)
    }

    /// Lists the queues whose `job.finish` must be heard.
    #[must_use]
    pub fn queues(jobs: &BTreeMap<String, config::Job>, edits: &config::Edits) -> Vec<String> {
        jobs.values().flat_map(config::Job::queues).chain(edits.queues()).collect()
    }

    /// Hands a result to whoever waits for it.
    pub fn finished(&self, queue: &str, id: &str, result: &Bytes) {
        let key = (queue.to_owned(), id.to_owned());
        let calls = self.waiting.calls.lock().expect("no holder of this lock panics").remove(&key);
        for call in calls.into_iter().flatten() {
            // Who has given up does not want it.
            let _ = call.send(result.clone());
        }
    }

    /// Takes in that a shard is heard, or not any more.
    pub fn shard(&self, shard: usize, up: bool) {
        self.with_shard(shard, |shard| {
            shard.send_modify(|heard| {
                heard.losses += u64::from(!up && heard.up);
                heard.up = up;
            });
        });
    }

    fn with_shard<T>(&self, shard: usize, look: impl FnOnce(&watch::Sender<Heard>) -> T) -> T {
        let mut shards = self.shards.lock().expect("no holder of this lock panics");
        if shards.len() <= shard {
            shards.resize_with(shard + 1, watch::Sender::default);
        }
        look(&shards[shard])
    }

    /// Carries a call out as a job and returns its answer.
    ///
    /// # Errors
    ///
    /// Returns what the client is told instead: data that the schema refuses, a queue that is
    /// full or away, a job that did not finish in time.
    pub async fn job(
        &self,
        name: &str,
        data: Object,
        caller: &Identity,
    ) -> Result<Value, CallError> {
        let job = self
            .jobs
            .get(name)
            .ok_or_else(|| CallError::Unknown(format!("no job is called `{name}`")))?;
        self.counted(name, async {
            let call = checked(name, job, data, caller)?;
            self.put_and_wait(&call).await
        })
        .await
    }

    /// Has the built-in worker carry an edit out and returns its answer.
    ///
    /// # Errors
    ///
    /// As [`Rpc::job`].
    pub async fn edit(&self, edit: &Edit, caller: &Identity) -> Result<Value, CallError> {
        let queues = self.edits.queues();
        let call = Call {
            name: edit.name(),
            queue: queues[partition(&edit.feed, queues.len())].clone(),
            id: new_id(),
            item: edit.to_job(caller).to_string().into_bytes(),
            timeout: self.edits.timeout,
            max_queued: MAX_EDITS,
        };
        self.counted(edit.name(), self.put_and_wait(&call)).await
    }

    /// Counts how a job of this name ends, refused ones among them.
    async fn counted(
        &self,
        name: &str,
        job: impl Future<Output = Result<Value, CallError>>,
    ) -> Result<Value, CallError> {
        let since = Instant::now();
        let answer = job.await;
        let outcome = match &answer {
            Ok(_) => "finished",
            Err(CallError::Timeout { .. }) => "timeout",
            Err(CallError::Lost(_)) => "unknown",
            Err(CallError::Unavailable(_)) => "unavailable",
            Err(_) => "refused",
        };
        metrics::job(name, outcome, since.elapsed());
        answer
    }

    async fn put_and_wait(&self, call: &Call<'_>) -> Result<Value, CallError> {
        let deadline = tokio::time::Instant::now() + call.timeout;
        // What became of a job is asked where it was put.
        let router = self.router.pinned();
        let mut shard = self.with_shard(router.owner(&call.queue), watch::Sender::subscribe);
        let mut seen = *shard.borrow_and_update();
        if !seen.up {
            return Err(CallError::Unavailable(format!(
                "the shard of job `{}` is away",
                call.name
            )));
        }
        // Waits before it puts, so that no answer can come too early.
        let mut answer = self.waiting.wait(&call.queue, &call.id);
        let put = router.job_put(&call.queue, &call.id, call.item.clone(), false, call.max_queued);
        match put.await {
            Ok(Put::Queued | Put::Known) => {}
            Ok(Put::Kept(result)) => return Ok(read_result(&result)),
            Ok(Put::Full) => {
                return Err(CallError::Unavailable(format!(
                    "too many jobs `{}` wait already",
                    call.name
                )));
            }
            Err(error) => return Err(self.refused(call, error)),
        }
        loop {
            tokio::select! {
                result = &mut answer.result => {
                    return result.map(|result| read_result(&result))
                        .map_err(|_| CallError::Unavailable("the gateway is stopping".to_owned()));
                }
                () = tokio::time::sleep_until(deadline) => break,
                // Whoever sends is ours: an error cannot be.
                _ = shard.changed() => {
                    let now = *shard.borrow_and_update();
                    let missed = now.up && now.losses != seen.losses;
                    if missed {
                        seen = now;
                        match self.look(&router, call).await? {
                            Look::Kept(result) => return Ok(read_result(&result)),
                            Look::Gone => return answer.or_lost(call),
                            Look::Queued | Look::Claimed | Look::Stalled => {}
                        }
                    }
                }
            }
        }
        let state = match self.look(&router, call).await? {
            Look::Kept(result) => return Ok(read_result(&result)),
            Look::Gone => return answer.or_lost(call),
            Look::Queued => "queued",
            Look::Claimed => "claimed",
            Look::Stalled => "stalled",
        };
        Err(CallError::Timeout { job: call.id.clone(), state })
    }

    async fn look(&self, router: &Router, call: &Call<'_>) -> Result<Look, CallError> {
        router.job_look(&call.queue, &call.id).await.map_err(|error| self.refused(call, error))
    }

    fn refused(&self, call: &Call<'_>, error: FeedError) -> CallError {
        warn!(job = call.name, queue = call.queue, %error, cause = ?error, "Job was not queued or not found.");
        match error {
            FeedError::Shard(error) if error.is_away() => {
                CallError::Unavailable(format!("the shard of job `{}` is away", call.name))
            }
            _ => CallError::Unavailable(format!("the queue of job `{}` cannot be used", call.name)),
        }
    }
}

/// Makes a job of what a client says, if it may be one.
fn checked<'a>(
    name: &'a str,
    job: &config::Job,
    mut data: Object,
    caller: &Identity,
) -> Result<Call<'a>, CallError> {
    let key = match data.remove("_key") {
        None => None,
        Some(Value::String(key)) if (1..=KEY_CHARS).contains(&key.chars().count()) => Some(key),
        Some(_) => {
            return Err(CallError::bad(format!(
                "`_key` is not a text of 1 to {KEY_CHARS} characters"
            )));
        }
    };
    data.remove("user");
    data.remove("teams");
    let data = Value::Object(data);
    if let Some(schema) = &job.schema {
        let errors: Vec<String> = schema
            .errors(&data)
            .into_iter()
            .map(
                |(place, error)| {
                    if place.is_empty() { error } else { format!("{place}: {error}") }
                },
            )
            .collect();
        if !errors.is_empty() {
            return Err(CallError::Bad(errors));
        }
    }
    let Value::Object(mut data) = data else { unreachable!("was an object above") };
    data.insert("user".into(), caller.user.as_str().into());
    data.insert(
        "teams".into(),
        caller.teams.iter().map(|team| team.as_str()).collect::<Vec<_>>().into(),
    );
    let id = key.map_or_else(new_id, |key| keyed_id(caller, name, &key));
    let queues = job.queues();
    Ok(Call {
        name,
        queue: queues[partition(caller.user.as_str(), queues.len())].clone(),
        id,
        item: Value::Object(data).to_string().into_bytes(),
        timeout: job.timeout,
        max_queued: job.max_queued as u64,
    })
}

/// Edits that may wait in one queue.
const MAX_EDITS: u64 = 10_000;

/// A call that waits; forgets itself when dropped.
struct Waiter<'a> {
    waiting: &'a Waiting,
    key: QueuedJob,
    result: oneshot::Receiver<Bytes>,
}

impl Waiting {
    fn wait(&self, queue: &str, id: &str) -> Waiter<'_> {
        let (sender, result) = oneshot::channel();
        let key = (queue.to_owned(), id.to_owned());
        self.calls
            .lock()
            .expect("no holder of this lock panics")
            .entry(key.clone())
            .or_default()
            .push(sender);
        Waiter { waiting: self, key, result }
    }
}

impl Waiter<'_> {
    /// Returns the answer to a job that is gone: its notice may be here by now.
    fn or_lost(&mut self, call: &Call<'_>) -> Result<Value, CallError> {
        match self.result.try_recv() {
            Ok(result) => Ok(read_result(&result)),
            Err(_) => Err(CallError::Lost(call.id.clone())),
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.result.close();
        let mut calls = self.waiting.calls.lock().expect("no holder of this lock panics");
        if let Some(waiting) = calls.get_mut(&self.key) {
            waiting.retain(|call| !call.is_closed());
            if waiting.is_empty() {
                calls.remove(&self.key);
            }
        }
    }
}

/// An object with an integer `code` is the answer as it is; anything else is its `result`.
fn read_result(result: &[u8]) -> Value {
    let value = serde_json::from_slice(result)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(result).into_owned()));
    let is_answer = value.get("code").is_some_and(|code| code.is_i64() || code.is_u64());
    if is_answer { value } else { json!({ "code": 200, "result": value }) }
}

fn new_id() -> String {
    Uuid::new_v4().simple().to_string()
}

/// The same user's same call with the same key is the same job.
fn keyed_id(caller: &Identity, name: &str, key: &str) -> String {
    let digest = Sha1::digest(format!("{}\0{name}\0{key}", caller.user));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Spreads names evenly over `count` partitions, the same on every gateway.
fn partition(name: &str, count: usize) -> usize {
    let digest = Sha1::digest(name);
    let word = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    word as usize % count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(result: &str, expected: Value) {
        assert_eq!(read_result(result.as_bytes()), expected);
    }

    #[test]
    fn a_result_becomes_an_answer() {
        check(r#"{"code":409,"error":"no"}"#, json!({"code": 409, "error": "no"}));
        check(r#"{"code":"x"}"#, json!({"code": 200, "result": {"code": "x"}}));
        check("7", json!({"code": 200, "result": 7}));
        check("done", json!({"code": 200, "result": "done"}));
        check("", json!({"code": 200, "result": ""}));
    }
}
