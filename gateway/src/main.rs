//! The gateway's commands: wiring that can be read aloud.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context;
use clap::{Parser, Subcommand};
use gateway::{
    app::{App, start_workers},
    config::Config,
    drain::Drain,
    metrics, serve,
    socket::stall,
    topology::Watch,
};
use shard_router::{router::Router as Feeds, topology::ShardUrl};
use tikv_jemallocator::Jemalloc;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

/// Gives back what a burst or a storm of handshakes has taken, and costs less than the system's
/// where every client allocates a little; see `docs/performance.md`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// A socket.io gateway for live feeds on sharded Redis.
///
/// Without a configuration it serves a demo on http://127.0.0.1:3000/ with everything in
/// this process. Scalar options can also be set as GATEWAY__SECTION__KEY in the environment;
/// RUST_LOG sets what is logged (default: info), GATEWAY_LOG=json how.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration file (TOML); `gateway default-config` prints one that names every option.
    #[arg(long, global = true, value_name = "FILE", env = "GATEWAY_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
enum Command {
    /// Serves clients (what it does without a command).
    Serve,
    /// Carries out the edits that clients ask for; any number may run beside the gateways.
    Worker,
    /// Reads the configuration and lists every mistake in it.
    CheckConfig,
    /// Prints a configuration file that names every option with its default.
    DefaultConfig,
}

/// What a mistake in the configuration ends with.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let command = flags.command.unwrap_or(Command::Serve);
    if command == Command::DefaultConfig {
        print!("{}", Config::default_reference());
        return ExitCode::SUCCESS;
    }
    let config = match Config::load(flags.config.as_deref(), environment()) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(USAGE);
        }
    };
    if command == Command::CheckConfig {
        for warning in &config.warnings {
            println!("warning: {warning}");
        }
        println!("The configuration is right.");
        return ExitCode::SUCCESS;
    }
    start_log();
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime.context("runtime could not be started").and_then(|runtime| {
        let ended = runtime.block_on(async {
            match command {
                Command::Worker => work(config).await,
                _ => serve(config).await,
            }
        });
        // Whatever did not end in time, a name that is still being resolved too, is not waited for.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Lists the environment as far as it is text.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if std::env::var("GATEWAY_LOG").is_ok_and(|form| form == "json") {
        log.json().init();
    } else {
        log.init();
    }
}

/// Serves until a signal; returns whether everything ended in time.
async fn serve(config: Config) -> anyhow::Result<bool> {
    let mut signals = Signals::new()?;
    let public = TcpListener::bind(config.server.listen).await.with_context(|| {
        format!("[server] listen: {} cannot be listened on", config.server.listen)
    })?;
    let admin = TcpListener::bind(config.admin.listen).await.with_context(|| {
        format!("[admin] listen: {} cannot be listened on", config.admin.listen)
    })?;
    let (stall, silence) = (config.limits.stall, config.limits.connect_timeout);
    let (deadline, embedded) = (config.drain.deadline, config.embedded);
    let app = App::build(config, metrics::install()).await?;
    let (public_address, admin_address) = (public.local_addr()?, admin.local_addr()?);
    info!(public = %public_address, admin = %admin_address, "Gateway serves.");
    if embedded {
        println!("The demo is on http://{public_address}/ — open it in two windows.");
    }
    let public = stall::Listener::new(public, stall);
    serve::start(public, app.public.clone(), stall::Stream::peer, silence, &app.drain);
    serve::start(admin, app.admin.clone(), |_, addr| addr, silence, &app.drain);
    signals.next().await;
    info!("Gateway stops.");
    tokio::select! {
        clean = app.stop(deadline) => Ok(clean),
        () = signals.next() => Ok(false),
    }
}

/// Carries out edits until a signal.
async fn work(config: Config) -> anyhow::Result<bool> {
    let mut signals = Signals::new()?;
    let topology = config.shards.clone();
    anyhow::ensure!(
        topology.shards.iter().all(|shard| shard.url != ShardUrl::Memory),
        "the shards are in the gateway's own process, which has its own worker"
    );
    let (feeds, drain) = (Arc::new(Feeds::open(topology.clone())), Drain::default());
    if let Some(file) = config.topology_file.clone() {
        let mut watch = Watch::new(file, topology, false);
        let (feeds, end) = (feeds.clone(), drain.end.clone());
        drain.tracker.spawn(async move {
            while let Some(topology) = watch.next(&end).await {
                feeds.adopt(topology);
            }
        });
    }
    start_workers(&config, &feeds, &Arc::new(config.tree.clone()), &drain);
    info!(queues = ?config.edits.queues(), "Worker works.");
    signals.next().await;
    info!("Worker stops.");
    tokio::select! {
        clean = drain.finish(config.drain.deadline) => Ok(clean),
        () = signals.next() => Ok(false),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
