//! One message, encoded once per wire format however many clients get it.

use std::{
    ops::Range,
    sync::{Arc, OnceLock, Weak},
};

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

/// A frame for as long as anybody else has it.
#[derive(Debug)]
pub struct WeakFrame(Weak<Inner>);

impl WeakFrame {
    /// Returns the frame, if anybody has it.
    #[must_use]
    pub fn upgrade(&self) -> Option<Frame> {
        self.0.upgrade().map(Frame)
    }
}

#[derive(Debug)]
struct Inner {
    name: Box<str>,
    utf8: Wire,
    /// Made at the first need, where it differs.
    ascii: OnceLock<Wire>,
    /// The same with `v` null; made at the first need.
    blind: OnceLock<Frame>,
    about: Option<About>,
    shared: bool,
}

impl Frame {
    /// Makes an event that is none of a feed's, of its name and its argument, which must be
    /// JSON text.
    #[must_use]
    pub fn event(name: &str, json: impl AsRef<str>) -> Self {
        Self::new(name, Draft::of(&quoted(name), json.as_ref()).finish(), None, false)
    }

    /// Makes an event of a feed, whose argument is an object that ends with its `v`.
    ///
    /// Every event that tells a feed's version must be made here: a mailbox that drops a change
    /// takes the version from those behind it, and finds them by this.
    #[must_use]
    pub fn of_feed(about: About, name: &str, json: impl AsRef<str>) -> Self {
        Self::new(name, Draft::of(&quoted(name), json.as_ref()).finish(), Some(about), false)
    }

    /// Makes a snapshot (`initial`, `reset`): shared bytes that count in no client's mailbox.
    #[must_use]
    pub fn snapshot(name: &str, json: impl AsRef<str>) -> Self {
        let json = json.as_ref();
        Self::write_snapshot(name, json.len(), |out| out.push_str(json))
    }

    /// Makes a snapshot of what `write` adds to a text: about so many bytes, written once, where
    /// they stay.
    #[must_use]
    pub fn write_snapshot(name: &str, bytes: usize, write: impl FnOnce(&mut String)) -> Self {
        let mut draft = Draft::new(&quoted(name), bytes);
        write(&mut draft.text);
        Self::new(name, draft.finish(), None, true)
    }

    fn new(name: &str, utf8: Wire, about: Option<About>, shared: bool) -> Self {
        metrics::frame_encoded(Format::Utf8);
        debug_assert!(
            serde_json::from_str::<&RawValue>(utf8.json()).is_ok(),
            "{name} is made of JSON"
        );
        let (ascii, blind) = (OnceLock::new(), OnceLock::new());
        Self(Arc::new(Inner { name: name.into(), utf8, ascii, blind, about, shared }))
    }

    /// Returns what finds this frame again while anybody has it.
    #[must_use]
    pub fn downgrade(&self) -> WeakFrame {
        WeakFrame(Arc::downgrade(&self.0))
    }

    /// Returns what this event means to those around it, if it is one of a feed.
    #[must_use]
    pub fn about(&self) -> Option<&About> {
        self.0.about.as_ref()
    }

    /// Returns the same event with `v` null; encoded at the first call, once for all clients.
    #[must_use]
    pub fn without_version(&self) -> Self {
        let whole = self.0.about.as_ref().and_then(|_| split_version(self.0.utf8.json()));
        let Some(head) = whole else { return self.clone() };
        let blind = self.0.blind.get_or_init(|| {
            let json = format!(r#"{head},"v":null}}"#);
            let wire = Draft::of(&quoted(&self.0.name), &json).finish();
            Self::new(&self.0.name, wire, self.0.about.clone(), self.0.shared)
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
    pub fn json(&self, format: Format) -> &str {
        self.wire(format).json()
    }

    /// Returns the same without copying it.
    #[must_use]
    pub fn argument(&self, format: Format) -> Bytes {
        let wire = self.wire(format);
        wire.bytes.slice(wire.argument())
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
        let Inner { utf8, ascii, name, .. } = &*self.0;
        match format {
            Format::Utf8 => utf8,
            Format::Ascii => ascii.get_or_init(|| utf8.to_ascii(name)),
        }
    }

    /// Returns how many bytes this frame counts in a mailbox.
    #[must_use]
    pub fn weight(&self) -> usize {
        let Inner { utf8, name, shared, .. } = &*self.0;
        if *shared { 0 } else { utf8.argument().len() + name.len() + FRAME_OVERHEAD }
    }

    /// Returns how many bytes it has if it is a snapshot, which counts in no mailbox.
    #[must_use]
    pub fn snapshot_bytes(&self) -> usize {
        if self.0.shared { self.0.utf8.argument().len() } else { 0 }
    }
}

/// One event as it goes over a websocket; all other forms of it are parts of that.
#[derive(Debug, Clone)]
struct Wire {
    bytes: Bytes,
    /// How long the header of the websocket's frame is.
    head: usize,
    /// Where the argument begins.
    begin: usize,
}

impl Wire {
    /// Returns where the argument is.
    fn argument(&self) -> Range<usize> {
        self.begin..self.bytes.len() - END.len()
    }

    fn json(&self) -> &str {
        std::str::from_utf8(&self.bytes[self.argument()]).expect("it was written as text")
    }

    /// Returns the same in ASCII: most are that already.
    fn to_ascii(&self, name: &str) -> Self {
        if self.bytes[self.head..].iter().all(|byte| *byte <= 0x7e) {
            return self.clone();
        }
        metrics::frame_encoded(Format::Ascii);
        Draft::of(&ascii(&quoted(name)), &ascii(self.json())).finish()
    }
}

/// An event that is being written: a text that begins with room for a websocket's header.
struct Draft {
    text: String,
    /// Where the argument begins.
    begin: usize,
}

/// What stands behind the argument.
const END: &str = "]";

impl Draft {
    /// Begins an event of this name, which is JSON, whose argument will have so many bytes.
    fn new(name: &str, bytes: usize) -> Self {
        let length = HEAD + "42[,".len() + name.len() + bytes + END.len();
        let mut text = String::with_capacity(length);
        text.extend(['\0'; HEAD]);
        text.push_str("42[");
        text.push_str(name);
        text.push(',');
        let begin = text.len();
        Self { text, begin }
    }

    fn of(name: &str, json: &str) -> Self {
        let mut draft = Self::new(name, json.len());
        draft.text.push_str(json);
        draft
    }

    fn finish(mut self) -> Wire {
        self.text.push_str(END);
        let mut bytes = self.text.into_bytes();
        let (header, head) = header(bytes.len() - HEAD);
        let unused = HEAD - head;
        bytes[unused..HEAD].copy_from_slice(&header[..head]);
        Wire { bytes: Bytes::from(bytes).slice(unused..), head, begin: self.begin - unused }
    }
}

fn quoted(name: &str) -> String {
    serde_json::to_string(name).expect("a text is JSON")
}

/// How long the header of a websocket's frame is at most.
const HEAD: usize = 10;

/// Returns the header of a server's frame with a text, and how long it is.
fn header(length: usize) -> ([u8; HEAD], usize) {
    let mut header = [0; HEAD];
    header[0] = 0x81;
    let used = match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..126), _) => {
            header[1] = length;
            2
        }
        (_, Ok(length)) => {
            header[1] = 126;
            header[2..4].copy_from_slice(&length.to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&(length as u64).to_be_bytes());
            HEAD
        }
    };
    (header, used)
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
        let frame = Frame::event("change", r#"{"title":"é 日本 🚀 \n\u007f"}"#);
        let text = frame.json(Format::Ascii);
        assert!(text.is_ascii());
        assert!(text.contains("\\ud83d\\ude80"));
        let (left, right): (serde_json::Value, serde_json::Value) = (
            serde_json::from_str(text).unwrap(),
            serde_json::from_str(frame.json(Format::Utf8)).unwrap(),
        );
        assert_eq!(left, right);
    }

    #[test]
    fn a_version_is_taken_out_once_and_from_its_own_place_only() {
        let about = About::Change { feed: "f".into(), id: "1".into() };
        let json = r#"{"feed":"f","id":"1","item":{"v":"1","w":",\"v\":\""},"v":"00ff"}"#;
        let frame = Frame::of_feed(about.clone(), "change", json);
        let blind = frame.without_version();
        let expected = json.replace(r#""00ff""#, "null");
        assert_eq!(blind.json(Format::Utf8), expected);
        assert_eq!((blind.name(), blind.about()), ("change", Some(&about)));
        assert!(Arc::ptr_eq(&blind.0, &frame.without_version().0));
        assert!(Arc::ptr_eq(&blind.0, &blind.without_version().0));
        let null = r#"{"feed":"f","id":"1","item":{"a":1,"v":"00ff"},"v":null}"#;
        let null = Frame::of_feed(about, "change", null);
        assert!(Arc::ptr_eq(&null.0, &null.without_version().0));
        let other = Frame::event("told", json);
        assert!(Arc::ptr_eq(&other.0, &other.without_version().0));
    }

    /// Checks that all forms of an event are parts of one buffer, which begins with this header.
    #[track_caller]
    fn check_forms(name: &str, json: &str, header: &[u8]) {
        let frame = Frame::event(name, json);
        let text = format!("42[{},{json}]", serde_json::to_string(name).unwrap());
        let whole = frame.websocket(Format::Utf8);
        assert_eq!(whole, [header, text.as_bytes()].concat());
        for (part, expected) in
            [(frame.text(Format::Utf8), &*text), (frame.argument(Format::Utf8), json)]
        {
            assert_eq!(part, expected);
            assert!(whole.as_ptr_range().contains(&part.as_ptr()));
        }
        assert_eq!(frame.json(Format::Utf8), json);
    }

    #[test]
    fn all_forms_of_an_event_are_parts_of_one_buffer() {
        check_forms("a", "1", &[0x81, 9]);
        let filled = |length: usize| format!("\"{}\"", "x".repeat(length - 10));
        check_forms("a", &filled(125), &[0x81, 125]);
        check_forms("a", &filled(126), &[0x81, 126, 0, 126]);
        check_forms("a", &filled(0xffff), &[0x81, 126, 0xff, 0xff]);
        check_forms("a", &filled(0x1_0000), &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        check_forms("\"é\"", "{}", &[0x81, 15]);
    }

    #[test]
    fn what_is_ascii_is_not_encoded_again_and_what_is_not_is_escaped_with_its_name() {
        let plain = Frame::event("plain", "[1]");
        let [utf8, ascii] = [Format::Utf8, Format::Ascii].map(|format| plain.websocket(format));
        assert_eq!(utf8.as_ptr(), ascii.as_ptr());
        let other = Frame::event("é", "\"ü\"");
        assert_eq!(other.text(Format::Ascii), r#"42["\u00e9","\u00fc"]"#);
        assert_eq!(other.json(Format::Ascii), r#""\u00fc""#);
    }
}
