//! What came of it: a table for people and documents, figures for programs, a verdict.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
};

use serde_json::{Value, json};

use super::{Facts, Figure, Plan};
use crate::{sample::Sample, start::Engine, verdict::Verdict};

/// What an idle websocket of our engine may take, in bytes.
const MOST_MEMORY: f64 = 3_000.0;
/// What a handshake may take of what it takes with the library.
const MOST_CPU: f64 = 0.5;
/// A slope over fewer connections says little.
const LEAST_SPAN: usize = 10_000;
const MIB: f64 = 1_048_576.0;

/// Everything that is known of a run.
#[derive(Debug)]
pub struct Report {
    pub(super) plan: Plan,
    pub(super) found: BTreeMap<(Figure, Engine), Vec<f64>>,
    pub(super) facts: Facts,
    pub(super) tester: Sample,
}

impl Report {
    /// Returns the value that counts.
    fn value(&self, figure: Figure, engine: Engine) -> Option<f64> {
        self.found.get(&(figure, engine)).map(|values| figure.choose(values))
    }

    fn figures(&self) -> BTreeSet<Figure> {
        self.found.keys().map(|(figure, _)| *figure).collect()
    }

    /// Writes the table as Markdown, and below it what it belongs to.
    #[must_use]
    pub fn table(&self, command: &str) -> String {
        let mut text = String::from("| |");
        // Writing to a string does not fail.
        for engine in &self.plan.engines {
            let _ = write!(text, " {} |", engine.label());
        }
        let _ = writeln!(text, "\n|---|{}", "---|".repeat(self.plan.engines.len()));
        for figure in self.figures() {
            let _ = write!(text, "| {} |", figure.label());
            for engine in &self.plan.engines {
                let value = self.value(figure, *engine);
                let value = value.map_or_else(|| "–".to_owned(), |value| figure.write(value));
                let _ = write!(text, " {value} |");
            }
            text.push('\n');
        }
        let _ = write!(text, "\n{}\n\nMade by `{command}` on {}.\n", self.sizes(), self.facts);
        text
    }

    fn sizes(&self) -> String {
        let plan = &self.plan;
        format!(
            "Clients speak {}, teams of 8, {} tasks each. Memory: the slope from {} to {} \
             connections, many of a user are {}. CPU, user and system: waves of {} handshakes of \
             users who are connected already; events to {} listeners. {} stalled readers beside \
             {} others, who may stand still for {} s plus a heartbeat of {} s. {} rounds: medians, \
             of what must hold the worst.",
            plan.protocol.label().to_uppercase(),
            plan.tasks,
            plan.few,
            plan.connections,
            plan.shared,
            plan.handshakes,
            plan.listeners,
            plan.stalled,
            plan.beside,
            plan.stall.as_secs_f64(),
            plan.heartbeat.as_secs_f64(),
            plan.rounds,
        )
    }
}

impl Verdict for Report {
    fn shortcomings(&self) -> Vec<String> {
        let ours = |figure| self.value(figure, Engine::Pneumatic);
        let mut wrong = Vec::new();
        if self.plan.connections - self.plan.few >= LEAST_SPAN {
            for figure in [Figure::Idle, Figure::Used] {
                if let Some(bytes) = ours(figure).filter(|bytes| *bytes > MOST_MEMORY) {
                    wrong.push(format!("{}: {bytes:.0} B", figure.label()));
                }
            }
            let theirs = self.value(Figure::Handshake, Engine::Socketioxide);
            if let Some((ours, theirs)) = ours(Figure::Handshake).zip(theirs)
                && ours > theirs * MOST_CPU
            {
                let percent = 100.0 * ours / theirs;
                wrong.push(format!("a handshake takes {percent:.0} % of socketioxide's"));
            }
        }
        if let Some(percent) = ours(Figure::Gone).filter(|percent| *percent < 100.0) {
            wrong.push(format!("{percent:.0} % of the stalled readers were put out in time"));
        }
        if let Some(harm) = ours(Figure::Harm).filter(|harm| *harm > 0.0) {
            wrong.push(format!("{}: {harm}", Figure::Harm.label()));
        }
        wrong
    }

    fn to_json(&self) -> Value {
        let mut engines = serde_json::Map::new();
        for ((figure, engine), values) in &self.found {
            let entry = engines.entry(engine.label()).or_insert_with(|| json!({}));
            entry[figure.name()] = json!({ "value": figure.choose(values), "rounds": values });
        }
        json!({
            "engines": engines, "protocol": self.plan.protocol.label(),
            "few": self.plan.few, "connections": self.plan.connections,
            "shared": self.plan.shared, "tasks": self.plan.tasks, "rounds": self.plan.rounds,
            "handshakes": self.plan.handshakes, "listeners": self.plan.listeners,
            "stalled": self.plan.stalled, "beside": self.plan.beside,
            "machine": self.facts.to_string(), "shortcomings": self.shortcomings(),
            "tester": { "cpu_seconds": self.tester.cpu.as_secs_f64(), "rss": self.tester.rss },
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shortcomings = self.shortcomings();
        let verdict = if shortcomings.is_empty() { "kept".into() } else { shortcomings.join("; ") };
        writeln!(out, "promise   {verdict}\n")?;
        let width = |text: &str| text.chars().count();
        let widest = self.figures().into_iter().map(|figure| width(figure.label())).max();
        let widest = widest.unwrap_or_default();
        write!(out, "{:widest$}", "")?;
        for engine in &self.plan.engines {
            write!(out, "  {:>12}", engine.label())?;
        }
        for figure in self.figures() {
            write!(out, "\n{:widest$}", figure.label())?;
            for engine in &self.plan.engines {
                let value = self.value(figure, *engine);
                let value = value.map_or_else(|| "–".to_owned(), |value| figure.write(value));
                write!(out, "  {value:>12}")?;
            }
        }
        writeln!(out, "\n\n{}\n{}", self.sizes(), self.facts)?;
        writeln!(
            out,
            "tester    {:.1} s CPU, {:.0} MiB RSS at the end",
            self.tester.cpu.as_secs_f64(),
            self.tester.rss as f64 / MIB
        )
    }
}
