//! Whether the gateway is ready for clients, and how it stops.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::metrics;

/// Everybody's view of whether the gateway stops.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    draining: Arc<AtomicBool>,
    deaf: Arc<AtomicBool>,
    /// Cancelled when nothing new is taken in any more.
    pub stop: CancellationToken,
    /// Cancelled when everything ends.
    pub end: CancellationToken,
    /// Knows every task, so that somebody always waits for it.
    pub tracker: TaskTracker,
}

impl Drain {
    /// Tells whether balancers may send new clients.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && !self.deaf.load(Ordering::Relaxed)
    }

    /// Says whether this gateway does not hear a shard that others hear: it is not ready meanwhile.
    pub fn set_deaf(&self, is_deaf: bool) {
        self.deaf.store(is_deaf, Ordering::Relaxed);
    }

    /// Turns the gateway unready.
    pub fn begin(&self) {
        metrics::draining(true);
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Ends every task that is left; returns whether all had ended by `deadline`.
    pub async fn finish(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.end.cancel();
        self.tracker.close();
        let clean = tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok();
        if !clean {
            warn!(tasks = self.tracker.len(), "Tasks did not end in time and are cut off.");
        }
        clean
    }
}
