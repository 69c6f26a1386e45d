//! The command line, and the plan that it stands for.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::Parser;

use crate::{cookies, wire::Protocol};

/// More clients than one process can hold anywhere.
const MAX_CONNECTIONS: usize = 1_000_000;
/// Each client notes each of them in a bit.
const MAX_PUBLISHES: usize = 100_000;
/// What a gateway takes at all.
const MAX_PAYLOAD: usize = 256 << 10;

/// What may stand on the command line.
#[derive(Debug, Parser)]
#[command(version, about = "Opens many socket.io connections and says what they received.")]
pub struct Flags {
    /// A server; give several to spread the clients over them by turns
    #[arg(long, default_value = "http://127.0.0.1:3000", value_name = "URL")]
    pub url: Vec<Target>,
    /// The path of socket.io on the server
    #[arg(long, default_value = "/socket.io/")]
    pub path: String,
    /// How many clients
    #[arg(long, short = 'n', default_value = "100", value_name = "N")]
    pub connections: NonZeroUsize,
    /// How many clients start per second, as `200` or `200/s`
    #[arg(long, default_value = "200/s", value_parser = rate)]
    pub ramp: f64,
    /// What the clients speak: `eio4` (socket.io 3 and 4) or `eio3` (1 and 2)
    #[arg(long, default_value = "eio4")]
    pub protocol: Protocol,
    /// One cookie for all, as `name=value`
    #[arg(long, value_name = "COOKIE", group = "who")]
    pub cookie: Option<String>,
    /// A file with a cookie a line, taken by turns
    #[arg(long, value_name = "FILE", group = "who")]
    pub cookies: Option<PathBuf>,
    /// Sign the ids of --session-ids with this secret, as express-session does
    #[arg(long, value_name = "SECRET", group = "who", requires = "session_ids")]
    pub signed_secret: Option<String>,
    /// A file with a session id a line, taken by turns
    #[arg(long, value_name = "FILE", requires = "signed_secret")]
    pub session_ids: Option<PathBuf>,
    /// What --signed-secret calls its cookie
    #[arg(long, value_name = "NAME", default_value = "connect.sid")]
    pub cookie_name: String,
    /// A user of the gateway's demo; several are taken by turns
    #[arg(long, value_name = "USER", group = "who", value_delimiter = ',')]
    pub demo_user: Vec<String>,
    /// How long all stay once everybody is in
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub hold: Duration,
    /// How long a client may take from its first byte to its `initial`
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Subscribe each client to this feed behind its `initial`
    #[arg(long, value_name = "FEED")]
    pub listen_feed: Vec<String>,
    /// A local server's process, to tell its CPU and memory; several are added up
    #[arg(long, value_name = "PID")]
    pub server_pid: Vec<u32>,
    /// Write the figures to this file as well
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
    /// How many threads carry the clients
    #[arg(long, default_value = "1")]
    pub threads: NonZeroUsize,

    /// Publish to --feed through the gateway's HTTP API while the clients hold
    #[arg(long, requires = "feed")]
    pub publish: bool,
    /// The gateway's admin listener
    #[arg(long, default_value = "http://127.0.0.1:3001", value_name = "URL")]
    pub admin_url: Target,
    /// The admin listener's bearer token
    #[arg(long, env = "LOADTEST_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The feed that is published to: a plain one
    #[arg(long)]
    pub feed: Option<String>,
    /// How many are published per second, as `10` or `10/s`
    #[arg(long, default_value = "10/s", value_parser = rate)]
    pub rate: f64,
    /// How many are published in all
    #[arg(long, default_value = "100")]
    pub count: usize,
    /// How many bytes of padding each item has
    #[arg(long, default_value = "100", value_name = "BYTES")]
    pub payload: usize,
    /// Over how many ids they go by turns: the first of each is a `publish`, the rest are `change`s
    #[arg(long, default_value = "4")]
    pub ids: NonZeroUsize,
    /// Expect every client to hear --feed, also where its `initial` does not show it
    #[arg(long)]
    pub everybody_hears: bool,
    /// How long what is still under way may take behind the last one
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub grace: Duration,
}

/// What is to be done, every part of it checked.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the clients connect, by turns.
    pub targets: Vec<Target>,
    /// The path of socket.io.
    pub path: String,
    /// How many clients.
    pub connections: usize,
    /// How many start per second.
    pub ramp: f64,
    /// What they speak.
    pub protocol: Protocol,
    /// Who they are, by turns; nobody where it is empty.
    pub who: Vec<Who>,
    /// How long they stay.
    pub hold: Duration,
    /// How long `initial` may take.
    pub timeout: Duration,
    /// What each subscribes to.
    pub listen: Vec<String>,
    /// The server's processes.
    pub pids: Vec<u32>,
    /// Where the figures go.
    pub json: Option<PathBuf>,
    /// Whether to show no progress.
    pub quiet: bool,
    /// How many threads.
    pub threads: usize,
    /// What is published meanwhile.
    pub publish: Option<Publish>,
}

/// How a client says who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// By a Cookie header.
    Cookie(String),
    /// By `demo_user` in the query.
    Demo(String),
}

/// What is published while the clients hold.
#[derive(Debug, Clone)]
pub struct Publish {
    /// The admin listener.
    pub admin: Target,
    /// Its token.
    pub token: Option<String>,
    /// The feed.
    pub feed: String,
    /// How many per second.
    pub rate: f64,
    /// How many in all.
    pub count: usize,
    /// Bytes of padding.
    pub payload: usize,
    /// How many ids.
    pub ids: usize,
    /// Whether all clients are expected to hear it.
    pub everybody: bool,
    /// How long to wait for the last.
    pub grace: Duration,
}

/// What is wrong with the command line beyond what its form tells.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// A number is beyond its bound.
    #[error("{flag} is {value}, which is more than {most}")]
    TooMany {
        /// The flag.
        flag: &'static str,
        /// What it says.
        value: usize,
        /// What it may say.
        most: usize,
    },
    /// A file cannot be read.
    #[error("{flag}: cannot read {}: {source}", file.display())]
    File {
        /// The flag.
        flag: &'static str,
        /// The file.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file says nothing.
    #[error("{flag}: {} has no line", file.display())]
    EmptyFile {
        /// The flag.
        flag: &'static str,
        /// The file.
        file: PathBuf,
    },
    /// A cookie cannot stand in a header.
    #[error("a cookie holds a character that no header may hold: {0:?}")]
    BadCookie(String),
    /// A demo user cannot stand in a query.
    #[error("--demo-user {0:?} is not made of letters, digits, `-` and `_`")]
    BadUser(String),
}

impl TryFrom<Flags> for Plan {
    type Error = Mistake;

    fn try_from(flags: Flags) -> Result<Self, Mistake> {
        at_most("--connections", flags.connections.get(), MAX_CONNECTIONS)?;
        at_most("--count", flags.count, MAX_PUBLISHES)?;
        at_most("--payload", flags.payload, MAX_PAYLOAD)?;
        let who = who(&flags)?;
        let publish = match flags.feed {
            Some(feed) if flags.publish => Some(Publish {
                admin: flags.admin_url,
                token: flags.token,
                feed,
                rate: flags.rate,
                count: flags.count,
                payload: flags.payload,
                ids: flags.ids.get(),
                everybody: flags.everybody_hears,
                grace: flags.grace,
            }),
            _ => None,
        };
        Ok(Self {
            targets: flags.url,
            path: flags.path,
            connections: flags.connections.get(),
            ramp: flags.ramp,
            protocol: flags.protocol,
            who,
            hold: flags.hold,
            timeout: flags.timeout,
            listen: flags.listen_feed,
            pids: flags.server_pid,
            json: flags.json,
            quiet: flags.quiet,
            threads: flags.threads.get(),
            publish,
        })
    }
}

fn at_most(flag: &'static str, value: usize, most: usize) -> Result<(), Mistake> {
    if value > most { Err(Mistake::TooMany { flag, value, most }) } else { Ok(()) }
}

fn who(flags: &Flags) -> Result<Vec<Who>, Mistake> {
    if let Some(user) = flags.demo_user.iter().find(|user| !is_word(user)) {
        return Err(Mistake::BadUser(user.clone()));
    }
    if !flags.demo_user.is_empty() {
        return Ok(flags.demo_user.iter().cloned().map(Who::Demo).collect());
    }
    let cookies = match (&flags.cookie, &flags.cookies, &flags.signed_secret, &flags.session_ids) {
        (Some(cookie), ..) => vec![cookie.clone()],
        (_, Some(file), ..) => lines("--cookies", file)?,
        (_, _, Some(secret), Some(file)) => lines("--session-ids", file)?
            .iter()
            .map(|id| format!("{}={}", flags.cookie_name, cookies::signed(id, secret)))
            .collect(),
        _ => Vec::new(),
    };
    match cookies.iter().find(|cookie| !cookie.bytes().all(|byte| (b' '..0x7f).contains(&byte))) {
        Some(cookie) => Err(Mistake::BadCookie(cookie.clone())),
        None => Ok(cookies.into_iter().map(Who::Cookie).collect()),
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn lines(flag: &'static str, file: &PathBuf) -> Result<Vec<String>, Mistake> {
    let text = std::fs::read_to_string(file).map_err(|source| Mistake::File {
        flag,
        file: file.clone(),
        source,
    })?;
    let lines: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if lines.is_empty() { Err(Mistake::EmptyFile { flag, file: file.clone() }) } else { Ok(lines) }
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse::<f64>() {
        Ok(rate) if (0.001..=1e6).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number from 0.001 to 1000000, perhaps with `/s`".to_owned()),
    }
}

/// A server: `http://HOST[:PORT]`, nothing behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Host and port, as they stand in a Host header.
    pub authority: String,
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("ws://")) else {
            return Err("a URL begins with `http://`; TLS is not spoken here".to_owned());
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ']) {
            return Err("a URL is `http://HOST:PORT` and nothing more".to_owned());
        }
        let host_end = authority.rfind(']').map_or(0, |at| at + 1);
        match authority[host_end..].rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_err() => Err(format!("{port:?} is no port")),
            Some(_) => Ok(Self { authority: authority.to_owned() }),
            None => Ok(Self { authority: format!("{authority}:80") }),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "http://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_target(text: &str, expected: Option<&str>) {
        let target = text.parse::<Target>().ok();
        assert_eq!(target.as_ref().map(|target| target.authority.as_str()), expected);
    }

    #[test]
    fn a_target_is_a_host_and_a_port() {
        check_target("http://127.0.0.1:3000", Some("127.0.0.1:3000"));
        check_target("http://127.0.0.1:3000/", Some("127.0.0.1:3000"));
        check_target("ws://example.com", Some("example.com:80"));
        check_target("http://[::1]:3000", Some("[::1]:3000"));
        check_target("http://[::1]", Some("[::1]:80"));
        check_target("https://example.com", None);
        check_target("127.0.0.1:3000", None);
        check_target("http://", None);
        check_target("http://a:b", None);
        check_target("http://a:70000", None);
        check_target("http://a:1/path", None);
        check_target("http://user@a:1", None);
    }

    #[track_caller]
    fn check_rate(text: &str, expected: Option<f64>) {
        assert_eq!(rate(text).ok(), expected);
    }

    #[test]
    fn a_rate_is_a_number_per_second() {
        check_rate("200/s", Some(200.0));
        check_rate("0.5", Some(0.5));
        check_rate("0", None);
        check_rate("-1", None);
        check_rate("NaN", None);
        check_rate("inf", None);
        check_rate("5/m", None);
    }

    #[track_caller]
    fn plan(args: &[&str]) -> Result<Plan, String> {
        let flags = Flags::try_parse_from([&["loadtest"], args].concat());
        flags
            .map_err(|error| error.to_string())
            .and_then(|flags| Plan::try_from(flags).map_err(|mistake| mistake.to_string()))
    }

    #[test]
    fn only_loopback_is_the_default() {
        let plan = plan(&["--publish", "--feed", "x"]).unwrap();
        assert_eq!(plan.targets, ["http://127.0.0.1:3000".parse().unwrap()]);
        assert_eq!(plan.publish.unwrap().admin, "http://127.0.0.1:3001".parse().unwrap());
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        assert!(plan(&["--cookie", "a=b", "--demo-user", "ann"]).is_err());
        assert!(plan(&["--signed-secret", "x"]).is_err());
        assert!(plan(&["--publish"]).is_err());
        assert!(plan(&["--connections", "0"]).is_err());
        assert!(plan(&["--count", "100001"]).is_err());
        assert!(plan(&["--cookie", "a=b\r\nX: y"]).is_err());
        assert!(plan(&["--demo-user", "a&b"]).is_err());
        assert!(plan(&["--cookies", "no/such/file"]).is_err());
    }

    #[test]
    fn users_are_taken_by_turns() {
        let plan = plan(&["--demo-user", "ann,bob"]).unwrap();
        assert_eq!(plan.who, [Who::Demo("ann".into()), Who::Demo("bob".into())]);
    }
}
