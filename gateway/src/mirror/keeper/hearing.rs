//! Whether a shard is heard: it is asked for marks, and they come, or whose fault is it?
//!
//! A connection that lives and delivers nothing is found by a mark that was sent and does
//! not come, and is made anew. Before that a second connection, the *witness*, is asked for
//! a mark too: if it hears, this gateway's own connection is the fault, and the gateway is
//! not ready until it hears again; if it does not, the shard is, and nobody else would do
//! better.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use shard_router::shard::{Heard, ShardError};
use tracing::{debug, info, warn};

use super::{Effect, Keeper, Out};
use crate::metrics;

/// Each shard is asked for a mark this often.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// A witness is asked when a mark is later than this.
const DOUBT_AFTER: Duration = Duration::from_millis(1_250);
/// A mark that is later than this does not come: with the second until the next probe a
/// deaf connection is found in less than four.
const MARK_WITHIN: Duration = Duration::from_millis(2_500);
/// A connection that was to be made anew and was not is given up again after this.
const RESET_AGAIN: Duration = Duration::from_secs(10);
/// A connection that was found deaf is this gateway's own fault for so long, unless that is
/// found again; then the shard may be away by now.
const DEAF_FOR: Duration = Duration::from_secs(5);

/// What is known of how one shard is heard.
#[derive(Debug)]
pub(super) struct Hearing {
    probe: Option<Probe>,
    next_probe: Instant,
    /// When it was last asked to make itself anew; until it has, it is not asked again.
    reset: Option<Instant>,
    trial: Option<Trial>,
    verdict: Verdict,
}

#[derive(Debug)]
struct Probe {
    nonce: u64,
    sent: Instant,
    answered: Option<Instant>,
}

/// A witness is asked.
#[derive(Debug, Default)]
struct Trial {
    /// The mark that it should hear.
    nonce: Option<u64>,
    witness_hears: bool,
    /// Whether our own connection has heard any mark meanwhile.
    own_hears: bool,
}

/// Who is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nobody: marks come, or nothing says otherwise.
    Hears,
    /// Our own connection.
    Deaf { until: Instant },
    /// The shard: nobody hears it, or it cannot be asked.
    Away,
}

impl Hearing {
    pub(super) fn new(now: Instant) -> Self {
        Self { probe: None, next_probe: now, reset: None, trial: None, verdict: Verdict::Hears }
    }

    /// Takes in that the connection is another, or none; tells whether a witness is to go.
    #[must_use]
    pub(super) fn restart(&mut self, now: Instant) -> bool {
        (self.probe, self.reset, self.next_probe) = (None, None, now);
        self.trial.take().is_some()
    }

    /// Whether marks come, as far as is known.
    pub(super) fn hears(&self) -> bool {
        self.verdict == Verdict::Hears
    }
}

impl Keeper {
    /// Takes in that a mark came on our own connection; `true` if a probe asked for it.
    pub(super) fn hears(&mut self, shard: usize, nonce: u64, now: Instant) -> bool {
        let connection = &mut self.shards[shard];
        let hearing = &mut connection.hearing;
        if let Some(trial) = &mut hearing.trial {
            trial.own_hears = true;
        }
        // What a connection hears that is to be made anew says nothing of the next one.
        if hearing.reset.is_none() && hearing.verdict != Verdict::Hears {
            info!(shard = %connection.name, "Shard's marks are heard again.");
            self.judge(shard, Verdict::Hears);
        }
        let connection = &mut self.shards[shard];
        let asked = connection.hearing.probe.take_if(|probe| probe.nonce == nonce);
        if let Some(probe) = &asked {
            metrics::shard_probe(&connection.name, now.saturating_duration_since(probe.sent));
        }
        asked.is_some()
    }

    /// Takes in what the witness of a shard's connection tells.
    pub fn witnessed(&mut self, shard: usize, heard: &Heard) {
        let Some(trial) = &mut self.shards[shard].hearing.trial else { return };
        match heard {
            Heard::Up => {
                self.counter += 1;
                trial.nonce = Some(self.counter);
                self.effects.push(Effect::Mark { shard, nonce: self.counter });
            }
            Heard::Notice { payload, .. } => {
                let nonce = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
                trial.witness_hears |= nonce.is_some() && nonce == trial.nonce;
            }
            Heard::Lost { .. } | Heard::Confirmed { .. } | Heard::Refused { .. } => {}
        }
    }

    /// Takes in that the shard has sent a mark, or could not.
    pub fn probed(&mut self, shard: usize, nonce: u64, sent: Result<(), ShardError>, now: Instant) {
        let connection = &mut self.shards[shard];
        let probe = connection.hearing.probe.as_mut().filter(|probe| probe.nonce == nonce);
        let Some(probe) = probe else { return };
        match sent {
            Ok(()) => probe.answered = Some(now),
            Err(error) => {
                connection.hearing.probe = None;
                metrics::shard_error(&connection.name);
                if connection.hearing.hears() {
                    warn!(shard = %connection.name, %error, "Shard could not be asked for a mark.");
                    self.judge(shard, Verdict::Away);
                } else {
                    debug!(shard = %connection.name, %error, "Shard could still not be asked for a mark.");
                }
            }
        }
    }

    /// Asks every shard for a mark when it is time to, and deals with marks that do not come.
    pub(super) fn listen(&mut self, now: Instant) {
        let (doubted, deaf) = (self.late(now, DOUBT_AFTER), self.late(now, MARK_WITHIN));
        for shard in 0..self.shards.len() {
            let Verdict::Deaf { until } = self.shards[shard].hearing.verdict else { continue };
            if now >= until {
                self.judge(shard, Verdict::Away);
            }
        }
        for shard in 0..self.shards.len() {
            let connection = &mut self.shards[shard];
            let hearing = &mut connection.hearing;
            let is_reset = hearing.reset.is_some_and(|reset| now < reset + RESET_AGAIN);
            if !connection.up || is_reset {
                continue;
            }
            if deaf.contains(&shard) {
                self.give_up(shard, now);
                continue;
            }
            match (doubted.contains(&shard), &hearing.trial) {
                (true, None) => {
                    hearing.trial = Some(Trial::default());
                    self.effects.push(Effect::Witness { shard });
                }
                (false, Some(_)) => {
                    hearing.trial = None;
                    self.effects.push(Effect::Dismiss { shard });
                }
                (true, Some(_)) | (false, None) => {}
            }
            let hearing = &mut self.shards[shard].hearing;
            if hearing.probe.is_none() && hearing.next_probe <= now {
                self.counter += 1;
                hearing.probe = Some(Probe { nonce: self.counter, sent: now, answered: None });
                hearing.next_probe = now + PROBE_EVERY;
                self.effects.push(Effect::Mark { shard, nonce: self.counter });
            }
        }
    }

    /// Lists the shards that have sent a mark which is late.
    fn late(&self, now: Instant, within: Duration) -> BTreeSet<usize> {
        let is_late = |answered: Option<Instant>| answered.is_some_and(|at| now > at + within);
        let reads = self.reads.values().filter(|read| !read.marked && is_late(read.answered));
        let others = self.shards.iter().enumerate().filter(|(_, connection)| {
            let probed = connection.hearing.probe.as_ref().and_then(|probe| probe.answered);
            is_late(probed) || is_late(connection.round.unmarked())
        });
        reads.map(|read| read.shard).chain(others.map(|(shard, _)| shard)).collect()
    }

    /// Has a connection made anew whose mark does not come, and says whose fault it is.
    fn give_up(&mut self, shard: usize, now: Instant) {
        let hearing = &mut self.shards[shard].hearing;
        hearing.probe = None;
        hearing.reset = Some(now);
        if let Some(trial) = hearing.trial.take() {
            self.effects.push(Effect::Dismiss { shard });
            match (trial.own_hears, trial.witness_hears) {
                // One mark was lost: whatever else was lost with it is read anew.
                (true, _) => {}
                (false, true) => self.judge(shard, Verdict::Deaf { until: now + DEAF_FOR }),
                (false, false) => self.judge(shard, Verdict::Away),
            }
        }
        let reason = "a mark that the shard has sent was not heard";
        self.effects.push(Effect::Reset { shard, reason });
    }

    /// Notes who is at fault, and tells when that makes the gateway unready or ready.
    fn judge(&mut self, shard: usize, verdict: Verdict) {
        let connection = &mut self.shards[shard];
        let before = std::mem::replace(&mut connection.hearing.verdict, verdict);
        connection.show();
        match verdict {
            Verdict::Deaf { .. } if !matches!(before, Verdict::Deaf { .. }) => {
                warn!(shard = %connection.name, "Our connection is deaf; not ready until it hears again.");
            }
            Verdict::Away if before != Verdict::Away => {
                warn!(shard = %connection.name, "Shard's marks are not heard.");
            }
            Verdict::Hears | Verdict::Deaf { .. } | Verdict::Away => {}
        }
        let mut verdicts = self.shards.iter().map(|connection| connection.hearing.verdict);
        let is_deaf = verdicts.any(|verdict| matches!(verdict, Verdict::Deaf { .. }));
        if std::mem::replace(&mut self.is_deaf, is_deaf) != is_deaf {
            self.outs.push(Out::Deaf(is_deaf));
        }
    }
}
