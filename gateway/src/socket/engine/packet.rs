//! Packets of socket.io, revisions 3 and 4 (1.x, 2.x) and 5 (3.x, 4.x).
//!
//! They are the text behind engine.io's `4`: type, attachments, namespace, number, JSON.

use std::fmt::Write;

use serde_json::value::RawValue;

/// How deep JSON may be nested.
const DEPTH: usize = 64;

/// How many binary attachments a packet may have.
pub const ATTACHMENTS: usize = 64;

/// How long the name of a namespace may be, its query included.
const NAMESPACE: usize = 1_024;

/// The largest number that every client can count to.
const LARGEST_ID: u64 = (1 << 53) - 1;

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Joins a namespace, or tells that it is joined.
    Connect,
    /// Leaves a namespace.
    Disconnect,
    /// Carries an event.
    Event,
    /// Answers an event.
    Ack,
    /// Refuses a namespace; only servers say so.
    Error,
    /// Carries an event with attachments.
    BinaryEvent,
    /// Answers an event, with attachments.
    BinaryAck,
}

impl Kind {
    const fn of(digit: u8) -> Result<Self, BadPacket> {
        match digit {
            b'0' => Ok(Self::Connect),
            b'1' => Ok(Self::Disconnect),
            b'2' => Ok(Self::Event),
            b'3' => Ok(Self::Ack),
            b'4' => Ok(Self::Error),
            b'5' => Ok(Self::BinaryEvent),
            b'6' => Ok(Self::BinaryAck),
            _ => Err(BadPacket::Type),
        }
    }

    const fn digit(self) -> char {
        match self {
            Self::Connect => '0',
            Self::Disconnect => '1',
            Self::Event => '2',
            Self::Ack => '3',
            Self::Error => '4',
            Self::BinaryEvent => '5',
            Self::BinaryAck => '6',
        }
    }

    /// Tells whether binary attachments may follow.
    #[must_use]
    pub const fn is_binary(self) -> bool {
        matches!(self, Self::BinaryEvent | Self::BinaryAck)
    }
}

/// One packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it is.
    pub kind: Kind,
    /// How many binary attachments follow; 0 for kinds without.
    pub attachments: usize,
    /// Its namespace without the query; `/` where none is named.
    pub namespace: &'a str,
    /// What follows `?` in its namespace, as 1.x and 2.x join one.
    pub query: Option<&'a str>,
    /// The number under which it is to be answered, or which it answers.
    pub id: Option<u64>,
    /// Its JSON text, nested at most 64 deep: an array that begins with a name for events, an
    /// array for answers, an object or nothing for CONNECT, nothing for DISCONNECT.
    pub data: &'a str,
}

/// What is no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPacket {
    /// Nobody knows this type of packet, or there is none.
    #[error("packet has an unknown type")]
    Type,
    /// The number of attachments is missing.
    #[error("packet does not say how many attachments it has")]
    Attachments,
    /// There are more attachments than a packet may have.
    #[error("packet has too many attachments")]
    TooManyAttachments,
    /// The name of its namespace is too long.
    #[error("name of the namespace is too long")]
    Namespace,
    /// Its number is larger than clients can count, or is missing in an answer.
    #[error("packet has no valid number")]
    Id,
    /// Its data is not JSON.
    #[error("data of the packet is not JSON")]
    Json,
    /// Its data is nested too deep.
    #[error("data of the packet is nested too deep")]
    Deep,
    /// Its data is JSON, but not what this type of packet has.
    #[error("data of the packet is not of its type")]
    Data,
}

impl BadPacket {
    /// Returns the name used as a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Type => "socketio_type",
            Self::Attachments => "attachments",
            Self::TooManyAttachments => "too_many_attachments",
            Self::Namespace => "namespace",
            Self::Id => "id",
            Self::Json => "json",
            Self::Deep => "deep_json",
            Self::Data => "data",
        }
    }
}

/// Reads a packet.
///
/// # Errors
///
/// Returns what is wrong with it.
pub fn parse(text: &str) -> Result<Packet<'_>, BadPacket> {
    let kind = Kind::of(*text.as_bytes().first().ok_or(BadPacket::Type)?)?;
    let rest = &text[1..];
    let (attachments, rest) = if kind.is_binary() { attachments(rest)? } else { (0, rest) };
    let (name, rest) = match rest.split_once(',') {
        _ if !rest.starts_with('/') => ("/", rest),
        Some((name, rest)) => (name, rest),
        None => (rest, ""),
    };
    if name.len() > NAMESPACE {
        return Err(BadPacket::Namespace);
    }
    let (namespace, query) = match name.split_once('?') {
        Some((namespace, query)) => (namespace, Some(query)),
        None => (name, None),
    };
    let (id, rest) = id(rest)?;
    let data = json(rest)?;
    let is_array = data.starts_with('[');
    let is_right = match kind {
        Kind::Connect => data.is_empty() || data.starts_with('{'),
        Kind::Disconnect => data.is_empty(),
        Kind::Event | Kind::BinaryEvent => is_array && name_end(data).is_some(),
        Kind::Ack | Kind::BinaryAck => is_array,
        // A bare number would be read as the packet's own.
        Kind::Error => !data.starts_with(|first: char| first.is_ascii_digit()),
    };
    if !is_right {
        return Err(BadPacket::Data);
    }
    if matches!(kind, Kind::Ack | Kind::BinaryAck) && id.is_none() {
        return Err(BadPacket::Id);
    }
    Ok(Packet { kind, attachments, namespace, query, id, data })
}

/// Splits the data of an event into its name and the array of its arguments.
///
/// A name that is a number is the text of that number.
///
/// # Errors
///
/// Returns [`BadPacket::Json`], and [`BadPacket::Data`] where it is JSON but no event.
pub fn event(data: &str) -> Result<(String, String), BadPacket> {
    let data = json(data)?;
    let (begin, end) = name_end(data).ok_or(BadPacket::Data)?;
    let name = &data[begin..end];
    let name = match name.starts_with('"') {
        true => serde_json::from_str(name).map_err(|_| BadPacket::Data)?,
        false => name.to_owned(),
    };
    let rest = data[end..].trim_start();
    let args = match rest.strip_prefix(',') {
        Some(args) => ["[", args.trim_start()].concat(),
        None => "[]".to_owned(),
    };
    Ok((name, args))
}

/// Writes what stands before the JSON of a packet, engine.io's `4` in front.
#[must_use]
pub fn head(kind: Kind, attachments: usize, namespace: &str, id: Option<u64>) -> String {
    let mut head = String::with_capacity(4);
    head.push('4');
    head.push(kind.digit());
    if kind.is_binary() {
        write!(head, "{attachments}-").expect("writing into a string cannot fail");
    }
    if namespace != "/" {
        head.push_str(namespace);
        head.push(',');
    }
    if let Some(id) = id {
        write!(head, "{id}").expect("writing into a string cannot fail");
    }
    head
}

/// Takes the number of attachments from the front.
fn attachments(text: &str) -> Result<(usize, &str), BadPacket> {
    let (digits, rest) = text.split_at(digits(text));
    let rest = rest.strip_prefix('-').ok_or(BadPacket::Attachments)?;
    if digits.is_empty() {
        return Err(BadPacket::Attachments);
    }
    match digits.parse() {
        Ok(count) if count <= ATTACHMENTS => Ok((count, rest)),
        _ => Err(BadPacket::TooManyAttachments),
    }
}

/// Takes the packet's number from the front, if it has one.
fn id(text: &str) -> Result<(Option<u64>, &str), BadPacket> {
    let (digits, rest) = text.split_at(digits(text));
    if digits.is_empty() {
        return Ok((None, rest));
    }
    match digits.parse() {
        Ok(id @ ..=LARGEST_ID) => Ok((Some(id), rest)),
        _ => Err(BadPacket::Id),
    }
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// Checks that a text is JSON that is not too deep, or nothing, and returns it without the white
/// space around it.
fn json(text: &str) -> Result<&str, BadPacket> {
    if text.is_empty() {
        return Ok(text);
    }
    // Looks before anything that could recurse.
    if depth(text) > DEPTH {
        return Err(BadPacket::Deep);
    }
    let raw: &RawValue = serde_json::from_str(text).map_err(|_| BadPacket::Json)?;
    Ok(raw.get())
}

/// Counts how deep arrays and objects are nested.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    deepest
}

/// Goes behind the quote that ends a string.
fn skip_string(bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => _ = bytes.next(),
            b'"' => return,
            _ => {}
        }
    }
}

/// Tells where in a JSON array the name of its event begins and ends: a string or a number at
/// the first place.
fn name_end(array: &str) -> Option<(usize, usize)> {
    let inner = array.strip_prefix('[')?.trim_start();
    let begin = array.len() - inner.len();
    let length = match inner.as_bytes().first()? {
        b'"' => {
            let mut bytes = inner.bytes();
            bytes.next();
            skip_string(&mut bytes);
            inner.len() - bytes.len()
        }
        b'-' | b'0'..=b'9' => inner.find([',', ']', ' ', '\t', '\n', '\r'])?,
        _ => return None,
    };
    Some((begin, begin + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a packet without anything is.
    const PLAIN: Packet<'_> = Packet {
        kind: Kind::Connect,
        attachments: 0,
        namespace: "/",
        query: None,
        id: None,
        data: "",
    };

    #[track_caller]
    fn check(text: &str, expected: Result<Packet<'_>, BadPacket>) {
        assert_eq!(parse(text), expected, "{text}");
        let Ok(packet) = expected else { return };
        if packet.query.is_none() {
            let Packet { kind, attachments, namespace, id, data, .. } = packet;
            let written = head(kind, attachments, namespace, id) + data;
            assert_eq!(parse(&written[1..]), expected, "{written}");
        }
    }

    #[test]
    fn every_type_of_packet_is_read() {
        use Kind::{Ack, BinaryAck, BinaryEvent, Disconnect, Error, Event};
        check("0", Ok(PLAIN));
        check("0{\"token\":\"x\"}", Ok(Packet { data: "{\"token\":\"x\"}", ..PLAIN }));
        check("0/chat", Ok(Packet { namespace: "/chat", ..PLAIN }));
        check("0/chat,", Ok(Packet { namespace: "/chat", ..PLAIN }));
        let query = Some("token=x");
        check("0/chat?token=x,", Ok(Packet { namespace: "/chat", query, ..PLAIN }));
        check("0/chat?token=x", Ok(Packet { namespace: "/chat", query, ..PLAIN }));
        check("0/?token=x", Ok(Packet { query, ..PLAIN }));
        check("0/chat,{}", Ok(Packet { namespace: "/chat", data: "{}", ..PLAIN }));
        check("1", Ok(Packet { kind: Disconnect, ..PLAIN }));
        check("1/chat,", Ok(Packet { kind: Disconnect, namespace: "/chat", ..PLAIN }));
        let event = Packet { kind: Event, data: "[\"name\",1]", ..PLAIN };
        check("2[\"name\",1]", Ok(event));
        check("2 [\"name\",1] ", Ok(event));
        check("20[\"name\",1]", Ok(Packet { id: Some(0), ..event }));
        check("2/chat,7[\"name\",1]", Ok(Packet { namespace: "/chat", id: Some(7), ..event }));
        check("2/a,b,[\"x\"]", Err(BadPacket::Json));
        check("2[1]", Ok(Packet { kind: Event, data: "[1]", ..PLAIN }));
        let ack = Packet { kind: Ack, id: Some(0), data: "[]", ..PLAIN };
        check("30[]", Ok(ack));
        check("3/chat,12[]", Ok(Packet { namespace: "/chat", id: Some(12), ..ack }));
        let largest = Some(9_007_199_254_740_991);
        check("39007199254740991[]", Ok(Packet { id: largest, ..ack }));
        check("4\"no\"", Ok(Packet { kind: Error, data: "\"no\"", ..PLAIN }));
        let data = "[\"e\",{\"_placeholder\":true,\"num\":0}]";
        let binary = Packet { kind: BinaryEvent, attachments: 1, data, ..PLAIN };
        check("51-[\"e\",{\"_placeholder\":true,\"num\":0}]", Ok(binary));
        check("50-[\"e\"]", Ok(Packet { attachments: 0, data: "[\"e\"]", ..binary }));
        let chat = Packet { namespace: "/chat", id: Some(3), attachments: 64, ..binary };
        check("564-/chat,3[\"e\",{\"_placeholder\":true,\"num\":0}]", Ok(chat));
        check("61-5[0]", Ok(Packet { kind: BinaryAck, id: Some(5), data: "[0]", ..binary }));
    }

    #[test]
    fn each_mistake_has_its_error() {
        check("", Err(BadPacket::Type));
        check("7", Err(BadPacket::Type));
        check("é", Err(BadPacket::Type));
        check("5[\"e\"]", Err(BadPacket::Attachments));
        check("5-[\"e\"]", Err(BadPacket::Attachments));
        check("51[\"e\"]", Err(BadPacket::Attachments));
        check("5", Err(BadPacket::Attachments));
        check("565-[\"e\"]", Err(BadPacket::TooManyAttachments));
        check("599999999999999999999999-[\"e\"]", Err(BadPacket::TooManyAttachments));
        check(&format!("0/{},", "x".repeat(1_024)), Err(BadPacket::Namespace));
        check("29007199254740992[\"e\"]", Err(BadPacket::Id));
        check("299999999999999999999999999[\"e\"]", Err(BadPacket::Id));
        check("3[]", Err(BadPacket::Id));
        for text in ["2[", "2[\"e\",]", "2[\"e\"]x", "2x", "2[\"e\", 01]", "0x", "1x", "2\u{a0}[1]"]
        {
            check(text, Err(BadPacket::Json));
        }
        for text in [
            "4 7",
            "2",
            "2[]",
            "2{}",
            "2[{}]",
            "2[null]",
            "2[[\"e\"]]",
            "3",
            "31",
            "31{}",
            "1{}",
            "0[]",
            "0\"x\"",
            "2/chat,",
        ] {
            check(text, Err(BadPacket::Data));
        }
        check("2true", Err(BadPacket::Data));
    }

    #[test]
    fn json_that_is_nested_too_deep_is_refused() {
        let nested = |open: &str, close: &str, depth| {
            format!("2[\"e\",{}1{}]", open.repeat(depth), close.repeat(depth))
        };
        assert!(parse(&nested("[", "]", 63)).is_ok());
        check(&nested("[", "]", 64), Err(BadPacket::Deep));
        check(&nested("{\"a\":", "}", 64), Err(BadPacket::Deep));
        check(&format!("2{}", "[".repeat(1_000_000)), Err(BadPacket::Deep));
        // Brackets in strings are none.
        let text = format!("2[\"\\\"{}\"]", "[".repeat(100));
        assert!(parse(&text).is_ok());
    }

    #[track_caller]
    fn splits(data: &str, expected: Result<(&str, &str), BadPacket>) {
        let split = event(data);
        let split = split.as_ref().map(|(name, args)| (name.as_str(), args.as_str()));
        assert_eq!(split.map_err(|error| *error), expected, "{data}");
    }

    #[test]
    fn an_event_is_its_name_and_the_text_of_its_arguments() {
        splits(r#"["add"]"#, Ok(("add", "[]")));
        splits(r#" [ "add" ] "#, Ok(("add", "[]")));
        splits(r#"["add",{"b":1,"a":1.0}]"#, Ok(("add", r#"[{"b":1,"a":1.0}]"#)));
        splits(r#"["é\n\"", 1 , [2]]"#, Ok(("é\n\"", "[1 , [2]]")));
        splits(r#"["\u00e9"]"#, Ok(("é", "[]")));
        splits("[12,1]", Ok(("12", "[1]")));
        splits("[-1.5e3 ]", Ok(("-1.5e3", "[]")));
        splits("[null]", Err(BadPacket::Data));
        splits(r#"["\ud800"]"#, Err(BadPacket::Data));
        splits("[]", Err(BadPacket::Data));
        splits(r#"{"a":1}"#, Err(BadPacket::Data));
        splits(r#"["add",]"#, Err(BadPacket::Json));
        splits("", Err(BadPacket::Data));
    }

    #[test]
    fn heads_are_written_as_each_kind_has_them() {
        assert_eq!(head(Kind::Connect, 0, "/", None), "40");
        assert_eq!(head(Kind::Connect, 0, "/chat", None), "40/chat,");
        assert_eq!(head(Kind::Disconnect, 0, "/chat", None), "41/chat,");
        assert_eq!(head(Kind::Ack, 0, "/chat", Some(7)), "43/chat,7");
        assert_eq!(head(Kind::BinaryEvent, 1, "/", None), "451-");
        assert_eq!(head(Kind::BinaryAck, 2, "/chat", Some(0)), "462-/chat,0");
    }
}
