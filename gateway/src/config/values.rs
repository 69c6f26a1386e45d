//! Kinds of values that a configuration holds: secrets, addresses, sizes, times.

use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text as a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(…)")
    }
}

/// The URL of a shard or a Redis; its password is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// Takes a URL as it is.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// Returns the URL with its password, if it has one.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let rest = match rest.rsplit_once('@') {
            Some((user_info, host)) => match user_info.split_once(':') {
                Some((user, _password)) => format!("{user}:…@{host}"),
                None => format!("…@{host}"),
            },
            None => rest.to_owned(),
        };
        // A query may carry the password of the sentinels.
        let rest = match rest.split_once('?') {
            Some((before, query)) => format!("{before}?{}", hide_passwords(query)),
            None => rest,
        };
        match scheme {
            "" => out.write_str(&rest),
            scheme => write!(out, "{scheme}://{rest}"),
        }
    }
}

fn hide_passwords(query: &str) -> String {
    let shown = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().contains("pass") => format!("{name}=…"),
        _ => pair.to_owned(),
    });
    shown.collect::<Vec<_>>().join("&")
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "RedisUrl({self})")
    }
}

/// A range of addresses, such as `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u32,
}

impl Cidr {
    /// Tells whether an address is in the range; an IPv4 one may come dressed as IPv6.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= self.bits
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= self.bits
            }
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(drop)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(drop)?;
        if bits > most { Err(()) } else { Ok(Self { address, bits }) }
    }
}

/// Reads a time such as `10s`, `500ms` or `2m`; a number needs its unit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let is_number = text.trim().bytes().all(|byte| byte.is_ascii_digit());
    if is_number { None } else { humantime::parse_duration(text).ok() }
}

/// Reads a size such as `1MiB`, `64 KiB` or `512B`; a bare number is bytes.
pub(super) fn size(text: &str) -> Option<usize> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: usize = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

/// Writes an origin as browsers write it; `None` for what is no origin.
pub(super) fn origin(text: &str) -> Option<String> {
    if text == "null" {
        return Some(text.to_owned());
    }
    let text = text.to_ascii_lowercase();
    let (scheme, rest) = text.split_once("://")?;
    let uri: http::Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    let is_bare = authority.as_str() == rest;
    let is_plain = !authority.as_str().contains(['@', '*']);
    if !is_bare || !is_plain || authority.host().is_empty() {
        return None;
    }
    let port = authority.as_str().strip_prefix(authority.host())?;
    let number: Option<u16> = port.strip_prefix(':').and_then(|port| port.parse().ok());
    let port = match (scheme, number) {
        (_, None) if !port.is_empty() => return None,
        (_, None) | ("https", Some(443)) | ("http", Some(80)) => String::new(),
        (_, Some(number)) => format!(":{number}"),
    };
    Some(format!("{scheme}://{}{port}", authority.host()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        #[track_caller]
        fn check(url: &str, shown: &str) {
            assert_eq!(RedisUrl::new(url).to_string(), shown);
            assert_eq!(format!("{:?}", RedisUrl::new(url)), format!("RedisUrl({shown})"));
        }
        check("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0");
        check("redis://:s3cret@host:1/0", "redis://:…@host:1/0");
        check("rediss://user:s3c@ret@host", "rediss://user:…@host");
        check("redis://s3cret@host", "redis://…@host");
        check("memory:", "memory:");
        check(
            "redis-sentinel://h1:1,h2:2?sentinelServiceName=m&sentinelPassword=x",
            "redis-sentinel://h1:1,h2:2?sentinelServiceName=m&sentinelPassword=…",
        );
        assert_eq!(format!("{:?}", Secret::new("s3cret")), "Secret(…)");
    }

    #[test]
    fn sizes_and_times_need_to_be_plain() {
        #[track_caller]
        fn check(text: &str, bytes: Option<usize>, time: Option<Duration>) {
            assert_eq!((size(text), duration(text)), (bytes, time), "{text}");
        }
        check("512B", Some(512), None);
        check("64KiB", Some(65_536), None);
        check("1 mib", Some(1 << 20), None);
        check("2GiB", Some(2 << 30), None);
        check("10", Some(10), None);
        check("0", Some(0), None);
        check("1MB", None, None);
        check("-1", None, None);
        check("99999999999999999999", None, None);
        check("99999999999GiB", None, None);
        check("", None, None);
        check("10s", None, Some(Duration::from_secs(10)));
        check("500ms", None, Some(Duration::from_millis(500)));
        check("1m 30s", None, Some(Duration::from_secs(90)));
        check("ten", None, None);
    }

    #[test]
    fn a_range_holds_its_addresses_and_no_others() {
        #[track_caller]
        fn check(range: &str, address: &str, expected: bool) {
            let range: Cidr = range.parse().unwrap();
            assert_eq!(range.contains(address.parse().unwrap()), expected, "{range:?} {address}");
        }
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "::ffff:10.1.2.3", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("0.0.0.0/0", "8.8.8.8", true);
        check("0.0.0.0/0", "2001:db8::1", false);
        check("192.168.1.7", "192.168.1.7", true);
        check("192.168.1.7", "192.168.1.8", false);
        check("2001:db8::/32", "2001:db8:1::1", true);
        for bad in ["10.0.0.0/33", "10.0.0/8", "host", "10.0.0.0/", "::1/129"] {
            assert_eq!(bad.parse::<Cidr>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        #[track_caller]
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(origin(text).as_deref(), expected, "{text}");
        }
        check("https://app.example.com", Some("https://app.example.com"));
        check("HTTPS://App.Example.com:443", Some("https://app.example.com"));
        check("http://localhost:8080", Some("http://localhost:8080"));
        check("http://[::1]:80", Some("http://[::1]"));
        check("null", Some("null"));
        check("https://app.example.com/", None);
        check("https://app.example.com/path", None);
        check("https://u@app.example.com", None);
        check("https://*.example.com", None);
        check("app.example.com", None);
        check("*", None);
        check("http://host:99999", None);
    }
}
