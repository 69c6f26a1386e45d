//! Cuts the connections of many clients while a feed grows, and says what each one missed.
//!
//! Exit codes: 0 every client shows what Redis has and heard nothing twice, 1 not so, 2 usage,
//! 3 this machine or the cluster does not do it.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use loadtest::{
    drops::{self, Plan},
    runner::check_descriptors,
    start::{Engine, Start},
    verdict::conclude,
};

/// What may stand on the command line.
#[derive(Debug, Parser)]
#[command(version, about = "Cuts clients again and again while a feed grows.")]
struct Flags {
    /// How many clients, half of them socket.io 1 and 2, half 3 and 4
    #[arg(long, short = 'n', default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// How many users they are; each client its own where this is not given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    users: Option<u32>,
    /// For how long items are published
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// How many items per second
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    rate: u32,
    /// Bytes of padding in each item
    #[arg(long, default_value_t = 100)]
    payload: u16,
    /// From cut to cut of one client, in the mean
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// How long a client that was cut stays away
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    away: Duration,
    /// How long at most everything may take to arrive once all is published
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    settle: Duration,
    /// Clients that say nothing when they come back, and get `initial`
    #[arg(long)]
    no_resume: bool,
    /// What chance is drawn from; printed with the figures
    #[arg(long, default_value_t = 1)]
    seed: u64,
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
    conclude("drops", run(flags), json.as_deref()).await
}

async fn run(flags: Flags) -> anyhow::Result<drops::Report> {
    check_descriptors(flags.clients as usize)?;
    let plan = Plan {
        clients: flags.clients as usize,
        users: flags.users.unwrap_or(flags.clients) as usize,
        ramp: flags.start.ramp.into(),
        items: (flags.seconds * flags.rate) as usize,
        rate: flags.rate.into(),
        payload: flags.payload.into(),
        every: flags.every,
        away: flags.away,
        settle: flags.settle,
        resumes: !flags.no_resume,
        seed: flags.seed,
        engine: flags.engine,
        gateway: flags.start.gateway()?,
        folder: std::env::temp_dir(),
    };
    Ok(drops::run(&plan).await?)
}
