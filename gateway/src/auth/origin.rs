//! Which pages may connect: the Origin header against a default-deny list.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use http::{
    HeaderMap, HeaderValue,
    header::{HOST, ORIGIN},
};

/// The origins whose pages may connect, besides the gateway's own.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    listed: HashSet<String>,
    required: bool,
}

/// What the Origin header of a request says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A page that may connect; the value is what a browser wants to read back.
    Page(HeaderValue),
    /// No page at all, or one of the gateway's own host that does not say so.
    Silent,
    /// A page that may not connect, or a program where a page is required.
    Refused,
}

impl Origins {
    /// Takes the list as it is configured: `https://app.example.com`, or `null`.
    ///
    /// With `required`, requests without an Origin header are refused too.
    #[must_use]
    pub fn new(listed: impl IntoIterator<Item = String>, required: bool) -> Self {
        Self { listed: listed.into_iter().collect(), required }
    }

    /// Judges a request by its headers.
    ///
    /// The same host and port as in `Host` is always right, whatever the scheme: a proxy may
    /// have taken the TLS away. Browsers send no Origin with polls of their own host, but
    /// `Sec-Fetch-Site`, which no page can set.
    #[must_use]
    pub fn judge(&self, headers: &HeaderMap) -> Verdict {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else {
            let own = headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
            return if self.required && !own { Verdict::Refused } else { Verdict::Silent };
        };
        let (Ok(text), None) = (origin.to_str(), origins.next()) else {
            return Verdict::Refused;
        };
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        if self.listed.contains(text) || host.is_some_and(|host| is_same(text, host)) {
            Verdict::Page(origin.clone())
        } else {
            Verdict::Refused
        }
    }
}

/// Tells whether an origin names the host and port of a Host header.
#[must_use]
pub fn is_same(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let default = match scheme {
        "http" => "80",
        "https" => "443",
        _ => return false,
    };
    let (origin_name, origin_port) = split_port(authority);
    let (host_name, host_port) = split_port(host);
    let is_port_same = match (origin_port, host_port) {
        (None, None) => true,
        (left, right) => left.unwrap_or(default) == right.unwrap_or(default),
    };
    !origin_name.is_empty() && origin_name.eq_ignore_ascii_case(host_name) && is_port_same
}

/// Tells whether a Host header names this machine by a name that no foreign name can stand for.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let (name, _) = split_port(host);
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bare {
        Some(address) => address.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback()),
        None => {
            name.eq_ignore_ascii_case("localhost")
                || name.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        }
    }
}

/// Splits `name:port`; an IPv6 address keeps its brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(origin: Option<&str>, host: &str, expected: bool) {
        check_with(
            &Origins::new(["https://app.example.com".to_owned()], false),
            origin,
            host,
            expected,
        );
    }

    #[track_caller]
    fn check_with(origins: &Origins, origin: Option<&str>, host: &str, expected: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        assert_eq!(origins.judge(&headers) != Verdict::Refused, expected, "{origin:?} at {host}");
    }

    #[test]
    fn loopback_is_known_by_its_addresses_and_its_name() {
        for host in ["localhost", "LocalHost:3001", "127.0.0.1", "127.9.8.7:1", "[::1]", "[::1]:1"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            ":3001",
            "localhost.evil.net",
            "127.0.0.1.evil.net:3001",
            "127.1",
            "2130706433",
            "0.0.0.0",
            "10.0.0.1",
            "::1",
            "[::2]",
            "[::1",
            "user@localhost",
            "localhost:x",
            "localhost:1:2",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn only_listed_pages_and_the_own_host_may_connect() {
        check(Some("https://app.example.com"), "live.example.com", true);
        check(Some("http://app.example.com"), "live.example.com", false);
        check(Some("https://app.example.com:8443"), "live.example.com", false);
        check(Some("https://app.example.com.evil.net"), "live.example.com", false);
        check(Some("https://evil.net"), "live.example.com", false);
        check(Some("null"), "live.example.com", false);
        check(Some(""), "live.example.com", false);
        check(None, "live.example.com", true);

        check(Some("http://127.0.0.1:3000"), "127.0.0.1:3000", true);
        check(Some("https://Live.example.com"), "live.example.com", true);
        check(Some("https://live.example.com"), "live.example.com:443", true);
        check(Some("http://live.example.com:80"), "live.example.com", true);
        check(Some("http://live.example.com:8080"), "live.example.com", false);
        check(Some("http://live.example.com"), "live.example.com:3000", false);
        check(Some("http://[::1]:3000"), "[::1]:3000", true);
        check(Some("http://[::1]"), "[::1]", true);
        check(Some("ftp://live.example.com"), "live.example.com", false);
    }

    #[test]
    fn null_must_be_listed_and_a_missing_origin_can_be_refused() {
        let origins = Origins::new(["null".to_owned()], true);
        check_with(&origins, Some("null"), "live.example.com", true);
        check_with(&origins, None, "live.example.com", false);
        let mut headers = HeaderMap::new();
        headers.insert("sec-fetch-site", "same-origin".parse().unwrap());
        assert_eq!(origins.judge(&headers), Verdict::Silent);
    }

    #[test]
    fn two_origins_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(ORIGIN, "https://app.example.com".parse().unwrap());
        headers.append(ORIGIN, "https://evil.net".parse().unwrap());
        let origins = Origins::new(["https://app.example.com".to_owned()], false);
        assert_eq!(origins.judge(&headers), Verdict::Refused);
    }
}
