//! The whole system of real parts: Redis servers, two gateways as processes, a worker, HAProxy,
//! socket.io clients in Node, an Express app, a Python worker, a browser.
//!
//! Everything listens on loopback, on free ports, and is ended with its test. A program that is
//! missing fails the run and says so.

use std::time::Duration;

mod cluster;
mod expected;
mod http;
mod node;
mod program;
mod redis;

mod balancer;
mod boards;
mod calls;
mod capsule;
mod demo;
mod faults;
mod feeds;
mod followed;
mod local;
mod repairs;
mod sessions;
mod topology;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at a state that is waited for.
const LOOK: Duration = Duration::from_millis(30);

/// Looks again and again until there is a value.
///
/// # Panics
///
/// Panics with the last reason why there was none.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(reason) => assert!(
                tokio::time::Instant::now() < deadline,
                "waited {PATIENCE:?} until {what}; at last: {reason}"
            ),
        }
        tokio::time::sleep(LOOK).await;
    }
}
