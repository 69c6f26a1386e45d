//! Breaks a real cluster at random while clients listen, and compares them with Redis.
//!
//! Exit codes: 0 every client holds what Redis holds and saw nothing else, 1 not so, 2 usage,
//! 3 it could not be played.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use loadtest::{
    chaos::{self, Plan, faults, writers::Manners},
    cluster,
};
use tokio::signal::unix::{SignalKind, signal};

const DIFFERS: u8 = 1;
const UNPLAYABLE: u8 = 3;

/// Breaks a real cluster at random while clients listen, and compares them with Redis.
#[derive(Debug, Parser)]
struct Flags {
    /// Decides about everything but what the clock does; random if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// How long things go wrong.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "3m")]
    duration: Duration,
    /// How long until everything is healed and compared.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30s")]
    round: Duration,
    /// The gateway's program; the one that was built beside this if not given.
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// How many gateways.
    #[arg(long, default_value_t = 2)]
    gateways: usize,
    /// Clients of our own.
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// Clients in Node.
    #[arg(long, default_value_t = 8)]
    nodes: usize,
    /// Users, whose clients they are.
    #[arg(long, default_value_t = 40)]
    users: usize,
    /// Writes a second.
    #[arg(long, default_value_t = 150.0)]
    rate: f64,
    /// Only faults whose name holds one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Nothing that only verifying can find: notices never sent, keys deleted by hand.
    #[arg(long)]
    no_silence: bool,
    /// No client resumes.
    #[arg(long)]
    no_resume: bool,
    /// Where logs and data go; what is left there is of runs that failed.
    #[arg(long, default_value = "target/chaos")]
    folder: PathBuf,
    /// Leaves logs and data of any run.
    #[arg(long)]
    keep: bool,
    /// Writes the report as JSON, too.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let flags = Flags::parse();
    let seed = flags.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("chaos: seed {seed}");
    let is_wanted = |fault: &faults::Fault| {
        let named = flags.only.iter().any(|word| fault.label().contains(word));
        (flags.only.is_empty() || named) && !(flags.no_silence && fault.is_silent())
    };
    let never = if flags.no_silence { 0.0 } else { 0.05 };
    let plan = Plan {
        seed,
        duration: flags.duration,
        round: flags.round,
        gateway: match flags.gateway {
            Some(program) => program,
            None => cluster::built_gateway()?,
        },
        folder: flags.folder,
        keep: flags.keep,
        gateways: flags.gateways,
        lights: flags.clients,
        resumes: !flags.no_resume,
        nodes: flags.nodes,
        users: flags.users,
        rate: flags.rate,
        faults: faults::all().into_iter().filter(is_wanted).collect(),
        manners: Manners { late: 0.1, swapped: 0.1, never },
    };
    let played = tokio::select! {
        played = chaos::run(&plan) => played,
        // Whatever runs is killed as the run is dropped.
        () = asked_to_end() => return Ok(ExitCode::from(UNPLAYABLE)),
    };
    let report = match played {
        Ok(report) => report,
        Err(error) => {
            eprintln!("chaos: seed {seed}: {:#}", anyhow::Error::from(error));
            return Ok(ExitCode::from(UNPLAYABLE));
        }
    };
    print!("{report}");
    if let Some(file) = flags.json {
        std::fs::write(file, serde_json::to_string_pretty(&report.to_json())? + "\n")?;
    }
    Ok(if report.failures().is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERS) })
}

/// Waits for Ctrl-C or SIGTERM.
async fn asked_to_end() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
