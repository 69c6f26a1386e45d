//! What the gateways have counted, over all their lives.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use crate::cluster::Gateway;

/// The counters of interest; all else that gateways count is left out.
const KEPT: [&str; 7] = [
    "gateway_mirror_repairs_total",
    "gateway_resumes_total",
    "gateway_mirror_reads_total",
    "gateway_mirror_errors_total",
    "gateway_disconnects_total",
    "gateway_outbox_dropped_clients_total",
    "gateway_shard_errors_total",
];

/// Sums over gateways that are killed and begin at nothing again.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    ended: BTreeMap<String, f64>,
    living: HashMap<String, BTreeMap<String, f64>>,
}

impl Tally {
    /// Looks at what a gateway has counted so far; one that does not answer stays as it was.
    pub async fn look(&self, gateway: &Gateway) {
        let Ok(metrics) = gateway.metrics().await else { return };
        let is_kept = |name: &str| KEPT.iter().any(|kept| name.starts_with(kept));
        let kept = metrics.into_iter().filter(|(name, _)| is_kept(name)).collect();
        let mut counts = self.0.lock().expect("no holder of this lock panics");
        counts.living.insert(gateway.name().to_owned(), kept);
    }

    /// Notes that a gateway begins at nothing; what it counted since the last look is not known.
    pub fn killed(&self, gateway: &Gateway) {
        let mut counts = self.0.lock().expect("no holder of this lock panics");
        for (name, count) in counts.living.remove(gateway.name()).unwrap_or_default() {
            *counts.ended.entry(name).or_default() += count;
        }
    }

    /// Returns the sums.
    #[must_use]
    pub fn sums(&self) -> BTreeMap<String, f64> {
        let counts = self.0.lock().expect("no holder of this lock panics");
        let mut sums = counts.ended.clone();
        for (name, count) in counts.living.values().flatten() {
            *sums.entry(name.clone()).or_default() += count;
        }
        sums
    }
}
