//! Opens many socket.io connections, holds them, and says what they received.
//!
//! Exit codes: 0 everybody got `initial` and nothing is missing, 1 not so, 2 usage,
//! 3 this machine cannot do it, 4 the target cannot be reached.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use loadtest::{
    flags::{Flags, Plan},
    progress::Progress,
    runner::{self, Failure},
};
use tokio_util::sync::CancellationToken;

const MISSED: u8 = 1;
const USAGE: u8 = 2;
const ENVIRONMENT: u8 = 3;
const UNREACHABLE: u8 = 4;
const INTERRUPTED: i32 = 130;

fn main() -> anyhow::Result<ExitCode> {
    let flags = Flags::parse();
    let plan = match Plan::try_from(flags) {
        Ok(plan) => plan,
        Err(mistake) => {
            let error = Flags::command().error(clap::error::ErrorKind::ValueValidation, mistake);
            let _ = error.print();
            return Ok(ExitCode::from(USAGE));
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(plan.threads)
        .enable_all()
        .build()?;
    runtime.block_on(run(plan))
}

async fn run(plan: Plan) -> anyhow::Result<ExitCode> {
    let stop = CancellationToken::new();
    tokio::spawn(end_on_signal(stop.clone()));
    let progress = if plan.quiet { Progress::hidden() } else { Progress::shown(plan.connections) };
    let json = plan.json.clone();
    let report = match runner::run(plan, stop, progress).await {
        Ok(report) => report,
        Err(failure) => {
            eprintln!("loadtest: {:#}", anyhow::Error::from(failure.clone()));
            return Ok(ExitCode::from(match failure {
                Failure::Descriptors { .. } => ENVIRONMENT,
                Failure::Unreachable { .. } => UNREACHABLE,
            }));
        }
    };
    print!("{report}");
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&report.to_json())?;
        std::fs::write(&file, text + "\n")
            .map_err(|error| anyhow::anyhow!("cannot write {}: {error}", file.display()))?;
    }
    Ok(if report.shortcomings().is_empty() { ExitCode::SUCCESS } else { ExitCode::from(MISSED) })
}

/// The first Ctrl-C ends the run early, which still reports; the second ends the program.
async fn end_on_signal(stop: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_err() {
        return;
    }
    stop.cancel();
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(INTERRUPTED);
    }
}
