//! Tells an operator which shard a feed is on, without asking any shard.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use shard_router::{
    ring::tag,
    topology::{Mistake, Shards, Topology},
};

/// What a shell sees when the configuration has mistakes.
const BAD_CONFIG: u8 = 2;

/// Tells which shard a feed is on, from the configuration alone
///
/// No shard is asked, so that the answer is there even when a shard is not. Passwords
/// are never shown. All mistakes of a configuration are listed together.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Exit codes: 0 done, 1 the answer could not be written, 2 the command line or the\n\
configuration has mistakes, which are all listed."
)]
struct Cli {
    /// The gateway's configuration, or a topology document
    ///
    /// The shards are `nodes` or `topology` in its `[shards]`, or `nodes` at its top
    /// beside `version`. Without this option there is one shard, `shard-01`, in the
    /// memory of the gateway, as the gateway itself has it without a configuration.
    #[arg(long, short, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints each feed, the part of its name that is hashed, its shard and where that is
    ///
    /// If a name has `{...}` that is not empty, only what is inside is hashed. Quote
    /// such names in a shell: `shardctl where '{team.red}.tasks'`.
    Where {
        /// Names of feeds
        #[arg(required = true, value_name = "FEED")]
        feeds: Vec<String>,
    },
    /// Prints the topology's version, the ring's fingerprint, and each shard's part of it
    ///
    /// Rings of one fingerprint place every feed alike, in whatever language they run.
    Ring,
}

fn main() -> anyhow::Result<ExitCode> {
    let Cli { config, command } = Cli::parse();
    let topology = match load(config.as_deref()) {
        Ok(topology) => topology,
        Err(bad_file) => {
            eprint!("{}", bad_file.report());
            return Ok(ExitCode::from(BAD_CONFIG));
        }
    };
    let answer = match command {
        Command::Where { feeds } => describe_feeds(&topology, &feeds),
        Command::Ring => describe_ring(&topology),
    };
    match io::stdout().lock().write_all(answer.as_bytes()) {
        // Whoever read the answer, `head` perhaps, has had enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written.context("answer could not be written").map(|()| ExitCode::SUCCESS),
    }
}

/// A file and all that is wrong with it.
struct BadFile {
    file: PathBuf,
    mistakes: Vec<Mistake>,
}

impl BadFile {
    fn report(&self) -> String {
        let mut report = match self.mistakes.len() {
            1 => format!("{} has a mistake:\n", self.file.display()),
            count => format!("{} has {count} mistakes:\n", self.file.display()),
        };
        for mistake in &self.mistakes {
            let _ = writeln!(report, "  {mistake}");
        }
        report
    }
}

fn load(config: Option<&Path>) -> Result<Topology, BadFile> {
    let Some(config) = config else { return Ok(Topology::default()) };
    match read(config, Shards::from_config)? {
        Shards::Here(topology) => Ok(topology),
        Shards::InFile(file) => {
            let folder = config.parent().unwrap_or(Path::new(""));
            read(&folder.join(file), Topology::from_toml)
        }
        Shards::Unsaid => {
            eprintln!("{} names no shards; there is one in memory.", config.display());
            Ok(Topology::default())
        }
    }
}

fn read<T>(file: &Path, parse: fn(&str) -> Result<T, Vec<Mistake>>) -> Result<T, BadFile> {
    let text = fs::read_to_string(file).map_err(|error| {
        let message = format!("cannot be read: {error}");
        vec![Mistake { path: String::new(), message }]
    });
    text.and_then(|text| parse(&text))
        .map_err(|mistakes| BadFile { file: file.to_owned(), mistakes })
}

fn describe_feeds(topology: &Topology, feeds: &[String]) -> String {
    let mut rows = vec![["FEED", "HASHED", "SHARD", "URL"].map(str::to_owned)];
    rows.extend(feeds.iter().map(|feed| {
        let shard = &topology.shards[topology.owner(feed)];
        let hashed = String::from_utf8_lossy(tag(feed.as_bytes())).into_owned();
        [feed.clone(), hashed, shard.name.clone(), shard.url.to_string()]
    }));
    table(&rows)
}

fn describe_ring(topology: &Topology) -> String {
    let ring = topology.ring();
    let mut rows = vec![["SHARD", "WEIGHT", "POINTS", "SHARE"].map(str::to_owned)];
    rows.extend(topology.shards.iter().zip(topology.shares()).enumerate().map(
        |(index, (shard, share))| {
            let points = ring.points().iter().filter(|point| point.node == index).count();
            let share = format!("{:.2} %", share * 100.0);
            [shard.name.clone(), shard.weight.to_string(), points.to_string(), share]
        },
    ));
    format!(
        "version      {}\nfingerprint  {}\n\n{}",
        topology.version,
        ring.fingerprint(),
        table(&rows)
    )
}

/// Sets rows in columns of even width, two blanks apart.
fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut table = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<String>>().join("  ");
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}
