//! Many clients that come in one after the other.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use tokio::time::{sleep, sleep_until};

use crate::light::{Client, Listener};

/// How often a state is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// How long all may take to get in, beyond the ramp.
const ENTRY: Duration = Duration::from_secs(60);

/// Not everybody got in.
#[derive(Debug, thiserror::Error)]
#[error("{entered} clients got in of {clients}; the first that did not: {first}")]
pub struct Missing {
    /// How many got in.
    pub entered: u64,
    /// How many should have.
    pub clients: usize,
    /// What the first that did not says.
    pub first: String,
}

/// Starts so many clients a second; `make` starts the one with a number.
pub async fn start<L: Listener>(
    numbers: Range<usize>,
    per_second: f64,
    mut make: impl FnMut(usize) -> Client<L>,
) -> Vec<Client<L>> {
    let began = Instant::now();
    let mut clients = Vec::with_capacity(numbers.len());
    for (place, number) in numbers.enumerate() {
        sleep_until((began + Duration::from_secs_f64(place as f64 / per_second)).into()).await;
        clients.push(make(number));
    }
    clients
}

/// Waits until so many have entered that were just started.
///
/// # Errors
///
/// Returns [`Missing`] when they do not in time; `first` looks for one that can say why.
pub async fn enter(
    clients: usize,
    entered: impl Fn() -> u64,
    first: impl FnOnce() -> Option<String>,
) -> Result<(), Missing> {
    let entered = wait(clients as u64, ENTRY, entered).await;
    if entered >= clients as u64 {
        return Ok(());
    }
    let first = first().unwrap_or_else(|| "no initial in time".to_owned());
    Err(Missing { entered, clients, first })
}

/// Waits until a count is this high, or for as long as it may take; returns what it is then.
pub async fn wait(wanted: u64, patience: Duration, count: impl Fn() -> u64) -> u64 {
    let deadline = Instant::now() + patience;
    loop {
        let is = count();
        if is >= wanted || Instant::now() > deadline {
            return is;
        }
        sleep(LOOK).await;
    }
}
