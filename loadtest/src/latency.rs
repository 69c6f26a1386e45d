//! How long things took; the one file that knows the histogram.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Times in microseconds, with three digits; longer than ten minutes counts as that.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are in order"))
    }
}

impl Latency {
    /// Notes one.
    pub fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// Counts them.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Returns what this share of them took at most, in milliseconds.
    #[must_use]
    pub fn millis(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e3
    }

    /// Returns the figures under their usual names.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "count": self.count(),
            "p50_ms": self.millis(0.5),
            "p95_ms": self.millis(0.95),
            "p99_ms": self.millis(0.99),
            "max_ms": self.millis(1.0),
        })
    }
}

impl std::fmt::Display for Latency {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.count() == 0 {
            return out.write_str("none");
        }
        let [p50, p95, p99, max] = [0.5, 0.95, 0.99, 1.0].map(|share| self.millis(share));
        write!(out, "p50 {p50:.2} ms, p95 {p95:.2} ms, p99 {p99:.2} ms, max {max:.2} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_near_what_was_noted() {
        let mut latency = Latency::default();
        (1..=1000).for_each(|millis| latency.record(Duration::from_millis(millis)));
        for (share, expected) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = latency.millis(share);
            assert!((found - expected).abs() <= expected / 1000.0, "{share}: {found}");
        }
        latency.record(Duration::ZERO);
        latency.record(Duration::from_secs(100_000));
        assert_eq!(latency.count(), 1002);
    }
}
