//! The flags that benchmarks with a cluster of their own share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cluster::built_gateway;

/// What each of them may be told.
#[derive(Debug, Clone, Args)]
pub struct Start {
    /// How many clients begin per second
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub ramp: u32,
    /// The gateway's program; else the one beside this program
    #[arg(long, value_name = "FILE")]
    pub gateway: Option<PathBuf>,
    /// Write the figures to a file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Start {
    /// Returns the gateway's program that was named, or the one that was built beside this one.
    ///
    /// # Errors
    ///
    /// Returns an error when none was named and none is there.
    pub fn gateway(&self) -> anyhow::Result<PathBuf> {
        Ok(match &self.gateway {
            Some(file) => file.clone(),
            None => built_gateway()?,
        })
    }
}

/// A gateway's engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Engine {
    /// Our own.
    Pneumatic,
    /// The library.
    Socketioxide,
}

impl Engine {
    /// Returns the name as it stands in a configuration and on the command line.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pneumatic => "pneumatic",
            Self::Socketioxide => "socketioxide",
        }
    }

    /// Writes the line for the section `[server]` that chooses it, or nothing for the default.
    #[must_use]
    pub fn line(engine: Option<Self>) -> String {
        engine.map_or_else(String::new, |engine| format!("engine = \"{}\"\n", engine.label()))
    }
}
