//! The built-in worker: carries edits out, as jobs like all others.

use std::sync::Arc;

use shard_router::{router::Router, worker::Worker};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::error;

use crate::{config::Edits, rpc::edit, tree::Tree};

/// Starts a worker for each queue of edits; they end when `stop` is cancelled.
///
/// One at a time per queue: edits of one feed are in one queue and keep their order.
pub fn start(
    router: &Arc<Router>,
    tree: &Arc<Tree>,
    edits: &Edits,
    bounds: edit::Bounds,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) {
    for queue in edits.queues() {
        let tree = tree.clone();
        let handler = {
            let router = router.clone();
            move |job: shard_router::feed::Job| -> futures_util::future::BoxFuture<'static, Vec<u8>> {
                let (router, tree) = (router.clone(), tree.clone());
                Box::pin(async move { edit::carry_out(&router, &tree, bounds, &job).await })
            }
        };
        let worker = Worker::new(router.clone(), queue.clone(), handler);
        let stop = stop.clone();
        tracker.spawn(async move {
            if let Err(error) = worker.run(stop).await {
                error!(queue, %error, "The queue of edits cannot be worked on.");
            }
        });
    }
}
