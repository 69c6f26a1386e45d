//! What all clients write on while they run.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{latency::Latency, stamp::Stamp};

/// Counters that the clients raise, and the clock that stamps are read by.
#[derive(Debug)]
pub struct Board {
    run: u64,
    began: Instant,
    counts: [AtomicU64; 7],
    /// Held for one note: each client has a few bytes for this, no histogram of its own.
    deliveries: Mutex<Latency>,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Clients started.
    Started,
    /// Clients that got `initial`.
    In,
    /// Clients that did not get in.
    Failed,
    /// Clients that were in and were lost.
    Lost,
    /// Clients in that hear the feed that is published to.
    Hears,
    /// Events received behind `initial`.
    Events,
    /// Events received that carry this run's stamp.
    Stamped,
}

impl Board {
    /// Begins a run, which has this number.
    #[must_use]
    pub fn new(run: u64) -> Self {
        Self {
            run,
            began: Instant::now(),
            counts: Default::default(),
            deliveries: Mutex::default(),
        }
    }

    /// Raises a counter.
    pub fn raise(&self, count: Count) {
        self.counts[count as usize].fetch_add(1, Relaxed);
    }

    /// Reads a counter.
    #[must_use]
    pub fn get(&self, count: Count) -> u64 {
        self.counts[count as usize].load(Relaxed)
    }

    /// Tells whether everybody who was started is in or has failed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.get(Count::In) + self.get(Count::Failed) >= self.get(Count::Started)
    }

    /// Makes the stamp of what is published now.
    #[must_use]
    pub fn stamp(&self, number: usize) -> Stamp {
        Stamp { run: self.run, number, nanos: self.now() }
    }

    /// Notes an arrival and returns its number, if it is of this run.
    pub fn arrived(&self, event: &str) -> Option<usize> {
        let stamp = Stamp::find(event).filter(|stamp| stamp.run == self.run)?;
        let took = Duration::from_nanos(self.now().saturating_sub(stamp.nanos));
        self.deliveries.lock().expect("no holder of this lock panics").record(took);
        self.raise(Count::Stamped);
        Some(stamp.number)
    }

    /// Returns how long the arrivals took.
    #[must_use]
    pub fn deliveries(&self) -> Latency {
        self.deliveries.lock().expect("no holder of this lock panics").clone()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
