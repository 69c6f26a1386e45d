//! Measures both engines of the gateway side by side.
//!
//! Exit codes: 0 our engine keeps what is promised of it, 1 not so, 2 usage, 3 this machine or the
//! cluster does not do it.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use clap::Parser;
use loadtest::{
    document,
    engines::{self, Measure, Plan},
    runner::check_descriptors,
    start::{Engine, Start},
    verdict::conclude,
    wire::Protocol,
};

/// The part of the document that is written.
const PART: &str = "engines";
/// Flags that say where things are, not what is measured.
const PLACES: [&str; 3] = ["--write", "--gateway", "--json"];

/// What may stand on the command line.
#[derive(Debug, Parser)]
#[command(
    version,
    about = "Measures both engines of the gateway side by side.",
    mut_arg("ramp", |ramp| ramp.default_value("1000"))
)]
struct Flags {
    /// How many connections there are at most; the other sizes follow where they are not given
    #[arg(long, short = 'n', default_value_t = 19_000, value_parser = clap::value_parser!(u32).range(20..))]
    connections: u32,
    /// From how many on the slope of memory is taken; else 2 of 19 of the connections
    #[arg(long)]
    few: Option<u32>,
    /// How many connections a user has where they share
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..))]
    shared: u32,
    /// How many tasks each user has
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    tasks: u32,
    /// How many handshakes make a wave; else 4 of 19 of the connections
    #[arg(long)]
    handshakes: Option<u32>,
    /// How many hear the events whose cost is measured; else 4 of 19 of the connections
    #[arg(long)]
    listeners: Option<u32>,
    /// How many readers stand still
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5000))]
    stalled: u32,
    /// How many hear beside them
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=5000))]
    beside: u32,
    /// For how long nothing may be written to a client
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    stall: Duration,
    /// From ping to ping where readers stand still
    #[arg(long, default_value = "25s", value_parser = humantime::parse_duration)]
    heartbeat: Duration,
    /// How long nothing is done before memory is looked at
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    rest: Duration,
    /// How often all is measured
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// What the clients speak
    #[arg(long, default_value = "eio4")]
    protocol: Protocol,
    /// Which engines
    #[arg(long, value_delimiter = ',', default_value = "pneumatic,socketioxide")]
    engines: Vec<Engine>,
    /// Only these measures
    #[arg(long, value_delimiter = ',')]
    only: Vec<Measure>,
    /// Write the table into this document, between its marks
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    #[command(flatten)]
    start: Start,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let flags = Flags::parse();
    let json = flags.start.json.clone();
    conclude("engines", run(flags), json.as_deref()).await
}

async fn run(flags: Flags) -> anyhow::Result<engines::Report> {
    let plan = plan(&flags)?;
    let most = plan.connections.max(2 * plan.handshakes).max(plan.beside + plan.stalled);
    // A gateway gets the same bound from this process.
    check_descriptors(most.max(plan.listeners))?;
    let report = engines::run(&plan, |text| eprintln!("{text}")).await?;
    if let Some(file) = &flags.write {
        document::put(file, PART, &report.table(&command()))
            .with_context(|| file.display().to_string())?;
    }
    Ok(report)
}

fn plan(flags: &Flags) -> anyhow::Result<Plan> {
    let share = |given: Option<u32>, of_19: u32| {
        given.unwrap_or_else(|| (flags.connections * of_19 / 19).max(1)) as usize
    };
    let plan = Plan {
        measures: match flags.only.as_slice() {
            [] => engines::ALL.to_vec(),
            only => only.to_vec(),
        },
        engines: flags.engines.clone(),
        rounds: flags.rounds as usize,
        protocol: flags.protocol,
        few: share(flags.few, 2),
        connections: flags.connections as usize,
        shared: flags.shared as usize,
        tasks: flags.tasks as usize,
        rest: flags.rest,
        handshakes: share(flags.handshakes, 4),
        listeners: share(flags.listeners, 4),
        beside: flags.beside as usize,
        stalled: flags.stalled as usize,
        stall: flags.stall,
        heartbeat: flags.heartbeat,
        ramp: flags.start.ramp.into(),
        gateway: flags.start.gateway()?,
        folder: std::env::temp_dir(),
    };
    ensure!(plan.few < plan.connections, "--few is less than --connections");
    Ok(plan)
}

/// Returns the command by which anyone can do the same.
fn command() -> String {
    let mut given = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let name = argument.split('=').next().unwrap_or_default();
        if !PLACES.contains(&name) {
            given.push(argument);
        } else if name == argument {
            arguments.next();
        }
    }
    match given.as_slice() {
        [] => "make bench-engines".to_owned(),
        given => format!("make bench-engines ARGS='{}'", given.join(" ")),
    }
}
