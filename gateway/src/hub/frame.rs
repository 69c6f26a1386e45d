//! One message, encoded once per wire format however many clients get it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::metrics;

/// How text goes over a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// UTF-8 as it is: socket.io 3.x and 4.x.
    Utf8,
    /// Everything above U+007E as `\uXXXX`, which all older clients read right on every transport.
    Ascii,
}

impl Format {
    /// Returns the name used as a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Utf8 => "utf8",
            Self::Ascii => "ascii",
        }
    }
}

/// What an event of a feed means to those around it in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum About {
    /// An item of a feed has other bytes; `v` is the feed's.
    Change {
        /// The feed's name.
        feed: Arc<str>,
        /// The item's id.
        id: Arc<str>,
    },
    /// Anything else happened to a feed; `v` is the feed's.
    Feed(Arc<str>),
    /// An item that stands alone, such as a team's attributes, has other bytes; `v` is its own.
    Lone {
        /// The name of the feed that the item is from.
        feed: Arc<str>,
        /// The item's id.
        id: Arc<str>,
    },
}

impl About {
    /// Returns the feed whose version the event tells, if it tells one.
    #[must_use]
    pub const fn feed(&self) -> Option<&Arc<str>> {
        match self {
            Self::Change { feed, .. } | Self::Feed(feed) => Some(feed),
            Self::Lone { .. } => None,
        }
    }

    /// Tells whether a newer event of the same makes this one superfluous.
    #[must_use]
    pub const fn is_change(&self) -> bool {
        !matches!(self, Self::Feed(_))
    }
}

/// A message for clients: a name and one JSON argument, shared by all who get it.
#[derive(Debug, Clone)]
pub struct Frame(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: Box<str>,
    utf8: Box<RawValue>,
    ascii: OnceLock<Box<RawValue>>,
    /// The event as a websocket carries it, in each format.
    wire: [OnceLock<Wire>; 2],
    /// The same with `v` null; made at the first need.
    blind: OnceLock<Frame>,
    about: Option<About>,
    shared: bool,
}

impl Frame {
    /// Makes an event that is none of a feed's, of its name and its argument, which must be
    /// JSON text.
    ///
    /// # Panics
    ///
    /// Panics when `json` is not JSON: frames are made of what the gateway encoded itself.
    #[must_use]
    pub fn event(name: &str, json: String) -> Self {
        Self::new(name, json, None, false)
    }

    /// Makes an event of a feed, whose argument is an object that ends with its `v`.
    ///
    /// Every event that tells a feed's version must be made here: a mailbox that drops a change
    /// takes the version from those behind it, and finds them by this.
    ///
    /// # Panics
    ///
    /// Panics when `json` is not JSON, as [`Frame::event`] does.
    #[must_use]
    pub fn of_feed(about: About, name: &str, json: String) -> Self {
        Self::new(name, json, Some(about), false)
    }

    /// Makes a snapshot (`initial`, `reset`): shared bytes that count in no client's mailbox.
    ///
    /// # Panics
    ///
    /// Panics when `json` is not JSON, as [`Frame::event`] does.
    #[must_use]
    pub fn snapshot(name: &str, json: String) -> Self {
        Self::new(name, json, None, true)
    }

    fn new(name: &str, json: String, about: Option<About>, shared: bool) -> Self {
        metrics::frame_encoded(Format::Utf8);
        let utf8 = RawValue::from_string(json).expect("a frame is made of valid JSON");
        let (ascii, blind, wire) = (OnceLock::new(), OnceLock::new(), Default::default());
        Self(Arc::new(Inner { name: name.into(), utf8, ascii, wire, blind, about, shared }))
    }

    /// Returns what this event means to those around it, if it is one of a feed.
    #[must_use]
    pub fn about(&self) -> Option<&About> {
        self.0.about.as_ref()
    }

    /// Returns the same event with `v` null; encoded at the first call, once for all clients.
    #[must_use]
    pub fn without_version(&self) -> Self {
        let whole = self.0.about.as_ref().and_then(|_| split_version(self.0.utf8.get()));
        let Some(head) = whole else { return self.clone() };
        let blind = self.0.blind.get_or_init(|| {
            let json = format!(r#"{head},"v":null}}"#);
            Self::new(&self.0.name, json, self.0.about.clone(), self.0.shared)
        });
        blind.clone()
    }

    /// Returns the event's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the argument as a wire format wants it; encoded at the first call.
    #[must_use]
    pub fn json(&self, format: Format) -> &RawValue {
        match format {
            Format::Utf8 => &self.0.utf8,
            Format::Ascii => self.0.ascii.get_or_init(|| {
                metrics::frame_encoded(Format::Ascii);
                let text = ascii(self.0.utf8.get());
                RawValue::from_string(text).expect("escaping keeps JSON valid")
            }),
        }
    }

    /// Returns the event as an engine.io message of the namespace `/`: `42["name",{…}]`.
    #[must_use]
    pub fn text(&self, format: Format) -> Bytes {
        let wire = self.wire(format);
        wire.bytes.slice(wire.head..)
    }

    /// Returns the same as a websocket frame of a server: with its header (RFC 6455, 5.2).
    #[must_use]
    pub fn websocket(&self, format: Format) -> Bytes {
        self.wire(format).bytes.clone()
    }

    fn wire(&self, format: Format) -> &Wire {
        let (at, json) = (format as usize, self.json(format).get());
        self.0.wire[at].get_or_init(|| Wire::new(&self.0.name, json))
    }

    /// Returns how many bytes this frame counts in a mailbox.
    #[must_use]
    pub fn weight(&self) -> usize {
        if self.0.shared { 0 } else { self.0.utf8.get().len() + self.0.name.len() + FRAME_OVERHEAD }
    }

    /// Returns how many bytes it has if it is a snapshot, which counts in no mailbox.
    #[must_use]
    pub fn snapshot_bytes(&self) -> usize {
        if self.0.shared { self.0.utf8.get().len() } else { 0 }
    }
}

/// One event as it goes over a websocket.
#[derive(Debug)]
struct Wire {
    bytes: Bytes,
    /// How long the frame's header is.
    head: usize,
}

impl Wire {
    fn new(name: &str, json: &str) -> Self {
        let name = serde_json::to_string(name).expect("a text is JSON");
        let length = r#"42[,]"#.len() + name.len() + json.len();
        let mut bytes = Vec::with_capacity(length + 10);
        bytes.push(0x81);
        match length {
            ..126 => bytes.push(length as u8),
            126..0x1_0000 => {
                bytes.push(126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        let head = bytes.len();
        bytes.extend_from_slice(b"42[");
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b',');
        bytes.extend_from_slice(json.as_bytes());
        bytes.push(b']');
        Self { bytes: bytes.into(), head }
    }
}

/// Returns what stands before `"v":"…"}` at the end of an event, if it ends so.
fn split_version(json: &str) -> Option<&str> {
    let (head, v) = json.rsplit_once(r#","v":""#)?;
    v.strip_suffix("\"}").filter(|v| !v.contains('"')).map(|_| head)
}

/// What one queued frame costs beyond its text, in bytes.
pub const FRAME_OVERHEAD: usize = 64;

/// Escapes everything above U+007E, surrogate pairs as two escapes. Outside of strings JSON has
/// no such text.
#[must_use]
pub fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + 16);
    for char in json.chars() {
        if char <= '\u{7e}' {
            out.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            use std::fmt::Write;
            write!(out, "\\u{unit:04x}").expect("a String takes everything");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ascii_frame_says_the_same_without_any_byte_above_7e() {
        let frame = Frame::event("change", r#"{"title":"é 日本 🚀 \n\u007f"}"#.to_owned());
        let text = frame.json(Format::Ascii).get();
        assert!(text.is_ascii());
        assert!(text.contains("\\ud83d\\ude80"));
        let (left, right): (serde_json::Value, serde_json::Value) = (
            serde_json::from_str(text).unwrap(),
            serde_json::from_str(frame.json(Format::Utf8).get()).unwrap(),
        );
        assert_eq!(left, right);
    }

    #[test]
    fn a_version_is_taken_out_once_and_from_its_own_place_only() {
        let about = About::Change { feed: "f".into(), id: "1".into() };
        let json = r#"{"feed":"f","id":"1","item":{"v":"1","w":",\"v\":\""},"v":"00ff"}"#;
        let frame = Frame::of_feed(about.clone(), "change", json.to_owned());
        let blind = frame.without_version();
        let expected = json.replace(r#""00ff""#, "null");
        assert_eq!(blind.json(Format::Utf8).get(), expected);
        assert_eq!((blind.name(), blind.about()), ("change", Some(&about)));
        assert!(Arc::ptr_eq(&blind.0, &frame.without_version().0));
        assert!(Arc::ptr_eq(&blind.0, &blind.without_version().0));
        let null = r#"{"feed":"f","id":"1","item":{"a":1,"v":"00ff"},"v":null}"#;
        let null = Frame::of_feed(about, "change", null.to_owned());
        assert!(Arc::ptr_eq(&null.0, &null.without_version().0));
        let other = Frame::event("told", json.to_owned());
        assert!(Arc::ptr_eq(&other.0, &other.without_version().0));
    }
}
