//! Takes jobs from one queue and answers them.

use std::{convert::Infallible, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{sync::Semaphore, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    feed::{FeedError, Job},
    router::Router,
};

/// How long one wait for the queue lasts; a wait ends early when a job comes.
const WAIT: Duration = Duration::from_secs(5);

/// The first pause behind a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause: a shard that is back is used again soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How far apart two passes are that look for lost jobs: a worker of another make that pops
/// first and claims then has done so by the next.
const MAINTENANCE: Duration = Duration::from_secs(10);

/// How often finishing a job is tried; a job that cannot be finished stays claimed.
const TRIES: usize = 10;

/// What is answered for a job whose handler panicked.
const FAILED: Bytes = Bytes::from_static(br#"{"code":500,"error":"the worker failed"}"#);

type Handler = Arc<dyn Fn(Job) -> BoxFuture<'static, Vec<u8>> + Send + Sync>;

/// A worker of one job queue: claims, hands to its handler, finishes with the result.
pub struct Worker {
    router: Arc<Router>,
    queue: String,
    handler: Handler,
    concurrency: usize,
}

impl fmt::Debug for Worker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Worker")
            .field("queue", &self.queue)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// Makes a worker that does one job at a time.
    ///
    /// What the handler returns is the job's result, byte for byte; where it panics the
    /// result is `{"code":500,…}`.
    #[must_use]
    pub fn new(
        router: Arc<Router>,
        queue: impl Into<String>,
        handler: impl Fn(Job) -> BoxFuture<'static, Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        Self { router, queue: queue.into(), handler: Arc::new(handler), concurrency: 1 }
    }

    /// Sets how many jobs it does at a time, at least one.
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency.max(1);
        self
    }

    /// Works until `stop`; then claims no more, and returns when what it has claimed is finished.
    ///
    /// A shard that is away is tried again after a while. With another topology it goes over
    /// to the shard that has the queue then; what it has claimed is finished where it was. Beside the jobs it looks every
    /// 10 s for jobs that nobody accounts for, and puts back who was so in two passes.
    ///
    /// # Errors
    ///
    /// Returns [`FeedError::BadName`] for a queue that no feed may be named like.
    pub async fn run(self, stop: CancellationToken) -> Result<(), FeedError> {
        tokio::select! {
            outcome = self.work(stop) => outcome,
            never = maintain(&self.router, &self.queue) => match never {},
        }
    }

    async fn work(&self, stop: CancellationToken) -> Result<(), FeedError> {
        let mut moves = self.router.changes();
        // A job is finished where it was claimed.
        let mut router = Arc::new(self.router.pinned());
        let mut waiter = router.waiter(&self.queue)?;
        let free = Arc::new(Semaphore::new(self.concurrency));
        let mut jobs = JoinSet::new();
        let mut pause = FIRST_PAUSE;
        loop {
            while jobs.try_join_next().is_some() {}
            if moves.has_changed().unwrap_or(false) {
                moves.mark_unchanged();
                router = Arc::new(self.router.pinned());
                waiter = router.waiter(&self.queue)?;
            }
            let permit = tokio::select! {
                () = stop.cancelled() => break,
                permit = free.clone().acquire_owned() => permit,
            };
            // Not interrupted by `stop`: what is claimed must be known here.
            let failure = match router.job_get(&self.queue).await {
                Ok(Some(job)) => {
                    pause = FIRST_PAUSE;
                    let (router, queue) = (router.clone(), self.queue.clone());
                    let handler = self.handler.clone();
                    jobs.spawn(async move {
                        do_job(&router, &queue, &handler, job).await;
                        drop(permit);
                    });
                    continue;
                }
                Ok(None) => {
                    drop(permit);
                    tokio::select! {
                        () = stop.cancelled() => break,
                        // Whoever sends is ours: an error cannot be.
                        _ = moves.changed() => {
                            moves.mark_changed();
                            continue;
                        }
                        waited = waiter.wait(WAIT) => match waited {
                            Ok(_) => continue,
                            Err(failure) => FeedError::Shard(failure),
                        },
                    }
                }
                Err(failure) => failure,
            };
            warn!(queue = self.queue, ?pause, %failure, cause = ?failure, "No job could be claimed; will retry.");
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(pause) => {}
            }
            pause = longer(pause);
        }
        info!(queue = self.queue, open = jobs.len(), "Worker claims no more.");
        while jobs.join_next().await.is_some() {}
        Ok(())
    }
}

async fn maintain(router: &Router, queue: &str) -> Infallible {
    let mut suspects = Vec::new();
    let mut moves = router.changes();
    loop {
        sleep(MAINTENANCE).await;
        if moves.has_changed().unwrap_or(false) {
            moves.mark_unchanged();
            // They were so on a shard that may not have the queue any more.
            suspects.clear();
        }
        suspects = match router.job_maintain(queue, suspects).await {
            Ok((back, suspects)) => {
                if back > 0 {
                    warn!(queue, back, "Jobs were popped and never claimed; put back.");
                }
                suspects
            }
            Err(failure) => {
                debug!(queue, %failure, "No maintenance this time.");
                Vec::new()
            }
        };
    }
}

async fn do_job(router: &Router, queue: &str, handler: &Handler, job: Job) {
    let id = job.id.clone();
    // A task of its own, so that a panic ends there; and if this one is dropped, so is that.
    let mut task = JoinSet::new();
    let handler = handler.clone();
    task.spawn(async move { handler(job).await });
    let result = match task.join_next().await {
        Some(Ok(result)) => Bytes::from(result),
        _ => {
            warn!(queue, job = id, "Handler panicked; the job is answered with 500.");
            FAILED
        }
    };
    let mut pause = FIRST_PAUSE;
    for _ in 0..TRIES {
        match router.job_finish(queue, &id, Some(result.clone())).await {
            Ok(true) => return,
            Ok(false) => {
                // Also what a second try finds, where the first was carried out unheard.
                info!(queue, job = id, "Job was not claimed any more.");
                return;
            }
            Err(failure) => {
                warn!(queue, job = id, ?pause, %failure, "Job could not be finished; will retry.");
                sleep(pause).await;
                pause = longer(pause);
            }
        }
    }
    warn!(queue, job = id, "Job stays claimed: it could not be finished.");
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(LONGEST_PAUSE)
}
