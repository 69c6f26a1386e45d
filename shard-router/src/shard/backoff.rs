//! How long to wait before a connection is tried again.

use std::time::Duration;

/// The first wait: a restart of a local server takes about as long.
const FIRST: Duration = Duration::from_millis(50);

/// The longest wait: a shard that is back is used again soon.
const LONGEST: Duration = Duration::from_secs(2);

/// Waits that double from 50 ms to 2 s, each shortened at random by up to a half.
///
/// The jitter keeps many gateways from coming back to one server in the same moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Starts with the shortest wait.
    pub(crate) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// Returns the next wait.
    pub(crate) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        wait.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Notes that a connection lived so long.
    ///
    /// One that breaks at once again is no reason to hurry, so only a life longer than the
    /// longest wait starts over.
    pub(crate) fn lived(&mut self, life: Duration) {
        if life >= LONGEST {
            *self = Self::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_start_over_after_a_long_life() {
        let mut backoff = Backoff::new();
        assert!(backoff.wait() <= FIRST);
        for _ in 0..10 {
            let wait = backoff.wait();
            assert!(wait >= FIRST && wait <= LONGEST);
        }
        assert!(backoff.wait() >= LONGEST / 2);
        backoff.lived(Duration::from_millis(100));
        assert!(backoff.wait() >= LONGEST / 2);
        backoff.lived(LONGEST);
        assert!(backoff.wait() <= FIRST);
    }
}
