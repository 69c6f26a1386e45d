//! What came of the drop benchmark: for people, for programs, and as a verdict.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{FEED, Plan, client::Notes};
use crate::{
    cluster::Cluster, follower::Counts, latency::Latency, receipts::Receipts, sample::Sample,
    tree::Content, verdict::Verdict,
};

/// The metric that tells how gateways answered those who came back.
const RESUMES: &str = "gateway_resumes_total{outcome=\"";
const MIB: f64 = 1_048_576.0;

/// Everything that is known of a run.
#[derive(Debug)]
pub struct Report {
    pub(super) plan: Plan,
    /// Items in Redis at the end.
    pub(super) published: usize,
    pub(super) took: Duration,
    pub(super) settled: Duration,
    pub(super) cut: usize,
    pub(super) sum: Sum,
    pub(super) replayed: Latency,
    pub(super) live: Latency,
    pub(super) resumes: BTreeMap<String, f64>,
    pub(super) machine: Option<Machine>,
    pub(super) tester: Sample,
}

/// What all clients together hold and noted.
#[derive(Debug, Default)]
pub(super) struct Sum {
    clients: usize,
    delivered: u64,
    /// Items that clients show and Redis does not have, or has otherwise.
    wrong: u64,
    twice: u64,
    disordered: u64,
    again: u64,
    counts: Counts,
    lost: BTreeMap<String, u64>,
    broken: Vec<String>,
    repeat: Option<String>,
}

impl Sum {
    /// Adds a client, and holds its tree against what Redis has.
    pub(super) fn add(&mut self, notes: &Notes, items: &[(String, Vec<u8>)]) {
        let shown = notes.follower.tree.feed(FEED);
        let is_right = |(id, item): &&(String, Vec<u8>)| {
            let model = shown.and_then(|collection| collection.models.get(id.as_str()));
            model.is_some_and(|model| model.content == Content::of_item(id, item))
        };
        let right = items.iter().filter(is_right).count() as u64;
        let Receipts { twice, disordered, .. } = notes.receipts;
        self.clients += 1;
        self.delivered += right;
        self.wrong += shown.map_or(0, |collection| collection.models.len() as u64) - right;
        self.twice += twice;
        self.disordered += disordered;
        self.again += notes.again;
        self.counts += notes.follower.counts;
        for lost in &notes.lost {
            *self.lost.entry(lost.to_string()).or_default() += 1;
        }
        self.broken.extend(notes.follower.broken.clone());
        if self.repeat.is_none() {
            self.repeat.clone_from(&notes.follower.repeat);
        }
    }
}

/// What the servers used.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    at: Instant,
    took: Duration,
    gateways: Sample,
    shards: Sample,
}

impl Machine {
    /// Looks at all processes of a cluster; `None` where one of them cannot be seen.
    pub(super) fn now(cluster: &Cluster) -> Option<Self> {
        let gateways: Option<Vec<u32>> =
            cluster.gateways.iter().map(|gateway| gateway.process().id()).collect();
        let shards: Option<Vec<u32>> =
            cluster.shards.iter().map(|shard| shard.process().id()).collect();
        Some(Self {
            at: Instant::now(),
            took: Duration::ZERO,
            gateways: Sample::of(&gateways?)?,
            shards: Sample::of(&shards?)?,
        })
    }

    /// What was used since then; memory is what it is now.
    pub(super) fn since(mut self, before: Self) -> Self {
        self.took = self.at - before.at;
        self.gateways.cpu -= before.gateways.cpu;
        self.shards.cpu -= before.shards.cpu;
        self
    }

    fn cores(&self, sample: Sample) -> f64 {
        sample.cpu.as_secs_f64() / self.took.as_secs_f64()
    }
}

/// Adds up what all gateways say of those who came back.
pub(super) fn outcomes(metrics: &[HashMap<String, f64>]) -> BTreeMap<String, f64> {
    let mut outcomes = BTreeMap::new();
    for (name, count) in metrics.iter().flatten() {
        if let Some(outcome) = name.strip_prefix(RESUMES).and_then(|rest| rest.split('"').next()) {
            *outcomes.entry(outcome.to_owned()).or_default() += count;
        }
    }
    outcomes
}

/// Says how many events changed nothing, and quotes one.
fn repeats(count: u64, first: Option<&str>) -> String {
    format!("{count} events changed nothing, such as {}", first.unwrap_or_default())
}

impl Report {
    /// Pairs of a client and an item that should be.
    fn pairs(&self) -> u64 {
        (self.sum.clients * self.plan.items) as u64
    }

    /// Returns the share of pairs that came to be, in percent.
    #[must_use]
    pub fn delivered(&self) -> f64 {
        100.0 * self.sum.delivered as f64 / self.pairs() as f64
    }
}

impl Verdict for Report {
    fn shortcomings(&self) -> Vec<String> {
        let Sum { delivered, wrong, counts, broken, repeat, .. } = &self.sum;
        let missing = self.pairs() - delivered;
        [
            (missing > 0, format!("{missing} items are missing")),
            (*wrong > 0, format!("{wrong} items are shown that are not in Redis")),
            (counts.repeats > 0, repeats(counts.repeats, repeat.as_deref())),
            (counts.strays > 0, format!("{} events of feeds that are not held", counts.strays)),
            (!broken.is_empty(), format!("not the protocol: {}", broken.concat())),
        ]
        .into_iter()
        .filter_map(|(is_so, text)| is_so.then_some(text))
        .collect()
    }

    fn to_json(&self) -> Value {
        let Sum {
            clients,
            delivered,
            wrong,
            twice,
            disordered,
            again,
            counts,
            lost,
            broken,
            repeat,
        } = &self.sum;
        let used = self.machine.map(|machine| {
            json!({
                "seconds": machine.took.as_secs_f64(),
                "gateways_cpu_seconds": machine.gateways.cpu.as_secs_f64(),
                "gateways_rss": machine.gateways.rss,
                "shards_cpu_seconds": machine.shards.cpu.as_secs_f64(),
                "shards_rss": machine.shards.rss,
            })
        });
        json!({
            "clients": clients, "users": self.plan.users, "resumes": self.plan.resumes,
            "seed": self.plan.seed,
            "items": self.plan.items, "in_redis": self.published, "cuts": self.cut,
            "delivered_percent": self.delivered(), "delivered": delivered, "pairs": self.pairs(),
            "wrong": wrong, "twice_on_the_wire": twice, "again_in_states": again,
            "changed_nothing": counts.repeats, "strays": counts.strays, "out_of_order": disordered,
            "replayed": self.replayed.to_json(), "live": self.live.to_json(),
            "settled_seconds": self.settled.as_secs_f64(),
            "initials": counts.initials, "resumed_connections": counts.resumes,
            "resumed_feeds": counts.resumed, "reset_feeds": counts.reset,
            "lost": lost, "broken": broken, "repeat": repeat,
            "gateway_resumes_total": self.resumes, "servers": used,
            "tester": { "cpu_seconds": self.tester.cpu.as_secs_f64(), "rss": self.tester.rss },
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plan, sum) = (&self.plan, &self.sum);
        let shortcomings = self.shortcomings();
        let verdict = if shortcomings.is_empty() { "kept".into() } else { shortcomings.join("; ") };
        let way = if plan.resumes { "who resume" } else { "who start anew" };
        let counts = &sum.counts;
        writeln!(out, "promise   {verdict}")?;
        writeln!(
            out,
            "clients   {} of {} users, {way}, over 2 gateways and 3 shards",
            sum.clients, plan.users
        )?;
        writeln!(
            out,
            "published {} items in {:.1} s to {FEED}; {} are in Redis",
            plan.items,
            self.took.as_secs_f64(),
            self.published
        )?;
        writeln!(
            out,
            "cut       {} connections, each about every {} s, for {} s",
            self.cut,
            plan.every.as_secs_f64(),
            plan.away.as_secs_f64()
        )?;
        for (why, count) in &sum.lost {
            writeln!(out, "          {count} more lost: {why}")?;
        }
        writeln!(
            out,
            "delivered {:.3} %: {} of {} pairs, {} wrong; settled in {:.2} s",
            self.delivered(),
            sum.delivered,
            self.pairs(),
            sum.wrong,
            self.settled.as_secs_f64()
        )?;
        writeln!(
            out,
            "twice     {} events on the wire, {} to the application; {} items again in whole \
             states; {} out of order",
            sum.twice, counts.repeats, sum.again, sum.disordered
        )?;
        writeln!(out, "replayed  {}: {}", self.replayed.count(), self.replayed)?;
        writeln!(out, "live      {}: {}", self.live.count(), self.live)?;
        writeln!(
            out,
            "came back {} initial, {} resumed: {} feeds went on, {} were reset",
            counts.initials, counts.resumes, counts.resumed, counts.reset
        )?;
        let outcomes: Vec<String> =
            self.resumes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
        writeln!(out, "gateways  resumes_total: {}", outcomes.join(", "))?;
        if let Some(machine) = &self.machine {
            for (name, sample) in [("gateways ", machine.gateways), ("shards   ", machine.shards)] {
                writeln!(
                    out,
                    "{name} {:.1} s CPU in {:.1} s, {:.2} cores; {:.0} MiB RSS",
                    sample.cpu.as_secs_f64(),
                    machine.took.as_secs_f64(),
                    machine.cores(sample),
                    sample.rss as f64 / MIB
                )?;
            }
        }
        writeln!(
            out,
            "tester    {:.1} s CPU in all, {:.0} MiB RSS; seed {}",
            self.tester.cpu.as_secs_f64(),
            self.tester.rss as f64 / MIB,
            plan.seed
        )
    }
}
