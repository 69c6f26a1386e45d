//! What came of a run, for people and for programs.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde_json::{Value, json};

use super::{Plan, Stage, fleet::Fleet, watch::Counts};

/// What the comparisons found.
#[derive(Debug, Default)]
pub struct Account {
    /// Clients that did not come to hold what Redis holds.
    pub differences: Vec<Difference>,
    /// For each client and round, how long it differed after it was connected and all was healed.
    pub converged: Vec<Duration>,
    /// The same, with the time until it was connected.
    pub converged_in_all: Vec<Duration>,
}

/// A client that differs at the end.
#[derive(Debug)]
pub struct Difference {
    /// Which.
    pub client: String,
    /// Whose it is.
    pub user: String,
    /// The first thing that differs.
    pub what: String,
}

/// Everything that is told about a run.
#[derive(Debug)]
pub struct Report {
    /// Where the logs were left, of a run that failed.
    pub kept: Option<PathBuf>,
    seed: u64,
    took: Duration,
    clients: usize,
    account: Account,
    counts: Counts,
    journal: BTreeMap<String, u64>,
    gateways: BTreeMap<String, f64>,
}

impl Report {
    /// Sums everything up.
    #[must_use]
    pub fn new(plan: &Plan, stage: &Stage, fleet: &Fleet, account: Account) -> Self {
        let mut counts = Counts::default();
        let mut clients = 0;
        for watch in fleet.watches() {
            clients += 1;
            let one = watch.counts();
            for (sum, part) in [
                (&mut counts.events, one.events),
                (&mut counts.twice, one.twice),
                (&mut counts.stray, one.stray),
                (&mut counts.resumes, one.resumes),
                (&mut counts.told, one.told),
            ] {
                for (name, count) in part {
                    *sum.entry(name).or_default() += count;
                }
            }
            counts.forbidden += one.forbidden;
            counts.recovery += one.recovery;
            counts.bytes += one.bytes;
            counts.broken.extend(one.broken);
            if counts.first_forbidden.is_none() {
                counts.first_forbidden = one.first_forbidden;
            }
        }
        Self {
            kept: None,
            seed: plan.seed,
            took: stage.journal.elapsed(),
            clients,
            account,
            counts,
            journal: stage.journal.counts(),
            gateways: stage.tally.sums(),
        }
    }

    /// Says what must not be; nothing when the run passed.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let differences = &self.account.differences;
        if let Some(Difference { client, user, what }) = differences.first() {
            let count = differences.len();
            failures.push(format!("{count} clients differ; first {client} of {user}: {what}"));
        }
        if let Some(first) = &self.counts.first_forbidden {
            failures.push(format!("{} forbidden events; {first}", self.counts.forbidden));
        }
        if let Some(first) = self.counts.broken.first() {
            let count = self.counts.broken.len();
            failures.push(format!("{count} events could not be applied; first {first}"));
        }
        failures
    }

    /// Writes everything for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let millis = |times: &[Duration]| {
            let [p50, p99, max] = spread(times).map(|time| time.as_secs_f64() * 1e3);
            json!({ "p50_ms": p50, "p99_ms": p99, "max_ms": max })
        };
        json!({
            "seed": self.seed,
            "seconds": self.took.as_secs_f64(),
            "clients": self.clients,
            "divergent": self.account.differences.len(),
            "forbidden": self.counts.forbidden,
            "broken": self.counts.broken.len(),
            "converged": millis(&self.account.converged),
            "converged_with_reconnect": millis(&self.account.converged_in_all),
            "events": self.counts.events,
            "twice": self.counts.twice,
            "not_held": self.counts.stray,
            "behind_capsule": self.counts.told,
            "resumes": self.counts.resumes,
            "bytes": self.counts.bytes,
            "recovery_bytes": self.counts.recovery,
            "happened": self.journal,
            "gateways": self.gateways,
            "failures": self.failures(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, clients, account, counts, .. } = self;
        writeln!(out, "seed {seed}, {clients} clients, {:.0} s", self.took.as_secs_f64())?;
        for failure in self.failures() {
            writeln!(out, "FAILED: {failure}")?;
        }
        if let Some(kept) = &self.kept {
            writeln!(out, "logs are in {}", kept.display())?;
        }
        writeln!(out, "divergent clients   {}", account.differences.len())?;
        writeln!(out, "forbidden events    {}", counts.forbidden)?;
        for (name, times) in [
            ("time to converge", &account.converged),
            ("with the reconnect", &account.converged_in_all),
        ] {
            let [p50, p99, max] = spread(times).map(|time| time.as_secs_f64());
            writeln!(out, "{name:<19} p50 {p50:.1} s, p99 {p99:.1} s, max {max:.1} s")?;
        }
        let mut line = |name: &str, counts: &BTreeMap<String, u64>| {
            let sum: u64 = counts.values().sum();
            let parts: Vec<String> = counts.iter().map(|(n, c)| format!("{n} {c}")).collect();
            writeln!(out, "{name:<19} {sum} ({})", parts.join(", "))
        };
        line("events received", &counts.events)?;
        line("seen twice", &counts.twice)?;
        line("behind capsule.js", &counts.told)?;
        line("about things not held", &counts.stray)?;
        line("resumes", &counts.resumes)?;
        writeln!(
            out,
            "bytes               {} of events, {} of them for recovery",
            counts.bytes, counts.recovery
        )?;
        for (name, count) in &self.journal {
            writeln!(out, "  {name:<34} {count}")?;
        }
        for (name, count) in &self.gateways {
            writeln!(out, "  {name} {count}")?;
        }
        Ok(())
    }
}

/// The middle, the 99th of a hundred, the longest.
fn spread(times: &[Duration]) -> [Duration; 3] {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |share: f64| {
        let last = times.len().saturating_sub(1);
        times.get((last as f64 * share).ceil() as usize).copied().unwrap_or_default()
    };
    [at(0.5), at(0.99), at(1.0)]
}
