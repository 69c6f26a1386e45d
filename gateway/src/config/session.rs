//! `[admin]` and `[session]`: who is let in, and the secrets that tell.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{
    Admin, RedisUrl, Secret, Server, SessionConfig, SessionFormat,
    read::{Entry, Reading, Section},
    sections::{address, redis_url},
};

/// Beside the public listener, and never reached from elsewhere by accident.
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3001);

pub(super) fn admin(reading: &Reading<'_>, mut section: Section<'_>, server: &Server) -> Admin {
    let listen = section.take("listen").and_then(|entry| address(&entry)).unwrap_or(ADMIN_LISTEN);
    let listens_twice = listen == server.listen && listen.port() != 0;
    if listens_twice {
        section.mistake("listen", format!("is {listen}, where `server.listen` is already"));
    }
    let token = section.take("token");
    let token_file = section.take("token_file");
    let is_given = token.is_some() || token_file.is_some();
    let token = one_way(&section, "token", token, token_file, |entry| {
        secret(entry).map(|secret| vec![secret])
    });
    let token = token.and_then(|tokens| {
        let is_one = tokens.len() == 1;
        if !is_one {
            section.mistake("token_file", "holds several lines; there is one token");
        }
        tokens.into_iter().next()
    });
    if !is_given && !is_loopback(listen) {
        section.mistake("token", format!("is missing; `admin.listen` is {listen}, open to others"));
    }
    warn_of_placeholder(reading, "admin.token", token.as_slice());
    section.finish();
    Admin { listen, token }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// What the reference and every example say instead of a secret.
const PLACEHOLDER: &str = "change-me";

fn warn_of_placeholder(reading: &Reading<'_>, path: &str, secrets: &[Secret]) {
    if secrets.iter().any(|secret| secret.expose() == PLACEHOLDER) {
        reading.warn(format!("{path} is `{PLACEHOLDER}`, which everybody knows"));
    }
}

/// Reads secrets that stand in the configuration or in a file of their own, not in both.
fn one_way(
    section: &Section<'_>,
    key: &str,
    here: Option<Entry<'_>>,
    file: Option<Entry<'_>>,
    read: impl Fn(&Entry<'_>) -> Option<Vec<Secret>>,
) -> Option<Vec<Secret>> {
    match (here, file) {
        (Some(_), Some(_)) => {
            section.mistake(key, format!("stands beside `{key}_file`; one of them is enough"));
            None
        }
        (Some(here), None) => read(&here),
        (None, Some(file)) => secrets_of_file(&file),
        (None, None) => None,
    }
}

fn secret(entry: &Entry<'_>) -> Option<Secret> {
    let text = entry.secret_text()?;
    if text.trim().is_empty() {
        entry.mistake("is a text that is not empty");
        return None;
    }
    Some(Secret::new(text))
}

fn secrets_of_file(entry: &Entry<'_>) -> Option<Vec<Secret>> {
    let path = entry.file()?;
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            entry.mistake(format!("is {}, which cannot be read: {error}", path.display()));
            return None;
        }
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let secrets: Vec<_> = lines.map(Secret::new).collect();
    if secrets.is_empty() {
        entry.mistake(format!("is {}, which is empty", path.display()));
        return None;
    }
    Some(secrets)
}

/// What express-session calls its cookie.
const COOKIE: &str = "connect.sid";
/// Where a Redis is on a developer's machine.
const STORE: &str = "redis://127.0.0.1:6379/0";
/// What connect-redis puts before a session's id.
const PREFIX: &str = "sess:";
/// Where an application that says nothing else keeps the user's id.
const USER: &str = "/user/id";
/// Where an application that says nothing else keeps the user's teams.
const TEAMS: &str = "/user/teams";
/// Soon enough for a log-out that nobody told of, rare enough for the store.
const RECHECK: Duration = Duration::from_secs(30);

pub(super) fn session(
    reading: &Reading<'_>,
    mut section: Section<'_>,
    server: &Server,
) -> SessionConfig {
    let format = section.take("format");
    let word = format.as_ref().and_then(|entry| {
        entry.one_of(&[("express", "express"), ("demo", "demo"), ("jwt", "jwt"), ("hook", "hook")])
    });
    let is_later = matches!(word, Some("jwt" | "hook"));
    if let (Some(entry), Some(word), true) = (&format, word, is_later) {
        entry.mistake(format!("is `{word}`, which is not supported yet; `express` is"));
    }
    let format = match word {
        Some("demo") => SessionFormat::Demo,
        _ => SessionFormat::Express,
    };
    if format == SessionFormat::Demo && !is_loopback(server.listen) {
        let message = format!(
            "is {}, which others reach, and `session.format` is `demo`, which lets everybody in",
            server.listen
        );
        reading.mistake("server.listen", message);
    }
    let cookie = section.take("cookie").and_then(|entry| {
        entry.parsed("is the name of a cookie", |text| is_token(text).then(|| text.to_owned()))
    });
    let secrets = section.take("secrets");
    let secrets_file = section.take("secrets_file");
    let is_given = secrets.is_some() || secrets_file.is_some();
    let secrets = one_way(&section, "secrets", secrets, secrets_file, |entry| {
        let secrets = entry.list(|entry| Some(secret(entry)))?;
        if secrets.is_empty() {
            entry.mistake("is empty; without a secret no cookie can be trusted");
        }
        Some(secrets.into_iter().flatten().collect())
    });
    if !is_given && format == SessionFormat::Express && !is_later {
        section.mistake("secrets", "is missing; it is what the application signs its cookies with");
    }
    let secrets = secrets.unwrap_or_default();
    warn_of_placeholder(reading, "session.secrets", &secrets);
    let store = section.take("store").and_then(|entry| redis_url(&entry));
    let prefix = section.take("prefix").and_then(|entry| entry.text().map(str::to_owned));
    let user = section.take("user").and_then(|entry| pointer(&entry));
    let teams = section.take("teams").and_then(|entry| pointer(&entry));
    let recheck = section.take("recheck").and_then(|entry| entry.time());
    if !is_later {
        section.finish();
    }
    SessionConfig {
        format,
        cookie: cookie.unwrap_or_else(|| COOKIE.to_owned()),
        secrets,
        store: store.unwrap_or_else(|| RedisUrl::new(STORE)),
        prefix: prefix.unwrap_or_else(|| PREFIX.to_owned()),
        user: user.unwrap_or_else(|| USER.to_owned()),
        teams: teams.unwrap_or_else(|| TEAMS.to_owned()),
        recheck: recheck.unwrap_or(RECHECK),
    }
}

/// Tells whether HTTP lets a cookie be called so.
fn is_token(text: &str) -> bool {
    let is_mark = |byte: u8| b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte))
}

fn pointer(entry: &Entry<'_>) -> Option<String> {
    entry.parsed("is a JSON pointer, such as `/user/id`", |text| {
        let is_pointer = text.starts_with('/')
            && text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        is_pointer.then(|| text.to_owned())
    })
}
