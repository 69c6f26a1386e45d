//! Every metric: its name, its help, its labels, one function each.
//!
//! Labels come from enums, never from ids. `docs/metrics.md` lists them all.

use std::{sync::OnceLock, time::Duration};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::{hub::frame::Format, outbox::CloseReason, socket::Protocol};

const CONNECTIONS: &str = "gateway_connections";
const HANDSHAKES: &str = "gateway_handshakes_total";
const DISCONNECTS: &str = "gateway_disconnects_total";
const BAD_INPUT: &str = "gateway_bad_input_total";
const EVENTS_DELIVERED: &str = "gateway_events_delivered_total";
const FANOUT_SECONDS: &str = "gateway_fanout_seconds";
const FRAMES_ENCODED: &str = "gateway_frames_encoded_total";
const OUTBOX_DROPPED_CLIENTS: &str = "gateway_outbox_dropped_clients_total";
const OUTBOX_DROPPED_CHANGES: &str = "gateway_outbox_dropped_changes_total";
const MIRRORS: &str = "gateway_mirrors";
const MIRROR_BYTES: &str = "gateway_mirror_bytes";
const MIRRORS_PASSED: &str = "gateway_mirrors_passed_through";
const MIRROR_REPAIRS: &str = "gateway_mirror_repairs_total";
const MIRROR_VERIFIED: &str = "gateway_mirror_verified_total";
const MIRROR_READS: &str = "gateway_mirror_reads_total";
const MIRROR_ERRORS: &str = "gateway_mirror_errors_total";
const SNAPSHOT_SECONDS: &str = "gateway_snapshot_seconds";
const SNAPSHOT_BYTES: &str = "gateway_snapshot_bytes";
const RESUMES: &str = "gateway_resumes_total";
const JOBS: &str = "gateway_jobs_total";
const JOB_SECONDS: &str = "gateway_job_seconds";
const CALLS: &str = "gateway_calls_total";
const SHARD_UP: &str = "gateway_shard_up";
const SHARD_PROBE_SECONDS: &str = "gateway_shard_probe_seconds";
const SHARD_SUBSCRIPTIONS: &str = "gateway_shard_subscriptions";
const SHARD_ERRORS: &str = "gateway_shard_errors_total";
const TOPOLOGY_VERSION: &str = "gateway_topology_version";
const TOPOLOGY_CHANGES: &str = "gateway_topology_changes_total";
const SESSION_LOOKUPS: &str = "gateway_session_lookups_total";
const DRAINING: &str = "gateway_draining";

/// Buckets of times, in seconds: from a fan-out in microseconds to a job in seconds.
const SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
];
/// Buckets of sizes, in bytes.
const BYTES: &[f64] =
    &[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0];

/// Starts counting, once in a process, and returns what the counts are read from.
///
/// # Panics
///
/// Panics if something else counts in this process already.
pub fn install() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let install = || {
        let suffix = |suffix: &str| Matcher::Suffix(suffix.to_owned());
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(suffix("_seconds"), SECONDS)
            .and_then(|builder| builder.set_buckets_for_metric(suffix("_bytes"), BYTES))
            .expect("buckets are not empty")
            .install_recorder()
            .expect("nothing else counts in this process");
        describe();
        zero();
        handle
    };
    HANDLE.get_or_init(install).clone()
}

/// Shows what has no labels from the start, so that nobody takes "never" for "not there".
fn zero() {
    draining(false);
    mirrors(0, 0, 0);
    mirror_read(0);
    counter!(OUTBOX_DROPPED_CLIENTS).increment(0);
    counter!(OUTBOX_DROPPED_CHANGES).increment(0);
}

/// Tells the exporter what each metric means.
fn describe() {
    describe_gauge!(CONNECTIONS, "Clients connected now.");
    describe_counter!(HANDSHAKES, "Handshakes by their outcome.");
    describe_counter!(DISCONNECTS, "Clients that left or were closed, by reason.");
    describe_counter!(BAD_INPUT, "What clients sent that they may not, by what was wrong with it.");
    describe_counter!(EVENTS_DELIVERED, "Events put into clients' mailboxes.");
    describe_histogram!(FANOUT_SECONDS, "From a shard's notice read to the last mailbox filled.");
    describe_counter!(
        FRAMES_ENCODED,
        "Messages encoded, once per wire format and never per client."
    );
    describe_counter!(OUTBOX_DROPPED_CLIENTS, "Clients closed because they could not keep up.");
    describe_counter!(
        OUTBOX_DROPPED_CHANGES,
        "Changes that slow clients were not told because a newer one of the same item waited."
    );
    describe_gauge!(MIRRORS, "Feeds mirrored in memory.");
    describe_gauge!(MIRROR_BYTES, "Bytes of the mirrored feeds.");
    describe_gauge!(
        MIRRORS_PASSED,
        "Feeds that are too large to be mirrored and are passed through."
    );
    describe_counter!(
        MIRROR_REPAIRS,
        "Mirrors that differed from the shard and were repaired, by cause."
    );
    describe_counter!(MIRROR_VERIFIED, "Mirrors compared with their feeds, by what was found.");
    describe_counter!(MIRROR_READS, "Reads of a feed from its shard.");
    describe_counter!(MIRROR_ERRORS, "Notices and keys that do not fit the contract, by kind.");
    describe_histogram!(SNAPSHOT_SECONDS, "From a client's joining to its initial state.");
    describe_histogram!(SNAPSHOT_BYTES, "Bytes of an initial state.");
    describe_counter!(RESUMES, "Clients that asked to resume, by how they got their state.");
    describe_counter!(JOBS, "Jobs by outcome.");
    describe_histogram!(JOB_SECONDS, "From a call to its answer.");
    describe_counter!(CALLS, "Calls of clients by the code of their answer.");
    describe_gauge!(SHARD_UP, "1 while the shard is heard, 0 while it is away.");
    describe_histogram!(SHARD_PROBE_SECONDS, "From sending a mark to hearing it.");
    describe_gauge!(SHARD_SUBSCRIPTIONS, "Channels subscribed on the shard.");
    describe_counter!(SHARD_ERRORS, "Requests that a shard did not answer as it should.");
    describe_gauge!(TOPOLOGY_VERSION, "Version of the topology that is gone by.");
    describe_counter!(TOPOLOGY_CHANGES, "New versions of the topology by outcome.");
    describe_counter!(SESSION_LOOKUPS, "Session look-ups by outcome.");
    describe_gauge!(DRAINING, "1 while the gateway drains.");
}

/// How a handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// The client is in.
    Accepted,
    /// The Origin header is not allowed.
    BadOrigin,
    /// No valid session.
    Unauthorized,
    /// The session store could not answer.
    StoreAway,
    /// The gateway takes no more clients now.
    Refused,
}

impl Handshake {
    const fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::BadOrigin => "bad_origin",
            Self::Unauthorized => "unauthorized",
            Self::StoreAway => "store_away",
            Self::Refused => "refused",
        }
    }
}

/// Counts a handshake.
pub fn handshake(protocol: Protocol, outcome: Handshake) {
    counter!(HANDSHAKES, "protocol" => protocol.label(), "outcome" => outcome.label()).increment(1);
}

/// Raises the number of connections; lowered again when the guard is dropped.
#[must_use]
pub fn connected(protocol: Protocol, transport: &'static str) -> Connected {
    gauge!(CONNECTIONS, "protocol" => protocol.label(), "transport" => transport).increment(1.0);
    Connected { protocol, transport }
}

/// Lowers the number of connections when dropped.
#[derive(Debug)]
pub struct Connected {
    protocol: Protocol,
    transport: &'static str,
}

impl Drop for Connected {
    fn drop(&mut self) {
        let (protocol, transport) = (self.protocol.label(), self.transport);
        gauge!(CONNECTIONS, "protocol" => protocol, "transport" => transport).decrement(1.0);
    }
}

/// Counts a client that is gone, by what [`crate::socket`] calls the reason.
pub fn disconnected(reason: &'static str) {
    counter!(DISCONNECTS, "reason" => reason).increment(1);
    if reason == CloseReason::Slow.label() || reason == CloseReason::Stalled.label() {
        counter!(OUTBOX_DROPPED_CLIENTS).increment(1);
    }
}

/// Counts what a client may not send, by what was wrong with it.
pub fn bad_input(kind: &'static str) {
    counter!(BAD_INPUT, "kind" => kind).increment(1);
}

/// How a client that asked to resume got its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    /// By nothing but the events that it had missed, if any.
    Resumed,
    /// Some of its feeds had to be sent anew.
    Reset,
    /// It said nothing in time, or held nothing of this user, and got `initial`.
    Initial,
}

impl Resumed {
    const fn label(self) -> &'static str {
        match self {
            Self::Resumed => "resumed",
            Self::Reset => "reset",
            Self::Initial => "initial",
        }
    }
}

/// Counts a client that asked to resume and has its state.
pub fn resumed(outcome: Resumed) {
    counter!(RESUMES, "outcome" => outcome.label()).increment(1);
}

/// Counts changes that one client was not told because newer ones waited for it.
pub fn changes_dropped(count: u64) {
    counter!(OUTBOX_DROPPED_CHANGES).increment(count);
}

/// Counts one event that was put into `clients` mailboxes.
pub fn events_delivered(event: &'static str, clients: u64) {
    counter!(EVENTS_DELIVERED, "event" => event).increment(clients);
}

/// Notes how long one notice took from the shard to the last mailbox.
pub fn fanout(took: Duration) {
    histogram!(FANOUT_SECONDS).record(took);
}

/// Counts one encoding of a message.
pub fn frame_encoded(format: Format) {
    counter!(FRAMES_ENCODED, "format" => format.label()).increment(1);
}

/// Says how many mirrors there are, how large, and how many feeds are too large to be one.
pub fn mirrors(count: usize, bytes: usize, passed: usize) {
    gauge!(MIRRORS_PASSED).set(passed as f64);
    gauge!(MIRRORS).set(count as f64);
    gauge!(MIRROR_BYTES).set(bytes as f64);
}

/// Counts a repair of a mirror that differed.
pub fn mirror_repaired(cause: &'static str) {
    counter!(MIRROR_REPAIRS, "cause" => cause).increment(1);
}

/// What came of comparing a mirror with its feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// They are the same.
    Same,
    /// They differ, which a notice on its way may explain.
    Differs,
    /// A key of the feed is of a wrong type.
    Unreadable,
}

/// Counts a mirror that was compared with its feed.
pub fn mirror_verified(found: Verified) {
    let label = match found {
        Verified::Same => "same",
        Verified::Differs => "differs",
        Verified::Unreadable => "unreadable",
    };
    counter!(MIRROR_VERIFIED, "outcome" => label).increment(1);
}

/// Counts a read of `feeds` feeds from a shard.
pub fn mirror_read(feeds: u64) {
    counter!(MIRROR_READS).increment(feeds);
}

/// Counts a notice or key that does not fit the contract.
pub fn mirror_error(kind: &'static str) {
    counter!(MIRROR_ERRORS, "kind" => kind).increment(1);
}

/// Notes an initial state: how long it took and how large it is, in bytes.
pub fn snapshot(took: Duration, bytes: usize) {
    histogram!(SNAPSHOT_SECONDS).record(took);
    histogram!(SNAPSHOT_BYTES).record(bytes as f64);
}

/// Counts a job by its outcome and notes how long the caller waited.
pub fn job(job: &str, outcome: &'static str, took: Duration) {
    counter!(JOBS, "job" => job.to_owned(), "outcome" => outcome).increment(1);
    histogram!(JOB_SECONDS, "job" => job.to_owned()).record(took);
}

/// Counts a call by the code of its answer.
pub fn call(code: u16) {
    counter!(CALLS, "code" => code.to_string()).increment(1);
}

/// Says whether a shard is heard.
pub fn shard_up(shard: &str, up: bool) {
    gauge!(SHARD_UP, "shard" => shard.to_owned()).set(if up { 1.0 } else { 0.0 });
}

/// Takes a shard that no topology has any more out of what is shown: a gauge cannot be
/// withdrawn, but no comparison holds for one that is not a number.
pub fn shard_gone(shard: &str) {
    gauge!(SHARD_UP, "shard" => shard.to_owned()).set(f64::NAN);
    gauge!(SHARD_SUBSCRIPTIONS, "shard" => shard.to_owned()).set(f64::NAN);
}

/// Says which version of the topology is gone by.
pub fn topology_version(version: u64) {
    gauge!(TOPOLOGY_VERSION).set(version as f64);
}

/// Counts what was found in the file of the topology.
pub fn topology_change(outcome: &'static str) {
    counter!(TOPOLOGY_CHANGES, "outcome" => outcome).increment(1);
}

/// Notes how long a mark took through a shard.
pub fn shard_probe(shard: &str, took: Duration) {
    histogram!(SHARD_PROBE_SECONDS, "shard" => shard.to_owned()).record(took);
}

/// Says how many channels are subscribed on a shard.
pub fn shard_subscriptions(shard: &str, count: usize) {
    gauge!(SHARD_SUBSCRIPTIONS, "shard" => shard.to_owned()).set(count as f64);
}

/// Counts a request that a shard did not answer as it should.
pub fn shard_error(shard: &str) {
    counter!(SHARD_ERRORS, "shard" => shard.to_owned()).increment(1);
}

/// How a session look-up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// Read from the store and valid.
    Found,
    /// Answered from memory.
    Cached,
    /// Not in the store, or not valid.
    Missing,
    /// The cookie itself is missing, unsigned or forged.
    BadCookie,
    /// The store could not answer.
    StoreAway,
}

/// Counts a session look-up.
pub fn session_lookup(outcome: Lookup) {
    let label = match outcome {
        Lookup::Found => "found",
        Lookup::Cached => "cached",
        Lookup::Missing => "missing",
        Lookup::BadCookie => "bad_cookie",
        Lookup::StoreAway => "store_away",
    };
    counter!(SESSION_LOOKUPS, "outcome" => label).increment(1);
}

/// Says whether the gateway drains.
pub fn draining(draining: bool) {
    gauge!(DRAINING).set(if draining { 1.0 } else { 0.0 });
}
