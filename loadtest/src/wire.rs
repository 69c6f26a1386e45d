//! Engine.IO packets of websocket frames, as far as a client needs them. Pure.

use std::time::Duration;

use serde_json::Value;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// socket.io 1.x and 2.x: the client pings, nobody asks for the namespace.
    Eio3,
    /// socket.io 3.x and 4.x: the server pings, the client asks for the namespace.
    Eio4,
}

impl Protocol {
    /// Returns the number that stands in the handshake's query.
    #[must_use]
    pub const fn revision(self) -> u8 {
        match self {
            Self::Eio3 => 3,
            Self::Eio4 => 4,
        }
    }

    /// Returns the name as it stands on the command line.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Eio3 => "eio3",
            Self::Eio4 => "eio4",
        }
    }
}

/// One packet from the server.
#[derive(Debug, PartialEq)]
pub enum Packet<'a> {
    /// The handshake.
    Open(Timing),
    /// The connection ends.
    Close,
    /// A ping, to be answered.
    Ping,
    /// The answer to ours.
    Pong,
    /// We are in the namespace.
    Connected,
    /// We are not let into the namespace, for this reason.
    Refused(String),
    /// We are put out of the namespace.
    Disconnected,
    /// An event.
    Event {
        /// Its name.
        name: &'a str,
        /// The whole array, the name in it.
        array: &'a str,
    },
    /// The answer to a call.
    Ack {
        /// The call's number.
        call: u64,
        /// The answer's arguments.
        array: &'a str,
    },
    /// Something that is of no use here.
    Other,
}

/// When the server is heard at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two pings.
    pub interval: Duration,
    /// How long a ping or its answer may take.
    pub timeout: Duration,
}

impl Packet<'_> {
    /// Reads a text frame; `None` for one that no server may send.
    #[must_use]
    pub fn read(frame: &str) -> Option<Packet<'_>> {
        let kind = frame.chars().next()?;
        let data = &frame[kind.len_utf8()..];
        Some(match kind {
            '0' => Packet::Open(timing(data)?),
            '1' => Packet::Close,
            '2' => Packet::Ping,
            '3' => Packet::Pong,
            '4' => return message(data),
            '6' => Packet::Other,
            _ => return None,
        })
    }
}

fn timing(json: &str) -> Option<Timing> {
    let open: Value = serde_json::from_str(json).ok()?;
    let millis = |key| open.get(key).and_then(Value::as_u64).map(Duration::from_millis);
    Some(Timing { interval: millis("pingInterval")?, timeout: millis("pingTimeout")? })
}

fn message(data: &str) -> Option<Packet<'_>> {
    let kind = data.chars().next()?;
    let rest = &data[kind.len_utf8()..];
    if rest.starts_with('/') && !rest.starts_with("/,") {
        return Some(Packet::Other);
    }
    let rest = rest.strip_prefix("/,").unwrap_or(rest);
    Some(match kind {
        '0' => Packet::Connected,
        '1' => Packet::Disconnected,
        '2' => {
            let array = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
            let name = array.strip_prefix("[\"")?.split_once('"')?.0;
            Packet::Event { name, array }
        }
        '3' => {
            let at = rest.find('[')?;
            Packet::Ack { call: rest[..at].parse().ok()?, array: &rest[at..] }
        }
        '4' => Packet::Refused(reason(rest)),
        '5' | '6' => Packet::Other,
        _ => return None,
    })
}

/// Reads why: the text itself, or the object's `message`.
fn reason(json: &str) -> String {
    let value: Value = serde_json::from_str(json).unwrap_or(Value::Null);
    let text = value.as_str().or_else(|| value.get("message").and_then(Value::as_str));
    text.unwrap_or(json).chars().take(60).collect()
}

/// Tells whether a state in xport shape shows a collection of this feed anywhere.
#[must_use]
pub fn shows_feed(array: &str, feed: &str) -> bool {
    fn shows(model: &Value, feed: &str) -> bool {
        let values = |key| model.get(key).and_then(Value::as_object).into_iter().flatten();
        values("models").any(|(_, model)| shows(model, feed))
            || values("collections").any(|(_, collection)| {
                let models = collection.get("models").and_then(Value::as_array);
                collection.get("id").and_then(Value::as_str) == Some(feed)
                    || models.into_iter().flatten().any(|model| shows(model, feed))
            })
    }
    serde_json::from_str::<Value>(array)
        .is_ok_and(|array| array.get(1).is_some_and(|root| shows(root, feed)))
}

/// Reads the code of an ack.
#[must_use]
pub fn ack_code(array: &str) -> Option<u64> {
    serde_json::from_str::<Value>(array).ok()?.get(0)?.get("code")?.as_u64()
}

/// Writes a call with one argument that expects an answer.
#[must_use]
pub fn call(number: u64, event: &str, data: &Value) -> String {
    format!("42{number}{}", Value::from(vec![Value::from(event), data.clone()]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(frame: &str, expected: Option<Packet<'_>>) {
        assert_eq!(Packet::read(frame), expected, "{frame}");
    }

    #[test]
    fn packets_are_read() {
        let timing = Timing {
            interval: Duration::from_millis(25_000),
            timeout: Duration::from_millis(20_000),
        };
        check(
            r#"0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000}"#,
            Some(Packet::Open(timing)),
        );
        check("0{}", None);
        check("2", Some(Packet::Ping));
        check("3", Some(Packet::Pong));
        check("40", Some(Packet::Connected));
        check(r#"40{"sid":"x"}"#, Some(Packet::Connected));
        check("41", Some(Packet::Disconnected));
        check(r#"44{"message":"unauthorized"}"#, Some(Packet::Refused("unauthorized".into())));
        check(r#"44"unauthorized""#, Some(Packet::Refused("unauthorized".into())));
        check("44", Some(Packet::Refused(String::new())));
        let array = r#"["initial",{"a":1}]"#;
        check(&format!("42{array}"), Some(Packet::Event { name: "initial", array }));
        check(&format!("4217{array}"), Some(Packet::Event { name: "initial", array }));
        check(r#"433[{"code":200}]"#, Some(Packet::Ack { call: 3, array: r#"[{"code":200}]"# }));
        check(r#"42/chat,["x"]"#, Some(Packet::Other));
        check("42", None);
        check("42[7]", None);
        check("43[]", None);
        check("", None);
        check("é", None);
        check("4é", None);
        check("9", None);
    }

    #[test]
    fn a_feed_is_found_wherever_it_hangs() {
        let state = json!(["initial", {
            "attrs": { "id": "ann" },
            "models": { "user": { "id": "ann", "attrs": {}, "collections": {
                "notes": { "id": "user.ann.notes", "v": "", "models": [] } } } },
            "collections": { "teams": { "id": "teams", "models": [{
                "id": "red", "attrs": { "id": "not.a.feed" },
                "collections": { "members": { "id": "team.red.members", "models": [] } },
            }] } },
        }])
        .to_string();
        for feed in ["user.ann.notes", "teams", "team.red.members"] {
            assert!(shows_feed(&state, feed), "{feed}");
        }
        assert!(!shows_feed(&state, "not.a.feed"));
        assert!(!shows_feed("[]", "teams"));
        assert!(!shows_feed("broken", "teams"));
    }

    #[test]
    fn a_call_is_written_and_its_answer_read() {
        assert_eq!(call(7, "subscribe", &json!({"feed": "x"})), r#"427["subscribe",{"feed":"x"}]"#);
        assert_eq!(ack_code(r#"[{"code":403,"error":"no"}]"#), Some(403));
        assert_eq!(ack_code("[]"), None);
    }
}
