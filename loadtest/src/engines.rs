//! Both engines side by side: what an idle websocket, a handshake and an event cost, and what
//! becomes of readers that stand still.
//!
//! Every measure has a fresh gateway, a real Redis and light clients, all on this machine. The
//! engines take turns, and which one begins changes with each round, so that a machine that
//! grows warm or busy favours neither.

mod ear;
mod facts;
mod figure;
mod memory;
mod report;
mod stage;
mod stalled;
mod work;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::ValueEnum;
use shard_router::feed::FeedError;

pub use self::{facts::Facts, figure::Figure, report::Report};
use crate::{
    cluster::ClusterError, crowd::Missing, light::NotConnected, sample::Sample, start::Engine,
    wire::Protocol,
};

/// What is run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is measured.
    pub measures: Vec<Measure>,
    /// On which engines.
    pub engines: Vec<Engine>,
    /// How often.
    pub rounds: usize,
    /// What the clients speak.
    pub protocol: Protocol,
    /// The level from which the slope of memory is taken.
    pub few: usize,
    /// The level to which it is taken.
    pub connections: usize,
    /// How many connections a user has where they share.
    pub shared: usize,
    /// How many tasks each user has.
    pub tasks: usize,
    /// How long nothing is done before memory is looked at.
    pub rest: Duration,
    /// How many handshakes are made in one wave.
    pub handshakes: usize,
    /// How many hear the events whose cost is measured.
    pub listeners: usize,
    /// How many of those hear beside readers that stand still.
    pub beside: usize,
    /// How many readers stand still.
    pub stalled: usize,
    /// How long nothing may be written to a client, as the gateway is told.
    pub stall: Duration,
    /// From ping to ping, as the gateway is told.
    pub heartbeat: Duration,
    /// How many clients begin per second.
    pub ramp: f64,
    /// The gateway's program.
    pub gateway: PathBuf,
    /// Where files go.
    pub folder: PathBuf,
}

/// One of the things that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    /// Memory of connections that are a user each.
    Memory,
    /// Memory where users have many connections each.
    Shared,
    /// CPU of a handshake.
    Handshakes,
    /// CPU of an event.
    Events,
    /// What becomes of readers that stand still.
    Stalled,
}

/// All of them, in the order in which they are run.
pub const ALL: [Measure; 5] =
    [Measure::Memory, Measure::Shared, Measure::Handshakes, Measure::Events, Measure::Stalled];

/// What a measure came to.
type Figures = Vec<(Figure, f64)>;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The cluster did not come up, or did not take the feeds.
    #[error("cluster does not do it")]
    Cluster(#[from] ClusterError),
    /// A shard refused an item.
    #[error("an item was not published")]
    Publish(#[from] FeedError),
    /// Not everybody got in.
    #[error(transparent)]
    Entry(#[from] Missing),
    /// Not everybody is let listen.
    #[error("a client could not subscribe: {0}")]
    Subscribe(String),
    /// A client was lost before it could be used.
    #[error("a client was lost")]
    Client(#[from] NotConnected),
    /// A process cannot be looked at.
    #[error("the gateway cannot be seen in /proc")]
    Unseen,
    /// What was sent did not arrive, so that there is nothing to divide by.
    #[error("{arrived} of {sent} events arrived in time; {first}")]
    Lost {
        /// What should have arrived.
        sent: u64,
        /// What did.
        arrived: u64,
        /// What a client says of it.
        first: String,
    },
}

/// Runs all of it; `note` is told what is under way.
///
/// # Errors
///
/// Returns [`Failure`] when there is nothing to measure.
pub async fn run(plan: &Plan, note: impl Fn(&str)) -> Result<Report, Failure> {
    let mut found: BTreeMap<(Figure, Engine), Vec<f64>> = BTreeMap::new();
    for round in 0..plan.rounds {
        let mut engines = plan.engines.clone();
        if round % 2 == 1 {
            engines.reverse();
        }
        for measure in &plan.measures {
            for engine in &engines {
                let name = measure.to_possible_value().expect("no measure is hidden");
                let (name, engine_name) = (name.get_name().to_owned(), engine.label());
                let rounds = plan.rounds;
                note(&format!("round {} of {rounds}: {name}, {engine_name}", round + 1));
                let figures = match measure {
                    Measure::Memory => memory::measure(plan, *engine, 1).await?,
                    Measure::Shared => memory::measure(plan, *engine, plan.shared).await?,
                    Measure::Handshakes => work::handshakes(plan, *engine).await?,
                    Measure::Events => work::events(plan, *engine).await?,
                    Measure::Stalled => stalled::measure(plan, *engine).await?,
                };
                for (figure, value) in figures {
                    note(&format!("  {}: {}", figure.label(), figure.write(value)));
                    found.entry((figure, *engine)).or_default().push(value);
                }
            }
        }
    }
    Ok(Report {
        plan: plan.clone(),
        found,
        facts: Facts::now(&plan.gateway),
        tester: Sample::of(&[std::process::id()]).unwrap_or_default(),
    })
}
