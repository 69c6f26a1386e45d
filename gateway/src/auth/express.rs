//! The cookie of express-session and the session of connect-redis, as plain functions.

use std::time::SystemTime;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, header::COOKIE};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use crate::identity::{Identity, SessionId, TeamId, UserId};

/// Returns the values of all cookies with this name, in the order in which they were sent.
#[must_use]
pub fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, _)| key.trim() == name)
        .map(|(_, value)| {
            let value = value.trim();
            value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
        })
        .collect()
}

/// The secrets that may have signed a cookie.
#[derive(Clone)]
pub struct Secrets(Vec<Hmac<Sha256>>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// Takes the secrets, the newest first.
    #[must_use]
    pub fn new(secrets: &[String]) -> Self {
        let keyed = |secret: &String| {
            Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length")
        };
        Self(secrets.iter().map(keyed).collect())
    }

    /// Returns the session id in a cookie's value if one of the secrets signed it.
    #[must_use]
    pub fn open(&self, value: &str) -> Option<SessionId> {
        let decoded = percent_decode_str(value).decode_utf8().ok()?;
        let (id, signature) = decoded.strip_prefix("s:")?.rsplit_once('.')?;
        if id.is_empty() {
            return None;
        }
        let mut is_signed = Choice::from(0);
        for secret in &self.0 {
            let mac = secret.clone().chain_update(id.as_bytes()).finalize().into_bytes();
            let expected = STANDARD_NO_PAD.encode(mac);
            is_signed |= expected.as_bytes().ct_eq(signature.as_bytes());
        }
        bool::from(is_signed).then(|| SessionId::new(id))
    }
}

/// Where in a session the user and the teams are, as JSON pointers.
#[derive(Debug, Clone)]
pub struct Pointers {
    /// The user's id: a string or an integer.
    pub user: String,
    /// The teams: an array of strings, integers, or objects with `id`.
    pub teams: String,
}

/// Reads a stored session.
///
/// # Errors
///
/// Returns a sentence for the log, which never holds anything of the session, when it is not
/// what connect-redis stores, has expired, or names no user.
pub fn read(json: &[u8], pointers: &Pointers, now: SystemTime) -> Result<Identity, &'static str> {
    let session: Value = serde_json::from_slice(json).map_err(|_| "session is not JSON")?;
    if !session.is_object() {
        return Err("session is not a JSON object");
    }
    if let Some(expires) = session.pointer("/cookie/expires").and_then(Value::as_str) {
        let expires = humantime::parse_rfc3339_weak(expires)
            .map_err(|_| "session has an expiry that cannot be read")?;
        if expires <= now {
            return Err("session has expired");
        }
    }
    let user = session.pointer(&pointers.user).unwrap_or(&Value::Null);
    let user = UserId::new(id(user).ok_or("session names no user")?);
    let teams = match session.pointer(&pointers.teams) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(teams)) => {
            let team = |team: &Value| id(team.get("id").unwrap_or(team)).map(TeamId::new);
            let teams: Option<_> = teams.iter().map(team).collect();
            teams.ok_or("session has a team without an id")?
        }
        Some(_) => return Err("session's teams are not an array"),
    };
    Ok(Identity::new(user, teams))
}

/// Reads an id: a string that is not empty, or an integer.
fn id(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => (!text.is_empty()).then(|| text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    /// Made with Node's crypto as cookie-signature does it, with the secret "keyboard cat".
    const SIGNED: &str = "s%3A0GvUS-m.x.w0vBu9PK0jYPUZ6TaKXRAAH2MxXuj9DcPV%2BqDvd3LbA";

    fn sign(id: &str, secret: &str) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        let mac = mac.chain_update(id.as_bytes()).finalize().into_bytes();
        format!("s:{id}.{}", STANDARD_NO_PAD.encode(mac))
    }

    #[track_caller]
    fn check_cookie(value: &str, expected: Option<&str>) {
        let secrets = Secrets::new(&["newest".to_owned(), "older".to_owned()]);
        let id = secrets.open(value);
        assert_eq!(id.as_ref().map(SessionId::as_str), expected, "{value}");
    }

    #[test]
    fn only_what_a_secret_signed_is_opened() {
        check_cookie(&sign("abc", "newest"), Some("abc"));
        check_cookie(&sign("abc", "older"), Some("abc"));
        check_cookie(&sign("a.b.c", "newest"), Some("a.b.c"));
        check_cookie(&sign("abc", "newest").replace(':', "%3A").replace('+', "%2B"), Some("abc"));
        check_cookie(&sign("abc", "another"), None);
        check_cookie(&sign("abc", "newest").replace("s:abc", "s:abd"), None);
        check_cookie(&format!("{}=", sign("abc", "newest")), None);
        check_cookie("s:abc", None);
        check_cookie("abc", None);
        check_cookie("s:abc.", None);
        check_cookie(SIGNED, None);
        let cat = Secrets::new(&["keyboard cat".to_owned()]);
        assert_eq!(cat.open(SIGNED), Some(SessionId::new("0GvUS-m.x")));
        check_cookie(&sign("", "newest"), None);
        check_cookie("s:%ff.x", None);
    }

    #[test]
    fn every_cookie_of_the_name_is_found() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, "a=1; connect.sid=one;connect.sid=\"two\"".parse().unwrap());
        headers.append(COOKIE, "connect.sid=three; xconnect.sid=no".parse().unwrap());
        assert_eq!(cookies(&headers, "connect.sid"), ["one", "two", "three"]);
    }

    #[track_caller]
    fn check(session: &Value, expected: Result<(&str, &[&str]), &str>) {
        let pointers = Pointers { user: "/user/id".to_owned(), teams: "/user/teams".to_owned() };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let read = read(session.to_string().as_bytes(), &pointers, now);
        let read = read.as_ref().map(|identity| {
            let teams: Vec<_> = identity.teams.iter().map(TeamId::as_str).collect();
            (identity.user.as_str(), teams)
        });
        match (read, expected) {
            (Ok((user, teams)), Ok(expected)) => {
                assert_eq!((user, teams.as_slice()), expected);
            }
            (read, expected) => {
                assert_eq!(read.map(|_| ()).map_err(|text| *text), expected.map(|_| ()));
            }
        }
    }

    #[test]
    fn a_session_gives_a_user_and_teams() {
        check(
            &json!({"user": {"id": "ann", "teams": ["red", 7, {"id": "blue"}, "red"]}}),
            Ok(("ann", &["7", "blue", "red"])),
        );
        check(&json!({"user": {"id": 42}}), Ok(("42", &[])));
        check(&json!({"user": {"id": 42, "teams": null}}), Ok(("42", &[])));
        check(
            &json!({"cookie": {"expires": "2033-05-18T03:33:20.000Z"}, "user": {"id": 1}}),
            Ok(("1", &[])),
        );
        check(&json!({"cookie": {"expires": null}, "user": {"id": 1}}), Ok(("1", &[])));
    }

    #[test]
    fn what_is_no_session_is_refused() {
        check(&json!("text"), Err("session is not a JSON object"));
        check(&json!([]), Err("session is not a JSON object"));
        check(&json!({}), Err("session names no user"));
        check(&json!({"user": {"id": ""}}), Err("session names no user"));
        check(&json!({"user": {"id": 1.5}}), Err("session names no user"));
        check(&json!({"user": {"id": 1, "teams": [""]}}), Err("session has a team without an id"));
        check(
            &json!({"user": {"id": 1, "teams": [{"name": "x"}]}}),
            Err("session has a team without an id"),
        );
        check(&json!({"user": {"id": 1, "teams": "red"}}), Err("session's teams are not an array"));
        check(
            &json!({"cookie": {"expires": "2001-01-01T00:00:00.000Z"}, "user": {"id": 1}}),
            Err("session has expired"),
        );
        check(
            &json!({"cookie": {"expires": "soon"}, "user": {"id": 1}}),
            Err("session has an expiry that cannot be read"),
        );
    }
}
