//! What came of the storm: for people, for programs, and as a verdict.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::{Value, json};

use super::Plan;
use crate::{follower::Counts, latency::Latency, sample::Sample, verdict::Verdict};

/// The command by which the items of a feed are read.
const READ: &str = "hmget";
/// The one by which it is found that a lone item is in its feed.
const LOOK_UP: &str = "zscore";

/// Everything that is known of a run.
#[derive(Debug)]
pub struct Report {
    pub(super) plan: Plan,
    /// Feeds that are shown to somebody.
    pub(super) feeds: usize,
    /// Single items of shared feeds.
    pub(super) lone: usize,
    pub(super) back: u64,
    pub(super) took: Duration,
    /// Until all held what they had held, and every feed was read.
    pub(super) settled: Duration,
    pub(super) each: Latency,
    /// Clients that hold something else than before.
    pub(super) changed: u64,
    pub(super) broken: Vec<String>,
    pub(super) repeat: Option<String>,
    pub(super) counts: Counts,
    pub(super) commands: BTreeMap<String, u64>,
    pub(super) gateway: Sample,
}

/// How often a feed was read, by the commands that ran.
pub(super) fn reads(commands: &BTreeMap<String, u64>) -> u64 {
    commands.get(READ).copied().unwrap_or(0)
}

impl Report {
    /// How often a feed was read.
    #[must_use]
    pub fn reads(&self) -> u64 {
        reads(&self.commands)
    }

    /// How often a lone item was read.
    #[must_use]
    pub fn lone_reads(&self) -> u64 {
        self.commands.get(LOOK_UP).copied().unwrap_or(0)
    }

    fn repeats(&self) -> String {
        let first = self.repeat.as_deref().unwrap_or_default();
        format!("{} events changed nothing, such as {first}", self.counts.repeats)
    }
}

impl Verdict for Report {
    fn shortcomings(&self) -> Vec<String> {
        let missing = self.plan.clients as u64 - self.back.min(self.plan.clients as u64);
        let (reads, feeds) = (self.reads(), self.feeds);
        let (looks, lone) = (self.lone_reads(), self.lone);
        [
            (missing > 0, format!("{missing} clients did not come back")),
            (self.changed > 0, format!("{} clients hold something else", self.changed)),
            (reads != feeds as u64, format!("{reads} reads of {feeds} feeds")),
            (looks != lone as u64, format!("{looks} reads of {lone} lone items")),
            (self.counts.repeats > 0, self.repeats()),
            (!self.broken.is_empty(), format!("not the protocol: {}", self.broken.concat())),
        ]
        .into_iter()
        .filter_map(|(is_so, text)| is_so.then_some(text))
        .collect()
    }

    fn to_json(&self) -> Value {
        json!({
            "clients": self.plan.clients, "members": self.plan.members,
            "resumes": self.plan.resumes, "feeds": self.feeds, "lone_items": self.lone,
            "back": self.back, "seconds": self.took.as_secs_f64(),
            "settled_seconds": self.settled.as_secs_f64(), "each": self.each.to_json(),
            "changed": self.changed, "broken": self.broken, "repeat": self.repeat,
            "initials": self.counts.initials, "resumed_connections": self.counts.resumes,
            "resumed_feeds": self.counts.resumed, "reset_feeds": self.counts.reset,
            "reads": self.reads(), "lone_reads": self.lone_reads(), "commands": self.commands,
            "gateway": {
                "cpu_seconds": self.gateway.cpu.as_secs_f64(), "rss": self.gateway.rss,
            },
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plan, counts) = (&self.plan, &self.counts);
        let shortcomings = self.shortcomings();
        let verdict = if shortcomings.is_empty() { "kept".into() } else { shortcomings.join("; ") };
        let way = if plan.resumes { "who resume" } else { "who start anew" };
        writeln!(out, "promise   {verdict}")?;
        writeln!(
            out,
            "clients   {} {way}, in teams of {} with {} tasks each",
            plan.clients, plan.members, plan.tasks
        )?;
        writeln!(
            out,
            "came back {} in {:.2} s: {}",
            self.back,
            self.took.as_secs_f64(),
            self.each
        )?;
        writeln!(
            out,
            "          looked at until {:.2} s; {} initial in all, {} resumed: {} feeds went on, {} were reset",
            self.settled.as_secs_f64(),
            counts.initials,
            counts.resumes,
            counts.resumed,
            counts.reset
        )?;
        writeln!(
            out,
            "reads     {} of {} feeds, {} of {} lone items, by Redis's own count",
            self.reads(),
            self.feeds,
            self.lone_reads(),
            self.lone
        )?;
        let commands: Vec<String> = self
            .commands
            .iter()
            .filter(|(_, calls)| **calls > 0)
            .map(|(name, calls)| format!("{calls} {name}"))
            .collect();
        writeln!(out, "commands  {}", commands.join(", "))?;
        writeln!(
            out,
            "gateway   {:.1} s CPU, {:.0} MiB RSS",
            self.gateway.cpu.as_secs_f64(),
            self.gateway.rss as f64 / 1_048_576.0
        )
    }
}
