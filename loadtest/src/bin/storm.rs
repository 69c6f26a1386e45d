//! Kills a gateway under many clients, and counts how often the new one reads each feed.
//!
//! Exit codes: 0 everybody came back, shows what it showed, and each feed was read once, 1 not so,
//! 2 usage, 3 this machine or the cluster does not do it.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use loadtest::{
    runner::check_descriptors,
    storm::{self, Plan},
    verdict::{conclude, gateway},
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
    /// How many clients begin per second, before the storm
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    ramp: u32,
    /// How long at most all may take to come back
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// Clients that say nothing when they come back, and get `initial`
    #[arg(long)]
    no_resume: bool,
    /// The gateway's program; else the one beside this program
    #[arg(long, value_name = "FILE")]
    gateway: Option<PathBuf>,
    /// Write the figures to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let flags = Flags::parse();
    let json = flags.json.clone();
    conclude("storm", run(flags), json.as_deref()).await
}

async fn run(flags: Flags) -> anyhow::Result<storm::Report> {
    check_descriptors(flags.clients as usize)?;
    let gateway = gateway(flags.gateway)?;
    let plan = Plan {
        clients: flags.clients as usize,
        members: flags.members as usize,
        tasks: flags.tasks as usize,
        ramp: flags.ramp.into(),
        patience: flags.patience,
        resumes: !flags.no_resume,
        gateway,
        folder: std::env::temp_dir(),
    };
    Ok(storm::run(&plan).await?)
}
