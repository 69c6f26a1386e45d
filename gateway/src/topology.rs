//! Watches the file that `[shards] topology` names, and tells of each new version.
//!
//! A version is taken when the whole file is right and its version is higher than the
//! one in use. Whatever else is found there changes nothing, is said once, and counted.

use std::{io, path::PathBuf, time::Duration};

use shard_router::topology::{ShardUrl, Topology};
use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::metrics;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A file that is longer is no topology: thousands of shards need less.
const LONGEST: u64 = 1 << 20;

/// Why a document is not gone by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("it is longer than {LONGEST} bytes")]
    TooLong,
    #[error("it is not UTF-8")]
    NoText,
    #[error("it has mistakes: {}", .0.join("; "))]
    Wrong(Vec<String>),
    #[error("its version {found} is below {used}, which is in use")]
    Older { found: u64, used: u64 },
    #[error("it differs from what is in use and has the same version {0}; raise the version")]
    SameVersion(u64),
    #[error("it has shards in the memory of a gateway, which this process cannot reach")]
    InMemory,
}

/// The file of a topology, and what is in use of it.
#[derive(Debug)]
pub struct Watch {
    file: PathBuf,
    used: Topology,
    /// Whether shards may be in this process.
    memory: bool,
    /// What was found at the last look; a file that is still being written differs at the next.
    seen: Option<Vec<u8>>,
    /// What was said of the file last, which is not said again.
    said: Option<Refusal>,
}

impl Watch {
    /// Watches `file`, of which `used` is in use; `memory` tells whether shards may be in
    /// this process.
    #[must_use]
    pub fn new(file: PathBuf, used: Topology, memory: bool) -> Self {
        metrics::topology_version(used.version);
        Self { file, used, memory, seen: None, said: None }
    }

    /// Waits for the next version; `None` once `end` is cancelled.
    ///
    /// It is looked for once a second, and taken when it is the same at two looks in a row;
    /// SIGHUP has it looked at and taken at once.
    pub async fn next(&mut self, end: &CancellationToken) -> Option<Topology> {
        let mut hang_up = signal(SignalKind::hangup())
            .inspect_err(|error| warn!(%error, "SIGHUP cannot be heard; the topology is looked at once a second."))
            .ok();
        loop {
            let asked = async {
                match &mut hang_up {
                    Some(hang_up) => hang_up.recv().await,
                    None => std::future::pending().await,
                }
            };
            let at_once = tokio::select! {
                () = end.cancelled() => return None,
                asked = timeout(LOOK_EVERY, asked) => asked.is_ok(),
            };
            let found = read(&self.file).await;
            if let Some(topology) = self.look(found, at_once) {
                return Some(topology);
            }
        }
    }

    /// Takes in what the file holds now; returns a topology that is to be gone by.
    fn look(&mut self, found: Result<Vec<u8>, Refusal>, at_once: bool) -> Option<Topology> {
        let text = match found {
            Ok(text) => text,
            Err(refusal) => {
                self.seen = None;
                self.refuse(refusal);
                return None;
            }
        };
        if self.seen.as_ref() != Some(&text) {
            self.seen = Some(text);
            if !at_once {
                return None;
            }
        }
        match self.judge(self.seen.as_deref().unwrap_or_default()) {
            Ok(None) => {
                self.said = None;
                None
            }
            Ok(Some(topology)) => {
                self.said = None;
                self.used = topology.clone();
                metrics::topology_change("adopted");
                metrics::topology_version(topology.version);
                let fingerprint = topology.ring().fingerprint();
                info!(file = %self.file.display(), version = topology.version, %fingerprint, "Topology has a new version.");
                Some(topology)
            }
            Err(refusal) => {
                self.refuse(refusal);
                None
            }
        }
    }

    /// Decides on a text; nothing where it is what is in use.
    fn judge(&self, text: &[u8]) -> Result<Option<Topology>, Refusal> {
        let text = std::str::from_utf8(text).map_err(|_| Refusal::NoText)?;
        let topology = Topology::from_toml(text).map_err(|mistakes| {
            Refusal::Wrong(mistakes.iter().map(ToString::to_string).collect())
        })?;
        let (found, used) = (topology.version, self.used.version);
        if topology == self.used {
            return Ok(None);
        }
        if found < used {
            return Err(Refusal::Older { found, used });
        }
        if found == used {
            return Err(Refusal::SameVersion(used));
        }
        if !self.memory && topology.shards.iter().any(|shard| shard.url == ShardUrl::Memory) {
            return Err(Refusal::InMemory);
        }
        Ok(Some(topology))
    }

    fn refuse(&mut self, refusal: Refusal) {
        if self.said.as_ref() == Some(&refusal) {
            return;
        }
        metrics::topology_change("refused");
        error!(file = %self.file.display(), error = %refusal, used = self.used.version, "Topology is not gone by; the one in use stays.");
        self.said = Some(refusal);
    }
}

async fn read(file: &PathBuf) -> Result<Vec<u8>, Refusal> {
    let unreadable = |error: io::Error| Refusal::Unreadable(error.to_string());
    let file = tokio::fs::File::open(file).await.map_err(unreadable)?;
    let mut text = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut text).await.map_err(unreadable)?;
    if text.len() as u64 > LONGEST { Err(Refusal::TooLong) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "version = 3\nnodes = [{ name = 'a', url = 'redis://h:1' }]";
    const TWO: &str = "version = 4\nnodes = [{ name = 'a', url = 'redis://h:1' }, { name = 'b', url = 'redis://h:2' }]";

    fn watch() -> Watch {
        Watch::new("topology.toml".into(), Topology::from_toml(ONE).expect("is right"), false)
    }

    #[track_caller]
    fn refused(text: &[u8], expected: &str) {
        let mut watch = watch();
        assert_eq!(watch.look(Ok(text.to_vec()), true), None);
        assert_eq!(watch.said.map(|refusal| refusal.to_string()).as_deref(), Some(expected));
        assert_eq!(watch.used.version, 3);
    }

    #[test]
    fn a_higher_version_is_taken_once_it_is_whole() {
        let mut watch = watch();
        let mut look = |text: &str| watch.look(Ok(text.into()), false).map(|found| found.version);
        assert_eq!(look(ONE), None);
        assert_eq!(look(ONE), None);
        assert_eq!(look(&TWO[..40]), None);
        assert_eq!(look(TWO), None);
        assert_eq!(look(TWO), Some(4));
        assert_eq!(look(TWO), None);
        assert_eq!(watch.said, None, "what is still being written is not judged");

        let five = TWO.replace("version = 4", "version = 5");
        let found = watch.look(Ok(five.into()), true).map(|found| found.version);
        assert_eq!(found, Some(5), "who asks has it taken at once");
    }

    #[test]
    fn anything_else_changes_nothing_and_is_said_once() {
        refused(
            b"nodes = 7",
            "it has mistakes: version: is missing; nodes: must be an array of tables, not a whole number",
        );
        refused(b"version", "it has mistakes: line 1 is not TOML: key with no value, expected `=`");
        refused(&[0xff], "it is not UTF-8");
        refused(
            ONE.replace("version = 3", "version = 2").as_bytes(),
            "its version 2 is below 3, which is in use",
        );
        refused(
            TWO.replace("version = 4", "version = 3").as_bytes(),
            "it differs from what is in use and has the same version 3; raise the version",
        );
        refused(
            b"version = 4\nnodes = [{ name = 'a', url = 'memory:' }]",
            "it has shards in the memory of a gateway, which this process cannot reach",
        );

        let mut watch = watch();
        assert_eq!(watch.look(Err(Refusal::TooLong), false), None);
        assert_eq!(watch.said, Some(Refusal::TooLong));
        watch.look(Ok(ONE.into()), true);
        assert_eq!(watch.said, None, "what is right again is said anew when it is wrong again");
    }
}
