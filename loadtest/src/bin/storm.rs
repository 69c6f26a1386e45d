//! Kills a gateway under many clients, and counts how often the new one reads each feed.
//!
//! Exit codes: 0 everybody came back, shows what it showed, and each feed was read once, 1 not so,
//! 2 usage, 3 this machine or the cluster does not do it.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use loadtest::{
    runner::check_descriptors,
    start::{Engine, Start},
    storm::{self, Plan},
    verdict::conclude,
};

/// What may stand on the command line.
#[derive(Debug, Parser)]
#[command(version, about = "Kills a gateway under its clients and lets all come back at once.")]
struct Flags {
    /// How many clients, each a user of its own in one team
    #[arg(long, short = 'n', default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// How many members a team has
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=1000))]
    members: u32,
    /// How many tasks each member has
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    tasks: u32,
    /// How long at most all may take to come back
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// Clients that say nothing when they come back, and get `initial`
    #[arg(long)]
    no_resume: bool,
    /// The gateways' engine; else its default
    #[arg(long)]
    engine: Option<Engine>,
    #[command(flatten)]
    start: Start,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let flags = Flags::parse();
    let json = flags.start.json.clone();
    conclude("storm", run(flags), json.as_deref()).await
}

async fn run(flags: Flags) -> anyhow::Result<storm::Report> {
    check_descriptors(flags.clients as usize)?;
    let plan = Plan {
        clients: flags.clients as usize,
        members: flags.members as usize,
        tasks: flags.tasks as usize,
        ramp: flags.start.ramp.into(),
        patience: flags.patience,
        resumes: !flags.no_resume,
        engine: flags.engine,
        gateway: flags.start.gateway()?,
        folder: std::env::temp_dir(),
    };
    Ok(storm::run(&plan).await?)
}
