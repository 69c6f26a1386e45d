//! The users of the embedded default: no password, no store, loopback only.

use http::HeaderMap;

use crate::identity::{Identity, Session, SessionId, TeamId, UserId};

/// The users that the demo knows.
pub const USERS: [&str; 4] = ["ann", "bob", "cleo", "dai"];

/// The team that all of them are in.
pub const TEAM: &str = "red";

/// Finds who a request says it is: `demo_user=NAME` in its query or a cookie `demo=NAME`.
#[must_use]
pub fn session(headers: &HeaderMap, query: &str) -> Option<Session> {
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("demo_user="));
    let cookies = super::express::cookies(headers, "demo");
    let known = |name: &str| USERS.into_iter().find(|user| *user == name);
    let name = match asked {
        Some(name) => known(name),
        None => cookies.into_iter().find_map(known),
    }?;
    Some(Session { id: SessionId::new(format!("demo:{name}")), identity: identity(name) })
}

/// Finds the user whom a session id of [`session`] names.
#[must_use]
pub fn recheck(id: &SessionId) -> Option<Identity> {
    let name = id.as_str().strip_prefix("demo:")?;
    USERS.contains(&name).then(|| identity(name))
}

fn identity(name: &str) -> Identity {
    Identity::new(UserId::new(name), vec![TeamId::new(TEAM)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cookie: &str, query: &str, expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", cookie.parse().unwrap());
        let session = session(&headers, query);
        assert_eq!(session.as_ref().map(|session| session.identity.user.as_str()), expected);
        if let Some(session) = session {
            assert_eq!(recheck(&session.id), Some(session.identity));
        }
    }

    #[test]
    fn only_the_known_names_are_users() {
        check("demo=ann", "EIO=4", Some("ann"));
        check("a=b; demo=bob", "", Some("bob"));
        check("demo=mallory", "", None);
        check("demo=ann", "EIO=4&demo_user=cleo", Some("cleo"));
        check("demo=ann", "demo_user=mallory", None);
        check("", "", None);
    }
}
