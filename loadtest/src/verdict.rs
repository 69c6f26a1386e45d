//! How a benchmark with a promise ends: figures, perhaps a file, and an exit code.

use std::{fmt::Display, path::Path, process::ExitCode};

use anyhow::Context;
use serde_json::Value;

/// The promise is not kept.
const BROKEN: u8 = 1;
/// This machine or the cluster does not do it.
const ENVIRONMENT: u8 = 3;

/// What a benchmark came to.
pub trait Verdict: Display {
    /// Says what is not as it was promised; nothing where all is well.
    fn shortcomings(&self) -> Vec<String>;

    /// Returns the figures for programs.
    fn to_json(&self) -> Value;
}

/// Waits for a benchmark, or Ctrl-C; prints what it came to and writes it to `json`.
///
/// # Errors
///
/// Returns an error when the file cannot be written.
pub async fn conclude<V: Verdict>(
    name: &str,
    run: impl Future<Output = anyhow::Result<V>>,
    json: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let report = tokio::select! {
        report = run => report,
        stopped = tokio::signal::ctrl_c() => Err(match stopped {
            Ok(()) => anyhow::anyhow!("ended early"),
            Err(error) => error.into(),
        }),
    };
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            return Ok(ExitCode::from(ENVIRONMENT));
        }
    };
    print!("{report}");
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&report.to_json())?;
        std::fs::write(file, text + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(if report.shortcomings().is_empty() { ExitCode::SUCCESS } else { ExitCode::from(BROKEN) })
}
