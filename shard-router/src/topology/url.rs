//! Where a shard is, read from a URL.
//!
//! No error and no way to print a URL repeats a password.

use std::{
    fmt,
    net::Ipv6Addr,
    str::{self, FromStr},
};

/// Where Redis listens unless told otherwise.
const DEFAULT_PORT: u16 = 6379;

/// Schemes that are planned, so that "unknown" would be the wrong answer.
const NOT_YET: [&str; 3] = ["rediss", "redis-sentinel", "redis-cluster"];

/// Where a shard is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardUrl {
    /// `redis://[user[:password]@]host[:port][/db]`.
    Redis(RedisUrl),
    /// `memory:`, a keyspace in this process.
    Memory,
}

/// One Redis server and a database in it.
///
/// Neither `Display` nor `Debug` shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// A name or an address; an IPv6 address stands here without brackets.
    pub host: String,
    /// 6379 unless given.
    pub port: u16,
    /// The ACL user, percent-decoded; `None` means Redis' own `default`.
    pub username: Option<String>,
    /// The password, percent-decoded.
    pub password: Option<String>,
    /// 0 unless given.
    pub db: u8,
}

/// Why a text is not the URL of a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShardUrlError {
    /// There is no known scheme in front.
    #[error("begins with none of `redis://` and `memory:`")]
    UnknownScheme,
    /// The scheme is planned.
    #[error("`{0}://` is not supported yet")]
    NotYet(&'static str),
    /// The shard in memory has no address.
    #[error("has something behind `memory:`")]
    MemoryAddress,
    /// The host is missing, holds characters that no host has, or an unclosed bracket.
    #[error("has no host that is a name, an IPv4 address or an IPv6 address in brackets")]
    Host,
    /// The port is not a number that a port can be.
    #[error("has a port that is not a number from 1 to 65535")]
    Port,
    /// The database is not a number that a database can be.
    #[error("has a database behind the `/` that is not a number from 0 to 255")]
    Db,
    /// Options are not part of this URL.
    #[error("has a `?` or a `#`, and takes no options")]
    Options,
    /// The user or the password holds a character that ends it.
    #[error(
        "has a user or password with a bare `/`, `?` or `#`, \
         to be written `%2F`, `%3F` and `%23`"
    )]
    Unescaped,
    /// The user or the password is not properly percent-encoded.
    #[error("has a user or password in which a `%` is not followed by two hex digits of UTF-8")]
    Percent,
}

impl FromStr for ShardUrl {
    type Err = ShardUrlError;

    fn from_str(text: &str) -> Result<Self, ShardUrlError> {
        let (scheme, rest) = text.split_once(':').ok_or(ShardUrlError::UnknownScheme)?;
        let scheme = scheme.to_ascii_lowercase();
        if scheme == "memory" {
            return if rest.is_empty() {
                Ok(Self::Memory)
            } else {
                Err(ShardUrlError::MemoryAddress)
            };
        }
        let rest = rest.strip_prefix("//").ok_or(ShardUrlError::UnknownScheme)?;
        if let Some(scheme) = NOT_YET.into_iter().find(|not_yet| *not_yet == scheme) {
            return Err(ShardUrlError::NotYet(scheme));
        }
        if scheme != "redis" {
            return Err(ShardUrlError::UnknownScheme);
        }
        parse_redis(rest).map(Self::Redis)
    }
}

impl fmt::Display for ShardUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis(redis_url) => redis_url.fmt(out),
            Self::Memory => out.write_str("memory:"),
        }
    }
}

impl fmt::Display for RedisUrl {
    /// Writes the URL with `***` for the password.
    ///
    /// A user without a password is hidden too: `redis-cli` would take that word for
    /// the password, and so may whoever wrote it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("redis://")?;
        match (&self.username, &self.password) {
            (None, None) => {}
            (Some(username), Some(_)) => write!(out, "{}:***@", username.escape_debug())?,
            (None, Some(_)) => out.write_str(":***@")?,
            (Some(_), None) => out.write_str("***@")?,
        }
        if self.host.contains(':') {
            write!(out, "[{}]:{}", self.host, self.port)?;
        } else {
            write!(out, "{}:{}", self.host, self.port)?;
        }
        if self.db == 0 { Ok(()) } else { write!(out, "/{}", self.db) }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "RedisUrl({self})")
    }
}

fn parse_redis(rest: &str) -> Result<RedisUrl, ShardUrlError> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    if tail.contains('@') {
        return Err(ShardUrlError::Unescaped);
    }
    let (user_info, address) = match authority.rsplit_once('@') {
        Some((user_info, address)) => (Some(user_info), address),
        None => (None, authority),
    };
    let (username, password) = user_info.map_or(Ok((None, None)), parse_user_info)?;
    let (host, port) = parse_address(address)?;
    Ok(RedisUrl { host, port, username, password, db: parse_db(tail)? })
}

fn parse_user_info(text: &str) -> Result<(Option<String>, Option<String>), ShardUrlError> {
    let (username, password) = match text.split_once(':') {
        Some((username, password)) => (username, password),
        None => (text, ""),
    };
    let given = |part: &str| {
        if part.is_empty() { Ok(None) } else { percent_decode(part).map(Some) }
    };
    Ok((given(username)?, given(password)?))
}

fn parse_address(text: &str) -> Result<(String, u16), ShardUrlError> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (host, port) = bracketed.split_once(']').ok_or(ShardUrlError::Host)?;
        let host: Ipv6Addr = host.parse().map_err(|_| ShardUrlError::Host)?;
        let port = match port {
            "" => DEFAULT_PORT,
            _ => parse_port(port.strip_prefix(':').ok_or(ShardUrlError::Host)?)?,
        };
        return Ok((host.to_string(), port));
    }
    let (host, port) = match text.split_once(':') {
        // More colons are those of an IPv6 address without its brackets.
        Some((_, port)) if port.contains(':') => return Err(ShardUrlError::Host),
        Some((host, port)) => (host, parse_port(port)?),
        None => (text, DEFAULT_PORT),
    };
    let is_host_character =
        |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
    if host.is_empty() || !host.chars().all(is_host_character) {
        return Err(ShardUrlError::Host);
    }
    Ok((host.to_owned(), port))
}

fn parse_port(text: &str) -> Result<u16, ShardUrlError> {
    match number(text) {
        None | Some(0) => Err(ShardUrlError::Port),
        Some(port) => Ok(port),
    }
}

fn parse_db(tail: &str) -> Result<u8, ShardUrlError> {
    if tail.contains(['?', '#']) {
        return Err(ShardUrlError::Options);
    }
    match tail.strip_prefix('/') {
        None | Some("") => Ok(0),
        Some(db) => number(db).ok_or(ShardUrlError::Db),
    }
}

/// Reads digits alone; the std parsers take a `+` in front.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok()).flatten()
}

/// Decodes strictly: a stray `%` is more likely a password not encoded than one meant so.
fn percent_decode(text: &str) -> Result<String, ShardUrlError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(ShardUrlError::Percent);
        };
        decoded.push((high * 16 + low) as u8);
    }
    String::from_utf8(decoded).map_err(|_| ShardUrlError::Percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: (&str, u16, Option<&str>, Option<&str>, u8), shown: &str) {
        let ShardUrl::Redis(url) = text.parse().unwrap() else { panic!("{text} is of Redis") };
        let RedisUrl { host, port, username, password, db } = &url;
        let found = (host.as_str(), *port, username.as_deref(), password.as_deref(), *db);
        assert_eq!(found, expected, "{text}");
        assert_eq!(url.to_string(), shown);
    }

    #[track_caller]
    fn refused(text: &str, expected: ShardUrlError) {
        assert_eq!(text.parse::<ShardUrl>(), Err(expected), "{text}");
    }

    #[test]
    fn a_url_says_where_and_as_whom() {
        check("redis://localhost", ("localhost", 6379, None, None, 0), "redis://localhost:6379");
        check("REDIS://r_1.net:7001/", ("r_1.net", 7001, None, None, 0), "redis://r_1.net:7001");
        check(
            "redis://10.0.0.1/15",
            ("10.0.0.1", 6379, None, None, 15),
            "redis://10.0.0.1:6379/15",
        );
        check(
            "redis://ann:s3cret@h:1/2",
            ("h", 1, Some("ann"), Some("s3cret"), 2),
            "redis://ann:***@h:1/2",
        );
        check("redis://:s3cret@h", ("h", 6379, None, Some("s3cret"), 0), "redis://:***@h:6379");
        check("redis://ann@h", ("h", 6379, Some("ann"), None, 0), "redis://***@h:6379");
        check(
            "redis://a%3An:p%40%2f%25%C3%A9:x@y@h",
            ("h", 6379, Some("a:n"), Some("p@/%é:x@y"), 0),
            "redis://a:n:***@h:6379",
        );
        check("redis://[::1]", ("::1", 6379, None, None, 0), "redis://[::1]:6379");
        check(
            "redis://u:p@[2001:DB8::1]:7001/3",
            ("2001:db8::1", 7001, Some("u"), Some("p"), 3),
            "redis://u:***@[2001:db8::1]:7001/3",
        );
        assert_eq!("memory:".parse(), Ok(ShardUrl::Memory));
    }

    #[test]
    fn a_url_that_cannot_be_kept_is_refused() {
        for scheme in ["rediss", "redis-sentinel", "redis-cluster"] {
            refused(&format!("{scheme}://a:1,b:2?x=y"), ShardUrlError::NotYet(scheme));
        }
        for text in ["", "localhost:6379", "http://h", "redis:h", "redis:/h", "unix:///tmp/r"] {
            refused(text, ShardUrlError::UnknownScheme);
        }
        refused("memory://", ShardUrlError::MemoryAddress);
        for text in ["redis://", "redis:///1", "redis://u:p@", "redis://::1", "redis://[::1"] {
            refused(text, ShardUrlError::Host);
        }
        for text in ["redis://[h]", "redis://[::1]7001", "redis://a b", "redis://a,b:1"] {
            refused(text, ShardUrlError::Host);
        }
        for text in ["redis://h:", "redis://h:0", "redis://h:65536", "redis://h:+1"] {
            refused(text, ShardUrlError::Port);
        }
        for text in ["redis://h/x", "redis://h/256", "redis://h/1/", "redis://h/-1"] {
            refused(text, ShardUrlError::Db);
        }
        refused("redis://h/0?timeout=1", ShardUrlError::Options);
        refused("redis://h#a", ShardUrlError::Options);
        for text in ["redis://:a/b@h", "redis://u:12/3@h", "redis://:a#b@h", "redis://:a?b@h"] {
            refused(text, ShardUrlError::Unescaped);
        }
        for text in ["redis://:100%@h", "redis://:%zz@h", "redis://:%ff@h", "redis://:%é@h"] {
            refused(text, ShardUrlError::Percent);
        }
    }

    #[test]
    fn no_password_is_ever_shown() {
        for text in ["redis://ann:s3cret@h", "redis://:s3cret@h/1", "redis://s3cret@h"] {
            let url: ShardUrl = text.parse().unwrap();
            let shown = format!("{url} {url:?} {url:#?}");
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }
}
