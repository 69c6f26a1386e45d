//! What came of a run: for people, for programs, and as a verdict.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::{Value, json};

use crate::{
    latency::Latency, publisher::Published, receipts::Account, sample::Sample, user::Outcome,
};

/// What all clients together say.
#[derive(Debug, Default)]
pub struct Clients {
    /// How many got `initial`.
    pub got_initial: u64,
    /// From the first byte to the open websocket.
    pub connected: Latency,
    /// From the first byte to the whole `initial`.
    pub initial: Latency,
    /// Bytes of all the `initial`s.
    pub initial_bytes: u64,
    /// Bytes of the largest.
    pub initial_bytes_max: u64,
    /// Events behind `initial`, by name.
    pub events: BTreeMap<String, u64>,
    /// What went wrong before `initial`, and how often.
    pub failed: BTreeMap<String, u64>,
    /// What went wrong behind it, and how often.
    pub lost: BTreeMap<String, u64>,
}

impl Clients {
    /// Adds what happened to one.
    pub fn add(&mut self, outcome: Outcome) {
        let is_in = outcome.initial.is_some();
        if let Some(initial) = outcome.initial {
            let bytes = initial.bytes as u64;
            self.got_initial += 1;
            self.connected.record(initial.connected);
            self.initial.record(initial.got);
            self.initial_bytes += bytes;
            self.initial_bytes_max = self.initial_bytes_max.max(bytes);
        }
        for (name, count) in outcome.events {
            *self.events.entry(name).or_default() += count;
        }
        if let Some(trouble) = outcome.trouble {
            let troubles = if is_in { &mut self.lost } else { &mut self.failed };
            *troubles.entry(trouble.to_string()).or_default() += 1;
        }
    }
}

/// What came of publishing.
#[derive(Debug)]
pub struct Publishing {
    /// What went out.
    pub published: Published,
    /// How many clients heard the feed when it began.
    pub hears: u64,
    /// What came in.
    pub account: Account,
    /// From the stamp to the client.
    pub latency: Latency,
}

/// What the server had used before the first client, with all inside, and after holding them.
#[derive(Debug, Clone, Copy)]
pub struct Use {
    /// Before the first client.
    pub before: Sample,
    /// When all who got in were in.
    pub inside: Sample,
    /// When they had been held.
    pub held: Sample,
}

/// Everything that is known of a run.
#[derive(Debug)]
pub struct Report {
    /// How many clients were asked for.
    pub asked: usize,
    /// Where they went.
    pub targets: Vec<String>,
    /// What they spoke.
    pub protocol: &'static str,
    /// What they say.
    pub clients: Clients,
    /// How many were lost while they were held.
    pub lost: u64,
    /// Until everybody was in or had failed.
    pub settled: Duration,
    /// Events received while they were held.
    pub events_held: u64,
    /// What came of publishing, if it was asked for.
    pub publishing: Option<Publishing>,
    /// What the server used, if its processes were given.
    pub server: Option<Use>,
    /// Whether they were given and could not be seen.
    pub unseen: bool,
    /// What this tester used itself.
    pub tester: Option<Sample>,
    /// Whether it was ended early.
    pub interrupted: bool,
}

impl Report {
    /// Says, a clause each, what keeps the run from being a success.
    #[must_use]
    pub fn shortcomings(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut check = |count: u64, what: &str| {
            if count > 0 {
                found.push(format!("{count} {what}"));
            }
        };
        check(self.asked as u64 - self.clients.got_initial, "clients without `initial`");
        check(self.lost, "clients lost");
        if let Some(Publishing { published, account, .. }) = &self.publishing {
            check(published.tried - published.confirmed.len(), "publishes not confirmed");
            check(account.missing, "events missing");
            check(account.twice, "events received twice");
            check(account.disordered, "events out of order");
            if account.expected == 0 {
                found.push("nobody heard the feed that was published to".to_owned());
            }
        }
        if self.unseen {
            found.push("the server's processes could not be seen".to_owned());
        }
        if self.interrupted {
            found.push("ended early".to_owned());
        }
        found
    }

    /// Returns the figures for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let clients = &self.clients;
        let publishing = self.publishing.as_ref().map(|publishing| {
            let Publishing { published, hears, account, latency } = publishing;
            json!({
                "tried": published.tried,
                "confirmed": published.confirmed.len(),
                "errors": published.troubles,
                "seconds": published.took.as_secs_f64(),
                "clients_hearing": hears,
                "expected": account.expected,
                "received": account.received,
                "missing": account.missing,
                "twice": account.twice,
                "out_of_order": account.disordered,
                "latency": latency.to_json(),
            })
        });
        json!({
            "pass": self.shortcomings().is_empty(),
            "shortcomings": self.shortcomings(),
            "targets": self.targets,
            "protocol": self.protocol,
            "connections": self.asked,
            "got_initial": clients.got_initial,
            "seconds_until_all_in": self.settled.as_secs_f64(),
            "connect": clients.connected.to_json(),
            "initial": clients.initial.to_json(),
            "initial_bytes_mean": mean(clients.initial_bytes, clients.got_initial),
            "initial_bytes_max": clients.initial_bytes_max,
            "events": clients.events,
            "events_held": self.events_held,
            "failed": clients.failed,
            "lost": clients.lost,
            "publishing": publishing,
            "server": self.server.map(|server| json!({
                "cpu_us_per_handshake": self.cpu_per_handshake(server),
                "cpu_us_per_event": self.cpu_per_event(server),
                "cpu_seconds_held": spent(server.inside, server.held).as_secs_f64(),
                "rss_bytes": server.inside.rss,
                "rss_bytes_per_connection": self.rss_per_connection(server),
            })),
            "tester": self.tester.map(|tester| json!({
                "cpu_seconds": tester.cpu.as_secs_f64(),
                "rss_bytes": tester.rss,
            })),
        })
    }

    /// Microseconds of the server's CPU for one client that got in.
    fn cpu_per_handshake(&self, server: Use) -> Option<f64> {
        micros(spent(server.before, server.inside), self.clients.got_initial)
    }

    /// Microseconds of the server's CPU for one event received while all were held. What
    /// else it did then, such as taking the publishes, is part of it.
    fn cpu_per_event(&self, server: Use) -> Option<f64> {
        micros(spent(server.inside, server.held), self.events_held)
    }

    fn rss_per_connection(&self, server: Use) -> Option<u64> {
        mean(server.inside.rss.saturating_sub(server.before.rss), self.clients.got_initial)
    }
}

fn spent(from: Sample, to: Sample) -> Duration {
    to.cpu.saturating_sub(from.cpu)
}

fn mean(sum: u64, count: u64) -> Option<u64> {
    sum.checked_div(count)
}

fn micros(spent: Duration, count: u64) -> Option<f64> {
    (count > 0).then(|| spent.as_secs_f64() * 1e6 / count as f64)
}

fn shown(number: Option<f64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.1}"))
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    let listed: Vec<_> = counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
    if listed.is_empty() { "none".to_owned() } else { listed.join(", ") }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Clients { got_initial, initial_bytes, initial_bytes_max, .. } = self.clients;
        let clients = &self.clients;
        let shortcomings = self.shortcomings();
        match shortcomings.as_slice() {
            [] => writeln!(out, "pass")?,
            some => writeln!(out, "FAIL      {}", some.join("; "))?,
        }
        let to = self.targets.join(", ");
        writeln!(out, "target    {to} ({}, websocket)", self.protocol)?;
        let seconds = self.settled.as_secs_f64();
        writeln!(out, "initial   {got_initial} of {} clients in {seconds:.1} s", self.asked)?;
        writeln!(out, "          connect: {}", clients.connected)?;
        writeln!(out, "          initial: {}", clients.initial)?;
        let bytes = mean(initial_bytes, got_initial).unwrap_or(0);
        writeln!(out, "          {bytes} bytes in the mean, at most {initial_bytes_max}")?;
        writeln!(out, "events    {}", listed(&clients.events))?;
        writeln!(out, "failed    {}", listed(&clients.failed))?;
        writeln!(out, "lost      {}", listed(&clients.lost))?;
        if let Some(Publishing { published, hears, account, latency }) = &self.publishing {
            let (confirmed, tried) = (published.confirmed.len(), published.tried);
            let rate = tried as f64 / published.took.as_secs_f64().max(1e-3);
            let errors = listed(&published.troubles);
            writeln!(out, "published {confirmed} of {tried} at {rate:.1}/s; errors: {errors}")?;
            let Account { expected, received, missing, twice, disordered } = account;
            writeln!(out, "received  {received} of {expected} by {hears} clients")?;
            writeln!(out, "          {missing} missing, {twice} twice, {disordered} out of order")?;
            writeln!(out, "          publish to receive: {latency}")?;
        }
        if let Some(server) = self.server {
            let handshake = shown(self.cpu_per_handshake(server));
            let event = shown(self.cpu_per_event(server));
            let rss = self.rss_per_connection(server).unwrap_or(0) as f64 / 1024.0;
            writeln!(out, "server    {handshake} µs CPU per handshake, {event} µs per event held")?;
            writeln!(out, "          {rss:.1} KiB RSS per connection")?;
        }
        if let Some(tester) = self.tester {
            let (cpu, rss) = (tester.cpu.as_secs_f64(), tester.rss >> 20);
            writeln!(out, "tester    {cpu:.2} s CPU, {rss} MiB RSS")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::{Initial, Trouble};

    fn outcome(is_in: bool, trouble: Option<Trouble>) -> Outcome {
        let took = Duration::from_millis(10);
        let initial = Initial { connected: took, got: took * 2, bytes: 100 };
        let events = BTreeMap::from([("change".to_owned(), 3)]);
        Outcome { initial: is_in.then_some(initial), events, trouble, receipts: None }
    }

    fn report(outcomes: Vec<Outcome>) -> Report {
        let asked = outcomes.len();
        let mut clients = Clients::default();
        outcomes.into_iter().for_each(|outcome| clients.add(outcome));
        Report {
            asked,
            targets: vec!["http://127.0.0.1:3000".to_owned()],
            protocol: "eio4",
            lost: clients.lost.values().sum(),
            clients,
            settled: Duration::from_secs(1),
            events_held: 6,
            publishing: None,
            server: None,
            unseen: false,
            tester: None,
            interrupted: false,
        }
    }

    #[test]
    fn a_run_in_which_everybody_got_in_passes() {
        let report = report(vec![outcome(true, None), outcome(true, None)]);
        assert_eq!(report.shortcomings(), Vec::<String>::new());
        assert!(report.to_string().starts_with("pass\n"));
        assert_eq!(report.to_json()["events"]["change"], 6);
    }

    #[test]
    fn what_failed_is_told_from_what_was_lost() {
        let refused = Trouble::Refused("unauthorized".to_owned());
        let report =
            report(vec![outcome(false, Some(refused)), outcome(true, Some(Trouble::Closed))]);
        assert_eq!(report.shortcomings(), ["1 clients without `initial`", "1 clients lost"]);
        let json = report.to_json();
        assert_eq!(json["failed"]["refused: unauthorized"], 1);
        assert_eq!(json["lost"]["closed by the server"], 1);
    }

    #[test]
    fn nothing_expected_is_no_success() {
        let mut report = report(vec![outcome(true, None)]);
        report.publishing = Some(Publishing {
            published: Published::default(),
            hears: 0,
            account: Account::default(),
            latency: Latency::default(),
        });
        assert_eq!(report.shortcomings(), ["nobody heard the feed that was published to"]);
    }

    #[test]
    fn the_servers_use_is_divided_by_what_it_served() {
        let mut report = report(vec![outcome(true, None), outcome(true, None)]);
        let sample = |millis, rss| Sample { cpu: Duration::from_millis(millis), rss };
        let server =
            Use { before: sample(100, 1000), inside: sample(200, 3000), held: sample(230, 3000) };
        report.server = Some(server);
        let json = report.to_json();
        assert_eq!(json["server"]["cpu_us_per_handshake"], 50_000.0);
        assert_eq!(json["server"]["cpu_us_per_event"], 5_000.0);
        assert_eq!(json["server"]["rss_bytes_per_connection"], 1000);
    }
}
