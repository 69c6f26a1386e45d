//! What clients ask and what they are answered, whatever the wire.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use crate::{hub::frame::Frame, mirror::Version, snapshot};

/// Events that mean something of their own; no job may be called like one of them.
pub const RESERVED: &[&str] = &[
    "initial",
    "publish",
    "change",
    "retract",
    "position",
    "reset",
    "subscribe",
    "unsubscribe",
    "resume",
    "add",
    "set",
    "delete",
    "move",
];

/// Events that socket.io's clients raise themselves, of whatever generation.
///
/// A late 4.x client that gets one of them from its server ends the connection; the others
/// believe it.
pub const RAISED_BY_CLIENTS: &[&str] = &[
    "connect",
    "connect_error",
    "connect_timeout",
    "connecting",
    "disconnect",
    "disconnecting",
    "error",
    "newListener",
    "ping",
    "pong",
    "reconnect",
    "reconnect_attempt",
    "reconnect_error",
    "reconnect_failed",
    "reconnecting",
    "removeListener",
];

/// How long the name of an event may be that is not ours, in bytes.
const MAX_EVENT_NAME: usize = 128;

/// Tells whether backends may send clients an event of this name.
///
/// # Errors
///
/// Returns what is wrong with it.
pub fn check_event_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("an event without a name cannot be sent".to_owned());
    }
    if name.len() > MAX_EVENT_NAME {
        let bytes = name.len();
        return Err(format!("the event's name has {bytes} bytes and may have {MAX_EVENT_NAME}"));
    }
    if RAISED_BY_CLIENTS.contains(&name) {
        return Err(format!("`{name}` is an event of socket.io's own"));
    }
    if RESERVED.contains(&name) {
        return Err(format!("`{name}` is an event of the gateway's own"));
    }
    Ok(())
}

/// A JSON object.
pub type Object = Map<String, Value>;

/// A request of a client.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientMessage {
    /// Asks to hear a feed by its name.
    Subscribe(String),
    /// Asks to hear a feed no longer.
    Unsubscribe(String),
    /// Says which versions it holds.
    Resume(Claims),
    /// Asks for a change of a feed.
    Edit(Edit),
    /// Asks for a job.
    Job {
        /// The event's name, which is the job's.
        name: String,
        /// The job's data.
        data: Object,
    },
}

/// What a client that returns says it holds, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims(pub BTreeMap<String, Claim>);

/// What a client says it holds under one name.
///
/// What is no version counts as none: the feed is then sent anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// A feed, in this version.
    Feed(Option<Version>),
    /// Lone items of a shared feed, such as teams, each in its version.
    Items(HashMap<String, Option<Version>>),
}

impl Claims {
    /// Reads the map of a `resume`.
    fn read(feeds: Object) -> Self {
        let version = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
        let claim = |value| match value {
            Value::Object(items) => {
                Claim::Items(items.iter().map(|(id, v)| (id.clone(), version(v))).collect())
            }
            value => Claim::Feed(version(&value)),
        };
        Self(feeds.into_iter().map(|(name, value)| (name, claim(value))).collect())
    }

    /// Tells whether it says nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the version in which a feed is held: `None` where it is not named, and
    /// `Some(None)` where its version is not known.
    #[must_use]
    pub fn feed(&self, name: &str) -> Option<Option<Version>> {
        match self.0.get(name)? {
            Claim::Feed(v) => Some(*v),
            Claim::Items(_) => None,
        }
    }

    /// Returns the lone items that are held under a name.
    #[must_use]
    pub fn items(&self, name: &str) -> Option<&HashMap<String, Option<Version>>> {
        match self.0.get(name)? {
            Claim::Feed(_) => None,
            Claim::Items(items) => Some(items),
        }
    }
}

/// A change of one feed that a client asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Edit {
    /// The feed.
    pub feed: String,
    /// What is to be done.
    pub verb: EditVerb,
}

/// What an edit does.
#[derive(Debug, Clone, PartialEq)]
pub enum EditVerb {
    /// Adds an item.
    Add {
        /// The new item.
        item: Object,
        /// Where it goes; at the end where nothing is said.
        position: Option<String>,
    },
    /// Sets attributes of an item.
    Set {
        /// The item.
        id: String,
        /// The attributes and their new values.
        change: Object,
    },
    /// Deletes an item.
    Delete {
        /// The item.
        id: String,
    },
    /// Moves an item of a sorted feed.
    Move {
        /// The item.
        id: String,
        /// Where it goes.
        position: String,
    },
}

/// Why a call was not answered with what it asked for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CallError {
    /// The call's argument is not what the event wants.
    #[error("{}", .0.join("; "))]
    Bad(Vec<String>),
    /// The caller may not, or may not see it.
    #[error("{0}")]
    Forbidden(String),
    /// No event or item has this name.
    #[error("{0}")]
    Unknown(String),
    /// It does not fit what is there.
    #[error("{0}")]
    Conflict(String),
    /// It is larger than it may be.
    #[error("{0}")]
    TooLarge(String),
    /// Too much is asked at once.
    #[error("{0}")]
    TooMany(String),
    /// Something behind the gateway cannot do it now.
    #[error("{0}")]
    Unavailable(String),
    /// Nothing came of it in time; the job is where `state` says.
    #[error("job `{job}` did not finish in time; it is {state}")]
    Timeout {
        /// The job's id.
        job: String,
        /// `queued`, `claimed` or `stalled`.
        state: &'static str,
    },
    /// It was carried out or withdrawn; what came of it is not known.
    #[error("job `{0}` is finished or withdrawn; its result is not known")]
    Lost(String),
}

/// Callers are asked to wait this long before they try again, in seconds.
const RETRY_AFTER: u64 = 1;

impl CallError {
    /// Says one thing that is wrong with a call's argument.
    pub fn bad(error: impl Into<String>) -> Self {
        Self::Bad(vec![error.into()])
    }

    /// The code that a client may branch on.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::Lost(_) => 202,
            Self::Bad(_) => 400,
            Self::Forbidden(_) => 403,
            Self::Unknown(_) => 404,
            Self::Conflict(_) => 409,
            Self::TooLarge(_) => 413,
            Self::TooMany(_) => 429,
            Self::Unavailable(_) => 503,
            Self::Timeout { .. } => 504,
        }
    }

    /// The answer as the client gets it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut answer = Object::new();
        answer.insert("code".into(), self.code().into());
        if self.code() >= 400 {
            answer.insert("error".into(), self.to_string().into());
        }
        match self {
            Self::Bad(errors) => drop(answer.insert("errors".into(), errors.clone().into())),
            Self::TooMany(_) | Self::Unavailable(_) => {
                drop(answer.insert("retry_after".into(), RETRY_AFTER.into()))
            }
            Self::Timeout { job, state } => {
                answer.insert("job".into(), job.clone().into());
                answer.insert("state".into(), (*state).into());
            }
            Self::Lost(job) => drop(answer.insert("job".into(), job.clone().into())),
            _ => {}
        }
        Value::Object(answer)
    }
}

/// Reads a call; `is_job` tells which other events there are.
///
/// # Errors
///
/// Returns 404 for an event that there is not, 400 for an argument that is missing, no object,
/// or not what the event wants.
pub fn read(
    name: &str,
    args: &str,
    is_job: impl Fn(&str) -> bool,
) -> Result<ClientMessage, CallError> {
    let known =
        matches!(name, "subscribe" | "unsubscribe" | "resume" | "add" | "set" | "delete" | "move");
    if !known && !is_job(name) {
        return Err(CallError::Unknown(format!("no event is called {}", snapshot::string(name))));
    }
    let args: Vec<Value> = serde_json::from_str(args)
        .map_err(|error| CallError::bad(format!("the arguments are not JSON: {error}")))?;
    let mut data = match args.into_iter().next() {
        Some(Value::Object(data)) => data,
        Some(_) => return Err(CallError::bad("the argument is not an object")),
        None => return Err(CallError::bad("the argument is missing; an object is wanted")),
    };
    let mut errors = Vec::new();
    let message = match name {
        "subscribe" => ClientMessage::Subscribe(text(&mut data, "feed", &mut errors)),
        "unsubscribe" => ClientMessage::Unsubscribe(text(&mut data, "feed", &mut errors)),
        "resume" => ClientMessage::Resume(Claims::read(object(&mut data, "feeds", &mut errors))),
        "add" | "set" | "delete" | "move" => {
            let feed = text(&mut data, "feed", &mut errors);
            let verb = match name {
                "add" => EditVerb::Add {
                    item: object(&mut data, "item", &mut errors),
                    position: match data.contains_key("position") {
                        true => Some(text(&mut data, "position", &mut errors)),
                        false => None,
                    },
                },
                "set" => EditVerb::Set {
                    id: text(&mut data, "id", &mut errors),
                    change: object(&mut data, "change", &mut errors),
                },
                "delete" => EditVerb::Delete { id: text(&mut data, "id", &mut errors) },
                _ => EditVerb::Move {
                    id: text(&mut data, "id", &mut errors),
                    position: text(&mut data, "position", &mut errors),
                },
            };
            ClientMessage::Edit(Edit { feed, verb })
        }
        _ => return Ok(ClientMessage::Job { name: name.to_owned(), data }),
    };
    if errors.is_empty() { Ok(message) } else { Err(CallError::Bad(errors)) }
}

fn text(data: &mut Object, key: &str, errors: &mut Vec<String>) -> String {
    match data.remove(key) {
        Some(Value::String(text)) if !text.is_empty() => text,
        Some(_) => {
            errors.push(format!("`{key}` is not a text, or an empty one"));
            String::new()
        }
        None => {
            errors.push(format!("`{key}` is missing"));
            String::new()
        }
    }
}

fn object(data: &mut Object, key: &str, errors: &mut Vec<String>) -> Object {
    match data.remove(key) {
        Some(Value::Object(object)) => object,
        Some(_) => {
            errors.push(format!("`{key}` is not an object"));
            Object::new()
        }
        None => {
            errors.push(format!("`{key}` is missing"));
            Object::new()
        }
    }
}

/// Returns an answer as what goes into a mailbox.
#[must_use]
pub fn ack(answer: &Value) -> Frame {
    Frame::event("ack", answer.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(name: &str, args: &str, code: u16, wanted: &str) {
        let error = read(name, args, |name| name == "shipTask").unwrap_err();
        assert_eq!(error.code(), code, "{error:?}");
        assert!(error.to_string().contains(wanted), "{error}");
        assert_eq!(error.to_json()["code"], code);
    }

    #[test]
    fn a_wrong_call_is_told_what_is_wrong_with_it() {
        check("frobnicate", "[{}]", 404, "\"frobnicate\"");
        check("shipTask", "[]", 400, "missing");
        check("shipTask", "[7]", 400, "not an object");
        check("shipTask", "[[1]]", 400, "not an object");
        check("subscribe", "[{}]", 400, "`feed` is missing");
        check("subscribe", r#"[{"feed":7}]"#, 400, "`feed` is not a text");
        check(
            "set",
            r#"[{"feed":"a","change":[]}]"#,
            400,
            "`id` is missing; `change` is not an object",
        );
        check("resume", "[{}]", 400, "`feeds` is missing");
        check("resume", r#"[{"feeds":["a"]}]"#, 400, "`feeds` is not an object");
        check("move", r#"[{"feed":"a","id":"1"}]"#, 400, "`position` is missing");
        check(
            "add",
            r#"[{"feed":"a","item":{},"position":null}]"#,
            400,
            "`position` is not a text",
        );
    }

    #[test]
    fn an_event_of_a_backend_has_a_name_of_its_own() {
        #[track_caller]
        fn check(name: &str, wanted: Option<&str>) {
            let error = check_event_name(name).err();
            let is_it = match (&error, wanted) {
                (None, None) => true,
                (Some(error), Some(wanted)) => error.contains(wanted),
                _ => false,
            };
            assert!(is_it, "{name}: {error:?}");
        }
        check("hello", None);
        check("message", None);
        check("Connect", None);
        check(&"é".repeat(64), None);
        check(&"é".repeat(65), Some("130 bytes"));
        check("", Some("without a name"));
        check("connect_error", Some("socket.io"));
        check("reconnect_attempt", Some("socket.io"));
        check("initial", Some("gateway"));
        check("reset", Some("gateway"));
    }

    #[test]
    fn a_claim_that_is_no_version_counts_as_none() {
        let v = "2e5b3143f5ae7845b1dad4a8";
        let feeds = json!({
            "a": v, "b": null, "c": 7, "d": "2e5b", "e": [v], "f": format!("{v}0"),
            "teams": { "1": v, "2": {}, "3": null },
        });
        let args = json!([{ "feeds": feeds }]).to_string();
        let Ok(ClientMessage::Resume(claims)) = read("resume", &args, |_| false) else {
            panic!("a resume is read")
        };
        let version = Some(v.parse().unwrap());
        assert_eq!(claims.feed("a"), Some(version));
        for name in ["b", "c", "d", "e", "f"] {
            assert_eq!(claims.feed(name), Some(None), "{name}");
        }
        assert_eq!((claims.feed("g"), claims.feed("teams")), (None, None));
        let teams = claims.items("teams").unwrap();
        assert_eq!((teams["1"], teams["2"], teams["3"]), (version, None, None));
    }

    #[test]
    fn calls_are_read() {
        let message =
            read("add", r#"[{"feed":"a","item":{"b":1},"position":"begin:"},2]"#, |_| false)
                .unwrap();
        let Value::Object(item) = json!({"b": 1}) else { unreachable!() };
        let verb = EditVerb::Add { item, position: Some("begin:".to_owned()) };
        assert_eq!(message, ClientMessage::Edit(Edit { feed: "a".to_owned(), verb }));
        assert!(matches!(read("ship", "[{}]", |_| true), Ok(ClientMessage::Job { .. })));
    }
}
